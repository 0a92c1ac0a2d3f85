"""RoIAlign on CPUs for NumPy arrays: fast, safe, and the same bits everywhere."""

from cyroialign._config import show_config
from cyroialign._threads import get_num_threads, num_threads, set_num_threads
from cyroialign._version import __version__
from cyroialign.anchors import AnchorGenerator
from cyroialign.box_gradient import roi_align_boxes_backward
from cyroialign.fpn import FeaturePyramidNetwork
from cyroialign.poolers import MultiScaleRoIAlign, assign_levels
from cyroialign.roi_align import RoIAlign, roi_align, roi_align_backward
from cyroialign.why_zero import why_zero

__all__ = [
    "AnchorGenerator",
    "FeaturePyramidNetwork",
    "MultiScaleRoIAlign",
    "RoIAlign",
    "__version__",
    "assign_levels",
    "get_num_threads",
    "num_threads",
    "roi_align",
    "roi_align_backward",
    "roi_align_boxes_backward",
    "set_num_threads",
    "show_config",
    "why_zero",
]
