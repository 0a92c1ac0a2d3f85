"""The functions: torchvision's arguments in, one call of an operator."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cyroialign.arguments import validation
from cyroialign.operators.paste_masks import RULES
from cyroialign.torch import _arguments
from cyroialign.torch import _operators as operators


def roi_align(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float | Sequence[float] = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Pool each box of a feature map into a grid of bins: the mean of bilinear samples.

    Parameters
    ----------
    input : (N, C, H, W) Tensor
        Feature maps.
    boxes : (K, 5) Tensor, or sequence of N Tensors (L_i, 4)
        Rows of (batch_index, x1, y1, x2, y2), or for each image rows of (x1, y1, x2, y2), in pixels of the
        space that `spatial_scale` maps onto the feature map.
    output_size, spatial_scale, sampling_ratio, aligned
        As in `cyroialign.roi_align`.

    Returns
    -------
    (K, C, height, width) Tensor
        Of the dtype and memory order of `input`.

    Raises
    ------
    TypeError, ValueError
        As `cyroialign.roi_align` does, and for tensors of other devices.

    Examples
    --------
    >>> import torch
    >>> from cyroialign.torch import roi_align
    >>> input = torch.arange(25.0).reshape(1, 1, 5, 5).requires_grad_()
    >>> boxes = [torch.tensor([[1.0, 1.0, 3.0, 3.0]], requires_grad=True)]
    >>> crops = roi_align(input, boxes, 2, aligned=True)
    >>> crops.tolist()
    [[[[6.0, 7.0], [11.0, 12.0]]]]
    >>> crops.sum().backward()
    >>> boxes[0].grad
    tensor([[ 2., 10.,  2., 10.]])
    """
    _arguments.feature_maps([input], ["input"])
    return operators.roi_align(
        input,
        _arguments.rows(boxes, [input]),
        _arguments.bins(output_size),
        *_arguments.scales(spatial_scale),
        _arguments.ratio(sampling_ratio),
        _arguments.flag(aligned),
    )


def roi_align_rotated(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float | Sequence[float] = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = True,
    clockwise: bool = False,
) -> Tensor:
    """Pool each rotated box of a feature map into a grid of bins: the mean of bilinear samples.

    Parameters
    ----------
    input : (N, C, H, W) Tensor
        Feature maps; channels_last is several times faster.
    boxes : (K, 6) Tensor, or sequence of N Tensors (L_i, 5)
        Rows of (batch_index, cx, cy, width, height, angle), or for each image rows of (cx, cy, width, height,
        angle), the angle in radians. They get no gradient, as in MMCV.
    output_size, spatial_scale, sampling_ratio, aligned, clockwise
        As in `cyroialign.roi_align_rotated`.

    Returns
    -------
    (K, C, height, width) Tensor
        Of the dtype and memory order of `input`.

    Raises
    ------
    TypeError, ValueError
        As `cyroialign.roi_align_rotated` does, and for tensors of other devices.

    Examples
    --------
    >>> import torch
    >>> from cyroialign.torch import roi_align_rotated
    >>> input = torch.arange(25.0).reshape(1, 1, 5, 5)
    >>> boxes = [torch.tensor([[2.5, 2.5, 2.0, 2.0, torch.pi / 2]])]
    >>> roi_align_rotated(input, boxes, 2).round(decimals=3)
    tensor([[[[10., 15.],
              [ 9., 14.]]]])
    """
    _arguments.feature_maps([input], ["input"])
    return operators.roi_align_rotated(
        input,
        _arguments.rows(boxes, [input], validation.ROTATED),
        _arguments.bins(output_size),
        *_arguments.scales(spatial_scale),
        _arguments.ratio(sampling_ratio),
        _arguments.flag(aligned),
        _arguments.flag(clockwise, "clockwise"),
    )


def prroi_pool(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float | Sequence[float] = 1.0,
) -> Tensor:
    """Pool each box of a feature map into a grid of bins: the mean of the map over each, exactly.

    Parameters
    ----------
    input : (N, C, H, W) Tensor
        Feature maps.
    boxes
        As in `roi_align`. Their gradient is continuous.
    output_size, spatial_scale
        As in `cyroialign.prroi_pool`.

    Returns
    -------
    (K, C, height, width) Tensor
        Of the dtype and memory order of `input`.

    Raises
    ------
    TypeError, ValueError
        As `cyroialign.prroi_pool` does, and for tensors of other devices.

    Examples
    --------
    >>> import torch
    >>> from cyroialign.torch import prroi_pool
    >>> input = torch.arange(25.0).reshape(1, 1, 5, 5)
    >>> boxes = [torch.tensor([[1.0, 1.0, 3.0, 3.0]], requires_grad=True)]
    >>> crops = prroi_pool(input, boxes, 2)
    >>> crops.tolist()
    [[[[9.0, 10.0], [14.0, 15.0]]]]
    >>> crops.sum().backward()
    >>> boxes[0].grad
    tensor([[ 2., 10.,  2., 10.]])
    """
    _arguments.feature_maps([input], ["input"])
    return operators.prroi_pool(
        input,
        _arguments.rows(boxes, [input]),
        _arguments.bins(output_size),
        *_arguments.scales(spatial_scale),
    )


def prroi_pool2d(
    features: Tensor,
    rois: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> Tensor:
    """Call `prroi_pool` with the arguments of the function of this name in PreciseRoIPooling, on a CPU.

    Parameters
    ----------
    features : (N, C, H, W) Tensor
        Feature maps.
    rois : (K, 5) Tensor
        Rows of (batch_index, x1, y1, x2, y2).
    pooled_height, pooled_width : int
        Bins of the result.
    spatial_scale : float
        Feature pixels for one unit of the boxes.

    Returns
    -------
    (K, C, pooled_height, pooled_width) Tensor
        Of the dtype and memory order of `features`.
    """
    return prroi_pool(features, rois, (pooled_height, pooled_width), spatial_scale)


def roi_align_3d(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float | Sequence[float] = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Pool each box of a volume into a grid of bins: the mean of trilinear samples.

    Parameters
    ----------
    input : (N, C, D, H, W) Tensor
        Volumes of D slices.
    boxes : (K, 7) Tensor, or sequence of N Tensors (L_i, 6)
        Rows of (batch_index, x1, y1, z1, x2, y2, z2), or for each volume rows of (x1, y1, z1, x2, y2, z2).
        They get no gradient.
    output_size, spatial_scale, sampling_ratio, aligned
        As in `cyroialign.roi_align_3d`.

    Returns
    -------
    (K, C, depth, height, width) Tensor
        Of the dtype and memory order of `input`: of a tensor in channels_last_3d it is in channels_last_3d.

    Raises
    ------
    TypeError, ValueError
        As `cyroialign.roi_align_3d` does, and for tensors of other devices.

    Examples
    --------
    >>> import torch
    >>> from cyroialign.torch import roi_align_3d
    >>> input = torch.arange(64.0).reshape(1, 1, 4, 4, 4).requires_grad_()
    >>> crops = roi_align_3d(input, torch.tensor([[0.0, 1, 1, 1, 3, 3, 3]]), (2, 1, 1), aligned=True)
    >>> crops.flatten().tolist()
    [23.5, 39.5]
    >>> crops.sum().backward()
    >>> input.grad[0, 0, 1]
    tensor([[0.0000, 0.0000, 0.0000, 0.0000],
            [0.0000, 0.2500, 0.2500, 0.0000],
            [0.0000, 0.2500, 0.2500, 0.0000],
            [0.0000, 0.0000, 0.0000, 0.0000]])
    """
    _arguments.feature_maps([input], ["input"], axes=5)
    return operators.roi_align_3d(
        input,
        _arguments.rows(boxes, [input], validation.CORNERS_3D),
        _arguments.volume_bins(output_size),
        *_arguments.volume_scales(spatial_scale),
        _arguments.ratio(sampling_ratio),
        _arguments.flag(aligned),
    )


def ps_roi_align(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float | Sequence[float] = 1.0,
    sampling_ratio: int = -1,
) -> Tensor:
    """Pool as `roi_align` does with ``aligned=True``, each bin from its own channels.

    Parameters
    ----------
    input : (N, C * height * width, H, W) Tensor
        Feature maps, with C channels for each bin.
    boxes
        As in `roi_align`. They get no gradient, as in torchvision.
    output_size, spatial_scale, sampling_ratio
        As in `cyroialign.ps_roi_align`.

    Returns
    -------
    (K, C, height, width) Tensor
        Of the dtype and memory order of `input`.

    Raises
    ------
    TypeError, ValueError
        As `cyroialign.ps_roi_align` does, and for tensors of other devices.
    """
    _arguments.feature_maps([input], ["input"])
    return operators.ps_roi_align(
        input,
        _arguments.rows(boxes, [input]),
        _arguments.bins(output_size),
        *_arguments.scales(spatial_scale),
        _arguments.ratio(sampling_ratio),
    )


def roi_pool(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float | Sequence[float] = 1.0,
) -> Tensor:
    """Pool each box, rounded to whole pixels, by taking the largest pixel of each bin.

    Parameters
    ----------
    input : (N, C, H, W) Tensor
        Feature maps.
    boxes
        As in `roi_align`. They get no gradient: rounding has none.
    output_size, spatial_scale
        As in `cyroialign.roi_pool`.

    Returns
    -------
    (K, C, height, width) Tensor
        Of the dtype and memory order of `input`.

    Raises
    ------
    TypeError, ValueError
        As `cyroialign.roi_pool` does, and for tensors of other devices.
    """
    _arguments.feature_maps([input], ["input"])
    return operators.roi_pool(
        input,
        _arguments.rows(boxes, [input]),
        _arguments.bins(output_size),
        *_arguments.scales(spatial_scale),
    )


def paste_masks(
    masks: Tensor,
    boxes: Tensor,
    image_shape: Sequence[int],
    *,
    rule: str = "torchvision",
    padding: int = 1,
    threshold: float | None = None,
) -> Tensor:
    """Paste each mask into an image of its own, where its box lies.

    Parameters
    ----------
    masks : (N, 1, M, M) Tensor
        Masks. They get no gradient.
    boxes : (N, 4) Tensor
        Rows of (x1, y1, x2, y2), in pixels of the image.
    image_shape, rule, padding, threshold
        As in `cyroialign.paste_masks`.

    Returns
    -------
    (N, 1, height, width) Tensor
        Of the dtype of `masks`; with a threshold, of bool.

    Raises
    ------
    TypeError, ValueError
        As `cyroialign.paste_masks` does, and for tensors of other devices.
    """
    _arguments.feature_maps([masks], ["masks"])
    boxes = _arguments.corners(boxes, masks)
    if threshold is not None and not torch.compiler.is_compiling():
        threshold = validation.finite_number(threshold, "threshold")
    return operators.paste_masks(
        masks,
        boxes,
        _arguments.image_shape(image_shape),
        validation.choice(rule, "rule", RULES),
        validation.not_negative(padding, "padding"),
        threshold,
    )
