# Volumes: the slices of a volume lie one below the other, as a tall map with rows z * height + y.
#
# On three axes a mean is separable too, so that the axis of the rows of that map is the product of those of
# z and y: each pair of taps is a tap. From there on a volume is a map.


cdef void multiply(const Draft* z, const Draft* y, Py_ssize_t height, Draft* draft) noexcept nogil:
    """Fill the axis of the rows of a tall map with slices of so many rows: a line a pair of bins, z by z."""
    cdef int i, j, a, b, line = 0, t = 0
    draft.size = z.size * y.size
    for i in range(z.size):
        for j in range(y.size):
            draft.indptr[line] = t
            line += 1
            for a in range(z.indptr[i], z.indptr[i + 1]):
                for b in range(y.indptr[j], y.indptr[j + 1]):
                    t = add_tap(draft, t, z.index[a] * height + y.index[b], z.weight[a] * y.weight[b])
    draft.indptr[line] = t


cdef Py_ssize_t taps_of(const Side* side, coordinate T) noexcept nogil:
    """No fewer taps than `draft_samples` makes, and hardly more: products of what any box may have are many.

    Positions in a bin never fall, or never rise, so that its first and last sample enclose its pixels.
    """
    cdef Grid grid = grid_of(side, T)
    cdef double end = samples_end(&grid), last = side.length - 1, first_x, last_x
    cdef Py_ssize_t bin, taps = 0
    if end <= 0:
        return 0
    for bin in range(side.bins):
        first_x, last_x = position(&grid, bin, 0, T), position(&grid, bin, end - 1, T)
        if grid.bin_size < 0:
            first_x, last_x = last_x, first_x
        if last_x < -1 or first_x > side.length:
            continue
        first_x, last_x = min(max(first_x, 0.0), last), min(max(last_x, 0.0), last)
        taps += <Py_ssize_t> min(floor(last_x) - floor(first_x) + 2, 2 * end)
    return min(taps, most_taps(side.bins, side.ratio, side.length))


cdef Py_ssize_t most_rows(const Call* call) noexcept nogil:
    """The most taps that the rows of any box of a call on a volume have."""
    cdef Side z, y
    cdef const double* box = call.boxes
    cdef Py_ssize_t k, taps = 0
    for k in range(call.rois):
        z, y = side_of(&call.settings, call.levels, box, Z), side_of(&call.settings, call.levels, box, Y)
        if call.settings.single:
            taps = max(taps, taps_of(&z, <float> 0) * taps_of(&y, <float> 0))
        else:
            taps = max(taps, taps_of(&z, <double> 0) * taps_of(&y, <double> 0))
        box += call.box_numbers
    return taps
