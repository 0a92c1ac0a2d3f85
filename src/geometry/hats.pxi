# The integral over each bin of the surface of hats: the rule of Precise RoI Pooling.
#
# Pixel j weighs max(0, 1 - |t - j|) at t, so that between two pixels the surface is linear along an axis. The
# integral of what is linear is its value in the middle times the length: a bin is cut where there are
# pixels, and each part counts as one sample. Outside the map the surface falls to 0 within a pixel.


cdef void draft_hats(const Side* side, Draft* draft, coordinate T) noexcept nogil:
    """Fill an axis: a line a bin, whose indices are pixels, in rising order; none for a bin of no length."""
    cdef coordinate start = edge(side.low, side.scale, False, T)
    cdef coordinate size = max(edge(side.high, side.scale, False, T) - start, <coordinate> 0)
    cdef coordinate bin_size = size / side.bins
    cdef double low, high, left, right, weight, fraction, near, far  # near, far: of `pixel` and of the next
    cdef Py_ssize_t bin, pixel, length = side.length
    cdef int t = 0
    draft.size = <int> side.bins
    for bin in range(side.bins):
        draft.indptr[bin] = t
        low = min(max(start + bin * bin_size, <coordinate> -1), <coordinate> length)
        high = min(max(start + (bin + 1) * bin_size, <coordinate> -1), <coordinate> length)
        near = 0
        pixel = <Py_ssize_t> floor(low)
        while bin_size > 0 and pixel < high:
            left, right = max(low, <double> pixel), min(high, <double> (pixel + 1))
            weight, fraction = (right - left) / bin_size, (left - pixel) / 2 + (right - pixel) / 2
            near += weight * (1 - fraction)
            far = weight * fraction
            if pixel >= 0 and near != 0:
                t = add_tap(draft, t, pixel, near)
            near = far
            pixel += 1
        if near != 0 and 0 <= pixel < length:
            t = add_tap(draft, t, pixel, near)
    draft.indptr[side.bins] = t
