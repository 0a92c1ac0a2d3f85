"""Picks, once at import, the SIMD level whose compiled kernels are used.

Every level is compiled from the same source and gives the same bits; they differ in speed alone.
"""

import importlib.util
import os
from functools import cache
from importlib import import_module
from typing import Protocol, cast

import numpy as np

try:
    import cyroialign._kernels._runtime as _runtime
except ModuleNotFoundError as error:
    raise ImportError(
        "this cyroialign is a source folder without compiled kernels: compile them in place with "
        "`pip install -e .`, or run from another folder to use an installed package"
    ) from error

LEVELS = ("baseline", "avx2", "avx512")  # slowest first


class Kernels(Protocol):
    """What a compiled module offers; see ``src/kernels.pyx``."""

    def first_bad_box(
        self, boxes: np.ndarray, images: int, spatial_scale: float, aligned: bool, single: bool
    ) -> int: ...

    def roi_align(
        self,
        input: np.ndarray,
        boxes: np.ndarray,
        output: np.ndarray,
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool,
        single: bool,
        channels_last: bool,
        threads: int,
    ) -> None: ...

    def roi_align_backward(
        self,
        grad_output: np.ndarray,
        boxes: np.ndarray,
        grad_input: np.ndarray,
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool,
        single: bool,
        channels_last: bool,
        threads: int,
    ) -> None: ...

    def roi_align_levels(
        self,
        inputs: tuple[np.ndarray, ...],
        spatial_scales: np.ndarray,
        levels: np.ndarray,
        boxes: np.ndarray,
        output: np.ndarray,
        sampling_ratio: int,
        aligned: bool,
        single: bool,
        channels_last: bool,
        threads: int,
    ) -> None: ...

    def roi_align_levels_backward(
        self,
        grad_output: np.ndarray,
        spatial_scales: np.ndarray,
        levels: np.ndarray,
        boxes: np.ndarray,
        grad_inputs: tuple[np.ndarray, ...],
        sampling_ratio: int,
        aligned: bool,
        single: bool,
        channels_last: bool,
        threads: int,
    ) -> None: ...

    def roi_align_boxes_backward(
        self,
        grad_output: np.ndarray,
        input: np.ndarray,
        boxes: np.ndarray,
        grad_boxes: np.ndarray,
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool,
        single: bool,
        channels_last: bool,
        threads: int,
    ) -> None: ...

    def roi_align_max(
        self,
        input: np.ndarray,
        boxes: np.ndarray,
        output: np.ndarray,
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool,
        single: bool,
        channels_last: bool,
        onnx: bool,
        threads: int,
    ) -> None: ...

    def roi_align_max_backward(
        self,
        grad_output: np.ndarray,
        input: np.ndarray,
        boxes: np.ndarray,
        grad_input: np.ndarray,
        spatial_scale: float,
        sampling_ratio: int,
        aligned: bool,
        single: bool,
        channels_last: bool,
        onnx: bool,
        threads: int,
    ) -> None: ...

    def roi_align_max_levels(
        self,
        inputs: tuple[np.ndarray, ...],
        spatial_scales: np.ndarray,
        levels: np.ndarray,
        boxes: np.ndarray,
        output: np.ndarray,
        sampling_ratio: int,
        aligned: bool,
        single: bool,
        channels_last: bool,
        onnx: bool,
        threads: int,
    ) -> None: ...

    def roi_align_max_levels_backward(
        self,
        grad_output: np.ndarray,
        inputs: tuple[np.ndarray, ...],
        spatial_scales: np.ndarray,
        levels: np.ndarray,
        boxes: np.ndarray,
        grad_inputs: tuple[np.ndarray, ...],
        sampling_ratio: int,
        aligned: bool,
        single: bool,
        channels_last: bool,
        onnx: bool,
        threads: int,
    ) -> None: ...

    def roi_pool(
        self,
        input: np.ndarray,
        boxes: np.ndarray,
        output: np.ndarray,
        spatial_scale: float,
        single: bool,
        channels_last: bool,
        threads: int,
    ) -> None: ...

    def roi_pool_backward(
        self,
        grad_output: np.ndarray,
        input: np.ndarray,
        boxes: np.ndarray,
        grad_input: np.ndarray,
        spatial_scale: float,
        single: bool,
        channels_last: bool,
        threads: int,
    ) -> None: ...

    def position_sensitive(
        self,
        input: np.ndarray,
        boxes: np.ndarray,
        output: np.ndarray,
        spatial_scale: float,
        sampling_ratio: int,
        quantised: bool,
        single: bool,
        channels_last: bool,
        threads: int,
    ) -> None: ...

    def position_sensitive_backward(
        self,
        grad_output: np.ndarray,
        boxes: np.ndarray,
        grad_input: np.ndarray,
        spatial_scale: float,
        sampling_ratio: int,
        quantised: bool,
        single: bool,
        channels_last: bool,
        threads: int,
    ) -> None: ...


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
def _module(name: str) -> Kernels:
    return cast(Kernels, import_module(f"{__name__}.{simd}_{name}"))


def kernels(dtype: np.dtype) -> Kernels:
    """Return the kernels for maps of this type; those of narrow types have average RoIAlign alone."""
    return _module(dtype.type.__name__)


for _name in ("float32", "float64"):  # at once: a broken installation is known at import
    _module(_name)
