# RoIAlignRotated: bins whose samples lie in a grid that is turned.
#
# The samples of a bin are found once for all channels of a block, some at a time, as four pixels with
# weights. Forward and backward walk them in the same order, and per channel all is summed in that order:
#
#     output += w0 * a + w1 * b + w2 * c + w3 * d        a's gradient += w0 * grad_output, and so on
#
# In a channels-last map lanes run along channels. In a channels-first map a plane is read sample by sample:
# four numbers of two rows are all that a sample needs of it, and no vector.


cdef inline void add_samples(
    real* sums, const real* source, const Sample* samples, int count, int vectors, Py_ssize_t n, bint first
) noexcept nogil:
    """Add samples for some channels side by side; vectors is a constant where this is inlined.

    n: how many of these channels there are, less than LANES only with one vector. first: to nothing.
    """
    cdef lanes total[4]
    cdef const real* a
    cdef const real* b
    cdef const real* c
    cdef const real* d
    cdef int i, s
    for i in range(vectors):
        total[i] = zeros() if first else load_first(sums + i * LANES, n)
    for s in range(count):
        a, b = source + samples[s].at[0], source + samples[s].at[1]
        c, d = source + samples[s].at[2], source + samples[s].at[3]
        for i in range(vectors):
            total[i] = total[i] + (
                samples[s].weight[0] * load_first(a + i * LANES, n)
                + samples[s].weight[1] * load_first(b + i * LANES, n)
                + samples[s].weight[2] * load_first(c + i * LANES, n)
                + samples[s].weight[3] * load_first(d + i * LANES, n)
            )
    for i in range(vectors):
        store_first(sums + i * LANES, total[i], n)


cdef void sample_pixels(
    real* sums, const real* source, const Sample* samples, int count, Py_ssize_t channels, bint first
) noexcept nogil:
    """Add samples for all the channels of a channels-last map."""
    cdef Py_ssize_t c = 0
    while c + 4 * LANES <= channels:
        add_samples(sums + c, source + c, samples, count, 4, LANES, first)
        c += 4 * LANES
    while c + LANES <= channels:
        add_samples(sums + c, source + c, samples, count, 1, LANES, first)
        c += LANES
    if c < channels:
        add_samples(sums + c, source + c, samples, count, 1, channels - c, first)


cdef void sample_planes(
    real* sums, const real* source, const Sample* samples, int count, Py_ssize_t channels, Py_ssize_t plane,
    bint first,
) noexcept nogil:
    """Add samples for some channels of a channels-first map."""
    cdef const Sample* sample
    cdef Py_ssize_t c
    cdef real total
    cdef int s
    for c in range(channels):
        total = 0 if first else sums[c]
        for s in range(count):
            sample = samples + s
            total += (
                sample.weight[0] * source[sample.at[0]] + sample.weight[1] * source[sample.at[1]]
                + sample.weight[2] * source[sample.at[2]] + sample.weight[3] * source[sample.at[3]]
            )
        sums[c] = total
        source += plane


cdef void rotated_forward(const Call* call, const Piece* piece, const Scratch* scratch) noexcept nogil:
    """Lines of bins, of RoI after RoI."""
    cdef const Settings* settings = &call.settings
    cdef bint channels_last = settings.channels_last, single = settings.single, first
    cdef Py_ssize_t lines = call.units, channels = call.channels, n = piece.channels
    cdef Py_ssize_t bins = settings.bins_y * settings.bins_x, plane, unit, line, x, c
    cdef const RoI* roi
    cdef const real* source
    cdef real* target
    cdef real* sums = scratch.at[BINS]
    cdef Walk walk
    cdef Sample samples[SAMPLES]
    cdef int count
    for unit in range(piece.first, piece.last):
        roi, line = piece.rois + unit // lines, unit % lines
        plane = roi.level.height * roi.level.width
        source = <const real*> roi.level.map + in_map(call, roi, piece.channel)
        target = <real*> call.bins + in_bins(call, roi, piece.channel)
        target += line * settings.bins_x * (channels if channels_last else 1)
        start_box(&walk, call, roi, 0, roi.level.height, <Patch*> scratch.at[PATCHED])
        for x in range(settings.bins_x):
            start_bin(&walk, line, x, single)
            if channels_last:
                sums = target
            first = True
            count = next_samples(&walk, samples, channels if channels_last else 1, single)
            while count:
                if channels_last:
                    sample_pixels(sums, source, samples, count, n, first)
                else:
                    sample_planes(sums, source, samples, count, n, plane, first)
                first = False
                count = next_samples(&walk, samples, channels if channels_last else 1, single)
            if first:
                memset(sums, 0, n * sizeof(real))
            if channels_last:
                target += channels
            else:
                for c in range(n):
                    target[c * bins] = sums[c]
                target += 1


cdef inline void add_weighted(
    real* target, const real* grads, real weight, Py_ssize_t channels
) noexcept nogil:
    cdef Py_ssize_t c = 0
    while c + LANES <= channels:
        store(target + c, load(target + c) + weight * load(grads + c))
        c += LANES
    if c < channels:
        store_first(
            target + c, load_first(target + c, channels - c) + weight * load_first(grads + c, channels - c),
            channels - c,
        )


cdef void spread_sample(
    real* target, const real* grads, const Sample* sample, bint row, bint next_row, Py_ssize_t channels,
) noexcept nogil:
    """Add the gradient of a sample to its pixels of a channels-last map, in either row or both."""
    if row:
        add_weighted(target + sample.at[0], grads, sample.weight[0], channels)
        add_weighted(target + sample.at[1], grads, sample.weight[1], channels)
    if next_row:
        add_weighted(target + sample.at[2], grads, sample.weight[2], channels)
        add_weighted(target + sample.at[3], grads, sample.weight[3], channels)


cdef void spread_in_planes(
    real* target, const real* grads, const Sample* samples, int count, Py_ssize_t channels, Py_ssize_t plane,
    Py_ssize_t bins, const Rows* rows,
) noexcept nogil:
    """Add the gradients of samples to their pixels of some planes."""
    cdef const Sample* sample
    cdef Py_ssize_t c
    cdef real grad
    cdef int s
    for c in range(channels):
        grad = grads[c * bins]
        for s in range(count):
            sample = samples + s
            if rows.first <= sample.row < rows.last:
                target[sample.at[0]] += sample.weight[0] * grad
                target[sample.at[1]] += sample.weight[1] * grad
            if rows.first <= sample.next_row < rows.last:
                target[sample.at[2]] += sample.weight[2] * grad
                target[sample.at[3]] += sample.weight[3] * grad
        target += plane


cdef void unpool_rotated(
    const Call* call, const RoI* roi, const Rows* rows, Py_ssize_t n, real* sums, const Scratch* scratch
) noexcept nogil:
    """Add a RoI to some rows of a gradient, which begin at `sums`."""
    cdef const Settings* settings = &call.settings
    cdef bint channels_last = settings.channels_last, single = settings.single
    cdef Py_ssize_t bins = settings.bins_y * settings.bins_x, y, x
    cdef Py_ssize_t stride = call.channels if channels_last else 1
    cdef Py_ssize_t plane = roi.level.height * roi.level.width
    cdef const real* grads = <const real*> call.bins + in_bins(call, roi, rows.channel)
    cdef real* target = sums - rows.first * roi.level.width * stride
    cdef Walk walk
    cdef Sample samples[SAMPLES]
    cdef int count, s
    start_box(&walk, call, roi, rows.first, rows.last, <Patch*> scratch.at[PATCHED])
    for y in range(settings.bins_y):
        for x in range(settings.bins_x):
            start_bin(&walk, y, x, single)
            count = next_samples(&walk, samples, stride, single)
            while count:
                if not channels_last:
                    spread_in_planes(target, grads, samples, count, n, plane, bins, rows)
                else:
                    for s in range(count):
                        spread_sample(
                            target, grads, samples + s, rows.first <= samples[s].row < rows.last,
                            rows.first <= samples[s].next_row < rows.last, n,
                        )
                count = next_samples(&walk, samples, stride, single)
            grads += stride


cdef void rotated_backward(const Call* call, const Piece* piece, const Scratch* scratch) noexcept nogil:
    cdef const Rows* rows = &piece.summed
    cdef const RoI* roi
    cdef Py_ssize_t i
    for i in range(piece.count):
        roi = piece.rois + i
        if roi.top < rows.last and rows.first < roi.bottom:
            unpool_rotated(call, roi, rows, piece.channels, piece.sums, scratch)
