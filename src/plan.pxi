# The plan: the RoIs of a call in the order of their visit, each with the tables of its two axes.
#
# A call with very many RoIs is carried out in several plans, one after the other, so that memory stays
# bounded. Nothing in a plan but its addresses depends on the number of threads or lanes.


cdef enum:
    PLAN_TAPS = 1 << 20  # room for taps in one plan, about 16 MiB
    ROI_TAPS = 16  # what the rest of a RoI weighs, in taps
    ROW_GROUP = 16  # RoIs that begin in one group of rows are visited from left to right


cdef struct Level:  # one map of those that a call pools from
    Sampling sampling
    const pixel* map  # forward
    pooled* gradient  # backward, to the map
    real* sums  # of the gradient, itself unless it is narrower; NULL: rows are summed in memory of the thread
    Py_ssize_t y_stride  # from line to line of what the y step reads
    Py_ssize_t belts, parts, pieces  # the work on it: see call.pxi


cdef struct Run:
    Py_ssize_t column
    int slot
    int strips


cdef struct RoI:
    Py_ssize_t row  # of the boxes and of the output
    const Level* level
    Py_ssize_t image
    Band y  # forward: bins from rows of the map; backward: rows of the map from bins
    Band x  # forward: bins from slots; backward: strips from bins, with a weight for each slot
    Py_ssize_t* map_row  # backward: the row of the map that each line of y is
    Py_ssize_t* strip  # the first column of each strip; slot j of strip s is column strip[s] + j
    int strips
    Run* run  # strips that follow on each other
    int runs
    int* first_row  # forward, pixels: where each bin of y begins to read, and of x
    int* first_column
    int* low  # the slots that each bin of x reads: [low, high)
    int* high
    Py_ssize_t top, bottom  # rows [top, bottom): forward, where bins begin; backward, all that it adds to


cdef struct Visit:
    Py_ssize_t level, image, row_group, column, row


cdef struct Plan:
    Level* levels
    Py_ssize_t level_count
    const Py_ssize_t* level_of_box  # NULL: all boxes are of the first
    Py_ssize_t height, width, bins_y, bins_x  # of the tallest and of the widest map; the output size
    bint transposed  # for backward
    int strip_width
    int weights_x  # a tap of x
    Py_ssize_t x_stride  # from line to line of what the x step reads
    Py_ssize_t capacity, count  # RoIs: room for, planned
    Py_ssize_t taps_y, taps_x, strips, lines_y, lines_x  # the most that a RoI can have
    Py_ssize_t table_bytes, draft_bytes  # a RoI, a thread
    RoI* rois
    Visit* visits
    char* tables
    char* drafts


cdef int compare_visits(const void* first, const void* second) noexcept nogil:
    cdef const Visit* a = <const Visit*> first
    cdef const Visit* b = <const Visit*> second
    if a.level != b.level:
        return 1 if a.level > b.level else -1
    if a.image != b.image:
        return 1 if a.image > b.image else -1
    if a.row_group != b.row_group:
        return 1 if a.row_group > b.row_group else -1
    if a.column != b.column:
        return 1 if a.column > b.column else -1
    return 1 if a.row > b.row else -1


cdef inline Py_ssize_t whole_words(Py_ssize_t n, size_t size) noexcept nogil:
    return (n * <Py_ssize_t> size + 7) // 8 * 8


cdef inline Py_ssize_t band_bytes(Py_ssize_t lines, Py_ssize_t taps, int width=1) noexcept nogil:
    """Room for a band each of whose taps has `width` weights."""
    return (
        whole_words(lines + 1, sizeof(int)) + whole_words(taps, sizeof(Py_ssize_t))
        + whole_words(taps * width, sizeof(real))
    )


cdef inline void* take(char** room, Py_ssize_t n, size_t size) noexcept nogil:
    cdef void* taken = room[0]
    room[0] += whole_words(n, size)
    return taken


cdef inline void take_band(
    char** room, Band* band, Py_ssize_t lines, Py_ssize_t taps, int width=1
) noexcept nogil:
    band.begin = <int*> take(room, lines + 1, sizeof(int))
    band.offset = <Py_ssize_t*> take(room, taps, sizeof(Py_ssize_t))
    band.weight = <real*> take(room, taps * width, sizeof(real))


cdef bint open_plan(
    Plan* plan, Py_ssize_t boxes, bint transposed, int strip_width, Py_ssize_t x_stride, int threads
) noexcept nogil:
    """Allocate what planning needs, given levels and sizes; False where memory is short. Close it either way.

    Room is for a RoI of the tallest and of the widest map, whichever its level: less will do for the others.
    """
    cdef int ratio = plan.levels.sampling.ratio
    plan.transposed = transposed
    plan.strip_width = strip_width
    plan.x_stride = x_stride
    plan.taps_y = most_taps(plan.bins_y, ratio, plan.height)
    plan.taps_x = most_taps(plan.bins_x, ratio, plan.width)
    plan.strips = min(plan.taps_x, plan.width // strip_width + 1)
    plan.lines_y = plan.taps_y if transposed else plan.bins_y
    plan.lines_x = plan.strips if transposed else plan.bins_x
    plan.weights_x = strip_width if transposed else 1
    # Gradients are summed plan by plan, so the lanes must have no say in how many RoIs a plan takes.
    plan.capacity = max(1, min(boxes, PLAN_TAPS // (plan.taps_y + plan.taps_x + ROI_TAPS)))
    plan.count = 0
    plan.table_bytes = (
        band_bytes(plan.lines_y, plan.taps_y) + band_bytes(plan.lines_x, plan.taps_x, plan.weights_x)
        + whole_words(plan.strips + (plan.lines_y if transposed else 0), sizeof(Py_ssize_t))
        + whole_words(plan.strips, sizeof(Run))
        + whole_words(plan.bins_y + 3 * plan.bins_x, sizeof(int))
    )
    plan.draft_bytes = (
        whole_words(max(plan.height, plan.width), sizeof(int))
        + band_bytes(max(plan.bins_y, plan.bins_x), max(plan.taps_y, plan.taps_x))
    )
    plan.rois = <RoI*> malloc(plan.capacity * sizeof(RoI))
    plan.visits = <Visit*> malloc(plan.capacity * sizeof(Visit))
    plan.tables = <char*> malloc(plan.capacity * plan.table_bytes)
    plan.drafts = <char*> calloc(threads, plan.draft_bytes)
    return plan.rois != NULL and plan.visits != NULL and plan.tables != NULL and plan.drafts != NULL


cdef void close_plan(Plan* plan) noexcept nogil:
    free(plan.rois)
    free(plan.visits)
    free(plan.tables)
    free(plan.drafts)


cdef void make_plan(
    Plan* plan, const double* boxes, Py_ssize_t first, Py_ssize_t last, int threads
) noexcept nogil:
    """Plan the RoIs from `first` on, as many as there is room for before `last`."""
    cdef Py_ssize_t i
    plan.count = min(plan.capacity, last - first)
    order_by_level(plan.visits, plan.levels, plan.level_of_box, boxes, first, plan.count)
    # Each iteration writes one RoI with its tables, and the draft of its thread.
    for i in prange(plan.count, num_threads=threads, schedule="static", use_threads_if=threads > 1):
        plan_roi(plan, boxes, i, threadid())


cdef void order_by_level(
    Visit* visits, const Level* levels, const Py_ssize_t* level_of_box, const double* boxes,
    Py_ssize_t first, Py_ssize_t count,
) noexcept nogil:
    """The visits of `count` boxes from `first` on; level_of_box: NULL if all are of the first level."""
    cdef Py_ssize_t i, level
    for i in range(count):
        level = level_of_box[first + i] if level_of_box != NULL else 0
        visits[i] = visit(&levels[level].sampling, boxes, first + i)
        visits[i].level = level
    qsort(visits, count, sizeof(Visit), compare_visits)


cdef Py_ssize_t visits_before(
    const Visit* visits, Py_ssize_t count, Py_ssize_t level, Py_ssize_t image
) noexcept nogil:
    """How many visits come before those of an image of a level."""
    cdef Py_ssize_t low = 0, high = count, middle
    while low < high:
        middle = (low + high) // 2
        if visits[middle].level < level or visits[middle].level == level and visits[middle].image < image:
            low = middle + 1
        else:
            high = middle
    return low


cdef inline Visit visit(const Sampling* sampling, const double* boxes, Py_ssize_t row) noexcept nogil:
    cdef Visit visit
    cdef double y = edge(boxes[5 * row + 2], sampling.scale, sampling.aligned)
    cdef double x = edge(boxes[5 * row + 1], sampling.scale, sampling.aligned)
    visit.row, visit.level = row, 0
    visit.image = <Py_ssize_t> boxes[5 * row]
    visit.row_group = <Py_ssize_t> min(max(y, 0.0), <double> sampling.height) // ROW_GROUP
    visit.column = <Py_ssize_t> min(max(x, 0.0), <double> sampling.width)
    return visit


cdef void plan_roi(Plan* plan, const double* boxes, Py_ssize_t i, int thread) noexcept nogil:
    cdef const Level* level = plan.levels + plan.visits[i].level
    cdef const Sampling* sampling = &level.sampling
    cdef RoI* roi = plan.rois + i
    cdef char* table = plan.tables + i * plan.table_bytes
    cdef char* room = plan.drafts + thread * plan.draft_bytes
    cdef int* slot = <int*> take(&room, max(plan.height, plan.width), sizeof(int))
    cdef Band draft
    cdef int lines
    roi.row = plan.visits[i].row
    roi.level, roi.image = level, plan.visits[i].image
    take_band(&table, &roi.y, plan.lines_y, plan.taps_y)
    take_band(&table, &roi.x, plan.lines_x, plan.taps_x, plan.weights_x)
    roi.run = <Run*> take(&table, plan.strips, sizeof(Run))
    roi.first_row = <int*> take(&table, sampling.bins_y + 3 * sampling.bins_x, sizeof(int))
    roi.first_column = roi.first_row + sampling.bins_y
    roi.low = roi.first_column + sampling.bins_x
    roi.high = roi.low + sampling.bins_x
    roi.strip = <Py_ssize_t*> table
    roi.map_row = roi.strip + plan.strips
    if plan.transposed:
        take_band(&room, &draft, max(sampling.bins_y, sampling.bins_x), max(plan.taps_y, plan.taps_x))
        sample(sampling, boxes, roi.row, True, &draft)
        lines = cover(&draft, sampling.height, 1, slot, roi.map_row)
        transpose_band(&draft, lines, 1, &roi.y)
        sample(sampling, boxes, roi.row, False, &draft)
        roi.top, roi.bottom = 0, 0
        if lines:
            roi.top, roi.bottom = roi.map_row[0], roi.map_row[lines - 1] + 1
        roi.strips = cover(&draft, sampling.width, plan.strip_width, slot, roi.strip)
        transpose_band(&draft, roi.strips, plan.strip_width, &roi.x)
    else:
        sample(sampling, boxes, roi.row, True, &roi.y)
        sample(sampling, boxes, roi.row, False, &roi.x)
        roi.strips = cover(&roi.x, sampling.width, plan.strip_width, slot, roi.strip)
        if plan.strip_width == 1:
            find_reach(roi)
    roi.runs = find_runs(roi.strip, roi.strips, plan.strip_width, roi.run)
    if CHECKED:
        check_band(&roi.y, sampling.bins_y if plan.transposed else sampling.height, plan.taps_y)
        lines = roi.strips * plan.strip_width
        check_band(&roi.x, sampling.bins_x if plan.transposed else lines, plan.taps_x)
        for lines in range(roi.strips):
            check(0 <= roi.strip[lines] <= max(sampling.width - plan.strip_width, 0))
    spread(&roi.y, level.y_stride)
    spread(&roi.x, plan.x_stride)


cdef void find_reach(RoI* roi) noexcept nogil:
    """Note where each bin begins to read. A bin that reads nothing goes with its neighbour."""
    cdef int i, t
    for i in range(roi.y.lines):
        roi.first_row[i] = -1
        for t in range(roi.y.begin[i], roi.y.begin[i + 1]):
            if t == roi.y.begin[i] or roi.y.offset[t] < roi.first_row[i]:
                roi.first_row[i] = <int> roi.y.offset[t]
    fill_gaps(roi.first_row, roi.y.lines)
    roi.top = min(roi.first_row[0], roi.first_row[roi.y.lines - 1])
    roi.bottom = max(roi.first_row[0], roi.first_row[roi.y.lines - 1]) + 1
    for i in range(roi.x.lines):
        roi.first_column[i] = -1
        roi.low[i], roi.high[i] = 0, 0
        for t in range(roi.x.begin[i], roi.x.begin[i + 1]):
            if t == roi.x.begin[i] or roi.x.offset[t] < roi.low[i]:
                roi.low[i] = <int> roi.x.offset[t]
            if roi.x.offset[t] >= roi.high[i]:
                roi.high[i] = <int> roi.x.offset[t] + 1
        if roi.high[i]:
            roi.first_column[i] = <int> roi.strip[roi.low[i]]
    fill_gaps(roi.first_column, roi.x.lines)


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
    """Join strips that follow on each other; returns how many runs they make."""
    cdef int s, r = -1
    for s in range(strips):
        if s == 0 or strip[s] != strip[s - 1] + width:
            r += 1
            run[r].column, run[r].slot, run[r].strips = strip[s], s * width, 0
        run[r].strips += 1
    return r + 1


cdef void check_band(const Band* band, Py_ssize_t sources, Py_ssize_t most) noexcept nogil:
    """Stop the process if a table would make a kernel read or write outside its arrays."""
    cdef int i
    check(band.begin[0] == 0 and band.begin[band.lines] <= most)
    for i in range(band.lines):
        check(band.begin[i] <= band.begin[i + 1])
    for i in range(band.begin[band.lines]):
        check(0 <= band.offset[i] < sources)


cdef inline void check(bint condition) noexcept nogil:
    if not condition:
        fputs("cyroialign: a table of a RoI points outside its arrays\n", stderr)
        abort()


cdef void sample(
    const Sampling* sampling, const double* boxes, Py_ssize_t row, bint vertical, Band* band
) noexcept nogil:
    """The band of one axis of one box, in the precision that the contract asks for."""
    cdef Py_ssize_t bins = sampling.bins_y if vertical else sampling.bins_x
    cdef Py_ssize_t length = sampling.height if vertical else sampling.width
    cdef double low = boxes[5 * row + (2 if vertical else 1)]
    cdef double high = boxes[5 * row + (4 if vertical else 3)]
    cdef double scale = sampling.scale
    if sampling.single:
        sample_axis[float](low, high, <float> scale, sampling.aligned, sampling.ratio, bins, length, band)
    else:
        sample_axis[double](low, high, scale, sampling.aligned, sampling.ratio, bins, length, band)
