# RoiAlign and MMCV's relatives as operators of ONNX Runtime: its C interface on one side, a Python function
# on the other.
#
# ONNX Runtime loads this module as a library of operators. The function reads tensors where they lie and
# writes its result where the runtime wants it. What it raises about its arguments becomes an error of the
# runtime; all else, such as KeyboardInterrupt, waits beside the runtime and arrives at the caller as it is.

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t

import itertools
import threading

import numpy as np

cdef extern from "Python.h":
    bint Py_IsInitialized()

cdef extern from "once/onnxruntime.h":
    ctypedef struct OrtStatus
    ctypedef struct OrtValue
    ctypedef struct OrtKernelInfo
    ctypedef struct OrtKernelContext
    ctypedef struct OrtTensorTypeAndShapeInfo
    ctypedef struct OrtCustomOp
    int ORT_FAIL, ORT_INVALID_ARGUMENT, TENSOR_INT64

    ctypedef struct OrtApi:
        OrtStatus* CreateStatus(int code, const char* message)
        int GetErrorCode(OrtStatus*)
        const char* GetErrorMessage(OrtStatus*)
        OrtStatus* GetTensorMutableData(OrtValue*, void** data)
        OrtStatus* GetTensorElementType(OrtTensorTypeAndShapeInfo*, int* type)
        OrtStatus* GetDimensionsCount(OrtTensorTypeAndShapeInfo*, size_t* axes)
        OrtStatus* GetDimensions(OrtTensorTypeAndShapeInfo*, int64_t* shape, size_t axes)
        OrtStatus* GetTensorTypeAndShape(OrtValue*, OrtTensorTypeAndShapeInfo**)
        OrtStatus* KernelInfoGetAttribute_float(OrtKernelInfo*, const char* name, float* value)
        OrtStatus* KernelInfoGetAttribute_int64(OrtKernelInfo*, const char* name, int64_t* value)
        OrtStatus* KernelInfoGetAttribute_string(OrtKernelInfo*, const char* name, char* text, size_t* size)
        OrtStatus* KernelContext_GetInput(OrtKernelContext*, size_t index, OrtValue**)
        OrtStatus* KernelContext_GetOutput(OrtKernelContext*, size_t index, int64_t*, size_t axes, OrtValue**)
        OrtStatus* KernelContext_ParallelFor(
            OrtKernelContext*, void (*part)(void*, size_t) noexcept, size_t parts, size_t batches, void* data
        ) nogil
        void ReleaseStatus(OrtStatus*)
        void ReleaseTensorTypeAndShapeInfo(OrtTensorTypeAndShapeInfo*)

    ctypedef struct Kind:
        const char* name
        size_t inputs
    ctypedef struct RoiAlign:
        Kind kind
    Kind kinds[3]
    RoiAlign operators[12]
    int KINDS
    void define(
        RoiAlign*,
        Kind kind,
        int type,
        OrtStatus* (*create)(OrtCustomOp*, OrtApi*, OrtKernelInfo*, void**) noexcept,
        OrtStatus* (*compute)(void*, OrtKernelContext*) noexcept,
        void (*destroy)(void*) noexcept,
    )

cdef enum:
    MOST_AXES = 8  # no tensor of RoiAlign has more than 4

# How ONNX numbers types.
_NAMES = {1: "float32", 7: "int64", 10: "float16", 11: "float64", 16: "bfloat16"}
# What nodes say beside spatial_scale: whole numbers and texts, and those that only one operator has.
_WHOLE = ("output_height", "output_width", "sampling_ratio", "num_threads")
_OWN = {
    "RoiAlign": ((), ("mode", "coordinate_transformation_mode")),
    "MMCVRoiAlign": (("aligned",), ("mode",)),
    "MMCVRoIAlignRotated": (("aligned", "clockwise"), ()),
}
_prepare = None
_thread = threading.local()  # raised: the errors that wait for the innermost call() of the thread


class Refused(Exception):
    """What ONNX Runtime itself reports: its number of the error, and its words."""


def serve(prepare):
    """Serve every node of the domain "cyroialign".

    prepare(name, attributes) is called with the operator's name and a dict for each node of a session, and
    returns what computes it: compute(run, *inputs), where run is a Run.
    """
    global _prepare
    _prepare = prepare


def call(function, *args, **options):
    """Call what runs or makes a session, and raise as it is what its nodes raised on this thread.

    An error of the runtime is a number and a text, so that it cannot carry an exception. Nodes run on the
    thread that runs the session, and Python's signal handlers on the main thread alone; so whatever a handler
    raises within a node is here. In Cython no handler can run between the steps.
    """
    outer = getattr(_thread, "raised", None)
    _thread.raised = raised = []
    try:
        result = function(*args, **options)
    except Exception:
        if not raised:
            raise
    else:
        if not raised:
            return result
    finally:
        _thread.raised = outer
    raise foremost(raised)  # here, so that it does not get the runtime's error as its context


def is_about_arguments(error):
    """Tell whether this package raised it about its arguments, and not a signal handler in its code."""
    if not isinstance(error, (TypeError, ValueError)):
        return False
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return step is not None and step.tb_frame.f_globals.get("__name__", "").partition(".")[0] == "cyroialign"


cdef object foremost(list errors):
    """Of several errors, the one to raise: the first of the least expected kind."""
    for error in errors:
        if not isinstance(error, Exception):
            return error
    for error in errors:
        if not is_about_arguments(error):
            return error
    return errors[0]


cdef forget_frames(error):
    """Empty the frames that an error came through: they hold tensors, whose memory the runtime takes back."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        step = error.__traceback__
        while step is not None:
            try:
                step.tb_frame.clear()
            except RuntimeError:  # still runs, so it does not belong to the node
                pass
            step = step.tb_next
        error = error.__context__


cdef class Node:
    """What ONNX Runtime calls a kernel: one node of one session."""

    cdef OrtApi* api
    cdef size_t inputs
    cdef object compute


cdef class Run:
    """What one run of a node asks of ONNX Runtime."""

    cdef OrtApi* api
    cdef OrtKernelContext* context

    def allocate(self, shape):
        """Return the array to fill with the result of the given 4 sides."""
        cdef int64_t[4] sides = shape
        cdef OrtValue* value
        check(self.api, self.api.KernelContext_GetOutput(self.context, 0, sides, 4, &value))
        return view(self.api, value, PyBUF_WRITE)

    def parallel(self, function, size_t parts):
        """Call function(0), ..., function(parts - 1) on the threads of the session, until one raises."""
        errors = []
        task = (function, errors, threading.get_ident())
        cdef void* data = <void*>task
        cdef OrtStatus* status
        with nogil:  # which the other threads need
            status = self.api.KernelContext_ParallelFor(self.context, call_part, parts, 0, data)
        check(self.api, status)
        if errors:
            raise foremost(errors)


cdef void call_part(void* data, size_t part) noexcept with gil:
    function, errors, caller = <tuple>data
    if errors:
        return
    try:
        function(part)
    except BaseException as error:
        if threading.get_ident() == caller:
            errors.insert(0, error)  # maybe a signal handler's, which nobody would raise again
        else:
            errors.append(error)


cdef OrtStatus* create(OrtCustomOp* op, OrtApi* api, OrtKernelInfo* info, void** kernel) noexcept with gil:
    cdef Node node
    cdef Kind kind = (<RoiAlign*>op).kind
    try:
        node = Node()
        node.api, node.inputs = api, kind.inputs
        name = kind.name.decode()
        node.compute = _prepare(name, read_attributes(api, info, name))
        Py_INCREF(node)
        kernel[0] = <void*>node
    except BaseException as error:
        return failure(api, error)
    return NULL


cdef OrtStatus* compute(void* kernel, OrtKernelContext* context) noexcept with gil:
    cdef Node node = <Node>kernel
    cdef Run run
    cdef OrtValue* value
    try:
        run = Run()
        run.api, run.context = node.api, context
        inputs = []
        for index in range(node.inputs):
            check(node.api, node.api.KernelContext_GetInput(context, index, &value))
            inputs.append(view(node.api, value, PyBUF_READ))
        node.compute(run, *inputs)
    except BaseException as error:
        return failure(node.api, error)
    return NULL


cdef void destroy(void* kernel) noexcept:
    if Py_IsInitialized():  # else Python has gone, and what it held with it
        release(kernel)


cdef void release(void* kernel) noexcept with gil:
    Py_DECREF(<Node>kernel)


cdef dict read_attributes(OrtApi* api, OrtKernelInfo* info, operator):
    cdef int64_t whole
    cdef float single
    cdef char[32] text
    cdef size_t size
    attributes, (whole_numbers, texts) = {}, _OWN[operator]
    for name in _WHOLE + whole_numbers:
        check(api, api.KernelInfoGetAttribute_int64(info, name.encode(), &whole))
        attributes[name] = whole
    check(api, api.KernelInfoGetAttribute_float(info, b"spatial_scale", &single))
    attributes["spatial_scale"] = single
    for name in texts:
        size = sizeof(text)
        check(api, api.KernelInfoGetAttribute_string(info, name.encode(), text, &size))
        attributes[name] = (<bytes>text[:size - 1]).decode()  # without the zero at its end
    return attributes


cdef object view(OrtApi* api, OrtValue* value, int access):
    """The tensor as an array over its memory, which is there until the run of the node ends."""
    cdef OrtTensorTypeAndShapeInfo* info
    cdef int64_t[MOST_AXES] sides
    cdef size_t axes
    cdef int type
    cdef void* data
    check(api, api.GetTensorTypeAndShape(value, &info))
    try:
        check(api, api.GetTensorElementType(info, &type))
        check(api, api.GetDimensionsCount(info, &axes))
        if axes > MOST_AXES:
            raise ValueError(f"a tensor of RoiAlign has at most 4 axes, got {axes}")
        check(api, api.GetDimensions(info, sides, axes))
    finally:
        api.ReleaseTensorTypeAndShapeInfo(info)
    shape, dtype = [sides[axis] for axis in range(axes)], dtype_of(type)
    check(api, api.GetTensorMutableData(value, &data))
    cdef Py_ssize_t size = dtype.itemsize
    for side in shape:
        size *= side
    if size == 0:
        return np.empty(shape, dtype)
    return np.ndarray(shape, dtype, PyMemoryView_FromMemory(<char*>data, size, access))


cdef object dtype_of(int type):
    name = _NAMES[type]
    if name == "bfloat16":
        import ml_dtypes  # NumPy has no such type

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


cdef int check(OrtApi* api, OrtStatus* status) except -1:
    """Raise what the runtime reports."""
    if status != NULL:
        error = Refused(api.GetErrorCode(status), api.GetErrorMessage(status).decode(errors="replace"))
        api.ReleaseStatus(status)
        raise error
    return 0


cdef OrtStatus* failure(OrtApi* api, error) noexcept:
    """The error for the runtime to report: of arguments in their own words, else a stand-in for `call`."""
    cdef int code = ORT_FAIL
    try:
        raised = getattr(_thread, "raised", None)
        if isinstance(error, Refused):
            code, text = error.args
        elif is_about_arguments(error):
            code, text = ORT_INVALID_ARGUMENT, str(error)
        elif raised is not None:
            raised.append(error)
            forget_frames(error)
            text = type(error).__name__  # its own text could run code, in which a handler would raise
        else:  # a thread of the runtime, where nobody waits for it
            text = f"{type(error).__name__}: {error}"
        return api.CreateStatus(code, text.encode(errors="replace"))
    except BaseException:  # NULL, which Cython would return, means success
        return api.CreateStatus(ORT_FAIL, b"an error of cyroialign, which could not be told")


_types = [number for number in _NAMES if number != TENSOR_INT64]
for _place, (_kind, _type) in enumerate(itertools.product(range(KINDS), _types)):
    define(&operators[_place], kinds[<int>_kind], _type, create, compute, destroy)
