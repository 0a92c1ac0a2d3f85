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


cdef Side side_of(
    const Settings* settings, const Level* level, const double* box, bint vertical
) noexcept nogil:
    """One axis of a box, a row of (batch_index, x1, y1, x2, y2), on a map."""
    cdef Side side
    side.low, side.high = box[2 if vertical else 1], box[4 if vertical else 3]
    side.scale = level.scale_y if vertical else level.scale_x
    side.aligned, side.single, side.ratio = settings.aligned, settings.single, settings.ratio
    side.bins = settings.bins_y if vertical else settings.bins_x
    side.length = level.height if vertical else level.width
    return side
