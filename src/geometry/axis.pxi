# The weights of one axis of a box, as a rule drafts them and as kernels read them.
#
# Every separable operator is, for each RoI and channel,
#
#     output = Y . input . X^T        Y: bins x rows, X: bins x columns, sparse,
#
# and its gradient is Y^T . grad_output . X. Y and X depend on the box alone: a rule of this folder drafts
# them once a RoI, in double, as lines of (pixel, weight). Then they are placed in the tables of the RoI, as
# numbers of the type `real` and with the distances that the kernels asked for; they serve every channel.


cdef struct Draft:  # an Axis whose numbers are double, with the same fields
    int size
    int* indptr
    Py_ssize_t* index
    double* weight
    double* by_start
    double* by_end
    int* outside
    bint single  # `real` is float: sums of weights are rounded to it
    Py_ssize_t room  # for taps


ctypedef fused weight_type:  # what `real` is where the kernels see it
    float
    double


cdef inline int add_tap(Draft* draft, int t, Py_ssize_t pixel, double weight) noexcept nogil:
    """Append a tap, if there is room, and return the number of taps."""
    if t >= draft.room:
        return t
    draft.index[t] = pixel
    draft.weight[t] = weight
    return t + 1


cdef inline double rounded(const Draft* draft, double weight) noexcept nogil:
    return <float> weight if draft.single else weight


cdef int cover(Draft* draft, Py_ssize_t length, int width, int* slot, Py_ssize_t* strip) noexcept nogil:
    """Gather the pixels of an axis into strips of `width` pixels; returns how many.

    strip[s] is the first pixel of strip s, the indices of the axis become slots (s * width + the place in
    the strip), and pixels that no strip covers are never read. A strip that would cross the end of the
    axis starts earlier. slot: scratch, `length` zeros, handed back as zeros.
    """
    cdef Py_ssize_t pixel, first = length, last = -1, end = -1
    cdef Py_ssize_t latest = max(length - width, 0)  # where the last strip can start
    cdef int t, s = -1, taps = draft.indptr[draft.size]
    for t in range(taps):
        slot[draft.index[t]] = 1
        first = min(first, draft.index[t])
        last = max(last, draft.index[t])
    for pixel in range(first, last + 1):
        if slot[pixel]:
            if pixel >= end:
                s += 1
                strip[s] = min(pixel, latest)
                end = strip[s] + width
            slot[pixel] = <int> (s * width + pixel - strip[s])
    for t in range(taps):
        draft.index[t] = slot[draft.index[t]]
    for pixel in range(first, last + 1):
        slot[pixel] = 0
    return s + 1


cdef void place(const Draft* draft, Axis* axis, Py_ssize_t stride, weight_type T) noexcept nogil:
    """Copy a draft into the table of a RoI, its indices times the stride; T: any number of the type."""
    cdef int i, taps = draft.indptr[draft.size]
    cdef weight_type* weight = <weight_type*> axis.weight
    cdef weight_type* by_start = <weight_type*> axis.by_start
    cdef weight_type* by_end = <weight_type*> axis.by_end
    axis.size = draft.size
    for i in range(draft.size + 1):
        axis.indptr[i] = draft.indptr[i]
    for i in range(taps):
        axis.index[i] = draft.index[i] * stride
        weight[i] = <weight_type> draft.weight[i]
    if by_start != NULL:
        for i in range(taps):
            by_start[i], by_end[i] = <weight_type> draft.by_start[i], <weight_type> draft.by_end[i]
    if axis.outside != NULL:
        for i in range(draft.size):
            axis.outside[i] = draft.outside[i]


cdef void place_transposed(
    const Draft* draft, int lines, Axis* axis, Py_ssize_t stride, weight_type T
) noexcept nogil:
    """The transpose of a covered draft: a line a slot, whose indices are bins, in rising order."""
    cdef int t, bin, line, at
    cdef int* indptr = axis.indptr
    cdef weight_type* weight = <weight_type*> axis.weight
    axis.size = lines
    for line in range(lines + 1):
        indptr[line] = 0
    for t in range(draft.indptr[draft.size]):
        indptr[draft.index[t] + 1] += 1
    for line in range(lines):
        indptr[line + 1] += indptr[line]
    for bin in range(draft.size):
        for t in range(draft.indptr[bin], draft.indptr[bin + 1]):
            line = <int> draft.index[t]
            at = indptr[line]
            indptr[line] += 1
            axis.index[at] = bin * stride
            weight[at] = <weight_type> draft.weight[t]
    # Filling moved each beginning to the next one: move them back.
    for line in range(lines, 0, -1):
        indptr[line] = indptr[line - 1]
    indptr[0] = 0
