# Whole pixels of each bin: the rule of RoIPool and PSRoIPool, and the one place that knows how they quantise.
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


cdef inline Range range_of(const Side* side, int inclusive, Py_ssize_t bin, coordinate T) noexcept nogil:
    """The pixels of one bin. inclusive: 1 if the pixel of the far edge belongs to the box, else 0.

    Boxes are a pixel wide at least.
    """
    cdef Range pixels
    cdef double start = round_half_away(edge(side.low, side.scale, False, T))
    cdef double end = round_half_away(edge(side.high, side.scale, False, T)) + inclusive
    cdef coordinate bin_size = <coordinate> max(end - start, 1.0) / side.bins
    pixels.first = clipped(start + floor(bin * bin_size), side.length)
    pixels.end = clipped(start + ceil((bin + 1) * bin_size), side.length)
    return pixels


cdef void draft_ranges(const Side* side, Draft* draft, coordinate T) noexcept nogil:
    """Fill an axis for RoIPool: each line has two taps, the first pixel and the one behind the last."""
    cdef Py_ssize_t bin
    cdef Range pixels
    draft.size = <int> side.bins
    for bin in range(side.bins):
        pixels = range_of(side, 1, bin, T)
        draft.indptr[bin] = <int> (2 * bin)
        draft.index[2 * bin], draft.index[2 * bin + 1] = pixels.first, pixels.end
        draft.weight[2 * bin] = draft.weight[2 * bin + 1] = 0
    draft.indptr[side.bins] = <int> (2 * side.bins)


cdef void draft_range_means(const Side* side, Draft* draft, coordinate T) noexcept nogil:
    """Fill an axis for PSRoIPool: the mean of the pixels of each bin.

    Neighbouring bins share a pixel at most, so there are no more taps than `most_taps` allows for.
    """
    cdef Py_ssize_t bin, pixel
    cdef int t = 0
    cdef Range pixels
    draft.size = <int> side.bins
    for bin in range(side.bins):
        draft.indptr[bin] = t
        pixels = range_of(side, 0, bin, T)
        for pixel in range(pixels.first, pixels.end):
            t = add_tap(draft, t, pixel, 1.0 / (pixels.end - pixels.first))
    draft.indptr[side.bins] = t
