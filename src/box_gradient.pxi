# The gradient of average RoIAlign to the four coordinates of each box.
#
# output = Y . input . X^T (see geometry.pxi), and a box has its say in Y and X alone. So the gradient is
#
#     to x1   <grad_output, Y . input . (dX/dx1)^T>        to x2   <grad_output, Y . input . (dX/dx2)^T>
#     to y1   <grad_output, dY/dy1 . input . X^T>          to y2   <grad_output, dY/dy2 . input . X^T>
#
# with the tables of slopes.pxi. y comes first, as in average.pxi, a row of bins at a time: each pixel is
# loaded once for Y, dY/dy1 and dY/dy2. The x step meets grad_output on its way, so that no crop is stored.
#
# Lanes run along channels. Each channel has sums of its own, which are added in the order of the channels:
# nothing but the box decides the bits. A row of bins is summed in `real`, rows and channels in double.


cdef enum:
    SLOPE_CHANNELS = 256  # the widest block of a channels-last map: benchmarks/layouts.py
    SLOPE_SCRATCH = 1 << 18  # numbers that a thread pools at a time, about
    SLOPE_TABLES = 1 << 20  # taps and sums of the RoIs that are planned at a time, about: 32 MiB


cdef struct SlopedRoI:
    Py_ssize_t row, image
    Slopes y, x
    Py_ssize_t* strip  # the first column of each strip that x reads, as `cover` finds them
    int strips
    double* sums  # [x1, y1, x2, y2][channel]


cdef struct SlopeCall:
    const real* grad_output
    const real* input
    const double* boxes
    Sampling sampling
    Py_ssize_t channels, rois
    bint channels_last
    int threads
    int strip_width
    Py_ssize_t width, blocks  # channels in a block, and how many blocks
    Py_ssize_t capacity, parts  # RoIs planned at a time, and runs of them
    Py_ssize_t taps_y, taps_x, strips  # the most that a RoI can have
    Py_ssize_t pooled, scratch_reals  # of a thread: a pooled row, and that with a row of grad_output
    SlopedRoI* plan
    Visit* visits
    int* begins
    int* slots  # `width` zeros a thread
    Py_ssize_t* offsets
    real* weights
    double* sums
    real* scratch


def roi_align_boxes_backward(
    const real[:, :, :, ::1] grad_output, const real[:, :, :, ::1] input, const double[:, ::1] boxes,
    double[:, ::1] grad_boxes, double spatial_scale, int sampling_ratio, bint aligned, bint single,
    bint channels_last, int threads,
):
    """Fill grad_boxes (K, 4) from grad_output (K, C, PH, PW) and input (N, C, H, W), or both with the
    channels last; none is empty.

    Pieces are blocks of channels times runs of RoIs, as in `roi_align`, and leave a sum for each channel.
    """
    cdef SlopeCall call
    cdef Py_ssize_t i, count, first = 0
    cdef bint ready
    call.grad_output, call.input = &grad_output[0, 0, 0, 0], &input[0, 0, 0, 0]
    call.boxes = &boxes[0, 0]
    set_sampling(
        &call.sampling, input.shape, grad_output.shape,
        spatial_scale, sampling_ratio, aligned, single, channels_last,
    )
    with nogil:
        ready = open_slopes(&call, input.shape, grad_output.shape, channels_last, threads)
        while ready and first < call.rois:
            count = min(call.capacity, call.rois - first)
            order_visits(call.visits, &call.sampling, call.boxes, first, count)
            # Each iteration writes one RoI with its tables, and the slots of its thread.
            for i in prange(
                count, num_threads=call.threads, schedule="static", use_threads_if=call.threads > 1
            ):
                plan_slopes(&call, i, threadid())
            # Who owns what: a piece the sums of its channels of its RoIs, a thread its scratch.
            for i in prange(
                call.blocks * call.parts, num_threads=call.threads, schedule="dynamic",
                use_threads_if=call.threads > 1,
            ):
                slope_piece(&call, count, i // call.parts, i % call.parts, threadid())
            # Each iteration writes one row of the result.
            for i in prange(
                count, num_threads=call.threads, schedule="static", use_threads_if=call.threads > 1
            ):
                add_channels(&call, i, &grad_boxes[0, 0])
            first += count
        close_slopes(&call)
    if not ready:
        raise MemoryError("no memory for the tables of roi_align_boxes_backward")


cdef bint open_slopes(
    SlopeCall* call, const Py_ssize_t* map_shape, const Py_ssize_t* bins_shape, bint channels_last,
    int threads,
) noexcept nogil:
    """Share out the work and allocate; False where memory is short. Close the call in either case."""
    cdef Sampling* sampling = &call.sampling
    cdef Py_ssize_t pieces, taps, lines
    call.rois, call.channels = bins_shape[0], map_shape[3 if channels_last else 1]
    call.channels_last = channels_last
    if call.rois * call.channels * sampling.bins_y * sampling.bins_x < SERIAL_BINS:
        threads = 1
    call.threads = threads
    pieces = PIECES * threads if threads > 1 else 1
    call.taps_y = most_taps(sampling.bins_y, sampling.ratio, sampling.height)
    call.taps_x = most_taps(sampling.bins_x, sampling.ratio, sampling.width)
    call.strip_width = 1 if channels_last else LANES
    call.strips = min(call.taps_x, sampling.width // call.strip_width + 1)
    call.width = LANES
    if channels_last:
        call.width = min(
            SLOPE_CHANNELS, SLOPE_SCRATCH // (3 * call.strips), call.channels // (pieces // call.rois + 1)
        )
        call.width = max(1, (call.width + LANES - 1) // LANES) * LANES
    call.blocks = (call.channels + call.width - 1) // call.width
    taps, lines = call.taps_y + call.taps_x, sampling.bins_y + sampling.bins_x + 2
    call.capacity = max(1, min(call.rois, SLOPE_TABLES // (taps + call.strips + lines + 4 * call.channels)))
    call.parts = min(call.capacity, (pieces + call.blocks - 1) // call.blocks)
    call.pooled = 3 * call.strips * call.strip_width * call.width
    call.scratch_reals = call.pooled + (0 if channels_last else (sampling.bins_x + LANES) * LANES)
    call.plan = <SlopedRoI*> malloc(call.capacity * sizeof(SlopedRoI))
    call.visits = <Visit*> malloc(call.capacity * sizeof(Visit))
    call.begins = <int*> malloc(call.capacity * lines * sizeof(int))
    call.slots = <int*> calloc(threads * sampling.width, sizeof(int))
    call.offsets = <Py_ssize_t*> malloc(call.capacity * (taps + call.strips) * sizeof(Py_ssize_t))
    call.weights = <real*> malloc(call.capacity * 3 * taps * sizeof(real))
    call.sums = <double*> malloc(call.capacity * 4 * call.channels * sizeof(double))
    call.scratch = <real*> malloc(threads * call.scratch_reals * sizeof(real))
    return (
        call.plan != NULL and call.visits != NULL and call.begins != NULL and call.slots != NULL
        and call.offsets != NULL and call.weights != NULL and call.sums != NULL and call.scratch != NULL
    )


cdef void close_slopes(SlopeCall* call) noexcept nogil:
    free(call.plan)
    free(call.visits)
    free(call.begins)
    free(call.slots)
    free(call.offsets)
    free(call.weights)
    free(call.sums)
    free(call.scratch)


cdef void plan_slopes(const SlopeCall* call, Py_ssize_t i, int thread) noexcept nogil:
    """Place the tables of a RoI, and fill them."""
    cdef const Sampling* sampling = &call.sampling
    cdef SlopedRoI* roi = call.plan + i
    cdef Py_ssize_t taps_y = call.taps_y, taps_x = call.taps_x
    cdef const double* box = call.boxes + 5 * call.visits[i].row
    roi.row, roi.image = call.visits[i].row, call.visits[i].image
    roi.sums = call.sums + i * 4 * call.channels
    roi.y.band.begin = call.begins + i * (sampling.bins_y + sampling.bins_x + 2)
    roi.x.band.begin = roi.y.band.begin + sampling.bins_y + 1
    roi.y.band.offset = call.offsets + i * (taps_y + taps_x + call.strips)
    roi.x.band.offset = roi.y.band.offset + taps_y
    roi.strip = roi.x.band.offset + taps_x
    roi.y.band.weight = call.weights + i * 3 * (taps_y + taps_x)
    roi.y.by_start = roi.y.band.weight + taps_y
    roi.y.by_end = roi.y.by_start + taps_y
    roi.x.band.weight = roi.y.by_end + taps_y
    roi.x.by_start = roi.x.band.weight + taps_x
    roi.x.by_end = roi.x.by_start + taps_x
    find_slopes(sampling, box, True, &roi.y)
    find_slopes(sampling, box, False, &roi.x)
    roi.strips = cover(
        &roi.x.band, sampling.width, call.strip_width, call.slots + thread * sampling.width, roi.strip
    )
    if CHECKED:
        check_band(&roi.y.band, sampling.height, taps_y)
        check_band(&roi.x.band, roi.strips * call.strip_width, taps_x)
    spread(&roi.y.band, sampling.width * (call.channels if call.channels_last else 1))
    spread(&roi.x.band, 3 * call.width)


cdef void add_channels(const SlopeCall* call, Py_ssize_t i, double* grad_boxes) noexcept nogil:
    """The gradient to a box, from the sums of its channels."""
    cdef const SlopedRoI* roi = call.plan + i
    cdef const Sampling* sampling = &call.sampling
    cdef double scale = <float> sampling.scale if sampling.single else sampling.scale, total
    cdef Py_ssize_t corner, c
    for corner in range(4):
        total = 0
        for c in range(call.channels):
            total += roi.sums[corner * call.channels + c]
        grad_boxes[4 * roi.row + corner] = scale * total


cdef void slope_piece(
    const SlopeCall* call, Py_ssize_t count, Py_ssize_t block, Py_ssize_t run, int thread
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count * run // call.parts, count * (run + 1) // call.parts):
        slope_block(call, call.plan + i, block * call.width, call.scratch + thread * call.scratch_reals)


cdef void slope_block(
    const SlopeCall* call, const SlopedRoI* roi, Py_ssize_t channel, real* pooled
) noexcept nogil:
    """The sums of one RoI for a block of channels, from `channel` on."""
    cdef const Sampling* sampling = &call.sampling
    cdef Py_ssize_t channels = call.channels, n = min(call.width, channels - channel)
    cdef Py_ssize_t bins = sampling.bins_y * sampling.bins_x, plane = sampling.height * sampling.width
    cdef Py_ssize_t columns = min(sampling.width, LANES), pitch = 3 * call.width, c, s
    cdef const real* source = call.input
    cdef const real* grads = call.grad_output
    cdef const real* row
    cdef int y
    if call.channels_last:
        source += roi.image * plane * channels + channel
        grads += roi.row * bins * channels + channel
    else:
        source += (roi.image * channels + channel) * plane
        grads += (roi.row * channels + channel) * bins
    for s in range(4):
        memset(roi.sums + s * channels + channel, 0, n * sizeof(double))
    for y in range(roi.y.band.lines):
        if roi.y.band.begin[y] == roi.y.band.begin[y + 1]:  # outside the map: see meet_vector
            continue
        if call.channels_last:
            for s in range(roi.strips):
                pool_channels(pooled + s * pitch, source + roi.strip[s] * channels, n, &roi.y, y)
            c = 0
            while c < n:
                row = grads + y * sampling.bins_x * channels + c
                meet(roi.sums + channel + c, channels, pooled + 3 * c, row, channels, n - c, &roi.x)
                c += LANES
        else:
            for s in range(roi.strips):
                pool_planes(pooled + s * LANES * pitch, source + roi.strip[s], plane, n, columns, &roi.y, y)
            turn_row(pooled + call.pooled, grads, bins, y * sampling.bins_x, sampling.bins_x, n)
            meet(roi.sums + channel, channels, pooled, pooled + call.pooled, LANES, n, &roi.x)


cdef inline void pool(
    real* target, Py_ssize_t pitch, Py_ssize_t step, const real* source, Py_ssize_t source_pitch,
    Py_ssize_t n, const Slopes* axis, int line, int count, bint whole,
) noexcept nogil:
    """One line of a band and of its two derivatives, which go a step apart, for one vector or two.

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
    for t in range(axis.band.begin[line], axis.band.begin[line + 1]):
        for i in range(count):
            at = source + axis.band.offset[t] + i * source_pitch
            pixel = load(at) if whole else load_first(at, n)
            value[i] = value[i] + axis.band.weight[t] * pixel
            by_start[i] = by_start[i] + axis.by_start[t] * pixel
            by_end[i] = by_end[i] + axis.by_end[t] * pixel
    for i in range(count):
        store(target + i * pitch, value[i])
        store(target + i * pitch + step, by_start[i])
        store(target + i * pitch + 2 * step, by_end[i])


cdef inline void pool_channels(
    real* target, const real* source, Py_ssize_t n, const Slopes* axis, int line
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
    const Slopes* axis, int line,
) noexcept nogil:
    """`pool` for LANES columns of up to LANES planes, turned into vectors of channels."""
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
    double* sums, Py_ssize_t channels, const real* pooled, const real* grads, Py_ssize_t step, Py_ssize_t n,
    const Slopes* axis,
) noexcept nogil:
    """Add what a row of bins has to say of n channels, at most LANES."""
    if n >= LANES:
        meet_vector(sums, channels, pooled, grads, step, LANES, axis, True)
    else:
        meet_vector(sums, channels, pooled, grads, step, n, axis, False)


cdef inline void meet_vector(
    double* sums, Py_ssize_t channels, const real* pooled, const real* grads, Py_ssize_t step, Py_ssize_t n,
    const Slopes* axis, bint whole,
) noexcept nogil:
    cdef lanes x1, y1, x2, y2, grad, value
    cdef lanes to_x1 = zeros(), to_y1 = zeros(), to_x2 = zeros(), to_y2 = zeros()
    cdef const real* at
    cdef int x, t, first, last
    for x in range(axis.band.lines):
        first, last = axis.band.begin[x], axis.band.begin[x + 1]
        if first == last:  # no sample reaches the map: a gradient that is not finite must not matter
            continue
        x1 = y1 = x2 = y2 = zeros()
        for t in range(first, last):
            at = pooled + axis.band.offset[t]
            value = load(at)
            x1 = x1 + axis.by_start[t] * value
            x2 = x2 + axis.by_end[t] * value
            y1 = y1 + axis.band.weight[t] * load(at + LANES)
            y2 = y2 + axis.band.weight[t] * load(at + 2 * LANES)
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
