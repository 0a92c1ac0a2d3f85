"""The modules, which keep the settings of a call."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import cyroialign
from cyroialign.arguments import pyramids
from cyroialign.torch import _arguments
from cyroialign.torch import _operators as operators
from cyroialign.torch._functions import prroi_pool2d, roi_align, roi_align_3d


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
        spatial_scale: float | Sequence[float],
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


class PrRoIPool2D(nn.Module):
    """`prroi_pool2d` as a module: what trackers import from PreciseRoIPooling, on a CPU.

    Parameters
    ----------
    pooled_height, pooled_width, spatial_scale
        As in `prroi_pool2d`.

    Examples
    --------
    >>> import torch
    >>> from cyroialign.torch import PrRoIPool2D
    >>> pool = PrRoIPool2D(5, 5, 1 / 16)
    >>> rois = torch.tensor([[0.0, 32.0, 48.0, 256.0, 200.0]], requires_grad=True)
    >>> pool(torch.rand(1, 256, 18, 18), rois).mean().backward()
    >>> rois.grad.shape
    torch.Size([1, 5])
    """

    def __init__(self, pooled_height: int, pooled_width: int, spatial_scale: float) -> None:
        super().__init__()
        self.pooled_height = pooled_height
        self.pooled_width = pooled_width
        self.spatial_scale = spatial_scale

    def forward(self, features: Tensor, rois: Tensor) -> Tensor:
        """Return ``prroi_pool2d(features, rois, ...)`` with these settings."""
        return prroi_pool2d(features, rois, self.pooled_height, self.pooled_width, self.spatial_scale)

    def extra_repr(self) -> str:
        """Show the settings."""
        return _shown(self, "pooled_height", "pooled_width", "spatial_scale")


class RoIAlign3D(nn.Module):
    """`roi_align_3d` as a module.

    Parameters
    ----------
    output_size, spatial_scale, sampling_ratio, aligned
        As in `roi_align_3d`.

    Examples
    --------
    >>> import torch
    >>> from cyroialign.torch import RoIAlign3D
    >>> pool = RoIAlign3D(output_size=(3, 7, 7), spatial_scale=(1 / 4, 1 / 8, 1 / 8), sampling_ratio=2)
    >>> pool(torch.rand(1, 32, 24, 40, 40), [torch.tensor([[32.0, 48, 8, 256, 320, 64]])]).shape
    torch.Size([1, 32, 3, 7, 7])
    """

    def __init__(
        self,
        output_size: int | Sequence[int],
        spatial_scale: float | Sequence[float] = 1.0,
        sampling_ratio: int = -1,
        aligned: bool = False,
    ) -> None:
        super().__init__()
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Tensor | Sequence[Tensor]) -> Tensor:
        """Return ``roi_align_3d(input, rois, ...)`` with these settings."""
        settings = (self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned)
        return roi_align_3d(input, rois, *settings)

    def extra_repr(self) -> str:
        """Show the settings."""
        return _shown(self, "output_size", "spatial_scale", "sampling_ratio", "aligned")


class MultiScaleRoIAlign(nn.Module):
    """`cyroialign.MultiScaleRoIAlign` as a module: each box is pooled from the level that suits its size.

    Parameters
    ----------
    featmap_names, output_size, sampling_ratio, spatial_scales, canonical_scale, canonical_level
        As in `cyroialign.MultiScaleRoIAlign`.

    Notes
    -----
    torchvision's detectors accept it in place of their own::

        model.roi_heads.box_roi_pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2)

    but not as an argument, since they check for their own class. `accelerate_torchvision` needs neither.

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
        spatial_scales: Sequence[float | Sequence[float]] | None = None,
        canonical_scale: float = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        settings: dict[str, Any] = {"canonical_scale": canonical_scale, "canonical_level": canonical_level}
        if spatial_scales is not None:
            settings["spatial_scales"] = spatial_scales
        height, width = _arguments.bins(output_size)
        checked = cyroialign.MultiScaleRoIAlign(featmap_names, (height, width), sampling_ratio, **settings)
        self.featmap_names = checked.featmap_names
        self.output_size = (height, width)
        self.sampling_ratio = sampling_ratio
        self.spatial_scales = spatial_scales
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
        names = self.featmap_names
        maps = pyramids.values_of(x, names)
        _arguments.feature_maps(maps, [f"x[{name!r}]" for name in names])
        images = maps[0].shape[0]
        pyramids.boxes_by_image(boxes, images)
        if not torch.compiler.is_compiling():  # where sides may be symbols
            image_shapes = pyramids.list_of_sizes(image_shapes, "image_shapes", images, "an image")
        scales = enumerate(self.spatial_scales or ())
        return operators.roi_align_levels(
            maps,
            _arguments.rows(boxes, maps),
            self.output_size,
            [side for height, width in image_shapes for side in (height, width)],
            [one for level, scale in scales for one in _arguments.scales(scale, f"spatial_scales[{level}]")],
            self.sampling_ratio,
            self.canonical_scale,
            self.canonical_level,
        )

    def extra_repr(self) -> str:
        """Show the settings."""
        given = [] if self.spatial_scales is None else ["spatial_scales"]
        canonical = ("canonical_scale", "canonical_level")
        return _shown(self, "featmap_names", "output_size", "sampling_ratio", *given, *canonical)


def _shown(module: Any, *names: str) -> str:
    return ", ".join(f"{name}={getattr(module, name)!r}" for name in names)
