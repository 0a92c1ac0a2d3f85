"""The sessions that cyroialign.onnx makes: ONNX Runtime's, passing exceptions through unchanged."""

import functools
from collections.abc import Callable
from typing import Any

import onnxruntime

from cyroialign._kernels._onnxruntime import call

RUN_OR_MAKE = (  # what runs nodes, or makes them
    "__init__",
    "set_providers",
    "run",
    "run_async",
    "run_with_iobinding",
    "run_with_ort_values",
    "run_with_ortvaluevector",
)


class InferenceSession(onnxruntime.InferenceSession):
    """Passes on what a signal handler raises within a node, such as KeyboardInterrupt."""


def _passing(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def passing(*args: Any, **options: Any) -> Any:
        return call(method, *args, **options)

    return passing


for _name in RUN_OR_MAKE:
    setattr(InferenceSession, _name, _passing(getattr(onnxruntime.InferenceSession, _name)))
