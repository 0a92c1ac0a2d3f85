# The mean of the samples of each bin: the rule of RoIAlign and of PSRoIAlign.
#
# Its range test is a test of y times a test of x, clamping and interpolation act on one axis at a time, and
# the number of samples is a product: so it is separable. Samples between the same pixels share their taps,
# and samples outside the map are never visited, so an axis never has more taps than the map has room for.


cdef void draft_samples(const Side* side, Draft* draft, coordinate T) noexcept nogil:
    """Fill an axis: a line a bin, whose indices are pixels, from low to high."""
    cdef Grid grid = grid_of(side, T)
    cdef coordinate per_bin = <coordinate> grid.per_bin
    cdef coordinate x, fraction, near, far  # near and far: weights of the pixels `pixel` and `pixel + 1`
    cdef double i, count, first, last, following
    cdef Py_ssize_t bin, here, pixel, length = side.length
    cdef int t = 0
    cdef bint crowded
    draft.size = <int> side.bins
    for bin in range(side.bins):
        draft.indptr[bin] = t
        first, last = 0, samples_end(&grid)
        if side.ratio <= 0 and last > 0:
            if position(&grid, bin, 0, T) < -1:
                first = first_beyond(&grid, bin, first, last, <coordinate> -1, True)
            if position(&grid, bin, last - 1, T) > length:
                last = first_beyond(&grid, bin, first, last, <coordinate> length, False)
        crowded = is_crowded(side, last - first)
        pixel = -2
        near = far = 0
        i = first
        while i < last:
            # A mirrored bin is walked backwards, so that positions rise.
            x = position(&grid, bin, i if grid.bin_size >= 0 else last - 1 - i, T)
            following = end_of_place(side, &grid, bin, i, last, x, crowded)
            count = samples_between(&grid, i, following)
            i = following
            if x < -1 or x > length:
                continue
            x = min(max(x, <coordinate> 0), <coordinate> (length - 1))
            here = min(<Py_ssize_t> x, length - 1)
            fraction = x - here
            if here != pixel:
                if pixel >= 0:
                    t = add_tap(draft, t, pixel, near / per_bin)
                    if here > pixel + 1:
                        t = add_tap(draft, t, pixel + 1, far / per_bin)
                near = far if here == pixel + 1 else 0
                far = 0
                pixel = here
            near += <coordinate> count * (1 - fraction)
            far += <coordinate> count * fraction
        if pixel >= 0:
            t = add_tap(draft, t, pixel, near / per_bin)
            if pixel + 1 < length:
                t = add_tap(draft, t, pixel + 1, far / per_bin)
    draft.indptr[side.bins] = t
