"""The operators of this package in ONNX's reference evaluator and in ONNX Runtime.

Needs onnx, and `inference_session` needs onnxruntime: the extra ``onnx``.
"""

import os
import pathlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

from cyroialign import RoIAlign, roi_align, roi_pool
from cyroialign._kernels import _onnxruntime
from cyroialign.arguments import validation

if TYPE_CHECKING:
    import onnxruntime

    from cyroialign._kernels._onnxruntime import Compute, Run

__all__ = ["inference_session", "reference_evaluator"]

ROI_ALIGN = (("RoiAlign", ""), ("RoiAlign", "ai.onnx"))
DOMAIN = "cyroialign"  # of the operators that ONNX Runtime finds here
REGISTERED = "cyroialign.registered"  # an entry of ours in session options
ALIGNED = {"half_pixel": True, "output_half_pixel": False}
MODES = {"avg": "avg", "max": "onnx_max"}
PART = 2**17  # results that a thread takes at once; benchmarks/onnx_graph.py: calling Python costs 30 µs
PARTS = 4  # for each thread at most, since some RoIs take longer than others
LEGACY = {"coordinate_transformation_mode": "output_half_pixel"}  # the only mode before opset 16


def reference_evaluator(model: "onnx.ModelProto | bytes | str | os.PathLike[str]") -> ReferenceEvaluator:
    """Evaluate a model as ONNX's reference does, with RoiAlign and MaxRoiPool computed by this package.

    Parameters
    ----------
    model : onnx.ModelProto, bytes or path
        External data is read from beside the file.

    Returns
    -------
    onnx.reference.ReferenceEvaluator
        Its ``run(None, {name: array})`` returns the outputs. The other operators are those of onnx.

    Notes
    -----
    A node follows the version of the operator in its model's opset. RoiAlign 10 has no
    ``coordinate_transformation_mode`` and never shifts by half a pixel, but onnx's own evaluator does; 16
    shifts unless told otherwise; 22 also takes bfloat16. ``mode="max"`` is `roi_align`'s ``"onnx_max"``.
    MaxRoiPool, whose definition says nothing about rounding, is `roi_pool`, as in ONNX Runtime: coordinates
    round to whole pixels, halves away from zero, both ends belong to the RoI, and an empty bin is 0.

    Wrong inputs raise the errors of `roi_align` and `roi_pool`; onnx wraps a TypeError in its own.

    Examples
    --------
    >>> import numpy as np
    >>> import onnx
    >>> import cyroialign.onnx
    >>> model = onnx.parser.parse_model('''
    ...     <ir_version: 8, opset_import: ["": 16]>
    ...     crop (float[n, c, h, w] x, float[k, 4] boxes, int64[k] image) => (float[k, c, p, q] y)
    ...     { y = RoiAlign <output_height = 2, output_width = 2> (x, boxes, image) }''')
    >>> feed = {
    ...     "x": np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5),
    ...     "boxes": np.array([[1, 1, 3, 3]], np.float32),
    ...     "image": np.array([0]),
    ... }
    >>> cyroialign.onnx.reference_evaluator(model).run(None, feed)[0]
    array([[[[ 6.,  7.],
             [11., 12.]]]], dtype=float32)
    """
    if isinstance(model, str | os.PathLike):
        model = onnx.load(model)
    return _Evaluator(model)


def inference_session(
    model: "onnx.ModelProto | bytes | str | os.PathLike[str]",
    *,
    nodes: Collection[str] | None = None,
    sess_options: "onnxruntime.SessionOptions | None" = None,
    providers: Sequence[Any] = ("CPUExecutionProvider",),
    **options: Any,
) -> "onnxruntime.InferenceSession":
    """Make a session of ONNX Runtime in which this package computes the RoiAlign nodes.

    Parameters
    ----------
    model : onnx.ModelProto, bytes or path
        It is not changed. External data is read from beside the file.
    nodes : collection of str, optional
        Names of the RoiAlign nodes to replace; by default all of them.
    sess_options : onnxruntime.SessionOptions, optional
        This package's operator is registered in it. The operator runs on the session's own threads, set by
        its ``intra_op_num_threads``; `num_threads` and `set_num_threads` have no effect on it.
    providers : sequence, optional
        Execution providers for the other nodes.
    **options
        Further arguments of `onnxruntime.InferenceSession`.

    Returns
    -------
    onnxruntime.InferenceSession
        With the inputs and outputs of the model. Wrong inputs of a node raise an error of ONNX
        Runtime with the message of `roi_align`: ``boxes[17] has batch_index 3, but input has 2
        images``. Other exceptions raised while a node runs pass through ``run`` and its variants unchanged:
        KeyboardInterrupt, whatever a signal handler raises, MemoryError.

    Raises
    ------
    ValueError
        If `nodes` has a name that no RoiAlign has. Wrong attributes of a node, such as an unknown ``mode``,
        raise an error of ONNX Runtime with our message.

    Notes
    -----
    RoiAlign of the standard domain is replaced in opsets 10, 16 and 22, also in branches, bodies of loops and
    the model's functions, by the rules that `reference_evaluator` states. It reads and writes the tensors of
    the runtime in place, including float16 and bfloat16. On a CPU ONNX Runtime (1.32) itself has RoiAlign
    only for float32 and float64, and not for opset 22.

    If ONNX Runtime runs nodes on its own threads (``run_async``, ``ORT_PARALLEL``), an error there is
    its Fail with our type and message. Python's signal handlers never run on these threads.

    Calling Python costs 30 µs, so ONNX Runtime's own RoiAlign is faster below about 4000 results
    (one RoI of 7 by 7 bins and 80 channels, 2 by 2 samples). Above, with 256 channels on a map of 200 by 272:
    58 ms become 9 for 100 RoIs and 590 become 50 for 1000, on one thread. Between the convolutions of
    ``benchmarks/onnx_graph.py`` the whole graph takes 53 ms instead of 108 with 100 RoIs, and 38 instead of
    43 with 10. (Processor time on an Intel Xeon at 2.5 GHz, AVX-512, ONNX Runtime 1.32.)

    Examples
    --------
    >>> import numpy as np
    >>> import onnx
    >>> import cyroialign.onnx
    >>> model = onnx.parser.parse_model('''
    ...     <ir_version: 8, opset_import: ["": 16]>
    ...     crop (float[n, c, h, w] x, float[k, 4] boxes, int64[k] image) => (float[k, c, p, q] y)
    ...     { y = RoiAlign <output_height = 2, output_width = 2> (x, boxes, image) }''')
    >>> session = cyroialign.onnx.inference_session(model)
    >>> features = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    >>> boxes, image = np.array([[1, 1, 3, 3]], np.float32), np.array([0])
    >>> session.run(None, {"x": features, "boxes": boxes, "image": image})[0]
    array([[[[ 6.,  7.],
             [11., 12.]]]], dtype=float32)
    """
    import onnxruntime

    from cyroialign.onnx._session import InferenceSession

    _onnxruntime.serve(_prepare)
    proto, folder = _copied(model)
    if sess_options is None:
        sess_options = onnxruntime.SessionOptions()
    if folder is not None:
        sess_options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(folder)
        )
    _replace(proto, nodes, sess_options.intra_op_num_threads)
    _register(sess_options)
    return InferenceSession(proto.SerializeToString(), sess_options, providers=list(providers), **options)


class RoiAlign(OpRun):
    """RoiAlign of the opset of its model."""

    op_domain = ""

    def __init__(self, onnx_node: onnx.NodeProto, run_params: dict[str, Any]) -> None:
        schema = onnx.defs.get_schema(onnx_node.op_type, run_params["opsets"][""], "")
        super().__init__(onnx_node, run_params, schema)

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

    def _run(self, *inputs: np.ndarray, **attributes: Any) -> tuple[np.ndarray]:
        self._check_types(inputs)
        features, boxes, batch_indices = inputs
        return (roi_align(features, boxes, batch_indices=batch_indices, **_settings(**LEGACY | attributes)),)

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


class _Evaluator(ReferenceEvaluator):
    """Has the operators in a model's functions too, which make evaluators of their class."""

    def __init__(self, proto: Any, *, new_ops: Sequence[type[OpRun]] | None = None, **options: Any) -> None:
        super().__init__(proto, new_ops=[RoiAlign, MaxRoiPool, *(new_ops or ())], **options)


def _register(options: "onnxruntime.SessionOptions") -> None:
    """Register our operator in options, unless it is there already: twice is an error of ONNX Runtime."""
    try:
        options.get_session_config_entry(REGISTERED)
    except RuntimeError:
        options.register_custom_ops_library(_onnxruntime.__file__)
        options.add_session_config_entry(REGISTERED, "1")


def _copied(model: "onnx.ModelProto | bytes | str | os.PathLike[str]") -> tuple[onnx.ModelProto, str | None]:
    """Return a model to change, without external data, and the folder that has these."""
    if isinstance(model, str | os.PathLike):
        path = pathlib.Path(model)
        return onnx.load(path, load_external_data=False), str(path.parent)
    if isinstance(model, bytes):
        return onnx.load_from_string(model), None
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy, None


def _replace(model: onnx.ModelProto, names: Collection[str] | None, threads: int) -> None:
    """Move each RoiAlign, or those of the given names, to the domain of this package."""
    known = set()
    for nodes, imports in [(one.node, one.opset_import) for one in model.functions] + [
        (model.graph.node, model.opset_import)
    ]:
        version = {one.domain or "ai.onnx": one.version for one in imports}.get("ai.onnx", 1)
        found = [node for node in _nodes(nodes) if (node.op_type, node.domain) in ROI_ALIGN]
        known |= {node.name for node in found}
        chosen = [node for node in found if names is None or node.name in names]
        for node in chosen:
            _say_all(node, version, threads)
            node.domain = DOMAIN
        if chosen:
            imports.append(onnx.helper.make_opsetid(DOMAIN, 1))
    if names is not None and not known.issuperset(names):
        unknown = sorted(set(names) - known)
        raise ValueError(f"nodes must name RoiAlign nodes of the model, {sorted(known)}, got {unknown}")


def _nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """All nodes, those of branches and bodies of loops as well."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)


def _say_all(node: onnx.NodeProto, version: int, threads: int) -> None:
    """Add the attributes that the version of the operator leaves out, for an operator without versions."""
    defaults = onnx.defs.get_schema(node.op_type, version, "").attributes.values()
    unsaid = [one.default_value for one in defaults]
    unsaid += [onnx.helper.make_attribute(name, value) for name, value in LEGACY.items()]
    unsaid.append(onnx.helper.make_attribute("num_threads", threads))
    said = {attribute.name for attribute in node.attribute}
    for attribute in unsaid:
        if attribute.name not in said:
            node.attribute.append(attribute)
            said.add(attribute.name)


def _settings(
    mode: str,
    coordinate_transformation_mode: str,
    output_height: int,
    output_width: int,
    sampling_ratio: int,
    spatial_scale: float,
) -> dict[str, Any]:
    """Translate the attributes of a node to the arguments of `roi_align`."""
    validation.choice(mode, "mode", tuple(MODES))
    validation.choice(coordinate_transformation_mode, "coordinate_transformation_mode", tuple(ALIGNED))
    return {
        "output_size": (output_height, output_width),
        "spatial_scale": spatial_scale,
        "sampling_ratio": sampling_ratio,
        "aligned": ALIGNED[coordinate_transformation_mode],
        "mode": MODES[mode],
    }


def _prepare(attributes: dict[str, Any]) -> "Compute":
    """Make what ONNX Runtime calls at each run of a node."""
    threads = attributes.pop("num_threads") or os.cpu_count() or 1
    settings = _settings(**attributes)
    RoIAlign(**settings)  # raises what is wrong with them

    def compute(input: np.ndarray, boxes: np.ndarray, batch_indices: np.ndarray, run: "Run") -> None:
        def pool(part: slice) -> None:
            roi_align(
                input,
                boxes[part],
                batch_indices=batch_indices[part],
                out=out[part],
                num_threads=1,  # others, of OpenMP, would wait for work where the runtime's want to run
                **settings,
            )

        if input.ndim != 4 or boxes.ndim != 2 or batch_indices.shape != boxes.shape[:1]:
            roi_align(input, boxes, batch_indices=batch_indices, **settings)  # raises what is wrong
        rois = len(boxes)
        out = run.allocate((rois, input.shape[1], *settings["output_size"]))
        parts = min(rois, PARTS * threads, out.size // PART) if threads > 1 else 1
        if parts > 1:
            try:
                run.parallel(lambda n: pool(slice(rois * n // parts, rois * (n + 1) // parts)), parts)
                return
            except (TypeError, ValueError) as error:
                if not _onnxruntime.is_about_arguments(error):
                    raise
                # which names a box by its place in the part
        pool(slice(None))

    return compute
