"""Arrays that are not NumPy's: read where they are, or refused with a word on what to do."""

import array
import ctypes

import numpy as np
import pytest
from reference import random_boxes

from cyroialign import roi_align, roi_align_backward
from cyroialign.arguments import validation

RNG = np.random.default_rng(0)
INPUT = RNG.standard_normal((2, 5, 12, 17)).astype(np.float32)
BOXES = random_boxes(RNG, 20, INPUT.shape).astype(np.float32)
EXPECTED = roi_align(INPUT, BOXES, 3)
GRAD_INPUT = roi_align_backward(EXPECTED, BOXES, INPUT.shape)


class DLPack:
    """Offers __dlpack__, on the device of the array or on the given one."""

    def __init__(self, wrapped, device=None):
        self.wrapped, self.device = wrapped, device

    def __dlpack__(self, **options):
        assert self.device is None, "nothing may be asked of another device"
        return self.wrapped.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.device or self.wrapped.__dlpack_device__()


class CopyingArray(DLPack):
    """Offers __array__ too, which copies."""

    def __array__(self, dtype=None, copy=None):
        return self.wrapped.copy()


class FailingDLPack(DLPack):
    """Offers a __dlpack__ that fails, as that of JAX does for bfloat16, and __array__."""

    def __dlpack__(self, **options):
        raise BufferError("this type cannot be exported")

    def __array__(self, dtype=None, copy=None):
        return self.wrapped


class Interface:
    """Offers __array_interface__."""

    def __init__(self, wrapped):
        self.wrapped, self.__array_interface__ = wrapped, wrapped.__array_interface__


class Array:
    """Offers __array__."""

    def __init__(self, wrapped):
        self.wrapped = wrapped

    def __array__(self, dtype=None, copy=None):
        return self.wrapped


class Subclass(np.ndarray):
    """An array of an unknown kind."""


class OnlyDLPack:
    """Offers __dlpack__ and not __dlpack_device__."""

    def __dlpack__(self, **options):
        raise AssertionError("nobody may ask before the device is known")


class Tracer(OnlyDLPack):
    """Offers an __array__ too, which says why it has no values."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("no values")


def raising(method, error):
    """Make an object that has one protocol, and raises the error when asked."""

    def asked(self, *arguments, **options):
        raise error

    methods = {method: property(asked) if method == "__array_interface__" else asked}
    if method == "__dlpack__":
        methods["__dlpack_device__"] = lambda self: (1, 0)
    elif method == "__dlpack_device__":
        methods["__dlpack__"] = asked
    return type("Raising", (), methods)()


class OwnError(Exception):
    """An error of a library's own."""


def read_only(view):
    return memoryview(view).toreadonly()


LIKES = [
    memoryview,
    read_only,
    DLPack,
    CopyingArray,
    FailingDLPack,
    Interface,
    Array,
    lambda wrapped: wrapped.view(Subclass),
    lambda wrapped: wrapped.view(np.recarray),
]


@pytest.mark.parametrize("like", LIKES)
def test_likes_are_read_in_place(like):
    for wrapped in (INPUT, BOXES, BOXES[:, 0].astype(int)):
        seen = validation.as_array(like(wrapped), "input")
        assert type(seen) is np.ndarray
        assert seen.ctypes.data == wrapped.ctypes.data
        assert (seen.shape, seen.strides, seen.dtype) == (wrapped.shape, wrapped.strides, wrapped.dtype)


@pytest.mark.parametrize("like", LIKES)
def test_likes_wherever_an_array_is_taken(like):
    assert roi_align(like(INPUT), like(BOXES), 3).tobytes() == EXPECTED.tobytes()
    gradient = roi_align_backward(like(EXPECTED), like(BOXES), INPUT.shape, input=like(INPUT))
    assert gradient.tobytes() == GRAD_INPUT.tobytes()
    by_image = BOXES[BOXES[:, 0].argsort(kind="stable")]
    per_image = [like(by_image[by_image[:, 0] == image, 1:].copy()) for image in range(2)]
    assert roi_align(INPUT, per_image, 3).tobytes() == roi_align(INPUT, by_image, 3).tobytes()
    indices = like(BOXES[:, 0].astype(np.int64))
    output = roi_align(INPUT, like(BOXES[:, 1:].copy()), 3, batch_indices=indices)
    assert output.tobytes() == EXPECTED.tobytes()


def test_strided_dlpack():
    """The other memory order stays what it is, and is read in place."""
    channels_last = np.ascontiguousarray(INPUT.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    output = roi_align(DLPack(channels_last), BOXES, 3)
    assert output.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(output, EXPECTED)


def test_buffers_of_the_standard_library():
    indices = array.array("q", BOXES[:, 0].astype(int))
    address, length = indices.buffer_info()
    seen = validation.as_array(indices, "batch_indices")
    assert (seen.ctypes.data, seen.size) == (address, length)
    assert roi_align(INPUT, BOXES[:, 1:], 3, batch_indices=indices).tobytes() == EXPECTED.tobytes()
    numbers = array.array("f", INPUT.tobytes())
    shaped = memoryview(numbers).cast("B").cast("f", INPUT.shape)
    assert validation.as_array(shaped, "input").ctypes.data == numbers.buffer_info()[0]
    assert roi_align(shaped, BOXES, 3).tobytes() == EXPECTED.tobytes()
    rows = (ctypes.c_float * 5 * len(BOXES)).from_buffer_copy(BOXES)
    assert validation.as_array(rows, "boxes").ctypes.data == ctypes.addressof(rows)
    assert roi_align(INPUT, rows, 3).tobytes() == EXPECTED.tobytes()


def test_memory_mapped_file(tmp_path):
    """Maps, boxes and results larger than memory may lie in files."""
    path = tmp_path / "maps"
    INPUT.tofile(path)
    maps = np.memmap(path, np.float32, "r", shape=INPUT.shape)
    assert np.shares_memory(validation.as_array(maps, "input"), maps)
    assert roi_align(maps, BOXES, 3).tobytes() == EXPECTED.tobytes()
    out = np.memmap(tmp_path / "crops", np.float32, "w+", shape=EXPECTED.shape)
    assert roi_align(maps, BOXES, 3, out=out) is out
    out.flush()
    assert (tmp_path / "crops").read_bytes() == EXPECTED.tobytes()


def test_matrix():
    """Its two axes are enough for boxes, and not for maps."""
    with pytest.warns(PendingDeprecationWarning):
        boxes = np.matrix(BOXES)
    assert roi_align(INPUT, boxes, 3).tobytes() == EXPECTED.tobytes()
    with pytest.raises(ValueError, match=r"input must have 4 axes, got shape \(20, 5\)"):
        roi_align(boxes, BOXES, 3)


@pytest.mark.parametrize(
    ("device", "where"),
    [
        ((2, 0), "CUDA device 0"),
        ((8, 0), "Metal device 0"),
        ((10, 1), "ROCm device 1"),
        ((14, 0), "oneAPI device 0"),
        ((7, 3), "DLPack device type 7 3"),
    ],
)
@pytest.mark.parametrize("like", [DLPack, CopyingArray])
def test_other_devices(like, device, where):
    """Even where an __array__ would fetch it, and wait for it."""
    with pytest.raises(TypeError, match=f"^input must be a NumPy.* in the memory of {where}; copy it to"):
        roi_align(like(INPUT, device), BOXES, 3)
    with pytest.raises(TypeError, match=f"^boxes must be a NumPy.* in the memory of {where}; copy it to"):
        roi_align(INPUT, like(BOXES, device), 3)


@pytest.mark.parametrize("device", [(1, 0), (3, 0), (11, 0), (13, 0)])
def test_memory_that_the_cpu_reads(device, monkeypatch):
    """Pinned and managed memory: NumPy views it, which only its own arrays can show here."""
    given = DLPack(INPUT, device)
    monkeypatch.setattr(DLPack, "__dlpack__", lambda self, **options: self.wrapped.__dlpack__())
    monkeypatch.setattr(np, "from_dlpack", lambda value: value.wrapped)
    assert validation.as_array(given, "input") is INPUT


@pytest.mark.parametrize("name", ["input", "boxes", "out"])
def test_masked_arrays(name):
    given = {"input": INPUT, "boxes": BOXES, "out": np.empty_like(EXPECTED)}
    given[name] = np.ma.masked_greater(given[name], 0.5)
    expected = {"out": "out must be a NumPy array, got MaskedArray"}
    with pytest.raises(TypeError, match=expected.get(name, rf"{name} is a masked array.*{name}\.filled\(")):
        roi_align(output_size=3, **given)


@pytest.mark.parametrize("per_image", [False, True])
def test_masked_arrays_among_the_boxes(per_image):
    masked = np.ma.array(BOXES[:, 1:])
    boxes = {"boxes": [masked, masked]} if per_image else {"boxes": masked, "batch_indices": BOXES[:, 0]}
    with pytest.raises(TypeError, match=r"is a masked array"):
        roi_align(INPUT, output_size=3, **boxes)


METHODS = ("__dlpack__", "__dlpack_device__", "__array__", "__array_interface__")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("error", [KeyError, NotImplementedError, OwnError, AttributeError, TypeError])
def test_protocols_that_raise(method, error):
    """For any error of a library, the argument is named, and the library's error is the cause."""
    if (method, error) == ("__array_interface__", AttributeError):
        pytest.skip("that is how an object says that it has none")
    raised = error("no values")
    with pytest.raises(TypeError, match=r"^input must be a NumPy array or.*got Raising.*no values") as caught:
        roi_align(raising(method, raised), BOXES, 3)
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
def test_what_passes_through_protocols(method, error):
    with pytest.raises(error):
        roi_align(raising(method, error()), BOXES, 3)


def test_dlpack_without_device():
    """As a tracer of JAX has it."""
    with pytest.raises(TypeError, match=r"^boxes must be a NumPy array or.*no values"):
        roi_align(INPUT, Tracer(), 3)
    with pytest.raises(TypeError, match=r"^boxes must be a NumPy array or.*got OnlyDLPack"):
        roi_align(INPUT, OnlyDLPack(), 3)


def test_masked_arrays_behind_array():
    with pytest.raises(TypeError, match=r"^boxes is a masked array"):
        roi_align(INPUT, Array(np.ma.array(BOXES)), 3)


def test_mappings():
    with pytest.raises(TypeError, match=r"^input must be a NumPy array or.*give one of its values$"):
        roi_align({"0": INPUT}, BOXES, 3)


def structured(values):
    """Rows with names instead of columns."""
    fields = np.dtype([(f"field{column}", np.float32) for column in range(values.shape[-1])])
    return np.ascontiguousarray(values).view(fields)[..., 0].view(np.recarray)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"input": INPUT.astype(object)}, "input must have dtype float32.*got object"),
        ({"boxes": BOXES.astype(object)}, "boxes must have a float or integer dtype, got object"),
        ({"input": structured(INPUT)}, "input must have dtype float32.*got .*field0"),
        ({"boxes": structured(BOXES)}, "boxes must have a float or integer dtype, got .*field0"),
        ({"input": Array(INPUT.astype(object))}, "input must have dtype float32.*got object"),
        ({"input": INPUT.tobytes()}, "input must have 4 axes"),
    ],
)
def test_types_without_numbers(wrong, message):
    with pytest.raises((TypeError, ValueError), match=message):
        roi_align(**{"input": INPUT, "boxes": BOXES, "output_size": 3} | wrong)


def test_what_requires_grad(monkeypatch):
    monkeypatch.setattr(DLPack, "requires_grad", True, raising=False)
    with pytest.raises(TypeError, match=r"^input requires grad.*input\.detach\(\).*cyroialign\.torch"):
        roi_align(DLPack(INPUT), BOXES, 3)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_jax(dtype):
    """JAX's arrays are read-only; its bfloat16, which DLPack cannot hand to NumPy, comes by __array__."""
    jax = pytest.importorskip("jax")
    input, boxes = jax.numpy.asarray(INPUT, dtype), jax.numpy.asarray(BOXES)
    seen = validation.as_array(input, "input")
    assert seen.ctypes.data == input.unsafe_buffer_pointer()
    assert not seen.flags.writeable
    expected = roi_align(INPUT.astype(seen.dtype), BOXES, 3)
    assert roi_align(input, boxes, 3).tobytes() == expected.tobytes()
    with pytest.raises(TypeError, match="out must be a NumPy array"):
        roi_align(input, boxes, 3, out=jax.numpy.zeros(expected.shape, dtype))


def test_no_framework_is_imported(run_python):
    run_python("""
        import sys, numpy as np, cyroialign
        cyroialign.roi_align(memoryview(np.ones((1, 1, 4, 4))), np.zeros((1, 5)), 2)
        assert not {"torch", "jax", "ml_dtypes", "pandas"} & set(sys.modules)
    """)
