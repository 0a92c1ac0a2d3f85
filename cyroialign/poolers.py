"""torchvision keeps these names in a module `poolers`; they can be imported from here too."""

from cyroialign.pyramid.levels import assign_levels, infer_scales
from cyroialign.pyramid.multiscale import MultiScaleRoIAlign

__all__ = ["MultiScaleRoIAlign", "assign_levels", "infer_scales"]
