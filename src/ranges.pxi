# Box -> ranges of whole pixels: the one place that knows the quantising rule of RoIPool and PSRoIPool.
#
# The edges of a box are rounded to whole pixels, and so are those of each bin: outwards, so that neighbours
# share a pixel where they do not meet at one. Whole numbers stay floating-point numbers until they are
# clipped to the map: a huge box has more pixels than an integer can count.

from libc.math cimport round as round_half_away


cdef struct Range:  # pixels first <= i < end of one axis
    int first, end


cdef inline int clipped(double pixel, Py_ssize_t length) noexcept nogil:
    """A whole number as a place on an axis, from 0 to its length; 0 for NaN."""
    if pixel >= length:
        return <int> length
    return <int> pixel if pixel > 0 else 0


cdef inline Range bin_range(
    double low, double high, coordinate scale, int inclusive,
    Py_ssize_t bins, Py_ssize_t bin, Py_ssize_t length,
) noexcept nogil:
    """The pixels of one bin of a box, on an axis of the given length.

    inclusive: 1 if the pixel of the far edge belongs to the box, else 0. Boxes are a pixel wide at least.
    """
    cdef Range pixels
    cdef double start = round_half_away(edge(low, scale, False))
    cdef double end = round_half_away(edge(high, scale, False)) + inclusive
    cdef coordinate bin_size = <coordinate> max(end - start, 1.0) / bins
    pixels.first = clipped(start + floor(bin * bin_size), length)
    pixels.end = clipped(start + ceil((bin + 1) * bin_size), length)
    return pixels


cdef Range range_of(
    const Sampling* sampling, const double* box, bint vertical, int inclusive,
    Py_ssize_t bin, Py_ssize_t length,
) noexcept nogil:
    """`bin_range` for one axis of a row of boxes, in the precision that the contract asks for."""
    cdef Py_ssize_t bins = sampling.bins_y if vertical else sampling.bins_x
    cdef double low = box[2 if vertical else 1], high = box[4 if vertical else 3]
    if sampling.single:
        return bin_range[float](low, high, <float> sampling.scale, inclusive, bins, bin, length)
    return bin_range[double](low, high, sampling.scale, inclusive, bins, bin, length)


cdef void average_ranges(
    const Sampling* sampling, const double* box, bint vertical, Py_ssize_t length, Band* band
) noexcept nogil:
    """Fill the band of one axis: the mean of the pixels of each bin.

    Neighbouring bins share a pixel at most, so there are no more taps than `most_taps` allows for.
    """
    cdef int t = 0, bin, pixel
    cdef Range pixels
    for bin in range(band.lines):
        band.begin[bin] = t
        pixels = range_of(sampling, box, vertical, 0, bin, length)
        for pixel in range(pixels.first, pixels.end):
            band.offset[t] = pixel
            band.weight[t] = <real> (1.0 / (pixels.end - pixels.first))
            t += 1
    band.begin[band.lines] = t
