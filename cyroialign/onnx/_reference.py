"""The operators in ONNX's reference evaluator."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from cyroialign import roi_pool
from cyroialign._kernels import _onnxruntime
from cyroialign.onnx._operators import LEGACY, OPERATORS, settings


class _Node(OpRun):
    """Raises what this package raises."""

    def run(self, *inputs: np.ndarray, **options: Any) -> Any:
        """Compute; onnx turns every error into a TypeError, which a signal handler's must not become."""
        compute: Callable[..., Any] = super().run
        try:
            return compute(*inputs, **options)
        except TypeError as error:
            cause = error.__cause__
            if cause is None or _onnxruntime.is_about_arguments(cause):
                raise
        raise cause


class RoiAlign(_Node):
    """RoiAlign of the opset of its model."""

    op_domain = ""

    def __init__(self, onnx_node: onnx.NodeProto, run_params: dict[str, Any]) -> None:
        schema = onnx.defs.get_schema(onnx_node.op_type, run_params["opsets"][""], "")
        super().__init__(onnx_node, run_params, schema)

    def _run(self, *inputs: np.ndarray, **attributes: Any) -> tuple[np.ndarray]:
        self._check_types(inputs)
        features, boxes, batch_indices = inputs
        pool, arguments = OPERATORS["RoiAlign"].pool, settings("RoiAlign", LEGACY | attributes)
        return (pool(features, boxes, batch_indices=batch_indices, **arguments),)

    def _check_types(self, inputs: Sequence[np.ndarray]) -> None:
        """Refuse what another version of the operator, or this package, would take."""
        schema = self._schema
        types = {one.type_param_str: one.allowed_type_strs for one in schema.type_constraints}
        for array, formal in zip(inputs, schema.inputs, strict=True):
            kind = onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
            name = f"tensor({onnx.TensorProto.DataType.Name(kind).lower()})"
            if name not in types[formal.type_str]:
                expected = ", ".join(sorted(types[formal.type_str]))
                raise TypeError(
                    f"{formal.name} of {schema.name} {schema.since_version} must be one of {expected}, "
                    f"got {name}"
                )


class MaxRoiPool(RoiAlign):
    """MaxRoiPool of the opset of its model."""

    def _run(self, *inputs: np.ndarray, **attributes: Any) -> tuple[np.ndarray]:
        self._check_types(inputs)
        features, rois = inputs
        return (roi_pool(features, rois, attributes["pooled_shape"], attributes["spatial_scale"]),)


class MMCVRoiAlign(_Node):
    """RoIAlign of models that MMCV and mmdeploy have exported."""

    op_domain = "mmdeploy"

    def _run(self, *inputs: np.ndarray, **attributes: Any) -> tuple[np.ndarray]:
        name = self.onnx_node.op_type
        return (OPERATORS[name].pool(*inputs, **settings(name, attributes)),)


class MMCVRoIAlignRotated(MMCVRoiAlign):
    """The same of rotated boxes."""


OURS: list[type[OpRun]] = [RoiAlign, MaxRoiPool, MMCVRoiAlign, MMCVRoIAlignRotated]
OURS += [type(one.__name__, (one,), {"op_domain": "mmcv"}) for one in (MMCVRoiAlign, MMCVRoIAlignRotated)]


class Evaluator(ReferenceEvaluator):
    """Has the operators in a model's functions too, which make evaluators of their class."""

    def __init__(self, proto: Any, *, new_ops: Sequence[type[OpRun]] | None = None, **options: Any) -> None:
        super().__init__(proto, new_ops=[*OURS, *(new_ops or ())], **options)
