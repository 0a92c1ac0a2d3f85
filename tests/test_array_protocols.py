"""Arrays that are not NumPy's: read where they are, or refused with a word on what to do."""

import array
import ctypes

import numpy as np
import pytest
from reference import random_boxes

from cyroialign import _validation, roi_align, roi_align_backward

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
    """An array of a kind of its own."""


class Managed(ctypes.Structure):
    """DLPack's DLManagedTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


class Capsule:
    """Offers __dlpack__ of the shape and dtype of an array, with other fields as given."""

    def __init__(self, wrapped, **fields):
        shape = (ctypes.c_int64 * wrapped.ndim)(*wrapped.shape)
        code, bits = {"i": 0, "u": 1, "f": 2}[wrapped.dtype.kind], 8 * wrapped.dtype.itemsize
        fields = {"data": wrapped.ctypes.data, "code": code, "bits": bits, "lanes": 1} | fields
        self.wrapped = wrapped
        self.tensor = Managed(device=(1, 0), ndim=wrapped.ndim, shape=shape, **fields)

    def __dlpack__(self, **options):
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(self.tensor), b"dltensor", None)

    def __dlpack_device__(self):
        return 1, 0


class OnlyDLPack:
    """Offers __dlpack__ and not __dlpack_device__."""

    def __dlpack__(self, **options):
        raise AssertionError("nobody may ask before the device is known")


class Tracer(OnlyDLPack):
    """Offers an __array__ too, which says why it has no values."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("no values")


class Tensor(DLPack):
    """Has what a tensor of PyTorch has beside: a storage, and a sign that may not be applied yet."""

    def __init__(self, wrapped, *, address=None, size=None, offset=0, negated=None):
        super().__init__(wrapped)
        address, size = (
            wrapped.ctypes.data if address is None else address,
            wrapped.nbytes if size is None else size,
        )
        self.data_ptr, self.nbytes, self.storage_offset = (lambda: address), (lambda: size), (lambda: offset)
        self.untyped_storage = lambda: self
        self.is_neg, self.resolve_neg = (lambda: negated is not None), (lambda: negated)


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
        seen = _validation.as_array(like(wrapped), "input")
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
    seen = _validation.as_array(indices, "batch_indices")
    assert (seen.ctypes.data, seen.size) == (address, length)
    assert roi_align(INPUT, BOXES[:, 1:], 3, batch_indices=indices).tobytes() == EXPECTED.tobytes()
    numbers = array.array("f", INPUT.tobytes())
    shaped = memoryview(numbers).cast("B").cast("f", INPUT.shape)
    assert _validation.as_array(shaped, "input").ctypes.data == numbers.buffer_info()[0]
    assert roi_align(shaped, BOXES, 3).tobytes() == EXPECTED.tobytes()
    rows = (ctypes.c_float * 5 * len(BOXES)).from_buffer_copy(BOXES)
    assert _validation.as_array(rows, "boxes").ctypes.data == ctypes.addressof(rows)
    assert roi_align(INPUT, rows, 3).tobytes() == EXPECTED.tobytes()


def test_memory_mapped_file(tmp_path):
    """Maps, boxes and results larger than memory may lie in files."""
    path = tmp_path / "maps"
    INPUT.tofile(path)
    maps = np.memmap(path, np.float32, "r", shape=INPUT.shape)
    assert np.shares_memory(_validation.as_array(maps, "input"), maps)
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
    assert _validation.as_array(given, "input") is INPUT


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


ARGUMENTS = ("input", "boxes", "grad_output", "batch_indices")


def call_with(name, like):
    """Call with one argument that is another library's."""
    if name == "grad_output":
        return roi_align_backward(like(EXPECTED), BOXES, INPUT.shape)
    if name == "batch_indices":
        return roi_align(INPUT, BOXES[:, 1:], 3, batch_indices=like(BOXES[:, 0].astype(int)))
    arguments = {"input": INPUT, "boxes": BOXES}
    return roi_align(output_size=3, **arguments | {name: like(arguments[name])})


@pytest.mark.parametrize("name", ARGUMENTS)
def test_null_pointers(name):
    """NumPy would make an array of its own of them, and never write it."""
    with pytest.raises(
        TypeError, match=f"^{name} must be a NumPy.*got Capsule: it has a shape, but no memory"
    ):
        call_with(name, lambda wrapped: Capsule(wrapped, data=None))


def test_null_pointer_to_no_numbers():
    assert roi_align(INPUT, Capsule(BOXES[:0], data=None), 3).shape == (0, 5, 3, 3)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_other_sign(name):
    expected = call_with(name, lambda wrapped: wrapped)
    assert (
        call_with(name, lambda wrapped: Tensor(-wrapped, negated=Tensor(wrapped))).tobytes()
        == expected.tobytes()
    )


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("size", [0, -1])
def test_freed_storage(name, size):
    """A slice of freed memory has an address that is not null; memory may be given back in part."""

    def freed(wrapped):
        return Tensor(wrapped, address=None if size else 0, size=wrapped.nbytes + size)

    with pytest.raises(TypeError, match=f"^{name} must be a NumPy.*it has a shape, but no memory"):
        call_with(name, freed)


def test_slices_of_a_storage():
    for view, offset in ((INPUT[1:], INPUT[0].size), (INPUT[:, 1:3, ::2], INPUT[0, 0].size)):
        size = view.ctypes.data - INPUT.ctypes.data + view[-1, -1, -1, -1:].ctypes.data - view.ctypes.data + 4
        seen = _validation.as_array(Tensor(view, size=size, offset=offset), "input")
        assert seen.ctypes.data == view.ctypes.data
        with pytest.raises(TypeError, match="no memory"):
            _validation.as_array(Tensor(view, size=size - 1, offset=offset), "input")


def test_offset_of_dlpack():
    given = Capsule(INPUT[1:], data=INPUT.ctypes.data, byte_offset=INPUT[0].nbytes)
    assert _validation.as_array(given, "input").ctypes.data == INPUT[1:].ctypes.data


@pytest.mark.parametrize("fields", [{"bits": 4}, {"lanes": 2}, {"code": 4, "bits": 16}, {"code": 3}])
def test_types_of_dlpack_that_numpy_has_not(fields):
    with pytest.raises(TypeError, match=r"^input must be a NumPy array or.*got Capsule"):
        roi_align(Capsule(INPUT, **fields), BOXES, 3)


METHODS = ("__dlpack__", "__dlpack_device__", "__array__", "__array_interface__")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("error", [KeyError, NotImplementedError, OwnError, AttributeError, TypeError])
def test_protocols_that_raise(method, error):
    """Whatever a library raises, the argument is named, and the error of the library is the cause."""
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


def test_torch():
    torch = pytest.importorskip("torch")
    input, boxes = torch.from_numpy(INPUT.copy()), torch.from_numpy(BOXES.copy())
    for tensor in (input, boxes, input.to(memory_format=torch.channels_last)):
        seen = _validation.as_array(tensor, "input")
        assert seen.ctypes.data == tensor.data_ptr()
        assert seen.strides == tuple(4 * stride for stride in tensor.stride())
    assert roi_align(input, boxes, 3).tobytes() == EXPECTED.tobytes()
    leaf = input.clone().requires_grad_()
    for tensor in (leaf, leaf * 2):
        with pytest.raises(TypeError, match=r"input requires grad.*input\.detach\(\)"):
            roi_align(tensor, boxes, 3)
    assert roi_align(leaf.detach(), boxes, 3).tobytes() == EXPECTED.tobytes()
    with torch.inference_mode():
        assert roi_align(input * 1, boxes, 3).tobytes() == EXPECTED.tobytes()


def test_bfloat16_of_torch():
    torch = pytest.importorskip("torch")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    narrow = torch.from_numpy(INPUT.copy()).bfloat16()
    with pytest.raises(TypeError, match=r"^input must.*NumPy has no bfloat16: give a view as int16"):
        roi_align(narrow, BOXES, 3)
    view = narrow.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    assert view.ctypes.data == narrow.data_ptr()
    assert roi_align(view, BOXES, 3).tobytes() == roi_align(INPUT.astype(view.dtype), BOXES, 3).tobytes()


@pytest.mark.parametrize("kind", ["meta", "sparse"])
def test_tensors_without_memory_of_their_own(kind):
    torch = pytest.importorskip("torch")
    tensor = torch.ones(INPUT.shape)
    tensor = tensor.to("meta") if kind == "meta" else tensor.to_sparse()
    with pytest.raises(TypeError, match=f"(?i)^input must be a NumPy array or.*{kind}"):
        roi_align(tensor, BOXES, 3)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_negative_bit_of_torch(name):
    """As that of the imaginary part of a conjugate."""
    torch = pytest.importorskip("torch")

    def conjugate(wrapped):
        if wrapped.dtype.kind == "i":
            return torch._neg_view(torch.from_numpy(-wrapped))
        return torch.complex(torch.from_numpy(-wrapped), torch.from_numpy(-wrapped)).conj().imag

    assert conjugate(BOXES).is_neg()
    assert call_with(name, conjugate).tobytes() == call_with(name, lambda wrapped: wrapped).tobytes()


def test_conjugate_bit_of_torch():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"^input must be a NumPy array or.*resolve_conj\(\)"):
        roi_align(torch.ones(INPUT.shape, dtype=torch.complex64).conj(), BOXES, 3)


def without_memory(torch):
    """Tensors that have a shape and dtype alone, by what made them so."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        fake = torch.ones(INPUT.shape)
        yield from (fake, fake[:, 1:])
    freed, part = torch.ones(INPUT.shape), torch.ones(INPUT.shape)
    slice_of_freed = freed[:, 1:]
    freed.untyped_storage().resize_(0)
    part.untyped_storage().resize_(64)
    yield from (freed, slice_of_freed, part, torch._efficientzerotensor(INPUT.shape))


@pytest.mark.filterwarnings(
    "ignore:Accessing the data pointer of FakeTensor", "ignore:The PyTorch API of Masked"
)
def test_tensors_without_memory():
    torch = pytest.importorskip("torch")
    for tensor in without_memory(torch):
        with pytest.raises(
            TypeError, match=r"^input must be a NumPy array or.*it has a shape, but no memory"
        ):
            roi_align(tensor, BOXES, 3)
        with pytest.raises(TypeError, match=r"^boxes\[1\] must be a NumPy array or.*no memory"):
            roi_align(INPUT, [BOXES[:, 1:], tensor], 3)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_transforms_of_torch():
    """Under vmap, functionalisation and forward mode a tensor stands for others."""
    torch = pytest.importorskip("torch")
    whole = torch.from_numpy(INPUT.copy())

    def pooled(tensor):
        return torch.from_numpy(roi_align(tensor, BOXES, 3))

    with pytest.raises(TypeError, match=r"^input must be a NumPy array or"):
        torch.func.vmap(pooled)(whole[None])
    with pytest.raises(TypeError, match=r"^input must be a NumPy array or.*no memory"):
        torch.func.functionalize(pooled)(whole)
    with pytest.raises(TypeError, match=r"^input must be a NumPy array or"):
        torch.func.jvp(pooled, (whole,), (whole,))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(whole, whole)
        with pytest.raises(TypeError, match=r"tangent.*give unpack_dual\(input\)\.primal"):
            pooled(dual)
        primal = torch.autograd.forward_ad.unpack_dual(dual).primal
        assert roi_align(primal, BOXES, 3).tobytes() == EXPECTED.tobytes()


@pytest.mark.filterwarnings("ignore")
def test_compiled_by_torch():
    """The call is left to Python, wherever torch.compile stops tracing it."""
    torch = pytest.importorskip("torch")
    compiled = torch.compile(
        lambda tensor: torch.from_numpy(roi_align(tensor * 1, BOXES, 3)), backend="eager"
    )
    assert compiled(torch.from_numpy(INPUT.copy())).numpy().tobytes() == EXPECTED.tobytes()


def test_storage_of_torch_stays_resizable():
    """As tensor.numpy() would not leave it."""
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(INPUT.copy()) + 0
    roi_align(tensor, BOXES, 3)
    tensor.untyped_storage().resize_(0)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_jax(dtype):
    """JAX's arrays are read-only; its bfloat16, which DLPack cannot hand to NumPy, comes by __array__."""
    jax = pytest.importorskip("jax")
    input, boxes = jax.numpy.asarray(INPUT, dtype), jax.numpy.asarray(BOXES)
    seen = _validation.as_array(input, "input")
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
