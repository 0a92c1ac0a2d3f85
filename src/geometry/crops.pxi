# One sample a bin, the outer ones on the edges of the box: the rule of crop_and_resize.
#
# A sample off the map on either axis makes the bin what the caller says. So there are bins whose line of an
# axis has no taps, and those alone are filled afterwards: see fill_outside. A sample on a pixel has that
# pixel alone, and no slope.


cdef void draft_crops(int pooling, const Side* side, Draft* draft, coordinate T) noexcept nogil:
    """Fill an axis: a line a bin, of at most two pixels, and how these change with the edges if asked to.

    The order of the operations is TensorFlow's, which is another one for the gradient to boxes: a last bit
    decides there whether a sample lies on a pixel.
    """
    cdef coordinate low = <coordinate> side.low, high = <coordinate> side.high
    cdef coordinate scale = <coordinate> side.scale
    cdef coordinate start = low * scale, step = 0, x, fraction
    cdef Py_ssize_t bin, pixel, length = side.length
    cdef double u
    cdef int t = 0
    if side.bins > 1:
        if draft.by_start != NULL:
            step = (high - low) * (scale / <coordinate> (side.bins - 1))
        else:
            step = (high - low) * scale / <coordinate> (side.bins - 1)
    else:
        start = <coordinate> 0.5 * (low + high) * scale
    if length == 1:  # all of it is one place, also what has no finite size
        start = step = 0
    draft.size = <int> side.bins
    for bin in range(side.bins):
        draft.indptr[bin] = t
        x = start + <coordinate> bin * step
        if not 0 <= x <= length - 1:
            continue
        if pooling == CROP_NEAREST:
            t = add_tap(draft, t, <Py_ssize_t> round_half_away(<double> x), 1)
            continue
        pixel = <Py_ssize_t> x
        fraction = x - pixel
        u = <double> bin / (side.bins - 1) if side.bins > 1 else 0.5
        t = add_share(draft, t, pixel, 1 - fraction, u, -1 if fraction > 0 else 0)
        if fraction > 0:
            t = add_share(draft, t, pixel + 1, fraction, u, 1)
    draft.indptr[side.bins] = t


cdef inline int add_share(
    Draft* draft, int t, Py_ssize_t pixel, double weight, double u, double slope
) noexcept nogil:
    """Append a tap of a sample that lies u of the way from the start of the box to its end."""
    if draft.by_start != NULL and t < draft.room:
        draft.by_start[t], draft.by_end[t] = rounded(draft, slope * (1 - u)), rounded(draft, slope * u)
    return add_tap(draft, t, pixel, weight)
