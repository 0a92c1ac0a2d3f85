"""The functions: torchvision's arguments in, one call of an operator."""

from collections.abc import Sequence

from torch import Tensor

from cyroialign.arguments import validation
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


def ps_roi_align(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float | Sequence[float] = 1.0,
    sampling_ratio: int = -1,
) -> Tensor:
    """Pool as `roi_align` does with ``aligned=True``, each bin from channels of its own.

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
