"""What the tests of RoIPool, PSRoIAlign and PSRoIPool share: one way to call them all."""

import numpy as np

import cyroialign

NAMES = ("roi_pool", "ps_roi_align", "ps_roi_pool")
LAYOUTS = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 2, 3, 1)}  # where the axes come from


def in_layout(array, layout):
    return np.ascontiguousarray(array.transpose(LAYOUTS[layout]))


def in_nchw(array, layout):
    return array if layout == "NCHW" else array.transpose(0, 3, 1, 2)


def forward(name, input, boxes, output_size, arguments, layout="NCHW", **settings):
    """The output (K, C, PH, PW) for input (N, C, H, W), by way of the given layout."""
    function = getattr(cyroialign, name)
    input = in_layout(input, layout)
    return in_nchw(function(input, boxes, output_size, *arguments, layout=layout, **settings), layout)


def backward(name, grad_output, input, boxes, output_size, arguments, layout="NCHW", **settings):
    """The gradient (N, C, H, W), by way of the given layout."""
    function = getattr(cyroialign, f"{name}_backward")
    grad_output, input = in_layout(grad_output, layout), in_layout(input, layout)
    given = (input, boxes, output_size) if name == "roi_pool" else (boxes, input.shape)
    return in_nchw(function(grad_output, *given, *arguments, layout=layout, **settings), layout)


def arrays(name, shape, dtype, boxes, output_size, seed=0):
    """Random input for shape (N, C, H, W), C channels of the output, and a gradient to that output."""
    rng = np.random.default_rng(seed)
    images, channels, height, width = shape
    bins = 1 if name == "roi_pool" else output_size[0] * output_size[1]
    input = rng.uniform(-1, 1, (images, channels * bins, height, width)).astype(dtype)
    return input, rng.uniform(-1, 1, (boxes, channels, *output_size)).astype(dtype)


def arguments_of(name, spatial_scale, sampling_ratio):
    """What follows output_size: PSRoIAlign alone has a sampling ratio."""
    return (spatial_scale, sampling_ratio) if name == "ps_roi_align" else (spatial_scale,)
