from types import CapsuleType

import numpy as np

Maps = tuple[np.ndarray, ...]

def first_bad_box(
    boxes: np.ndarray,
    images: int,
    scales: np.ndarray,
    levels: np.ndarray | None,
    aligned: bool,
    single: bool,
) -> int: ...

class CallSettings:
    def __init__(
        self,
        pooling: int,
        bins_y: int,
        bins_x: int,
        ratio: int,
        aligned: bool,
        single: bool,
        channels_last: bool,
        threads: int,
    ) -> None: ...

class Kernels:
    def __init__(self, table: CapsuleType) -> None: ...
    def can(self, direction: int, pooling: int) -> bool: ...
    def forward(
        self,
        settings: CallSettings,
        maps: Maps,
        scales: np.ndarray,
        boxes: np.ndarray,
        levels: np.ndarray | None,
        result: np.ndarray,
    ) -> None: ...
    def backward(
        self,
        settings: CallSettings,
        grad_result: np.ndarray,
        maps: Maps | None,
        scales: np.ndarray,
        boxes: np.ndarray,
        levels: np.ndarray | None,
        grad_maps: Maps,
    ) -> None: ...
    def boxes_backward(
        self,
        settings: CallSettings,
        grad_result: np.ndarray,
        maps: Maps,
        scales: np.ndarray,
        boxes: np.ndarray,
        grad_boxes: np.ndarray,
    ) -> None: ...
