# Rotated boxes, (batch_index, cx, cy, width, height, angle): what all samples of one have in common.
#
# What depends on a sample is in geometry/rotated.pxi, for the kernels: there are no axes, and so no tables.

cdef extern from "geometry/angles.h" nogil:
    void find_sine_and_cosine(double angle, double* sine, double* cosine)


cdef inline Frame frame_as(
    const Settings* settings, const Level* level, const double* box, coordinate T
) noexcept nogil:
    cdef Frame frame
    cdef coordinate width = edge(box[3], level.scale_x, False, T)
    cdef coordinate height = edge(box[4], level.scale_y, False, T)
    if not settings.aligned:
        width, height = max(width, <coordinate> 1), max(height, <coordinate> 1)
    frame.x = edge(box[1], level.scale_x, settings.aligned, T)
    frame.y = edge(box[2], level.scale_y, settings.aligned, T)
    frame.width, frame.height = width, height
    find_sine_and_cosine(<coordinate> box[5], &frame.sine, &frame.cosine)
    if settings.clockwise:
        frame.sine = -frame.sine
    frame.sine, frame.cosine = <coordinate> frame.sine, <coordinate> frame.cosine
    # Sixteen roundings of numbers that are no longer than all of these together.
    frame.slack = (fabs(frame.x) / 2 + fabs(frame.y) / 2 + fabs(frame.width) / 2 + fabs(frame.height) / 2)
    frame.slack *= 2.0**-19 if coordinate is float else 2.0**-48
    return frame


cdef Frame frame_of(const Settings* settings, const Level* level, const double* box) noexcept nogil:
    """A rotated box on its map."""
    if settings.single:
        return frame_as(settings, level, box, <float> 0)
    return frame_as(settings, level, box, <double> 0)


cdef inline double reach_y(const Frame* frame) noexcept nogil:
    """How far a box reaches from its centre, upwards as well as downwards."""
    return fabs(frame.height / 2 * frame.cosine) + fabs(frame.width / 2 * frame.sine) + frame.slack


cdef inline double reach_x(const Frame* frame) noexcept nogil:
    return fabs(frame.height / 2 * frame.sine) + fabs(frame.width / 2 * frame.cosine) + frame.slack


cdef void find_rows_of_frame(const Frame* frame, Py_ssize_t height, RoI* roi) noexcept nogil:
    """Note which rows of the map the samples of a box can read: perhaps some more."""
    cdef double reach = reach_y(frame) + 1
    roi.top = <Py_ssize_t> min(max(frame.y - reach, 0.0), <double> (height - 1))
    roi.bottom = <Py_ssize_t> min(max(frame.y + reach + 1, 2.0), <double> height)
