# The arithmetic of every operator, for one SIMD level and one type of map, as a table of functions.
#
# Translated to C once; setup.py compiles that once for each level and type, as avx2_float32 and so on: flags
# of the compiler name the level, a macro the type (see numbers.h). No function here fails or allocates.

from cpython.pycapsule cimport PyCapsule_New
from libc.float cimport DBL_MAX, FLT_MAX
from libc.limits cimport INT_MAX
from libc.math cimport INFINITY, ceil, fabs, floor, nextafter
from libc.string cimport memset

from call cimport *

include "lanes.pxi"
include "addresses.pxi"
include "weighted_sum.pxi"
include "sparse.pxi"
include "packed.pxi"
include "mean.pxi"
include "box_gradient.pxi"
include "maximum.pxi"
include "roi_pool.pxi"
include "position_sensitive.pxi"
include "../geometry/grid.pxi"
include "../geometry/rotated.pxi"
include "rotated.pxi"

cdef extern from "kernels/numbers.h":
    int KIND
    bint WHOLE_FAMILY  # all operators have kernels for this type

cdef Table functions
functions.kind, functions.lanes = KIND, LANES
functions.real_bytes, functions.pooled_bytes = sizeof(real), sizeof(pooled)
functions.narrow, functions.sources = NARROW, CYROIALIGN_SOURCES
functions.work[FORWARD][MEAN] = functions.work[FORWARD][PRROI_POOL] = mean_forward
functions.work[BACKWARD][MEAN] = functions.work[BACKWARD][PRROI_POOL] = mean_backward
functions.work[FORWARD][CROP_BILINEAR] = functions.work[FORWARD][CROP_NEAREST] = mean_forward
functions.work[BACKWARD][CROP_BILINEAR] = functions.work[BACKWARD][CROP_NEAREST] = mean_backward
if WHOLE_FAMILY:
    functions.work[BOXES_BACKWARD][MEAN] = boxes_backward
    functions.work[BOXES_BACKWARD][PRROI_POOL] = boxes_backward
    functions.work[BOXES_BACKWARD][CROP_BILINEAR] = boxes_backward
    functions.work[FORWARD][MAX] = functions.work[FORWARD][ONNX_MAX] = maximum_forward
    functions.work[BACKWARD][MAX] = functions.work[BACKWARD][ONNX_MAX] = maximum_backward
    functions.work[FORWARD][ROI_POOL] = roi_pool_forward
    functions.work[BACKWARD][ROI_POOL] = roi_pool_backward
    functions.work[FORWARD][PS_ROI_ALIGN] = position_sensitive_forward
    functions.work[FORWARD][PS_ROI_POOL] = position_sensitive_forward
    functions.work[BACKWARD][PS_ROI_ALIGN] = position_sensitive_backward
    functions.work[BACKWARD][PS_ROI_POOL] = position_sensitive_backward
    functions.work[FORWARD][ROI_ALIGN_ROTATED] = rotated_forward
    functions.work[BACKWARD][ROI_ALIGN_ROTATED] = rotated_backward

table = PyCapsule_New(&functions, "cyroialign.table", NULL)
