# Where the samples of a rotated box lie. In the frame of the box they form the grid of RoIAlign, which is
# then turned around its centre: a range of rows of the map is no range of samples, and nothing is separable.
# A bin is one line of a sparse matrix, whose taps are pixels of the plane.
#
# The samples of a bin are taken patch by patch of their grid, where a patch reaches a few rows and columns of
# the map. The weights that a pixel gets from several of them are added before the pixel becomes a tap. Only
# patches near the map are taken, so that time does not depend on how far the box reaches outside:
#
# - Where coordinates are exact to a fraction of a pixel, arithmetic finds the rows of samples that can meet
#   the map, and of some rows the columns.
# - Those of a huge box are rounded to whole pixels, or to millions of them, and many samples to one place.
#   There the samples are halved, rows or columns, until all of a patch lie outside the map or all at one
#   place. Each coordinate is monotone in rows and in columns, also as it is rounded, so that the corners of a
#   patch tell this.

cdef enum:
    PATCH_SAMPLES = 32  # in a patch, at most, on each axis

cdef double ROUGH = 0.25  # pixels of slack of a frame from which on its samples are halved


cdef struct Walk:  # over the bins of a RoI, and of each over the samples that lie near some rows of the map
    const Level* level
    const Frame* frame
    Py_ssize_t first_row, last_row  # whose pixels become taps
    double first, last  # y of the map, in which samples count
    Grid y, x
    bint rough
    double patch_y, patch_x  # samples of a patch, on either axis
    double lowest, highest  # the rows of the frame that meet the map
    Py_ssize_t bin, end  # bins that are to come, line by line; of the first, samples may be done
    Py_ssize_t bin_y, bin_x
    bint within  # a bin, of which samples may be to come
    Patch at  # the rest of a row of patches
    double bottom  # of the rows of samples
    Patch* patch  # where samples are halved: those that wait
    int patches
    double* cell  # weights of pixels, of (y, x) at (y % PATCH_SIDE, x % PATCH_SIDE); below 0: not reached
    double share  # of each of these weights in the mean
    Py_ssize_t top, left, low, right  # rows [top, low] and columns [left, right] that a patch has reached


cdef void start_box(
    Walk* walk, const Call* call, const RoI* roi, Py_ssize_t first_row, Py_ssize_t last_row,
    const Scratch* scratch,
) noexcept nogil:
    """Begin with a box, of whose samples those count that read some rows of the map. It has no bins yet."""
    cdef const Settings* settings = &call.settings
    cdef const Frame* frame = &roi.frame
    cdef double height, width, middle, spacing, most
    walk.level, walk.frame = roi.level, frame
    walk.patch, walk.cell = <Patch*> scratch.at[PATCHED], <double*> scratch.at[CELLS]
    walk.first_row, walk.last_row = first_row, last_row
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
    walk.bin = walk.end = 0
    walk.within = False
    walk.share = 1 if walk.rough else 1 / (walk.y.per_bin * walk.x.per_bin)
    # Samples are at most `spacing` apart on either axis of the map, and read one pixel more.
    spacing = sample_spacing(&walk.y) + sample_spacing(&walk.x)
    most = min(floor((PATCH_SIDE - 3) / spacing) + 1, <double> PATCH_SAMPLES)
    walk.patch_y, walk.patch_x = even_part(walk.y.samples, most), even_part(walk.x.samples, most)
    # The corners of the rows of the map, turned back into the frame of the box.
    height, width = (walk.last - walk.first) / 2, (walk.level.width + 1) / 2.0
    middle = (walk.first + height - frame.y) * frame.cosine + (width - 1 - frame.x) * frame.sine
    height = height * fabs(frame.cosine) + width * fabs(frame.sine) + 2 * frame.slack
    walk.lowest, walk.highest = middle - height, middle + height


cdef inline double sample_spacing(const Grid* grid) noexcept nogil:
    return fabs(grid.bin_size) / max(grid.per_bin, 1.0)


cdef inline double even_part(double n, double most) noexcept nogil:
    """How many of n things a part has, if they make as few parts of at most so many as can be."""
    return ceil(n / ceil(n / most)) if n > most else most


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


cdef void start_bin(Walk* walk, Py_ssize_t bins_x, bint single) noexcept nogil:
    """Begin with the next bin of the box."""
    walk.bin_y, walk.bin_x = walk.bin // bins_x, walk.bin % bins_x
    walk.within = True
    if walk.rough:
        walk.patch.top, walk.patch.left = 0, 0
        # Past what can be counted, positions are infinite, and that is outside.
        walk.patch.bottom = first_infinite(&walk.y, walk.bin_y, single)
        walk.patch.right = first_infinite(&walk.x, walk.bin_x, single)
        walk.patches = walk.patch.bottom > 0 and walk.patch.right > 0
    else:
        find_range(&walk.y, walk.bin_y, walk.lowest, walk.highest, &walk.at.bottom, &walk.bottom)
        walk.at.left = walk.at.right = 0


cdef double first_infinite(const Grid* grid, Py_ssize_t bin, bint single) noexcept nogil:
    """One past the last sample of a bin whose position is finite."""
    cdef Grid forwards = grid[0]
    if grid.bin_size < 0:
        forwards.start, forwards.bin_size = -grid.start, -grid.bin_size
    if single:
        return first_beyond(&forwards, bin, 0, samples_end(grid), <float> FLT_MAX, False)
    return first_beyond(&forwards, bin, 0, samples_end(grid), <double> DBL_MAX, False)


cdef inline void narrow(
    double slope, double first, double last, double low, double high, double* lowest, double* highest
) noexcept nogil:
    """Keep the x of which slope * x + a can lie between low and high, for any a from first to last."""
    cdef double start, end
    if slope != 0:
        start, end = (low - max(first, last)) / slope, (high - min(first, last)) / slope
        lowest[0] = max(lowest[0], min(start, end))
        highest[0] = min(highest[0], max(start, end))


cdef void find_columns_of_rows(Walk* walk, double first, double last) noexcept nogil:
    """The samples of rows between two places of the frame that can lie on the map: perhaps some more."""
    cdef const Frame* frame = walk.frame
    cdef double low = -INFINITY, high = INFINITY
    walk.at.left, walk.at.right = 0, walk.x.samples
    if walk.x.samples <= 2:
        return
    narrow(
        frame.cosine, first * frame.sine + frame.x, last * frame.sine + frame.x, -1 - frame.slack,
        walk.level.width + frame.slack, &low, &high,
    )
    narrow(
        -frame.sine, first * frame.cosine + frame.y, last * frame.cosine + frame.y, walk.first - frame.slack,
        walk.last + frame.slack, &low, &high,
    )
    if low > high:
        walk.at.right = 0
    else:
        find_range(&walk.x, walk.bin_x, low, high, &walk.at.left, &walk.at.right)


cdef bint next_patch(Walk* walk, Patch* patch, coordinate T) noexcept nogil:
    """The next samples of a bin that are taken together; False when all are done.

    Patches begin with the same samples for all rows of the map, so that weights do not depend on these.
    """
    cdef Patch* at = &walk.at
    while not at.left < at.right:
        if not at.bottom < walk.bottom:
            return False
        at.top = at.bottom
        at.bottom = min((floor(at.top / walk.patch_y) + 1) * walk.patch_y, walk.bottom)
        find_columns_of_rows(
            walk, position(&walk.y, walk.bin_y, at.top, T), position(&walk.y, walk.bin_y, at.bottom - 1, T)
        )
    patch[0] = at[0]
    patch.right = min((floor(at.left / walk.patch_x) + 1) * walk.patch_x, at.right)
    at.left = patch.right
    return True


cdef inline double row_of_bin(const Walk* walk, Py_ssize_t bin_y, Py_ssize_t bin_x) noexcept nogil:
    """About where the middle of a bin lies, among the rows of the map: in the nearest, if it lies outside."""
    cdef const Frame* frame = walk.frame
    cdef double yy = walk.y.start + (bin_y + 0.5) * walk.y.bin_size
    cdef double xx = walk.x.start + (bin_x + 0.5) * walk.x.bin_size
    cdef double y = yy * frame.cosine - xx * frame.sine + frame.y
    return min(y, walk.level.height - 1.0) if y > 0 else 0  # also if it is NaN


cdef inline coordinate turned_y(const Frame* frame, coordinate yy, coordinate xx) noexcept nogil:
    """Where a place of the frame lies on the map. The order of the operations is part of the contract."""
    return (yy * <coordinate> frame.cosine - xx * <coordinate> frame.sine) + <coordinate> frame.y


cdef inline coordinate turned_x(const Frame* frame, coordinate yy, coordinate xx) noexcept nogil:
    return (yy * <coordinate> frame.sine + xx * <coordinate> frame.cosine) + <coordinate> frame.x


cdef inline void reach(double* cell, double weight) noexcept nogil:
    cell[0] = max(cell[0], 0.0) + weight


cdef inline void read_sample(Walk* walk, coordinate y, coordinate x, double share) noexcept nogil:
    """Interpolate at a place of the map, unless it lies outside, or reads none of the rows of the walk."""
    cdef Py_ssize_t height = walk.level.height, width = walk.level.width
    cdef Py_ssize_t row, column, next_row, next_column
    cdef double below, right  # the weights of the following row and column
    cdef double* cells
    if not (-1 <= y <= height and -1 <= x <= width and walk.first <= y <= walk.last):  # and so if it is NaN
        return
    y = min(max(y, <coordinate> 0), <coordinate> (height - 1))
    x = min(max(x, <coordinate> 0), <coordinate> (width - 1))
    row, column = min(<Py_ssize_t> y, height - 1), min(<Py_ssize_t> x, width - 1)
    next_row, next_column = min(row + 1, height - 1), min(column + 1, width - 1)
    below, right = y - row, x - column
    walk.top, walk.low = min(walk.top, row), max(walk.low, next_row)
    walk.left, walk.right = min(walk.left, column), max(walk.right, next_column)
    column, next_column = column & (PATCH_SIDE - 1), next_column & (PATCH_SIDE - 1)
    cells = walk.cell + (row & (PATCH_SIDE - 1)) * PATCH_SIDE
    reach(cells + column, (1 - below) * (1 - right) * share)
    reach(cells + next_column, (1 - below) * right * share)
    cells = walk.cell + (next_row & (PATCH_SIDE - 1)) * PATCH_SIDE
    reach(cells + column, below * (1 - right) * share)
    reach(cells + next_column, below * right * share)


cdef bint read_patch(Walk* walk, coordinate T) noexcept nogil:
    """Interpolate at the next patch of samples of a bin; False when all are done."""
    cdef Patch patch
    cdef coordinate yy
    cdef coordinate xx[PATCH_SAMPLES]
    cdef int rows, columns, i, j
    if not next_patch(walk, &patch, T):
        return False
    rows, columns = <int> (patch.bottom - patch.top), <int> (patch.right - patch.left)
    for j in range(columns):
        xx[j] = position(&walk.x, walk.bin_x, patch.left + j, T)
    for i in range(rows):
        yy = position(&walk.y, walk.bin_y, patch.top + i, T)
        for j in range(columns):
            read_sample(walk, turned_y(walk.frame, yy, xx[j]), turned_x(walk.frame, yy, xx[j]), 1)
    return True


cdef bint read_place(Walk* walk, coordinate T) noexcept nogil:
    """`read_patch` of a huge box: samples at one place are a patch, and their patches are halved in order."""
    cdef const Grid* rows = &walk.y
    cdef const Grid* columns = &walk.x
    cdef Patch* patch
    cdef double share
    cdef bint by_rows, by_columns  # whether places change with them
    cdef coordinate yy[2]
    cdef coordinate xx[2]
    cdef coordinate y[4]
    cdef coordinate x[4]
    cdef int i
    while walk.patches:
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
            read_sample(walk, y[0], x[0], share)
            walk.patches -= 1
            return True
        else:  # the first half comes first
            patch[1] = patch[0]
            if by_rows and not (by_columns and patch.right - patch.left > patch.bottom - patch.top):
                patch.top = patch[1].bottom = middle_of(patch.top, patch.bottom)
            else:
                patch.left = patch[1].right = middle_of(patch.left, patch.right)
            walk.patches += 1
    return False


cdef inline bint meets(const coordinate* corners, double low, double high) noexcept nogil:
    """Whether one of the samples of a patch can lie between two places."""
    cdef coordinate first = min(min(corners[0], corners[1]), min(corners[2], corners[3]))
    cdef coordinate last = max(max(corners[0], corners[1]), max(corners[2], corners[3]))
    return last >= low and first <= high


cdef inline double middle_of(double first, double last) noexcept nogil:
    """A sample between the first and the last: more than the first."""
    return max(floor(first + (last - first) / 2), next_sample(first))


cdef bint read_samples(Walk* walk, bint single) noexcept nogil:
    """Weigh what the next patch of the bin reaches; False when all are done."""
    walk.top, walk.left = walk.level.height, walk.level.width
    walk.low = walk.right = -1
    if single:
        return read_place(walk, <float> 0) if walk.rough else read_patch(walk, <float> 0)
    return read_place(walk, <double> 0) if walk.rough else read_patch(walk, <double> 0)


cdef inline Py_ssize_t most_reached(const Walk* walk) noexcept nogil:
    """The most pixels that the samples of a patch can reach."""
    if walk.rough:
        return 4
    return <Py_ssize_t> min(4 * walk.patch_y * walk.patch_x, <double> (PATCH_SIDE * PATCH_SIDE))


cdef int take_taps(Walk* walk, Axis* axis, int t, Py_ssize_t stride) noexcept nogil:
    """Move what a patch has reached into an axis, from tap t on; returns how many taps there are then.

    stride: from pixel to pixel.
    """
    cdef Py_ssize_t row, column
    cdef double* cell
    cdef bint wanted
    for row in range(walk.top, walk.low + 1):
        wanted = walk.first_row <= row < walk.last_row
        for column in range(walk.left, walk.right + 1):
            cell = walk.cell + (row & (PATCH_SIDE - 1)) * PATCH_SIDE + (column & (PATCH_SIDE - 1))
            axis.index[t] = (row * walk.level.width + column) * stride
            axis.weight[t] = <real> (cell[0] * walk.share)
            t += wanted and cell[0] >= 0
            cell[0] = -1
    return t


cdef bint find_lines_of_bins(
    const Call* call, Walk* walk, Axis* axis, Py_ssize_t* first, bint* goes_on, Py_ssize_t stride
) noexcept nogil:
    """Fill an axis with the lines of the next bins, as many as it has room for; False when all are done.

    A line that is longer than the axis fills it several times, and no shorter one does, so that lines are
    divided alike whichever bins come before. first: the bin of the first line. goes_on: whether that line
    adds to one that has filled the axis before.
    """
    cdef bint single = call.settings.single
    cdef int t = 0
    axis.size, axis.indptr[0] = 0, 0
    first[0], goes_on[0] = walk.bin, walk.within
    while walk.bin < walk.end and axis.size < LINES_OF_BINS:
        if not walk.within:
            start_bin(walk, call.settings.bins_x, single)
        while walk.within and t + most_reached(walk) < TAPS_OF_BINS:
            walk.within = read_samples(walk, single)
            t = take_taps(walk, axis, t, stride)
        if walk.within and axis.size:
            walk.within = False
            return True
        axis.size += 1
        axis.indptr[axis.size] = t
        if walk.within:
            return True
        walk.bin += 1
    return axis.size > 0
