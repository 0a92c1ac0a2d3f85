"""What is raised while a session or an evaluator computes: signal handlers' exceptions arrive as they are."""

import signal
import threading
import traceback

import numpy as np
import pytest
from onnx_models import FEED, adapter, compute_with, evaluate, model, onnx, onnxruntime, run, session

from cyroialign import roi_align

STATE = onnxruntime.capi.onnxruntime_pybind11_state
BAD = FEED | {"images": np.full_like(FEED["images"], 9)}


class OwnError(BaseException):
    """None that `except Exception` would catch."""


class OwnTypeError(TypeError):
    """What a program might raise in a handler, of a type that this package raises of its arguments."""


RAISED = [
    KeyboardInterrupt(),
    SystemExit("stopped"),
    GeneratorExit(),
    OwnError(1),
    TimeoutError("late"),
    ValueError("of a handler"),
    OwnTypeError("of a handler"),
    AttributeError("of a handler"),
]
EACH = pytest.mark.parametrize("error", [pytest.param(error, id=type(error).__name__) for error in RAISED])


@pytest.fixture
def on_signal(monkeypatch):
    """Set what SIGINT does, until the test ends."""
    before = signal.getsignal(signal.SIGINT)

    def handle(does):
        signal.signal(signal.SIGINT, lambda number, frame: does())

    yield handle
    signal.signal(signal.SIGINT, before)


def raises(error):
    def does():
        raise error

    return does


@pytest.fixture
def within(monkeypatch):
    """Have a function called within the next node that is computed, before it reads its inputs."""

    def install(does):
        todo = [does]

        def compute(*args, **settings):
            if todo:
                todo.pop()()
            return roi_align(*args, **settings)

        compute_with(monkeypatch, compute)

    return install


@pytest.fixture
def interrupted(on_signal, within):
    """Have a signal come within the next node, whose handler raises an error."""

    def install(error):
        on_signal(raises(error))
        within(lambda: signal.raise_signal(signal.SIGINT))

    return install


def run_bound(crop):
    binding = crop.io_binding()
    for name, array in FEED.items():
        binding.bind_cpu_input(name, array)
    binding.bind_output("y")
    crop.run_with_iobinding(binding)


def ort_values():
    return {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in FEED.items()}


def run_vector(crop):
    feeds, fetches = STATE.OrtValueVector(), STATE.OrtValueVector()
    for value in ort_values().values():
        feeds.push_back(value._get_c_value())
    device = onnxruntime.OrtDevice.make("cpu", 0)._get_c_device()
    crop.run_with_ortvaluevector(onnxruntime.RunOptions(), list(FEED), feeds, ["y"], fetches, [device])


WAYS = {
    "run": lambda crop: crop.run(None, FEED),
    "run_with_iobinding": run_bound,
    "run_with_ort_values": lambda crop: crop.run_with_ort_values(None, ort_values()),
    "run_with_ortvaluevector": run_vector,
}


@EACH
@pytest.mark.parametrize("way", WAYS)
def test_handlers_errors_arrive(way, error, interrupted):
    crop = session(model())
    assert isinstance(crop, onnxruntime.InferenceSession)
    interrupted(error)
    with pytest.raises(type(error)) as caught:
        WAYS[way](crop)
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None  # not ONNX Runtime's
    WAYS[way](crop)  # as if nothing had been


@EACH
def test_handlers_errors_arrive_from_the_evaluator(error, interrupted):
    interrupted(error)
    with pytest.raises(type(error)) as caught:
        evaluate(model(), FEED)
    assert caught.value is error


@EACH
def test_handlers_errors_arrive_while_a_session_is_made(error, on_signal, monkeypatch):
    def prepare(name, attributes):
        signal.raise_signal(signal.SIGINT)
        return None  # which the handler prevents

    on_signal(raises(error))
    monkeypatch.setattr(adapter, "_prepare", prepare)
    with pytest.raises(type(error)) as caught:
        session(model())
    assert caught.value is error


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs POSIX timers")
def test_timer():
    """The signal comes whenever it comes, mostly while the kernel runs."""

    def late(number, frame):
        raise TimeoutError("late")

    crop = session(model())
    boxes = np.tile(FEED["boxes"], (100, 1))
    feed = FEED | {"boxes": boxes, "images": np.zeros(len(boxes), np.int64)}

    def run_until_late():
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        while True:
            crop.run(None, feed)

    before = signal.signal(signal.SIGALRM, late)
    try:
        for _ in range(3):
            with pytest.raises(TimeoutError, match="late"):
                run_until_late()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def two_parts(monkeypatch):
    """Session options and a barrier with which a node is computed in two parts, on two threads at once."""
    monkeypatch.setattr(adapter, "PART", FEED["x"].shape[1] * 7 * 4 * 15)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    return {"sess_options": options}, threading.Barrier(2, timeout=60)


@EACH
@pytest.mark.parametrize("other", [ValueError, MemoryError, None])
def test_handlers_errors_arrive_from_parts(error, other, two_parts, on_signal, monkeypatch):
    """No matter what the part on the runtime's thread raises at the same time."""
    options, both = two_parts
    calls = []

    def compute(features, boxes, **settings):
        calls.append(len(boxes))
        if len(calls) <= 2:
            both.wait()
        if threading.current_thread() is threading.main_thread():
            signal.raise_signal(signal.SIGINT)
        elif other is ValueError:
            roi_align(features, boxes * np.nan, **settings)
        elif other:
            raise other
        return roi_align(features, boxes, **settings)

    crop = session(model(), **options)
    on_signal(raises(error))
    compute_with(monkeypatch, compute)
    with pytest.raises(type(error)) as caught:
        crop.run(None, FEED)
    assert caught.value is error
    assert calls == [15, 15]  # not once more, for the error to name a box among all


def test_parts_end_with_the_first_error(monkeypatch):
    calls = []

    def compute(*args, **settings):
        calls.append(args)
        raise MemoryError

    monkeypatch.setattr(adapter, "PART", 1)
    compute_with(monkeypatch, compute)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    with pytest.raises(MemoryError):
        run(model(), FEED, sess_options=options)
    assert len(calls) <= 2  # of 8 parts, those that had begun


def test_other_errors_arrive(within):
    crop = session(model())
    within(raises(MemoryError("no room")))
    with pytest.raises(MemoryError, match="no room"):
        crop.run(None, FEED)


def test_errors_are_those_of_their_call(monkeypatch):
    """Three threads run one session at once; two of them fail, each in its own way."""
    crop, both, found = session(model()), threading.Barrier(3, timeout=60), {}

    def compute(features, boxes, **settings):
        both.wait()
        name = threading.current_thread().name
        if name != "works":
            raise MemoryError(name) if name == "memory" else OwnError(name)
        return roi_align(features, boxes, **settings)

    def work(name):
        try:
            found[name] = len(crop.run(None, FEED)[0])
        except BaseException as error:
            found[name] = (type(error), *error.args)

    compute_with(monkeypatch, compute)
    threads = [threading.Thread(target=work, args=(n,), name=n) for n in ("memory", "own", "works")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {"memory": (MemoryError, "memory"), "own": (OwnError, "own"), "works": 30}


def test_later_calls_have_their_own_errors(interrupted):
    crop = session(model())
    interrupted(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        crop.run(None, FEED)
    with pytest.raises(STATE.InvalidArgument, match=r"boxes\[0\] has batch_index 9"):
        crop.run(None, BAD)
    assert len(crop.run(None, FEED)[0]) == 30


def test_handler_that_runs_a_session(on_signal, within):
    """It catches the error of its own call, and the call that it interrupts goes on."""
    crop, seen = session(model()), []

    def other_call():
        try:
            within(raises(MemoryError("of the inner call")))
            crop.run(None, FEED)
        except MemoryError as error:
            seen.append(str(error))

    on_signal(other_call)
    within(lambda: signal.raise_signal(signal.SIGINT))
    assert len(crop.run(None, FEED)[0]) == 30
    assert seen == ["of the inner call"]

    def fail():
        signal.raise_signal(signal.SIGINT)
        raise MemoryError("of the outer call")

    within(fail)
    with pytest.raises(MemoryError, match="of the outer call"):
        crop.run(None, FEED)
    assert seen == ["of the inner call"] * 2


def test_no_frame_keeps_a_tensor(interrupted):
    """The runtime takes its memory back, and a debugger that prints what frames hold would read it."""
    crop = session(model())
    interrupted(OwnError())
    with pytest.raises(OwnError) as caught:
        crop.run(None, FEED)
    frames = [frame for frame, _ in traceback.walk_tb(caught.value.__traceback__)]
    nodes = [frame for frame in frames if frame.f_globals["__name__"] == "cyroialign.onnx"]
    assert [frame.f_code.co_name for frame in nodes] == ["compute", "pool"]
    last = frames[frames.index(nodes[0]) :]
    assert not [frame.f_locals for frame in last if frame.f_locals]


class SpeechlessError(Exception):
    """Its text cannot be had."""

    def __str__(self):
        raise ZeroDivisionError


TOLD = pytest.mark.parametrize(
    ("error", "text"),
    [(MemoryError("no room"), "MemoryError: no room"), (SpeechlessError(), "could not be told")],
)


@TOLD
def test_threads_of_the_runtime(error, text, within):
    """Where nobody waits for an exception it is told by its type and text, if it can be."""
    two = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 16]>
        crop (float[n, c, h, w] x, float[k, 4] boxes, int64[k] images)
            => (float[k, c, p, q] y, float[k, c, p, q] z)
        { y = RoiAlign (x, boxes, images) z = RoiAlign (x, boxes, images) }""")
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 2
    crop = session(two, sess_options=options)
    within(raises(error))
    with pytest.raises((STATE.Fail, type(error))) as caught:
        crop.run(None, FEED)
    assert caught.value is error or text in str(caught.value)
    assert len(crop.run(None, FEED)) == 2


@TOLD
def test_run_async(error, text, within):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    crop, told, done = session(model(), sess_options=options), [], threading.Event()

    def callback(results, user_data, message):
        told.append(message)
        done.set()

    within(raises(error))
    crop.run_async(None, FEED, callback, None)
    assert done.wait(60)
    assert text in told[0]


def test_refusals_of_the_runtime_stay_its_own():
    """An output that is bound to memory of another shape: what ONNX Runtime's own RoiAlign says of it."""
    told = []
    plain = onnxruntime.SessionOptions()
    plain.log_severity_level = 4
    theirs = onnxruntime.InferenceSession(model().SerializeToString(), plain)
    for crop in (theirs, session(model())):
        binding = crop.io_binding()
        for name, array in FEED.items():
            binding.bind_cpu_input(name, array)
        small = np.zeros((1, 5, 7, 4), np.float32)
        binding.bind_output("y", "cpu", 0, np.float32, small.shape, small.ctypes.data)
        with pytest.raises(Exception, match=r"has shape \{1,5,7,4\}") as caught:
            crop.run_with_iobinding(binding)
        told.append((type(caught.value), str(caught.value)))
    assert told[0] == told[1]
