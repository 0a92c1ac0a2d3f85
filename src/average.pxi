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

cdef extern from "simd.h" nogil:
    ctypedef float real
    ctypedef float lanes
    enum:
        LANES
    lanes zeros()
    lanes load(const real* source)
    lanes load_first(const real* source, Py_ssize_t n)
    void store(real* target, lanes v)
    void store_first(real* target, lanes v, Py_ssize_t n)
    void transpose(lanes* v)

cdef enum:
    SLAB = 8  # rows that the x step takes at once, so that it reads each tap once for all of them


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


cdef inline lanes blend_first(
    const real* source, const Band* band, int line, Py_ssize_t n
) noexcept nogil:
    """`blend` for one vector of which only n lanes may be read."""
    cdef int t = band.begin[line], end = band.begin[line + 1], head = (end - t) % 4
    cdef lanes total = zeros(), group
    cdef bint first = True
    if head == 0:
        head = 4
    while t < end:
        group = band.weight[t] * load_first(source + band.offset[t], n)
        for t in range(t + 1, t + head):
            group = group + band.weight[t] * load_first(source + band.offset[t], n)
        t += 1
        total = group if first else total + group
        first = False
        head = 4
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
        if add:
            sums[0] = load_first(target + j, n - j) + sums[0]
        store_first(target + j, sums[0], n - j)


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


cdef void forward_pixels(
    const real* input, real* output, const Sampling* shape, Py_ssize_t channels,
    const RoI* roi, Py_ssize_t channel, Py_ssize_t n, Py_ssize_t pitch, real* scratch,
) noexcept nogil:
    """Channels [channel, channel + n) of a channels-last map. scratch: `pitch` numbers a strip."""
    cdef const real* source = input + roi.image * shape.height * shape.width * channels + channel
    cdef real* target = output + roi.row * shape.bins_y * shape.bins_x * channels + channel
    cdef int y, x
    for y in range(roi.y.lines):
        for x in range(roi.strips):
            blend_channels(scratch + x * pitch, source + roi.strip[x] * channels, n, &roi.y, y, False)
        for x in range(roi.x.lines):
            blend_channels(target, scratch, n, &roi.x, x, False)
            target += channels


cdef void backward_pixels(
    const real* grad_output, real* grad_input, const Sampling* shape, Py_ssize_t channels,
    const RoI* roi, Py_ssize_t channel, Py_ssize_t n, Py_ssize_t pitch,
    Py_ssize_t first_row, Py_ssize_t last_row, real* scratch,
) noexcept nogil:
    """Adds to rows [first_row, last_row) alone. scratch: `pitch` numbers a bin of x."""
    cdef const real* source = grad_output + roi.row * shape.bins_y * shape.bins_x * channels + channel
    cdef real* target
    cdef int y, x
    for y in range(roi.y.lines):
        if not first_row <= roi.map_row[y] < last_row:
            continue
        for x in range(shape.bins_x):
            blend_channels(scratch + x * pitch, source + x * channels, n, &roi.y, y, False)
        target = grad_input + (roi.image * shape.height + roi.map_row[y]) * shape.width * channels + channel
        for x in range(roi.strips):
            blend_channels(target + roi.strip[x] * channels, scratch, n, &roi.x, x, True)


cdef void forward_planes(
    const real* input, real* output, const Sampling* shape, Py_ssize_t channels,
    const RoI* roi, Py_ssize_t channel, Py_ssize_t most_strips, real* scratch,
) noexcept nogil:
    """Up to LANES channels, from `channel` on, of a channels-first map.

    scratch: SLAB rows of most_strips * LANES vectors, then SLAB rows of bins.
    """
    cdef Py_ssize_t plane = shape.height * shape.width, bins = shape.bins_y * shape.bins_x
    cdef const real* source = input + (roi.image * channels + channel) * plane
    cdef real* target = output + (roi.row * channels + channel) * bins
    cdef int planes = <int> min(channels - channel, LANES), columns = <int> min(shape.width, LANES)
    cdef Py_ssize_t slab_row = most_strips * LANES * LANES, bin_row = (shape.bins_x + LANES) * LANES
    cdef real* pooled = scratch + SLAB * slab_row
    cdef Py_ssize_t at, y = 0, rows, x, i, c
    cdef lanes tile[LANES]
    while y < roi.y.lines:
        rows = min(SLAB, roi.y.lines - y)
        for i in range(rows):
            for x in range(roi.strips):
                blend_planes(
                    scratch + i * slab_row + x * LANES * LANES, source + roi.strip[x], plane, planes, columns,
                    &roi.y, <int> (y + i),
                )
        for x in range(roi.x.lines):
            blend(pooled + x * LANES, bin_row, scratch, slab_row, rows, &roi.x, <int> x)
        for i in range(rows):
            x = 0
            while x < shape.bins_x:
                for c in range(LANES):
                    tile[c] = load(pooled + i * bin_row + (x + c) * LANES)
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
    const real* grad_output, real* grad_input, const Sampling* shape, Py_ssize_t channels, Py_ssize_t rois,
    const RoI* roi, Py_ssize_t channel, Py_ssize_t first_row, Py_ssize_t last_row, real* scratch,
) noexcept nogil:
    """Adds to rows [first_row, last_row) alone.

    scratch: SLAB rows of bins, rounded up to LANES of them, then SLAB rows of LANES vectors.
    """
    cdef Py_ssize_t plane = shape.height * shape.width, bins = shape.bins_y * shape.bins_x
    cdef const real* source = grad_output + (roi.row * channels + channel) * bins
    cdef real* image = grad_input + (roi.image * channels + channel) * plane
    cdef real* target
    cdef int planes = <int> min(channels - channel, LANES), width = <int> min(shape.width, LANES)
    cdef bint at_end = ((rois - roi.row) * channels - channel - planes) * bins < LANES
    cdef Py_ssize_t bin_row = (shape.bins_x + LANES) * LANES
    cdef real* strip = scratch + SLAB * bin_row
    cdef int columns = LANES
    cdef Py_ssize_t y = 0, rows, x, i, c, end = roi.y.lines
    cdef lanes tile[LANES]
    while y < end and roi.map_row[y] < first_row:
        y += 1
    while y < end and roi.map_row[end - 1] >= last_row:
        end -= 1
    while y < end:
        rows = min(SLAB, end - y)
        for i in range(rows):
            x = 0
            while x < shape.bins_x:
                # Reading past the end of a row is harmless, past the end of the array it is not.
                if at_end:
                    columns = <int> min(shape.bins_x - x, LANES)
                blend_planes(
                    scratch + i * bin_row + x * LANES, source + x, bins, planes, columns,
                    &roi.y, <int> (y + i),
                )
                x += LANES
        for x in range(roi.strips):
            for c in range(LANES):
                blend(
                    strip + c * LANES, LANES * LANES, scratch, bin_row, rows, &roi.x, <int> (x * LANES + c)
                )
            for i in range(rows):
                for c in range(LANES):
                    tile[c] = load(strip + (i * LANES + c) * LANES)
                transpose(tile)
                target = image + roi.map_row[y + i] * shape.width + roi.strip[x]
                if planes == LANES and width == LANES:
                    for c in range(LANES):
                        put(target + c * plane, tile[c], True)
                else:
                    for c in range(planes):
                        store_first(
                            target + c * plane, load_first(target + c * plane, width) + tile[c], width
                        )
        y += rows
