# RoIPool: the largest pixel of each bin, for bins of whole pixels.
#
# Forward, lanes run along channels, in either layout. A pixel of a channels-last map is loaded as it is. Of a
# channels-first map a tile of LANES planes and LANES columns is reduced along y, row by row, and transposed
# in registers into LANES pixels; bins reuse the tile as long as it holds their columns, so that a
# pixel that neighbours share is reduced once. A bin is reduced along y, then along x, in both layouts:
# only this order decides whether it gets 0 or -0.
#
# The winner of a bin is the first of equals, row by row. Backward finds it again, with lanes along channels
# as well, unless forward has noted it: then the gradient goes where argmax says.
#
# A pixel wins by being larger than those before it, and the first has to be larger than -inf: NaN never wins.


cdef struct Range:  # pixels first <= i < end of one axis
    int first, end


cdef inline Range range_of(const Axis* axis, Py_ssize_t bin) noexcept nogil:
    """The pixels of one bin, as src/geometry/ranges.pxi notes them."""
    cdef Range pixels
    pixels.first, pixels.end = <int> axis.index[2 * bin], <int> axis.index[2 * bin + 1]
    return pixels


cdef inline void pool_pixels(
    real* target, const real* source, Py_ssize_t row_stride, Py_ssize_t pixel_stride, int rows, int columns,
    int vectors, Py_ssize_t n,
) noexcept nogil:
    """One bin of some channels that lie side by side; vectors is a constant where this is inlined.

    n: how many of these channels there are, less than LANES only in a map of so few.
    """
    cdef lanes largest[8]
    cdef const real* pixel
    cdef int i, y, x
    for i in range(vectors):
        largest[i] = all_lanes(-INFINITY if rows and columns else 0)
    for x in range(columns):
        pixel = source + x * pixel_stride
        for y in range(rows):
            for i in range(vectors):
                largest[i] = greater(load_first(pixel + i * LANES, n), largest[i])
            pixel += row_stride
    for i in range(vectors):
        store_first(target + i * LANES, largest[i], n)


cdef void pool_line_of_pixels(const Call* call, const RoI* roi, Py_ssize_t line) noexcept nogil:
    """One line of bins of one RoI, all the channels of a channels-last map."""
    cdef Py_ssize_t channels = call.channels, stride = roi.level.width * channels, bin, c
    cdef Range y = range_of(&roi.y, line), x
    cdef int rows = max(y.end - y.first, 0), width
    cdef const real* source = <const real*> roi.level.map + in_map(call, roi, 0) + y.first * stride
    cdef const real* pixel
    cdef real* target = <real*> call.bins + in_bins(call, roi, 0) + line * call.settings.bins_x * channels
    for bin in range(call.settings.bins_x):
        x = range_of(&roi.x, bin)
        pixel = source + x.first * channels
        width = max(x.end - x.first, 0)
        c = 0
        while c + 8 * LANES <= channels:
            pool_pixels(target + c, pixel + c, stride, channels, rows, width, 8, LANES)
            c += 8 * LANES
        while c < channels:
            # The last vector starts earlier rather than end beyond the pixel: a maximum may be taken twice.
            c = min(c, max(channels - LANES, 0))
            pool_pixels(target + c, pixel + c, stride, channels, rows, width, 1, channels - c)
            c += LANES
        target += channels


cdef inline lanes largest_row(
    const real* source, Py_ssize_t row_stride, int rows, Py_ssize_t n
) noexcept nogil:
    """The largest of some rows of n columns, in each column."""
    cdef lanes largest = all_lanes(-INFINITY)
    cdef int y
    for y in range(rows):
        largest = greater(load_first(source, n), largest)
        source += row_stride
    return largest


cdef inline void pool_tile(
    lanes* tile, const real* source, Py_ssize_t plane, Py_ssize_t row_stride,
    int rows, int planes, int columns,
) noexcept nogil:
    """The largest of some rows of LANES columns and planes: a vector of channels for each column.

    planes, columns: how many there are, fewer than LANES only at the last planes and in narrow maps.
    """
    cdef int p
    if planes == LANES and columns == LANES:
        for p in range(LANES):
            tile[p] = largest_row(source + p * plane, row_stride, rows, LANES)
    else:
        for p in range(LANES):
            tile[p] = zeros()
        for p in range(planes):
            tile[p] = largest_row(source + p * plane, row_stride, rows, columns)
    transpose(tile)


cdef void pool_line_of_planes(
    const Call* call, const RoI* roi, Py_ssize_t line, Py_ssize_t end_line, Py_ssize_t channel
) noexcept nogil:
    """One line of bins of one RoI, up to LANES channels of a channels-first map.

    end_line: the line before which the bins belong to this piece of the work.
    """
    cdef Py_ssize_t map_width = roi.level.width, plane = roi.level.height * map_width
    cdef Py_ssize_t bins_x = call.settings.bins_x, bins = call.settings.bins_y * bins_x
    cdef Range y = range_of(&roi.y, line), columns
    cdef int planes = <int> min(call.channels - channel, LANES), width = <int> min(map_width, LANES)
    cdef const real* source = <const real*> roi.level.map + in_map(call, roi, channel) + y.first * map_width
    cdef real* target = <real*> call.bins + in_bins(call, roi, channel)
    cdef Py_ssize_t first = -1, x, end, bin = 0, at, c, n  # first: where the tile starts, if there is one
    cdef lanes tile[LANES]
    cdef lanes pooled[LANES]
    cdef lanes largest
    while bin < bins_x:
        n = min(bins_x - bin, LANES)
        for c in range(n):
            columns = range_of(&roi.x, bin + c)
            x, end = columns.first, columns.end
            largest = all_lanes(-INFINITY if y.first < y.end and x < end else 0)
            while y.first < y.end and x < end:
                if first < 0 or not first <= x < first + LANES:
                    first = min(x, map_width - width)
                    pool_tile(tile, source + first, plane, map_width, y.end - y.first, planes, width)
                for x in range(x, min(end, first + LANES)):
                    largest = greater(tile[x - first], largest)
                x += 1
            pooled[c] = largest
        for c in range(n, LANES):
            pooled[c] = zeros()
        transpose(pooled)
        # A line may end inside the vector: what runs over is overwritten by the line that follows.
        at = line * bins_x + bin
        if planes == LANES and at + LANES <= end_line * bins_x:
            n = LANES
        for c in range(planes):
            store_first(target + c * bins + at, pooled[c], n)
        bin += LANES


cdef inline Winners winners_of(
    const real* source, Py_ssize_t row_stride, Py_ssize_t stride, Py_ssize_t width,
    Range rows, Range columns, int n, bint channels_last,
) noexcept nogil:
    """The first largest pixel of a bin, for n channels; channels_last is a constant where this is inlined.

    stride: from pixel to pixel, or from plane to plane.
    """
    cdef Winners winners
    cdef lanes tile[LANES]
    cdef int y, x, first, window = <int> min(width, LANES)
    winners.value = all_lanes(-INFINITY)
    winners.row = winners.column = numbers(-1)
    for y in range(rows.first, rows.end):
        x = columns.first
        while x < columns.end:
            if channels_last:
                contest(&winners, load_first(source + y * row_stride + x * stride, n), y, x)
            else:
                first = min(x, <int> width - window)
                pool_tile(tile, source + y * row_stride + first, stride, 0, 1, n, window)
                for x in range(x, min(columns.end, first + LANES)):
                    contest(&winners, tile[x - first], y, x)
            x += 1
    return winners


cdef inline Winners winners_on(
    const Call* call, const RoI* roi, Py_ssize_t channel, Range rows, Range columns
) noexcept nogil:
    """The first largest pixel of a bin, for up to LANES channels of a map of either order."""
    cdef Py_ssize_t channels = call.channels, width = roi.level.width
    cdef const real* map = <const real*> roi.level.map + in_map(call, roi, channel)
    cdef int n = <int> min(channels - channel, LANES)
    if call.settings.channels_last:
        return winners_of(map, width * channels, channels, width, rows, columns, n, True)
    return winners_of(map, width, roi.level.height * width, width, rows, columns, n, False)


cdef void note_winners(
    const Call* call, const RoI* roi, Py_ssize_t line, Py_ssize_t channel
) noexcept nogil:
    """Write the argmax of a line of bins, for up to LANES channels."""
    cdef Py_ssize_t bins_x = call.settings.bins_x, bin, c
    cdef Py_ssize_t step = 1 if call.settings.channels_last else call.settings.bins_y * bins_x
    cdef Py_ssize_t next_bin = call.channels if call.settings.channels_last else 1
    cdef int* argmax = call.argmax + in_bins(call, roi, channel) + line * bins_x * next_bin
    cdef Winners winners
    cdef lane_number y, x
    for bin in range(bins_x):
        winners = winners_on(call, roi, channel, range_of(&roi.y, line), range_of(&roi.x, bin))
        for c in range(min(call.channels - channel, LANES)):
            y, x = (<lane_number*> &winners.row)[c], (<lane_number*> &winners.column)[c]
            argmax[c * step] = <int> (y * roi.level.width + x) if y >= 0 else -1
        argmax += next_bin


cdef void roi_pool_forward(const Call* call, const Piece* piece, const Scratch* scratch) noexcept nogil:
    """Lines of bins, of RoI after RoI, and their argmax if it is wanted."""
    cdef Py_ssize_t lines = call.units, unit, line, channel
    cdef const RoI* roi
    for unit in range(piece.first, piece.last):
        roi, line = piece.rois + unit // lines, unit % lines
        if call.settings.channels_last:
            pool_line_of_pixels(call, roi, line)
        else:
            pool_line_of_planes(call, roi, line, min(lines, line + piece.last - unit), piece.channel)
        if call.argmax != NULL:
            channel = piece.channel
            while channel < piece.channel + piece.channels:
                note_winners(call, roi, line, channel)
                channel += LANES


cdef void unpool_line(
    const Call* call, const RoI* roi, Py_ssize_t line, Py_ssize_t channel, const Rows* mine, real* sums
) noexcept nogil:
    """Add the gradients of a line of bins to some rows, for up to LANES channels."""
    cdef Py_ssize_t channels = call.channels, bins_x = call.settings.bins_x, width = roi.level.width, bin, c
    cdef bint channels_last = call.settings.channels_last
    # From channel to channel and from pixel to pixel of the map, and the same of the bins.
    cdef Py_ssize_t plane = 1 if channels_last else roi.level.height * width
    cdef Py_ssize_t pixel = channels if channels_last else 1, row = width * pixel
    cdef Py_ssize_t step = 1 if channels_last else call.settings.bins_y * bins_x
    cdef const real* grads = <const real*> call.bins + in_bins(call, roi, channel) + line * bins_x * pixel
    cdef real* target = sums + (channel - mine.channel) * plane - mine.first * row
    cdef Range rows = range_of(&roi.y, line)
    cdef int n = <int> min(channels - channel, LANES)
    cdef Winners winners
    cdef lane_number y, x
    for bin in range(bins_x):
        winners = winners_on(call, roi, channel, rows, range_of(&roi.x, bin))
        for c in range(n):
            y, x = (<lane_number*> &winners.row)[c], (<lane_number*> &winners.column)[c]
            if mine.first <= y < mine.last:
                target[c * plane + y * row + x * pixel] += grads[c * step]
        grads += pixel


cdef inline void give(
    real* target, const int* argmax, const real* grads, Py_ssize_t n, Py_ssize_t first, Py_ssize_t end,
    Py_ssize_t channel, Py_ssize_t pixel,
) noexcept nogil:
    """Add n gradients to the pixels first <= i < end that argmax names.

    channel, pixel: from number to number and from pixel to pixel of the target.
    """
    cdef Py_ssize_t j, at
    for j in range(n):
        at = argmax[j]
        if first <= at < end:
            target[j * channel + at * pixel] += grads[j]


cdef void unpool_to(const Call* call, const RoI* roi, const Piece* piece) noexcept nogil:
    """Add the gradients of a RoI to the pixels that argmax names, in some rows and channels.

    An index outside the rows of the RoI, which forward does not write, gets nothing.
    """
    cdef Py_ssize_t channels = call.channels, bins_x = call.settings.bins_x, width = roi.level.width
    cdef Py_ssize_t plane = roi.level.height * width, bins = call.settings.bins_y * bins_x, i, at, n
    cdef const Rows* mine = &piece.summed
    cdef Py_ssize_t first_line = 0, end_line = call.settings.bins_y  # whose bins reach these rows
    while first_line < end_line and range_of(&roi.y, first_line).end <= mine.first:
        first_line += 1
    while first_line < end_line and range_of(&roi.y, end_line - 1).first >= mine.last:
        end_line -= 1
    if first_line == end_line:
        return
    cdef Py_ssize_t first = max(mine.first, <Py_ssize_t> range_of(&roi.y, 0).first) * width
    cdef Py_ssize_t end = min(mine.last, <Py_ssize_t> range_of(&roi.y, call.settings.bins_y - 1).end) * width
    cdef const int* argmax = call.argmax + in_bins(call, roi, piece.channel)
    cdef const real* grads = <const real*> call.bins + in_bins(call, roi, piece.channel)
    cdef real* target = piece.sums
    if call.settings.channels_last:
        target += piece.channel - mine.channel - mine.first * width * channels
        for i in range(first_line * bins_x, end_line * bins_x):
            at = i * channels
            give(target, argmax + at, grads + at, piece.channels, first, end, 1, channels)
    else:
        target += (piece.channel - mine.channel) * plane - mine.first * width
        n = (end_line - first_line) * bins_x
        for i in range(piece.channels):
            at = i * bins + first_line * bins_x
            give(target + i * plane, argmax + at, grads + at, n, first, end, 0, 1)


cdef void roi_pool_backward(const Call* call, const Piece* piece, const Scratch* scratch) noexcept nogil:
    cdef Py_ssize_t line, i, c
    cdef const RoI* roi
    cdef Range y
    for i in range(piece.count):
        roi = piece.rois + i
        if call.argmax != NULL:
            unpool_to(call, roi, piece)
            continue
        for line in range(call.settings.bins_y):
            y = range_of(&roi.y, line)
            if y.first >= piece.last_row or y.end <= piece.first_row:
                continue
            c = 0
            while c < piece.channels:
                unpool_line(call, roi, line, piece.channel + c, &piece.summed, piece.sums)
                c += LANES
