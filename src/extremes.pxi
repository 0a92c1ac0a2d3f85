# Which samples a maximum needs: the table of one axis of a RoI.
#
# Along an axis a sample moves linearly from one pixel to the next. So of all the samples of a bin that lie
# between the same two pixels, none is larger than both the first and the last: the others are left out,
# however many there are, and on a tie the first of all is one of those kept. Samples out of range are
# 0, and all that matters of them is whether a bin has any, and whether before or after the others.

cdef enum:  # where a bin has samples out of range on an axis
    NOWHERE = 0
    BEFORE = 1  # the first is, and perhaps others
    AFTER = 2  # only samples that follow those in range


cdef struct Extremes:
    Band taps  # a line a bin; the taps are pairs, the two pixels of a sample, in the order of the samples
    int* outside  # for each bin


cdef inline Py_ssize_t most_extremes(Py_ssize_t bins, int ratio, Py_ssize_t length) noexcept nogil:
    """Room for the taps of one axis: where those of an average share a pixel, these may have two samples."""
    return 2 * most_taps(bins, ratio, length)


cdef void find_extremes(
    double low, double high, coordinate scale, bint aligned, int ratio,
    Py_ssize_t bins, Py_ssize_t length, Extremes* axis,
) noexcept nogil:
    """Fill the table of one axis. The offsets are pixels.

    Bisection finds where samples pass a pixel: positions never fall, or if a box is mirrored never rise,
    and then their opposites, which round alike, take their place.
    """
    cdef coordinate start = edge(low, scale, aligned)
    cdef coordinate size = extent(start, edge(high, scale, aligned), aligned)
    cdef coordinate bin_size = size / bins
    cdef coordinate grid = <coordinate> ratio if ratio > 0 else <coordinate> ceil(bin_size)
    cdef bint mirrored = bin_size < 0
    cdef coordinate sign = -1 if mirrored else 1
    cdef coordinate nearest = -length if mirrored else -1, farthest = 1 if mirrored else length
    cdef coordinate x, last_x, bound
    cdef double i, first, last, following, end = max(grid, <coordinate> 0)
    cdef Py_ssize_t bin, pixel, most = most_extremes(bins, ratio, length)
    cdef int t = 0
    start, bin_size = sign * start, sign * bin_size
    if end > EXACT:
        end = nextafter(end, INFINITY)
    axis.taps.lines = <int> bins
    for bin in range(bins):
        axis.taps.begin[bin] = t
        first = first_beyond(start, bin_size, grid, bin, 0, end, nearest, True)
        last = first_beyond(start, bin_size, grid, bin, first, end, farthest, False)
        axis.outside[bin] = BEFORE if first > 0 else AFTER if last < end else NOWHERE
        i = first
        while i < last:
            x = clamped(sign * position(start, bin_size, grid, bin, i), length)
            pixel = min(<Py_ssize_t> x, length - 1)
            following = max(i + 1, nextafter(i, INFINITY))
            if pixel == (0 if mirrored else length - 1):
                following = last  # all that is left lies on the rim
            else:
                bound = -pixel if mirrored else pixel + 1
                following = first_beyond(
                    start, bin_size, grid, bin, following, last, bound,
                    not mirrored and bound > x,  # pixel + 1 rounds to x where T does not count one by one
                )
            t = add_sample(&axis.taps, t, most, pixel, length, x)
            i = following - 1 if following <= EXACT else nextafter(following, 0)
            last_x = clamped(sign * position(start, bin_size, grid, bin, i), length)
            if last_x != x:
                t = add_sample(&axis.taps, t, most, pixel, length, last_x)
            i = following
    axis.taps.begin[bins] = t


cdef inline coordinate clamped(coordinate x, Py_ssize_t length) noexcept nogil:
    return min(max(x, <coordinate> 0), <coordinate> (length - 1))


cdef inline int add_sample(
    Band* band, int t, Py_ssize_t most, Py_ssize_t pixel, Py_ssize_t length, coordinate x
) noexcept nogil:
    """A sample on the rim has its pixel twice, once with weight 0."""
    cdef coordinate fraction = x - pixel
    t = add_tap(band, t, most, pixel, 1 - fraction)
    return add_tap(band, t, most, min(pixel + 1, length - 1), fraction)
