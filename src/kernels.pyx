# Entry points of the kernels: typed memoryviews in, schedules, the GIL released.
#
# setup.py compiles this file once for each SIMD level and type of map, as avx2_float32 and so on: it declares
# the types `real`, `pixel` and `pooled` (see storage.h) and includes this file and, where maps are of real
# numbers, family.pxi.

from cython.parallel cimport prange, threadid
from libc.limits cimport INT_MAX
from libc.math cimport INFINITY, ceil, floor, isfinite, nextafter
from libc.stdio cimport fputs, stderr
from libc.stdlib cimport abort, calloc, free, malloc, qsort
from libc.string cimport memset

include "lanes.pxi"
include "geometry.pxi"
include "plan.pxi"
include "call.pxi"
include "blend.pxi"
include "average.pxi"


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
    const pixel[:, :, :, ::1] input, const double[:, ::1] boxes, pooled[:, :, :, ::1] output,
    double spatial_scale, int sampling_ratio, bint aligned, bint single, bint channels_last, int threads,
):
    """Fill output (K, C, PH, PW) from input (N, C, H, W), or both with the channels last; none is empty."""
    cdef Level level
    set_level(
        &level, &input[0, 0, 0, 0], NULL, input.shape, output.shape,
        spatial_scale, sampling_ratio, aligned, single, channels_last,
    )
    carry_out(
        &level, 1, NULL, input.shape[0], boxes, &output[0, 0, 0, 0], output.shape, False, channels_last,
        threads,
    )


def roi_align_backward(
    const pooled[:, :, :, ::1] grad_output, const double[:, ::1] boxes, pooled[:, :, :, ::1] grad_input,
    double spatial_scale, int sampling_ratio, bint aligned, bint single, bint channels_last, int threads,
):
    """Fill grad_input (N, C, H, W) from grad_output (K, C, PH, PW), or both with the channels last."""
    cdef Level level
    set_level(
        &level, NULL, &grad_input[0, 0, 0, 0], grad_input.shape, grad_output.shape,
        spatial_scale, sampling_ratio, aligned, single, channels_last,
    )
    carry_out(
        &level, 1, NULL, grad_input.shape[0], boxes, &grad_output[0, 0, 0, 0], grad_output.shape, True,
        channels_last, threads,
    )


def roi_align_levels(
    tuple inputs, const double[::1] spatial_scales, const Py_ssize_t[::1] levels,
    const double[:, ::1] boxes, pooled[:, :, :, ::1] output,
    int sampling_ratio, bint aligned, bint single, bint channels_last, int threads,
):
    """`roi_align` with the map and the scale that the level of each box says."""
    cdef Level* maps = open_levels(
        inputs, None, spatial_scales, output.shape, sampling_ratio, aligned, single, channels_last
    )
    try:
        carry_out(
            maps, len(inputs), &levels[0], inputs[0].shape[0], boxes,
            &output[0, 0, 0, 0], output.shape, False, channels_last, threads,
        )
    finally:
        free(maps)


def roi_align_levels_backward(
    const pooled[:, :, :, ::1] grad_output, const double[::1] spatial_scales, const Py_ssize_t[::1] levels,
    const double[:, ::1] boxes, tuple grad_inputs,
    int sampling_ratio, bint aligned, bint single, bint channels_last, int threads,
):
    """`roi_align_backward` to all maps."""
    cdef Level* maps = open_levels(
        None, grad_inputs, spatial_scales, grad_output.shape, sampling_ratio, aligned, single, channels_last
    )
    try:
        carry_out(
            maps, len(grad_inputs), &levels[0], grad_inputs[0].shape[0], boxes,
            &grad_output[0, 0, 0, 0], grad_output.shape, True, channels_last, threads,
        )
    finally:
        free(maps)


cdef Level* open_levels(
    tuple inputs, tuple grad_inputs, const double[::1] spatial_scales, const Py_ssize_t* output_shape,
    int sampling_ratio, bint aligned, bint single, bint channels_last,
) except NULL:
    """A table of maps, of gradients to them, or of both; the tuples keep their memory where it is."""
    cdef Py_ssize_t i, count = len(inputs or grad_inputs)
    cdef const pixel[:, :, :, ::1] input
    cdef pooled[:, :, :, ::1] grad_input
    cdef const pixel* map = NULL
    cdef pooled* gradient = NULL
    cdef const Py_ssize_t* shape = NULL
    cdef Level* levels = <Level*> malloc(count * sizeof(Level))
    if levels == NULL:
        raise MemoryError("no memory for the table of levels")
    try:
        for i in range(count):
            if inputs is not None:
                input = inputs[i]
                map, shape = &input[0, 0, 0, 0], input.shape
            if grad_inputs is not None:
                grad_input = grad_inputs[i]
                gradient, shape = &grad_input[0, 0, 0, 0], grad_input.shape
            set_level(
                levels + i, map, gradient, shape, output_shape, spatial_scales[i], sampling_ratio, aligned,
                single, channels_last,
            )
    except BaseException:
        free(levels)
        raise
    return levels


cdef int carry_out(
    Level* levels, Py_ssize_t level_count, const Py_ssize_t* level_of_box, Py_ssize_t images,
    const double[:, ::1] boxes, const pooled* output, const Py_ssize_t* output_shape, bint backward,
    bint channels_last, int threads,
) except -1:
    """Either direction on any number of levels.

    A piece of forward owns its channels of its bins of the output. A piece of backward owns its channels of
    its rows of an image of a level: it zeroes them and adds RoI after RoI in the order of the plan, so that
    there are no atomics, and the same bits for any threads. A thread owns its scratch and turns.
    """
    cdef Call call
    cdef Py_ssize_t piece, first = 0
    cdef bint ready
    with nogil:
        ready = open_call(
            &call, levels, level_count, level_of_box, images, output, output_shape, backward, channels_last,
            threads,
        )
        while ready and first < call.rois:
            make_plan(&call.plan, &boxes[0, 0], first, call.rois, call.threads)
            for piece in prange(
                call.pieces, num_threads=call.threads, schedule="dynamic", use_threads_if=call.threads > 1
            ):
                if backward:
                    backward_piece(
                        &call, piece, first == 0, first + call.plan.count == call.rois, threadid()
                    )
                else:
                    forward_piece(&call, piece, threadid())
                    finish_streams()
            first += call.plan.count
        close_call(&call)
    if not ready:
        raise MemoryError("no memory for the tables of RoIAlign")
    return 0


cdef void forward_piece(const Call* call, Py_ssize_t piece, int thread) noexcept nogil:
    cdef const Level* level = find_level(call.plan.levels, &piece)
    cdef Py_ssize_t part = piece % level.parts, belt = piece // level.parts % level.belts
    cdef Py_ssize_t channel = piece // (level.belts * level.parts) * call.width
    cdef real* scratch = call.scratch + thread * call.scratch_reals
    cdef Turn* turns = call.turns + thread * TURNS
    cdef const RoI* rois = first_roi(call, level, 0)
    cdef Py_ssize_t count = first_roi(call, level + 1, 0) - rois, i, n, image
    cdef Py_ssize_t first_row = level.sampling.height * belt // level.belts
    cdef Py_ssize_t last_row = level.sampling.height * (belt + 1) // level.belts
    if not call.channels_last:
        for i in range(count * part // level.parts, count * (part + 1) // level.parts):
            forward_planes(call, rois + i, channel, scratch)
        return
    # RoIs are in the order of their rows: for the same work in each of its parts, a belt deals them out.
    i = part
    while i < count:
        n, image = 0, rois[i].image
        while i < count and n < TURNS and rois[i].image == image:
            n += take_turn(rois + i, first_row, last_row, turns + n)
            i += level.parts
        sweep(call, channel, turns, n, scratch)


cdef inline const RoI* first_roi(const Call* call, const Level* level, Py_ssize_t image) noexcept nogil:
    cdef const Plan* plan = &call.plan
    return plan.rois + visits_before(plan.visits, plan.count, level - plan.levels, image)


cdef inline bint take_turn(
    const RoI* roi, Py_ssize_t first_row, Py_ssize_t last_row, Turn* turn
) noexcept nogil:
    """Note the bins of a RoI that begin in a belt; False where none does."""
    cdef int y = 0, lines = roi.y.lines
    if not (roi.top < last_row and first_row < roi.bottom):
        return False
    while y < lines and not first_row <= roi.first_row[y] < last_row:
        y += 1
    turn.roi, turn.first_y, turn.x = roi, y, 0
    while y < lines and first_row <= roi.first_row[y] < last_row:
        y += 1
    turn.last_y = y
    return turn.first_y < y


cdef void sweep(
    const Call* call, Py_ssize_t channel, Turn* turns, Py_ssize_t n, real* scratch
) noexcept nogil:
    """Pool the bins of all turns from left to right: what is near on the map is read together.

    Tiles in which no bin begins are passed over.
    """
    cdef int x, bins = <int> call.plan.bins_x
    cdef Py_ssize_t end, next = 0, i
    cdef Turn* turn
    while next <= INT_MAX:
        end = next + BELT
        next = <Py_ssize_t> INT_MAX + 1
        for i in range(n):
            turn = turns + i
            x = turn.x
            while x < bins and turn.roi.first_column[x] < end:
                x += 1
            if x > turn.x:
                forward_pixels(call, turn.roi, channel, turn.first_y, turn.last_y, turn.x, x, scratch)
                turn.x = x
            if x < bins:
                next = min(next, <Py_ssize_t> turn.roi.first_column[x])


cdef void backward_piece(
    const Call* call, Py_ssize_t piece, bint begin, bint end, int thread
) noexcept nogil:
    """Add the RoIs of a plan to rows of a gradient: begin with zeros; in the end the sums are rounded."""
    cdef const Level* level = find_level(call.plan.levels, &piece)
    cdef Py_ssize_t height = level.sampling.height, belt = piece % level.belts
    cdef Py_ssize_t image = piece // (level.belts * call.blocks)
    cdef Py_ssize_t channel = piece // level.belts % call.blocks * call.width
    cdef Py_ssize_t area = call.plan.bins_y * call.plan.bins_x
    cdef Rows rows = rows_of(
        &level.sampling, call.channels, call.channels_last, image, channel, call.width,
        height * belt // level.belts, height * (belt + 1) // level.belts,
    )
    cdef const RoI* roi = first_roi(call, level, image)
    cdef const RoI* last = first_roi(call, level, image + 1)
    cdef Rows summed = rows
    cdef real* sums = level.sums
    cdef real* scratch = call.scratch + thread * call.scratch_reals
    cdef Py_ssize_t i
    if sums == NULL:
        sums = call.sums + thread * call.sums_reals
        summed.at, summed.pitch = 0, summed.length
    sums += summed.at
    if begin:
        zero_rows(sums, &summed)
    while roi < last:
        if roi.top < rows.last and rows.first < roi.bottom:
            if call.channels_last:
                backward_pixels(call, roi, sums, &summed, scratch)
            else:
                if roi + 1 < last:  # its bins lie far from these: benchmarks/backward.py, P4-box
                    prefetch_source(bins_of(call, roi + 1, rows.channel), rows.count * area * sizeof(pooled))
                backward_planes(call, roi, sums, &summed, scratch)
        roi += 1
    if NARROW and end:
        for i in range(rows.count):
            round_off(level.gradient + rows.at + i * rows.pitch, sums + i * summed.pitch, rows.length)
