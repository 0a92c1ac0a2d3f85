# One call: its arrays, how its channels and rows are shared out, and the scratch of its threads.

cdef enum:
    PIECES = 8  # as many pieces a thread, where there is work enough, so that threads end together
    PIXEL_CHANNELS = 256  # the widest block of a channels-last map: benchmarks/layouts.py
    SLAB = 8  # rows that the x step of a channels-first map takes at once
    SCRATCH = 1 << 17  # numbers in the scratch of a thread, about
    SERIAL_BINS = 4096  # fewer results than this gain nothing from threads: benchmarks/latency.py


cdef struct Call:
    const real* source  # forward: the map; backward: the gradient to the bins
    real* target  # forward: the bins; backward: the gradient to the map
    Py_ssize_t images, channels, rois
    bint channels_last
    int threads
    Py_ssize_t width, blocks  # channels in a block, and how many blocks
    Py_ssize_t parts  # of a block: forward, runs of RoIs; backward, groups of rows of one image
    Py_ssize_t pitch  # from row to row of a slab, or from pixel to pixel of a row
    Py_ssize_t slab
    real* scratch
    Py_ssize_t scratch_reals  # a thread
    Plan plan


cdef bint open_call(
    Call* call, const Py_ssize_t* map_shape, const Py_ssize_t* bins_shape, bint backward,
    double spatial_scale, int sampling_ratio, bint aligned, bint single, bint channels_last, int threads,
) noexcept nogil:
    """Share out the work and allocate; False where memory is short. Close the call in either case."""
    cdef Sampling* sampling = &call.plan.sampling
    cdef int y = 1 if channels_last else 2
    cdef Py_ssize_t wanted, line, row, pixels
    sampling.height, sampling.width = map_shape[y], map_shape[y + 1]
    sampling.bins_y, sampling.bins_x = bins_shape[y], bins_shape[y + 1]
    sampling.ratio = max(sampling_ratio, 0)
    sampling.scale, sampling.aligned, sampling.single = spatial_scale, aligned, single
    call.images, call.rois = map_shape[0], bins_shape[0]
    call.channels = map_shape[3 if channels_last else 1]
    call.channels_last = channels_last
    if call.rois * call.channels * sampling.bins_y * sampling.bins_x < SERIAL_BINS:
        threads = 1
    call.threads = threads
    wanted = PIECES * threads

    # The y step reads lines of pixels of the map, or backward of bins; the x step reads what it left.
    line = sampling.bins_x if backward else sampling.width
    if channels_last:
        pixels = line if backward else min(line, most_taps(sampling.bins_x, sampling.ratio, line))
        call.width = pixel_block(call.channels, pixels, 1 if backward else wanted // call.rois + 1)
        call.pitch = call.width
        call.slab = 1
        row = pixels * call.width
    else:
        call.width = LANES
        call.pitch = (line + 2 * LANES) * LANES
        row = call.pitch + (LANES if backward else sampling.bins_x + LANES) * LANES
        call.slab = max(1, min(SLAB, SCRATCH // row))
    call.blocks = (call.channels + call.width - 1) // call.width
    if backward:
        wanted = (wanted + call.images - 1) // call.images
        call.parts = max(1, min(sampling.height, (wanted + call.blocks - 1) // call.blocks))
    else:
        call.parts = max(1, min(call.rois, (wanted + call.blocks - 1) // call.blocks))
    call.scratch_reals = call.slab * row
    call.scratch = <real*> malloc(threads * call.scratch_reals * sizeof(real))
    return open_plan(
        &call.plan, call.rois, backward, 1 if channels_last else LANES,
        line * call.channels if channels_last else line, call.width, threads,
    ) and call.scratch != NULL


cdef void close_call(Call* call) noexcept nogil:
    free(call.scratch)
    close_plan(&call.plan)


cdef Py_ssize_t pixel_block(Py_ssize_t channels, Py_ssize_t pixels, Py_ssize_t blocks) noexcept nogil:
    """Channels in a block of a channels-last map: whole pixels if they are short, but at least `blocks`."""
    cdef Py_ssize_t width = channels if channels <= PIXEL_CHANNELS else PIXEL_CHANNELS // 2
    width = min(width, min(SCRATCH // pixels, channels // blocks))
    if width < channels:
        width = min(channels, max(width // (4 * LANES), 1) * 4 * LANES)
    return width
