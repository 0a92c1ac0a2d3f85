# The plan: the RoIs of a call in the order of their visit, each with the tables of its two axes.
#
# A call with very many RoIs is carried out in several plans, one after the other, so that memory stays
# bounded. Nothing in a plan but its addresses depends on the number of threads or lanes.

from cython.parallel cimport prange, threadid
from libc.stdlib cimport calloc, free, malloc, qsort

cdef enum:
    PLAN_TAPS = 1 << 21  # room for taps in one plan: 16 MiB of float32 weights and indices
    ROW_GROUP = 16  # RoIs that begin in one group of rows are visited from left to right


cdef struct RoI:
    Py_ssize_t row  # of the boxes and of the output
    Py_ssize_t image
    Band y  # forward: bins from rows of the map; backward: rows of the map from bins
    Band x  # forward: bins from slots; backward: slots from bins
    int* map_row  # backward: the row of the map that each line of y is
    int* strip  # the first column of each strip; slot j of strip s is column strip[s] + j
    int strips


cdef struct Visit:
    Py_ssize_t image, row_group, column, row


cdef struct Plan:
    Sampling sampling
    bint transposed  # for backward
    int strip_width
    Py_ssize_t capacity, count  # RoIs: room for, planned
    Py_ssize_t taps_y, taps_x, strips, lines_y, lines_x  # the most a RoI can have
    Py_ssize_t ints, reals  # numbers a RoI
    Py_ssize_t draft_taps, draft_ints  # numbers a thread
    RoI* rois
    Visit* visits
    int* int_tables
    real* real_tables
    int* int_drafts
    real* real_drafts


cdef int compare_visits(const void* first, const void* second) noexcept nogil:
    cdef const Visit* a = <const Visit*> first
    cdef const Visit* b = <const Visit*> second
    if a.image != b.image:
        return 1 if a.image > b.image else -1
    if a.row_group != b.row_group:
        return 1 if a.row_group > b.row_group else -1
    if a.column != b.column:
        return 1 if a.column > b.column else -1
    return 1 if a.row > b.row else -1


cdef bint open_plan(
    Plan* plan, const Sampling* sampling, Py_ssize_t boxes, bint transposed, int strip_width, int threads
) noexcept nogil:
    """Allocate what planning needs; False where memory is short. Close the plan in either case."""
    plan.sampling = sampling[0]
    plan.transposed = transposed
    plan.strip_width = strip_width
    plan.taps_y = most_taps(sampling.bins_y, sampling.ratio, sampling.height)
    plan.taps_x = most_taps(sampling.bins_x, sampling.ratio, sampling.width)
    plan.strips = min(plan.taps_x, sampling.width // strip_width + 1)
    plan.lines_y = plan.taps_y if transposed else sampling.bins_y
    plan.lines_x = plan.strips * strip_width if transposed else sampling.bins_x
    # Gradients are summed plan by plan, so the lanes must have no say in how many RoIs a plan takes.
    plan.capacity = max(1, min(boxes, PLAN_TAPS // (plan.taps_y + plan.taps_x)))
    plan.count = 0
    plan.ints = 2 * plan.taps_y + plan.taps_x + plan.lines_y + 1 + plan.lines_x + 1 + plan.strips
    plan.reals = plan.taps_y + plan.taps_x
    plan.draft_taps = max(plan.taps_y, plan.taps_x)
    plan.draft_ints = (
        plan.draft_taps + max(sampling.bins_y, sampling.bins_x) + 1 + max(sampling.height, sampling.width)
    )
    plan.rois = <RoI*> malloc(plan.capacity * sizeof(RoI))
    plan.visits = <Visit*> malloc(plan.capacity * sizeof(Visit))
    plan.int_tables = <int*> malloc(plan.capacity * plan.ints * sizeof(int))
    plan.real_tables = <real*> malloc(plan.capacity * plan.reals * sizeof(real))
    plan.int_drafts = <int*> calloc(threads * plan.draft_ints, sizeof(int))
    plan.real_drafts = <real*> malloc(threads * plan.draft_taps * sizeof(real))
    return (
        plan.rois != NULL and plan.visits != NULL and plan.int_tables != NULL
        and plan.real_tables != NULL and plan.int_drafts != NULL and plan.real_drafts != NULL
    )


cdef void close_plan(Plan* plan) noexcept nogil:
    free(plan.rois)
    free(plan.visits)
    free(plan.int_tables)
    free(plan.real_tables)
    free(plan.int_drafts)
    free(plan.real_drafts)


cdef void make_plan(Plan* plan, const double* boxes, Py_ssize_t first, Py_ssize_t last, int threads) noexcept nogil:
    """Plan the RoIs from `first` on, as many as there is room for before `last`."""
    cdef Py_ssize_t i
    plan.count = min(plan.capacity, last - first)
    for i in range(plan.count):
        plan.visits[i] = visit(&plan.sampling, boxes, first + i)
    qsort(plan.visits, plan.count, sizeof(Visit), compare_visits)
    # Each iteration writes the tables of one RoI and the draft of its thread.
    for i in prange(plan.count, num_threads=threads, schedule="static", use_threads_if=threads > 1):
        plan_roi(plan, boxes, i, threadid())


cdef inline Visit visit(const Sampling* sampling, const double* boxes, Py_ssize_t row) noexcept nogil:
    cdef Visit visit
    cdef double y = edge(boxes[5 * row + 2], sampling.scale, sampling.aligned)
    cdef double x = edge(boxes[5 * row + 1], sampling.scale, sampling.aligned)
    visit.row = row
    visit.image = <Py_ssize_t> boxes[5 * row]
    visit.row_group = <Py_ssize_t> min(max(y, 0.0), <double> sampling.height) // ROW_GROUP
    visit.column = <Py_ssize_t> min(max(x, 0.0), <double> sampling.width)
    return visit


cdef inline int* take(int** room, Py_ssize_t n) noexcept nogil:
    cdef int* taken = room[0]
    room[0] += n
    return taken


cdef void plan_roi(Plan* plan, const double* boxes, Py_ssize_t i, int thread) noexcept nogil:
    cdef const Sampling* sampling = &plan.sampling
    cdef RoI* roi = plan.rois + i
    cdef int* ints = plan.int_tables + i * plan.ints
    cdef real* reals = plan.real_tables + i * plan.reals
    cdef int* draft_ints = plan.int_drafts + thread * plan.draft_ints
    cdef int* slot = take(&draft_ints, max(sampling.height, sampling.width))
    cdef Band draft
    cdef int lines
    draft.weight = plan.real_drafts + thread * plan.draft_taps
    draft.index = take(&draft_ints, plan.draft_taps)
    draft.begin = draft_ints
    roi.row = plan.visits[i].row
    roi.image = plan.visits[i].image
    roi.y.weight, roi.x.weight = reals, reals + plan.taps_y
    roi.y.index, roi.x.index = take(&ints, plan.taps_y), take(&ints, plan.taps_x)
    roi.y.begin, roi.x.begin = take(&ints, plan.lines_y + 1), take(&ints, plan.lines_x + 1)
    roi.map_row, roi.strip = take(&ints, plan.taps_y), take(&ints, plan.strips)
    if plan.transposed:
        sample(sampling, boxes, roi.row, True, &draft)
        lines = cover(&draft, sampling.height, 1, slot, roi.map_row)
        transpose_band(&draft, lines, &roi.y)
        sample(sampling, boxes, roi.row, False, &draft)
        roi.strips = cover(&draft, sampling.width, plan.strip_width, slot, roi.strip)
        transpose_band(&draft, roi.strips * plan.strip_width, &roi.x)
    else:
        sample(sampling, boxes, roi.row, True, &roi.y)
        sample(sampling, boxes, roi.row, False, &roi.x)
        roi.strips = cover(&roi.x, sampling.width, plan.strip_width, slot, roi.strip)


cdef void sample(
    const Sampling* sampling, const double* boxes, Py_ssize_t row, bint vertical, Band* band
) noexcept nogil:
    """The band of one axis of one box, in the precision that the contract asks for."""
    cdef Py_ssize_t bins = sampling.bins_y if vertical else sampling.bins_x
    cdef Py_ssize_t length = sampling.height if vertical else sampling.width
    cdef double low = boxes[5 * row + (2 if vertical else 1)]
    cdef double high = boxes[5 * row + (4 if vertical else 3)]
    if sampling.single:
        sample_axis[float](low, high, <float> sampling.scale, sampling.aligned, sampling.ratio, bins, length, band)
    else:
        sample_axis[double](low, high, sampling.scale, sampling.aligned, sampling.ratio, bins, length, band)
