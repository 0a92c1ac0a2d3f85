# Where the samples of a rotated box lie. In the frame of the box they form the grid of RoIAlign, which is
# then turned around its centre: a range of rows of the map is no range of samples, and nothing is separable.
#
# The samples of a bin are walked some at a time, row by row of their grid, and of each row only those near
# the map. What that takes does not depend on how far the box reaches outside:
#
# - Where coordinates are exact to a fraction of a pixel, arithmetic finds the rows that can meet the map, and
#   of each its columns.
# - Those of a huge box are rounded to whole pixels, or to millions of them, and many samples to one place.
#   There the samples are halved, rows or columns, until all of a patch lie outside the map or all at one
#   place. Each coordinate is monotone in rows and in columns, also as it is rounded, so that the corners of a
#   patch tell this.

cdef enum:
    SAMPLES = 32  # found at a time

cdef double ROUGH = 0.25  # pixels of slack of a frame from which on its samples are halved


cdef struct Sample:  # of one bin: four pixels, row by row, and what each weighs in the mean
    Py_ssize_t row, next_row
    Py_ssize_t at[4]  # in the plane of an image
    real weight[4]


cdef struct Walk:  # over the samples of a bin that lie near some rows of the map
    const Level* level
    const Frame* frame
    double first, last  # y of the map, in which samples count
    Grid y, x
    bint rough
    Py_ssize_t bin_y, bin_x
    Patch at  # samples that are to come: the rest of the first row, then rows of (left, right) unknown
    double lowest, highest  # the rows of the frame that meet the map
    Patch* patch  # where samples are halved: those that wait
    int patches


cdef void start_box(
    Walk* walk, const Call* call, const RoI* roi, Py_ssize_t first_row, Py_ssize_t last_row, Patch* patch
) noexcept nogil:
    """Begin with a box, of whose samples those count that read some rows of the map, and perhaps more."""
    cdef const Settings* settings = &call.settings
    cdef const Frame* frame = &roi.frame
    cdef double height, width, middle
    walk.level, walk.frame, walk.patch = roi.level, frame, patch
    # A sample above the map reads row 0, and row 1 with the weight 0: what is not finite shows there too.
    walk.first, walk.last = first_row - 1 if first_row > 1 else -1, last_row
    walk.rough = frame.slack > ROUGH
    if settings.single:
        walk.y = grid_from(
            <float> (-frame.height / 2), <float> frame.height, settings.bins_y, settings.ratio
        )
        walk.x = grid_from(<float> (-frame.width / 2), <float> frame.width, settings.bins_x, settings.ratio)
    else:
        walk.y = grid_from(-frame.height / 2, frame.height, settings.bins_y, settings.ratio)
        walk.x = grid_from(-frame.width / 2, frame.width, settings.bins_x, settings.ratio)
    # The corners of the rows of the map, turned back into the frame of the box.
    height, width = (walk.last - walk.first) / 2, (walk.level.width + 1) / 2.0
    middle = (walk.first + height - frame.y) * frame.cosine + (width - 1 - frame.x) * frame.sine
    height = height * fabs(frame.cosine) + width * fabs(frame.sine) + 2 * frame.slack
    walk.lowest, walk.highest = middle - height, middle + height


cdef inline double nearest_sample(const Grid* grid, Py_ssize_t bin, double place) noexcept nogil:
    """The number of the sample of a bin that would lie at a place of the frame, not rounded."""
    return (place - grid.start - bin * grid.bin_size) / grid.bin_size * grid.per_bin - 0.5


cdef inline void find_range(
    const Grid* grid, Py_ssize_t bin, double low, double high, double* first, double* last
) noexcept nogil:
    """The samples [first, last) of a bin between two places, perhaps some more; low may exceed high."""
    cdef double start, end
    first[0], last[0] = 0, grid.samples
    if grid.bin_size == 0 or grid.samples <= 2:
        return
    start, end = nearest_sample(grid, bin, low), nearest_sample(grid, bin, high)
    if grid.bin_size < 0:
        start, end = end, start
    first[0] = min(max(floor(start) - 1, 0.0), grid.samples)
    last[0] = max(min(ceil(end) + 2, grid.samples), first[0])


cdef void start_bin(Walk* walk, Py_ssize_t bin_y, Py_ssize_t bin_x, bint single) noexcept nogil:
    """Begin with a bin of the box."""
    walk.bin_y, walk.bin_x = bin_y, bin_x
    walk.at.left = walk.at.right = 0
    walk.at.top = walk.at.bottom = 0
    walk.patches = 0
    if walk.rough:
        walk.patch.top, walk.patch.left = 0, 0
        # Past what can be counted, positions are infinite, and that is outside.
        walk.patch.bottom = first_infinite(&walk.y, bin_y, single)
        walk.patch.right = first_infinite(&walk.x, bin_x, single)
        walk.patches = walk.patch.bottom > 0 and walk.patch.right > 0
    else:
        find_range(&walk.y, bin_y, walk.lowest, walk.highest, &walk.at.top, &walk.at.bottom)
    walk.at.top -= 1  # whose columns are done


cdef double first_infinite(const Grid* grid, Py_ssize_t bin, bint single) noexcept nogil:
    """One past the last sample of a bin whose position is finite."""
    cdef Grid forwards = grid[0]
    if grid.bin_size < 0:
        forwards.start, forwards.bin_size = -grid.start, -grid.bin_size
    if single:
        return first_beyond(&forwards, bin, 0, samples_end(grid), <float> FLT_MAX, False)
    return first_beyond(&forwards, bin, 0, samples_end(grid), <double> DBL_MAX, False)


cdef void find_columns_of_row(Walk* walk, double yy) noexcept nogil:
    """The samples of a row at yy of the frame that can lie on the map: perhaps some more."""
    cdef const Frame* frame = walk.frame
    cdef double low = -INFINITY, high = INFINITY, a, b
    walk.at.left, walk.at.right = 0, walk.x.samples
    if walk.x.samples <= 2:
        return
    if frame.cosine != 0:  # x = yy * sine + xx * cosine + frame.x
        a = yy * frame.sine + frame.x
        b = (walk.level.width + frame.slack - a) / frame.cosine
        a = (-1 - frame.slack - a) / frame.cosine
        low, high = max(low, min(a, b)), min(high, max(a, b))
    if frame.sine != 0:  # y = yy * cosine - xx * sine + frame.y
        a = yy * frame.cosine + frame.y
        b = (a - walk.last - frame.slack) / frame.sine
        a = (a - walk.first + frame.slack) / frame.sine
        low, high = max(low, min(a, b)), min(high, max(a, b))
    if low > high:
        walk.at.right = 0
    else:
        find_range(&walk.x, walk.bin_x, low, high, &walk.at.left, &walk.at.right)


cdef inline coordinate turned_y(const Frame* frame, coordinate yy, coordinate xx) noexcept nogil:
    """Where a place of the frame lies on the map. The order of the operations is part of the contract."""
    return (yy * <coordinate> frame.cosine - xx * <coordinate> frame.sine) + <coordinate> frame.y


cdef inline coordinate turned_x(const Frame* frame, coordinate yy, coordinate xx) noexcept nogil:
    return (yy * <coordinate> frame.sine + xx * <coordinate> frame.cosine) + <coordinate> frame.x


cdef inline bint read_sample(
    const Walk* walk, Sample* sample, coordinate y, coordinate x, double share, Py_ssize_t stride
) noexcept nogil:
    """Interpolate at a place of the map; False if it lies outside, or reads none of the rows of the walk.

    share: of this sample in the mean. stride: from pixel to pixel.
    """
    cdef Py_ssize_t height = walk.level.height, width = walk.level.width, row, column, next_column
    cdef double below, right  # the weights of the following row and column
    if not (-1 <= y <= height and -1 <= x <= width and walk.first <= y <= walk.last):  # and so if it is NaN
        return False
    y = min(max(y, <coordinate> 0), <coordinate> (height - 1))
    x = min(max(x, <coordinate> 0), <coordinate> (width - 1))
    row, column = min(<Py_ssize_t> y, height - 1), min(<Py_ssize_t> x, width - 1)
    next_column = min(column + 1, width - 1)
    below, right = y - row, x - column
    sample.row, sample.next_row = row, min(row + 1, height - 1)
    sample.at[0], sample.at[1] = (row * width + column) * stride, (row * width + next_column) * stride
    sample.at[2] = (sample.next_row * width + column) * stride
    sample.at[3] = (sample.next_row * width + next_column) * stride
    sample.weight[0] = <real> ((1 - below) * (1 - right) * share)
    sample.weight[1] = <real> ((1 - below) * right * share)
    sample.weight[2] = <real> (below * (1 - right) * share)
    sample.weight[3] = <real> (below * right * share)
    return True


cdef int walk_rows(Walk* walk, Sample* samples, Py_ssize_t stride, coordinate T) noexcept nogil:
    """Some of the next samples of a bin, and how many: none when all are done."""
    cdef Patch at = walk.at
    cdef coordinate yy, xx
    cdef double share = 1 / (walk.y.per_bin * walk.x.per_bin)
    cdef int n = 0
    while True:
        yy = position(&walk.y, walk.bin_y, at.top, T)
        while at.left < at.right:
            xx = position(&walk.x, walk.bin_x, at.left, T)
            at.left += 1
            n += read_sample(
                walk, samples + n, turned_y(walk.frame, yy, xx), turned_x(walk.frame, yy, xx), share, stride
            )
            if n == SAMPLES:
                walk.at = at
                return n
        at.top += 1
        if not at.top < at.bottom:
            break
        walk.at = at
        find_columns_of_row(walk, position(&walk.y, walk.bin_y, at.top, T))
        at = walk.at
    walk.at = at
    walk.at.bottom = at.top
    return n


cdef int walk_patches(Walk* walk, Sample* samples, Py_ssize_t stride, coordinate T) noexcept nogil:
    """`walk_rows` of a huge box: samples at one place are taken together, in the order of their patches."""
    cdef const Grid* rows = &walk.y
    cdef const Grid* columns = &walk.x
    cdef Patch* patch
    cdef double share
    cdef bint by_rows, by_columns  # whether places change with them
    cdef coordinate yy[2]
    cdef coordinate xx[2]
    cdef coordinate y[4]
    cdef coordinate x[4]
    cdef int n = 0, i
    while walk.patches and n < SAMPLES:
        patch = walk.patch + walk.patches - 1
        yy[0] = position(rows, walk.bin_y, patch.top, T)
        yy[1] = position(rows, walk.bin_y, max(previous_sample(patch.bottom), patch.top), T)
        xx[0] = position(columns, walk.bin_x, patch.left, T)
        xx[1] = position(columns, walk.bin_x, max(previous_sample(patch.right), patch.left), T)
        for i in range(4):
            y[i] = turned_y(walk.frame, yy[i // 2], xx[i % 2])
            x[i] = turned_x(walk.frame, yy[i // 2], xx[i % 2])
        by_rows = y[0] != y[2] or y[1] != y[3] or x[0] != x[2] or x[1] != x[3]
        by_columns = y[0] != y[1] or y[2] != y[3] or x[0] != x[1] or x[2] != x[3]
        if not (
            meets(y, max(walk.first, -1.0), min(walk.last, <double> walk.level.height))
            and meets(x, -1, walk.level.width)
        ):
            walk.patches -= 1
        elif not (by_rows or by_columns):
            share = samples_between(rows, patch.top, patch.bottom) / rows.per_bin
            share *= samples_between(columns, patch.left, patch.right) / columns.per_bin
            n += read_sample(walk, samples + n, y[0], x[0], share, stride)
            walk.patches -= 1
        else:  # the first half comes first
            patch[1] = patch[0]
            if by_rows and not (by_columns and patch.right - patch.left > patch.bottom - patch.top):
                patch.top = patch[1].bottom = middle_of(patch.top, patch.bottom)
            else:
                patch.left = patch[1].right = middle_of(patch.left, patch.right)
            walk.patches += 1
    return n


cdef inline bint meets(const coordinate* corners, double low, double high) noexcept nogil:
    """Whether one of the samples of a patch can lie between two places."""
    cdef coordinate first = min(min(corners[0], corners[1]), min(corners[2], corners[3]))
    cdef coordinate last = max(max(corners[0], corners[1]), max(corners[2], corners[3]))
    return last >= low and first <= high


cdef inline double middle_of(double first, double last) noexcept nogil:
    """A sample between the first and the last: more than the first."""
    return max(floor(first + (last - first) / 2), next_sample(first))


cdef int next_samples(Walk* walk, Sample* samples, Py_ssize_t stride, bint single) noexcept nogil:
    """Some of the next samples of the bin, at most SAMPLES, and how many: none when all are done."""
    if walk.patches:
        if single:
            return walk_patches(walk, samples, stride, <float> 0)
        return walk_patches(walk, samples, stride, <double> 0)
    if walk.at.top < walk.at.bottom:
        if single:
            return walk_rows(walk, samples, stride, <float> 0)
        return walk_rows(walk, samples, stride, <double> 0)
    return 0
