"""How many threads a call uses, and that others run meanwhile."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import cyroialign
from cyroialign import get_num_threads, num_threads, roi_align, set_num_threads

needs_openmp = pytest.mark.skipif(
    cyroialign.show_config(as_dict=True)["openmp"] is None, reason="built without OpenMP: always one thread"
)
SHOW = "import cyroialign; print(cyroialign.get_num_threads())"


@pytest.fixture
def restored_setting(monkeypatch):
    monkeypatch.setattr(cyroialign.arguments.threads, "_process_setting", None)


@needs_openmp
@pytest.mark.usefixtures("restored_setting")
def test_the_innermost_setting_counts():
    set_num_threads(5)
    assert get_num_threads() == 5
    with num_threads(3):
        assert get_num_threads() == 3
        with num_threads(np.int64(7)):
            assert get_num_threads() == 7
        set_num_threads(4)
        assert get_num_threads() == 3
    assert get_num_threads() == 4


@needs_openmp
@pytest.mark.usefixtures("restored_setting")
def test_setting_is_undone_after_an_exception():
    before = get_num_threads()
    with pytest.raises(ZeroDivisionError), num_threads(before + 1):
        1 / 0
    assert get_num_threads() == before


@needs_openmp
@pytest.mark.usefixtures("restored_setting")
def test_block_belongs_to_its_context():
    """Another Python thread sees the setting of the process, and not the blocks that are open elsewhere."""
    set_num_threads(2)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(get_num_threads).result()  # starts the thread, outside of the block
        with num_threads(3):
            assert pool.submit(get_num_threads).result() == 2
            set_num_threads(4)
            assert pool.submit(get_num_threads).result() == 4
            assert get_num_threads() == 3


@needs_openmp
@pytest.mark.parametrize("n", ["1", "3"])
def test_omp_num_threads(n, run_python):
    assert run_python(SHOW, OMP_NUM_THREADS=n).stdout.strip() == n


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this platform")
def test_affinity(run_python):
    code = f"import os; os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}}); {SHOW}"
    assert run_python(code, OMP_NUM_THREADS=None).stdout.strip() == "1"


@needs_openmp
def test_threadpoolctl(run_python):
    pytest.importorskip("threadpoolctl")
    code = """
        import cyroialign, threadpoolctl
        with threadpoolctl.threadpool_limits(2):
            with threadpoolctl.threadpool_limits(1, user_api="openmp"):
                print(cyroialign.get_num_threads(), end=" ")
            print(cyroialign.get_num_threads(), end=" ")
        print(cyroialign.get_num_threads())
    """
    assert run_python(code, OMP_NUM_THREADS="3").stdout.split() == ["1", "2", "3"]


def test_default_without_openmp_settings_is_positive(run_python):
    assert int(run_python(SHOW, OMP_NUM_THREADS=None).stdout) >= 1


def test_gil_is_released():
    """While a call runs, another thread sees its result half done: with the GIL held it could not look."""
    boxes = np.tile([0.0, 0, 0, 64, 64], (100, 1))
    for channels in (256, 512, 1024, 2048):  # more work if the call was too fast to be caught
        input, out = np.ones((1, channels, 64, 64)), np.zeros((100, channels, 14, 14))
        seen = out[::10, ::8, 0, 0]
        call = threading.Thread(target=roi_align, args=(input, boxes, 14), kwargs={"out": out})
        call.start()
        while call.is_alive() and not seen.any():
            pass
        half_done = seen.any() and not seen.all()
        call.join()
        assert out.all()
        if half_done:
            return
    pytest.fail("a call was never seen half done")
