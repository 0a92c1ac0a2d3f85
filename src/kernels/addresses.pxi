# Where things lie in the arrays of a call.


cdef inline Py_ssize_t first_number(
    const Call* call, Py_ssize_t item, Py_ssize_t channel, Py_ssize_t channels, Py_ssize_t plane
) noexcept nogil:
    """Where a channel of an item begins: of an image of a map, or of a RoI of the result."""
    return item * plane * channels + channel * (1 if call.settings.channels_last else plane)


cdef inline Py_ssize_t in_map(const Call* call, const RoI* roi, Py_ssize_t channel) noexcept nogil:
    """Where a channel of the image of a RoI begins, in the map or its gradient."""
    return first_number(call, roi.image, channel, call.map_channels, roi.level.height * roi.level.width)


cdef inline Py_ssize_t in_bins(const Call* call, const RoI* roi, Py_ssize_t channel) noexcept nogil:
    """Where a channel of a RoI begins, in the result or its gradient."""
    return first_number(
        call, roi.row, channel, call.channels, call.settings.bins_y * call.settings.bins_x
    )
