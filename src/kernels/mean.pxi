# The mean of samples: one RoI and one block of channels, then the pieces of work that consist of them.
#
# Both directions and both layouts take one axis after the other, with one step, `weighted_sum`:
#
#     forward            bins of y <- rows of the map, then bins of x <- columns
#     backward, pixels   rows of the map <- bins of y, then columns <- bins of x
#     backward, planes   columns <- bins of x, then rows of the map <- bins of y
#
# Lanes run along channels. In a channels-last map the channels of a pixel are adjacent in memory and are
# loaded as they are. A block of planes of a channels-first map is packed into pixels (packed.pxi): of the
# gradient always, of a map where its RoIs read it often enough. Else the y step of forward runs along a row
# of each plane, and what it makes is transposed. The y step is the one next to the map, because its loads
# are contiguous in either layout. Only in the gradient of a channels-last map is it the x step, so that one
# row of bins serves a whole row of pixels from the first-level cache.


cdef void forward_pixels(
    const Call* call, const RoI* roi, Py_ssize_t channel, int first_y, int last_y, int first_x, int last_x,
    const Scratch* scratch,
) noexcept nogil:
    """Some bins of a RoI, for a block of channels from `channel` on, of a channels-last map."""
    cdef const Settings* settings = &call.settings
    cdef Py_ssize_t channels = call.channels, n = min(call.width, channels - channel)
    cdef const pixel* source = roi.level.map + in_map(call, roi, channel)
    cdef pooled* bins = call.bins + in_bins(call, roi, channel)
    cdef pooled* target
    cdef real* lines = scratch.at[LINES]
    cdef real* sums
    cdef const Run* run
    cdef int y, x, r, low = 0, high = roi.strips, first, last
    if call.sparse and not call.ragged and roi.strips >= roi.x.size:
        forward_sparse(call, roi, channel, first_y, last_y, first_x, last_x, scratch)
        return
    if call.tiled:
        low, high = roi.strips, 0
        for x in range(first_x, last_x):
            if roi.high[x]:
                low = min(low, roi.low[x])
                high = max(high, roi.high[x])
    for y in range(first_y, last_y):
        if roi.y.indptr[y] == roi.y.indptr[y + 1]:
            for x in range(first_x, last_x):
                memset(bins + (y * settings.bins_x + x) * channels, 0, n * sizeof(pooled))
            continue
        for r in range(roi.runs):
            run = roi.run + r
            first, last = max(run.slot, low), min(run.slot + run.strips, high)
            if first < last:
                sum_pixels[pixel](
                    lines + first * call.pitch, call.pitch,
                    source + (run.column + first - run.slot) * channels, channels, last - first, n, &roi.y, y,
                )
        if call.ragged:
            sum_ragged(scratch.at[STAGED], lines, n, &roi.x, first_x, last_x)
            target = bins + (y * settings.bins_x + first_x) * channels
            write_out(target, scratch.at[STAGED], (last_x - first_x) * n, call.non_temporal)
            continue
        for x in range(first_x, last_x):
            target = bins + (y * settings.bins_x + x) * channels
            sums = scratch.at[STAGED] if call.staged else <real*> target
            sum_channels[real](sums, lines, n, &roi.x, x, False, False)
            if call.staged:
                write_out(target, sums, n, call.non_temporal)


cdef void sum_ragged(
    real* target, const real* lines, Py_ssize_t n, const Axis* axis, int first, int last
) noexcept nogil:
    """Lines of an axis for n numbers each, side by side, where n is no whole number of vectors.

    Whole vectors all the same: what one reads too far is not used, and what it writes too far, the next line
    writes again. There is room behind both.
    """
    cdef int i
    for i in range(first, last):
        weighted_sum[real](target, 0, lines, 0, 1, (n + LANES - 1) // LANES, axis, i, False, False)
        target += n


cdef void backward_pixels(
    const Call* call, const RoI* roi, real* sums, const Rows* rows, const Scratch* scratch
) noexcept nogil:
    """The transpose of `forward_pixels`; adds to some rows alone, which begin at `sums`."""
    cdef Py_ssize_t channels = call.channels, n = rows.length
    cdef const pooled* source = call.bins + in_bins(call, roi, rows.channel)
    cdef real* lines = scratch.at[LINES]
    cdef real* target
    cdef const Run* run
    cdef int y, end, x, r
    find_lines(roi, rows, &y, &end)
    for y in range(y, end):
        sum_pixels[pooled](lines, call.pitch, source, channels, call.settings.bins_x, n, &roi.y, y)
        for r in range(roi.runs):
            run = roi.run + r
            target = sums + ((roi.map_row[y] - rows.first) * roi.level.width + run.column) * rows.pitch
            for x in range(run.strips):
                sum_channels[real](target, lines, n, &roi.x, run.slot + x, True, True)
                target += rows.pitch


cdef void backward_ragged(
    const Call* call, const RoI* roi, real* sums, const Rows* rows, const Scratch* scratch
) noexcept nogil:
    """`backward_pixels` where pixels are no whole number of vectors; no line of x has more taps than a group.

    So a row of pixels may be summed aside, and added as one.
    """
    cdef Py_ssize_t n = rows.length
    cdef const pooled* source = call.bins + in_bins(call, roi, rows.channel)
    cdef real* lines = scratch.at[LINES]
    cdef real* target
    cdef const Run* run
    cdef int y, end, r
    find_lines(roi, rows, &y, &end)
    for y in range(y, end):
        sum_pixels[pooled](lines, call.pitch, source, call.channels, call.settings.bins_x, n, &roi.y, y)
        for r in range(roi.runs):
            run = roi.run + r
            target = sums + ((roi.map_row[y] - rows.first) * roi.level.width + run.column) * rows.pitch
            sum_ragged(scratch.at[STAGED], lines, n, &roi.x, run.slot, run.slot + run.strips)
            add_numbers(target, scratch.at[STAGED], n * run.strips)


cdef inline int most_lines_taps(const Axis* axis) noexcept nogil:
    """The most taps that a line has."""
    cdef int i, most = 0
    for i in range(axis.size):
        most = max(most, axis.indptr[i + 1] - axis.indptr[i])
    return most


cdef inline void add_numbers(real* target, const real* source, Py_ssize_t n) noexcept nogil:
    cdef Py_ssize_t i = 0
    while i + LANES <= n:
        store(target + i, load(target + i) + load(source + i))
        i += LANES
    if i < n:
        store_first(target + i, load_first(target + i, n - i) + load_first(source + i, n - i), n - i)


cdef inline void find_lines(const RoI* roi, const Rows* rows, int* first, int* last) noexcept nogil:
    """Which lines of roi.y, for backward, belong to some rows of the map."""
    first[0], last[0] = 0, roi.y.size
    while first[0] < last[0] and roi.map_row[first[0]] < rows.first:
        first[0] += 1
    while first[0] < last[0] and roi.map_row[last[0] - 1] >= rows.last:
        last[0] -= 1


cdef inline void sum_held(
    const Call* call, const RoI* roi, const Held* held, int line, real* pixels
) noexcept nogil:
    """A line of y for the columns of a RoI, of rows that are held as pixels."""
    cdef Py_ssize_t width = call.width
    cdef const Run* run
    cdef int r
    for r in range(roi.runs):
        run = roi.run + r
        weighted_sum[real](
            pixels + run.slot * call.x_stride, call.x_stride, held.pixels + run.column * width, width,
            run.strips * LANES, width // LANES, &held.y, line, False, False,
        )


cdef inline void sum_planes(
    const Call* call, const RoI* roi, Py_ssize_t channel, int line, real* pixels, real* lines
) noexcept nogil:
    """`sum_held` of the planes themselves: LANES at a time, in `lines`, which are then transposed."""
    cdef Py_ssize_t width = roi.level.width, plane = roi.level.height * width, pitch = roi.strips * LANES
    cdef const pixel* source
    cdef Py_ssize_t first = 0, s, planes
    cdef int r, c
    cdef lanes tile[LANES]
    while first < call.width:
        source = roi.level.map + in_map(call, roi, channel + first)
        planes = max(0, min(call.channels - channel - first, <Py_ssize_t> LANES))
        if width >= LANES:
            for r in range(roi.runs):
                weighted_sum[pixel](
                    lines + roi.run[r].slot, pitch, source + roi.run[r].column, plane, planes,
                    roi.run[r].strips, &roi.y, line, False, False,
                )
        elif roi.strips:
            for c in range(planes):
                sum_first[pixel](lines + c * pitch, source + c * plane, &roi.y, line, width, False)
        for s in range(planes * roi.strips, LANES * roi.strips):
            store(lines + s * LANES, zeros())
        for s in range(roi.strips):
            for c in range(LANES):
                tile[c] = load(lines + c * pitch + s * LANES)
            transpose(tile)
            for c in range(LANES):
                store(pixels + (s * LANES + c) * call.x_stride + first, tile[c])
        first += LANES


cdef void forward_planes(
    const Call* call, const RoI* roi, Py_ssize_t channel, const Held* held, const Scratch* scratch
) noexcept nogil:
    """A block of planes, from `channel` on, of a channels-first map.

    held: rows of them as pixels, among which are those of the RoI; or NULL. The x step takes a batch of rows
    at once, so that it reads its taps once for all of them. The output is fetched early: it is written in
    pieces too short for the processor to foresee.
    """
    cdef const Settings* settings = &call.settings
    cdef Py_ssize_t bins = settings.bins_y * settings.bins_x, row = settings.bins_x * call.width
    cdef Py_ssize_t planes = min(call.channels - channel, call.width), y = 0, rows, i
    cdef pooled* target = call.bins + in_bins(call, roi, channel)
    cdef real* pixels = scratch.at[PIXELS]  # columns, rows of the batch, channels
    cdef real* sums = scratch.at[BINS]  # bins, channels
    cdef real* staged = scratch.at[STAGED]  # channels, bins
    cdef int x
    while y < settings.bins_y:
        rows = min(call.batch, settings.bins_y - y)
        for i in range(rows):
            if not call.staged:
                prefetch(
                    target + (y + i) * planes * settings.bins_x, planes * settings.bins_x * sizeof(pooled)
                )
            if held != NULL:
                sum_held(call, roi, held, <int> (y + i), pixels + i * call.width)
            else:
                sum_planes(call, roi, channel, <int> (y + i), pixels + i * call.width, scratch.at[LINES])
        for x in range(roi.x.size):
            weighted_sum[real](
                sums + x * call.width, row, pixels, call.width, rows, call.width // LANES, &roi.x, x, False,
                False,
            )
        if call.staged:
            unpack[real](
                staged + y * settings.bins_x, bins, planes, sums, call.width, rows * settings.bins_x
            )
        else:
            unpack[pooled](
                target + y * settings.bins_x, bins, planes, sums, call.width, rows * settings.bins_x
            )
        y += rows
    if call.staged:
        write_out(target, staged, planes * bins, call.non_temporal)


cdef void backward_planes(
    const Call* call, const RoI* roi, real* sums, const Rows* rows, const Window* window,
    const Scratch* scratch,
) noexcept nogil:
    """The transpose of `forward_planes`; adds to a window of some rows alone, packed at `sums`.

    Columns are taken some at a time, so that scratch does not grow with the map.
    """
    cdef const Settings* settings = &call.settings
    cdef Py_ssize_t width = call.width, row = settings.bins_x * width, pitch = roi.level.y_stride
    cdef const pooled* source = call.bins + in_bins(call, roi, rows.channel)
    cdef real* bins = scratch.at[BINS]  # bins of y, bins of x, channels
    cdef real* lines = scratch.at[LINES]  # bins of y, columns, channels
    cdef real* target
    cdef const Run* run
    cdef Py_ssize_t first = settings.bins_y * pitch, last = 0, i, s, columns
    cdef int y, end, r
    find_lines(roi, rows, &y, &end)
    for i in range(roi.y.indptr[y], roi.y.indptr[end]):
        first = min(first, roi.y.index[i])
        last = max(last, roi.y.index[i])
    first, last = first // pitch, last // pitch + 1
    pack[pooled](
        bins + first * row, width, source + first * settings.bins_x, settings.bins_y * settings.bins_x,
        rows.count, (last - first) * settings.bins_x,
    )
    for r in range(roi.runs):
        run = roi.run + r
        s = 0
        while s < run.strips:
            columns = min(pitch // width, run.strips - s)
            for i in range(columns):
                weighted_sum[real](
                    lines + first * pitch + i * width, pitch, bins + first * row, row, last - first,
                    width // LANES, &roi.x, <int> (run.slot + s + i), False, False,
                )
            for i in range(y, end):
                target = sums + (roi.map_row[i] - window.top) * window.columns * width
                target += (run.column - window.left + s) * width
                weighted_sum[real](
                    target, 0, lines, 0, 1, columns * width // LANES, &roi.y, <int> i, True, True
                )
            s += columns


# Pieces

cdef void mean_forward(const Call* call, const Piece* piece, const Scratch* scratch) noexcept nogil:
    cdef const Level* level = piece.level
    cdef const RoI* rois = piece.rois
    cdef Py_ssize_t i, n, image
    cdef Held held
    if call.packed:
        hold_nothing(&held, call, piece, scratch)
        for i in range(piece.first, piece.last):
            if hold(&held, call, piece, rois + i):
                forward_planes(call, rois + i, piece.channel, &held, scratch)
            else:
                forward_planes(call, rois + i, piece.channel, NULL, scratch)
    elif not call.tiled:
        for i in range(piece.first, piece.last):
            forward_pixels(call, rois + i, piece.channel, 0, rois[i].y.size, 0, rois[i].x.size, scratch)
    else:
        # RoIs are in the order of their rows: for the same work in each of its parts, a tile deals them out.
        i = piece.part
        while i < piece.count:
            n, image = 0, rois[i].image
            while i < piece.count and n < CURSORS and rois[i].image == image:
                n += find_bins(rois + i, piece, scratch.cursors + n)
                i += level.parts
            sweep(call, piece.channel, n, scratch)
    finish_streams()


cdef inline bint find_bins(const RoI* roi, const Piece* piece, Cursor* cursor) noexcept nogil:
    """Note the bins of a RoI that begin in the tile; False where none does."""
    cdef Py_ssize_t first_row = piece.first_row, last_row = piece.last_row
    cdef int y = 0, lines = roi.y.size
    if not (roi.top < last_row and first_row < roi.bottom):
        return False
    while y < lines and not first_row <= roi.first_row[y] < last_row:
        y += 1
    cursor.roi, cursor.first_y, cursor.x = roi, y, 0
    while y < lines and first_row <= roi.first_row[y] < last_row:
        y += 1
    cursor.last_y = y
    return cursor.first_y < y


cdef void sweep(const Call* call, Py_ssize_t channel, Py_ssize_t n, const Scratch* scratch) noexcept nogil:
    """Pool the bins of n cursors from left to right: what is near on the map is read together.

    Steps in which no bin begins are passed over.
    """
    cdef int x, bins = <int> call.settings.bins_x
    cdef Py_ssize_t end, next = 0, i
    cdef Cursor* cursor
    while next <= INT_MAX:
        end = next + ROW_TILE
        next = <Py_ssize_t> INT_MAX + 1
        for i in range(n):
            cursor = scratch.cursors + i
            x = cursor.x
            while x < bins and cursor.roi.first_column[x] < end:
                x += 1
            if x > cursor.x:
                forward_pixels(call, cursor.roi, channel, cursor.first_y, cursor.last_y, cursor.x, x, scratch)
                cursor.x = x
            if x < bins:
                next = min(next, <Py_ssize_t> cursor.roi.first_column[x])


cdef void mean_backward(const Call* call, const Piece* piece, const Scratch* scratch) noexcept nogil:
    """Add the RoIs of a chunk to rows of a gradient; sums that are wider than it are rounded in the end."""
    cdef const Rows* rows = &piece.summed
    cdef const RoI* roi = piece.rois
    cdef const RoI* last = roi + piece.count
    cdef Py_ssize_t area = call.settings.bins_y * call.settings.bins_x, i
    cdef Window window
    if call.packed:
        window = window_of(call, piece)
        take_planes(call, piece, &window)
    while roi < last:
        if roi.top < rows.last and rows.first < roi.bottom:
            if call.sparse and call.settings.channels_last:
                if roi + 1 < last:
                    prefetch_bins(call, roi + 1, rows)
                if most_lines_taps(&roi.x) <= 2 and most_lines_taps(&roi.y) <= 2:
                    backward_sparse(call, roi, piece.sums, rows)
                else:
                    backward_pixels(call, roi, piece.sums, rows, scratch)
            elif call.ragged and most_lines_taps(&roi.x) <= 4:
                backward_ragged(call, roi, piece.sums, rows, scratch)
            elif call.settings.channels_last:
                backward_pixels(call, roi, piece.sums, rows, scratch)
            else:
                if roi + 1 < last:  # its bins lie far from these: benchmarks/backward.py, P4-box
                    prefetch_source(
                        call.bins + in_bins(call, roi + 1, rows.channel),
                        piece.channels * area * sizeof(pooled),
                    )
                backward_planes(call, roi, piece.sums, rows, &window, scratch)
        roi += 1
    if call.packed:
        give_planes(call, piece, &window)
    elif NARROW and piece.ends:
        for i in range(rows.count):
            round_off(
                piece.level.gradient + piece.rows.at + i * piece.rows.pitch, piece.sums + i * rows.pitch,
                rows.length,
            )
