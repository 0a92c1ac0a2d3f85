# Entry points of the kernels: typed memoryviews in, schedules, the GIL released.
#
# setup.py compiles this file once for each SIMD level and type of number, as avx2_float32 and so on.

from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY, ceil, floor, isfinite, nextafter
from libc.stdio cimport fputs, stderr
from libc.stdlib cimport abort, calloc, free, malloc, qsort
from libc.string cimport memset

include "lanes.pxi"
include "geometry.pxi"
include "plan.pxi"
include "call.pxi"
include "average.pxi"
include "slopes.pxi"
include "box_gradient.pxi"
include "extremes.pxi"
include "maximum_call.pxi"
include "maximum.pxi"
include "ranges.pxi"
include "roi_pool.pxi"
include "position_sensitive.pxi"


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
    """Fill output (K, C, PH, PW) from input (N, C, H, W), or both with the channels last; none is empty."""
    cdef Call call
    cdef Py_ssize_t piece, first = 0
    cdef bint ready
    call.source, call.target = &input[0, 0, 0, 0], &output[0, 0, 0, 0]
    with nogil:
        ready = open_call(
            &call, input.shape, output.shape, False, spatial_scale, sampling_ratio, aligned, single,
            channels_last, threads,
        )
        while ready and first < call.rois:
            make_plan(&call.plan, &boxes[0, 0], first, call.rois, call.threads)
            # Who owns what: a piece its channels of its bins of the output, a thread its scratch and turns.
            for piece in prange(
                call.blocks * call.belts * call.parts, num_threads=call.threads, schedule="dynamic",
                use_threads_if=call.threads > 1,
            ):
                forward_piece(
                    &call, piece // (call.belts * call.parts), piece // call.parts % call.belts,
                    piece % call.parts, threadid(),
                )
            first += call.plan.count
        close_call(&call)
    if not ready:
        raise MemoryError("no memory for the tables of roi_align")


def roi_align_backward(
    const real[:, :, :, ::1] grad_output, const double[:, ::1] boxes, real[:, :, :, ::1] grad_input,
    double spatial_scale, int sampling_ratio, bint aligned, bint single, bint channels_last, int threads,
):
    """Fill grad_input (N, C, H, W) from grad_output (K, C, PH, PW), or both with the channels last.

    Each piece zeroes and sums its own part of the gradient, RoI after RoI in the order of the plan: no
    atomics, and the same bits for any threads.
    """
    cdef Call call
    cdef Py_ssize_t piece, first = 0
    cdef bint ready
    call.source, call.target = &grad_output[0, 0, 0, 0], &grad_input[0, 0, 0, 0]
    with nogil:
        ready = open_call(
            &call, grad_input.shape, grad_output.shape, True, spatial_scale, sampling_ratio, aligned, single,
            channels_last, threads,
        )
        while ready and first < call.rois:
            make_plan(&call.plan, &boxes[0, 0], first, call.rois, call.threads)
            # Who owns what: a piece its channels of its rows of its image, a thread its scratch.
            for piece in prange(
                call.images * call.blocks * call.belts, num_threads=call.threads, schedule="dynamic",
                use_threads_if=call.threads > 1,
            ):
                backward_piece(
                    &call, piece // (call.blocks * call.belts), piece // call.belts % call.blocks,
                    piece % call.belts, first == 0, threadid(),
                )
            first += call.plan.count
        close_call(&call)
    if not ready:
        raise MemoryError("no memory for the tables of roi_align_backward")


cdef void forward_piece(
    const Call* call, Py_ssize_t block, Py_ssize_t belt, Py_ssize_t part, int thread
) noexcept nogil:
    cdef real* scratch = call.scratch + thread * call.scratch_reals
    cdef Turn* turns = call.turns + thread * TURNS
    cdef Py_ssize_t count = call.plan.count, i, n, image
    cdef const RoI* rois = call.plan.rois
    if not call.channels_last:
        for i in range(count * part // call.parts, count * (part + 1) // call.parts):
            forward_planes(call, rois + i, block * call.width, scratch)
        return
    # RoIs are in the order of their rows: for the same work in each of its parts, a belt deals them out.
    i = part
    while i < count:
        n, image = 0, rois[i].image
        while i < count and n < TURNS and rois[i].image == image:
            n += take_turn(rois + i, belt * BELT, turns + n)
            i += call.parts
        sweep(call, block * call.width, turns, n, scratch)


cdef inline bint take_turn(const RoI* roi, Py_ssize_t first_row, Turn* turn) noexcept nogil:
    """Note the bins of a RoI that begin in a belt; False where none does."""
    cdef int y = 0, lines = roi.y.lines
    if not (roi.top < first_row + BELT and first_row < roi.bottom):
        return False
    while y < lines and not first_row <= roi.first_row[y] < first_row + BELT:
        y += 1
    turn.roi, turn.first_y, turn.x = roi, y, 0
    while y < lines and first_row <= roi.first_row[y] < first_row + BELT:
        y += 1
    turn.last_y = y
    return turn.first_y < y


cdef void sweep(
    const Call* call, Py_ssize_t channel, Turn* turns, Py_ssize_t n, real* scratch
) noexcept nogil:
    """Pool the bins of all turns from left to right: what is near on the map is read together."""
    cdef int x, bins = <int> call.plan.sampling.bins_x
    cdef Py_ssize_t column = 0, i
    cdef Turn* turn
    while column < call.plan.sampling.width:
        column += BELT
        for i in range(n):
            turn = turns + i
            x = turn.x
            while x < bins and turn.roi.first_column[x] < column:
                x += 1
            if x > turn.x:
                forward_pixels(call, turn.roi, channel, turn.first_y, turn.last_y, turn.x, x, scratch)
                turn.x = x


cdef void backward_piece(
    const Call* call, Py_ssize_t image, Py_ssize_t block, Py_ssize_t belt, bint zero, int thread
) noexcept nogil:
    cdef real* scratch = call.scratch + thread * call.scratch_reals
    cdef Py_ssize_t height = call.plan.sampling.height, channel = block * call.width
    cdef Py_ssize_t first_row = height * belt // call.belts, last_row = height * (belt + 1) // call.belts
    cdef Py_ssize_t i = first_of_image(&call.plan, image)
    cdef const RoI* roi
    if zero:
        zero_rows(call, image, channel, first_row, last_row)
    while i < call.plan.count and call.plan.rois[i].image == image:
        roi = call.plan.rois + i
        if roi.top < last_row and first_row < roi.bottom:
            if call.channels_last:
                backward_pixels(call, roi, channel, first_row, last_row, scratch)
            else:
                backward_planes(call, roi, channel, first_row, last_row, scratch)
        i += 1


cdef void zero_rows(
    const Call* call, Py_ssize_t image, Py_ssize_t channel, Py_ssize_t first_row, Py_ssize_t last_row
) noexcept nogil:
    cdef Py_ssize_t width = call.plan.sampling.width, n = min(call.width, call.channels - channel)
    cdef Py_ssize_t plane = call.plan.sampling.height * width, pixels = (last_row - first_row) * width, i
    if call.channels_last:
        for i in range(image * plane + first_row * width, image * plane + first_row * width + pixels):
            memset(call.target + i * call.channels + channel, 0, n * sizeof(real))
    else:
        for i in range(image * call.channels + channel, image * call.channels + channel + n):
            memset(call.target + i * plane + first_row * width, 0, pixels * sizeof(real))
