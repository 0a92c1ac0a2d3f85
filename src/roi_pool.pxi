# RoIPool: the largest pixel of each bin, for bins of whole pixels.
#
# Forward, lanes run along channels, in either layout. A pixel of a channels-last map is loaded as it is. Of a
# channels-first map a tile of LANES planes and LANES columns is reduced along y, row by row, and transposed
# in registers into LANES pixels; bins go on with the tile as long as it holds their columns, so that the
# pixel which neighbours share is reduced once. A bin is reduced along y, then along x, in both layouts:
# this decides which of 0 and -0 it gets, and nothing else does.
#
# Backward looks for the winners again, so that forward need not remember them: of equals the first, row by
# row. Lanes run along channels here as well.
#
# A pixel wins by being larger than those before it, and the first has to be larger than -inf: NaN never wins.

cdef enum:
    UNPOOL_CHANNELS = 64  # of a block of a channels-last map, backward


cdef struct Pool:
    const real* input
    const real* grad_output  # backward
    real* target  # forward: the output; backward: the gradient to the input
    Sampling sampling
    Py_ssize_t images, channels, rois
    bint channels_last
    int threads
    Py_ssize_t width, blocks  # channels in a block, and how many blocks
    Py_ssize_t parts  # of a block: forward, runs of lines of bins; backward, groups of rows of one image
    Visit* visits
    Range* rows  # of visit i: i * bins_y and the following
    Range* columns  # of visit i: i * bins_x and the following


cdef bint open_pool(
    Pool* pool, const Py_ssize_t* map_shape, const Py_ssize_t* bins_shape, const double* boxes, bint backward,
    double spatial_scale, bint single, bint channels_last, int threads,
) noexcept nogil:
    """Share out the work and tabulate the bins; False where memory is short. Close the pool either way."""
    cdef Sampling* sampling = &pool.sampling
    cdef Py_ssize_t pieces, i
    set_sampling(sampling, map_shape, bins_shape, spatial_scale, 0, False, single, channels_last)
    pool.images, pool.rois = map_shape[0], bins_shape[0]
    pool.channels = map_shape[3 if channels_last else 1]
    pool.channels_last = channels_last
    if pool.rois * pool.channels * sampling.bins_y * sampling.bins_x < SERIAL_BINS:
        threads = 1
    pool.threads = threads
    if channels_last:
        pool.width = min(pool.channels, UNPOOL_CHANNELS) if backward else pool.channels
    else:
        pool.width = LANES
    pool.blocks = (pool.channels + pool.width - 1) // pool.width
    pieces = pool.blocks * (pool.images if backward else 1)
    pool.parts = min(
        (PIECES * threads + pieces - 1) // pieces,
        sampling.height if backward else pool.rois * sampling.bins_y,
    )
    pool.visits = <Visit*> malloc(pool.rois * sizeof(Visit))
    pool.rows = <Range*> malloc(pool.rois * sampling.bins_y * sizeof(Range))
    pool.columns = <Range*> malloc(pool.rois * sampling.bins_x * sizeof(Range))
    if pool.visits == NULL or pool.rows == NULL or pool.columns == NULL:
        return False
    order_visits(pool.visits, sampling, boxes, 0, pool.rois)
    # Each iteration writes the bins of one RoI.
    for i in prange(pool.rois, num_threads=threads, schedule="static", use_threads_if=threads > 1):
        tabulate(pool, boxes, i)
    return True


cdef void close_pool(Pool* pool) noexcept nogil:
    free(pool.visits)
    free(pool.rows)
    free(pool.columns)


cdef void tabulate(Pool* pool, const double* boxes, Py_ssize_t i) noexcept nogil:
    cdef const Sampling* sampling = &pool.sampling
    cdef const double* box = boxes + 5 * pool.visits[i].row
    cdef Py_ssize_t bin
    for bin in range(sampling.bins_y):
        pool.rows[i * sampling.bins_y + bin] = range_of(sampling, box, True, 1, bin, sampling.height)
    for bin in range(sampling.bins_x):
        pool.columns[i * sampling.bins_x + bin] = range_of(sampling, box, False, 1, bin, sampling.width)


cdef inline Py_ssize_t image_of(const Pool* pool, Py_ssize_t i) noexcept nogil:
    return pool.visits[i].image


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


cdef void pool_line_of_pixels(const Pool* pool, Py_ssize_t i, Py_ssize_t line) noexcept nogil:
    """One line of bins of one RoI, all the channels of a channels-last map."""
    cdef const Sampling* shape = &pool.sampling
    cdef Py_ssize_t channels = pool.channels, stride = shape.width * channels, bin, c
    cdef const Range* columns = pool.columns + i * shape.bins_x
    cdef Range y = pool.rows[i * shape.bins_y + line]
    cdef int rows = max(y.end - y.first, 0), width
    cdef const real* source = pool.input + (image_of(pool, i) * shape.height + y.first) * stride
    cdef const real* pixel
    cdef real* target = pool.target + (pool.visits[i].row * shape.bins_y + line) * shape.bins_x * channels
    for bin in range(shape.bins_x):
        pixel = source + columns[bin].first * channels
        width = max(columns[bin].end - columns[bin].first, 0)
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
    const Pool* pool, Py_ssize_t i, Py_ssize_t line, Py_ssize_t end_line, Py_ssize_t channel
) noexcept nogil:
    """One line of bins of one RoI, up to LANES channels of a channels-first map.

    end_line: the line before which the bins belong to this piece of the work.
    """
    cdef const Sampling* shape = &pool.sampling
    cdef Py_ssize_t plane = shape.height * shape.width, bins = shape.bins_y * shape.bins_x
    cdef const Range* columns = pool.columns + i * shape.bins_x
    cdef Range y = pool.rows[i * shape.bins_y + line]
    cdef int planes = <int> min(pool.channels - channel, LANES), width = <int> min(shape.width, LANES)
    cdef const real* source = (
        pool.input + (image_of(pool, i) * pool.channels + channel) * plane + y.first * shape.width
    )
    cdef real* target = pool.target + (pool.visits[i].row * pool.channels + channel) * bins
    cdef Py_ssize_t first = -1, x, end, bin = 0, at, c, n  # first: where the tile starts, if there is one
    cdef lanes tile[LANES]
    cdef lanes pooled[LANES]
    cdef lanes largest
    while bin < shape.bins_x:
        n = min(shape.bins_x - bin, LANES)
        for c in range(n):
            x, end = columns[bin + c].first, columns[bin + c].end
            largest = all_lanes(-INFINITY if y.first < y.end and x < end else 0)
            while y.first < y.end and x < end:
                if first < 0 or not first <= x < first + LANES:
                    first = min(x, shape.width - width)
                    pool_tile(tile, source + first, plane, shape.width, y.end - y.first, planes, width)
                for x in range(x, min(end, first + LANES)):
                    largest = greater(tile[x - first], largest)
                x += 1
            pooled[c] = largest
        for c in range(n, LANES):
            pooled[c] = zeros()
        transpose(pooled)
        # A line may end inside the vector: what runs over is overwritten by the line that follows.
        at = line * shape.bins_x + bin
        if planes == LANES and at + LANES <= end_line * shape.bins_x:
            n = LANES
        for c in range(planes):
            store_first(target + c * bins + at, pooled[c], n)
        bin += LANES


cdef void roi_pool_piece(const Pool* pool, Py_ssize_t block, Py_ssize_t run) noexcept nogil:
    """A run of lines of bins, of RoI after RoI, for one block of channels."""
    cdef Py_ssize_t lines = pool.sampling.bins_y, total = pool.rois * lines
    cdef Py_ssize_t unit, last = total * (run + 1) // pool.parts, i, line
    for unit in range(total * run // pool.parts, last):
        i, line = unit // lines, unit % lines
        if pool.channels_last:
            pool_line_of_pixels(pool, i, line)
        else:
            pool_line_of_planes(pool, i, line, min(lines, line + last - unit), block * pool.width)


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


cdef void unpool_line(
    const Pool* pool, Py_ssize_t i, Py_ssize_t line, Py_ssize_t channel,
    Py_ssize_t first_row, Py_ssize_t last_row,
) noexcept nogil:
    """Add the gradients of a line of bins to the rows [first_row, last_row), for up to LANES channels."""
    cdef const Sampling* shape = &pool.sampling
    cdef Py_ssize_t channels = pool.channels, bins = shape.bins_y * shape.bins_x, bin, c
    # From channel to channel and from pixel to pixel of the map, and the same of the bins.
    cdef Py_ssize_t plane = 1 if pool.channels_last else shape.height * shape.width
    cdef Py_ssize_t pixel = channels if pool.channels_last else 1, row = shape.width * pixel
    cdef Py_ssize_t step = 1 if pool.channels_last else bins
    cdef Py_ssize_t image = image_of(pool, i) * shape.height * shape.width * channels + channel * plane
    cdef const real* grads = (
        pool.grad_output + pool.visits[i].row * channels * bins + channel * step + line * shape.bins_x * pixel
    )
    cdef const Range* columns = pool.columns + i * shape.bins_x
    cdef Range rows = pool.rows[i * shape.bins_y + line]
    cdef int n = <int> min(channels - channel, LANES)
    cdef Winners winners
    cdef lane_number y, x
    for bin in range(shape.bins_x):
        if pool.channels_last:
            winners = winners_of(pool.input + image, row, pixel, shape.width, rows, columns[bin], n, True)
        else:
            winners = winners_of(pool.input + image, row, plane, shape.width, rows, columns[bin], n, False)
        for c in range(n):
            y, x = (<lane_number*> &winners.row)[c], (<lane_number*> &winners.column)[c]
            if first_row <= y < last_row:
                pool.target[image + c * plane + y * row + x * pixel] += grads[c * step]
        grads += pixel


cdef void roi_pool_backward_piece(
    const Pool* pool, Py_ssize_t image, Py_ssize_t block, Py_ssize_t group
) noexcept nogil:
    """Zero and sum the gradient of a group of rows of one image, for one block of channels."""
    cdef const Sampling* shape = &pool.sampling
    cdef Py_ssize_t channel = block * pool.width, end = min(channel + pool.width, pool.channels)
    cdef Py_ssize_t line, i, c
    cdef Py_ssize_t first_row = shape.height * group // pool.parts
    cdef Py_ssize_t last_row = shape.height * (group + 1) // pool.parts
    cdef Range y
    cdef Rows rows = rows_of(
        shape, pool.channels, pool.channels_last, image, channel, pool.width, first_row, last_row
    )
    zero_rows(pool.target + rows.at, &rows)
    for i in range(
        visits_before(pool.visits, pool.rois, 0, image),
        visits_before(pool.visits, pool.rois, 0, image + 1),
    ):
        for line in range(shape.bins_y):
            y = pool.rows[i * shape.bins_y + line]
            if y.first >= last_row or y.end <= first_row:
                continue
            c = channel
            while c < end:
                unpool_line(pool, i, line, c, first_row, last_row)
                c += LANES


def roi_pool(
    const real[:, :, :, ::1] input, const double[:, ::1] boxes, real[:, :, :, ::1] output,
    double spatial_scale, bint single, bint channels_last, int threads,
):
    """Fill output (K, C, PH, PW) from input (N, C, H, W), or both with the channels last; none is empty.

    Blocks of channels are the outer loop, so that a block of the map stays in the cache.
    """
    cdef Pool pool
    cdef Py_ssize_t piece
    cdef bint ready
    pool.input, pool.target = &input[0, 0, 0, 0], &output[0, 0, 0, 0]
    with nogil:
        ready = open_pool(
            &pool, input.shape, output.shape, &boxes[0, 0], False, spatial_scale, single, channels_last,
            threads,
        )
        if ready:
            # Who owns what: a piece its channels of its lines of bins.
            for piece in prange(
                pool.blocks * pool.parts, num_threads=pool.threads, schedule="dynamic",
                use_threads_if=pool.threads > 1,
            ):
                roi_pool_piece(&pool, piece // pool.parts, piece % pool.parts)
        close_pool(&pool)
    if not ready:
        raise MemoryError("no memory for the tables of roi_pool")


def roi_pool_backward(
    const real[:, :, :, ::1] grad_output, const real[:, :, :, ::1] input, const double[:, ::1] boxes,
    real[:, :, :, ::1] grad_input, double spatial_scale, bint single, bint channels_last, int threads,
):
    """Fill grad_input from grad_output (K, C, PH, PW) and input (N, C, H, W), or all channels-last."""
    cdef Pool pool
    cdef Py_ssize_t piece
    cdef bint ready
    pool.input, pool.grad_output = &input[0, 0, 0, 0], &grad_output[0, 0, 0, 0]
    pool.target = &grad_input[0, 0, 0, 0]
    with nogil:
        ready = open_pool(
            &pool, input.shape, grad_output.shape, &boxes[0, 0], True, spatial_scale, single, channels_last,
            threads,
        )
        if ready:
            # Who owns what: a piece its channels of its rows of its image; it sums RoI after RoI.
            for piece in prange(
                pool.images * pool.blocks * pool.parts, num_threads=pool.threads, schedule="dynamic",
                use_threads_if=pool.threads > 1,
            ):
                roi_pool_backward_piece(
                    &pool, piece // (pool.blocks * pool.parts), piece // pool.parts % pool.blocks,
                    piece % pool.parts,
                )
        close_pool(&pool)
    if not ready:
        raise MemoryError("no memory for the tables of roi_pool_backward")
