# Entry points: memoryviews in, settings in a structure, the schedule of every operator, the GIL released.
#
# Compiled once, for any processor. What depends on the type of map or the SIMD level is behind a table of
# functions, which a module of the kernels brings (see src/kernels/kernels.pyx).

from cpython.pycapsule cimport PyCapsule_GetPointer
from cython.parallel cimport prange, threadid
from libc.math cimport round as round_half_away
from libc.math cimport INFINITY, ceil, fabs, floor, isfinite, nextafter
from libc.stdio cimport fputs, stderr
from libc.stdlib cimport abort, free, malloc, qsort
from libc.string cimport memcpy, memset

from call cimport *

cdef extern from "once/team.h" nogil:
    int threads_to_be_had(int wanted)

cdef extern from "once/load.h" nogil:
    long long wall_ns()
    long long thread_ns()
    int threads_worth_having(int most)
    void note_call(int threads, long long wall, long long computed)

cdef enum:
    LINE_BYTES = 64  # of the caches: vectors that cross a line cost twice

include "../geometry/grid.pxi"
include "../geometry/axis.pxi"
include "../geometry/samples.pxi"
include "../geometry/candidates.pxi"
include "../geometry/derivatives.pxi"
include "../geometry/ranges.pxi"
include "../geometry/hats.pxi"
include "../geometry/volumes.pxi"
include "../geometry/crops.pxi"
include "../geometry/rules.pxi"
include "../geometry/frames.pxi"
include "boxes.pxi"
include "memory.pxi"
include "plan.pxi"
include "shapes.pxi"
include "schedule.pxi"
include "views.pxi"
include "paste.pxi"


def threads_now(int most):
    """Of the threads that a call may have, those that it would have now if nobody asked for a number."""
    return threads_worth_having(most)


def note(int threads, long long wall, long long computed):
    """Note a call: its threads, its nanoseconds from begin to end, and those that all threads computed."""
    note_call(threads, wall, computed)


cdef class CallSettings:
    """What a call says beside its arrays and boxes: see Settings in call.pxd."""

    cdef Settings settings

    def __cinit__(
        self, int pooling, Py_ssize_t bins_y, Py_ssize_t bins_x, int ratio, bint channels_last, int threads,
        bint at_most=False, Py_ssize_t depth=0, Py_ssize_t bins_z=0, const unsigned char[::1] outside=None,
    ):
        """outside: the bytes of what crop_and_resize gives bins outside the map, unless it is 0."""
        self.settings.pooling = pooling
        self.settings.bins_y, self.settings.bins_x, self.settings.ratio = bins_y, bins_x, ratio
        self.settings.channels_last = channels_last
        self.settings.threads, self.settings.at_most = threads, at_most
        self.settings.depth, self.settings.bins_z = depth, bins_z
        self.settings.outside_bytes = 0
        if outside is not None:
            self.settings.outside_bytes = min(<size_t> outside.shape[0], sizeof(self.settings.outside))
            memcpy(self.settings.outside, &outside[0], self.settings.outside_bytes)


cdef class Kernels:
    """The kernels of one SIMD level for one type of map.

    Maps and gradients to them come as tuples, an array a level of a pyramid; a single map is a pyramid of one
    level. Every array is C-contiguous, in the order that the settings name, of this type, and not empty. The
    slices of a volume lie one below the other, and so do its bins: (N, C, D * H, W), (K, C, PD * PH, PW).
    """

    cdef const Table* table

    def __cinit__(self, table):
        self.table = <const Table*> PyCapsule_GetPointer(table, "cyroialign.table")
        if self.table.sources != CYROIALIGN_SOURCES:
            raise ImportError("the compiled modules of cyroialign were not built together: build all again")

    def can(self, int direction, int pooling):
        """Whether there are kernels that read and write maps of this type as they are."""
        return self.table.work[direction][pooling] != NULL

    def forward(
        self, CallSettings settings, tuple maps, RoIs rois, result, int[:, :, :, ::1] argmax=None
    ):
        """Fill the result (K, C, PH, PW), or (K, PH, PW, C), and the argmax of roi_pool, if there is one."""
        cdef int* winners = NULL if argmax is None else &argmax[0, 0, 0, 0]
        self.run(FORWARD, settings, maps, None, rois, result, NULL, winners)

    def backward(
        self, CallSettings settings, grad_result, tuple maps, RoIs rois, tuple grad_maps,
        const int[:, :, :, ::1] argmax=None,
    ):
        """Fill the gradients to the maps, which are None where the gradient does not depend on them."""
        cdef int* winners = NULL if argmax is None else <int*> &argmax[0, 0, 0, 0]
        self.run(BACKWARD, settings, maps, grad_maps, rois, grad_result, NULL, winners)

    def boxes_backward(
        self, CallSettings settings, grad_result, tuple maps, RoIs rois, double[:, ::1] grad_boxes
    ):
        """Fill the gradient to the corners of the boxes, (K, 4)."""
        self.run(BOXES_BACKWARD, settings, maps, None, rois, grad_result, &grad_boxes[0, 0], NULL)

    cdef int run(
        self, int direction, CallSettings settings, tuple maps, tuple grad_maps, RoIs rois, object result,
        double* grad_boxes, int* argmax,
    ) except -1:
        cdef Call call
        cdef Level single
        cdef View view = view_of_result(self.table.kind, result, direction == FORWARD)
        cdef bint channels_last = settings.settings.channels_last
        memset(&call, 0, sizeof(call))
        call.settings, call.direction, call.table = settings.settings, direction, self.table
        call.settings.aligned, call.settings.single = rois.aligned, rois.single
        call.settings.clockwise = rois.clockwise
        call.boxes, call.rois = &rois.boxes[0, 0], rois.boxes.shape[0]
        call.box_numbers = rois.boxes.shape[1]
        if rois.levels is not None:
            call.level_of_box = &rois.levels[0]
        call.bins, call.channels = <pooled*> view.at, view.shape[3 if channels_last else 1]
        call.grad_boxes, call.argmax = grad_boxes, argmax
        call.level_count, call.levels = len(rois.scales), &single
        if call.level_count > 1:
            call.levels = <Level*> malloc(call.level_count * sizeof(Level))
            if call.levels == NULL:
                raise MemoryError("no memory for the table of levels")
        try:
            self.note_levels(&call, maps, grad_maps, rois)
            carry_out(&call)
        finally:
            if call.levels != &single:
                free(call.levels)
        return 0

    cdef int note_levels(self, Call* call, tuple maps, tuple grad_maps, RoIs rois) except -1:
        cdef Py_ssize_t i
        cdef bint channels_last = call.settings.channels_last
        cdef Level* level
        cdef View view
        for i in range(call.level_count):
            level = call.levels + i
            level.map, level.gradient = NULL, NULL
            if maps is not None:
                view = view_of_map(self.table.kind, maps[i])
                level.map = <const pixel*> view.at
            if grad_maps is not None:
                view = view_of_result(self.table.kind, grad_maps[i], True)
                level.gradient = <pooled*> view.at
            call.images, call.map_channels = view.shape[0], view.shape[3 if channels_last else 1]
            level.height, level.width = view.shape[2 - channels_last], view.shape[3 - channels_last]
            level.scale_z = 1
            if call.settings.depth:
                level.scale_z, level.scale_y, level.scale_x = rois.scales[i]
            else:
                level.scale_y, level.scale_x = rois.scales[i]
        return 0


include "plain.pxi"
