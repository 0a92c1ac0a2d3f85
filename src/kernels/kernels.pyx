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

cdef Table table_of_functions
table_of_functions.kind, table_of_functions.lanes = KIND, LANES
table_of_functions.real_bytes, table_of_functions.pooled_bytes = sizeof(real), sizeof(pooled)
table_of_functions.narrow, table_of_functions.call_bytes = NARROW, sizeof(Call)
table_of_functions.work[FORWARD][MEAN] = table_of_functions.work[FORWARD][PRROI_POOL] = mean_forward
table_of_functions.work[BACKWARD][MEAN] = table_of_functions.work[BACKWARD][PRROI_POOL] = mean_backward
if WHOLE_FAMILY:
    table_of_functions.work[BOXES_BACKWARD][MEAN] = boxes_backward
    table_of_functions.work[FORWARD][MAX] = table_of_functions.work[FORWARD][ONNX_MAX] = maximum_forward
    table_of_functions.work[BACKWARD][MAX] = table_of_functions.work[BACKWARD][ONNX_MAX] = maximum_backward
    table_of_functions.work[FORWARD][ROI_POOL] = roi_pool_forward
    table_of_functions.work[BACKWARD][ROI_POOL] = roi_pool_backward
    table_of_functions.work[FORWARD][PS_ROI_ALIGN] = position_sensitive_forward
    table_of_functions.work[FORWARD][PS_ROI_POOL] = position_sensitive_forward
    table_of_functions.work[BACKWARD][PS_ROI_ALIGN] = position_sensitive_backward
    table_of_functions.work[BACKWARD][PS_ROI_POOL] = position_sensitive_backward
    table_of_functions.work[FORWARD][ROI_ALIGN_ROTATED] = rotated_forward
    table_of_functions.work[BACKWARD][ROI_ALIGN_ROTATED] = rotated_backward

table = PyCapsule_New(&table_of_functions, "cyroialign.table", NULL)
