from collections.abc import Callable
from typing import Any

import numpy as np

Allocate = Callable[[tuple[int, int, int, int]], np.ndarray]
Compute = Callable[[np.ndarray, np.ndarray, np.ndarray, Allocate], None]

def serve(prepare: Callable[[dict[str, Any]], Compute]) -> None: ...
