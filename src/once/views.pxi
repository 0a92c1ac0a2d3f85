# From arrays to addresses: a typed memoryview checks the type, rank and order of an array, and then its
# address is all that is needed. Whoever calls the kernels keeps the arrays.

cdef enum Kind:  # of map, as the kernels name themselves
    FLOAT32
    FLOAT64
    FLOAT16  # as its bits, since Cython has no such type
    BFLOAT16
    UINT8
    INT8


ctypedef fused number:
    float
    double
    unsigned short
    unsigned char
    signed char


cdef struct View:
    void* at
    Py_ssize_t shape[4]


cdef View look(const number[:, :, :, ::1] array):
    cdef View view
    cdef int axis
    view.at = <void*> &array[0, 0, 0, 0]
    for axis in range(4):
        view.shape[axis] = array.shape[axis]
    return view


cdef View look_to_write(number[:, :, :, ::1] array):
    return look(array)


cdef View view_of_map(int kind, object array):
    """A map of the kernels' type; none of its axes is empty."""
    if kind == FLOAT32:
        return look[float](array)
    if kind == FLOAT64:
        return look[double](array)
    if kind == UINT8:
        return look["unsigned char"](array)
    if kind == INT8:
        return look["signed char"](array)
    return look["unsigned short"](array)


cdef View view_of_result(int kind, object array, bint written):
    """A result or gradient of what is pooled from such maps."""
    if kind == FLOAT64:
        return look_to_write[double](array) if written else look[double](array)
    if kind == FLOAT32 or kind == UINT8 or kind == INT8:
        return look_to_write[float](array) if written else look[float](array)
    return look_to_write["unsigned short"](array) if written else look["unsigned short"](array)
