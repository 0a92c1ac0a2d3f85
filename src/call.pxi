# One call: its arrays, how its channels, rows and RoIs are shared out, and the scratch of its threads.
#
# Work is cut into pieces, for the threads and for the caches alike:
#
#     forward, planes    blocks of channels x parts of the RoIs
#     forward, pixels    blocks of channels x belts of rows x parts of the RoIs
#     backward           images x blocks of channels x belts of rows
#
# A block of a channels-first map is as many planes as there are lanes: what the RoIs of one neighbourhood
# read of them stays in the second-level cache. Pixels of a channels-last map are better left whole, since
# channels of many pixels, a power of two apart, would share a few sets of the cache. There belts and, in a
# belt, tiles of columns keep together what is near on the map.

cdef enum:
    PIECES = 8  # as many pieces a thread, where there is work enough, so that threads end together
    BELT = 8  # rows of a belt, and columns of a tile, forward: benchmarks/layouts.py
    BELT_REALS = 1 << 17  # numbers in a belt of a channels-last map, backward: benchmarks/layouts.py
    TURNS = 512  # RoIs that one sweep along a belt takes
    RUN = 1024  # numbers that all taps of a bin are summed for before the next numbers
    SLAB = 8  # rows that the x step of a channels-first map takes at once
    STRIPS = 4  # strips that the y step of its gradient takes at once
    SCRATCH = 1 << 17  # numbers in the scratch of a thread, about
    SERIAL_BINS = 4096  # fewer results than this gain nothing from threads: benchmarks/latency.py


cdef struct Turn:  # bins of a RoI that begin in a belt: [first_y, last_y), and those of x from `x` on
    const RoI* roi
    int first_y, last_y
    int x


cdef struct Call:
    const real* source  # forward: the map; backward: the gradient to the bins
    real* target  # forward: the bins; backward: the gradient to the map
    Py_ssize_t images, channels, rois
    bint channels_last
    int threads
    Py_ssize_t width, blocks  # channels in a block, and how many blocks
    Py_ssize_t belts, parts
    Py_ssize_t pitch  # forward, planes: room for columns; pixels: from pixel to pixel in the scratch
    Py_ssize_t slab
    real* scratch
    Py_ssize_t scratch_reals  # a thread
    void* memory  # of the scratch, before it is aligned
    Turn* turns
    Plan plan


cdef bint open_call(
    Call* call, const Py_ssize_t* map_shape, const Py_ssize_t* bins_shape, bint backward,
    double spatial_scale, int sampling_ratio, bint aligned, bint single, bint channels_last, int threads,
) noexcept nogil:
    """Share out the work and allocate; False where memory is short. Close the call in either case."""
    cdef Sampling* sampling = &call.plan.sampling
    cdef int y = 1 if channels_last else 2
    cdef Py_ssize_t wanted, blocks, bins, pixels, y_stride, x_stride
    sampling.height, sampling.width = map_shape[y], map_shape[y + 1]
    sampling.bins_y, sampling.bins_x = bins_shape[y], bins_shape[y + 1]
    sampling.ratio = max(sampling_ratio, 0)
    sampling.scale, sampling.aligned, sampling.single = spatial_scale, aligned, single
    call.images, call.rois = map_shape[0], bins_shape[0]
    call.channels = map_shape[3 if channels_last else 1]
    call.channels_last = channels_last
    bins = sampling.bins_y * sampling.bins_x
    if call.rois * call.channels * bins < SERIAL_BINS:
        threads = 1
    call.threads = threads
    wanted = PIECES * threads

    # The y step reads lines of pixels of the map, or backward of bins; the x step reads what it left.
    pixels = min(sampling.width, most_taps(sampling.bins_x, sampling.ratio, sampling.width))
    call.pitch, call.slab, call.belts = 0, 1, 1
    if channels_last:
        pixels = sampling.bins_x if backward else pixels
        blocks = wanted // (call.images * sampling.height if backward else call.rois) + 1
        call.width = pixel_block(call.channels, pixels, blocks)
        call.pitch = call.width
        call.scratch_reals = pixels * call.width
        y_stride = (sampling.bins_x if backward else sampling.width) * call.channels
        x_stride = call.width
    elif backward:
        call.width = LANES
        call.scratch_reals = sampling.bins_y * LANES * (sampling.bins_x + LANES + 2 * STRIPS * LANES)
        y_stride, x_stride = STRIPS * LANES, sampling.bins_y * LANES
    else:
        call.width = LANES
        call.pitch = min(
            sampling.width + 2 * LANES, most_taps(sampling.bins_x, sampling.ratio, sampling.width) * LANES
        )
        call.slab = max(1, min(SLAB, SCRATCH // ((call.pitch + sampling.bins_x) * LANES)))
        call.scratch_reals = (call.slab * (call.pitch + sampling.bins_x) + call.pitch + LANES) * LANES
        y_stride, x_stride = sampling.width, call.slab * LANES
    call.blocks = (call.channels + call.width - 1) // call.width
    wanted = (wanted + call.blocks - 1) // call.blocks
    if backward:
        call.parts = 1
        call.belts = (wanted + call.images - 1) // call.images
        if channels_last:
            call.belts = max(call.belts, sampling.height * sampling.width * call.width // BELT_REALS)
        call.belts = min(call.belts, sampling.height)
    else:
        if channels_last:
            call.belts = (sampling.height + BELT - 1) // BELT
        call.parts = min((wanted + call.belts - 1) // call.belts, call.rois)

    call.scratch_reals = (call.scratch_reals + 15) // 16 * 16
    call.memory = malloc(threads * call.scratch_reals * sizeof(real) + 64)
    call.scratch = <real*> ((<size_t> call.memory + 63) // 64 * 64)  # vectors that cross a line cost twice
    call.turns = <Turn*> malloc(threads * TURNS * sizeof(Turn))
    return open_plan(
        &call.plan, call.rois, backward, 1 if channels_last else LANES, y_stride, x_stride, threads
    ) and call.memory != NULL and call.turns != NULL


cdef void close_call(Call* call) noexcept nogil:
    free(call.memory)
    free(call.turns)
    close_plan(&call.plan)


cdef Py_ssize_t pixel_block(Py_ssize_t channels, Py_ssize_t pixels, Py_ssize_t blocks) noexcept nogil:
    """Channels in a block of a channels-last map: whole pixels if scratch has room, but at least `blocks`."""
    cdef Py_ssize_t width = min(channels // blocks, SCRATCH // pixels)
    if width < channels:
        width = min(channels, max(width // (4 * LANES), 1) * 4 * LANES)
    return width
