# How the band of an axis changes with the edges of the box.
#
# A sample at x = start + u * (end - start), between pixels i and i + 1, weighs them by 1 - (x - i) and
# x - i. It keeps its u while the edges move, so that x moves by 1 - u for each pixel that start moves, and by
# u for each that end does; as much goes from the weight of pixel i to that of pixel i + 1. A sample outside
# the map, or clamped to its rim, weighs the same wherever it moves. So the derivatives of a band have its own
# taps, and Slopes are a band with three weights a tap.


cdef struct Slopes:  # the taps of one axis, and how their weights change with either end of the RoI
    Band band
    real* by_start
    real* by_end


cdef void slope_axis(
    double low, double high, coordinate scale, bint aligned, int ratio,
    Py_ssize_t bins, Py_ssize_t length, Slopes* axis,
) noexcept nogil:
    """Fill the derivatives of the band that `sample_axis` made of the same arguments.

    Samples are walked as there, but for those outside or clamped. Each of the others finds the taps of its
    two pixels in the band, side by side. A crowd at one place has one u, that of its first: to the precision
    of the coordinates, which is why it is at one place.
    """
    cdef coordinate start = edge(low, scale, aligned), end = edge(high, scale, aligned)
    cdef coordinate bin_size = extent(start, end, aligned) / bins
    cdef coordinate grid = <coordinate> ratio if ratio > 0 else <coordinate> ceil(bin_size)
    cdef coordinate x
    cdef bint rigid = not aligned and end - start < 1  # one pixel wide wherever the end lies: u is 0
    cdef bint mirrored = bin_size < 0, crowded
    cdef double i, sample, u, count, first, last, following, samples = max(grid, <coordinate> 0)
    cdef double by_start, by_end  # of the samples of one pair of pixels, `pixel` and `pixel + 1`
    cdef Py_ssize_t bin, pixel
    cdef int t
    for t in range(axis.band.begin[bins]):
        axis.by_start[t] = axis.by_end[t] = 0
    for bin in range(bins):
        first, last = 0, samples if samples <= EXACT else nextafter(samples, INFINITY)
        if ratio <= 0:
            first = first_beyond(start, bin_size, grid, bin, first, last, <coordinate> 0, True)
            last = first_beyond(start, bin_size, grid, bin, first, last, <coordinate> (length - 1), True)
        crowded = ratio <= 0 and last - first > 4.0 * (length + 4)
        t = axis.band.begin[bin]
        pixel = -1
        by_start = by_end = 0
        i = first
        while i < last:
            sample = last - 1 - i if mirrored else i
            x = position(start, bin_size, grid, bin, sample)
            following = max(i + 1, nextafter(i, INFINITY))
            if crowded:
                following = first_beyond(start, bin_size, grid, bin, following, last, x, False)
            count = samples_between(i, following, samples)
            u = 0 if rigid else (bin + (sample + 0.5) / grid) / bins
            i = following
            if not 0 <= x < length - 1:
                continue
            if <Py_ssize_t> x != pixel:
                t = shift_weight(axis, t, axis.band.begin[bin + 1], pixel, by_start, by_end)
                by_start = by_end = 0
                pixel = <Py_ssize_t> x
            by_start += count / grid * (1 - u)
            by_end += count / grid * u
        shift_weight(axis, t, axis.band.begin[bin + 1], pixel, by_start, by_end)


cdef inline int shift_weight(
    Slopes* axis, int t, int end, Py_ssize_t pixel, double by_start, double by_end
) noexcept nogil:
    """Move derivative from a pixel to the next one. Returns the tap of the pixel, which is t or later."""
    while t < end and axis.band.offset[t] < pixel:
        t += 1
    if t + 1 < end and axis.band.offset[t] == pixel:
        axis.by_start[t] -= <real> by_start
        axis.by_start[t + 1] += <real> by_start
        axis.by_end[t] -= <real> by_end
        axis.by_end[t + 1] += <real> by_end
    return t


cdef void find_slopes(
    const Sampling* sampling, const double* box, bint vertical, Slopes* axis
) noexcept nogil:
    """Both tables of one axis of a box (row of boxes), in the precision that the contract asks for."""
    cdef Py_ssize_t bins = sampling.bins_y if vertical else sampling.bins_x
    cdef Py_ssize_t length = sampling.height if vertical else sampling.width
    cdef double low = box[2 if vertical else 1], high = box[4 if vertical else 3], scale = sampling.scale
    cdef float narrow = <float> scale
    if sampling.single:
        sample_axis[float](low, high, narrow, sampling.aligned, sampling.ratio, bins, length, &axis.band)
        slope_axis[float](low, high, narrow, sampling.aligned, sampling.ratio, bins, length, axis)
    else:
        sample_axis[double](low, high, scale, sampling.aligned, sampling.ratio, bins, length, &axis.band)
        slope_axis[double](low, high, scale, sampling.aligned, sampling.ratio, bins, length, axis)
