# The operators whose maps are of real numbers: all but average RoIAlign.

include "slopes.pxi"
include "box_gradient.pxi"
include "extremes.pxi"
include "maximum_call.pxi"
include "maximum.pxi"
include "ranges.pxi"
include "roi_pool.pxi"
include "position_sensitive.pxi"


cdef void order_visits(
    Visit* visits, const Sampling* sampling, const double* boxes, Py_ssize_t first, Py_ssize_t count
) noexcept nogil:
    """The visits of `count` boxes of one map, from `first` on."""
    cdef Py_ssize_t i
    for i in range(count):
        visits[i] = visit(sampling, boxes, first + i)
    qsort(visits, count, sizeof(Visit), compare_visits)
