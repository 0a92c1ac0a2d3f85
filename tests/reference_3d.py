"""RoIAlign of volumes, sample after sample in float64; shares nothing with the package."""

import itertools

import numpy as np
from reference import between, positions


def roi_align_3d(
    input, boxes, output_size, spatial_scale=(1, 1, 1), sampling_ratio=-1, aligned=False, *, dtype=np.float64
):
    """Of input (N, C, D, H, W) for boxes (K, 7); geometry is rounded to dtype step by step."""
    output = np.zeros((len(boxes), input.shape[1], *output_size))
    for k, box in enumerate(boxes):
        volume = input[int(box[0])].astype(np.float64)
        for place, voxel, weight in neighbours(
            box, input.shape[2:], output_size, spatial_scale, sampling_ratio, aligned, dtype
        ):
            output[k, :, *place] += weight * volume[:, *voxel]
    return output


def roi_align_3d_backward(
    grad_output,
    boxes,
    input_shape,
    spatial_scale=(1, 1, 1),
    sampling_ratio=-1,
    aligned=False,
    *,
    dtype=np.float64,
):
    """Scatter grad_output (K, C, PD, PH, PW) with the weights of `roi_align_3d` into (N, C, D, H, W)."""
    grad_input = np.zeros(input_shape)
    for k, box in enumerate(boxes):
        volume, grads = grad_input[int(box[0])], grad_output[k].astype(np.float64)
        for place, voxel, weight in neighbours(
            box, input_shape[2:], grad_output.shape[2:], spatial_scale, sampling_ratio, aligned, dtype
        ):
            volume[:, *voxel] += weight * grads[:, *place]
    return grad_input


def neighbours(box, lengths, output_size, spatial_scale, sampling_ratio, aligned, dtype):
    """Yield (bin, voxel, weight), places as (z, y, x), for the eight neighbours of each sample of a box."""
    _, x1, y1, z1, x2, y2, z2 = box
    sides = zip((z1, y1, x1), (z2, y2, x2), output_size, spatial_scale, strict=True)
    on_axes = [positions(*side, sampling_ratio, aligned, dtype) for side in sides]
    for place in np.ndindex(*output_size):
        of_bin = [on_axis[i] for on_axis, i in zip(on_axes, place, strict=True)]
        count = max(int(np.prod([len(one) for one in of_bin])), 1)
        for sample in itertools.product(*of_bin):
            if any(x < -1 or x > length for x, length in zip(sample, lengths, strict=True)):
                continue
            pairs = [between(x, length) for x, length in zip(sample, lengths, strict=True)]
            for (z, over_z), (y, over_y), (x, over_x) in itertools.product(*pairs):
                yield place, (z, y, x), over_z * over_y * over_x / count
