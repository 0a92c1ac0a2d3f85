# Memory that is laid out by one function: called without memory it measures, called with memory it places.


cdef struct Room:
    char* start  # NULL: only measured
    size_t used


cdef inline Room room_at(void* start) noexcept nogil:
    cdef Room room
    room.start, room.used = <char*> start, 0
    return room


cdef inline void* take(Room* room, Py_ssize_t n, size_t size, size_t alignment=8) noexcept nogil:
    """Room for n numbers of a size, or NULL where it is only measured."""
    cdef char* taken = NULL
    room.used = (room.used + alignment - 1) // alignment * alignment
    if room.start != NULL:
        taken = room.start + room.used
    room.used += n * size
    return taken
