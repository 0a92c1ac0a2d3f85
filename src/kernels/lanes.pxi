# What simd.h offers, a vector of LANES numbers of the type of sums, and storage.h, numbers as they lie in
# memory.

cdef extern from "simd.h" nogil:
    ctypedef float lanes
    ctypedef float wide  # WIDE vectors in one
    ctypedef int lane_number  # as wide as a real
    ctypedef int lane_numbers
    ctypedef struct Winners:
        lanes value
        lane_numbers row, column
    enum:
        LANES
        WIDE
    lanes zeros()
    lanes all_lanes(real value)
    lanes greater(lanes v, lanes than)  # where v is greater, v, else the other one: NaN is not greater
    lanes load(const real* source)
    lanes load_first(const real* source, Py_ssize_t n)
    wide load_wide(const real* source)
    void store(real* target, lanes v)
    void store_first(real* target, lanes v, Py_ssize_t n)
    void store_wide(real* target, wide v)
    void prefetch(const void* target, Py_ssize_t bytes)
    void prefetch_source(const void* source, Py_ssize_t bytes)
    lanes larger(lanes a, lanes b)  # NaN if either is, and b if they are equal
    lanes where_reached(lanes value, lanes largest, lanes v)  # v where value is the largest or NaN, else 0
    lanes unless_reached(lanes value, lanes largest, lanes v)  # v where it is neither, else 0
    bint all_zero(lanes v)
    lane_numbers numbers(lane_number value)
    void contest(Winners* winners, lanes v, int row, int column)
    void transpose(lanes* v)  # of LANES vectors

cdef extern from "storage.h" nogil:
    lanes load_pixels(const pixel* source)
    lanes load_first_pixels(const pixel* source, Py_ssize_t n)
    lanes load_pooled(const pooled* source)
    lanes load_first_pooled(const pooled* source, Py_ssize_t n)
    void store_pooled(pooled* target, lanes v)
    void store_first_pooled(pooled* target, lanes v, Py_ssize_t n)
    void stream_pooled(pooled* target, lanes v)  # non-temporal; the target is aligned
    Py_ssize_t until_aligned(const pooled* target)
    void finish_streams()


ctypedef fused number:  # what sums are made of
    real
    pixel
    pooled


cdef inline lanes load_numbers(const number* source) noexcept nogil:
    if number is pixel:
        return load_pixels(source)
    elif number is pooled:
        return load_pooled(source)
    else:
        return load(source)


cdef inline lanes load_first_numbers(const number* source, Py_ssize_t n) noexcept nogil:
    if number is pixel:
        return load_first_pixels(source, n)
    elif number is pooled:
        return load_first_pooled(source, n)
    else:
        return load_first(source, n)


cdef inline void store_first_numbers(number* target, lanes v, Py_ssize_t n) noexcept nogil:
    if number is pooled:
        store_first_pooled(target, v, n)
    elif number is real:
        store_first(target, v, n)


cdef void write_out(pooled* target, const real* source, Py_ssize_t n, bint non_temporal) noexcept nogil:
    """Store n sums as they are to lie in memory."""
    cdef Py_ssize_t i = 0
    if non_temporal:
        i = min(until_aligned(target), n)
        round_off(target, source, i)
        while i + LANES <= n:
            stream_pooled(target + i, load(source + i))
            i += LANES
    round_off(target + i, source + i, n - i)


cdef inline void round_off(pooled* target, const real* source, Py_ssize_t n) noexcept nogil:
    """Store n sums as they are to lie in memory."""
    cdef Py_ssize_t i = 0
    while i + LANES <= n:
        store_pooled(target + i, load(source + i))
        i += LANES
    if i < n:
        store_first_pooled(target + i, load_first(source + i, n - i), n - i)
