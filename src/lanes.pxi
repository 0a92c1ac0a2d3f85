# What simd.h offers: the type of number, and a vector of LANES of them.

cdef extern from "simd.h" nogil:
    ctypedef float real  # or double: the build says
    ctypedef float lanes
    ctypedef float wide  # WIDE vectors in one
    enum:
        LANES
        WIDE
    lanes zeros()
    lanes load(const real* source)
    lanes load_first(const real* source, Py_ssize_t n)
    wide load_wide(const real* source)
    void store(real* target, lanes v)
    void store_first(real* target, lanes v, Py_ssize_t n)
    void store_wide(real* target, wide v)
    void prefetch(const real* target, Py_ssize_t n)
    lanes larger(lanes a, lanes b)  # NaN if either is, and b if they are equal
    lanes where_reached(lanes value, lanes largest, lanes v)  # v where value is the largest or NaN, else 0
    lanes unless_reached(lanes value, lanes largest, lanes v)  # v where it is neither, else 0
    void transpose(lanes* v)  # of LANES vectors
    bint CHECKED  # in a checked build
