"""What PSRoIAlign and PSRoIPool share: bin (i, j) of channel c reads channel (c * PH + i) * PW + j alone."""

from typing import Any

import numpy as np

from cyroialign import _boxes, _dtypes, _layout, _threads, _validation
from cyroialign._kernels import kernels


def forward(
    input: Any,
    boxes: Any,
    output_size: Any,
    spatial_scale: Any,
    sampling_ratio: Any,
    quantised: bool,
    batch_indices: Any,
    layout: Any,
    out: Any,
    num_threads: Any,
) -> np.ndarray:
    """Check the arguments and pool; `quantised` is PSRoIPool, which has no sampling_ratio."""
    _validation.choice(layout, "layout", _validation.LAYOUTS)
    ratio = _validation.sampling_ratio(sampling_ratio)
    maps, channels_last = _layout.in_kernel_order(_validation.feature_map(input, "input"), layout)
    bins = _validation.output_size(output_size)
    images, channels, height, width = _layout.sizes(maps.shape, channels_last)
    rois = _boxes.read_boxes(boxes, batch_indices, images, maps.dtype, spatial_scale, not quantised)
    _validation.room_for_boxes(height, width, len(rois.rows))
    threads = _threads.threads_for(num_threads)
    size = (len(rois.rows), _validation.channels_of_bins(channels, bins), *bins)
    dtype = _dtypes.of_result(maps.dtype)
    if out is not None:
        given = [_validation.as_array(input, "input"), *rois.given]
        _layout.check_out(out, size, dtype, layout, channels_last, given)
    sums = _dtypes.as_sums(maps)
    target = _layout.target_for(out, size, sums.dtype, layout, channels_last)
    if target.size:
        kernels(sums.dtype).position_sensitive(
            sums, rois.rows, target, rois.scale, ratio, quantised, rois.single, channels_last, threads
        )
    return _layout.delivered(target, out, dtype, layout, channels_last)


def backward(
    grad_output: Any,
    boxes: Any,
    input_shape: Any,
    spatial_scale: Any,
    sampling_ratio: Any,
    quantised: bool,
    batch_indices: Any,
    layout: Any,
    out: Any,
    num_threads: Any,
) -> np.ndarray:
    """Check the arguments and sum the gradient to the map."""
    _validation.choice(layout, "layout", _validation.LAYOUTS)
    ratio = _validation.sampling_ratio(sampling_ratio)
    grads, channels_last = _layout.in_kernel_order(_validation.gradient(grad_output), layout)
    images, _, height, width = size = _layout.sizes(_validation.shape_of_input(input_shape), layout == "NHWC")
    rois = _boxes.read_boxes(boxes, batch_indices, images, grads.dtype, spatial_scale, not quantised)
    _validation.fitting_gradient(_layout.sizes(grads.shape, channels_last), len(rois.rows), size, True)
    _validation.room_for_boxes(height, width, len(rois.rows))
    threads = _threads.threads_for(num_threads)
    if out is not None:
        given = [_validation.as_array(grad_output, "grad_output"), *rois.given]
        _layout.check_out(out, size, grads.dtype, layout, channels_last, given)
    sums = _dtypes.as_sums(grads)
    target = _layout.target_for(out, size, sums.dtype, layout, channels_last)
    if grads.size and target.size:
        kernels(sums.dtype).position_sensitive_backward(
            sums, rois.rows, target, rois.scale, ratio, quantised, rois.single, channels_last, threads
        )
    else:
        target.fill(0)
    return _layout.delivered(target, out, grads.dtype, layout, channels_last)
