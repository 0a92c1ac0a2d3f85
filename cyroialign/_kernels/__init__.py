"""Picks, once at import, the SIMD level whose compiled kernels are used.

Every level is compiled from the same source and gives the same bits; they differ in speed alone.
"""

import importlib.util
import os
from functools import cache
from importlib import import_module

import numpy as np

try:
    import cyroialign._kernels._runtime as _runtime
except ModuleNotFoundError as error:
    raise ImportError(
        "this cyroialign is a source folder without compiled kernels: compile them in place with "
        "`pip install -e .`, or run from another folder to use an installed package"
    ) from error

from cyroialign._kernels._front import (
    CallSettings,
    Kernels,
    RoIs,
    backward_plain,
    forward_plain,
    paste,
    read_plain_with,
)

__all__ = [
    "CallSettings",
    "Kernels",
    "RoIs",
    "backward_plain",
    "forward_plain",
    "kernels",
    "paste",
    "simd",
    "simd_levels",
]

LEVELS = ("baseline", "avx2", "avx512")  # slowest first
MEAN, MAX, ONNX_MAX, ROI_POOL, PS_ROI_ALIGN, PS_ROI_POOL, PRROI_POOL = range(7)  # as in src/call.pxd
CROP_BILINEAR, CROP_NEAREST, ROI_ALIGN_ROTATED = 7, 8, 9
FORWARD, BACKWARD, BOXES_BACKWARD = range(3)


def _usable_levels() -> tuple[str, ...]:
    can_run = _runtime.cpu_levels()
    return tuple(
        level
        for level in LEVELS
        if level in can_run and importlib.util.find_spec(f"{__name__}.{level}_float32")
    )


def _chosen_level() -> str:
    wanted = os.environ.get("CYROIALIGN_SIMD")
    if not wanted:
        return simd_levels[-1]
    if wanted not in simd_levels:
        raise ImportError(
            f"CYROIALIGN_SIMD={wanted!r} is not a SIMD level that was built and that this CPU runs; "
            f"choose one of: {', '.join(simd_levels)}"
        )
    return wanted


simd_levels = _usable_levels()
simd = _chosen_level()


@cache
def _of_type(name: str) -> Kernels:
    return Kernels(import_module(f"{__name__}.{simd}_{name}").table)


def kernels(dtype: np.dtype) -> Kernels:
    """Return the kernels for maps of this type."""
    return _of_type(dtype.type.__name__)


for _name in ("float32", "float64"):  # at once: a broken installation is known at import
    read_plain_with(_of_type(_name))
