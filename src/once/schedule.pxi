# A call of any operator: its RoIs in the order of their visits, chunk by chunk, each chunk cut into
# pieces that suit both threads and caches:
#
#     forward, gradient to boxes    levels x blocks of channels x tiles of rows x parts of the RoIs
#     gradient to maps              levels x images x blocks of channels x tiles of rows

cdef enum:
    CHUNK_TAPS = 1 << 20  # room for taps in one chunk, about 16 MiB
    ROI_TAPS = 16  # what the rest of a RoI weighs, in taps


cdef int carry_out(Call* call) except -1:
    """Either direction of any operator, on any number of levels.

    A piece of forward owns its channels of its bins of the result. A piece of backward owns its channels of
    its rows of an image of a level: it zeroes them and adds RoI after RoI in the order of visits, so that
    there are no atomics, and the same bits for any threads. A piece of the gradient to boxes owns the sums of
    its channels of its RoIs. A thread owns its scratch and its draft.

    The loops stand here, in code that holds the GIL before and after, and not in functions without it: there
    Cython asks whether the GIL is held, which Python 3.11 cannot tell once there was a subinterpreter.
    """
    cdef Py_ssize_t i
    cdef bint ready
    cdef long long begin = 0, computed = 0
    with nogil:
        if call.settings.at_most:
            begin = wall_ns()
        ready = open_call(call)
        while ready and call.first < call.rois:
            begin_chunk(call)
            # Each iteration writes one RoI with its tables, and the draft of its thread.
            for i in prange(
                call.count, num_threads=call.threads, schedule="static", use_threads_if=call.threads > 1
            ):
                plan_roi(call, i, threadid())
            for i in prange(
                call.pieces, num_threads=call.threads, schedule="dynamic", use_threads_if=call.threads > 1
            ):
                work_on(call, i, threadid())
            if call.direction == BOXES_BACKWARD:
                # Each iteration writes one row of the gradient.
                for i in prange(
                    call.count, num_threads=call.threads, schedule="static", use_threads_if=call.threads > 1
                ):
                    add_channels(call, i)
            if call.settings.outside_bytes:
                # Each iteration writes bins of one RoI.
                for i in prange(
                    call.count, num_threads=call.threads, schedule="static", use_threads_if=call.threads > 1
                ):
                    fill_outside(call, call.planned + i)
            call.first += call.count
        if call.settings.at_most and ready:
            for i in range(call.threads):
                computed += call.scratch[i].computed
            note_call(call.threads, wall_ns() - begin, computed)
        free(call.memory)
    if not ready:
        raise MemoryError("no memory for the tables of the RoIs")
    return 0


cdef inline bint has_work(const Call* call) noexcept nogil:
    """Whether there is enough to do for more than one thread."""
    cdef const Settings* settings = &call.settings
    return call.rois * call.channels * settings.bins_y * settings.bins_x >= SERIAL_BINS


cdef bint open_call(Call* call) noexcept nogil:
    """Divide the work and allocate; False if memory is short."""
    cdef const Settings* settings = &call.settings
    cdef Py_ssize_t i
    call.height = call.map_width = 0
    for i in range(call.level_count):
        call.height = max(call.height, call.levels[i].height)
        call.map_width = max(call.map_width, call.levels[i].width)
    if call.map_channels == 1 and call.direction != BACKWARD:
        # A single channel lies in memory alike in either order, and is faster as a plane. Gradients are not
        # taken so, whose sums have another order there.
        call.settings.channels_last = False
    call.threads = settings.threads
    if not has_work(call):
        call.threads = 1
    elif settings.at_most and call.threads > 1:
        call.threads = threads_worth_having(call.threads)
    call.threads = threads_to_be_had(call.threads)
    shape_call(call)
    call.capacity = max(1, min(call.rois, CHUNK_TAPS // roi_weight(call)))
    if call.window == 0:
        call.window = call.capacity
    call.first = call.count = call.ordered = 0
    shape_sums(call)
    call.memory = malloc(place_call(call, NULL) + LINE_BYTES)
    if call.memory == NULL:
        return False
    place_call(call, <char*> call.memory + -<size_t> call.memory % LINE_BYTES)
    return True


cdef size_t place_call(Call* call, char* memory) noexcept nogil:
    """Place all that a call needs beside its arrays; the bytes it takes."""
    cdef Room room = room_at(memory)
    cdef RoI roi
    cdef Drafts drafts
    cdef Scratch scratch
    cdef size_t scratch_bytes = place_scratch(call, &scratch, NULL)
    cdef Py_ssize_t i
    cdef char* scratches
    call.table_bytes = place_roi(call, &roi, NULL)
    call.draft_bytes = place_drafts(call, &drafts, NULL)
    scratches = <char*> take(&room, call.threads, scratch_bytes)
    call.drafts = <char*> take(&room, call.threads, call.draft_bytes)
    call.scratch = <Scratch*> take(&room, call.threads, sizeof(Scratch))
    call.visits = <Visit*> take(&room, call.window, sizeof(Visit))
    call.planned = <RoI*> take(&room, call.capacity, sizeof(RoI))
    call.tables = <char*> take(&room, call.capacity, call.table_bytes)
    place_sums(call, &room)
    if memory != NULL:
        for i in range(call.threads):
            place_scratch(call, call.scratch + i, scratches + i * scratch_bytes)
            call.scratch[i].computed = 0
            place_drafts(call, &drafts, call.drafts + i * call.draft_bytes)
            memset(drafts.slot, 0, longest_axis(call) * sizeof(int))
    return room.used


cdef Py_ssize_t roi_weight(const Call* call) noexcept nogil:
    """What the tables of a RoI weigh, in taps."""
    cdef Py_ssize_t weight = call.taps_y + call.taps_x + ROI_TAPS
    return weight + 4 * call.channels if call.direction == BOXES_BACKWARD else weight


cdef size_t place_scratch(const Call* call, Scratch* scratch, char* memory) noexcept nogil:
    """Place the scratch of a thread, whose buffers start with lines of the cache; the bytes it takes."""
    cdef Room room = room_at(memory)
    cdef int i
    for i in range(BUFFERS):
        scratch.at[i] = <real*> take(&room, call.reals[i], call.table.real_bytes, LINE_BYTES)
    scratch.cursors = <Cursor*> take(&room, CURSORS if call.tiled else 0, sizeof(Cursor))
    return room.used + -room.used % LINE_BYTES


cdef void shape_sums(Call* call) noexcept nogil:
    """Sums of a packed or a narrower gradient: of the rows of a piece, in the scratch of its thread."""
    cdef Py_ssize_t i, rows
    cdef Level* level
    if call.direction != BACKWARD or not (call.table.narrow or call.packed):
        return
    for i in range(call.level_count):
        level = call.levels + i
        rows = up(level.height, level.row_tiles)
        call.reals[GRADIENT] = max(call.reals[GRADIENT], rows * level.width * call.width)
        if call.table.narrow:
            level.sums = NULL
    if call.capacity < call.rois and not call.packed:  # they outlast a piece
        call.reals[GRADIENT] = 0


cdef void place_sums(Call* call, Room* room) noexcept nogil:
    """Place the sums of narrower gradients, of whole maps, where they outlast a chunk."""
    cdef Py_ssize_t i
    cdef Level* level
    if not call.table.narrow or call.direction != BACKWARD or call.capacity >= call.rois:
        return
    for i in range(call.level_count):
        level = call.levels + i
        level.sums = <real*> take(
            room, call.images * call.map_channels * level.height * level.width, call.table.real_bytes
        )


cdef void begin_chunk(Call* call) noexcept nogil:
    """Put boxes in order, if those that were are done, and take as many RoIs as there is room for."""
    cdef Py_ssize_t ordered = min(call.window, call.rois - call.ordered)
    if call.first == 0 or call.first == call.ordered + ordered:
        call.ordered = call.first
        ordered = min(call.window, call.rois - call.first)
        order_visits(call, call.visits, call.first, ordered)
    call.count = min(call.capacity, call.ordered + ordered - call.first)


cdef const RoI* first_roi(const Call* call, const Level* level, Py_ssize_t image) noexcept nogil:
    """The first RoI of the chunk that is of an image of a level, or comes after these."""
    cdef const Visit* visits = call.visits + (call.first - call.ordered)
    cdef Py_ssize_t number = level - call.levels, low = 0, high = call.count, middle
    while low < high:
        middle = (low + high) // 2
        if visits[middle].level < number or visits[middle].level == number and visits[middle].image < image:
            low = middle + 1
        else:
            high = middle
    return call.planned + low


cdef void work_on(const Call* call, Py_ssize_t number, int thread) noexcept nogil:
    """Carry out one piece of a chunk."""
    cdef Piece piece
    cdef Scratch* scratch = call.scratch + thread
    cdef bint timed = call.settings.at_most and call.threads > 1
    cdef long long begin = thread_ns() if timed else 0
    locate(call, number, &piece)
    if call.direction == BACKWARD:
        locate_sums(call, &piece, scratch)
    call.table.work[call.direction][call.settings.pooling](call, &piece, scratch)
    if timed:
        scratch.computed += thread_ns() - begin


cdef void locate(const Call* call, Py_ssize_t number, Piece* piece) noexcept nogil:
    """Say what piece of the work has this number."""
    cdef const Level* level = call.levels
    cdef Py_ssize_t tile, block, count
    while number >= level.pieces:
        number -= level.pieces
        level += 1
    piece.level = level
    if call.direction == BACKWARD:
        tile, number = number % level.row_tiles, number // level.row_tiles
        block, piece.image = number % call.blocks, number // call.blocks
        piece.part = 0
        piece.rois = first_roi(call, level, piece.image)
        count = first_roi(call, level, piece.image + 1) - piece.rois
    else:
        piece.part, number = number % level.parts, number // level.parts
        tile, block = number % level.row_tiles, number // level.row_tiles
        piece.image = 0
        piece.rois = first_roi(call, level, 0)
        count = first_roi(call, level + 1, 0) - piece.rois
    piece.count = count
    piece.first = count * call.units * piece.part // level.parts
    piece.last = count * call.units * (piece.part + 1) // level.parts
    piece.channel = block * call.width
    piece.channels = min(call.width, call.channels - piece.channel)
    piece.first_row = level.height * tile // level.row_tiles
    piece.last_row = level.height * (tile + 1) // level.row_tiles


cdef void locate_sums(const Call* call, Piece* piece, const Scratch* scratch) noexcept nogil:
    """Set where the gradient to the rows of a piece is summed; start from zeros with the first RoIs."""
    cdef const Level* level = piece.level
    cdef Rows* rows = &piece.rows
    cdef size_t size = call.table.real_bytes
    cdef Py_ssize_t channels = call.map_channels, group = channels // call.channels
    cdef Py_ssize_t channel = piece.channel * group, n = piece.channels * group, i
    cdef Py_ssize_t pixels = (piece.last_row - piece.first_row) * level.width
    rows.channel, rows.first, rows.last = piece.channel, piece.first_row, piece.last_row
    if call.settings.channels_last:
        rows.at = (piece.image * level.height + piece.first_row) * level.width * channels + channel
        rows.count, rows.length, rows.pitch = pixels, n, channels
    else:
        rows.at = ((piece.image * channels + channel) * level.height + piece.first_row) * level.width
        rows.count, rows.length, rows.pitch = n, pixels, level.height * level.width
    piece.summed = piece.rows
    piece.ends = call.first + call.count == call.rois
    if call.packed:  # the kernel begins and ends them
        piece.sums = scratch.at[GRADIENT]
        return
    if level.sums == NULL:
        piece.summed.at, piece.summed.pitch = 0, rows.length
        piece.sums = scratch.at[GRADIENT]
    else:
        piece.sums = <real*> (<char*> level.sums + rows.at * size)
    if call.first == 0:
        for i in range(rows.count):
            memset(<char*> piece.sums + i * piece.summed.pitch * size, 0, rows.length * size)


cdef void add_channels(const Call* call, Py_ssize_t i) noexcept nogil:
    """The gradient to a box, from the sums of its channels."""
    cdef const RoI* roi = call.planned + i
    cdef double scale, total
    cdef Py_ssize_t corner, c
    for corner in range(4):
        scale = roi.level.scale_y if corner % 2 else roi.level.scale_x
        if call.settings.single:
            scale = <float> scale
        total = 0
        for c in range(call.channels):
            total += roi.to_corners[corner * call.channels + c]
        call.grad_boxes[4 * roi.row + corner] = scale * total


cdef void fill_outside(const Call* call, const RoI* roi) noexcept nogil:
    """Fill the bins whose sample lies outside the map: the lines of an axis that have no taps."""
    cdef const Settings* settings = &call.settings
    cdef Py_ssize_t bins = settings.bins_y * settings.bins_x, y, x, c
    cdef Py_ssize_t step = 1 if settings.channels_last else bins
    cdef size_t size = settings.outside_bytes
    cdef char* first = <char*> call.bins + roi.row * call.channels * bins * size
    cdef char* at
    cdef Py_ssize_t pixel = call.channels if settings.channels_last else 1
    cdef bint outside
    for y in range(settings.bins_y):
        outside = roi.y.indptr[y] == roi.y.indptr[y + 1]
        for x in range(settings.bins_x):
            if outside or roi.x.indptr[x] == roi.x.indptr[x + 1]:
                at = first + (y * settings.bins_x + x) * pixel * size
                for c in range(call.channels):
                    memcpy(at + c * step * size, settings.outside, size)
