"""RoIAlign on CPUs for NumPy arrays: fast, safe, and the same bits everywhere."""

from cyroialign._config import show_config
from cyroialign._version import __version__
from cyroialign.arguments.threads import get_num_threads, num_threads, set_num_threads
from cyroialign.diagnosis import why_zero
from cyroialign.operators.crop_and_resize import (
    crop_and_resize,
    crop_and_resize_backward,
    crop_and_resize_boxes_backward,
)
from cyroialign.operators.paste_masks import paste_masks
from cyroialign.operators.prroi_pool import (
    PrRoIPool,
    prroi_pool,
    prroi_pool_backward,
    prroi_pool_boxes_backward,
)
from cyroialign.operators.ps_roi_align import PSRoIAlign, ps_roi_align, ps_roi_align_backward
from cyroialign.operators.ps_roi_pool import PSRoIPool, ps_roi_pool, ps_roi_pool_backward
from cyroialign.operators.roi_align import RoIAlign, roi_align, roi_align_backward
from cyroialign.operators.roi_align_3d import RoIAlign3D, roi_align_3d, roi_align_3d_backward
from cyroialign.operators.roi_align_boxes import roi_align_boxes_backward
from cyroialign.operators.roi_align_rotated import (
    RoIAlignRotated,
    roi_align_rotated,
    roi_align_rotated_backward,
)
from cyroialign.operators.roi_pool import RoIPool, roi_pool, roi_pool_backward
from cyroialign.pyramid.anchors import AnchorGenerator
from cyroialign.pyramid.fpn import FeaturePyramidNetwork
from cyroialign.pyramid.levels import assign_levels, infer_scales
from cyroialign.pyramid.multiscale import MultiScaleRoIAlign

__all__ = [
    "AnchorGenerator",
    "FeaturePyramidNetwork",
    "MultiScaleRoIAlign",
    "PSRoIAlign",
    "PSRoIPool",
    "PrRoIPool",
    "RoIAlign",
    "RoIAlign3D",
    "RoIAlignRotated",
    "RoIPool",
    "__version__",
    "assign_levels",
    "crop_and_resize",
    "crop_and_resize_backward",
    "crop_and_resize_boxes_backward",
    "get_num_threads",
    "infer_scales",
    "num_threads",
    "paste_masks",
    "prroi_pool",
    "prroi_pool_backward",
    "prroi_pool_boxes_backward",
    "ps_roi_align",
    "ps_roi_align_backward",
    "ps_roi_pool",
    "ps_roi_pool_backward",
    "roi_align",
    "roi_align_3d",
    "roi_align_3d_backward",
    "roi_align_backward",
    "roi_align_boxes_backward",
    "roi_align_rotated",
    "roi_align_rotated_backward",
    "roi_pool",
    "roi_pool_backward",
    "set_num_threads",
    "show_config",
    "why_zero",
]
