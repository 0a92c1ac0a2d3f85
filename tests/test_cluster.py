"""The example of a cluster: kills lose and double no row, and any number of workers writes the same bytes."""

import contextlib
import importlib
import json
import os
import pathlib
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import pytest

from cyroialign import show_config

FOLDER = pathlib.Path(__file__).parent.parent / "examples" / "cluster"
COUNT = 40  # images: two parts and a half
BROKEN, GATE = 7, 20  # numbers of the image that is no image, and of that which the tests hold back
TIMEOUT = 300

pytest.importorskip("onnxruntime")
Image = pytest.importorskip("PIL.Image")
pytestmark = pytest.mark.skipif(platform.system() != "Linux", reason="reads /proc")


@pytest.fixture(scope="module")
def step():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("step")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of images of several sizes, kinds and modes."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(COUNT):
        shape = [(30, 40, 3), (50, 35), (20, 20, 4)][number % 3]
        suffix = "png" if number % 3 == 2 else "jpg"
        subfolder = folder / str(number // 30)
        subfolder.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, np.uint8)).save(subfolder / f"{number:03}.{suffix}")
    path_of(folder, BROKEN).write_bytes(b"no image")
    return folder


def path_of(images, number):
    return next(images.rglob(f"{number:03}.*"))


@pytest.fixture(scope="module")
def cluster():
    """The environment of a Ray cluster of this machine alone, or a skip."""
    pytest.importorskip("ray")
    ray = shutil.which("ray", path=pathlib.Path(sys.executable).parent)
    with (
        socket.socket() as free,
        tempfile.TemporaryDirectory(prefix="ray") as folder,
    ):  # sockets: a short path
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ADDRESS": f"127.0.0.1:{port}",
        }
        environment.pop("OMP_NUM_THREADS", None)
        command = [ray, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}"]
        command += ["--min-worker-port=0", "--max-worker-port=0", "--num-cpus=4", f"--temp-dir={folder}"]
        command += ["--object-store-memory=200000000", "--include-dashboard=false", "--disable-usage-stats"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as head:
            try:
                started = any("Ray runtime started" in line for line in head.stdout)
                assert started, "Ray did not start"
                threading.Thread(target=head.stdout.read, daemon=True).start()
                yield environment
            finally:
                head.send_signal(signal.SIGINT)  # SIGTERM would wait 30 seconds for its workers
                head.wait(TIMEOUT)


@contextlib.contextmanager
def job(cluster, images, folder, *options):
    """Run the script; yield its process."""
    command = [sys.executable, FOLDER / "with_ray.py", images, folder, *options]
    with subprocess.Popen(command, env=cluster, stdout=subprocess.PIPE, text=True) as process:
        late = threading.Timer(TIMEOUT, process.kill)
        late.start()
        try:
            yield process
        finally:
            late.cancel()
            process.kill()


def finish(cluster, images, folder, *options):
    """Run the script to its end; return the parts that it has done."""
    with job(cluster, images, folder, *options) as process:
        said = process.stdout.read()
        assert process.wait(TIMEOUT) == 0
    return sorted(int(line.split()[1].strip(":")) for line in said.splitlines() if line.startswith("part "))


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


@pytest.fixture(scope="module")
def reference(cluster, images, tmp_path_factory):
    """What one worker of two threads writes, and nobody disturbs."""
    folder = tmp_path_factory.mktemp("reference")
    assert finish(cluster, images, folder, "--workers", "1", "--threads", "2") == [0, 1, 2]
    return folder


def test_rows(step, images, reference):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(sorted(reference.glob("*.parquet")))
    paths = step.find_images(images)
    assert table["path"].to_pylist() == paths
    assert len(paths) == COUNT
    errors = table["error"].to_pylist()
    assert [number for number, error in enumerate(errors) if error] == [BROKEN]
    features = np.concatenate([chunk.to_numpy_ndarray() for chunk in table["features"].chunks])
    assert features.shape == (COUNT, 14, step.CHANNELS, step.BINS, step.BINS)
    assert np.isnan(features[BROKEN]).all()
    assert np.isfinite(np.delete(features, BROKEN, axis=0)).all()
    whole = step.Step(step.random_backbone(), 1)
    for start in range(0, COUNT, step.IMAGES_PER_PART):
        part = slice(start, start + step.IMAGES_PER_PART)
        np.testing.assert_array_equal(whole(*step.decode(paths[part])), features[part], strict=True)


def until(found):
    """Return what the function finds, which may take a while."""
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if result := found():
                return result
        time.sleep(0.05)
    raise TimeoutError


def open_gate(pipe):
    """Return the pipe and the process that reads it; a pipe without a reader cannot be opened so."""
    descriptor = until(lambda: os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    return descriptor, until(lambda: holder(pipe))


def holder(pipe):
    for link in pathlib.Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if int(link.parts[2]) != os.getpid() and link.readlink() == pipe:
                return int(link.parts[2])
    return None


def wait_for_end(number):
    until(lambda: not pathlib.Path(f"/proc/{number}").exists())


def test_killed_worker_and_driver(cluster, images, reference, tmp_path):
    gate, folder = path_of(images, GATE), tmp_path / "features"
    content = gate.read_bytes()
    gate.unlink()
    os.mkfifo(gate)  # a worker that reads it waits for its end, in the middle of part 1
    try:
        with job(cluster, images, folder, "--workers", "2") as driver:
            descriptor, first = open_gate(gate)
            os.kill(first, signal.SIGKILL)
            wait_for_end(first)
            os.close(descriptor)
            descriptor, second = open_gate(gate)  # the part is begun again
            assert second != first
            driver.kill()
            driver.wait()
            wait_for_end(second)  # Ray ends the workers of a job that is gone
            os.close(descriptor)
    finally:
        gate.unlink()
        gate.write_bytes(content)
    kept = {path.name for path in folder.glob("*.parquet")}
    done = finish(cluster, images, folder, "--workers", "3")
    assert 1 in done
    assert {f"part-{part:06}.parquet" for part in done} == set(files(reference)) - kept
    assert files(folder) == files(reference)
    (folder / "part-000002.parquet").unlink()
    assert finish(cluster, images, folder) == [2]
    assert files(folder) == files(reference)


def test_another_job_is_refused(cluster, images, reference, tmp_path):
    (tmp_path / "job.json").write_text(json.dumps({"paths": []}))
    with job(cluster, images, tmp_path) as process:
        assert process.wait(TIMEOUT) == 1
    assert not files(tmp_path)


def test_a_part_done_twice_is_one_file(step, tmp_path):
    pytest.importorskip("ray")
    with_ray = importlib.import_module("with_ray")
    extract = with_ray.Extract(step.random_backbone(), 1, tmp_path)
    batch = {
        "part": np.array([3, 3]),
        "size": np.array([2, 2]),
        "path": np.array(["a", "b"], object),
        "error": np.array(["", ""], object),
        "image": np.zeros((2, 3, step.SIDE, step.SIDE), np.uint8),
    }
    assert extract(batch)["rows"] == [2]
    first = files(tmp_path)
    extract(batch)
    assert files(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == ["part-000003.parquet"]  # and no draft
    for name, wrong in (("part", [3, 4]), ("size", [3, 3])):  # two parts in a block, or less than one
        with pytest.raises(RuntimeError, match="not a part"):
            extract({**batch, name: np.array(wrong)})


def test_batches_are_read_in_place(cluster, step, run_python):
    said = run_python(
        f"""
        import sys, tracemalloc
        sys.path.insert(0, {str(FOLDER)!r})
        import numpy as np, onnxruntime, ray
        from step import Step, random_backbone
        from cyroialign import roi_align

        def probe(batch):
            images, maps = batch["image"], batch["map"]
            assert not images.flags.writeable and not images.flags.owndata
            assert not maps.flags.writeable and not maps.flags.owndata
            assert onnxruntime.OrtValue.ortvalue_from_numpy(images).data_ptr() == images.ctypes.data
            Step(random_backbone(), 1).maps(images)
            boxes = np.array([[0, 2, 2, 40, 40], [1, 9, 5, 30, 60]], np.float32)
            tracemalloc.start()
            roi_align(maps, boxes, 3, num_threads=1)
            peak = tracemalloc.get_traced_memory()[1]
            return {{"peak": [peak / maps.nbytes]}}

        ray.init(log_to_driver=False)
        ones = np.ones((2, 64, 64, 64), np.float32)
        rows = ray.data.from_numpy([np.zeros((2, 3, 256, 256), np.uint8)]).rename_columns({{"data": "image"}})
        rows = rows.zip(ray.data.from_numpy([ones]).rename_columns({{"data": "map"}})).materialize()
        print(rows.map_batches(probe, batch_size=None, zero_copy_batch=True).take_all()[0]["peak"])
        """,
        timeout=TIMEOUT,
        **cluster,
    )
    assert float(said.stdout.splitlines()[-1]) < 0.1  # of the map: a copy would be 1


def test_ray_sets_the_threads_of_openmp(cluster, run_python):
    said = run_python(
        """
        import ray

        @ray.remote(max_calls=1)  # a new worker each time: OpenMP reads the variable when it is loaded
        def threads():
            import os, cyroialign
            return int(os.environ["OMP_NUM_THREADS"]), cyroialign.get_num_threads()

        ray.init(log_to_driver=False)
        print(*(ray.get(threads.options(num_cpus=n).remote()) for n in (1, 2)))
        """,
        timeout=TIMEOUT,
        **cluster,
    )
    assert said.stdout.splitlines()[-1] == "(1, 1) (2, 2)"


def test_threads_of_a_step(run_python):
    code = f"""
        import os, sys
        sys.path.insert(0, {str(FOLDER)!r})
        import numpy as np
        from step import SIDE, Step, random_backbone
        before = len(os.listdir("/proc/self/task"))
        step = Step(random_backbone(), %d)
        step(np.zeros((2, 3, SIDE, SIDE), np.uint8), ["", ""])
        print(len(os.listdir("/proc/self/task")) - before)
        """
    one, three = (int(run_python(code % count).stdout) for count in (1, 3))
    assert one == 0
    of_openmp = 2 if show_config(as_dict=True)["openmp"] else 0
    assert (
        three == 2 + of_openmp
    )  # beside the caller, two of ONNX Runtime, and those of OpenMP, which then sleep


def test_dask_writes_the_same_bytes(step, images, tmp_path):
    zarr = pytest.importorskip("zarr")
    pytest.importorskip("dask.array")
    results = []
    for workers in ("1", "3"):
        folder = tmp_path / workers
        command = [sys.executable, FOLDER / "with_dask.py", images, folder, "--workers", workers]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        subprocess.run(command, env=environment, check=True, timeout=TIMEOUT)
        results.append(zarr.open_array(folder, mode="r"))
    paths = step.find_images(images)
    whole = step.Step(step.random_backbone(), 1)
    parts = (paths[start : start + step.IMAGES_PER_PART] for start in range(0, COUNT, step.IMAGES_PER_PART))
    expected = np.concatenate([whole(*step.decode(part)) for part in parts])
    for result in results:
        assert result.attrs["paths"] == paths
        assert result[:].tobytes() == expected.tobytes()


def test_measure(capsys, step):
    pytest.importorskip("pyarrow")
    measure = importlib.import_module("measure")
    measure.ROUNDS = 1
    with tempfile.TemporaryDirectory() as folder:
        measure.make_images(folder)
        measure.measure(folder)
    assert "kB an image" in capsys.readouterr().out
