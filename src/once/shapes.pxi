# What a kernel asks for: how wide its blocks of channels are, how its axes are laid out, how long its
# scratch.
#
# A block of a channels-first map is as many planes as there are lanes: what the RoIs of one neighbourhood
# read of them stays in the second-level cache. Pixels of a channels-last map are better left whole, since
# channels of many pixels, a power of two apart, would share a few sets of the cache. There row tiles and, in
# a tile, steps of columns keep together what is near on the map.

cdef enum:
    PIECES = 8  # pieces per thread, if there is enough work, so that threads end together
    PLANES = 4  # blocks of planes per thread that are enough, backward
    MOST_TILES = 1 << 10  # each looks at all RoIs, which must not cost more than pooling them
    TILE_REALS = 1 << 17  # numbers in a row tile of a channels-last map, backward: benchmarks/layouts.py
    HELD_BYTES = 1 << 19  # of a block of planes that is held as pixels: benchmarks/layouts.py
    COLUMNS = 64  # of a channels-first map that the y step of the gradient takes at once
    TILED_CHANNELS = 32  # pixels of fewer channels stay in the caches as they are: benchmarks/layouts.py
    ROW_BATCH = 8  # rows that the x step of a channels-first map takes at once
    SCRATCH = 1 << 17  # numbers in the scratch of a thread, about
    NON_TEMPORAL_BYTES = 1 << 23  # results of this size or more are non-temporal: ForwardSizeSuite
    LEAST_STAGED = 1 << 10  # bytes of a RoI in a block of planes: fewer are better written where they belong
    MOST_STAGED = 1 << 16
    SERIAL_BINS = 4096  # fewer results than this gain nothing from threads: benchmarks/latency.py
    MAX_PLANES = 4  # vectors of channels in a block of a maximum: benchmarks/modes.py
    MAX_CHANNELS = 256
    MAX_LINES = 8  # that a thread keeps at once, where there is room
    CORNER_CHANNELS = 256  # in a block of the gradient to boxes: benchmarks/layouts.py
    CORNER_SCRATCH = 1 << 18  # numbers that a thread pools at a time, about
    UNPOOL_CHANNELS = 64  # in a block of the gradient of roi_pool
    ROTATED_PLANES = 64  # channels in a block of a channels-first map: each finds the taps anew
    ROTATED_VECTORS = 4  # of its channels that are packed at once
    ROTATED_TILE_REALS = 1 << 20  # numbers in a row tile of a channels-last map
    PATCHES = 2200  # of samples that wait for their turn: each halving of two axes of doubles leaves one


cdef inline Py_ssize_t up(Py_ssize_t n, Py_ssize_t divisor) noexcept nogil:
    """n / divisor, rounded up."""
    return (n + divisor - 1) // divisor


cdef void shape_call(Call* call) noexcept nogil:
    """Everything but memory: what the kernel of a call asks for, and how its levels are cut."""
    cdef const Settings* settings = &call.settings
    cdef int pooling = settings.pooling
    cdef Py_ssize_t channels = call.map_channels if settings.channels_last else 1
    cdef Py_ssize_t i
    cdef Level* level
    if settings.depth:
        call.taps_y = most_rows(call)
    else:
        call.taps_y = room_for_taps(pooling, settings.bins_y, settings.ratio, call.height)
    call.taps_x = room_for_taps(pooling, settings.bins_x, settings.ratio, call.map_width)
    call.lines_y, call.lines_x = settings.bins_y, settings.bins_x
    call.window, call.units, call.batch, call.pitch, call.strip_width = call.rois, 1, 1, 0, 0
    call.transposed = call.tiled = call.non_temporal = call.staged = call.ragged = call.packed = False
    call.margin = 0
    memset(call.reals, 0, sizeof(call.reals))
    for i in range(call.level_count):
        level = call.levels + i
        level.y_stride = level.width * channels  # the y step reads rows of the map
        level.sums = <real*> level.gradient
        level.row_tiles = level.parts = 1
    if call.direction == BOXES_BACKWARD:
        shape_box_gradient(call)
    elif has_candidates(pooling):
        shape_maximum(call)
    elif pooling == ROI_POOL:
        shape_roi_pool(call)
    elif pooling == PS_ROI_ALIGN or pooling == PS_ROI_POOL:
        shape_position_sensitive(call)
    elif pooling == ROI_ALIGN_ROTATED:
        shape_rotated(call)
    else:
        shape_mean(call)
    call.pieces = 0
    for i in range(call.level_count):
        level = call.levels + i
        level.pieces = call.blocks * level.row_tiles * level.parts
        if call.direction == BACKWARD:
            level.pieces *= call.images
        call.pieces += level.pieces


cdef void cut_into_blocks(Call* call, Py_ssize_t width) noexcept nogil:
    call.width = width
    call.blocks = up(call.channels, width)


cdef void cover_with_strips(Call* call) noexcept nogil:
    """Strips of one pixel of a channels-last map, of a vector of them of a channels-first one."""
    call.strip_width = 1 if call.settings.channels_last else call.table.lanes
    call.strips = min(call.taps_x, call.map_width // call.strip_width + 1)


cdef void shape_mean(Call* call) noexcept nogil:
    cdef const Settings* settings = &call.settings
    cdef bint backward = call.direction == BACKWARD
    cdef Py_ssize_t lanes = call.table.lanes, bins_y = settings.bins_y, bins_x = settings.bins_x
    cdef Py_ssize_t area = bins_y * bins_x, wanted = PIECES * call.threads, pixels, i
    cdef Py_ssize_t bytes = call.table.pooled_bytes, row = 0
    cdef bint narrow = call.table.narrow
    cdef Level* level
    cover_with_strips(call)
    call.sparse = is_crop(settings.pooling)
    if not settings.channels_last:
        # Two vectors of channels share what a RoI costs, where a map of so many stays in the cache.
        cut_into_blocks(call, lanes if call.channels <= lanes else 2 * lanes)
        row = call.map_width * call.width
        if call.height * row > HELD_BYTES // call.table.real_bytes:
            cut_into_blocks(call, lanes)
            row = call.map_width * lanes
    # Gradients are summed chunk by chunk, so the number of RoIs in a chunk must not depend on the lanes.
    call.window = 0
    call.non_temporal = not backward and call.rois * call.channels * area >= NON_TEMPORAL_BYTES // bytes
    if settings.channels_last:
        pixels = bins_x if backward else min(call.taps_x, call.map_width)
        cut_into_blocks(call, pixel_block(
            call, pixels, wanted // (call.images * call.height if backward else call.rois) + 1
        ))
        call.tiled = not backward and call.width >= TILED_CHANNELS
        call.staged = not backward and (narrow or call.non_temporal)
        call.pitch = call.x_stride = call.width
        call.ragged = call.blocks == 1 and call.width % lanes != 0
        call.reals[LINES] = pixels * call.width + lanes
        pixels = call.strips if backward else bins_x
        call.reals[STAGED] = (pixels if call.ragged else 1) * call.width + lanes
    elif backward:
        call.packed = True
        call.strip_width = 1
        call.strips = min(call.taps_x, call.map_width + 1)
        call.pitch = min(call.strips, <Py_ssize_t> COLUMNS) * call.width
        call.x_stride = call.width
        call.reals[BINS] = area * call.width
        call.reals[LINES] = bins_y * call.pitch
    else:
        call.packed = True
        pixels = min(call.map_width + 2 * lanes, call.taps_x * lanes)
        call.batch = max(1, min(<Py_ssize_t> ROW_BATCH, SCRATCH // ((pixels + bins_x) * call.width)))
        call.x_stride = call.batch * call.width
        call.reals[LINES] = max(
            pixels * lanes, call.taps_y * <Py_ssize_t> sizeof(Py_ssize_t) // call.table.real_bytes
        )
        call.reals[PIXELS] = pixels * call.x_stride
        call.reals[BINS] = call.batch * bins_x * call.width
        if call.non_temporal:
            call.staged = LEAST_STAGED <= call.width * area * bytes <= MOST_STAGED
            call.reals[STAGED] = call.width * area + lanes
        if call.rois >= PACKED_READS:  # of each level that this has room for
            call.reals[HELD] = min(call.height * row, HELD_BYTES // call.table.real_bytes)
    if backward:
        call.transposed = True
        call.lines_y, call.lines_x = call.taps_y, call.strips
        for i in range(call.level_count):  # the y step reads lines of bins
            if settings.channels_last:
                call.levels[i].y_stride = bins_x * call.channels
            else:
                call.levels[i].y_stride = call.pitch

    # So that a block of channels makes about as many pieces as wanted.
    wanted = up(wanted, call.blocks)
    for i in range(call.level_count):
        level = call.levels + i
        if backward:
            # Part of a RoI in several tiles is spread for each anew. Blocks of planes weigh the same: where
            # there are enough for threads to end together, they are not cut: benchmarks/threads.py
            if settings.channels_last or call.blocks < PLANES * call.threads:
                level.row_tiles = up(wanted, call.images)
            if settings.channels_last or call.packed:
                level.row_tiles = max(level.row_tiles, min(
                    <Py_ssize_t> MOST_TILES, level.height * level.width * call.width // TILE_REALS
                ))
            level.row_tiles = min(level.row_tiles, level.height)
        else:
            if call.tiled:
                # Bins of a volume begin with their slice: see `find_rows`.
                level.row_tiles = min(
                    <Py_ssize_t> MOST_TILES, settings.depth if settings.depth else up(level.height, ROW_TILE)
                )
            level.parts = min(up(wanted, level.row_tiles), call.rois)


cdef Py_ssize_t pixel_block(const Call* call, Py_ssize_t pixels, Py_ssize_t blocks) noexcept nogil:
    """Channels in a block of a channels-last map: whole pixels if scratch has room, but at least `blocks`."""
    cdef Py_ssize_t channels = call.channels, lanes = call.table.lanes
    cdef Py_ssize_t width = min(channels // blocks, SCRATCH // pixels)
    if width < channels:
        width = min(channels, max(width // (4 * lanes), 1) * 4 * lanes)
    return width


cdef void shape_maximum(Call* call) noexcept nogil:
    cdef bint backward = call.direction == BACKWARD
    cdef Py_ssize_t lanes = call.table.lanes, images = call.images if backward else 1, i
    # Parts of RoIs cost nothing. Tiles of rows do, since bins that reach several are computed for each.
    cdef Py_ssize_t wanted = PIECES * call.threads if call.threads > 1 else 1
    cdef Py_ssize_t blocks = up(call.threads, images) if backward else up(wanted, call.rois)
    cdef Py_ssize_t width = MAX_CHANNELS if call.settings.channels_last else MAX_PLANES * lanes
    cdef Py_ssize_t line
    cdef Level* level
    cover_with_strips(call)
    call.window = 0
    width = min(min(call.channels, width), max(call.channels // blocks // (4 * lanes), 1) * 4 * lanes)
    cut_into_blocks(call, up(width, lanes) * lanes)
    call.pitch = call.x_stride = call.width
    line = call.strips * call.strip_width * call.width
    call.batch = max(1, min(<Py_ssize_t> MAX_LINES, SCRATCH // line))
    call.reals[LINES] = call.batch * line
    call.reals[GRAD_LINE] = line if backward else 0
    call.reals[BINS] = (call.settings.bins_x + lanes) * call.width
    call.reals[GRAD_BINS] = call.reals[BINS] if backward else 0
    wanted = up(wanted, call.blocks * images)
    for i in range(call.level_count):
        level = call.levels + i
        if backward:
            level.row_tiles = max(1, min(wanted, level.height // ROW_GROUP))
        else:
            level.parts = min(wanted, call.rois)


cdef void shape_box_gradient(Call* call) noexcept nogil:
    cdef bint channels_last = call.settings.channels_last
    cdef Py_ssize_t lanes = call.table.lanes, width = lanes
    cdef Py_ssize_t wanted = PIECES * call.threads if call.threads > 1 else 1
    cover_with_strips(call)
    if channels_last:
        width = min(
            min(<Py_ssize_t> CORNER_CHANNELS, CORNER_SCRATCH // (3 * call.strips)),
            call.channels // (wanted // call.rois + 1),
        )
        width = max(1, up(width, lanes)) * lanes
    cut_into_blocks(call, width)
    call.x_stride = 3 * width
    call.reals[LINES] = 3 * call.strips * call.strip_width * width
    call.reals[BINS] = 0 if channels_last else (call.settings.bins_x + lanes) * lanes
    call.levels.parts = min(call.rois, up(wanted, call.blocks))


cdef void shape_roi_pool(Call* call) noexcept nogil:
    """Bins are ranges of pixels, which have no strides."""
    cdef bint backward = call.direction == BACKWARD, channels_last = call.settings.channels_last
    cdef Py_ssize_t width = call.table.lanes
    if channels_last:
        width = min(call.channels, <Py_ssize_t> UNPOOL_CHANNELS) if backward else call.channels
    cut_into_blocks(call, width)
    call.levels.y_stride = call.x_stride = 1
    cut_lines(call)


cdef void shape_position_sensitive(Call* call) noexcept nogil:
    cdef bint channels_last = call.settings.channels_last
    cut_into_blocks(call, call.channels if channels_last else call.table.lanes)
    call.x_stride = call.map_channels if channels_last else 1
    # torchvision's PSRoIPool leaves the last row and column out of the means, but not out of their gradient.
    call.margin = call.settings.pooling == PS_ROI_POOL and call.direction == FORWARD
    cut_lines(call)


cdef void shape_rotated(Call* call) noexcept nogil:
    """A box has no axes and so no taps: those of its bins are found where they are used."""
    cdef bint backward = call.direction == BACKWARD, channels_last = call.settings.channels_last
    cdef Py_ssize_t lanes = call.table.lanes, bytes = call.table.real_bytes
    cdef Py_ssize_t vectors = min(<Py_ssize_t> ROTATED_VECTORS, up(call.channels, lanes)), tile
    cdef Level* level = call.levels
    call.taps_y = call.taps_x = call.lines_y = call.lines_x = 0
    call.window = 0
    call.packed = backward and not channels_last
    call.pitch = vectors * lanes
    if channels_last:
        cut_into_blocks(call, call.channels)
    else:
        cut_into_blocks(call, call.pitch if backward else min(call.channels, <Py_ssize_t> ROTATED_PLANES))
        call.reals[STRETCHES] = TAPS_OF_BINS * sizeof(Stretch) // bytes
        call.reals[PIXELS] = 0 if backward else TAPS_OF_BINS * call.pitch
        call.reals[BINS] = LINES_OF_BINS * call.pitch
    call.reals[PATCHED] = PATCHES * sizeof(Patch) // bytes
    call.reals[CELLS] = PATCH_SIDE * PATCH_SIDE * sizeof(double) // bytes
    call.reals[TAPS] = TAPS_OF_BINS * sizeof(Py_ssize_t) // bytes
    call.reals[WEIGHTS] = TAPS_OF_BINS
    cut_lines(call)
    # What RoIs of one neighbourhood read stays in the caches, if a map is taken some rows at a time.
    if channels_last or backward:
        tile = TILE_REALS if call.packed else ROTATED_TILE_REALS
        level.row_tiles = max(level.row_tiles, min(
            min(<Py_ssize_t> MOST_TILES, level.height), level.height * level.width * call.width // tile
        ))
        level.parts = up(level.parts, level.row_tiles) if not backward else 1


cdef void cut_lines(Call* call) noexcept nogil:
    """Cut a map into tiles of rows, or the bins of all RoIs into parts of some lines each."""
    cdef bint backward = call.direction == BACKWARD
    cdef Py_ssize_t wanted = up(PIECES * call.threads, call.blocks * (call.images if backward else 1))
    cdef Level* level = call.levels
    if backward:
        level.row_tiles = min(wanted, level.height)
    else:
        call.units = call.settings.bins_y
        level.parts = min(wanted, call.rois * call.units)
