# RoIAlignRotated: bins whose samples lie in a grid that is turned.
#
# A bin is one line of a sparse matrix, over the pixels of the plane: geometry/rotated.pxi. The lines of some
# bins are found at once, for all channels of a block. Lanes run along channels: pixels of a channels-last map
# are read as they are, and of a channels-first map those that these lines read are packed. The gradient to
# such a map is summed in packed pixels.

cdef enum:
    HULL_ROWS = 256  # rows of a map that are packed from the first pixel to the last


cdef void empty_cells(const Scratch* scratch) noexcept nogil:
    cdef double* cell = <double*> scratch.at[CELLS]
    cdef Py_ssize_t i
    for i in range(PATCH_SIDE * PATCH_SIDE):
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

    These are either the stretches of its taps as they follow each other, or of each row of the map all from
    the first pixel to the last: whichever are less. Returns how many. pitch: from packed pixel to pixel.
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


cdef void pool_rotated_pixels(
    const Call* call, const RoI* roi, const Piece* piece, const Axis* axis, Py_ssize_t first, bint goes_on
) noexcept nogil:
    """Some bins of a channels-last map, from the first one on."""
    cdef const real* source = <const real*> roi.level.map + in_map(call, roi, piece.channel)
    cdef real* target = <real*> call.bins + in_bins(call, roi, piece.channel) + first * call.channels
    cdef int line
    for line in range(axis.size):
        sum_channels[real](target, source, piece.channels, axis, line, goes_on and line == 0, True)
        target += call.channels


cdef inline Py_ssize_t bins_in_a_row(
    const Walk* walk, const Piece* piece, Py_ssize_t bins_x, Py_ssize_t bin, Py_ssize_t end, bint wanted
) noexcept nogil:
    """The end of the bins from `bin` on that all are in the rows of a piece, or all are not."""
    if piece.last_row - piece.first_row == piece.level.height:
        return end if wanted else bin
    while bin < end and (
        piece.first_row <= row_of_bin(walk, bin // bins_x, bin % bins_x) < piece.last_row
    ) == wanted:
        bin += 1
    return bin


cdef void rotated_forward(const Call* call, const Piece* piece, const Scratch* scratch) noexcept nogil:
    """Lines of bins, of RoI after RoI: those bins whose middle is in the rows of the piece."""
    cdef Py_ssize_t lines = call.units, bins_x = call.settings.bins_x, unit = piece.first, last, first, end
    cdef bint channels_last = call.settings.channels_last, goes_on
    cdef Py_ssize_t stride = call.channels if channels_last else 1
    cdef const RoI* roi
    cdef int indptr[LINES_OF_BINS + 1]
    cdef Axis axis = axis_of_bins(indptr, scratch)
    cdef Walk walk
    empty_cells(scratch)
    while unit < piece.last:
        roi = piece.rois + unit // lines
        last = min(piece.last, unit + lines - unit % lines)  # of this RoI
        start_box(&walk, call, roi, 0, roi.level.height, scratch)
        walk.end = unit % lines * bins_x
        end = walk.end + (last - unit) * bins_x
        while walk.end < end:
            walk.bin = bins_in_a_row(&walk, piece, bins_x, walk.end, end, False)
            walk.end = bins_in_a_row(&walk, piece, bins_x, walk.bin, end, True)
            while find_lines_of_bins(call, &walk, &axis, &first, &goes_on, stride):
                if channels_last:
                    pool_rotated_pixels(call, roi, piece, &axis, first, goes_on)
                else:
                    pool_rotated_planes(call, roi, piece, &axis, first, goes_on, scratch)
        unit = last


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
    const Call* call, const RoI* roi, const Piece* piece, const Scratch* scratch
) noexcept nogil:
    """Add a RoI to some rows of a gradient."""
    cdef Py_ssize_t bins = call.settings.bins_y * call.settings.bins_x, first
    cdef Py_ssize_t stride = call.width if call.packed else call.channels  # of pixels and of bins
    cdef Py_ssize_t n = call.width if call.packed else piece.channels
    cdef const real* source = <const real*> call.bins + in_bins(call, roi, piece.channel)
    cdef const real* grads
    cdef real* target = piece.sums - piece.first_row * roi.level.width * stride
    cdef int indptr[LINES_OF_BINS + 1]
    cdef Axis axis = axis_of_bins(indptr, scratch)
    cdef Walk walk
    cdef bint goes_on
    cdef int line, t
    start_box(&walk, call, roi, piece.first_row, piece.last_row, scratch)
    walk.end = bins
    while find_lines_of_bins(call, &walk, &axis, &first, &goes_on, stride):
        grads = source + first * stride
        if call.packed:
            grads = scratch.at[BINS]
            pack[real](scratch.at[BINS], stride, source + first, bins, piece.channels, axis.size)
        for line in range(axis.size):
            for t in range(indptr[line], indptr[line + 1]):
                add_weighted(target + axis.index[t], grads, axis.weight[t], n)
            grads += stride


cdef void rotated_backward(const Call* call, const Piece* piece, const Scratch* scratch) noexcept nogil:
    cdef const RoI* roi
    cdef Py_ssize_t i
    cdef Window window
    if call.packed:
        window.top, window.bottom = piece.first_row, piece.last_row
        window.left, window.columns = 0, piece.level.width
        take_planes(call, piece, &window)
    empty_cells(scratch)
    for i in range(piece.count):
        roi = piece.rois + i
        if roi.top < piece.last_row and piece.first_row < roi.bottom:
            unpool_rotated(call, roi, piece, scratch)
    if call.packed:
        give_planes(call, piece, &window)
