# PSRoIAlign and PSRoIPool: weighted sums of pixels, where each bin has channels of its own.
#
# Bin (i, j) of output channel c reads channel (c * PH + i) * PW + j of the map and no other. Both operators
# are separable as RoIAlign is, so one RoI is two axes, and they differ in how the axes are filled: by
# bilinear samples, or with 1 / length for each pixel of a range. Forward and backward visit the same taps:
#
#     output += y.weight * x.weight * pixel        pixel's gradient += y.weight * x.weight * grad_output
#
# In either layout a bin is summed along y, then along x. In a channels-first map lanes run along output
# channels: the planes that one bin has of LANES of them lie PH * PW planes apart, and a transposition in
# registers turns LANES columns of each into LANES pixels. In a channels-last map the numbers of one bin lie
# PH * PW apart, so vectors gain nothing. A call with very many RoIs is carried out in chunks, so that memory
# stays bounded.

cdef enum:
    SOME_CHANNELS = 64


cdef void pool_bins_of_pixels(const Call* call, const RoI* roi, Py_ssize_t line) noexcept nogil:
    """One line of bins of one RoI, all the channels of a channels-last map, some at a time."""
    cdef const Axis* y = &roi.y
    cdef const Axis* x = &roi.x
    cdef Py_ssize_t bins = y.size * <Py_ssize_t> x.size, bin = line * x.size, channel, at
    cdef const real* source
    cdef real* target = <real*> call.bins + in_bins(call, roi, 0) + bin * call.channels
    cdef real column[SOME_CHANNELS]
    cdef int j, s, t, c, n
    for j in range(x.size):
        channel = 0
        while channel < call.channels:
            n = <int> min(call.channels - channel, SOME_CHANNELS)
            source = <const real*> roi.level.map + in_map(call, roi, channel * bins + bin + j)
            memset(target, 0, n * sizeof(real))
            for s in range(x.indptr[j], x.indptr[j + 1]):
                memset(column, 0, n * sizeof(real))
                for t in range(y.indptr[line], y.indptr[line + 1]):
                    at = y.index[t] + x.index[s]
                    for c in range(n):
                        column[c] += y.weight[t] * source[at + c * bins]
                for c in range(n):
                    target[c] += x.weight[s] * column[c]
            channel += n
            target += n


cdef void unpool_bins_of_pixels(
    const Call* call, const RoI* roi, Py_ssize_t line, const Rows* rows, real* sums
) noexcept nogil:
    """The transpose of `pool_bins_of_pixels`; adds to some rows alone, which begin at `sums`."""
    cdef const Axis* y = &roi.y
    cdef const Axis* x = &roi.x
    cdef Py_ssize_t bins = y.size * <Py_ssize_t> x.size, bin = line * x.size, at, c
    cdef Py_ssize_t row = roi.level.y_stride
    cdef const real* source = <const real*> call.bins + in_bins(call, roi, 0) + bin * call.channels
    cdef real* target = sums + bin - rows.first * row
    cdef int j, s, t
    for j in range(x.size):
        for t in range(y.indptr[line], y.indptr[line + 1]):
            if rows.first * row <= y.index[t] < rows.last * row:
                for s in range(x.indptr[j], x.indptr[j + 1]):
                    at = y.index[t] + x.index[s]
                    for c in range(call.channels):
                        target[at + c * bins] += y.weight[t] * (x.weight[s] * source[c])
        source += call.channels
        target += 1


cdef inline lanes sum_rows(
    const real* source, const Axis* y, Py_ssize_t line, Py_ssize_t n
) noexcept nogil:
    """One line of an axis for n columns."""
    cdef lanes total = zeros()
    cdef int t
    for t in range(y.indptr[line], y.indptr[line + 1]):
        total = total + y.weight[t] * load_first(source + y.index[t], n)
    return total


cdef void pool_bins_of_planes(
    const Call* call, const RoI* roi, Py_ssize_t line, Py_ssize_t channel
) noexcept nogil:
    """One line of bins of one RoI, for up to LANES output channels of a channels-first map."""
    cdef const Axis* y = &roi.y
    cdef const Axis* x = &roi.x
    cdef Py_ssize_t bins = y.size * <Py_ssize_t> x.size, bin = line * x.size
    cdef Py_ssize_t width = roi.level.width, plane = roi.level.height * width, step = bins * plane
    cdef Py_ssize_t first, window = min(width, LANES), p, planes = min(call.channels - channel, LANES)
    cdef const real* source = <const real*> roi.level.map + in_map(call, roi, channel * bins + bin)
    cdef real* target = <real*> call.bins + in_bins(call, roi, channel) + bin
    cdef lanes tile[LANES]
    cdef lanes total
    cdef int j, s
    for j in range(x.size):
        total = zeros()
        s = x.indptr[j]
        while s < x.indptr[j + 1]:
            first = min(x.index[s], width - window)
            if planes == LANES and window == LANES:
                for p in range(LANES):
                    tile[p] = sum_rows(source + p * step + first, y, line, LANES)
            else:
                for p in range(planes):
                    tile[p] = sum_rows(source + p * step + first, y, line, window)
                for p in range(planes, LANES):
                    tile[p] = zeros()
            transpose(tile)
            while s < x.indptr[j + 1] and first <= x.index[s] < first + LANES:
                total = total + x.weight[s] * tile[x.index[s] - first]
                s += 1
        for p in range(planes):
            target[p * bins + j] = (<real*> &total)[p]
        source += plane


cdef void unpool_bins_of_planes(
    const Call* call, const RoI* roi, Py_ssize_t line, const Rows* rows, real* sums
) noexcept nogil:
    """The transpose of `pool_bins_of_planes`; adds to some rows alone, which begin at `sums`."""
    cdef const Axis* y = &roi.y
    cdef const Axis* x = &roi.x
    cdef Py_ssize_t bins = y.size * <Py_ssize_t> x.size, bin = line * x.size
    cdef Py_ssize_t width = roi.level.width, plane = roi.level.height * width, step = bins * plane
    cdef Py_ssize_t first, window = min(width, LANES), p, planes = min(call.channels - rows.channel, LANES)
    cdef const real* source = <const real*> call.bins + in_bins(call, roi, rows.channel) + bin
    cdef real* target = sums + bin * plane - rows.first * width
    cdef real* row
    cdef lanes tile[LANES]
    cdef lanes grads = zeros()
    cdef int j, s, t
    for j in range(x.size):
        for p in range(planes):
            (<real*> &grads)[p] = source[p * bins + j]
        s = x.indptr[j]
        while s < x.indptr[j + 1]:
            first = min(x.index[s], width - window)
            for p in range(LANES):
                tile[p] = zeros()
            while s < x.indptr[j + 1] and first <= x.index[s] < first + LANES:
                tile[x.index[s] - first] = tile[x.index[s] - first] + x.weight[s] * grads
                s += 1
            transpose(tile)
            for t in range(y.indptr[line], y.indptr[line + 1]):
                if rows.first * width <= y.index[t] < rows.last * width:
                    row = target + y.index[t] + first
                    for p in range(planes):
                        add_leading(row + p * step, y.weight[t] * tile[p], window)
        target += plane


cdef inline void add_leading(real* target, lanes v, Py_ssize_t n) noexcept nogil:
    store_first(target, load_first(target, n) + v, n)


cdef void position_sensitive_forward(
    const Call* call, const Piece* piece, const Scratch* scratch
) noexcept nogil:
    """Lines of bins, of RoI after RoI."""
    cdef Py_ssize_t lines = call.units, unit
    cdef const RoI* roi
    for unit in range(piece.first, piece.last):
        roi = piece.rois + unit // lines
        if call.settings.channels_last:
            pool_bins_of_pixels(call, roi, unit % lines)
        else:
            pool_bins_of_planes(call, roi, unit % lines, piece.channel)


cdef inline bint reaches(const Axis* axis, Py_ssize_t line, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Whether a line of an axis has a tap at first <= index < last."""
    cdef int t
    for t in range(axis.indptr[line], axis.indptr[line + 1]):
        if first <= axis.index[t] < last:
            return True
    return False


cdef void position_sensitive_backward(
    const Call* call, const Piece* piece, const Scratch* scratch
) noexcept nogil:
    cdef Py_ssize_t row = piece.level.y_stride, line, i
    cdef const Rows* rows = &piece.summed
    cdef const RoI* roi
    for i in range(piece.count):
        roi = piece.rois + i
        for line in range(call.settings.bins_y):
            if not reaches(&roi.y, line, rows.first * row, rows.last * row):
                continue
            if call.settings.channels_last:
                unpool_bins_of_pixels(call, roi, line, rows, piece.sums)
            else:
                unpool_bins_of_planes(call, roi, line, rows, piece.sums)
