# The samples that can be the largest of their bin: the rule of both maxima.
#
# Along an axis a sample moves linearly from one pixel to the next. So of all the samples of a bin that lie
# between the same two pixels, none is larger than both the first and the last: only these two are kept,
# and on a tie the first of all samples is among those kept. Samples out of range are
# 0; all that matters is whether a bin has any, and whether they come before or after the others.


cdef void draft_candidates(const Side* side, Draft* draft, coordinate T) noexcept nogil:
    """Fill an axis: a line a bin, whose taps are pairs, the two pixels of a sample, in the order of samples.

    Bisection finds where samples pass a pixel: positions never fall, or if a box is mirrored never rise,
    and then their opposites, which round alike, take their place.
    """
    cdef Grid grid = grid_of(side, T)
    cdef Py_ssize_t bin, pixel, length = side.length
    cdef bint mirrored = grid.bin_size < 0
    cdef coordinate sign = -1 if mirrored else 1
    cdef coordinate nearest = -length if mirrored else -1, farthest = 1 if mirrored else length
    cdef coordinate x, last_x, bound
    cdef double i, first, last, following, end = samples_end(&grid)
    cdef int t = 0
    grid.start, grid.bin_size = sign * grid.start, sign * grid.bin_size
    draft.size = <int> side.bins
    for bin in range(side.bins):
        draft.indptr[bin] = t
        first = first_beyond(&grid, bin, 0, end, nearest, True)
        last = first_beyond(&grid, bin, first, end, farthest, False)
        draft.outside[bin] = BEFORE if first > 0 else AFTER if last < end else NOWHERE
        i = first
        while i < last:
            x = clamped(sign * position(&grid, bin, i, T), length)
            pixel = min(<Py_ssize_t> x, length - 1)
            if pixel == (0 if mirrored else length - 1):
                following = last  # all that is left lies on the rim
            else:
                bound = -pixel if mirrored else pixel + 1
                following = first_beyond(
                    &grid, bin, next_sample(i), last, bound,
                    not mirrored and bound > x,  # pixel + 1 rounds to x where T does not count one by one
                )
            t = add_sample(draft, t, pixel, length, x)
            last_x = clamped(sign * position(&grid, bin, previous_sample(following), T), length)
            if last_x != x:
                t = add_sample(draft, t, pixel, length, last_x)
            i = following
    draft.indptr[side.bins] = t


cdef inline coordinate clamped(coordinate x, Py_ssize_t length) noexcept nogil:
    return min(max(x, <coordinate> 0), <coordinate> (length - 1))


cdef inline int add_sample(
    Draft* draft, int t, Py_ssize_t pixel, Py_ssize_t length, coordinate x
) noexcept nogil:
    """A sample on the rim has its pixel twice, once with weight 0."""
    cdef coordinate fraction = x - pixel
    t = add_tap(draft, t, pixel, 1 - fraction)
    return add_tap(draft, t, min(pixel + 1, length - 1), fraction)
