# How the weights of a mean change with the edges of its box: the rule for the gradient to boxes.
#
# A sample at x = start + u * (end - start), between pixels i and i + 1, weighs them by 1 - (x - i) and
# x - i. It keeps its u while the edges move, so that x moves by 1 - u for each pixel that start moves, and by
# u for each that end does; as much goes from the weight of pixel i to that of pixel i + 1. A sample outside
# the map, or clamped to its rim, weighs the same wherever it moves. So the derivatives of an axis have its
# own taps.


cdef void draft_derivatives(const Side* side, Draft* draft, coordinate T) noexcept nogil:
    """Fill the weights of an axis, as `draft_samples` does, and their derivatives.

    Samples are walked as there, but for those outside or clamped. Each of the others finds the taps of its
    two pixels in the axis, side by side. A crowd at one place has one u, that of its first: to the precision
    of the coordinates, which is why it is at one place.
    """
    cdef Grid grid = grid_of(side, T)
    cdef coordinate x, per_bin = <coordinate> grid.per_bin
    cdef bint mirrored = grid.bin_size < 0, crowded
    cdef double i, sample, u, count, first, last, following
    cdef double by_start, by_end  # of the samples of one pair of pixels, `pixel` and `pixel + 1`
    cdef Py_ssize_t bin, pixel, bins = side.bins, length = side.length
    cdef int t
    draft_samples(side, draft, T)
    for t in range(draft.indptr[bins]):
        draft.by_start[t] = draft.by_end[t] = 0
    for bin in range(bins):
        first, last = 0, samples_end(&grid)
        if side.ratio <= 0:
            first = first_beyond(&grid, bin, first, last, <coordinate> 0, True)
            last = first_beyond(&grid, bin, first, last, <coordinate> (length - 1), True)
        crowded = is_crowded(side, last - first)
        t = draft.indptr[bin]
        pixel = -1
        by_start = by_end = 0
        i = first
        while i < last:
            sample = last - 1 - i if mirrored else i
            x = position(&grid, bin, sample, T)
            following = end_of_place(side, &grid, bin, i, last, x, crowded)
            count = samples_between(&grid, i, following)
            u = (bin + (sample + 0.5) / per_bin) / bins
            if grid.clamped:  # one pixel wide wherever the end lies
                u = 0
            i = following
            if not 0 <= x < length - 1:
                continue
            if <Py_ssize_t> x != pixel:
                t = shift_weight(draft, t, draft.indptr[bin + 1], pixel, by_start, by_end)
                by_start = by_end = 0
                pixel = <Py_ssize_t> x
            by_start += count / per_bin * (1 - u)
            by_end += count / per_bin * u
        shift_weight(draft, t, draft.indptr[bin + 1], pixel, by_start, by_end)


cdef inline int shift_weight(
    Draft* draft, int t, int end, Py_ssize_t pixel, double by_start, double by_end
) noexcept nogil:
    """Move derivative from a pixel to the next one. Returns the tap of the pixel, which is t or later."""
    while t < end and draft.index[t] < pixel:
        t += 1
    if t + 1 < end and draft.index[t] == pixel:
        by_start, by_end = rounded(draft, by_start), rounded(draft, by_end)
        draft.by_start[t] = rounded(draft, draft.by_start[t] - by_start)
        draft.by_start[t + 1] = rounded(draft, draft.by_start[t + 1] + by_start)
        draft.by_end[t] = rounded(draft, draft.by_end[t] - by_end)
        draft.by_end[t + 1] = rounded(draft, draft.by_end[t + 1] + by_end)
    return t
