# The maximum of samples: one RoI and one block of channels, then the pieces of work that consist of them.
#
#     "max"         a bin is its largest sample, and a sample the weighted sum of four pixels
#     "onnx_max"    a bin is the largest of the four pixels of all of its samples, each times its weight
#
# Both take an axis at a time. A step along y makes lines out of rows of the map: with "max" one for each
# row of samples, with "onnx_max", since weights are not negative and therefore
#
#     max over y and x of x_weight * (y_weight * pixel) = max over x of x_weight * (max over y of ...),
#
# one for all of them, just as for an average. A step along x makes bins out of lines.
#
# Lanes run along channels. A line holds `pitch` channels for each of its columns in either layout: the
# rows of a channels-first map are transposed on the way, and so are its rows of bins.
#
# Backward finds the largest of each bin again, then walks the samples again, in their order: a bin's
# gradient goes to the first sample that equals the largest. Steps and order are those of forward,
# so the same sample equals it again, to the last bit.


cdef struct Pass:  # one RoI and one block of channels
    const Call* call
    const RoI* roi
    Py_ssize_t n  # channels
    const real* map  # the image, from the first of the channels on
    const real* grad_output  # the RoI's
    real* target  # the RoI's bins, or the gradient to the image
    Py_ssize_t first, last  # backward: the numbers of the map from first to last are this piece's
    Py_ssize_t line_reals  # from line to line
    real* lines
    real* grad_line
    real* bins  # one row
    real* grad_bins


cdef inline lanes product(real weight, lanes v) noexcept nogil:
    """A weight of 0 gives 0 even for NaN and infinity."""
    return weight * v if weight != 0 else zeros()


# Lines: the step along y

cdef inline void weigh(
    lanes* totals, int count, const real* map, Py_ssize_t step, const Axis* y, int t, int end, bint summed
) noexcept nogil:
    """The taps from t to end, summed or the largest of them, for `count` vectors a step apart."""
    cdef const real* pixels = map + y.index[t]
    cdef real weight = y.weight[t]
    cdef int i
    for i in range(count):
        totals[i] = product(weight, load(pixels + i * step))
    for t in range(t + 1, end):
        pixels, weight = map + y.index[t], y.weight[t]
        for i in range(count):
            if summed:
                totals[i] = totals[i] + product(weight, load(pixels + i * step))
            else:
                totals[i] = larger(product(weight, load(pixels + i * step)), totals[i])


cdef lanes weigh_first(
    const real* map, const Axis* y, int t, int end, bint summed, Py_ssize_t n
) noexcept nogil:
    """`weigh` for one vector of which only n lanes may be read."""
    cdef lanes total = product(y.weight[t], load_first(map + y.index[t], n)), part
    for t in range(t + 1, end):
        part = product(y.weight[t], load_first(map + y.index[t], n))
        total = total + part if summed else larger(part, total)
    return total


cdef inline void weigh_tile(
    lanes* tile, const Pass* work, Py_ssize_t channel, Py_ssize_t column, int t, int end, bint summed
) noexcept nogil:
    """`weigh` for one strip of a channels-first map: a vector a plane, up to LANES planes."""
    cdef Py_ssize_t width = work.roi.level.width
    cdef Py_ssize_t plane = work.roi.level.height * width, c
    cdef const real* map = work.map + channel * plane + column
    if work.n - channel >= LANES and width >= LANES:
        weigh(tile, LANES, map, plane, &work.roi.y, t, end, summed)
        return
    for c in range(LANES):
        tile[c] = zeros()
    for c in range(min(work.n - channel, <Py_ssize_t> LANES)):
        tile[c] = weigh_first(map + c * plane, &work.roi.y, t, end, summed, width)


cdef inline void read_line(const Pass* work, int t, int end, bint summed, real* line) noexcept nogil:
    """Make a line of the rows of the map that the taps from t to end name."""
    cdef Py_ssize_t pitch = work.call.pitch, j = 0, i
    cdef const Axis* y = &work.roi.y
    cdef const real* pixel
    cdef real* target
    cdef lanes tile[LANES]
    cdef lanes four[4]
    cdef int s
    if not work.call.settings.channels_last:  # strips of a few planes: a page of the map has them all
        while j < work.n:
            target = line + j
            for s in range(work.roi.strips):
                weigh_tile(tile, work, j, work.roi.strip[s], t, end, summed)
                transpose(tile)
                for i in range(LANES):
                    store(target + i * pitch, tile[i])
                target += LANES * pitch
            j += LANES
        return
    for s in range(work.roi.strips):
        pixel = work.map + work.roi.strip[s] * work.call.channels
        j = 0
        while j + 4 * LANES <= work.n:
            weigh(four, 4, pixel + j, LANES, y, t, end, summed)
            for i in range(4):
                store(line + j + i * LANES, four[i])
            j += 4 * LANES
        while j < work.n:
            store(line + j, weigh_first(pixel + j, y, t, end, summed, work.n - j))
            j += LANES
        line += pitch


cdef inline void add_line(const Pass* work, int t, int end, bint summed, const real* line) noexcept nogil:
    """The transpose of `read_line`: adds the gradient of a line to the rows that are this piece's."""
    cdef Py_ssize_t pitch = work.call.pitch, width = work.roi.level.width
    cdef Py_ssize_t plane = work.roi.level.height * width, at, j = 0, i, n
    cdef const real* grad_line = work.grad_line
    cdef lanes largest[8]  # LANES, or four
    cdef lanes left[8]
    cdef int s
    if not work.call.settings.channels_last:
        while j < work.n:
            n = min(work.n - j, <Py_ssize_t> LANES)
            for s in range(work.roi.strips):
                for i in range(LANES):
                    left[i] = load(grad_line + (s * LANES + i) * pitch + j)
                transpose(left)
                if not summed:
                    weigh_tile(largest, work, j, work.roi.strip[s], t, end, summed)
                at = j * plane + work.roi.strip[s]
                if n == LANES and width >= LANES:
                    add_vectors(work, at, plane, LANES, LANES, t, end, summed, largest, left)
                else:
                    add_vectors(work, at, plane, n, width, t, end, summed, largest, left)
            j += LANES
        return
    for s in range(work.roi.strips):
        j = 0
        while j < work.n:
            at = work.roi.strip[s] * work.call.channels + j
            if j + 4 * LANES <= work.n:
                for i in range(4):
                    largest[i], left[i] = load(line + j + i * LANES), load(grad_line + j + i * LANES)
                add_vectors(work, at, LANES, 4, LANES, t, end, summed, largest, left)
                j += 4 * LANES
            else:
                largest[0], left[0] = load(line + j), load(grad_line + j)
                n = min(work.n - j, <Py_ssize_t> LANES)
                add_vectors(work, at, LANES, 1, n, t, end, summed, largest, left)
                j += LANES
        line += pitch
        grad_line += pitch


cdef inline void add_vectors(
    const Pass* work, Py_ssize_t at, Py_ssize_t step, Py_ssize_t count, Py_ssize_t n, int t, int end,
    bint summed, const lanes* largest, lanes* left,
) noexcept nogil:
    """Send `count` vectors of n lanes to their pixels: a sum to all taps, a maximum to the first that won."""
    cdef const Axis* y = &work.roi.y
    cdef const real* map = work.map + at
    cdef real* target = work.target + at
    cdef Py_ssize_t i
    cdef lanes value, part
    cdef real weight
    cdef bint mine
    for t in range(t, end):
        mine = work.first <= y.index[t] < work.last
        weight = y.weight[t]
        if summed and not mine:
            continue
        for i in range(count):
            part = left[i]
            if not summed:
                value = product(weight, load_first(map + y.index[t] + i * step, n))
                part = where_reached(value, largest[i], left[i])
                left[i] = unless_reached(value, largest[i], left[i])
            if mine:
                add_first(target + y.index[t] + i * step, product(weight, part), n)


cdef inline void add_first(real* target, lanes v, Py_ssize_t n) noexcept nogil:
    store_first(target, load_first(target, n) + v, n)


# Bins: the step along x

cdef inline void raise_bin(
    real* bins, const real* lines, Py_ssize_t line_reals, int count, const Axis* x, int bin, bint summed,
    int vectors,
) noexcept nogil:
    """Raise some channels of one bin to the largest that `count` lines hold for it."""
    cdef lanes largest[4]
    cdef lanes value
    cdef const real* a
    cdef const real* b
    cdef real a_weight, b_weight
    cdef int row, t, i
    for i in range(vectors):
        largest[i] = load(bins + i * LANES)
    for row in range(count):
        t = x.indptr[bin]
        while t < x.indptr[bin + 1]:
            a, a_weight = lines + x.index[t], x.weight[t]
            b, b_weight = lines + x.index[t + summed], x.weight[t + summed]
            for i in range(vectors):
                value = product(a_weight, load(a + i * LANES))
                if summed:
                    value = value + product(b_weight, load(b + i * LANES))
                largest[i] = larger(value, largest[i])
            t += 1 + summed
        lines += line_reals
    for i in range(vectors):
        store(bins + i * LANES, largest[i])


cdef inline void scatter_bin(
    const Pass* work, const real* line, Py_ssize_t channel, int bin, bint summed, bint zero_before,
    bint zero_after, int vectors,
) noexcept nogil:
    """The transpose of `raise_bin` for one line, which gets what is left of the bin's gradient.

    zero_before, zero_after: a sample out of range comes before or after those of the line.
    """
    cdef const Axis* x = &work.roi.x
    cdef const real* bins = work.bins + bin * work.call.pitch + channel
    cdef real* grad_bins = work.grad_bins + bin * work.call.pitch + channel
    cdef real* grad_line = work.grad_line + channel
    cdef lanes largest[4]
    cdef lanes left[4]
    cdef lanes value, part
    cdef Py_ssize_t a, b
    cdef real a_weight, b_weight
    cdef int t = x.indptr[bin], i
    line += channel
    for i in range(vectors):
        largest[i], left[i] = load(bins + i * LANES), load(grad_bins + i * LANES)
        if zero_before:
            left[i] = unless_reached(zeros(), largest[i], left[i])
    while t < x.indptr[bin + 1]:
        a, a_weight = x.index[t], x.weight[t]
        b, b_weight = x.index[t + summed], x.weight[t + summed]
        for i in range(vectors):
            value = product(a_weight, load(line + a + i * LANES))
            if summed:
                value = value + product(b_weight, load(line + b + i * LANES))
            part = where_reached(value, largest[i], left[i])
            left[i] = unless_reached(value, largest[i], left[i])
            add_first(grad_line + a + i * LANES, product(a_weight, part), LANES)
            if summed:
                add_first(grad_line + b + i * LANES, product(b_weight, part), LANES)
        t += 1 + summed
    for i in range(vectors):
        if zero_after:
            left[i] = unless_reached(zeros(), largest[i], left[i])
        store(grad_bins + i * LANES, left[i])


cdef void write_bins(const Pass* work, Py_ssize_t y) noexcept nogil:
    """Write one row of bins."""
    cdef Py_ssize_t width = work.call.settings.bins_x, plane = work.call.settings.bins_y * width
    cdef Py_ssize_t pitch = work.call.pitch, n = work.n, j = 0, at, x, i
    cdef lanes tile[LANES]
    while j < n:
        x = 0
        while x < width:
            at = y * width + x
            if work.call.settings.channels_last:
                store_first(
                    work.target + at * work.call.channels + j, load(work.bins + x * pitch + j), n - j
                )
                x += 1
            else:
                for i in range(LANES):
                    tile[i] = load(work.bins + (x + i) * pitch + j)
                transpose(tile)
                # A row may end inside the vector: what runs over is overwritten by the row that follows.
                for i in range(min(n - j, <Py_ssize_t> LANES)):
                    store_first(work.target + (j + i) * plane + at, tile[i], plane - at)
                x += LANES
        j += LANES


cdef void read_grad_bins(const Pass* work, Py_ssize_t y) noexcept nogil:
    """Read the gradient of one row of bins, as `write_bins` writes them."""
    cdef Py_ssize_t width = work.call.settings.bins_x, plane = work.call.settings.bins_y * width
    cdef Py_ssize_t pitch = work.call.pitch, n = work.n, j = 0, at, x, i
    cdef lanes tile[LANES]
    while j < n:
        x = 0
        while x < width:
            at = y * width + x
            if work.call.settings.channels_last:
                tile[0] = load_first(work.grad_output + at * work.call.channels + j, n - j)
                store(work.grad_bins + x * pitch + j, tile[0])
                x += 1
            else:
                for i in range(LANES):
                    tile[i] = zeros()
                for i in range(min(n - j, <Py_ssize_t> LANES)):
                    tile[i] = load_first(work.grad_output + (j + i) * plane + at, plane - at)
                transpose(tile)
                for i in range(LANES):
                    store(work.grad_bins + (x + i) * pitch + j, tile[i])
                x += LANES
        j += LANES


# RoIs

cdef inline void pool_row(const Pass* work, int y, bint summed) noexcept nogil:
    """Find one row of bins. Its last lines remain."""
    cdef const Call* call = work.call
    cdef const RoI* roi = work.roi
    cdef const Axis* x = &roi.x
    cdef int t = roi.y.indptr[y], end = roi.y.indptr[y + 1], step = 2 if summed else end - t
    cdef int bin, count, i
    cdef Py_ssize_t j
    cdef lanes least
    cdef real* at
    for bin in range(x.size):
        least = zeros()  # if there are no samples, or some out of range
        if t < end and x.indptr[bin] < x.indptr[bin + 1] and not (roi.y.outside[y] or roi.x.outside[bin]):
            least = least - <real> INFINITY
        for j in range(call.pitch // LANES):
            store(work.bins + bin * call.pitch + j * LANES, least)
    while t < end:
        count = min(call.batch, (end - t) // step)
        for i in range(count):
            read_line(work, t, t + step, summed, work.lines + i * work.line_reals)
            t += step
        for bin in range(x.size):
            at = work.bins + bin * call.pitch
            j = 0
            while j + 4 * LANES <= work.n:
                raise_bin(at + j, work.lines + j, work.line_reals, count, x, bin, summed, 4)
                j += 4 * LANES
            while j < work.n:
                raise_bin(at + j, work.lines + j, work.line_reals, count, x, bin, summed, 1)
                j += LANES


cdef inline void pool_roi(const Pass* work, bint summed) noexcept nogil:
    cdef int y
    for y in range(work.roi.y.size):
        pool_row(work, y, summed)
        write_bins(work, y)


cdef inline void scatter_roi(const Pass* work, bint summed) noexcept nogil:
    """The transpose of `pool_roi`, for the rows of the map that are this piece's."""
    cdef const Call* call = work.call
    cdef const RoI* roi = work.roi
    cdef const Axis* taps = &roi.y
    cdef Py_ssize_t line_bytes = roi.strips * call.strip_width * call.pitch * sizeof(real), j
    cdef int y, t, begin, end, step, bin
    cdef bint kept, before, after
    cdef real* line = work.lines
    for y in range(taps.size):
        begin, end = taps.indptr[y], taps.indptr[y + 1]
        step = 2 if summed else end - begin
        if not is_mine(work, begin, end):
            continue
        pool_row(work, y, summed)
        read_grad_bins(work, y)
        kept = (end - begin) // step <= call.batch
        t = begin
        while t < end:
            if kept:
                line = work.lines + (t - begin) // step * work.line_reals
            else:
                read_line(work, t, t + step, summed, line)
            memset(work.grad_line, 0, line_bytes)
            for bin in range(roi.x.size):
                before = t == begin and (roi.y.outside[y] == BEFORE or roi.x.outside[bin] == BEFORE)
                after = t == begin and roi.x.outside[bin] == AFTER
                j = 0
                while j + 4 * LANES <= work.n:
                    scatter_bin(work, line, j, bin, summed, before, after, 4)
                    j += 4 * LANES
                while j < work.n:
                    scatter_bin(work, line, j, bin, summed, before, after, 1)
                    j += LANES
            if is_mine(work, t, t + step):
                add_line(work, t, t + step, summed, line)
            t += step


cdef inline bint is_mine(const Pass* work, int t, int end) noexcept nogil:
    """Whether any of the taps from t to end names a row of this piece."""
    for t in range(t, end):
        if work.first <= work.roi.y.index[t] < work.last:
            return True
    return False


# Pieces

cdef inline Pass pass_over(
    const Call* call, const Piece* piece, const RoI* roi, const Scratch* scratch
) noexcept nogil:
    cdef Pass work
    cdef Py_ssize_t of_map = in_map(call, roi, piece.channel), of_bins = in_bins(call, roi, piece.channel)
    cdef bint backward = call.direction == BACKWARD
    work.call, work.roi, work.n = call, roi, piece.channels
    work.map = <const real*> roi.level.map + of_map
    work.grad_output = <const real*> call.bins + of_bins
    work.target = <real*> roi.level.gradient + of_map if backward else <real*> call.bins + of_bins
    work.first, work.last = piece.first_row * roi.level.y_stride, piece.last_row * roi.level.y_stride
    work.line_reals = call.strips * call.strip_width * call.pitch
    work.lines, work.grad_line = scratch.at[LINES], scratch.at[GRAD_LINE]
    work.bins, work.grad_bins = scratch.at[BINS], scratch.at[GRAD_BINS]
    return work


cdef void maximum_forward(const Call* call, const Piece* piece, const Scratch* scratch) noexcept nogil:
    cdef Pass work
    cdef Py_ssize_t i
    for i in range(piece.first, piece.last):
        work = pass_over(call, piece, piece.rois + i, scratch)
        if call.settings.pooling == MAX:
            pool_roi(&work, True)
        else:
            pool_roi(&work, False)


cdef void maximum_backward(const Call* call, const Piece* piece, const Scratch* scratch) noexcept nogil:
    """Each piece finds the winners of the bins that reach its rows anew: nothing is kept of forward."""
    cdef Pass work
    cdef Py_ssize_t i
    for i in range(piece.count):
        work = pass_over(call, piece, piece.rois + i, scratch)
        if call.settings.pooling == MAX:
            scatter_roi(&work, True)
        else:
            scatter_roi(&work, False)
