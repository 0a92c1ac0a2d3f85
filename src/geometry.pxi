# Box -> tables: the one place that knows the sampling rule.
#
# Average RoIAlign is separable. Its range test is a test of y times a test of x, clamping and
# interpolation act on one axis at a time, and the number of samples is a product. So for each RoI and
# channel
#
#     output = Y . input . X^T        Y: bins x rows, X: bins x columns, sparse and banded,
#
# and the gradient is Y^T . grad_output . X. A Band is such a matrix. It depends on the box alone, so it
# is built once a RoI and serves every channel. Samples that fall on the same pixel share one tap, and
# samples outside the map are never visited, so a Band never holds more than the axis has room for.


cdef double EXACT = 2.0 ** 53  # doubles count one by one up to here


ctypedef fused coordinate:  # the type T in which the contract rounds every step of the geometry
    float
    double


cdef struct Band:  # line i is the sum over begin[i] <= t < begin[i + 1] of weight[t] * source[offset[t]]
    int lines
    int* begin
    Py_ssize_t* offset
    real* weight


cdef struct Sampling:  # what one call says about all of its boxes
    Py_ssize_t height, width  # of the feature map
    Py_ssize_t bins_y, bins_x  # the output size
    int ratio
    bint aligned
    bint single  # T is float, not double
    double scale


cdef inline void set_sampling(
    Sampling* sampling, const Py_ssize_t* map_shape, const Py_ssize_t* bins_shape,
    double spatial_scale, int sampling_ratio, bint aligned, bint single, bint channels_last,
) noexcept nogil:
    cdef int y = 1 if channels_last else 2
    sampling.height, sampling.width = map_shape[y], map_shape[y + 1]
    sampling.bins_y, sampling.bins_x = bins_shape[y], bins_shape[y + 1]
    sampling.ratio = max(sampling_ratio, 0)
    sampling.scale, sampling.aligned, sampling.single = spatial_scale, aligned, single


cdef inline coordinate edge(double x, coordinate scale, bint aligned) noexcept nogil:
    """Where a box edge lies on the feature map."""
    return <coordinate> x * scale - <coordinate> (0.5 if aligned else 0.0)


cdef inline coordinate extent(coordinate start, coordinate end, bint aligned) noexcept nogil:
    """The side of a RoI; the legacy rule makes it one pixel at least."""
    cdef coordinate size = end - start
    if not aligned and size < 1:
        size = 1
    return size


cdef bint is_defined(const double* box, coordinate scale, bint aligned) noexcept nogil:
    """Whether the edges and sides of a box (row of boxes) are finite on the map."""
    cdef coordinate x1 = edge(box[1], scale, aligned), y1 = edge(box[2], scale, aligned)
    cdef coordinate x2 = edge(box[3], scale, aligned), y2 = edge(box[4], scale, aligned)
    return isfinite(x1) and isfinite(y1) and isfinite(x2 - x1) and isfinite(y2 - y1)


cdef inline coordinate position(
    coordinate start, coordinate bin_size, coordinate grid, Py_ssize_t bin, double i
) noexcept nogil:
    """Where sample i of a bin lies. The order of the operations is part of the contract."""
    return start + bin * bin_size + (<coordinate> i + <coordinate> 0.5) * bin_size / grid


cdef double first_beyond(
    coordinate start, coordinate bin_size, coordinate grid, Py_ssize_t bin,
    double low, double high, coordinate bound, bint inclusive,
) noexcept nogil:
    """The first sample of [low, high) past the bound (or on it, if inclusive), else high.

    Bisection, since positions never decrease with i. A huge box has more samples than an integer can
    count, so their numbers are doubles, and one double past 2**53 stands for all that round to it.
    """
    cdef double middle
    cdef coordinate x
    while low < high:
        middle = floor(low + (high - low) / 2)
        if middle >= high:
            middle = low
        x = position(start, bin_size, grid, bin, middle)
        if x > bound or (inclusive and x == bound):
            high = middle
        else:
            low = max(middle + 1, nextafter(middle, INFINITY))
    return high


cdef double lead(double i) noexcept nogil:
    """From i to the first whole number that rounds to i: at most 0. Halves round to even numbers."""
    if i <= EXACT:
        return 0
    return (i / (nextafter(i, INFINITY) - i)) % 2 - (i - nextafter(i, 0)) / 2


cdef inline double samples_between(double i, double following, double end) noexcept nogil:
    """How many samples [i, following) are, of which there are `end` in all."""
    cdef double count = min(following, end) - i - lead(i)
    return count + lead(following) if following <= end else count


cdef inline Py_ssize_t most_taps(Py_ssize_t bins, int ratio, Py_ssize_t length) noexcept nogil:
    """Room for the taps of one axis.

    Neighbouring bins share two pixels, and a few more where a huge box makes rounding errors wider than
    a pixel: hence the factors, which `sample_axis` does not rely on for its safety.
    """
    cdef Py_ssize_t taps = 4 * length + 8 * bins
    if ratio > 0:
        taps = min(taps, 2 * ratio * bins)
    return taps


cdef void sample_axis(
    double low, double high, coordinate scale, bint aligned, int ratio,
    Py_ssize_t bins, Py_ssize_t length, Band* band,
) noexcept nogil:
    """Fill the band of one axis: a line a bin, whose offsets are pixels, from low to high."""
    cdef coordinate start = edge(low, scale, aligned)
    cdef coordinate size = extent(start, edge(high, scale, aligned), aligned)
    cdef coordinate bin_size = size / bins
    cdef coordinate grid = <coordinate> ratio if ratio > 0 else <coordinate> ceil(bin_size)
    cdef coordinate x, fraction, near, far  # near and far: weights of the pixels `pixel` and `pixel + 1`
    cdef double i, count, first, last, following, end = max(grid, <coordinate> 0)
    cdef Py_ssize_t bin, here, pixel, most = most_taps(bins, ratio, length)
    cdef int t = 0
    cdef bint crowded
    band.lines = <int> bins
    for bin in range(bins):
        band.begin[bin] = t
        first, last = 0, end if end <= EXACT else nextafter(end, INFINITY)
        if ratio <= 0 and last > 0:
            if position(start, bin_size, grid, bin, 0) < -1:
                first = first_beyond(start, bin_size, grid, bin, first, last, <coordinate> -1, True)
            if position(start, bin_size, grid, bin, last - 1) > length:
                last = first_beyond(start, bin_size, grid, bin, first, last, <coordinate> length, False)
        # Adaptive samples are at most a pixel apart and more than half of one. Where many more are left,
        # the coordinates of a huge box round many of them to one place: take these together.
        crowded = ratio <= 0 and last - first > 4.0 * (length + 4)
        pixel = -2
        near = far = 0
        i = first
        while i < last:
            # A mirrored bin is walked backwards, so that positions rise.
            x = position(start, bin_size, grid, bin, i if bin_size >= 0 else last - 1 - i)
            following = max(i + 1, nextafter(i, INFINITY))
            if crowded:
                following = first_beyond(start, bin_size, grid, bin, following, last, x, False)
            count = samples_between(i, following, end)
            i = following
            if x < -1 or x > length:
                continue
            x = min(max(x, <coordinate> 0), <coordinate> (length - 1))
            here = min(<Py_ssize_t> x, length - 1)
            fraction = x - here
            if here != pixel:
                if pixel >= 0:
                    t = add_tap(band, t, most, pixel, near / grid)
                    if here > pixel + 1:
                        t = add_tap(band, t, most, pixel + 1, far / grid)
                near = far if here == pixel + 1 else 0
                far = 0
                pixel = here
            near += <coordinate> count * (1 - fraction)
            far += <coordinate> count * fraction
        if pixel >= 0:
            t = add_tap(band, t, most, pixel, near / grid)
            if pixel + 1 < length:
                t = add_tap(band, t, most, pixel + 1, far / grid)
    band.begin[bins] = t


cdef inline int add_tap(Band* band, int t, Py_ssize_t most, Py_ssize_t pixel, double weight) noexcept nogil:
    if t >= most:
        return t
    band.offset[t] = pixel
    band.weight[t] = <real> weight
    return t + 1


cdef int cover(Band* band, Py_ssize_t length, int width, int* slot, Py_ssize_t* strip) noexcept nogil:
    """Gather the pixels of a band into strips of `width` pixels; returns how many.

    strip[s] is the first pixel of strip s, the offsets of the band become slots (s * width + the place in
    the strip), and pixels that no strip covers are never read. A strip that would cross the end of the
    axis starts earlier. slot: scratch, `length` zeros, handed back as zeros.
    """
    cdef Py_ssize_t pixel, first = length, last = -1, end = -1
    cdef Py_ssize_t latest = max(length - width, 0)  # where the last strip can start
    cdef int t, s = -1, taps = band.begin[band.lines]
    for t in range(taps):
        slot[band.offset[t]] = 1
        first = min(first, band.offset[t])
        last = max(last, band.offset[t])
    for pixel in range(first, last + 1):
        if slot[pixel]:
            if pixel >= end:
                s += 1
                strip[s] = min(pixel, latest)
                end = strip[s] + width
            slot[pixel] = <int> (s * width + pixel - strip[s])
    for t in range(taps):
        band.offset[t] = slot[band.offset[t]]
    for pixel in range(first, last + 1):
        slot[pixel] = 0
    return s + 1


cdef void transpose_band(const Band* band, int strips, int width, Band* turned) noexcept nogil:
    """The transpose of a covered band: a line a strip, whose offsets are bins, in rising order.

    Each tap has as many weights as a strip has slots: 0 for those that the bin does not reach.
    """
    cdef int t, line, at = 0
    cdef Py_ssize_t strip, latest
    cdef int* begin = turned.begin
    turned.lines = strips
    for strip in range(strips + 1):
        begin[strip] = 0
    for line in range(band.lines):
        latest = -1
        for t in range(band.begin[line], band.begin[line + 1]):
            strip = band.offset[t] // width
            if strip != latest:
                begin[strip + 1] += 1
                latest = strip
    for strip in range(strips):
        begin[strip + 1] += begin[strip]
    for line in range(band.lines):
        latest = -1
        for t in range(band.begin[line], band.begin[line + 1]):
            strip = band.offset[t] // width
            if strip != latest:
                at = begin[strip]
                begin[strip] += 1
                latest = strip
                turned.offset[at] = line
                memset(turned.weight + at * width, 0, width * sizeof(real))
            turned.weight[at * width + band.offset[t] % width] = band.weight[t]
    # Filling moved each beginning to the next one: move them back.
    for strip in range(strips, 0, -1):
        begin[strip] = begin[strip - 1]
    begin[0] = 0


cdef inline void spread(Band* band, Py_ssize_t stride) noexcept nogil:
    """Turn offsets that count lines of the source into offsets that count its numbers."""
    cdef int t
    for t in range(band.begin[band.lines]):
        band.offset[t] *= stride
