from collections.abc import Callable
from typing import Any

import numpy as np

Maps = tuple[np.ndarray, ...]

class RoIs:
    bad: int
    def __init__(
        self,
        boxes: np.ndarray,
        images: int,
        scales: tuple[tuple[float, ...], ...],
        levels: np.ndarray | None,
        aligned: bool,
        single: bool,
        clockwise: bool = False,
    ) -> None: ...

class CallSettings:
    def __init__(
        self,
        pooling: int,
        bins_y: int,
        bins_x: int,
        ratio: int,
        channels_last: bool,
        threads: int,
        at_most: bool = False,
        depth: int = 0,
        bins_z: int = 0,
        outside: bytes | None = None,
    ) -> None: ...

def threads_now(most: int) -> int: ...
def note(threads: int, wall: int, computed: int) -> None: ...
def read_plain_with(kernels: Kernels) -> None: ...
def forward_plain(
    pooling: int,
    input: Any,
    boxes: Any,
    output_size: Any,
    scale: Any,
    ratio: Any,
    aligned: Any,
    channels_last: bool,
    out: Any,
    threads_for: Callable[[int | None], tuple[int, bool]],
    num_threads: Any,
) -> np.ndarray | None: ...
def backward_plain(
    pooling: int,
    grad_output: Any,
    boxes: Any,
    input_shape: Any,
    scale: Any,
    ratio: Any,
    aligned: Any,
    channels_last: bool,
    out: Any,
    threads_for: Callable[[int | None], tuple[int, bool]],
    num_threads: Any,
) -> np.ndarray | None: ...

class Kernels:
    def __init__(self, table: object) -> None: ...
    def can(self, direction: int, pooling: int) -> bool: ...
    def forward(
        self,
        settings: CallSettings,
        maps: Maps,
        rois: RoIs,
        result: np.ndarray,
        argmax: np.ndarray | None = None,
    ) -> None: ...
    def backward(
        self,
        settings: CallSettings,
        grad_result: np.ndarray,
        maps: Maps | None,
        rois: RoIs,
        grad_maps: Maps,
        argmax: np.ndarray | None = None,
    ) -> None: ...
    def boxes_backward(
        self,
        settings: CallSettings,
        grad_result: np.ndarray,
        maps: Maps,
        rois: RoIs,
        grad_boxes: np.ndarray,
    ) -> None: ...

def paste(
    masks: np.ndarray,
    spans: np.ndarray,
    result: np.ndarray,
    padding: float,
    fades: bool,
    threshold: float | None,
    blank: bool,
    threads: int,
    at_most: bool,
) -> None: ...
