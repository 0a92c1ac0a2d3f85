# One call: its arrays, how its channels, rows and RoIs are shared out, and the scratch of its threads.
#
# A call pools from one map, or from several: the levels of a pyramid, each RoI from its own. Work on each is
# cut into pieces, for the threads and for the caches alike:
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
    PLANES = 4  # blocks of planes a thread that are enough, backward
    BELT = 8  # rows of a belt and columns of a tile, forward: benchmarks/layouts.py
    MOST_BELTS = 1 << 10  # each looks at all RoIs, which must not cost more than pooling them
    BELT_REALS = 1 << 17  # numbers in a belt of a channels-last map, backward: benchmarks/layouts.py
    TURNS = 512  # RoIs that one sweep along a belt takes
    RUN = 1024  # numbers that all taps of a bin are summed for before the next numbers
    SLAB = 8  # rows that the x step of a channels-first map takes at once
    STRIPS = 4  # strips that the y step of its gradient takes at once
    SCRATCH = 1 << 17  # numbers in the scratch of a thread, about
    STREAM_BYTES = 1 << 23  # results from so many on are written past the caches: ForwardSizeSuite
    LEAST_ASIDE = 1 << 11  # bytes of a RoI in a block of planes: fewer are better written where they belong
    MOST_ASIDE = 1 << 16
    SERIAL_BINS = 4096  # fewer results than this gain nothing from threads: benchmarks/latency.py


cdef struct Turn:  # bins of a RoI that begin in a belt: [first_y, last_y), and those of x from `x` on
    const RoI* roi
    int first_y, last_y
    int x


cdef struct Rows:  # some rows of one image of a gradient, and a block of their channels
    Py_ssize_t channel, first, last  # rows [first, last)
    Py_ssize_t at, count, length, pitch  # where they begin; stretches of numbers, `pitch` apart


cdef struct Call:
    pooled* output  # forward: the bins of all RoIs; backward: the gradient to them, only read
    Py_ssize_t images, channels, rois
    bint channels_last
    int threads
    Py_ssize_t width, blocks  # channels in a block, and how many blocks
    Py_ssize_t pieces  # of all levels
    Py_ssize_t pitch  # forward, planes: room for columns; pixels: from pixel to pixel in the scratch
    Py_ssize_t slab
    bint past_caches  # forward: results are written past the caches
    bint aside  # they, or narrow ones, are summed in scratch before they are written
    real* scratch
    Py_ssize_t scratch_reals  # a thread
    void* memory  # of the scratch, before it is aligned
    real* sums  # backward, where gradients are narrower: of the rows of each thread, or of all levels
    Py_ssize_t sums_reals  # a thread
    Turn* turns
    Plan plan


cdef inline void set_level(
    Level* level, const pixel* map, pooled* gradient,
    const Py_ssize_t* map_shape, const Py_ssize_t* bins_shape,
    double spatial_scale, int sampling_ratio, bint aligned, bint single, bint channels_last,
) noexcept nogil:
    """Note a map, or its gradient, and how it is sampled; `open_call` adds how the work is shared out."""
    level.map, level.gradient = map, gradient
    set_sampling(
        &level.sampling, map_shape, bins_shape, spatial_scale, sampling_ratio, aligned, single, channels_last
    )


cdef bint open_call(
    Call* call, Level* levels, Py_ssize_t level_count, const Py_ssize_t* level_of_box, Py_ssize_t images,
    const pooled* output, const Py_ssize_t* output_shape, bint backward, bint channels_last, int threads,
) noexcept nogil:
    """Share out the work and allocate; False where memory is short. Close the call in either case."""
    cdef Plan* plan = &call.plan
    cdef Py_ssize_t area, results, wanted, blocks, pixels, x_stride, i
    cdef Level* level
    plan.levels, plan.level_count, plan.level_of_box = levels, level_count, level_of_box
    plan.bins_y, plan.bins_x = levels.sampling.bins_y, levels.sampling.bins_x
    plan.height, plan.width = 0, 0
    for i in range(level_count):
        plan.height = max(plan.height, levels[i].sampling.height)
        plan.width = max(plan.width, levels[i].sampling.width)
    call.output = <pooled*> output
    call.images, call.rois = images, output_shape[0]
    call.channels = output_shape[3 if channels_last else 1]
    call.channels_last = channels_last
    area = plan.bins_y * plan.bins_x
    results = call.rois * call.channels * area
    call.past_caches = not backward and results >= STREAM_BYTES // <Py_ssize_t> sizeof(pooled)
    call.aside = False
    if results < SERIAL_BINS:
        threads = 1
    call.threads = threads
    wanted = PIECES * threads

    # The x step reads what the y step left. Scratch is for the widest map.
    pixels = most_taps(plan.bins_x, levels.sampling.ratio, plan.width)
    call.pitch, call.slab = 0, 1
    if channels_last:
        pixels = plan.bins_x if backward else min(pixels, plan.width)
        blocks = wanted // (call.images * plan.height if backward else call.rois) + 1
        call.width = pixel_block(call.channels, pixels, blocks)
        call.pitch = call.width
        call.aside = NARROW or call.past_caches
        call.scratch_reals = (pixels + 1) * call.width
        x_stride = call.width
    elif backward:
        call.width = LANES
        call.scratch_reals = plan.bins_y * LANES * (plan.bins_x + STRIPS * LANES)
        x_stride = 1
    else:
        call.width = LANES
        call.pitch = min(plan.width + 2 * LANES, pixels * LANES)
        call.slab = max(1, min(SLAB, SCRATCH // ((call.pitch + plan.bins_x) * LANES)))
        call.scratch_reals = (call.slab * (call.pitch + plan.bins_x) + call.pitch + LANES) * LANES
        if call.past_caches:
            call.aside = LEAST_ASIDE <= LANES * area * <Py_ssize_t> sizeof(pooled) <= MOST_ASIDE
            call.scratch_reals += LANES * area + LANES
        x_stride = call.slab * LANES
    call.blocks = (call.channels + call.width - 1) // call.width
    wanted = (wanted + call.blocks - 1) // call.blocks
    call.pieces = 0
    for i in range(level_count):
        level = levels + i
        level.sums = <real*> level.gradient
        share_out(call, level, wanted, backward)
        call.pieces += level.pieces
        # The y step reads lines of pixels of the map, or backward of bins.
        if channels_last:
            level.y_stride = (plan.bins_x if backward else level.sampling.width) * call.channels
        else:
            level.y_stride = STRIPS * LANES if backward else level.sampling.width

    call.scratch_reals = (call.scratch_reals + 15) // 16 * 16
    call.memory = malloc(threads * call.scratch_reals * sizeof(real) + 64)
    call.scratch = <real*> ((<size_t> call.memory + 63) // 64 * 64)  # vectors that cross a line cost twice
    call.turns = <Turn*> malloc(threads * TURNS * sizeof(Turn))
    call.sums = NULL
    return open_plan(
        plan, call.rois, backward, 1 if channels_last else LANES, x_stride, threads
    ) and call.memory != NULL and call.turns != NULL and (not NARROW or not backward or open_sums(call))


cdef bint open_sums(Call* call) noexcept nogil:
    """Room for sums that are rounded to a gradient in the end: of a piece, if one plan has all RoIs."""
    cdef const Plan* plan = &call.plan
    cdef bint whole = plan.capacity < call.rois
    cdef Py_ssize_t i, rows = 0, pixels = 0
    cdef Level* level
    for i in range(plan.level_count):
        level = plan.levels + i
        rows = max(
            rows, (level.sampling.height + level.belts - 1) // level.belts * level.sampling.width
        )
        pixels += level.sampling.height * level.sampling.width
    call.sums_reals = rows * min(call.width, call.channels)
    pixels *= call.images * call.channels
    call.sums = <real*> malloc((pixels if whole else call.threads * call.sums_reals) * sizeof(real))
    pixels = 0
    for i in range(plan.level_count):
        level = plan.levels + i
        level.sums = call.sums + pixels if whole else NULL
        pixels += call.images * call.channels * level.sampling.height * level.sampling.width
    return call.sums != NULL


cdef void share_out(const Call* call, Level* level, Py_ssize_t wanted, bint backward) noexcept nogil:
    """Cut the work on a level, so that a block of channels makes about as many pieces as wanted."""
    cdef Py_ssize_t height = level.sampling.height
    level.belts, level.parts = 1, 1
    if backward:
        # Part of a RoI in several belts is spread for each anew. Blocks of planes weigh the same: where there
        # are enough for threads to end together, they are not cut: benchmarks/threads.py
        if call.channels_last or call.blocks < PLANES * call.threads:
            level.belts = (wanted + call.images - 1) // call.images
        if call.channels_last or NARROW:
            level.belts = max(
                level.belts, min(MOST_BELTS, height * level.sampling.width * call.width // BELT_REALS)
            )
        level.belts = min(level.belts, height)
        level.pieces = call.images * call.blocks * level.belts
    else:
        if call.channels_last:
            level.belts = min(MOST_BELTS, (height + BELT - 1) // BELT)
        level.parts = min((wanted + level.belts - 1) // level.belts, call.rois)
        level.pieces = call.blocks * level.belts * level.parts


cdef inline const Level* find_level(const Level* level, Py_ssize_t* piece) noexcept nogil:
    """The level, of those from the first on, of a piece, whose number becomes that among its pieces."""
    while piece[0] >= level.pieces:
        piece[0] -= level.pieces
        level += 1
    return level


cdef inline Rows rows_of(
    const Sampling* shape, Py_ssize_t channels, bint channels_last,
    Py_ssize_t image, Py_ssize_t channel, Py_ssize_t width, Py_ssize_t first, Py_ssize_t last,
) noexcept nogil:
    """Rows of one image of a map, up to `width` channels of them, as they lie in the map."""
    cdef Rows rows
    cdef Py_ssize_t n = min(width, channels - channel), pixels = (last - first) * shape.width
    rows.channel, rows.first, rows.last = channel, first, last
    if channels_last:
        rows.at = (image * shape.height + first) * shape.width * channels + channel
        rows.count, rows.length, rows.pitch = pixels, n, channels
    else:
        rows.at = ((image * channels + channel) * shape.height + first) * shape.width
        rows.count, rows.length, rows.pitch = n, pixels, shape.height * shape.width
    return rows


cdef void zero_rows(real* target, const Rows* rows) noexcept nogil:
    """Zero rows that begin at `target`."""
    cdef Py_ssize_t i
    for i in range(rows.count):
        memset(target + i * rows.pitch, 0, rows.length * sizeof(real))


cdef void close_call(Call* call) noexcept nogil:
    free(call.memory)
    free(call.sums)
    free(call.turns)
    close_plan(&call.plan)


cdef Py_ssize_t pixel_block(Py_ssize_t channels, Py_ssize_t pixels, Py_ssize_t blocks) noexcept nogil:
    """Channels in a block of a channels-last map: whole pixels if scratch has room, but at least `blocks`."""
    cdef Py_ssize_t width = min(channels // blocks, SCRATCH // pixels)
    if width < channels:
        width = min(channels, max(width // (4 * LANES), 1) * 4 * LANES)
    return width
