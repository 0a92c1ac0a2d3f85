# RoIAlignRotated: bins whose samples lie in a grid that is turned.
#
# A bin is one line of a sparse matrix, over the pixels of the plane: geometry/rotated.pxi. The lines of some bins
# are found at once, for all channels of a block. Pixels of a channels-last map are read as they are; of a
# channels-first map those that these lines read are packed, as many planes as there are lanes at a time.

cdef enum:
    HULL_ROWS = 256  # rows of a map that are packed from the first pixel to the last


cdef void empty_window(const Scratch* scratch) noexcept nogil:
    cdef double* cell = <double*> scratch.at[CELLS]
    cdef Py_ssize_t i
    for i in range(WINDOW * WINDOW):
        cell[i] = -1


cdef inline Axis axis_of_bins(int* indptr, const Scratch* scratch) noexcept nogil:
    """An axis without lines, with room for some."""
    cdef Axis axis
    axis.size, axis.indptr = 0, indptr
    axis.index, axis.weight = <Py_ssize_t*> scratch.at[TAPS], scratch.at[WEIGHTS]
    axis.by_start = axis.by_end = NULL
    axis.outside = NULL
    return axis


cdef int find_stretches(Axis* axis, const Level* level, Py_ssize_t pitch, Stretch* stretch) noexcept nogil:
    """Gather what an axis reads of a plane into stretches, and let it read their pixels packed.

    These are either the stretches of its taps as they follow each other, or of each row of the map all from the
    first pixel to the last: whichever are less. Returns how many. pitch: from packed pixel to pixel.
    """
    cdef Stretch hull[HULL_ROWS]
    cdef Py_ssize_t start[HULL_ROWS]  # where a row of the hull is packed
    cdef Py_ssize_t width = level.width, top = level.height, low = -1, row, at, length, pixels = 0
    cdef int taps = axis.indptr[axis.size], t = 0, count = 0, rows = 0, s
    while t < taps:
        at = axis.index[t]
        row, length = at // width, 1
        while t + length < taps and axis.index[t + length] == at + length and at + length < (row + 1) * width:
            length += 1
        stretch[count].at, stretch[count].length, stretch[count].row = at, length, row
        top, low = min(top, row), max(low, row)
        t += <int> length
        count += 1
    if low - top < HULL_ROWS:
        for row in range(low - top + 1):
            hull[row].at, hull[row].length = level.height * width, 0  # for a moment the end
        for s in range(count):
            row = stretch[s].row - top
            hull[row].at = min(hull[row].at, stretch[s].at)
            hull[row].length = max(hull[row].length, stretch[s].at + stretch[s].length)
        for row in range(low - top + 1):
            start[row] = pixels
            hull[row].length = max(0, hull[row].length - hull[row].at)
            pixels += hull[row].length
    else:
        pixels = taps
    at = t = 0
    for s in range(count):
        if pixels < taps:
            row = stretch[s].row - top
            at = start[row] + stretch[s].at - hull[row].at
        for at in range(at, at + stretch[s].length):
            axis.index[t] = at * pitch
            t += 1
        at += 1
    if pixels < taps:
        count = <int> (low - top + 1)
        for s in range(count):
            stretch[s] = hull[s]
    return count


cdef void pool_rotated_planes(
    const Call* call, const RoI* roi, const Piece* piece, Axis* axis, Py_ssize_t first, bint goes_on,
    const Scratch* scratch,
) noexcept nogil:
    """Some bins of a channels-first map, from the first one on."""
    cdef Py_ssize_t bins = call.settings.bins_y * call.settings.bins_x, pitch = call.pitch, c, channel, planes
    cdef Py_ssize_t plane = roi.level.height * roi.level.width, end = piece.channel + piece.channels
    cdef Stretch* stretch = <Stretch*> scratch.at[STRETCHES]
    cdef int count = find_stretches(axis, roi.level, pitch, stretch), line, s
    cdef real* sums = scratch.at[BINS]
    cdef real* pixels
    cdef real* target
    cdef const real* source
    channel = piece.channel
    while channel < end:
        planes = min(end - channel, pitch)
        source = <const real*> roi.level.map + in_map(call, roi, channel)
        target = <real*> call.bins + in_bins(call, roi, channel) + first
        pixels = scratch.at[PIXELS]
        for s in range(count):
            pack[real](pixels, pitch, source + stretch[s].at, plane, planes, stretch[s].length)
            pixels += stretch[s].length * pitch
        if goes_on:
            for c in range(planes):
                sums[c] = target[c * bins]
        for line in range(axis.size):
            weighted_sum[real](
                sums + line * pitch, 0, scratch.at[PIXELS], 0, 1, pitch // LANES, axis, line,
                goes_on and line == 0, False,
            )
        unpack[real](target, bins, planes, sums, pitch, axis.size)
        channel += pitch


cdef void sum_bin(
    real* target, const real* source, Py_ssize_t n, const Axis* axis, int line, bint add
) noexcept nogil:
    """One line of an axis, tap by tap: pixels that follow each other are read as one stream."""
    cdef int t = axis.indptr[line], end = axis.indptr[line + 1]
    if not add:
        memset(target, 0, n * sizeof(real))
    for t in range(t, end):
        sum_lines[real](
            target, 0, source, 0, 1, n // LANES, axis.index + t, axis.weight + t, 1, True, True
        )


cdef void rotated_forward(const Call* call, const Piece* piece, const Scratch* scratch) noexcept nogil:
    """Lines of bins, of RoI after RoI."""
    cdef const Settings* settings = &call.settings
    cdef Py_ssize_t lines = call.units, unit = piece.first, first, bins
    cdef Py_ssize_t stride = call.channels if settings.channels_last else 1
    cdef const RoI* roi
    cdef const real* source
    cdef real* target
    cdef int indptr[LINES_OF_BINS + 1]
    cdef Axis axis = axis_of_bins(indptr, scratch)
    cdef Walk walk
    cdef bint goes_on
    cdef int line
    empty_window(scratch)
    while unit < piece.last:
        roi = piece.rois + unit // lines
        bins = min(lines - unit % lines, piece.last - unit) * settings.bins_x
        start_box(&walk, call, roi, 0, roi.level.height, scratch)
        walk.bin = unit % lines * settings.bins_x
        walk.end = walk.bin + bins
        unit += bins // settings.bins_x
        while find_lines_of_bins(call, &walk, &axis, &first, &goes_on, stride):
            if not settings.channels_last:
                pool_rotated_planes(call, roi, piece, &axis, first, goes_on, scratch)
                continue
            source = <const real*> roi.level.map + in_map(call, roi, piece.channel)
            target = <real*> call.bins + in_bins(call, roi, piece.channel) + first * stride
            for line in range(axis.size):
                sum_bin(target, source, piece.channels, &axis, line, goes_on and line == 0)
                target += stride


cdef inline void add_weighted(
    real* target, const real* grads, real weight, Py_ssize_t channels
) noexcept nogil:
    cdef Py_ssize_t c = 0
    while c + LANES <= channels:
        store(target + c, load(target + c) + weight * load(grads + c))
        c += LANES
    if c < channels:
        store_first(
            target + c, load_first(target + c, channels - c) + weight * load_first(grads + c, channels - c),
            channels - c,
        )


cdef void unpool_rotated(
    const Call* call, const RoI* roi, const Rows* rows, Py_ssize_t n, real* sums, const Scratch* scratch
) noexcept nogil:
    """Add a RoI to some rows of a gradient, which begin at `sums`."""
    cdef const Settings* settings = &call.settings
    cdef bint channels_last = settings.channels_last
    cdef Py_ssize_t bins = settings.bins_y * settings.bins_x, first, c
    cdef Py_ssize_t stride = call.channels if channels_last else 1
    cdef Py_ssize_t plane = roi.level.height * roi.level.width
    cdef const real* grads = <const real*> call.bins + in_bins(call, roi, rows.channel)
    cdef real* target = sums - rows.first * roi.level.width * stride
    cdef int indptr[LINES_OF_BINS + 1]
    cdef Axis axis = axis_of_bins(indptr, scratch)
    cdef Walk walk
    cdef bint goes_on
    cdef int line, t
    start_box(&walk, call, roi, rows.first, rows.last, scratch)
    while find_lines_of_bins(call, &walk, &axis, &first, &goes_on, stride):
        if channels_last:
            for line in range(axis.size):
                for t in range(indptr[line], indptr[line + 1]):
                    add_weighted(target + axis.index[t], grads + (first + line) * stride, axis.weight[t], n)
        else:
            for c in range(n):
                for line in range(axis.size):
                    for t in range(indptr[line], indptr[line + 1]):
                        target[c * plane + axis.index[t]] += axis.weight[t] * grads[c * bins + first + line]


cdef void rotated_backward(const Call* call, const Piece* piece, const Scratch* scratch) noexcept nogil:
    cdef const Rows* rows = &piece.summed
    cdef const RoI* roi
    cdef Py_ssize_t i
    empty_window(scratch)
    for i in range(piece.count):
        roi = piece.rois + i
        if roi.top < rows.last and rows.first < roi.bottom:
            unpool_rotated(call, roi, rows, piece.channels, piece.sums, scratch)
