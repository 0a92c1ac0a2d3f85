# The gradient of average RoIAlign with respect to the four coordinates of each box.
#
# output = Y . input . X^T (see src/geometry/axis.pxi), and a box has its say in Y and X alone. So the
# gradient is
#
#     to x1   <grad_output, Y . input . (dX/dx1)^T>        to x2   <grad_output, Y . input . (dX/dx2)^T>
#     to y1   <grad_output, dY/dy1 . input . X^T>          to y2   <grad_output, dY/dy2 . input . X^T>
#
# with the tables of src/geometry/derivatives.pxi. y comes first, as in mean.pxi, a row of bins at a time:
# each pixel is loaded once for Y, dY/dy1 and dY/dy2. The x step meets grad_output on its way, so that no
# crop is stored.
#
# Lanes run along channels. Each channel has its own sums, which are added in the order of the channels:
# the bits depend only on the box. A row of bins is summed in `real`, rows and channels in double.


cdef void boxes_backward(const Call* call, const Piece* piece, const Scratch* scratch) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(piece.first, piece.last):
        sum_block(call, piece, piece.rois + i, scratch.at[LINES], scratch.at[BINS])


cdef void sum_block(
    const Call* call, const Piece* piece, const RoI* roi, real* lines, real* turned
) noexcept nogil:
    """The sums of one RoI for a block of channels.

    lines: a row of bins of y and its two derivatives; turned: that row of the gradient to bins, transposed.
    """
    cdef const Settings* settings = &call.settings
    cdef Py_ssize_t channels = call.channels, n = piece.channels, bins_x = settings.bins_x
    cdef Py_ssize_t bins = settings.bins_y * bins_x, plane = roi.level.height * roi.level.width
    cdef Py_ssize_t columns = min(roi.level.width, LANES), pitch = 3 * call.width, c, s
    cdef const real* source = <const real*> roi.level.map + in_map(call, roi, piece.channel)
    cdef const real* grads = <const real*> call.bins + in_bins(call, roi, piece.channel)
    cdef double* sums = roi.to_corners + piece.channel
    cdef const real* row
    cdef int y
    for s in range(4):
        memset(sums + s * channels, 0, n * sizeof(double))
    for y in range(roi.y.size):
        if roi.y.indptr[y] == roi.y.indptr[y + 1]:  # outside the map: see meet_vector
            continue
        if settings.channels_last:
            for s in range(roi.strips):
                pool_channels(lines + s * pitch, source + roi.strip[s] * channels, n, &roi.y, y)
            c = 0
            while c < n:
                row = grads + y * bins_x * channels + c
                meet(sums + c, channels, lines + 3 * c, row, channels, n - c, &roi.x)
                c += LANES
        else:
            for s in range(roi.strips):
                pool_planes(lines + s * LANES * pitch, source + roi.strip[s], plane, n, columns, &roi.y, y)
            turn_row(turned, grads, bins, y * bins_x, bins_x, n)
            meet(sums, channels, lines, turned, LANES, n, &roi.x)


cdef inline void pool(
    real* target, Py_ssize_t pitch, Py_ssize_t step, const real* source, Py_ssize_t source_pitch,
    Py_ssize_t n, const Axis* axis, int line, int count, bint whole,
) noexcept nogil:
    """One line of an axis and of its two derivatives, which go a step apart, for one vector or two.

    Where the source has fewer numbers than a vector, n says how many. count and whole are constants where
    this is inlined; two vectors use a whole line of the cache, and each weight twice.
    """
    cdef lanes value[2]
    cdef lanes by_start[2]
    cdef lanes by_end[2]
    cdef lanes pixel
    cdef const real* at
    cdef int t, i
    for i in range(count):
        value[i] = by_start[i] = by_end[i] = zeros()
    for t in range(axis.indptr[line], axis.indptr[line + 1]):
        for i in range(count):
            at = source + axis.index[t] + i * source_pitch
            pixel = load(at) if whole else load_first(at, n)
            value[i] = value[i] + axis.weight[t] * pixel
            by_start[i] = by_start[i] + axis.by_start[t] * pixel
            by_end[i] = by_end[i] + axis.by_end[t] * pixel
    for i in range(count):
        store(target + i * pitch, value[i])
        store(target + i * pitch + step, by_start[i])
        store(target + i * pitch + 2 * step, by_end[i])


cdef inline void pool_channels(
    real* target, const real* source, Py_ssize_t n, const Axis* axis, int line
) noexcept nogil:
    """`pool` for n channels that lie side by side."""
    cdef Py_ssize_t c = 0
    while c + 2 * LANES <= n:
        pool(target + 3 * c, 3 * LANES, LANES, source + c, LANES, LANES, axis, line, 2, True)
        c += 2 * LANES
    while c < n:
        pool(target + 3 * c, 0, LANES, source + c, 0, n - c, axis, line, 1, False)
        c += LANES


cdef inline void pool_planes(
    real* target, const real* source, Py_ssize_t plane, Py_ssize_t planes, Py_ssize_t columns,
    const Axis* axis, int line,
) noexcept nogil:
    """`pool` for LANES columns of up to LANES planes, transposed into vectors of channels."""
    cdef lanes tiles[3 * LANES]
    cdef real* tile = <real*> tiles
    cdef Py_ssize_t step = LANES * LANES, i = 0, j
    if planes == LANES and columns == LANES and LANES > 1:
        while i < LANES:
            pool(tile + i * LANES, LANES, step, source + i * plane, plane, LANES, axis, line, 2, True)
            i += 2
    else:
        for i in range(3 * LANES):
            tiles[i] = zeros()
        for i in range(planes):
            pool(tile + i * LANES, 0, step, source + i * plane, 0, columns, axis, line, 1, False)
    for j in range(3):
        transpose(tiles + j * LANES)
        for i in range(LANES):
            store(target + (3 * i + j) * LANES, tiles[j * LANES + i])


cdef inline void turn_row(
    real* target, const real* source, Py_ssize_t plane, Py_ssize_t first, Py_ssize_t count, Py_ssize_t planes
) noexcept nogil:
    """`count` numbers, from `first` on, of up to LANES planes as vectors of channels."""
    cdef lanes tile[LANES]
    cdef Py_ssize_t i, x = 0
    while x < count:
        for i in range(LANES):
            tile[i] = zeros()
        for i in range(planes):
            tile[i] = load_first(source + i * plane + first + x, plane - first - x)
        transpose(tile)
        for i in range(LANES):
            store(target + (x + i) * LANES, tile[i])
        x += LANES


cdef inline void meet(
    double* sums, Py_ssize_t channels, const real* lines, const real* grads, Py_ssize_t step, Py_ssize_t n,
    const Axis* axis,
) noexcept nogil:
    """Add the terms of a row of bins for n channels, at most LANES."""
    if n >= LANES:
        meet_vector(sums, channels, lines, grads, step, LANES, axis, True)
    else:
        meet_vector(sums, channels, lines, grads, step, n, axis, False)


cdef inline void meet_vector(
    double* sums, Py_ssize_t channels, const real* lines, const real* grads, Py_ssize_t step, Py_ssize_t n,
    const Axis* axis, bint whole,
) noexcept nogil:
    cdef lanes x1, y1, x2, y2, grad, value
    cdef lanes to_x1 = zeros(), to_y1 = zeros(), to_x2 = zeros(), to_y2 = zeros()
    cdef const real* at
    cdef int x, t, first, last
    for x in range(axis.size):
        first, last = axis.indptr[x], axis.indptr[x + 1]
        if first == last:  # no sample reaches the map: a gradient that is not finite must not matter
            continue
        x1 = y1 = x2 = y2 = zeros()
        for t in range(first, last):
            at = lines + axis.index[t]
            value = load(at)
            x1 = x1 + axis.by_start[t] * value
            x2 = x2 + axis.by_end[t] * value
            y1 = y1 + axis.weight[t] * load(at + LANES)
            y2 = y2 + axis.weight[t] * load(at + 2 * LANES)
        grad = load(grads + x * step) if whole else load_first(grads + x * step, n)
        to_x1 = to_x1 + grad * x1
        to_y1 = to_y1 + grad * y1
        to_x2 = to_x2 + grad * x2
        to_y2 = to_y2 + grad * y2
    widen(sums, to_x1, n)
    widen(sums + channels, to_y1, n)
    widen(sums + 2 * channels, to_x2, n)
    widen(sums + 3 * channels, to_y2, n)


cdef inline void widen(double* sums, lanes terms, Py_ssize_t n) noexcept nogil:
    """Add a row's terms to the sums of their channels, which are kept in double."""
    cdef real all[LANES]
    cdef Py_ssize_t i
    store(all, terms)
    for i in range(n):
        sums[i] += all[i]
