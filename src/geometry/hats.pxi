# The integral over each bin of the surface of hats: the rule of Precise RoI Pooling.
#
# Pixel j weighs max(0, 1 - |t - j|) at t, so that between two pixels the surface is linear along an axis. The
# integral of what is linear is its value in the middle times the length: a bin is cut where there are pixels,
# and each part counts as one sample. Outside the map the surface falls to 0 within a pixel.
#
# A point of the box keeps its u, its share of the way from start to end, while the edges move: it moves by
# 1 - u for each pixel that start moves, and by u for each that end does. So a bin changes as the mean, over
# the bin, of the slope of the surface times what each point moves, which is one value for each part again. Of
# a long bin the slopes of many parts cancel each other. There the same is computed as the quotient rule
# has it, from the hats at its ends and its length, which in turn cancel each other where a bin is short.


cdef void draft_hats(const Side* side, Draft* draft, coordinate T) noexcept nogil:
    """Fill an axis: a line a bin, whose indices are pixels, from low to high; none for a box of no length."""
    cdef double start = edge(side.low, side.scale, False, T)
    cdef double size = edge(side.high, side.scale, False, T) - start
    cdef double bin_size = size / side.bins, low, high
    cdef Py_ssize_t bin
    cdef int t = 0
    draft.size = <int> side.bins
    for bin in range(side.bins):
        draft.indptr[bin] = t
        if size > 0:
            low, high = start + bin * bin_size, start + (bin + 1) * bin_size
            # A bin shorter than its coordinates can tell is as short as they can.
            t = add_hats(side, draft, t, bin, low, max(high, nextafter(low, INFINITY)))
    draft.indptr[side.bins] = t


cdef inline int add_hats(
    const Side* side, Draft* draft, int t, Py_ssize_t bin, double low, double high
) noexcept nogil:
    """Append the taps of a bin, and how they change with the edges if that is asked for."""
    cdef Py_ssize_t length = side.length, pixel = <Py_ssize_t> floor(min(max(low, -1.0), <double> length))
    cdef double last = min(high, <double> length), left, right, share, fraction, u
    cdef Hat near, far  # of `pixel` and of the next
    near.weight = near.by_start = near.by_end = 0
    while pixel < last:
        left, right = max(low, <double> pixel), min(last, <double> (pixel + 1))
        share, fraction = (right - left) / (high - low), (left - pixel) / 2 + (right - pixel) / 2
        u = (bin + ((left - low) / 2 + (right - low) / 2) / (high - low)) / side.bins
        far.weight, far.by_start, far.by_end = share * fraction, share * (1 - u), share * u
        near.weight += share * (1 - fraction)
        near.by_start -= far.by_start
        near.by_end -= far.by_end
        t = add_hat(draft, t, pixel, side, bin, low, high, &near)
        near = far
        pixel += 1
    if low < last:
        t = add_hat(draft, t, pixel, side, bin, low, high, &near)
    return t


cdef struct Hat:  # what a pixel weighs in a bin, and how that changes
    double weight, by_start, by_end


cdef inline int add_hat(
    Draft* draft, int t, Py_ssize_t pixel, const Side* side, Py_ssize_t bin, double low, double high,
    const Hat* hat,
) noexcept nogil:
    cdef double size = high - low, at_low, at_high, by_length, u = <double> bin / side.bins
    if not 0 <= pixel < side.length or t >= draft.room:
        return t
    if draft.by_start != NULL:
        draft.by_start[t], draft.by_end[t] = hat.by_start, hat.by_end
        if size >= 1:
            at_low, at_high = height_of_hat(low - pixel) / size, height_of_hat(high - pixel) / size
            by_length = hat.weight / size / side.bins
            draft.by_start[t] = at_high * (1 - u - 1.0 / side.bins) - at_low * (1 - u) + by_length
            draft.by_end[t] = at_high * (u + 1.0 / side.bins) - at_low * u - by_length
    return add_tap(draft, t, pixel, hat.weight)


cdef inline double height_of_hat(double t) noexcept nogil:
    return max(0.0, 1 - fabs(t))
