# Which rule drafts the axes of which operator: a new separable operator is one file of this folder and one
# line here.


cdef bint has_candidates(int pooling) noexcept nogil:
    return pooling == MAX or pooling == ONNX_MAX


cdef bint is_crop(int pooling) noexcept nogil:
    return pooling == CROP_BILINEAR or pooling == CROP_NEAREST


cdef Py_ssize_t room_for_taps(int pooling, Py_ssize_t bins, int ratio, Py_ssize_t length) noexcept nogil:
    """The most taps that one axis can have."""
    if pooling == ROI_POOL or is_crop(pooling):
        return 2 * bins
    if has_candidates(pooling):  # where those of a mean share a pixel, these may have two samples
        return 2 * most_taps(bins, ratio, length)
    return most_taps(bins, ratio, length)


cdef inline void draft_as(
    int pooling, int direction, const Side* side, Draft* draft, coordinate T
) noexcept nogil:
    if has_candidates(pooling):
        draft_candidates(side, draft, T)
    elif pooling == ROI_POOL:
        draft_ranges(side, draft, T)
    elif pooling == PS_ROI_POOL:
        draft_range_means(side, draft, T)
    elif pooling == PRROI_POOL:
        draft_hats(side, draft, T)
    elif is_crop(pooling):
        draft_crops(pooling, side, draft, T)
    elif direction == BOXES_BACKWARD:
        draft_derivatives(side, draft, T)
    else:
        draft_samples(side, draft, T)


cdef void draft_axis(int pooling, int direction, const Side* side, Draft* draft) noexcept nogil:
    """Draft one axis of one box, in the precision that the contract asks for."""
    if side.single:
        draft_as(pooling, direction, side, draft, <float> 0)
    else:
        draft_as(pooling, direction, side, draft, <double> 0)


cdef enum:  # axes of a box, in the order of its numbers
    X
    Y
    Z


cdef Side side_of(const Settings* settings, const Level* level, const double* box, int axis) noexcept nogil:
    """One axis of a box, a row of (batch_index, x1, y1, x2, y2), or of a volume's with z1 and z2."""
    cdef Side side
    cdef Py_ssize_t slices = max(settings.depth, 1), slices_of_bins = max(settings.bins_z, 1)
    side.low, side.high = box[1 + axis], box[(4 if settings.depth else 3) + axis]
    side.aligned, side.single, side.ratio = settings.aligned, settings.single, settings.ratio
    if axis == X:
        side.scale, side.bins, side.length = level.scale_x, settings.bins_x, level.width
    elif axis == Y:
        side.scale = level.scale_y
        side.bins, side.length = settings.bins_y // slices_of_bins, level.height // slices
    else:
        side.scale, side.bins, side.length = level.scale_z, settings.bins_z, settings.depth
    return side
