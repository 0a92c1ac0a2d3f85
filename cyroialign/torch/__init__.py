"""The operators for PyTorch, with torchvision's signatures, on CPU tensors and without copies of maps.

It needs PyTorch and ml_dtypes, the extra ``torch``. Results are bit-identical to those of the functions of
the same names in `cyroialign`:

- A tensor is viewed, not copied. The result has its dtype, one of float32, float64, float16 and bfloat16
  (float32 for uint8 and int8), and its memory order: of a channels_last tensor it is channels_last. Other
  strides cost one copy.
- Boxes may have another dtype than the map, as under autocast.
- Calls use as many threads as torch does: `torch.get_num_threads`.
- They can be traced by ``torch.compile(fullgraph=True)`` and `torch.export`. Tensors on ``"meta"``, which
  have no values, give results on ``"meta"``; those on any other device are refused.

Gradients go to the maps, and from `roi_align`, `MultiScaleRoIAlign` and `prroi_pool` to the boxes too, as
`cyroialign.roi_align_boxes_backward` and `cyroialign.prroi_pool_boxes_backward` define them. The gradient to
the maps can be differentiated again, to boxes as well; that to the boxes cannot: NotImplementedError. Forward
mode, dual tensors and `torch.func.jvp`, goes from the maps alone: boxes with a tangent are a
NotImplementedError, except in `roi_pool`, which rounds them. The transforms of `torch.func` work, and work on
each other; ``vmap`` makes one call for each entry.

What torchvision 0.29 does differently:

- Boxes that are not finite, or of an image that does not exist, are a ValueError here and undefined there.
- With adaptive sampling, `ps_roi_align` gives 0 for a box of zero size here and NaN there.
- Half precision is summed in float32 and rounded once, and boxes are never rounded to it. There, float16 is
  rounded at every step, and bfloat16 is refused except under autocast.
- A bin of `roi_pool` that holds only NaN and -inf is -inf here and -3.4e38 there.
- A name that `MultiScaleRoIAlign` does not find is a ValueError here and skipped there.
- There, no result is channels_last, and boxes have no gradient. Nothing can be differentiated again, and in
  forward mode every tangent is 0.
"""

try:
    import ml_dtypes as _ml_dtypes  # noqa: F401
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        f'cyroialign.torch needs PyTorch and ml_dtypes: pip install "cyroialign[torch]" ({error})',
        name=error.name,
    ) from error

from cyroialign.torch import _derivatives  # noqa: F401  gives the operators theirs
from cyroialign.torch._functions import (
    paste_masks,
    prroi_pool,
    prroi_pool2d,
    ps_roi_align,
    roi_align,
    roi_align_3d,
    roi_align_rotated,
    roi_pool,
)
from cyroialign.torch._modules import MultiScaleRoIAlign, PrRoIPool2D, RoIAlign, RoIAlign3D
from cyroialign.torch._torchvision import accelerate_torchvision

__all__ = [
    "MultiScaleRoIAlign",
    "PrRoIPool2D",
    "RoIAlign",
    "RoIAlign3D",
    "accelerate_torchvision",
    "paste_masks",
    "prroi_pool",
    "prroi_pool2d",
    "ps_roi_align",
    "roi_align",
    "roi_align_3d",
    "roi_align_rotated",
    "roi_pool",
]
