# Where the samples of a box lie along one axis: the one place that knows the sampling rule of RoIAlign, from
# the edges of the box to the number of samples and the place of each. Every step is rounded in T, the
# `coordinate` of these functions; what is kept in a structure is kept as double, in which each T is exact.

cdef double EXACT = 2.0 ** 53  # doubles count one by one up to here


ctypedef fused coordinate:  # the type T in which the contract rounds every step of the geometry
    float
    double


cdef struct Side:  # one axis of one box, and what it is pooled to
    double low, high, scale
    bint aligned
    bint single  # T is float
    int ratio  # samples a bin; 0: adaptive
    Py_ssize_t bins, length  # of the map


cdef struct Grid:  # the samples of a side: `per_bin` in each of its bins
    double start, end, bin_size
    double per_bin  # as it divides; 0, or less, where there are none
    double samples  # as they are counted; past 2**53 they are not whole
    bint clamped  # the box is narrower than a pixel, and was made one pixel wide


cdef inline coordinate edge(double x, double scale, bint aligned, coordinate T) noexcept nogil:
    """Where an edge of a box lies on the map; T: any number of the type."""
    return <coordinate> x * <coordinate> scale - <coordinate> (0.5 if aligned else 0.0)


cdef inline Grid grid_of(const Side* side, coordinate T) noexcept nogil:
    """The samples of a side; the legacy rule makes it one pixel long at least."""
    cdef coordinate start = edge(side.low, side.scale, side.aligned, T)
    cdef coordinate end = edge(side.high, side.scale, side.aligned, T)
    cdef coordinate size = end - start
    cdef bint clamped = not side.aligned and size < 1
    cdef Grid grid = grid_from(start, <coordinate> 1 if clamped else size, side.bins, side.ratio)
    grid.end, grid.clamped = end, clamped
    return grid


cdef inline Grid grid_from(coordinate start, coordinate size, Py_ssize_t bins, int ratio) noexcept nogil:
    """The samples of a side that starts here and is so long."""
    cdef Grid grid
    cdef coordinate bin_size = size / bins
    grid.start, grid.end, grid.bin_size, grid.clamped = start, start + size, bin_size, False
    grid.per_bin = <coordinate> ratio if ratio > 0 else <coordinate> ceil(bin_size)
    grid.samples = max(grid.per_bin, 0.0)
    return grid


cdef inline coordinate position(const Grid* grid, Py_ssize_t bin, double i, coordinate T) noexcept nogil:
    """Where sample i of a bin lies. The order of the operations is part of the contract."""
    cdef coordinate start = <coordinate> grid.start, bin_size = <coordinate> grid.bin_size
    return start + bin * bin_size + (<coordinate> i + <coordinate> 0.5) * bin_size / <coordinate> grid.per_bin


cdef inline double samples_end(const Grid* grid) noexcept nogil:
    """One past the last sample, as a number that samples are compared with."""
    return grid.samples if grid.samples <= EXACT else nextafter(grid.samples, INFINITY)


cdef inline double next_sample(double i) noexcept nogil:
    """The sample after i: past 2**53 one double stands for all samples that round to it."""
    return i + 1 if i < EXACT else nextafter(i, INFINITY)


cdef inline double previous_sample(double i) noexcept nogil:
    return i - 1 if i <= EXACT else nextafter(i, 0)


cdef double first_beyond(
    const Grid* grid, Py_ssize_t bin, double low, double high, coordinate bound, bint inclusive
) noexcept nogil:
    """The first sample of [low, high) past the bound (or on it, if inclusive), else high.

    Bisection, since positions never decrease with i. A huge box has more samples than an integer can
    count, so their numbers are doubles.
    """
    cdef double middle
    cdef coordinate x
    while low < high:
        middle = floor(low + (high - low) / 2)
        if middle >= high:
            middle = low
        x = position(grid, bin, middle, bound)
        if x > bound or (inclusive and x == bound):
            high = middle
        else:
            low = next_sample(middle)
    return high


cdef double lead(double i) noexcept nogil:
    """From i to the first whole number that rounds to i: at most 0. Halves round to even numbers."""
    if i <= EXACT:
        return 0
    return (i / (nextafter(i, INFINITY) - i)) % 2 - (i - nextafter(i, 0)) / 2


cdef inline double samples_between(const Grid* grid, double i, double following) noexcept nogil:
    """How many samples [i, following) are."""
    cdef double end = grid.samples, count = min(following, end) - i - lead(i)
    return count + lead(following) if following <= end else count


cdef inline bint is_crowded(const Side* side, double samples) noexcept nogil:
    """Whether these samples of a bin, all near the map, are to be taken place by place.

    Adaptive samples are at most a pixel apart and more than half of one. Where many more are left, the
    coordinates of a huge box round many of them to one place.
    """
    return side.ratio <= 0 and samples > 4.0 * (side.length + 4)


cdef inline double end_of_place(
    const Side* side, const Grid* grid, Py_ssize_t bin, double i, double last, coordinate x, bint crowded
) noexcept nogil:
    """One past the samples that are taken together with sample i, which lies at x."""
    if crowded:
        return first_beyond(grid, bin, next_sample(i), last, x, False)
    return next_sample(i)


cdef inline Py_ssize_t most_taps(Py_ssize_t bins, int ratio, Py_ssize_t length) noexcept nogil:
    """Room for the taps of one axis.

    Neighbouring bins share two pixels, and a few more where a huge box makes rounding errors wider than
    a pixel: hence the factors, on which the safety of nothing relies.
    """
    cdef Py_ssize_t taps = 4 * length + 8 * bins
    if ratio > 0:
        taps = min(taps, 2 * ratio * bins)
    return taps
