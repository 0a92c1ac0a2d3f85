# RoiAlign as an operator of ONNX Runtime: its C interface on one side, a Python function on the other.
#
# ONNX Runtime loads this module as a library of operators. The function reads tensors where they lie and
# writes its result where the runtime wants it; what it raises becomes the error of the run.

from cpython.buffer cimport PyBUF_READ, PyBUF_WRITE
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t

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

    ctypedef struct RoiAlign:
        int type
    RoiAlign operators[4]
    int TYPES
    void define(
        RoiAlign*,
        int type,
        OrtStatus* (*create)(OrtCustomOp*, OrtApi*, OrtKernelInfo*, void**) noexcept,
        OrtStatus* (*compute)(void*, OrtKernelContext*) noexcept,
        void (*destroy)(void*) noexcept,
    )

cdef enum:
    MOST_AXES = 8  # no tensor of RoiAlign has more than 4

# How ONNX numbers types.
_NAMES = {1: "float32", 7: "int64", 10: "float16", 11: "float64", 16: "bfloat16"}
_prepare = None


def serve(prepare):
    """Serve every RoiAlign node of the domain "cyroialign".

    prepare(attributes) is called with a dict for each node of a session, and returns what computes it:
    compute(input, boxes, batch_indices, run), where run is a Run.
    """
    global _prepare
    _prepare = prepare


cdef class Node:
    """What ONNX Runtime calls a kernel: one node of one session."""

    cdef OrtApi* api
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
        """Call function(0), ..., function(parts - 1) on the threads of the session."""
        errors = []
        task = (function, errors)
        cdef void* data = <void*>task
        cdef OrtStatus* status
        with nogil:  # which the other threads need
            status = self.api.KernelContext_ParallelFor(self.context, call_part, parts, 0, data)
        check(self.api, status)
        if errors:
            raise errors[0]


cdef void call_part(void* data, size_t part) noexcept with gil:
    function, errors = <tuple>data
    try:
        function(part)
    except BaseException as error:
        errors.append(error)


cdef OrtStatus* create(OrtCustomOp* op, OrtApi* api, OrtKernelInfo* info, void** kernel) noexcept with gil:
    cdef Node node
    try:
        node = Node()
        node.api = api
        node.compute = _prepare(read_attributes(api, info))
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
        for index in range(3):
            check(node.api, node.api.KernelContext_GetInput(context, index, &value))
            inputs.append(view(node.api, value, PyBUF_READ))
        node.compute(*inputs, run)
    except BaseException as error:
        return failure(node.api, error)
    return NULL


cdef void destroy(void* kernel) noexcept:
    if Py_IsInitialized():  # else Python has gone, and what it held with it
        release(kernel)


cdef void release(void* kernel) noexcept with gil:
    Py_DECREF(<Node>kernel)


cdef dict read_attributes(OrtApi* api, OrtKernelInfo* info):
    cdef int64_t whole
    cdef float single
    cdef char[32] text
    cdef size_t size
    attributes = {}
    for name in ("output_height", "output_width", "sampling_ratio", "num_threads"):
        check(api, api.KernelInfoGetAttribute_int64(info, name.encode(), &whole))
        attributes[name] = whole
    check(api, api.KernelInfoGetAttribute_float(info, b"spatial_scale", &single))
    attributes["spatial_scale"] = single
    for name in ("mode", "coordinate_transformation_mode"):
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
        message = api.GetErrorMessage(status).decode()
        api.ReleaseStatus(status)
        raise RuntimeError(message)
    return 0


cdef OrtStatus* failure(OrtApi* api, error) noexcept:
    """The error for the runtime to report; those of arguments in their own words."""
    cdef int code = ORT_FAIL
    try:
        text = str(error)
        if isinstance(error, (TypeError, ValueError)):
            code = ORT_INVALID_ARGUMENT
        else:
            text = f"{type(error).__name__}: {text}"
        return api.CreateStatus(code, text.encode(errors="replace"))
    except BaseException:  # NULL, which Cython would return, means success
        return api.CreateStatus(ORT_FAIL, b"an error of cyroialign, which could not be told")


for _index, _type in enumerate(number for number in _NAMES if number != TENSOR_INT64):
    define(&operators[_index], _type, create, compute, destroy)
