# Bins of few pixels that others do not share: the samples of crop_and_resize, a pixel and more apart.
#
# Both axes are summed in registers, in the order of `weighted_sum` on one axis and then on the other, and so
# with its bits: which way a RoI goes is a matter of time alone. The lines between the steps would be written
# and read for bins that never share them.


cdef inline void sum_four(
    real* target, const number* source, const Py_ssize_t* row, const Py_ssize_t* column, const real* y,
    const real* x, int rows, int columns, Py_ssize_t n, bint add,
) noexcept nogil:
    """One or two taps of each axis, for n channels; rows, columns and add are constants where inlined."""
    cdef const number* a = source + row[0] + column[0]
    cdef const number* b = source + row[rows - 1] + column[0]
    cdef const number* c = source + row[0] + column[columns - 1]
    cdef const number* d = source + row[rows - 1] + column[columns - 1]
    cdef real y_first = y[0], y_last = y[rows - 1], x_first = x[0], x_last = x[columns - 1]
    cdef lanes total, part
    cdef Py_ssize_t i = 0
    while i + LANES <= n:
        part = y_first * load_numbers[number](a + i)
        if rows > 1:
            part = part + y_last * load_numbers[number](b + i)
        total = x_first * part
        if columns > 1:
            part = y_first * load_numbers[number](c + i)
            if rows > 1:
                part = part + y_last * load_numbers[number](d + i)
            total = total + x_last * part
        store(target + i, load(target + i) + total if add else total)
        i += LANES
    if i < n:
        part = y_first * load_first_numbers[number](a + i, n - i)
        if rows > 1:
            part = part + y_last * load_first_numbers[number](b + i, n - i)
        total = x_first * part
        if columns > 1:
            part = y_first * load_first_numbers[number](c + i, n - i)
            if rows > 1:
                part = part + y_last * load_first_numbers[number](d + i, n - i)
            total = total + x_last * part
        store_first(target + i, load_first(target + i, n - i) + total if add else total, n - i)


cdef inline void sum_few(
    real* target, const number* source, const Axis* y, int line, const Axis* x, int column,
    const Py_ssize_t* place, Py_ssize_t n, bint add,
) noexcept nogil:
    """A line of each axis, with one tap or two; place: where the numbers that those of x mean begin."""
    cdef int t = y.indptr[line], s = x.indptr[column]
    cdef int rows = y.indptr[line + 1] - t, columns = x.indptr[column + 1] - s
    if rows == 1 and columns == 1:
        sum_four[number](target, source, y.index + t, place, y.weight + t, x.weight + s, 1, 1, n, add)
    elif rows == 1:
        sum_four[number](target, source, y.index + t, place, y.weight + t, x.weight + s, 1, 2, n, add)
    elif columns == 1:
        sum_four[number](target, source, y.index + t, place, y.weight + t, x.weight + s, 2, 1, n, add)
    else:
        sum_four[number](target, source, y.index + t, place, y.weight + t, x.weight + s, 2, 2, n, add)


cdef void forward_sparse(
    const Call* call, const RoI* roi, Py_ssize_t channel, int first_y, int last_y, int first_x, int last_x,
    const Scratch* scratch,
) noexcept nogil:
    """`forward_pixels` where no line of an axis has more than two taps."""
    cdef Py_ssize_t channels = call.channels, n = min(call.width, channels - channel)
    cdef const pixel* source = roi.level.map + in_map(call, roi, channel)
    cdef pooled* target
    cdef real* sums
    cdef Py_ssize_t place[2]
    cdef int y, x, t, i
    for y in range(first_y, last_y):
        target = call.bins + in_bins(call, roi, channel) + (y * call.settings.bins_x + first_x) * channels
        for x in range(first_x, last_x):
            t = roi.x.indptr[x]
            if roi.y.indptr[y] == roi.y.indptr[y + 1] or t == roi.x.indptr[x + 1]:
                memset(target, 0, n * sizeof(pooled))
            else:
                for i in range(roi.x.indptr[x + 1] - t):
                    place[i] = roi.strip[roi.x.index[t + i] // call.x_stride] * channels
                sums = scratch.at[STAGED] if call.staged else <real*> target
                sum_few[pixel](sums, source, &roi.y, y, &roi.x, x, place, n, False)
                if call.staged:
                    write_out(target, sums, n, call.non_temporal)
            target += channels


cdef void backward_sparse(
    const Call* call, const RoI* roi, real* sums, const Rows* rows, int y, int end
) noexcept nogil:
    """`backward_pixels` for lines [y, end), where no pixel has more than two bins on an axis."""
    cdef Py_ssize_t channels = call.channels
    cdef const pooled* source = call.bins + in_bins(call, roi, rows.channel)
    cdef Py_ssize_t place[2]
    cdef const Run* run
    cdef real* target
    cdef int x, r, t, i
    for y in range(y, end):
        for r in range(roi.runs):
            run = roi.run + r
            target = sums + ((roi.map_row[y] - rows.first) * roi.level.width + run.column) * rows.pitch
            for x in range(run.slot, run.slot + run.strips):
                t = roi.x.indptr[x]
                for i in range(roi.x.indptr[x + 1] - t):
                    place[i] = roi.x.index[t + i] // call.x_stride * channels
                sum_few[pooled](target, source, &roi.y, y, &roi.x, x, place, rows.length, True)
                target += rows.pitch


cdef inline void prefetch_bins(const Call* call, const RoI* roi, const Rows* rows) noexcept nogil:
    """Fetch the bins of the next RoI that some rows depend on, which lie far from those of this one."""
    cdef const pooled* source = call.bins + in_bins(call, roi, rows.channel)
    cdef Py_ssize_t first, last
    cdef int y, end
    find_lines(roi, rows, &y, &end)
    if y < end and rows.length == call.channels:
        first, last = roi.y.index[roi.y.indptr[y]], roi.y.index[roi.y.indptr[end] - 1]
        if first > last:  # a mirrored box
            first, last = last, first
        prefetch_source(
            source + first, (last - first + call.settings.bins_x * call.channels) * sizeof(pooled)
        )
