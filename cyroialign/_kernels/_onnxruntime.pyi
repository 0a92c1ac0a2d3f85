from collections.abc import Callable
from typing import Any

import numpy as np

class Run:
    def allocate(self, shape: tuple[int, int, int, int]) -> np.ndarray: ...
    def parallel(self, function: Callable[[int], Any], parts: int) -> None: ...

Compute = Callable[[np.ndarray, np.ndarray, np.ndarray, Run], None]

def serve(prepare: Callable[[dict[str, Any]], Compute]) -> None: ...
