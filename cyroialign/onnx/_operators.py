"""The operators of models that are computed here: their names, and what their attributes mean."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from cyroialign import RoIAlign, RoIAlignRotated, roi_align, roi_align_rotated
from cyroialign.arguments import validation

STANDARD = ("", "ai.onnx")
MMCV = ("mmdeploy", "mmcv")  # newer models, and older ones
SHARED = ("output_height", "output_width", "spatial_scale", "sampling_ratio")
ALIGNED = {"half_pixel": True, "output_half_pixel": False}
MODES = {"avg": "avg", "max": "onnx_max"}
LEGACY = {"coordinate_transformation_mode": "output_half_pixel"}  # the only mode before opset 16


def _standard(mode: str, coordinate_transformation_mode: str) -> dict[str, Any]:
    validation.choice(mode, "mode", tuple(MODES))
    validation.choice(coordinate_transformation_mode, "coordinate_transformation_mode", tuple(ALIGNED))
    return {"aligned": ALIGNED[coordinate_transformation_mode], "mode": MODES[mode]}


def _mmcv(mode: str, aligned: int) -> dict[str, Any]:
    validation.choice(mode, "mode", ("avg", "max"))
    return {"aligned": bool(aligned), "mode": mode}


def _rotated(aligned: int, clockwise: int) -> dict[str, Any]:
    return {"aligned": bool(aligned), "clockwise": bool(clockwise)}


class Operator(NamedTuple):
    """An operator of some domains: what computes it, what checks its settings, and its own attributes."""

    domains: tuple[str, ...]
    pool: Callable[..., np.ndarray]
    check: Callable[..., Any]
    attributes: tuple[str, ...]  # beside SHARED
    translate: Callable[..., dict[str, Any]]


OPERATORS = {
    "RoiAlign": Operator(
        STANDARD, roi_align, RoIAlign, ("mode", "coordinate_transformation_mode"), _standard
    ),
    "MMCVRoiAlign": Operator(MMCV, roi_align, RoIAlign, ("mode", "aligned"), _mmcv),
    "MMCVRoIAlignRotated": Operator(
        MMCV, roi_align_rotated, RoIAlignRotated, ("aligned", "clockwise"), _rotated
    ),
}


def settings(name: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Translate a node's attributes to arguments, and raise what is wrong with them."""
    operator = OPERATORS[name]
    missing = [one for one in (*SHARED, *operator.attributes) if one not in attributes]
    if missing:
        raise ValueError(f"{name} must have the attributes {', '.join(missing)}")
    shared, own = ({one: attributes[one] for one in names} for names in (SHARED, operator.attributes))
    size = shared.pop("output_height"), shared.pop("output_width")
    found = {"output_size": size, **shared, **operator.translate(**own)}
    operator.check(**found)
    return found
