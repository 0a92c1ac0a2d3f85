"""The operators for PyTorch, with torchvision's signatures, on CPU tensors and without copies of maps.

It needs ``pip install "cyroialign[torch]"``. Results have the bits of what `cyroialign` has under the same
names:

- A tensor is viewed, not copied. The result has its dtype, one of float32, float64, float16 and bfloat16
  (float32 for uint8), and its memory order: of a channels_last tensor it is channels_last. Other strides
  cost one copy.
- Boxes may have another dtype than the map, as under autocast.
- Calls use as many threads as torch does: `torch.get_num_threads`.
- They can be traced, by ``torch.compile(fullgraph=True)`` and `torch.export`. A tensor on ``"meta"``, which
  has no values, gives such a result; one on any other device is refused.

Gradients go to the maps, and from `roi_align` and `MultiScaleRoIAlign` to the boxes too, as
`cyroialign.roi_align_boxes_backward` defines them. The gradient to the maps can be differentiated again, to
boxes as well. That of `roi_pool` cannot, as in torchvision, nor can that to the boxes: NotImplementedError.

What torchvision 0.29 does otherwise:

- Boxes that are not finite, or of an image that does not exist, are a ValueError here and undefined there.
- With adaptive sampling `ps_roi_align` gives 0 for a box of zero size, and NaN there.
- Half precision is summed in float32 and rounded once, and boxes are never rounded to it. There, float16 is
  rounded at every step, and bfloat16 is refused but under autocast.
- A bin of `roi_pool` that holds nothing but NaN and -inf is -inf, and -3.4e38 there.
- A name that `MultiScaleRoIAlign` looks for in vain is a ValueError, and left out there.
- There no result is channels_last, and boxes have no gradient.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from cyroialign import _torch_operators as operators
from cyroialign._torchvision import accelerate_torchvision
from cyroialign.arguments import pyramids, validation

__all__ = [
    "MultiScaleRoIAlign",
    "RoIAlign",
    "accelerate_torchvision",
    "ps_roi_align",
    "roi_align",
    "roi_pool",
]


def roi_align(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
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
    rows = _rows(boxes, [input])
    return operators.roi_align(input, rows, _sides(output_size), spatial_scale, sampling_ratio, aligned)


def ps_roi_align(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
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
    rows = _rows(boxes, [input])
    return operators.ps_roi_align(input, rows, _sides(output_size), spatial_scale, sampling_ratio)


def roi_pool(
    input: Tensor,
    boxes: Tensor | Sequence[Tensor],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
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
    return operators.roi_pool(input, _rows(boxes, [input]), _sides(output_size), spatial_scale)


class RoIAlign(nn.Module):
    """`roi_align` as a module.

    Parameters
    ----------
    output_size, spatial_scale, sampling_ratio, aligned
        As in `roi_align`; torchvision gives the first three no default either.

    Examples
    --------
    >>> import torch
    >>> from cyroialign.torch import RoIAlign
    >>> pool = RoIAlign(output_size=7, spatial_scale=1 / 16, sampling_ratio=2)
    >>> pool(torch.rand(1, 256, 50, 68), [torch.tensor([[32.0, 48.0, 256.0, 320.0]])]).shape
    torch.Size([1, 256, 7, 7])
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool = False,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        """Return ``roi_align(input, rois, ...)`` with these settings."""
        return roi_align(input, rois, self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)

    def extra_repr(self) -> str:
        """Show the settings."""
        return _shown(self, "output_size", "spatial_scale", "sampling_ratio", "aligned")


class MultiScaleRoIAlign(nn.Module):
    """`cyroialign.MultiScaleRoIAlign` as a module: each box is pooled from the level that suits its size.

    Parameters
    ----------
    featmap_names, output_size, sampling_ratio, canonical_scale, canonical_level
        As in `cyroialign.MultiScaleRoIAlign`.

    Notes
    -----
    torchvision's detectors accept it in the place of theirs::

        model.roi_heads.box_roi_pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)

    but not as an argument, as they check that it is their class. `accelerate_torchvision` needs neither.

    Examples
    --------
    >>> import torch
    >>> from cyroialign.torch import MultiScaleRoIAlign
    >>> pool = MultiScaleRoIAlign(["p2", "p3"], output_size=7, sampling_ratio=2)
    >>> x = {"p2": torch.zeros(1, 8, 64, 64), "p3": torch.ones(1, 8, 32, 32)}
    >>> boxes = [torch.tensor([[10.0, 10, 50, 60], [20, 10, 250, 200]])]
    >>> pool(x, boxes, image_shapes=[(256, 256)]).mean((1, 2, 3))
    tensor([0., 1.])
    """

    def __init__(
        self,
        featmap_names: str | Sequence[str],
        output_size: int | Sequence[int],
        sampling_ratio: int,
        *,
        canonical_scale: float = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        self.featmap_names = pyramids.map_names(featmap_names)
        self.output_size = tuple(_sides(output_size))
        self.sampling_ratio = sampling_ratio
        self.canonical_scale = canonical_scale
        self.canonical_level = canonical_level

    def forward(
        self,
        x: Mapping[str, Tensor],
        boxes: Sequence[Tensor],
        image_shapes: Sequence[tuple[int, int]],
    ) -> Tensor:
        """Pool the boxes.

        Parameters
        ----------
        x : mapping of str to (N, C, H_l, W_l) Tensor
            The maps, of one dtype.
        boxes : sequence of N Tensors (L_i, 4)
            For each image rows of (x1, y1, x2, y2), in pixels of the image.
        image_shapes : sequence of N (int, int)
            (height, width) of each image, before it was padded to a common size.

        Returns
        -------
        (K, C, height, width) Tensor
            All boxes, image after image, of the dtype and memory order of the first map.
        """
        maps = pyramids.values_of(x, self.featmap_names)
        pyramids.boxes_by_image(boxes, maps[0].shape[0])
        return operators.roi_align_levels(
            maps,
            _rows(boxes, maps),
            self.output_size,
            [side for height, width in image_shapes for side in (height, width)],
            self.sampling_ratio,
            self.canonical_scale,
            self.canonical_level,
        )

    def extra_repr(self) -> str:
        """Show the settings."""
        return _shown(
            self, "featmap_names", "output_size", "sampling_ratio", "canonical_scale", "canonical_level"
        )


def _rows(boxes: Tensor | Sequence[Tensor], maps: Sequence[Tensor]) -> Tensor:
    """Put the boxes of all images into rows of (batch_index, x1, y1, x2, y2); all must be on the CPU."""
    given = [boxes] if isinstance(boxes, Tensor) else boxes
    for one in (*maps, *given):
        if one.device.type not in ("cpu", "meta"):
            raise ValueError(
                f"maps and boxes must be on the CPU, got a tensor on {one.device}: "
                "move it with .cpu(), or call torchvision.ops there"
            )
    if isinstance(boxes, Tensor):
        return boxes
    validation.list_of_boxes(boxes, None, maps[0].shape[0])
    for image, one in enumerate(boxes):
        validation.box_shape(tuple(one.shape), f"boxes[{image}]", 4)
    if not boxes:
        return maps[0].new_empty((0, 5), dtype=torch.float32)
    return torch.cat([_of_image(one, image) for image, one in enumerate(boxes)])


def _of_image(boxes: Tensor, image: int) -> Tensor:
    if boxes.dtype in (
        torch.float16,
        torch.bfloat16,
    ):  # which cannot tell image 257 from 256, or 2049 from 2048
        boxes = boxes.float()
    return pad(boxes, (1, 0), value=image)


def _sides(output_size: int | Sequence[int]) -> list[int]:
    return list(output_size) if isinstance(output_size, Sequence) else [output_size, output_size]


def _shown(module: Any, *names: str) -> str:
    return ", ".join(f"{name}={getattr(module, name)!r}" for name in names)
