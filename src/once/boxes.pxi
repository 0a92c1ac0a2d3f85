# Boxes, rows of (batch_index, x1, y1, x2, y2), or of volumes (batch_index, x1, y1, z1, x2, y2, z2), or
# rotated (batch_index, cx, cy, width, height, angle): which are defined, and in which order they are visited.

cdef enum:
    BOX = 5  # numbers of a box of a map
    ROTATED_BOX = 6  # and of one with an angle
    ROW_GROUP = 16  # RoIs that begin in one group of rows are visited from left to right
    CACHED_REALS = 1 << 16  # numbers of a block of channels that need no order: benchmarks/grids.py


cdef inline bint is_finite(
    const double* box, int axes, const double* scales, bint aligned, coordinate T
) noexcept nogil:
    """Whether the edges and sides of a box are finite on the map."""
    cdef coordinate start, end
    cdef int axis
    for axis in range(axes):
        start = edge(box[1 + axis], scales[axis], aligned, T)
        end = edge(box[1 + axes + axis], scales[axis], aligned, T)
        if not (isfinite(start) and isfinite(end - start)):
            return False
    return True


cdef inline bint is_frame_finite(
    const double* box, const double* scales, bint aligned, coordinate T
) noexcept nogil:
    """Whether the centre and sides of a rotated box are finite on the map, and its angle."""
    cdef coordinate x = edge(box[1], scales[0], aligned, T), y = edge(box[2], scales[1], aligned, T)
    cdef coordinate width = edge(box[3], scales[0], False, T), height = edge(box[4], scales[1], False, T)
    return isfinite(x) and isfinite(y) and isfinite(width) and isfinite(height) and isfinite(box[5])


cdef inline bint is_defined(
    const double* box, Py_ssize_t numbers, Py_ssize_t images, const double* scales, bint aligned, bint single
) noexcept nogil:
    if not 0 <= box[0] < images or box[0] != floor(box[0]):
        return False
    if numbers == ROTATED_BOX:
        if single:
            return is_frame_finite(box, scales, aligned, <float> 0)
        return is_frame_finite(box, scales, aligned, <double> 0)
    if single:
        return is_finite(box, numbers // 2, scales, aligned, <float> 0)
    return is_finite(box, numbers // 2, scales, aligned, <double> 0)


cdef class RoIs:
    """Boxes of a call and where they are pooled from; `bad` is the first row that has no result, or -1.

    scales has a pair (y, x) for each level, or (z, y, x); levels, or None, the level of each box.
    """

    cdef const double[:, ::1] boxes
    cdef const Py_ssize_t[::1] levels
    cdef tuple scales
    cdef bint aligned, single, clockwise
    cdef readonly Py_ssize_t bad

    def __cinit__(
        self, const double[:, ::1] boxes, Py_ssize_t images, tuple scales, const Py_ssize_t[::1] levels,
        bint aligned, bint single, bint clockwise=False,
    ):
        cdef Py_ssize_t k
        cdef double of_axes[3]  # x, y, z
        cdef int axis, axes = 2 if boxes.shape[1] == ROTATED_BOX else <int> boxes.shape[1] // 2
        self.boxes, self.levels, self.scales = boxes, levels, scales
        self.aligned, self.single, self.clockwise = aligned, single, clockwise
        self.bad = -1
        for k in range(boxes.shape[0]):
            if k == 0 or levels is not None:
                for axis in range(axes):
                    of_axes[axis] = scales[0 if levels is None else levels[k]][axes - 1 - axis]
            if not is_defined(&boxes[k, 0], boxes.shape[1], images, of_axes, aligned, single):
                self.bad = k
                break


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


cdef inline Visit visit(const Call* call, Py_ssize_t row) noexcept nogil:
    cdef Visit visit
    cdef const double* box = call.boxes + call.box_numbers * row
    cdef const Level* level
    cdef bint aligned = call.settings.aligned
    cdef Frame frame
    cdef Py_ssize_t height, depth = call.settings.depth, map_row
    visit.row = row
    visit.level = call.level_of_box[row] if call.level_of_box != NULL else 0
    level = call.levels + visit.level
    visit.image = <Py_ssize_t> box[0]
    if call.settings.pooling == ROI_ALIGN_ROTATED:
        frame = frame_of(&call.settings, level, box)
        visit.row_group = clip_to_map(frame.y - reach_y(&frame), level.height) // ROW_GROUP
        visit.column = clip_to_map(frame.x - reach_x(&frame), level.width)
        return visit
    height = level.height // depth if depth else level.height
    map_row = first_pixel(box[2], level.scale_y, aligned, height)
    if depth:
        map_row += height * first_pixel(box[3], level.scale_z, aligned, depth)
    visit.row_group = map_row // ROW_GROUP
    visit.column = first_pixel(box[1], level.scale_x, aligned, level.width)
    return visit


cdef inline Py_ssize_t first_pixel(double low, double scale, bint aligned, Py_ssize_t length) noexcept nogil:
    """Where a side begins, clipped to the map."""
    return clip_to_map(edge(low, scale, aligned, <double> 0), length)


cdef inline Py_ssize_t clip_to_map(double place, Py_ssize_t length) noexcept nogil:
    return <Py_ssize_t> min(max(place, 0.0), <double> length)


cdef void order_visits(const Call* call, Visit* visits, Py_ssize_t first, Py_ssize_t count) noexcept nogil:
    """The visits of `count` boxes from `first` on: what is near on a map is visited together.

    In the order of boxes where that is as good: forward, of a map whose blocks of channels stay in the cache.
    """
    cdef Py_ssize_t i
    cdef bint in_order = call.direction == FORWARD and call.level_count == 1 and not call.tiled
    if in_order and call.levels.height * call.levels.width * call.width <= CACHED_REALS:
        for i in range(count):
            visits[i].row, visits[i].level = first + i, 0
            visits[i].image = <Py_ssize_t> call.boxes[call.box_numbers * (first + i)]
        return
    for i in range(count):
        visits[i] = visit(call, first + i)
    qsort(visits, count, sizeof(Visit), compare_visits)
