# One call of RoIAlign with a maximum: its RoIs and their tables, how its work is shared out, entry points.

cdef enum:  # channels in a block at most: benchmarks/modes.py
    PLANE_BLOCK = 4 * LANES  # of a channels-first map
    PIXEL_BLOCK = 256  # of a channels-last map
    LINES = 8  # that a thread keeps at once, where there is room


cdef struct MaxRoI:
    Py_ssize_t row  # of the boxes and of the output
    const Level* level
    Py_ssize_t image
    Extremes y  # offsets are numbers of the map
    Extremes x  # offsets are numbers of a line
    Py_ssize_t* strip  # the first column of each strip of a line
    int strips


cdef struct MaxCall:
    Level* levels  # `y_stride` counts the numbers of a row; `parts`: backward, groups of rows of one image
    Py_ssize_t level_count
    const Py_ssize_t* level_of_box  # NULL: all boxes are of the first
    real* output  # forward: the bins of all RoIs
    const real* grad_output  # backward
    bint summed  # "max", not "onnx_max"
    bint channels_last
    int threads
    Py_ssize_t images, channels, rois
    Py_ssize_t bins_y, bins_x
    Py_ssize_t pitch, blocks  # channels of a block, in whole vectors, and how many blocks
    Py_ssize_t parts  # forward: runs of RoIs, of each block
    Py_ssize_t pieces  # of the whole call
    int strip_width
    Py_ssize_t width  # of the widest map
    Py_ssize_t taps_y, taps_x, strips  # the most that a RoI can have
    Py_ssize_t line_reals, bins_reals, thread_reals  # numbers in a line, a row of bins, a thread's scratch
    int lines
    Py_ssize_t capacity, count  # RoIs: room for, planned
    Py_ssize_t table_bytes  # a RoI
    MaxRoI* planned
    Visit* visits
    char* tables
    int* slots
    real* scratch


cdef struct Work:  # one RoI and one block of channels
    const MaxCall* call
    const MaxRoI* roi
    Py_ssize_t n  # channels
    const real* map  # the image, from the first of the channels on
    const real* grad_output  # the RoI's
    real* target  # the RoI's bins, or the gradient to the image
    Py_ssize_t first, last  # backward: the numbers of the map from first to last are this piece's
    real* lines
    real* grad_line
    real* bins  # one row
    real* grad_bins


cdef bint open_max_call(
    MaxCall* call, Py_ssize_t images, const Py_ssize_t* output_shape, bint channels_last, int threads
) noexcept nogil:
    """Share out the work and allocate; False where memory is short. Close the call in either case."""
    cdef const Sampling* sampling = &call.levels.sampling
    cdef bint backward = call.grad_output != NULL
    cdef Py_ssize_t wanted, blocks, width, height = 0, i
    cdef Level* level
    call.images, call.rois = images, output_shape[0]
    call.channels = output_shape[3 if channels_last else 1]
    call.channels_last = channels_last
    call.bins_y, call.bins_x = sampling.bins_y, sampling.bins_x
    if call.rois * call.channels * call.bins_y * call.bins_x < SERIAL_BINS:
        threads = 1
    call.threads = threads

    # Runs of RoIs cost nothing. Groups of rows do, since bins that reach several are computed for each.
    wanted = PIECES * threads if threads > 1 else 1
    blocks = (threads - 1) // images + 1 if backward else (wanted - 1) // call.rois + 1
    width = min(call.channels, <Py_ssize_t> (PIXEL_BLOCK if channels_last else PLANE_BLOCK))
    width = min(width, max(call.channels // blocks // (4 * LANES), 1) * 4 * LANES)
    call.pitch = (width + LANES - 1) // LANES * LANES
    call.blocks = (call.channels + call.pitch - 1) // call.pitch
    wanted = (wanted - 1) // (call.blocks * (images if backward else 1)) + 1
    call.parts = min(wanted, call.rois)
    call.pieces = 0 if backward else call.blocks * call.parts
    call.width = 0
    for i in range(call.level_count):
        level = call.levels + i
        height, call.width = max(height, level.sampling.height), max(call.width, level.sampling.width)
        level.y_stride = level.sampling.width * (call.channels if channels_last else 1)
        level.parts = max(1, min(wanted, level.sampling.height // ROW_GROUP))
        level.pieces = images * call.blocks * level.parts
        if backward:
            call.pieces += level.pieces

    call.taps_y = most_extremes(call.bins_y, sampling.ratio, height)
    call.taps_x = most_extremes(call.bins_x, sampling.ratio, call.width)
    call.strip_width = 1 if channels_last else LANES
    call.strips = min(call.taps_x, call.width // call.strip_width + 1)
    call.line_reals = call.strips * call.strip_width * call.pitch
    call.lines = <int> max(1, min(<Py_ssize_t> LINES, SCRATCH // call.line_reals))
    call.bins_reals = (call.bins_x + LANES) * call.pitch
    call.thread_reals = (call.lines + 1) * call.line_reals + 2 * call.bins_reals
    call.scratch = <real*> malloc(threads * call.thread_reals * sizeof(real))

    # Gradients are summed portion by portion, so the lanes must have no say in how many RoIs it holds.
    call.capacity = max(1, min(call.rois, PLAN_TAPS // (call.taps_y + call.taps_x + ROI_TAPS)))
    call.table_bytes = (
        band_bytes(call.bins_y, call.taps_y) + whole_words(call.bins_y, sizeof(int))
        + band_bytes(call.bins_x, call.taps_x) + whole_words(call.bins_x, sizeof(int))
        + whole_words(call.strips, sizeof(Py_ssize_t))
    )
    call.planned = <MaxRoI*> malloc(call.capacity * sizeof(MaxRoI))
    call.visits = <Visit*> malloc(call.capacity * sizeof(Visit))
    call.tables = <char*> malloc(call.capacity * call.table_bytes)
    call.slots = <int*> calloc(threads * call.width, sizeof(int))
    return (
        call.scratch != NULL and call.planned != NULL and call.visits != NULL and call.tables != NULL
        and call.slots != NULL
    )


cdef void close_max_call(MaxCall* call) noexcept nogil:
    free(call.scratch)
    free(call.planned)
    free(call.visits)
    free(call.tables)
    free(call.slots)


cdef void plan_max_rois(MaxCall* call, const double* boxes, Py_ssize_t first) noexcept nogil:
    """Plan the RoIs from `first` on, as many as there is room for, in the order of their visit."""
    cdef Py_ssize_t i
    call.count = min(call.capacity, call.rois - first)
    order_by_level(call.visits, call.levels, call.level_of_box, boxes, first, call.count)
    # Each iteration writes one RoI with its tables, and the slots of its thread.
    for i in prange(call.count, num_threads=call.threads, schedule="static", use_threads_if=call.threads > 1):
        plan_max_roi(call, boxes + 5 * call.visits[i].row, i, threadid())


cdef void plan_max_roi(const MaxCall* call, const double* box, Py_ssize_t i, int thread) noexcept nogil:
    cdef const Level* level = call.levels + call.visits[i].level
    cdef const Sampling* sampling = &level.sampling
    cdef MaxRoI* roi = call.planned + i
    cdef char* room = call.tables + i * call.table_bytes
    cdef double scale = sampling.scale
    roi.row, roi.level, roi.image = call.visits[i].row, level, call.visits[i].image
    take_band(&room, &roi.y.taps, sampling.bins_y, call.taps_y)
    take_band(&room, &roi.x.taps, sampling.bins_x, call.taps_x)
    roi.y.outside = <int*> take(&room, sampling.bins_y, sizeof(int))
    roi.x.outside = <int*> take(&room, sampling.bins_x, sizeof(int))
    roi.strip = <Py_ssize_t*> take(&room, call.strips, sizeof(Py_ssize_t))
    if sampling.single:
        find_extremes[float](
            box[2], box[4], <float> scale, sampling.aligned, sampling.ratio, sampling.bins_y,
            sampling.height, &roi.y,
        )
        find_extremes[float](
            box[1], box[3], <float> scale, sampling.aligned, sampling.ratio, sampling.bins_x,
            sampling.width, &roi.x,
        )
    else:
        find_extremes[double](
            box[2], box[4], scale, sampling.aligned, sampling.ratio, sampling.bins_y, sampling.height, &roi.y
        )
        find_extremes[double](
            box[1], box[3], scale, sampling.aligned, sampling.ratio, sampling.bins_x, sampling.width, &roi.x
        )
    roi.strips = cover(
        &roi.x.taps, sampling.width, call.strip_width, call.slots + thread * call.width, roi.strip
    )
    if CHECKED:
        check_band(&roi.y.taps, sampling.height, call.taps_y)
        check_band(&roi.x.taps, roi.strips * call.strip_width, call.taps_x)
        check(roi.strips <= call.strips)
    spread(&roi.y.taps, level.y_stride)
    spread(&roi.x.taps, call.pitch)


cdef Work work_on(const MaxCall* call, const MaxRoI* roi, Py_ssize_t block, int thread) noexcept nogil:
    cdef Work work
    cdef Py_ssize_t channel = block * call.pitch
    cdef const Sampling* shape = &roi.level.sampling
    cdef Py_ssize_t of_map = first_number(call, roi.image, channel, shape.height * shape.width)
    cdef Py_ssize_t of_bins = first_number(call, roi.row, channel, shape.bins_y * shape.bins_x)
    cdef bint backward = call.grad_output != NULL
    work.call, work.roi, work.n = call, roi, min(call.pitch, call.channels - channel)
    work.map = roi.level.map + of_map
    work.grad_output = call.grad_output + of_bins if backward else NULL
    work.target = roi.level.gradient + of_map if backward else call.output + of_bins
    work.first = work.last = 0
    work.lines = call.scratch + thread * call.thread_reals
    work.grad_line = work.lines + call.lines * call.line_reals
    work.bins = work.grad_line + call.line_reals
    work.grad_bins = work.bins + call.bins_reals
    return work


cdef inline Py_ssize_t first_number(
    const MaxCall* call, Py_ssize_t item, Py_ssize_t channel, Py_ssize_t plane
) noexcept nogil:
    """Where a channel of an item begins: of an image of the map, or of a RoI of the output."""
    return item * plane * call.channels + channel * (1 if call.channels_last else plane)


cdef void pool_piece(const MaxCall* call, Py_ssize_t piece, int thread) noexcept nogil:
    cdef Work work
    cdef Py_ssize_t block = piece // call.parts, run = piece % call.parts, i
    for i in range(call.count * run // call.parts, call.count * (run + 1) // call.parts):
        work = work_on(call, call.planned + i, block, thread)
        if call.summed:
            pool_roi(&work, True)
        else:
            pool_roi(&work, False)


cdef void share_piece(const MaxCall* call, Py_ssize_t piece, bint zero, int thread) noexcept nogil:
    cdef const Level* level = find_level(call.levels, &piece)
    cdef Py_ssize_t group = piece % level.parts, block = piece // level.parts % call.blocks
    cdef Py_ssize_t image = piece // (level.parts * call.blocks), number = level - call.levels
    cdef Py_ssize_t height = level.sampling.height, i
    cdef Py_ssize_t first_row = height * group // level.parts, last_row = height * (group + 1) // level.parts
    cdef Work work
    cdef Rows rows
    if zero:
        rows = rows_of(
            &level.sampling, call.channels, call.channels_last, image, block * call.pitch, call.pitch,
            first_row, last_row,
        )
        zero_rows(level.gradient + rows.at, &rows)
    for i in range(
        visits_before(call.visits, call.count, number, image),
        visits_before(call.visits, call.count, number, image + 1),
    ):
        work = work_on(call, call.planned + i, block, thread)
        work.first, work.last = first_row * level.y_stride, last_row * level.y_stride
        if call.summed:
            share_roi(&work, True)
        else:
            share_roi(&work, False)


cdef int carry_out_max(
    Level* levels, Py_ssize_t level_count, const Py_ssize_t* level_of_box, Py_ssize_t images,
    const double[:, ::1] boxes, real* output, const real* grad_output, const Py_ssize_t* output_shape,
    bint channels_last, bint onnx, int threads,
) except -1:
    """Forward if there is an output, backward if there is its gradient, on any number of levels.

    Forward, pieces are blocks of channels times runs of RoIs, and a piece owns its channels of the output of
    its RoIs. Backward, they are levels times images times blocks of channels times groups of rows, and own
    their channels of their rows. Each finds the winners of the bins that reach its rows anew: nothing is kept
    of forward, and no piece waits. A thread owns its scratch.
    """
    cdef MaxCall call
    cdef Py_ssize_t piece, first = 0
    cdef bint ready
    call.levels, call.level_count, call.level_of_box = levels, level_count, level_of_box
    call.output, call.grad_output, call.summed = output, grad_output, not onnx
    with nogil:
        ready = open_max_call(&call, images, output_shape, channels_last, threads)
        while ready and first < call.rois:
            plan_max_rois(&call, &boxes[0, 0], first)
            for piece in prange(
                call.pieces, num_threads=call.threads, schedule="dynamic", use_threads_if=call.threads > 1
            ):
                if grad_output == NULL:
                    pool_piece(&call, piece, threadid())
                else:
                    share_piece(&call, piece, first == 0, threadid())
            first += call.count
        close_max_call(&call)
    if not ready:
        raise MemoryError("no memory for the tables of RoIAlign")
    return 0


def roi_align_max(
    const real[:, :, :, ::1] input, const double[:, ::1] boxes, real[:, :, :, ::1] output,
    double spatial_scale, int sampling_ratio, bint aligned, bint single, bint channels_last, bint onnx,
    int threads,
):
    """Fill output (K, C, PH, PW) from input (N, C, H, W), or both with the channels last; none is empty."""
    cdef Level level
    set_level(
        &level, &input[0, 0, 0, 0], NULL, input.shape, output.shape,
        spatial_scale, sampling_ratio, aligned, single, channels_last,
    )
    carry_out_max(
        &level, 1, NULL, input.shape[0], boxes, &output[0, 0, 0, 0], NULL, output.shape, channels_last, onnx,
        threads,
    )


def roi_align_max_backward(
    const real[:, :, :, ::1] grad_output, const real[:, :, :, ::1] input, const double[:, ::1] boxes,
    real[:, :, :, ::1] grad_input, double spatial_scale, int sampling_ratio, bint aligned, bint single,
    bint channels_last, bint onnx, int threads,
):
    """Fill grad_input (N, C, H, W) from grad_output (K, C, PH, PW), or both with the channels last."""
    cdef Level level
    set_level(
        &level, &input[0, 0, 0, 0], &grad_input[0, 0, 0, 0], input.shape, grad_output.shape,
        spatial_scale, sampling_ratio, aligned, single, channels_last,
    )
    carry_out_max(
        &level, 1, NULL, input.shape[0], boxes, NULL, &grad_output[0, 0, 0, 0], grad_output.shape,
        channels_last, onnx, threads,
    )


def roi_align_max_levels(
    tuple inputs, const double[::1] spatial_scales, const Py_ssize_t[::1] levels,
    const double[:, ::1] boxes, real[:, :, :, ::1] output,
    int sampling_ratio, bint aligned, bint single, bint channels_last, bint onnx, int threads,
):
    """`roi_align_max` with the map and the scale that the level of each box says."""
    cdef Level* maps = open_levels(
        inputs, None, spatial_scales, output.shape, sampling_ratio, aligned, single, channels_last
    )
    try:
        carry_out_max(
            maps, len(inputs), &levels[0], inputs[0].shape[0], boxes, &output[0, 0, 0, 0], NULL, output.shape,
            channels_last, onnx, threads,
        )
    finally:
        free(maps)


def roi_align_max_levels_backward(
    const real[:, :, :, ::1] grad_output, tuple inputs, const double[::1] spatial_scales,
    const Py_ssize_t[::1] levels, const double[:, ::1] boxes, tuple grad_inputs,
    int sampling_ratio, bint aligned, bint single, bint channels_last, bint onnx, int threads,
):
    """`roi_align_max_backward` to all maps."""
    cdef Level* maps = open_levels(
        inputs, grad_inputs, spatial_scales, grad_output.shape, sampling_ratio, aligned, single, channels_last
    )
    try:
        carry_out_max(
            maps, len(inputs), &levels[0], inputs[0].shape[0], boxes, NULL, &grad_output[0, 0, 0, 0],
            grad_output.shape, channels_last, onnx, threads,
        )
    finally:
        free(maps)
