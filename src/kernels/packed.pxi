# Planes as pixels: a block of planes of a channels-first array, turned into pixels of as many channels, and back.
#
# A block is one vector or several; the channels of planes that are missing in the last one are 0.


cdef inline void pack_tile(
    real* target, Py_ssize_t pitch, const number* source, Py_ssize_t plane, Py_ssize_t planes, Py_ssize_t n
) noexcept nogil:
    """Turn n numbers of each of some planes, up to LANES; both are constants for whole tiles."""
    cdef lanes tile[LANES]
    cdef Py_ssize_t i
    for i in range(planes):
        tile[i] = load_first_numbers[number](source + i * plane, n)
    for i in range(planes, LANES):
        tile[i] = zeros()
    transpose(tile)
    for i in range(n):
        store(target + i * pitch, tile[i])


cdef void pack(
    real* target, Py_ssize_t pitch, const number* source, Py_ssize_t plane, Py_ssize_t planes, Py_ssize_t n
) noexcept nogil:
    """Turn n numbers of each of some planes into n pixels of `pitch` channels."""
    cdef Py_ssize_t i = 0, c, some, columns
    while i < n:
        columns = min(n - i, <Py_ssize_t> LANES)
        c = 0
        while c < pitch:
            some = max(0, min(planes - c, <Py_ssize_t> LANES))
            if some == LANES and columns == LANES:
                pack_tile[number](target + c, pitch, source + c * plane + i, plane, LANES, LANES)
            else:
                pack_tile[number](target + c, pitch, source + c * plane + i, plane, some, columns)
            c += LANES
        target += LANES * pitch
        i += LANES


cdef inline void unpack_tile(
    number* target, Py_ssize_t plane, Py_ssize_t planes, const real* source, Py_ssize_t pitch, Py_ssize_t n
) noexcept nogil:
    cdef lanes tile[LANES]
    cdef Py_ssize_t i
    for i in range(n):
        tile[i] = load(source + i * pitch)
    for i in range(n, LANES):
        tile[i] = zeros()
    transpose(tile)
    for i in range(planes):
        store_first_numbers[number](target + i * plane, tile[i], n)


cdef void unpack(
    number* target, Py_ssize_t plane, Py_ssize_t planes, const real* source, Py_ssize_t pitch, Py_ssize_t n
) noexcept nogil:
    """Turn n pixels of `pitch` channels into n numbers of each of some planes."""
    cdef Py_ssize_t i = 0, c, some, columns
    while i < n:
        columns = min(n - i, <Py_ssize_t> LANES)
        c = 0
        while c < planes:
            some = min(planes - c, <Py_ssize_t> LANES)
            if some == LANES and columns == LANES:
                unpack_tile[number](target + c * plane + i, plane, LANES, source + c, pitch, LANES)
            else:
                unpack_tile[number](target + c * plane + i, plane, some, source + c, pitch, columns)
            c += LANES
        source += LANES * pitch
        i += LANES

