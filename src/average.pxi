# The arithmetic of average RoIAlign for one RoI and one block of channels.
#
# Both directions and both layouts take one axis after the other, with one step, `blend`, but for the last of
# these, `expand`:
#
#     forward            bins of y <- rows of the map, then bins of x <- columns
#     backward, pixels   rows of the map <- bins of y, then columns <- bins of x
#     backward, planes   columns <- bins of x, by `expand`; then rows of the map <- bins of y
#
# Lanes run along channels. In a channels-last map the channels of a pixel lie side by side and are
# loaded as they are. In a channels-first map a row of pixels does: there the y step runs along the row,
# plane by plane, and a transposition in registers turns planes of pixels into pixels of channels for the
# x step of forward; that of the gradient gives each bin to all pixels of a strip. The y step stands next to
# the map, because its loads are contiguous in either layout; only the gradient of a channels-last map has it
# the other way round, where one row of bins then serves a whole row of pixels from the first-level cache.


cdef void forward_pixels(
    const Call* call, const RoI* roi, Py_ssize_t channel, int first_y, int last_y, int first_x, int last_x,
    real* scratch,
) noexcept nogil:
    """Some bins of a RoI, for a block of channels from `channel` on, of a channels-last map."""
    cdef const Sampling* shape = &roi.level.sampling
    cdef Py_ssize_t channels = call.channels, n = min(call.width, channels - channel)
    cdef const pixel* source = roi.level.map + roi.image * shape.height * shape.width * channels + channel
    cdef pooled* bins = call.output + roi.row * shape.bins_y * shape.bins_x * channels + channel
    cdef pooled* target
    cdef real* sums
    cdef const Run* run
    cdef int y, x, r, low = roi.strips, high = 0, first, last
    for x in range(first_x, last_x):
        if roi.high[x]:
            low = min(low, roi.low[x])
            high = max(high, roi.high[x])
    for y in range(first_y, last_y):
        if roi.y.begin[y] == roi.y.begin[y + 1]:
            for x in range(first_x, last_x):
                memset(bins + (y * shape.bins_x + x) * channels, 0, n * sizeof(pooled))
            continue
        for r in range(roi.runs):
            run = roi.run + r
            first, last = max(run.slot, low), min(run.slot + run.strips, high)
            if first < last:
                blend_pixels[pixel](
                    scratch + first * call.pitch, call.pitch,
                    source + (run.column + first - run.slot) * channels, channels, last - first, n, &roi.y, y,
                )
        for x in range(first_x, last_x):
            target = bins + (y * shape.bins_x + x) * channels
            sums = scratch + roi.strips * call.pitch if call.aside else <real*> target
            blend_channels[real](sums, scratch, n, &roi.x, x, False, False)
            if call.aside:
                write_out(target, sums, n, call.past_caches)


cdef void backward_pixels(
    const Call* call, const RoI* roi, real* sums, const Rows* rows, real* scratch
) noexcept nogil:
    """The transpose of `forward_pixels`; adds to some rows alone, which begin at `sums`."""
    cdef const Sampling* shape = &roi.level.sampling
    cdef Py_ssize_t channels = call.channels, n = rows.length
    cdef const pooled* source = call.output + roi.row * shape.bins_y * shape.bins_x * channels + rows.channel
    cdef real* target
    cdef const Run* run
    cdef int y, end, x, r
    find_lines(roi, rows, &y, &end)
    for y in range(y, end):
        blend_pixels[pooled](scratch, call.pitch, source, channels, shape.bins_x, n, &roi.y, y)
        for r in range(roi.runs):
            run = roi.run + r
            target = sums + ((roi.map_row[y] - rows.first) * shape.width + run.column) * rows.pitch
            for x in range(run.strips):
                blend_channels[real](target, scratch, n, &roi.x, run.slot + x, True, True)
                target += rows.pitch


cdef inline void find_lines(const RoI* roi, const Rows* rows, int* first, int* last) noexcept nogil:
    """Which lines of roi.y, for backward, belong to some rows of the map."""
    first[0], last[0] = 0, roi.y.lines
    while first[0] < last[0] and roi.map_row[first[0]] < rows.first:
        first[0] += 1
    while first[0] < last[0] and roi.map_row[last[0] - 1] >= rows.last:
        last[0] -= 1


cdef inline pooled* bins_of(const Call* call, const RoI* roi, Py_ssize_t channel) noexcept nogil:
    """The bins of a RoI of a channels-first map, from a channel on."""
    return call.output + (roi.row * call.channels + channel) * call.plan.bins_y * call.plan.bins_x


cdef void forward_planes(const Call* call, const RoI* roi, Py_ssize_t channel, real* scratch) noexcept nogil:
    """Up to LANES channels, from `channel` on, of a channels-first map.

    The x step takes a slab of rows at once, so that it reads its taps once for all of them. The output is
    fetched early: it is written in pieces too short for the processor to foresee.
    """
    cdef const Sampling* shape = &roi.level.sampling
    cdef Py_ssize_t plane = shape.height * shape.width, bins = shape.bins_y * shape.bins_x
    cdef const pixel* source = roi.level.map + (roi.image * call.channels + channel) * plane
    cdef pooled* target = bins_of(call, roi, channel)
    cdef int planes = <int> min(call.channels - channel, LANES)
    cdef Py_ssize_t step = call.slab * LANES, pitch = roi.strips * LANES
    cdef real* pixels = scratch  # columns, rows of the slab, channels
    cdef real* sums = pixels + call.pitch * step  # bins, channels
    cdef real* lines = sums + call.slab * shape.bins_x * LANES + LANES * LANES  # channels, columns
    cdef real* aside = lines + pitch * LANES  # channels, bins; where results pass the caches
    cdef Py_ssize_t y = 0, rows, i, s, n, at
    cdef int c, r, x
    cdef lanes tile[LANES]
    for i in range(planes * roi.strips, LANES * roi.strips):
        store(lines + i * LANES, zeros())
    while y < shape.bins_y:
        rows = min(call.slab, shape.bins_y - y)
        for i in range(rows):
            if not call.aside:
                prefetch(target + i * planes * shape.bins_x, planes * shape.bins_x * sizeof(pooled))
            if shape.width >= LANES:
                for r in range(roi.runs):
                    blend[pixel](
                        lines + roi.run[r].slot, pitch, source + roi.run[r].column, plane, planes,
                        roi.run[r].strips, &roi.y, <int> (y + i), False, False,
                    )
            elif roi.strips:
                for c in range(planes):
                    blend_first[pixel](
                        lines + c * pitch, source + c * plane, &roi.y, <int> (y + i), shape.width, False
                    )
            for s in range(roi.strips):
                for c in range(LANES):
                    tile[c] = load(lines + c * pitch + s * LANES)
                transpose(tile)
                for c in range(LANES):
                    store(pixels + (s * LANES + c) * step + i * LANES, tile[c])
        for x in range(roi.x.lines):
            blend[real](
                sums + x * LANES, shape.bins_x * LANES, pixels, LANES, rows, 1, &roi.x, x, False, False
            )
        n, i = rows * shape.bins_x, 0
        while i < n:
            # The last tile ends with the slab. Only where a slab is shorter than that are lanes left over.
            at = max(0, min(i, n - LANES))
            for c in range(LANES):
                tile[c] = load(sums + (at + c) * LANES)
            transpose(tile)
            if call.aside:  # what a tile writes too far, the next channels write again
                for c in range(planes):
                    store(aside + c * bins + y * shape.bins_x + at, tile[c])
            elif planes == LANES and at + LANES <= n:
                for c in range(LANES):
                    store_pooled(target + c * bins + at, tile[c])
            else:
                for c in range(planes):
                    store_first_pooled(target + c * bins + at, tile[c], n - at)
            i += LANES
        target += n
        y += rows
    if call.aside:
        write_out(bins_of(call, roi, channel), aside, planes * bins, call.past_caches)


cdef inline bint fetch(real* target, const pooled* source, Py_ssize_t n) noexcept nogil:
    """Copy n numbers, as they are summed; False if one is not finite."""
    cdef lanes part, sums = zeros()
    cdef Py_ssize_t i = 0
    while i < n:
        if i + LANES <= n:
            part = load_pooled(source + i)
            store(target + i, part)
        else:
            part = load_first_pooled(source + i, n - i)
            store_first(target + i, part, n - i)
        sums = sums + <real> 0 * part
        i += LANES
    return all_zero(sums)


cdef inline lanes share(lanes weight, real bin, bint finite) noexcept nogil:
    """What a bin gives to the pixels of a strip: 0 to those out of its reach, also if it is not finite."""
    cdef lanes part = weight * bin
    if not finite:
        part = unless_reached(weight, zeros(), part)
    return part


cdef inline void expand_taps(
    real* target, Py_ssize_t pitch, const real* bins, const Sampling* shape, int planes,
    Py_ssize_t first, Py_ssize_t last, const Band* band, int t, int taps, bint add, bint finite,
) noexcept nogil:
    """`expand` with one to four taps from `t` on; taps, add and finite are constants where it is inlined."""
    cdef const Py_ssize_t* offset = band.offset + t
    cdef const real* weight = band.weight + t * LANES
    cdef Py_ssize_t a = offset[0], b = offset[1 if taps > 1 else 0]
    cdef Py_ssize_t c = offset[2 if taps > 2 else 0], d = offset[3 if taps > 3 else 0]
    cdef lanes a_weight = load(weight), b_weight = load(weight + (LANES if taps > 1 else 0))
    cdef lanes c_weight = load(weight + (2 * LANES if taps > 2 else 0))
    cdef lanes d_weight = load(weight + (3 * LANES if taps > 3 else 0))
    cdef lanes total
    cdef const real* source
    cdef real* line
    cdef Py_ssize_t i
    cdef int plane
    for plane in range(planes):
        source = bins + (plane * shape.bins_y + first) * shape.bins_x
        line = target + plane * pitch
        for i in range(first, last):
            total = share(a_weight, source[a], finite)
            if add:
                total = load(line) + total
            if taps > 1:
                total = total + share(b_weight, source[b], finite)
            if taps > 2:
                total = total + share(c_weight, source[c], finite)
            if taps > 3:
                total = total + share(d_weight, source[d], finite)
            store(line, total)
            source += shape.bins_x
            line += STRIPS * LANES


cdef inline void expand(
    real* target, Py_ssize_t pitch, const real* bins, const Sampling* shape, int planes,
    Py_ssize_t first, Py_ssize_t last, const Band* band, int strip, bint finite,
) noexcept nogil:
    """Spread rows [first, last) of the bins of some planes over the pixels of a strip.

    Taps are added one after the other, not by fours as in `blend`: how many bins reach a strip depends on
    its width, on which the sum of a pixel must not depend.
    """
    cdef int t = band.begin[strip], end = band.begin[strip + 1]
    cdef int head = (end - t - 1) % 4 + 1
    if head == 1:
        expand_taps(target, pitch, bins, shape, planes, first, last, band, t, 1, False, finite)
    elif head == 2:
        expand_taps(target, pitch, bins, shape, planes, first, last, band, t, 2, False, finite)
    elif head == 3:
        expand_taps(target, pitch, bins, shape, planes, first, last, band, t, 3, False, finite)
    else:
        expand_taps(target, pitch, bins, shape, planes, first, last, band, t, 4, False, finite)
    for t in range(t + head, end, 4):
        expand_taps(target, pitch, bins, shape, planes, first, last, band, t, 4, True, finite)


cdef void backward_planes(
    const Call* call, const RoI* roi, real* sums, const Rows* rows, real* scratch
) noexcept nogil:
    """The transpose of `forward_planes`; adds to some rows alone, which begin at `sums`.

    The x step gives each bin to all pixels of a strip at once. Columns are taken a few strips at a time, so
    that scratch does not grow with the map.
    """
    cdef const Sampling* shape = &roi.level.sampling
    cdef Py_ssize_t area = shape.bins_y * shape.bins_x, pitch = shape.bins_y * STRIPS * LANES
    cdef const pooled* source = bins_of(call, roi, rows.channel)
    cdef int planes = <int> rows.count
    cdef real* bins = scratch  # channels, bins of y, bins of x
    cdef real* lines = bins + area * LANES  # channels, bins of y, columns
    cdef real* target
    cdef Py_ssize_t first = shape.bins_y, last = 0, i, s, strips
    cdef int y, end, c, r, strip
    cdef bint finite = True
    find_lines(roi, rows, &y, &end)
    for i in range(roi.y.begin[y], roi.y.begin[end]):
        first = min(first, roi.y.offset[i] // (STRIPS * LANES))
        last = max(last, roi.y.offset[i] // (STRIPS * LANES) + 1)
    if last - first == shape.bins_y:
        finite = fetch(bins, source, planes * area)
    else:
        for c in range(planes):
            i = c * area + first * shape.bins_x
            finite = fetch(bins + i, source + i, (last - first) * shape.bins_x) and finite
    for r in range(roi.runs):
        s = 0
        while s < roi.run[r].strips:
            strips = min(STRIPS, roi.run[r].strips - s)
            for i in range(strips):
                strip = roi.run[r].slot // LANES + <int> (s + i)
                target = lines + (first * STRIPS + i) * LANES
                if finite:
                    expand(target, pitch, bins, shape, planes, first, last, &roi.x, strip, True)
                else:
                    expand(target, pitch, bins, shape, planes, first, last, &roi.x, strip, False)
            for i in range(y, end):
                target = sums + (roi.map_row[i] - rows.first) * shape.width
                target += roi.run[r].column + s * LANES
                if shape.width >= LANES:
                    blend[real](
                        target, rows.pitch, lines, pitch, planes, strips, &roi.y, <int> i, True, False
                    )
                else:
                    for c in range(planes):
                        blend_first[real](
                            target + c * rows.pitch, lines + c * pitch, &roi.y, <int> i, shape.width, True
                        )
            s += strips
