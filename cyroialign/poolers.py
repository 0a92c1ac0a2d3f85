"""The module of torchvision that has these names, for those who look for them here."""

from cyroialign.pyramid.levels import assign_levels, infer_scales
from cyroialign.pyramid.multiscale import MultiScaleRoIAlign

__all__ = ["MultiScaleRoIAlign", "assign_levels", "infer_scales"]
