# Entry points: memoryviews in, settings in a structure, the schedule of every operator, the GIL released.
#
# Compiled once, for any processor. What depends on the type of map or the SIMD level is behind a table of
# functions, which a module of the kernels brings (see src/kernels/kernels.pyx).

from cpython.pycapsule cimport PyCapsule_GetPointer
from cython.parallel cimport prange, threadid
from libc.math cimport INFINITY, ceil, floor, isfinite, nextafter
from libc.stdio cimport fputs, stderr
from libc.stdlib cimport abort, calloc, free, malloc, qsort
from libc.string cimport memset

from call cimport *

cdef extern from "once/team.h" nogil:
    int threads_to_be_had(int wanted)

cdef enum:
    LINE_BYTES = 64  # of the caches: vectors that cross a line cost twice

include "geometry/grid.pxi"
include "geometry/axis.pxi"
include "geometry/samples.pxi"
include "geometry/candidates.pxi"
include "geometry/derivatives.pxi"
include "geometry/ranges.pxi"
include "geometry/rules.pxi"
include "once/boxes.pxi"
include "once/memory.pxi"
include "once/plan.pxi"
include "once/shapes.pxi"
include "once/schedule.pxi"
include "once/views.pxi"


cdef class CallSettings:
    """What a call says of all its boxes: see Settings in call.pxd."""

    cdef Settings settings

    def __cinit__(
        self, int pooling, Py_ssize_t bins_y, Py_ssize_t bins_x, int ratio, bint aligned, bint single,
        bint channels_last, int threads,
    ):
        self.settings.pooling = pooling
        self.settings.bins_y, self.settings.bins_x = bins_y, bins_x
        self.settings.ratio, self.settings.aligned, self.settings.single = ratio, aligned, single
        self.settings.channels_last, self.settings.threads = channels_last, threads


cdef class Kernels:
    """The kernels of one SIMD level for one type of map.

    Maps and gradients to them come as tuples, an array a level of a pyramid; a single map is a pyramid of one
    level. scales has a row of (y, x) for each level; levels, or None, is the level of each box. Every array is
    C-contiguous, in the order that the settings name, of this type, and not empty.
    """

    cdef const Table* table

    def __cinit__(self, table):
        self.table = <const Table*> PyCapsule_GetPointer(table, "cyroialign.table")

    def can(self, int direction, int pooling):
        """Whether there are kernels that read and write maps of this type as they are."""
        return self.table.work[direction][pooling] != NULL

    def forward(
        self, CallSettings settings, tuple maps, const double[:, ::1] scales,
        const double[:, ::1] boxes, const Py_ssize_t[::1] levels, result,
    ):
        """Fill the result (K, C, PH, PW), or (K, PH, PW, C)."""
        self.run(FORWARD, settings, maps, None, scales, boxes, levels, result, None)

    def backward(
        self, CallSettings settings, grad_result, tuple maps, const double[:, ::1] scales,
        const double[:, ::1] boxes, const Py_ssize_t[::1] levels, tuple grad_maps,
    ):
        """Fill the gradients to the maps, which are None where the gradient does not depend on them."""
        self.run(BACKWARD, settings, maps, grad_maps, scales, boxes, levels, grad_result, None)

    def boxes_backward(
        self, CallSettings settings, grad_result, tuple maps, const double[:, ::1] scales,
        const double[:, ::1] boxes, double[:, ::1] grad_boxes,
    ):
        """Fill the gradient to the corners of the boxes, (K, 4)."""
        self.run(BOXES_BACKWARD, settings, maps, None, scales, boxes, None, grad_result, grad_boxes)

    cdef int run(
        self, int direction, CallSettings settings, tuple maps, tuple grad_maps,
        const double[:, ::1] scales, const double[:, ::1] boxes, const Py_ssize_t[::1] levels,
        object result, double[:, ::1] grad_boxes,
    ) except -1:
        cdef Call call
        cdef Py_ssize_t count = len(maps if grad_maps is None else grad_maps), i
        cdef int channel_axis = 3 if settings.settings.channels_last else 1
        cdef View view = view_of_result(self.table.kind, result, direction == FORWARD)
        memset(&call, 0, sizeof(call))
        call.settings, call.direction, call.table = settings.settings, direction, self.table
        call.boxes, call.bins = &boxes[0, 0], <pooled*> view.at
        call.rois, call.channels = view.shape[0], view.shape[channel_axis]
        if levels is not None:
            call.level_of_box = &levels[0]
        if grad_boxes is not None:
            call.grad_boxes = &grad_boxes[0, 0]
        call.level_count = count
        call.levels = <Level*> calloc(count, sizeof(Level))
        if call.levels == NULL:
            raise MemoryError("no memory for the table of levels")
        try:
            for i in range(count):
                if maps is not None:
                    view = view_of_map(self.table.kind, maps[i])
                    call.levels[i].map = <const pixel*> view.at
                if grad_maps is not None:
                    view = view_of_result(self.table.kind, grad_maps[i], True)
                    call.levels[i].gradient = <pooled*> view.at
                call.images, call.map_channels = view.shape[0], view.shape[channel_axis]
                call.levels[i].height = view.shape[2 - settings.settings.channels_last]
                call.levels[i].width = view.shape[3 - settings.settings.channels_last]
                call.levels[i].scale_y, call.levels[i].scale_x = scales[i, 0], scales[i, 1]
            carry_out(&call)
        finally:
            free(call.levels)
        return 0
