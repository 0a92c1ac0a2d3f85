# Entry points of the kernels: typed memoryviews in, schedules, the GIL released.
#
# setup.py compiles this file once for each SIMD level and type of number, as avx2_float32 and so on.

from libc.string cimport memset

include "average.pxi"
include "geometry.pxi"
include "plan.pxi"

cdef enum:
    PIECES = 8  # as many pieces a thread, where there is work enough, so that threads end together
    PIXEL_CHANNELS = 256  # the widest block of a channels-last map
    SCRATCH = 1 << 17  # numbers in the scratch of a thread, about
    SERIAL_BINS = 4096  # fewer results than this gain nothing from threads: benchmarks/latency.py


def first_bad_box(
    const double[:, ::1] boxes, Py_ssize_t images, double spatial_scale, bint aligned, bint single
):
    """The first row of boxes for which no result is defined, or -1."""
    cdef Py_ssize_t k, bad = -1
    with nogil:
        for k in range(boxes.shape[0]):
            if (
                not 0 <= boxes[k, 0] < images
                or boxes[k, 0] != floor(boxes[k, 0])
                or single and not is_defined[float](&boxes[k, 0], <float> spatial_scale, aligned)
                or not single and not is_defined[double](&boxes[k, 0], spatial_scale, aligned)
            ):
                bad = k
                break
    return bad


def roi_align(
    const real[:, :, :, ::1] input, const double[:, ::1] boxes, real[:, :, :, ::1] output,
    double spatial_scale, int sampling_ratio, bint aligned, bint single, bint channels_last, int threads,
):
    """Fill output (K, C, PH, PW) from input (N, C, H, W), or both with the channels last.

    Pieces are blocks of channels times runs of RoIs; each writes its own part of the output. Blocks are
    the outer loop: while the RoIs visit it in spatial order, a block of the map stays in the cache.
    """
    cdef Py_ssize_t channels = input.shape[3 if channels_last else 1]
    cdef Sampling sampling
    cdef Plan plan
    cdef Py_ssize_t pixels, width, blocks, runs, piece, first = 0, scratch_reals, rois = boxes.shape[0]
    cdef real* scratch = NULL
    cdef bint ready
    describe(
        &sampling, input.shape, output.shape, spatial_scale, sampling_ratio, aligned, single, channels_last
    )
    if rois * channels * sampling.bins_y * sampling.bins_x < SERIAL_BINS:
        threads = 1
    with nogil:
        if channels_last:
            pixels = min(sampling.width, most_taps(sampling.bins_x, sampling.ratio, sampling.width))
            width = pixel_block(channels, pixels, PIECES * threads // rois + 1)
            ready = open_plan(&plan, &sampling, rois, False, 1, sampling.width * channels, width, threads)
            scratch_reals = plan.strips * width
        else:
            width = LANES
            ready = open_plan(&plan, &sampling, rois, False, LANES, sampling.width, LANES, threads)
            scratch_reals = SLAB * (plan.strips * LANES + sampling.bins_x + LANES) * LANES
        blocks = (channels + width - 1) // width
        runs = max(1, min(plan.capacity, (PIECES * threads + blocks - 1) // blocks))
        scratch = <real*> malloc(threads * scratch_reals * sizeof(real))
        ready = ready and scratch != NULL
        while ready and first < rois:
            make_plan(&plan, &boxes[0, 0], first, rois, threads)
            # Who owns what: the piece its channels of its RoIs' output, the thread its scratch.
            for piece in prange(
                blocks * runs, num_threads=threads, schedule="dynamic", use_threads_if=threads > 1
            ):
                forward_piece(
                    &input[0, 0, 0, 0], &output[0, 0, 0, 0], &plan, channels, channels_last,
                    piece // runs * width, width, piece % runs, runs, scratch + threadid() * scratch_reals,
                )
            first += plan.count
        free(scratch)
        close_plan(&plan)
    if not ready:
        raise MemoryError("no memory for the tables of roi_align")


def roi_align_backward(
    const real[:, :, :, ::1] grad_output, const double[:, ::1] boxes, real[:, :, :, ::1] grad_input,
    double spatial_scale, int sampling_ratio, bint aligned, bint single, bint channels_last, int threads,
):
    """Fill grad_input (N, C, H, W) from grad_output (K, C, PH, PW), or both with the channels last.

    Pieces are images times blocks of channels times groups of rows. Each zeroes and sums its own part of
    the gradient, RoI after RoI in the order of the plan: no atomics, and the same bits for any threads.
    """
    cdef Py_ssize_t channels = grad_input.shape[3 if channels_last else 1], images = grad_input.shape[0]
    cdef Sampling sampling
    cdef Plan plan
    cdef Py_ssize_t width, blocks, groups, piece, first = 0, scratch_reals, rois = boxes.shape[0]
    cdef real* scratch = NULL
    cdef bint ready
    describe(
        &sampling, grad_input.shape, grad_output.shape, spatial_scale, sampling_ratio, aligned, single,
        channels_last,
    )
    if rois * channels * sampling.bins_y * sampling.bins_x < SERIAL_BINS:
        threads = 1
    with nogil:
        if channels_last:
            width = pixel_block(channels, sampling.bins_x, 1)
            ready = open_plan(&plan, &sampling, rois, True, 1, sampling.bins_x * channels, width, threads)
            scratch_reals = sampling.bins_x * width
        else:
            width = LANES
            ready = open_plan(&plan, &sampling, rois, True, LANES, sampling.bins_x, LANES, threads)
            scratch_reals = SLAB * (sampling.bins_x + 2 * LANES) * LANES
        blocks = (channels + width - 1) // width
        groups = max(1, min(sampling.height, (PIECES * threads + images * blocks - 1) // (images * blocks)))
        scratch = <real*> malloc(threads * scratch_reals * sizeof(real))
        ready = ready and scratch != NULL
        while ready and first < rois:
            make_plan(&plan, &boxes[0, 0], first, rois, threads)
            # Who owns what: the piece its channels of its rows of its image, the thread its scratch.
            for piece in prange(
                images * blocks * groups, num_threads=threads, schedule="dynamic", use_threads_if=threads > 1
            ):
                backward_piece(
                    &grad_output[0, 0, 0, 0], &grad_input[0, 0, 0, 0], &plan, rois, channels, channels_last,
                    piece // (blocks * groups), piece // groups % blocks * width, width,
                    piece % groups, groups, first == 0, scratch + threadid() * scratch_reals,
                )
            first += plan.count
        free(scratch)
        close_plan(&plan)
    if not ready:
        raise MemoryError("no memory for the tables of roi_align_backward")


cdef void describe(
    Sampling* sampling, const Py_ssize_t* map_shape, const Py_ssize_t* bins_shape,
    double spatial_scale, int sampling_ratio, bint aligned, bint single, bint channels_last,
) noexcept:
    cdef int y = 1 if channels_last else 2
    sampling.height, sampling.width = map_shape[y], map_shape[y + 1]
    sampling.bins_y, sampling.bins_x = bins_shape[y], bins_shape[y + 1]
    sampling.ratio = max(sampling_ratio, 0)
    sampling.scale, sampling.aligned, sampling.single = spatial_scale, aligned, single


cdef Py_ssize_t pixel_block(Py_ssize_t channels, Py_ssize_t pixels, Py_ssize_t blocks) noexcept nogil:
    """Channels a block of a channels-last map: whole pixels if they are short, and at least `blocks`."""
    cdef Py_ssize_t width = channels if channels <= PIXEL_CHANNELS else PIXEL_CHANNELS // 2
    width = min(width, SCRATCH // max(pixels, 1), channels // blocks)
    return max(width // (4 * LANES) * 4 * LANES, min(channels, 4 * LANES)) if width < channels else channels


cdef void forward_piece(
    const real* input, real* output, const Plan* plan, Py_ssize_t channels, bint channels_last,
    Py_ssize_t channel, Py_ssize_t width, Py_ssize_t run, Py_ssize_t runs, real* scratch,
) noexcept nogil:
    cdef const Sampling* shape = &plan.sampling
    cdef Py_ssize_t i, n = min(width, channels - channel)
    for i in range(plan.count * run // runs, plan.count * (run + 1) // runs):
        if channels_last:
            forward_pixels(input, output, shape, channels, plan.rois + i, channel, n, width, scratch)
        else:
            forward_planes(
                input, output, shape, channels, plan.rois + i, channel, plan.strips, scratch
            )


cdef void backward_piece(
    const real* grad_output, real* grad_input, const Plan* plan, Py_ssize_t rois,
    Py_ssize_t channels, bint channels_last, Py_ssize_t image, Py_ssize_t channel, Py_ssize_t width,
    Py_ssize_t group, Py_ssize_t groups, bint zero, real* scratch,
) noexcept nogil:
    cdef const Sampling* shape = &plan.sampling
    cdef Py_ssize_t i, n = min(width, channels - channel), plane = shape.height * shape.width
    cdef Py_ssize_t begin = shape.height * group // groups, end = shape.height * (group + 1) // groups
    cdef real* target
    if zero and channels_last:
        target = grad_input + (image * plane + begin * shape.width) * channels + channel
        for i in range((end - begin) * shape.width):
            memset(target + i * channels, 0, n * sizeof(real))
    elif zero:
        target = grad_input + (image * channels + channel) * plane + begin * shape.width
        for i in range(n):
            memset(target + i * plane, 0, (end - begin) * shape.width * sizeof(real))
    i = first_of_image(plan, image)
    while i < plan.count and plan.rois[i].image == image:
        if channels_last:
            backward_pixels(
                grad_output, grad_input, shape, channels, plan.rois + i, channel, n, width, begin, end,
                scratch,
            )
        else:
            backward_planes(
                grad_output, grad_input, shape, channels, rois, plan.rois + i, channel, begin, end, scratch
            )
        i += 1


cdef Py_ssize_t first_of_image(const Plan* plan, Py_ssize_t image) noexcept nogil:
    cdef Py_ssize_t low = 0, high = plan.count, middle
    while low < high:
        middle = (low + high) // 2
        if plan.rois[middle].image < image:
            low = middle + 1
        else:
            high = middle
    return low
