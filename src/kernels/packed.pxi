# Planes as pixels: a block of planes of a channels-first array, turned into pixels of as many channels, and
# back. A block is one vector or several; the channels of planes that are missing in the last one are 0.


cdef inline void pack_tile(
    real* target, Py_ssize_t pitch, const number* source, Py_ssize_t plane, Py_ssize_t planes, Py_ssize_t n
) noexcept nogil:
    """Turn n numbers of each of some planes, up to LANES; both are constants for whole tiles."""
    cdef lanes tile[LANES]
    cdef Py_ssize_t i
    for i in range(planes):
        tile[i] = load_first_numbers[number](source + i * plane, n)
    for i in range(planes, LANES):
        tile[i] = zeros()
    transpose(tile)
    for i in range(n):
        store(target + i * pitch, tile[i])


cdef void pack(
    real* target, Py_ssize_t pitch, const number* source, Py_ssize_t plane, Py_ssize_t planes, Py_ssize_t n
) noexcept nogil:
    """Turn n numbers of each of some planes into n pixels of `pitch` channels.

    The last tile starts earlier rather than be cut, where n is that large.
    """
    cdef Py_ssize_t columns = min(n, <Py_ssize_t> LANES), i = 0, at, c, some
    cdef real* place
    cdef const number* tile
    while i < n:
        at = min(i, n - columns)
        c = 0
        while c < pitch:
            some = max(0, min(planes - c, <Py_ssize_t> LANES))
            place, tile = target + at * pitch + c, source + c * plane + at
            if some == LANES and columns == LANES:
                pack_tile[number](place, pitch, tile, plane, LANES, LANES)
            else:
                pack_tile[number](place, pitch, tile, plane, some, columns)
            c += LANES
        i += LANES


cdef inline void unpack_tile(
    number* target, Py_ssize_t plane, Py_ssize_t planes, const real* source, Py_ssize_t pitch, Py_ssize_t n
) noexcept nogil:
    cdef lanes tile[LANES]
    cdef Py_ssize_t i
    for i in range(n):
        tile[i] = load(source + i * pitch)
    for i in range(n, LANES):
        tile[i] = zeros()
    transpose(tile)
    for i in range(planes):
        store_first_numbers[number](target + i * plane, tile[i], n)


cdef void unpack(
    number* target, Py_ssize_t plane, Py_ssize_t planes, const real* source, Py_ssize_t pitch, Py_ssize_t n
) noexcept nogil:
    """Turn n pixels of `pitch` channels into n numbers of each of some planes, in tiles as `pack` does."""
    cdef Py_ssize_t columns = min(n, <Py_ssize_t> LANES), i = 0, at, c, some
    cdef number* place
    cdef const real* tile
    while i < n:
        at = min(i, n - columns)
        c = 0
        while c < planes:
            some = min(planes - c, <Py_ssize_t> LANES)
            place, tile = target + c * plane + at, source + at * pitch + c
            if some == LANES and columns == LANES:
                unpack_tile[number](place, plane, LANES, tile, pitch, LANES)
            else:
                unpack_tile[number](place, plane, some, tile, pitch, columns)
            c += LANES
        i += LANES


cdef struct Window:  # rows [top, bottom) of a map, and some columns from `left` on
    Py_ssize_t top, bottom, left, columns


cdef Window window_of(const Call* call, const Piece* piece) noexcept nogil:
    """All that the RoIs of a piece reach of its rows; as many columns as whole vectors have, where there are.

    All of its rows, if what the chunks before have left is still to be rounded.
    """
    cdef Py_ssize_t width = piece.level.width, right = 0, i
    cdef bint whole = NARROW and not (piece.ends and call.first == 0)
    cdef Window window
    cdef const RoI* roi
    cdef const Run* last
    window.top, window.bottom, window.left, window.columns = piece.first_row, piece.last_row, 0, width
    if whole:
        return window
    window.top, window.bottom, window.left = piece.last_row, piece.first_row, width
    for i in range(piece.count):
        roi = piece.rois + i
        if roi.runs and roi.top < piece.last_row and piece.first_row < roi.bottom:
            last = roi.run + roi.runs - 1
            window.top, window.bottom = min(window.top, roi.top), max(window.bottom, roi.bottom)
            window.left, right = min(window.left, roi.run.column), max(right, last.column + last.strips)
    if right == 0:
        window.top = window.bottom
    window.top, window.bottom = max(window.top, piece.first_row), min(window.bottom, piece.last_row)
    window.columns = min(width, (max(right - window.left, 0) + LANES - 1) // LANES * LANES)
    window.left = min(window.left, width - window.columns)
    return window


cdef void take_planes(const Call* call, const Piece* piece, const Window* window) noexcept nogil:
    """Begin the sums of a window with zeros, or with what the chunks before have left."""
    cdef Py_ssize_t width = piece.level.width, height = window.bottom - window.top, y
    cdef Py_ssize_t row = window.columns * call.width
    cdef const real* source = piece.level.sums
    if call.first == 0:
        memset(piece.sums, 0, height * row * sizeof(real))
        return
    source += piece.rows.at + (window.top - piece.first_row) * width + window.left
    for y in range(height):
        pack[real](
            piece.sums + y * row, call.width, source + y * width, piece.rows.pitch, piece.rows.count,
            window.columns,
        )


cdef void give_planes(const Call* call, const Piece* piece, const Window* window) noexcept nogil:
    """Write the sums of a window to the gradient or, if RoIs are to follow, to where that is summed."""
    if piece.ends:
        give_window[pooled](piece.level.gradient + piece.rows.at, call, piece, window)
    else:
        give_window[real](piece.level.sums + piece.rows.at, call, piece, window)


cdef void give_window(
    number* target, const Call* call, const Piece* piece, const Window* window
) noexcept nogil:
    """Write the sums of a window to its place in rows of planes and, in the first chunk, zeros around it."""
    cdef const Rows* rows = &piece.rows
    cdef Py_ssize_t width = piece.level.width, columns = window.columns, y, c
    cdef Py_ssize_t height = window.bottom - window.top
    cdef Py_ssize_t first = (window.top - piece.first_row) * width + window.left, at
    for c in range(rows.count if call.first == 0 else 0):
        at = 0
        for y in range(height):
            memset(target + c * rows.pitch + at, 0, (first + y * width - at) * sizeof(number))
            at = first + y * width + columns
        memset(target + c * rows.pitch + at, 0, (rows.length - at) * sizeof(number))
    if columns == width:
        height, columns = 1, height * width
    for y in range(height):
        unpack[number](
            target + first + y * width, rows.pitch, rows.count, piece.sums + y * columns * call.width,
            call.width, columns,
        )


cdef struct Held:  # the first rows of an image, a block of planes of it as pixels
    bint worth_it
    Py_ssize_t image, rows
    real* pixels
    Axis y  # of a RoI, its rows where they are held


cdef void hold_nothing(
    Held* held, const Call* call, const Piece* piece, const Scratch* scratch
) noexcept nogil:
    """Begin a piece, and see whether there is room for an image and its RoIs read its rows often enough."""
    cdef Py_ssize_t image = -1, last = 0, read = 0, rows = 0, i
    cdef const RoI* roi
    held.image, held.pixels, held.y.index = -1, scratch.at[HELD], <Py_ssize_t*> scratch.at[LINES]
    for i in range(piece.first, piece.last):
        roi = piece.rois + i
        if roi.image != image:
            image, last = roi.image, 0
        rows += max(roi.bottom - last, 0)
        last = max(last, roi.bottom)
        read += (roi.bottom - roi.top) * roi.strips
    held.worth_it = (
        piece.level.height * piece.level.width * call.width <= call.reals[HELD]
        and read * LANES >= PACKED_READS * rows * piece.level.width
    )


cdef bint hold(Held* held, const Call* call, const Piece* piece, const RoI* roi) noexcept nogil:
    """Pack the rows of a RoI that are not held yet, and those before; False if that is not worth it."""
    cdef Py_ssize_t width = roi.level.width
    cdef int t
    if not held.worth_it:
        return False
    if roi.image != held.image:
        held.image, held.rows = roi.image, 0
    if held.rows < roi.bottom:
        pack[pixel](
            held.pixels + held.rows * width * call.width, call.width,
            roi.level.map + in_map(call, roi, piece.channel) + held.rows * width, roi.level.height * width,
            piece.channels, (roi.bottom - held.rows) * width,
        )
        held.rows = roi.bottom
    held.y.size, held.y.indptr, held.y.weight = roi.y.size, roi.y.indptr, roi.y.weight
    for t in range(roi.y.indptr[roi.y.size]):
        held.y.index[t] = roi.y.index[t] * call.width
    return True
