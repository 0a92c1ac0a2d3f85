# The arithmetic of average RoIAlign for one RoI and one block of channels.
#
# Both directions and both layouts are one step, `blend`, taken along y and then along x:
#
#     forward    bins of y <- rows of the map      bins of x <- columns
#     backward   rows of the map <- bins of y      columns <- bins of x     (the transposed bands)
#
# Lanes run along channels. In a channels-last map the channels of a pixel lie side by side and are
# loaded as they are. In a channels-first map a row of pixels does: there the y step runs along the row,
# for as many planes as there are lanes, and a transposition in registers turns planes of pixels into
# pixels of channels. y comes first because its loads are contiguous in either layout, and because what it
# leaves is read several times by the x step, from the first-level cache.

cdef inline void blend_taps(
    real* target, Py_ssize_t target_step, const real* source, Py_ssize_t source_step, Py_ssize_t count,
    const Py_ssize_t* offset, const real* weight, int taps, bint add,
) noexcept nogil:
    """One to four taps for `count` vectors; taps and add are constants where this is inlined."""
    cdef const real* a = source + offset[0]
    cdef const real* b = source + offset[1 if taps > 1 else 0]
    cdef const real* c = source + offset[2 if taps > 2 else 0]
    cdef const real* d = source + offset[3 if taps > 3 else 0]
    cdef real a_weight = weight[0], b_weight = weight[1 if taps > 1 else 0]
    cdef real c_weight = weight[2 if taps > 2 else 0], d_weight = weight[3 if taps > 3 else 0]
    cdef Py_ssize_t i
    cdef lanes total
    for i in range(count):
        total = a_weight * load(a + i * source_step)
        if taps > 1:
            total = total + b_weight * load(b + i * source_step)
        if taps > 2:
            total = total + c_weight * load(c + i * source_step)
        if taps > 3:
            total = total + d_weight * load(d + i * source_step)
        put(target + i * target_step, total, add)


cdef inline void put(real* target, lanes v, bint add) noexcept nogil:
    store(target, load(target) + v if add else v)


cdef inline void put_first(real* target, lanes v, Py_ssize_t n, bint add) noexcept nogil:
    store_first(target, load_first(target, n) + v if add else v, n)


cdef inline void blend(
    real* target, Py_ssize_t target_step, const real* source, Py_ssize_t source_step, Py_ssize_t count,
    const Band* band, int line,
) noexcept nogil:
    """Apply one line of a band to `count` vectors, each a step after the other.

    Taps are summed by fours, the first group taking what is over. This order is the same for every
    layout, level and block: no other choice here may touch the sums.
    """
    cdef int t = band.begin[line], end = band.begin[line + 1], i
    cdef int head = (end - t) % 4
    cdef const Py_ssize_t* offset = band.offset + t
    cdef const real* weight = band.weight + t
    if t == end:
        for i in range(count):
            store(target + i * target_step, zeros())
        return
    if head == 0:
        blend_taps(target, target_step, source, source_step, count, offset, weight, 4, False)
        head = 4
    elif head == 1:
        blend_taps(target, target_step, source, source_step, count, offset, weight, 1, False)
    elif head == 2:
        blend_taps(target, target_step, source, source_step, count, offset, weight, 2, False)
    else:
        blend_taps(target, target_step, source, source_step, count, offset, weight, 3, False)
    t += head
    while t < end:
        offset = band.offset + t
        weight = band.weight + t
        blend_taps(target, target_step, source, source_step, count, offset, weight, 4, True)
        t += 4


cdef lanes blend_first(const real* source, const Band* band, int line, Py_ssize_t n) noexcept nogil:
    """`blend` for one vector of which only n lanes may be read: slow, and only at the ends of arrays."""
    cdef int t = band.begin[line], end = band.begin[line + 1]
    cdef int group = (end - t + 3) % 4 + 1
    cdef lanes total = zeros(), part
    cdef bint add = False
    while t < end:
        part = band.weight[t] * load_first(source + band.offset[t], n)
        for t in range(t + 1, t + group):
            part = part + band.weight[t] * load_first(source + band.offset[t], n)
        total = total + part if add else part
        t += 1
        group = 4
        add = True
    return total


cdef inline void blend_channels(
    real* target, const real* source, Py_ssize_t n, const Band* band, int line, bint add
) noexcept nogil:
    """One line of a band for n channels that lie side by side."""
    cdef lanes sums[4]
    cdef Py_ssize_t j = 0, i
    while j + 4 * LANES <= n:
        blend(<real*> sums, LANES, source + j, LANES, 4, band, line)
        for i in range(4):
            put(target + j + i * LANES, sums[i], add)
        j += 4 * LANES
    while j + LANES <= n:
        blend(<real*> sums, LANES, source + j, LANES, 1, band, line)
        put(target + j, sums[0], add)
        j += LANES
    if j < n:
        sums[0] = blend_first(source + j, band, line, n - j)
        put_first(target + j, sums[0], n - j, add)


cdef inline void blend_planes(
    real* target, const real* source, Py_ssize_t plane, int planes, int columns, const Band* band, int line
) noexcept nogil:
    """One line of a band for LANES columns of `planes` planes: LANES vectors of channels, one a column.

    columns: how many may be read, fewer than LANES only where the array ends.
    """
    cdef lanes tile[LANES]
    cdef Py_ssize_t i
    if planes == LANES and columns == LANES:
        blend(<real*> tile, LANES, source, plane, LANES, band, line)
    else:
        for i in range(LANES):
            tile[i] = zeros()
        for i in range(planes):
            tile[i] = blend_first(source + i * plane, band, line, columns)
    transpose(tile)
    for i in range(LANES):
        store(target + i * LANES, tile[i])


cdef void forward_pixels(const Call* call, const RoI* roi, Py_ssize_t channel, real* scratch) noexcept nogil:
    """A block of channels, from `channel` on, of a channels-last map."""
    cdef const Sampling* shape = &call.plan.sampling
    cdef Py_ssize_t channels = call.channels, n = min(call.width, channels - channel)
    cdef const real* source = call.source + roi.image * shape.height * shape.width * channels + channel
    cdef real* target = call.target + roi.row * shape.bins_y * shape.bins_x * channels + channel
    cdef int y, x
    for y in range(roi.y.lines):
        for x in range(roi.strips):
            blend_channels(scratch + x * call.pitch, source + roi.strip[x] * channels, n, &roi.y, y, False)
        for x in range(roi.x.lines):
            blend_channels(target, scratch, n, &roi.x, x, False)
            target += channels


cdef void backward_pixels(
    const Call* call, const RoI* roi, Py_ssize_t channel, Py_ssize_t first_row, Py_ssize_t last_row,
    real* scratch,
) noexcept nogil:
    """The transpose of `forward_pixels`; adds to rows [first_row, last_row) alone."""
    cdef const Sampling* shape = &call.plan.sampling
    cdef Py_ssize_t channels = call.channels, n = min(call.width, channels - channel)
    cdef const real* source = call.source + roi.row * shape.bins_y * shape.bins_x * channels + channel
    cdef real* image = call.target + roi.image * shape.height * shape.width * channels + channel
    cdef real* target
    cdef int y, x
    for y in range(roi.y.lines):
        if not first_row <= roi.map_row[y] < last_row:
            continue
        for x in range(shape.bins_x):
            blend_channels(scratch + x * call.pitch, source + x * channels, n, &roi.y, y, False)
        target = image + roi.map_row[y] * shape.width * channels
        for x in range(roi.strips):
            blend_channels(target + roi.strip[x] * channels, scratch, n, &roi.x, x, True)


cdef void forward_planes(const Call* call, const RoI* roi, Py_ssize_t channel, real* scratch) noexcept nogil:
    """Up to LANES channels, from `channel` on, of a channels-first map.

    The x step takes a slab of rows at once, so that it reads its taps once for all of them.
    """
    cdef const Sampling* shape = &call.plan.sampling
    cdef Py_ssize_t plane = shape.height * shape.width, bins = shape.bins_y * shape.bins_x
    cdef const real* source = call.source + (roi.image * call.channels + channel) * plane
    cdef real* target = call.target + (roi.row * call.channels + channel) * bins
    cdef int planes = <int> min(call.channels - channel, LANES), columns = <int> min(shape.width, LANES)
    cdef Py_ssize_t pitch = call.pitch, pooled_pitch = (shape.bins_x + LANES) * LANES
    cdef real* pooled = scratch + call.slab * pitch
    cdef Py_ssize_t at, y = 0, rows, x, i, c
    cdef lanes tile[LANES]
    while y < roi.y.lines:
        rows = min(call.slab, roi.y.lines - y)
        for i in range(rows):
            for x in range(roi.strips):
                blend_planes(
                    scratch + i * pitch + x * LANES * LANES, source + roi.strip[x], plane, planes, columns,
                    &roi.y, <int> (y + i),
                )
        for x in range(roi.x.lines):
            blend(pooled + x * LANES, pooled_pitch, scratch, pitch, rows, &roi.x, <int> x)
        for i in range(rows):
            x = 0
            while x < shape.bins_x:
                for c in range(LANES):
                    tile[c] = load(pooled + i * pooled_pitch + (x + c) * LANES)
                transpose(tile)
                # A row may end inside the vector: what runs over is overwritten by the row that follows.
                at = (y + i) * shape.bins_x + x
                if planes == LANES and at + LANES <= bins:
                    for c in range(LANES):
                        store(target + c * bins + at, tile[c])
                else:
                    for c in range(planes):
                        store_first(target + c * bins + at, tile[c], bins - at)
                x += LANES
        y += rows


cdef void backward_planes(
    const Call* call, const RoI* roi, Py_ssize_t channel, Py_ssize_t first_row, Py_ssize_t last_row,
    real* scratch,
) noexcept nogil:
    """The transpose of `forward_planes`; adds to rows [first_row, last_row) alone."""
    cdef const Sampling* shape = &call.plan.sampling
    cdef Py_ssize_t plane = shape.height * shape.width, bins = shape.bins_y * shape.bins_x
    cdef const real* source = call.source + (roi.row * call.channels + channel) * bins
    cdef real* image = call.target + (roi.image * call.channels + channel) * plane
    cdef real* target
    cdef int planes = <int> min(call.channels - channel, LANES), columns = LANES
    cdef bint at_end = ((call.rois - roi.row) * call.channels - channel - planes) * bins < LANES
    cdef Py_ssize_t pitch = call.pitch
    cdef real* strip = scratch + call.slab * pitch
    cdef Py_ssize_t y = 0, end = roi.y.lines, rows, x, i, c
    cdef lanes tile[LANES]
    while y < end and roi.map_row[y] < first_row:
        y += 1
    while y < end and roi.map_row[end - 1] >= last_row:
        end -= 1
    while y < end:
        rows = min(call.slab, end - y)
        for i in range(rows):
            x = 0
            while x < shape.bins_x:
                # Reading past the end of a row is harmless, past the end of the array it is not.
                if at_end:
                    columns = <int> min(shape.bins_x - x, LANES)
                blend_planes(
                    scratch + i * pitch + x * LANES, source + x, bins, planes, columns, &roi.y, <int> (y + i)
                )
                x += LANES
        for x in range(roi.strips):
            for c in range(LANES):
                blend(strip + c * LANES, LANES * LANES, scratch, pitch, rows, &roi.x, <int> (x * LANES + c))
            for i in range(rows):
                for c in range(LANES):
                    tile[c] = load(strip + (i * LANES + c) * LANES)
                transpose(tile)
                target = image + roi.map_row[y + i] * shape.width + roi.strip[x]
                if planes == LANES and shape.width >= LANES:
                    for c in range(LANES):
                        put(target + c * plane, tile[c], True)
                else:
                    for c in range(planes):
                        put_first(target + c * plane, tile[c], shape.width, True)
        y += rows
