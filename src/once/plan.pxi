# The tables of a RoI: the axes that its rule drafts, covered with strips, placed as the kernels read them.
#
# A call with very many RoIs is carried out in chunks, one after the other, so that memory stays bounded.
# Nothing in a table but its addresses depends on the number of threads or lanes.


cdef void place_axis(
    Room* room, const Call* call, Axis* axis, Py_ssize_t lines, Py_ssize_t taps
) noexcept nogil:
    cdef size_t size = call.table.real_bytes
    axis.indptr = <int*> take(room, lines + 1, sizeof(int))
    axis.index = <Py_ssize_t*> take(room, taps, sizeof(Py_ssize_t))
    axis.weight = <real*> take(room, taps, size)
    axis.by_start = axis.by_end = NULL
    axis.outside = NULL
    if call.direction == BOXES_BACKWARD:
        axis.by_start = <real*> take(room, taps, size)
        axis.by_end = <real*> take(room, taps, size)
    if has_candidates(call.settings.pooling):
        axis.outside = <int*> take(room, lines, sizeof(int))


cdef size_t place_roi(const Call* call, RoI* roi, char* memory) noexcept nogil:
    """Place the tables of a RoI; the bytes they take."""
    cdef Room room = room_at(memory)
    place_axis(&room, call, &roi.y, call.lines_y, call.taps_y)
    place_axis(&room, call, &roi.x, call.lines_x, call.taps_x)
    roi.strip = <Py_ssize_t*> take(&room, call.strips, sizeof(Py_ssize_t))
    roi.run = <Run*> take(&room, call.strips, sizeof(Run))
    if call.transposed:
        roi.map_row = <Py_ssize_t*> take(&room, call.lines_y, sizeof(Py_ssize_t))
    if call.tiled:
        roi.first_row = <int*> take(&room, call.lines_y, sizeof(int))
        roi.first_column = <int*> take(&room, call.lines_x, sizeof(int))
        roi.low = <int*> take(&room, call.lines_x, sizeof(int))
        roi.high = <int*> take(&room, call.lines_x, sizeof(int))
    if call.direction == BOXES_BACKWARD:
        roi.to_corners = <double*> take(&room, 4 * call.channels, sizeof(double))
    return room.used + -room.used % 8


cdef struct Drafts:  # what a thread drafts axes in
    Draft axis  # any; of a volume, z times y
    Draft z, y  # of a volume
    int* slot  # for `cover`, and the strips of z and of y
    Py_ssize_t* strip_z
    Py_ssize_t* strip_y


cdef inline Py_ssize_t longest_axis(const Call* call) noexcept nogil:
    cdef Py_ssize_t depth = call.settings.depth
    return max(max(call.height // depth if depth else call.height, call.map_width), depth)


cdef void place_draft(
    Room* room, const Call* call, Draft* draft, Py_ssize_t lines, Py_ssize_t taps
) noexcept nogil:
    draft.room = taps
    draft.indptr = <int*> take(room, lines + 1, sizeof(int))
    draft.index = <Py_ssize_t*> take(room, taps, sizeof(Py_ssize_t))
    draft.weight = <double*> take(room, taps, sizeof(double))
    draft.by_start = draft.by_end = NULL
    draft.outside = NULL
    if call.direction == BOXES_BACKWARD:
        draft.by_start = <double*> take(room, taps, sizeof(double))
        draft.by_end = <double*> take(room, taps, sizeof(double))
    if has_candidates(call.settings.pooling):
        draft.outside = <int*> take(room, lines, sizeof(int))
    draft.single = call.table.real_bytes == sizeof(float)


cdef size_t place_drafts(const Call* call, Drafts* drafts, char* memory) noexcept nogil:
    """Place what a thread drafts axes in; the bytes it takes."""
    cdef Room room = room_at(memory)
    cdef const Settings* settings = &call.settings
    cdef Py_ssize_t bins_z = settings.bins_z, bins_y = settings.bins_y, depth = settings.depth, height
    drafts.slot = <int*> take(&room, longest_axis(call), sizeof(int))
    place_draft(&room, call, &drafts.axis, max(bins_y, settings.bins_x), max(call.taps_y, call.taps_x))
    if depth:
        bins_y, height = bins_y // bins_z, call.height // depth
        place_draft(&room, call, &drafts.z, bins_z, most_taps(bins_z, settings.ratio, depth))
        place_draft(&room, call, &drafts.y, bins_y, most_taps(bins_y, settings.ratio, height))
        drafts.strip_z = <Py_ssize_t*> take(&room, depth, sizeof(Py_ssize_t))
        drafts.strip_y = <Py_ssize_t*> take(&room, height, sizeof(Py_ssize_t))
    return room.used + -room.used % 64


cdef void plan_roi(const Call* call, Py_ssize_t i, int thread) noexcept nogil:
    """Fill the tables of RoI i of a chunk."""
    cdef const Visit* visit = call.visits + (call.first - call.ordered + i)
    cdef const Level* level = call.levels + visit.level
    cdef const double* box = call.boxes + call.box_numbers * visit.row
    cdef RoI* roi = call.planned + i
    cdef Side x = side_of(&call.settings, level, box, X)
    cdef Drafts drafts
    cdef Draft* draft = &drafts.axis
    cdef int lines
    roi.row, roi.image, roi.level = visit.row, visit.image, level
    place_roi(call, roi, call.tables + i * call.table_bytes)
    if call.settings.pooling == ROI_ALIGN_ROTATED:
        roi.frame = frame_of(&call.settings, level, box)
        find_rows_of_frame(&roi.frame, level.height, roi)
        return
    place_drafts(call, &drafts, call.drafts + thread * call.draft_bytes)

    draft.room = call.taps_y
    lines = draft_volume_rows(call, box, &drafts, roi) if call.settings.depth else (
        draft_rows(call, box, &drafts, roi)
    )
    if call.transposed:
        roi.top, roi.bottom = 0, 0
        if lines:
            roi.top, roi.bottom = roi.map_row[0], roi.map_row[lines - 1] + 1
        finish_axis(call, draft, lines, &roi.y, level.y_stride)
    else:
        if call.tiled:
            find_rows(draft, level.height // call.settings.depth if call.settings.depth else 1, roi)
        finish_axis(call, draft, 0, &roi.y, level.y_stride)

    x.length -= call.margin
    draft.room = call.taps_x
    draft_axis(call.settings.pooling, call.direction, &x, draft)
    if CHECKED:
        check_draft(draft, level.width + (call.settings.pooling == ROI_POOL))
    roi.strips = roi.runs = 0
    if call.strip_width:
        roi.strips = cover(draft, level.width, call.strip_width, drafts.slot, roi.strip)
        roi.runs = find_runs(roi.strip, roi.strips, call.strip_width, roi.run)
        if CHECKED:
            check_strips(call, roi)
    if call.tiled:
        find_columns(draft, roi)
    finish_axis(call, draft, roi.strips, &roi.x, call.x_stride)


cdef int draft_rows(const Call* call, const double* box, Drafts* drafts, RoI* roi) noexcept nogil:
    """Draft the axis of rows, and cover it if it is to be transposed; returns how many rows that takes."""
    cdef Side y = side_of(&call.settings, roi.level, box, Y)
    y.length -= call.margin
    draft_axis(call.settings.pooling, call.direction, &y, &drafts.axis)
    if CHECKED:
        check_draft(&drafts.axis, roi.level.height + (call.settings.pooling == ROI_POOL))
    return cover(&drafts.axis, roi.level.height, 1, drafts.slot, roi.map_row) if call.transposed else 0


cdef int draft_volume_rows(const Call* call, const double* box, Drafts* drafts, RoI* roi) noexcept nogil:
    """`draft_rows` of a volume."""
    cdef Side z = side_of(&call.settings, roi.level, box, Z), y = side_of(&call.settings, roi.level, box, Y)
    cdef int i, j, slices, rows
    draft_axis(call.settings.pooling, call.direction, &z, &drafts.z)
    draft_axis(call.settings.pooling, call.direction, &y, &drafts.y)
    if CHECKED:
        check_draft(&drafts.z, z.length)
        check_draft(&drafts.y, y.length)
        check(drafts.z.indptr[z.bins] * <Py_ssize_t> drafts.y.indptr[y.bins] <= drafts.axis.room)
    if not call.transposed:
        multiply(&drafts.z, &drafts.y, y.length, &drafts.axis)
        return 0
    slices = cover(&drafts.z, z.length, 1, drafts.slot, drafts.strip_z)
    rows = cover(&drafts.y, y.length, 1, drafts.slot, drafts.strip_y)
    for i in range(slices):
        for j in range(rows):
            roi.map_row[i * rows + j] = drafts.strip_z[i] * y.length + drafts.strip_y[j]
    multiply(&drafts.z, &drafts.y, rows, &drafts.axis)
    return slices * rows


cdef void finish_axis(
    const Call* call, const Draft* draft, int lines, Axis* axis, Py_ssize_t stride
) noexcept nogil:
    """Place a draft, or its transpose of so many lines."""
    if draft.single and call.transposed:
        place_transposed(draft, lines, axis, stride, <float> 0)
    elif draft.single:
        place(draft, axis, stride, <float> 0)
    elif call.transposed:
        place_transposed(draft, lines, axis, stride, <double> 0)
    else:
        place(draft, axis, stride, <double> 0)


cdef void find_rows(const Draft* y, Py_ssize_t height, RoI* roi) noexcept nogil:
    """Note where each bin of y begins to read, in whole slices of so many rows; of a map, of one each.

    So the rows never fall, or if a box is mirrored never rise. A bin that reads nothing goes with its
    neighbour.
    """
    cdef int i, t
    for i in range(y.size):
        roi.first_row[i] = -1
        for t in range(y.indptr[i], y.indptr[i + 1]):
            if t == y.indptr[i] or y.index[t] < roi.first_row[i]:
                roi.first_row[i] = <int> y.index[t]
        if roi.first_row[i] >= 0:
            roi.first_row[i] -= roi.first_row[i] % <int> height
    fill_gaps(roi.first_row, y.size)
    roi.top = min(roi.first_row[0], roi.first_row[y.size - 1])
    roi.bottom = max(roi.first_row[0], roi.first_row[y.size - 1]) + 1


cdef void find_columns(const Draft* x, RoI* roi) noexcept nogil:
    """Note the slots that each bin of x reads, each a pixel, and the first column."""
    cdef int i, t
    for i in range(x.size):
        roi.first_column[i] = -1
        roi.low[i], roi.high[i] = 0, 0
        for t in range(x.indptr[i], x.indptr[i + 1]):
            if t == x.indptr[i] or x.index[t] < roi.low[i]:
                roi.low[i] = <int> x.index[t]
            if x.index[t] >= roi.high[i]:
                roi.high[i] = <int> x.index[t] + 1
        if roi.high[i]:
            roi.first_column[i] = <int> roi.strip[roi.low[i]]
    fill_gaps(roi.first_column, x.size)


cdef inline void fill_gaps(int* first, int lines) noexcept nogil:
    cdef int i
    for i in range(1, lines):
        if first[i] < 0:
            first[i] = first[i - 1]
    for i in range(lines - 2, -1, -1):
        if first[i] < 0:
            first[i] = first[i + 1]
    if first[lines - 1] < 0:
        for i in range(lines):
            first[i] = 0


cdef int find_runs(const Py_ssize_t* strip, int strips, int width, Run* run) noexcept nogil:
    """Join strips that follow each other; returns how many runs they make."""
    cdef int s, r = -1
    for s in range(strips):
        if s == 0 or strip[s] != strip[s - 1] + width:
            r += 1
            run[r].column, run[r].slot, run[r].strips = strip[s], s * width, 0
        run[r].strips += 1
    return r + 1


# In a checked build: the process stops if a table would make a kernel read or write outside its arrays.

cdef inline void check(bint condition) noexcept nogil:
    if not condition:
        fputs("cyroialign: a table of a RoI points outside its arrays\n", stderr)
        abort()


cdef void check_draft(const Draft* draft, Py_ssize_t pixels) noexcept nogil:
    """Indices are pixels; `pixels` counts one more where a range may end behind the last."""
    cdef int i
    check(draft.indptr[0] == 0 and draft.indptr[draft.size] <= draft.room)
    for i in range(draft.size):
        check(draft.indptr[i] <= draft.indptr[i + 1])
    for i in range(draft.indptr[draft.size]):
        check(0 <= draft.index[i] < pixels)


cdef void check_strips(const Call* call, const RoI* roi) noexcept nogil:
    cdef int s
    check(roi.strips <= call.strips)
    for s in range(roi.strips):
        check(0 <= roi.strip[s] <= max(roi.level.width - call.strip_width, 0))
