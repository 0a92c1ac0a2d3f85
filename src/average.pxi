# The arithmetic of average RoIAlign for one RoI and one block of channels.
#
# Both directions and both layouts are the same two steps, `blend` along y and then `blend` along x, with
# lanes along channels:
#
#     forward    bins of y <- rows of the map      bins of x <- columns
#     backward   rows of the map <- bins of y      columns <- bins of x     (the transposed bands)
#
# In a channels-last map the channels of a pixel lie side by side and are loaded as they are. In a
# channels-first map a row of pixels does: there the y step runs along the row, for as many planes as
# there are lanes, and a transposition in registers turns pixels x channels into channels x pixels.
# y comes first because its loads are contiguous in either layout and because every row it makes then
# serves all bins of x from the first-level cache.

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


cdef inline void blend(
    real* target, const real* source, Py_ssize_t stride, const Band* band, int line, Py_ssize_t n, bint add
) noexcept nogil:
    """target[:n] = (with `add`, +=) the sum over taps t of weight[t] * source[index[t] * stride :][:n]."""
    cdef Py_ssize_t j = 0
    cdef int t, begin = band.begin[line], end = band.begin[line + 1]
    cdef const real* at
    cdef real w
    cdef lanes a, b, c, d
    while j + 4 * LANES <= n:
        a = b = c = d = zeros()
        for t in range(begin, end):
            at = source + band.index[t] * stride + j
            w = band.weight[t]
            a = a + w * load(at)
            b = b + w * load(at + LANES)
            c = c + w * load(at + 2 * LANES)
            d = d + w * load(at + 3 * LANES)
        put(target + j, a, add)
        put(target + j + LANES, b, add)
        put(target + j + 2 * LANES, c, add)
        put(target + j + 3 * LANES, d, add)
        j += 4 * LANES
    while j + LANES <= n:
        a = zeros()
        for t in range(begin, end):
            a = a + band.weight[t] * load(source + band.index[t] * stride + j)
        put(target + j, a, add)
        j += LANES
    if j < n:
        a = zeros()
        for t in range(begin, end):
            a = a + band.weight[t] * load_first(source + band.index[t] * stride + j, n - j)
        put_first(target + j, a, n - j, add)


cdef inline void put(real* target, lanes v, bint add) noexcept nogil:
    store(target, load(target) + v if add else v)


cdef inline void put_first(real* target, lanes v, Py_ssize_t n, bint add) noexcept nogil:
    store_first(target, load_first(target, n) + v if add else v, n)


cdef inline void blend_planes(
    lanes* tile, const real* source, Py_ssize_t row_stride, Py_ssize_t plane_stride,
    const Band* band, int line, int planes, int columns,
) noexcept nogil:
    """`blend` for a strip of LANES pixels in `planes` planes: tile[j], lane c is pixel j of plane c.

    columns: how many pixels may be read, fewer than LANES only where the array ends.
    """
    cdef int t, c
    cdef const real* at
    cdef real w
    for c in range(LANES):
        tile[c] = zeros()
    if planes == LANES and columns == LANES:
        for t in range(band.begin[line], band.begin[line + 1]):
            at = source + band.index[t] * row_stride
            w = band.weight[t]
            for c in range(LANES):
                tile[c] = tile[c] + w * load(at + c * plane_stride)
    else:
        for t in range(band.begin[line], band.begin[line + 1]):
            at = source + band.index[t] * row_stride
            w = band.weight[t]
            for c in range(planes):
                tile[c] = tile[c] + w * load_first(at + c * plane_stride, columns)
    transpose(tile)


cdef void forward_pixels(
    const real* input, real* output, const Sampling* shape, Py_ssize_t channels,
    const RoI* roi, Py_ssize_t channel, Py_ssize_t n, real* scratch,
) noexcept nogil:
    """Channels [channel, channel + n) of a channels-last map. scratch: a row of strips, n channels each."""
    cdef const real* source = input + roi.image * shape.height * shape.width * channels + channel
    cdef real* target = output + roi.row * shape.bins_y * shape.bins_x * channels + channel
    cdef int y, x
    for y in range(roi.y.lines):
        for x in range(roi.strips):
            blend(
                scratch + x * n, source + roi.strip[x] * channels,
                shape.width * channels, &roi.y, y, n, False,
            )
        for x in range(roi.x.lines):
            blend(target, scratch, n, &roi.x, x, n, False)
            target += channels


cdef void backward_pixels(
    const real* grad_output, real* grad_input, const Sampling* shape, Py_ssize_t channels,
    const RoI* roi, Py_ssize_t channel, Py_ssize_t n, Py_ssize_t first_row, Py_ssize_t last_row, real* scratch,
) noexcept nogil:
    """Adds to rows [first_row, last_row) alone. scratch: bins_x times n numbers."""
    cdef const real* source = grad_output + roi.row * shape.bins_y * shape.bins_x * channels + channel
    cdef real* target
    cdef int y, x
    for y in range(roi.y.lines):
        if not first_row <= roi.map_row[y] < last_row:
            continue
        for x in range(shape.bins_x):
            blend(scratch + x * n, source + x * channels, shape.bins_x * channels, &roi.y, y, n, False)
        target = grad_input + (roi.image * shape.height + roi.map_row[y]) * shape.width * channels + channel
        for x in range(roi.strips):
            blend(target + roi.strip[x] * channels, scratch, n, &roi.x, x, n, True)


cdef void forward_planes(
    const real* input, real* output, const Sampling* shape, Py_ssize_t channels,
    const RoI* roi, Py_ssize_t channel, real* scratch,
) noexcept nogil:
    """Up to LANES channels, from `channel` on, of a channels-first map. scratch: strips * LANES lanes."""
    cdef Py_ssize_t plane = shape.height * shape.width, bins = shape.bins_y * shape.bins_x
    cdef const real* source = input + (roi.image * channels + channel) * plane
    cdef real* target = output + (roi.row * channels + channel) * bins
    cdef int planes = <int> min(channels - channel, LANES), columns = <int> min(shape.width, LANES)
    cdef Py_ssize_t at
    cdef lanes tile[LANES]
    cdef int y, x, c, j, group
    for y in range(roi.y.lines):
        for x in range(roi.strips):
            blend_planes(tile, source + roi.strip[x], shape.width, plane, &roi.y, y, planes, columns)
            for j in range(LANES):
                store(scratch + (x * LANES + j) * LANES, tile[j])
        for group in range((roi.x.lines + LANES - 1) // LANES):
            x = group * LANES
            for j in range(min(LANES, roi.x.lines - x)):
                blend(<real*> &tile[j], scratch, LANES, &roi.x, x + j, LANES, False)
            transpose(tile)
            # A row may end inside the vector: what runs over is overwritten by the row that follows.
            at = y * shape.bins_x + x
            if at + LANES <= bins:
                for c in range(planes):
                    store(target + c * bins + at, tile[c])
            else:
                for c in range(planes):
                    store_first(target + c * bins + at, tile[c], bins - at)


cdef void backward_planes(
    const real* grad_output, real* grad_input, const Sampling* shape, Py_ssize_t channels, Py_ssize_t rois,
    const RoI* roi, Py_ssize_t channel, Py_ssize_t first_row, Py_ssize_t last_row, real* scratch,
) noexcept nogil:
    """Adds to rows [first_row, last_row) alone. scratch: bins_x lanes, rounded up to LANES of them."""
    cdef Py_ssize_t plane = shape.height * shape.width, bins = shape.bins_y * shape.bins_x
    cdef const real* source = grad_output + (roi.row * channels + channel) * bins
    cdef real* target
    cdef int planes = <int> min(channels - channel, LANES), width = <int> min(shape.width, LANES)
    cdef bint at_end = ((rois - roi.row) * channels - channel - planes) * bins < LANES
    cdef int columns = LANES
    cdef lanes tile[LANES]
    cdef int y, x, c, j, group
    for y in range(roi.y.lines):
        if not first_row <= roi.map_row[y] < last_row:
            continue
        for group in range(<int> (shape.bins_x + LANES - 1) // LANES):
            x = group * LANES
            # Reading past the end of a row is harmless, past the end of the array it is not.
            if at_end:
                columns = <int> min(shape.bins_x - x, LANES)
            blend_planes(tile, source + x, shape.bins_x, bins, &roi.y, y, planes, columns)
            for j in range(LANES):
                store(scratch + (x + j) * LANES, tile[j])
        target = grad_input + (roi.image * channels + channel) * plane + roi.map_row[y] * shape.width
        for x in range(roi.strips):
            for j in range(LANES):
                blend(<real*> &tile[j], scratch, LANES, &roi.x, x * LANES + j, LANES, False)
            transpose(tile)
            if width == LANES:
                for c in range(planes):
                    put(target + c * plane + roi.strip[x], tile[c], True)
            else:
                for c in range(planes):
                    put_first(target + c * plane, tile[c], width, True)
