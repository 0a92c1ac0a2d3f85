"""Tensors, of PyTorch and by DLPack, whose memory alone does not tell their numbers, or that have none."""

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


class Tensor:
    """Has what a tensor of PyTorch has beside: a storage, and a sign that may not be applied yet."""

    def __init__(self, wrapped, *, address=None, size=None, offset=0, negated=None):
        self.__dlpack__, self.__dlpack_device__ = wrapped.__dlpack__, wrapped.__dlpack_device__
        address = wrapped.ctypes.data if address is None else address
        size = wrapped.nbytes if size is None else size
        self.data_ptr, self.nbytes, self.storage_offset = (lambda: address), (lambda: size), (lambda: offset)
        self.untyped_storage = lambda: self
        self.is_neg, self.resolve_neg = (lambda: negated is not None), (lambda: negated)


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
    """NumPy would make its own array of them, and never write to it."""
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
        seen = validation.as_array(Tensor(view, size=size, offset=offset), "input")
        assert seen.ctypes.data == view.ctypes.data
        with pytest.raises(TypeError, match="no memory"):
            validation.as_array(Tensor(view, size=size - 1, offset=offset), "input")


def test_offset_of_dlpack():
    given = Capsule(INPUT[1:], data=INPUT.ctypes.data, byte_offset=INPUT[0].nbytes)
    assert validation.as_array(given, "input").ctypes.data == INPUT[1:].ctypes.data


@pytest.mark.parametrize("fields", [{"bits": 4}, {"lanes": 2}, {"code": 4, "bits": 16}, {"code": 3}])
def test_types_of_dlpack_that_numpy_has_not(fields):
    with pytest.raises(TypeError, match=r"^input must be a NumPy array or.*got Capsule"):
        roi_align(Capsule(INPUT, **fields), BOXES, 3)


def test_torch():
    torch = pytest.importorskip("torch")
    input, boxes = torch.from_numpy(INPUT.copy()), torch.from_numpy(BOXES.copy())
    for tensor in (input, boxes, input.to(memory_format=torch.channels_last)):
        seen = validation.as_array(tensor, "input")
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
    """Such as the sign of the imaginary part of a conjugate."""
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
