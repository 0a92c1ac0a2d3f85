# PSRoIAlign and PSRoIPool: weighted sums of pixels, where each bin has channels of its own.
#
# Bin (i, j) of output channel c reads channel (c * PH + i) * PW + j of the map and no other. Both operators
# are separable as RoIAlign is, so one RoI is two bands, and they differ in how the bands are filled: by
# bilinear samples, or with 1 / length for each pixel of a range. Forward and backward visit the same taps:
#
#     output += y.weight * x.weight * pixel        pixel's gradient += y.weight * x.weight * grad_output
#
# In either layout a bin is summed along y, then along x. In a channels-first map lanes run along output
# channels: the planes that one bin has of LANES of them lie PH * PW planes apart, and a transposition in
# registers turns LANES columns of each into LANES pixels. In a channels-last map the numbers of one bin lie
# PH * PW apart, and there is nothing to be had from vectors. A call with very many RoIs is carried out in
# portions, so that memory stays bounded.

cdef enum:
    SOME_CHANNELS = 64


cdef struct PositionSensitive:
    const real* source  # forward: the map; backward: the gradient to the bins
    real* target  # forward: the bins; backward: the gradient to the map
    Sampling sampling
    bint quantised  # PSRoIPool, not PSRoIAlign
    Py_ssize_t length_y, length_x  # the part of the map that is sampled
    Py_ssize_t images, channels, rois  # channels: of the output
    bint channels_last
    Py_ssize_t map_row, map_pixel, map_channel  # strides of the map
    int threads
    Py_ssize_t width, blocks  # output channels in a block, and how many blocks
    Py_ssize_t parts  # of a block: forward, runs of lines of bins; backward, groups of rows of one image
    Py_ssize_t capacity, first, count  # RoIs of a portion: room for, the first of these, how many
    Py_ssize_t taps_y, taps_x  # the most that a RoI can have
    Visit* visits
    int* begins
    Py_ssize_t* offsets
    real* weights


cdef bint open_position_sensitive(
    PositionSensitive* call, const Py_ssize_t* map_shape, const Py_ssize_t* bins_shape, const double* boxes,
    bint backward, double spatial_scale, int sampling_ratio, bint quantised, bint single, bint channels_last,
    int threads,
) noexcept nogil:
    """Share out the work and allocate; False where memory is short. Close the call in either case."""
    cdef Sampling* sampling = &call.sampling
    cdef Py_ssize_t bins, pieces
    set_sampling(
        sampling, map_shape, bins_shape, spatial_scale, sampling_ratio, not quantised, single, channels_last
    )
    bins = sampling.bins_y * sampling.bins_x
    call.quantised = quantised
    # torchvision's PSRoIPool leaves the last row and column out of the means, but not out of their gradient.
    call.length_y = sampling.height - (quantised and not backward)
    call.length_x = sampling.width - (quantised and not backward)
    call.images, call.rois = map_shape[0], bins_shape[0]
    call.channels = bins_shape[3 if channels_last else 1]
    call.channels_last = channels_last
    call.map_pixel = call.channels * bins if channels_last else 1
    call.map_row = sampling.width * call.map_pixel
    call.map_channel = 1 if channels_last else sampling.height * call.map_row
    if call.rois * call.channels * bins < SERIAL_BINS:
        threads = 1
    call.threads = threads
    call.width = call.channels if channels_last else LANES
    call.blocks = (call.channels + call.width - 1) // call.width
    pieces = call.blocks * (call.images if backward else 1)
    call.parts = (PIECES * threads + pieces - 1) // pieces
    if backward:
        call.parts = min(call.parts, sampling.height)
    call.taps_y = most_taps(sampling.bins_y, sampling.ratio, sampling.height)
    call.taps_x = most_taps(sampling.bins_x, sampling.ratio, sampling.width)
    call.capacity = max(1, min(call.rois, PLAN_TAPS // (call.taps_y + call.taps_x)))
    call.first = call.count = 0
    call.visits = <Visit*> malloc(call.rois * sizeof(Visit))
    call.begins = <int*> malloc(call.capacity * (sampling.bins_y + sampling.bins_x + 2) * sizeof(int))
    call.offsets = <Py_ssize_t*> malloc(call.capacity * (call.taps_y + call.taps_x) * sizeof(Py_ssize_t))
    call.weights = <real*> malloc(call.capacity * (call.taps_y + call.taps_x) * sizeof(real))
    if call.visits == NULL or call.begins == NULL or call.offsets == NULL or call.weights == NULL:
        return False
    order_visits(call.visits, sampling, boxes, 0, call.rois)
    return True


cdef void close_position_sensitive(PositionSensitive* call) noexcept nogil:
    free(call.visits)
    free(call.begins)
    free(call.offsets)
    free(call.weights)


cdef bint next_portion(PositionSensitive* call, const double* boxes) noexcept nogil:
    """Fill the bands of the RoIs that come next, if any are left."""
    cdef Py_ssize_t i
    call.first += call.count
    call.count = min(call.capacity, call.rois - call.first)
    # Each iteration writes the bands of one RoI.
    for i in prange(
        call.first, call.first + call.count, num_threads=call.threads, schedule="static",
        use_threads_if=call.threads > 1,
    ):
        fill_bands(call, boxes, i)
    return call.count > 0


cdef inline Band band_y(const PositionSensitive* call, Py_ssize_t i) noexcept nogil:
    """The band of the RoI of visit i, which belongs to the portion, along y."""
    cdef Band band
    i -= call.first
    band.lines = <int> call.sampling.bins_y
    band.begin = call.begins + i * (call.sampling.bins_y + call.sampling.bins_x + 2)
    band.offset = call.offsets + i * (call.taps_y + call.taps_x)
    band.weight = call.weights + i * (call.taps_y + call.taps_x)
    return band


cdef inline Band band_x(const PositionSensitive* call, Py_ssize_t i) noexcept nogil:
    cdef Band band = band_y(call, i)
    band.lines = <int> call.sampling.bins_x
    band.begin += call.sampling.bins_y + 1
    band.offset += call.taps_y
    band.weight += call.taps_y
    return band


cdef void fill_bands(const PositionSensitive* call, const double* boxes, Py_ssize_t i) noexcept nogil:
    cdef const double* box = boxes + 5 * call.visits[i].row
    cdef Band y = band_y(call, i), x = band_x(call, i)
    if call.quantised:
        average_ranges(&call.sampling, box, True, call.length_y, &y)
        average_ranges(&call.sampling, box, False, call.length_x, &x)
    else:
        sample(&call.sampling, boxes, call.visits[i].row, True, &y)
        sample(&call.sampling, boxes, call.visits[i].row, False, &x)
    if CHECKED:
        check_band(&y, call.sampling.height, call.taps_y)
        check_band(&x, call.sampling.width, call.taps_x)
    spread(&y, call.map_row)
    spread(&x, call.map_pixel)


cdef inline Py_ssize_t image_offset(const PositionSensitive* call, Py_ssize_t i) noexcept nogil:
    """Where the image of the RoI of visit i begins in the map."""
    cdef const Sampling* shape = &call.sampling
    return call.visits[i].image * shape.height * shape.width * call.channels * shape.bins_y * shape.bins_x


cdef void pool_bins_of_pixels(const PositionSensitive* call, Py_ssize_t i, Py_ssize_t line) noexcept nogil:
    """One line of bins of one RoI, all the channels of a channels-last map, some at a time."""
    cdef Band y = band_y(call, i), x = band_x(call, i)
    cdef Py_ssize_t bins = y.lines * <Py_ssize_t> x.lines, bin = line * x.lines, channel, at
    cdef const real* source
    cdef real* target = call.target + (call.visits[i].row * bins + bin) * call.channels
    cdef real column[SOME_CHANNELS]
    cdef int j, s, t, c, n
    for j in range(x.lines):
        channel = 0
        while channel < call.channels:
            n = <int> min(call.channels - channel, SOME_CHANNELS)
            source = call.source + image_offset(call, i) + channel * bins + bin + j
            memset(target, 0, n * sizeof(real))
            for s in range(x.begin[j], x.begin[j + 1]):
                memset(column, 0, n * sizeof(real))
                for t in range(y.begin[line], y.begin[line + 1]):
                    at = y.offset[t] + x.offset[s]
                    for c in range(n):
                        column[c] += y.weight[t] * source[at + c * bins]
                for c in range(n):
                    target[c] += x.weight[s] * column[c]
            channel += n
            target += n


cdef void unpool_bins_of_pixels(
    const PositionSensitive* call, Py_ssize_t i, Py_ssize_t line, Py_ssize_t first_row, Py_ssize_t last_row
) noexcept nogil:
    """The transpose of `pool_bins_of_pixels`; adds to rows [first_row, last_row) alone."""
    cdef Band y = band_y(call, i), x = band_x(call, i)
    cdef Py_ssize_t bins = y.lines * <Py_ssize_t> x.lines, bin = line * x.lines, at, c
    cdef const real* source = call.source + (call.visits[i].row * bins + bin) * call.channels
    cdef real* target = call.target + image_offset(call, i) + bin
    cdef int j, s, t
    for j in range(x.lines):
        for t in range(y.begin[line], y.begin[line + 1]):
            if first_row * call.map_row <= y.offset[t] < last_row * call.map_row:
                for s in range(x.begin[j], x.begin[j + 1]):
                    at = y.offset[t] + x.offset[s]
                    for c in range(call.channels):
                        target[at + c * bins] += y.weight[t] * (x.weight[s] * source[c])
        source += call.channels
        target += 1


cdef inline lanes blend_rows(
    const real* source, const Band* y, Py_ssize_t line, Py_ssize_t n
) noexcept nogil:
    """One line of a band for n columns."""
    cdef lanes total = zeros()
    cdef int t
    for t in range(y.begin[line], y.begin[line + 1]):
        total = total + y.weight[t] * load_first(source + y.offset[t], n)
    return total


cdef void pool_bins_of_planes(
    const PositionSensitive* call, Py_ssize_t i, Py_ssize_t line, Py_ssize_t channel
) noexcept nogil:
    """One line of bins of one RoI, for up to LANES output channels of a channels-first map."""
    cdef Band y = band_y(call, i), x = band_x(call, i)
    cdef Py_ssize_t bins = y.lines * <Py_ssize_t> x.lines, bin = line * x.lines
    cdef Py_ssize_t plane = call.map_channel, step = bins * plane, width = call.sampling.width
    cdef Py_ssize_t first, window = min(width, LANES), p, planes = min(call.channels - channel, LANES)
    cdef const real* source = call.source + image_offset(call, i) + channel * step + bin * plane
    cdef real* target = call.target + (call.visits[i].row * call.channels + channel) * bins + bin
    cdef lanes tile[LANES]
    cdef lanes total
    cdef int j, s
    for j in range(x.lines):
        total = zeros()
        s = x.begin[j]
        while s < x.begin[j + 1]:
            first = min(x.offset[s], width - window)
            if planes == LANES and window == LANES:
                for p in range(LANES):
                    tile[p] = blend_rows(source + p * step + first, &y, line, LANES)
            else:
                for p in range(planes):
                    tile[p] = blend_rows(source + p * step + first, &y, line, window)
                for p in range(planes, LANES):
                    tile[p] = zeros()
            transpose(tile)
            while s < x.begin[j + 1] and first <= x.offset[s] < first + LANES:
                total = total + x.weight[s] * tile[x.offset[s] - first]
                s += 1
        for p in range(planes):
            target[p * bins + j] = (<real*> &total)[p]
        source += plane


cdef void unpool_bins_of_planes(
    const PositionSensitive* call, Py_ssize_t i, Py_ssize_t line, Py_ssize_t channel,
    Py_ssize_t first_row, Py_ssize_t last_row,
) noexcept nogil:
    """The transpose of `pool_bins_of_planes`; adds to rows [first_row, last_row) alone."""
    cdef Band y = band_y(call, i), x = band_x(call, i)
    cdef Py_ssize_t bins = y.lines * <Py_ssize_t> x.lines, bin = line * x.lines
    cdef Py_ssize_t plane = call.map_channel, step = bins * plane, width = call.sampling.width
    cdef Py_ssize_t first, window = min(width, LANES), p, planes = min(call.channels - channel, LANES)
    cdef const real* source = call.source + (call.visits[i].row * call.channels + channel) * bins + bin
    cdef real* target = call.target + image_offset(call, i) + channel * step + bin * plane
    cdef real* row
    cdef lanes tile[LANES]
    cdef lanes grads = zeros()
    cdef int j, s, t
    for j in range(x.lines):
        for p in range(planes):
            (<real*> &grads)[p] = source[p * bins + j]
        s = x.begin[j]
        while s < x.begin[j + 1]:
            first = min(x.offset[s], width - window)
            for p in range(LANES):
                tile[p] = zeros()
            while s < x.begin[j + 1] and first <= x.offset[s] < first + LANES:
                tile[x.offset[s] - first] = tile[x.offset[s] - first] + x.weight[s] * grads
                s += 1
            transpose(tile)
            for t in range(y.begin[line], y.begin[line + 1]):
                if first_row * width <= y.offset[t] < last_row * width:
                    row = target + y.offset[t] + first
                    for p in range(planes):
                        add_leading(row + p * step, y.weight[t] * tile[p], window)
        target += plane


cdef inline void add_leading(real* target, lanes v, Py_ssize_t n) noexcept nogil:
    store_first(target, load_first(target, n) + v, n)


cdef void pool_sensitive_piece(
    const PositionSensitive* call, Py_ssize_t block, Py_ssize_t run
) noexcept nogil:
    """A run of lines of bins, of RoI after RoI of the portion, for one block of channels."""
    cdef Py_ssize_t lines = call.sampling.bins_y, total = call.count * lines, unit
    for unit in range(total * run // call.parts, total * (run + 1) // call.parts):
        if call.channels_last:
            pool_bins_of_pixels(call, call.first + unit // lines, unit % lines)
        else:
            pool_bins_of_planes(call, call.first + unit // lines, unit % lines, block * call.width)


cdef inline bint reaches(const Band* band, Py_ssize_t line, Py_ssize_t first, Py_ssize_t last) noexcept nogil:
    """Whether a line of a band has a tap at first <= offset < last."""
    cdef int t
    for t in range(band.begin[line], band.begin[line + 1]):
        if first <= band.offset[t] < last:
            return True
    return False


cdef void unpool_sensitive_piece(
    const PositionSensitive* call, Py_ssize_t image, Py_ssize_t block, Py_ssize_t group
) noexcept nogil:
    """Sum the gradient of a group of rows of one image, for one block of channels; first of all, zero it."""
    cdef const Sampling* shape = &call.sampling
    cdef Py_ssize_t bins = shape.bins_y * shape.bins_x, channel = block * call.width, line, i
    cdef Py_ssize_t first_row = shape.height * group // call.parts
    cdef Py_ssize_t last_row = shape.height * (group + 1) // call.parts
    cdef Band y
    cdef Rows rows
    if call.first == 0:
        rows = rows_of(
            shape, call.channels * bins, call.channels_last, image, channel * bins, call.width * bins,
            first_row, last_row,
        )
        zero_rows(call.target + rows.at, &rows)
    for i in range(
        max(visits_before(call.visits, call.rois, 0, image), call.first),
        min(visits_before(call.visits, call.rois, 0, image + 1), call.first + call.count),
    ):
        y = band_y(call, i)
        for line in range(shape.bins_y):
            if not reaches(&y, line, first_row * call.map_row, last_row * call.map_row):
                continue
            if call.channels_last:
                unpool_bins_of_pixels(call, i, line, first_row, last_row)
            else:
                unpool_bins_of_planes(call, i, line, channel, first_row, last_row)


def position_sensitive(
    const real[:, :, :, ::1] input, const double[:, ::1] boxes, real[:, :, :, ::1] output,
    double spatial_scale, int sampling_ratio, bint quantised, bint single, bint channels_last, int threads,
):
    """Fill output (K, C, PH, PW) from input (N, C * PH * PW, H, W), or both with the channels last.

    quantised selects PSRoIPool, for which sampling_ratio is 0. None of the arrays is empty.
    """
    cdef PositionSensitive call
    cdef Py_ssize_t piece
    cdef bint ready
    call.source, call.target = &input[0, 0, 0, 0], &output[0, 0, 0, 0]
    with nogil:
        ready = open_position_sensitive(
            &call, input.shape, output.shape, &boxes[0, 0], False, spatial_scale, sampling_ratio, quantised,
            single, channels_last, threads,
        )
        while ready and next_portion(&call, &boxes[0, 0]):
            # Who owns what: a piece its channels of its lines of bins.
            for piece in prange(
                call.blocks * call.parts, num_threads=call.threads, schedule="dynamic",
                use_threads_if=call.threads > 1,
            ):
                pool_sensitive_piece(&call, piece // call.parts, piece % call.parts)
        close_position_sensitive(&call)
    if not ready:
        raise MemoryError("no memory for the tables of position_sensitive")


def position_sensitive_backward(
    const real[:, :, :, ::1] grad_output, const double[:, ::1] boxes, real[:, :, :, ::1] grad_input,
    double spatial_scale, int sampling_ratio, bint quantised, bint single, bint channels_last, int threads,
):
    """Fill grad_input (N, C * PH * PW, H, W) from grad_output (K, C, PH, PW), or both channels-last."""
    cdef PositionSensitive call
    cdef Py_ssize_t piece
    cdef bint ready
    call.source, call.target = &grad_output[0, 0, 0, 0], &grad_input[0, 0, 0, 0]
    with nogil:
        ready = open_position_sensitive(
            &call, grad_input.shape, grad_output.shape, &boxes[0, 0], True, spatial_scale, sampling_ratio,
            quantised, single, channels_last, threads,
        )
        while ready and next_portion(&call, &boxes[0, 0]):
            # Who owns what: a piece its channels of its rows of its image; it sums RoI after RoI.
            for piece in prange(
                call.images * call.blocks * call.parts, num_threads=call.threads, schedule="dynamic",
                use_threads_if=call.threads > 1,
            ):
                unpool_sensitive_piece(
                    &call, piece // (call.blocks * call.parts), piece // call.parts % call.blocks,
                    piece % call.parts,
                )
        close_position_sensitive(&call)
    if not ready:
        raise MemoryError("no memory for the tables of position_sensitive_backward")
