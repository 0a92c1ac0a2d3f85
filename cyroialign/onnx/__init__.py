"""The operators of this package in ONNX's reference evaluator and in ONNX Runtime.

Needs onnx, and `inference_session` needs onnxruntime: the extra ``onnx``.
"""

import os
import pathlib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator

from cyroialign._kernels import _onnxruntime
from cyroialign.onnx._graph import replace
from cyroialign.onnx._operators import OPERATORS, settings
from cyroialign.onnx._reference import Evaluator

if TYPE_CHECKING:
    import onnxruntime

    from cyroialign._kernels._onnxruntime import Compute, Run

__all__ = ["inference_session", "reference_evaluator"]

REGISTERED = "cyroialign.registered"  # an entry of ours in session options
PART = 2**17  # results that a thread takes at once; benchmarks/onnx_graph.py: calling Python costs 30 µs
PARTS = 4  # for each thread at most, since some RoIs take longer than others


def reference_evaluator(model: "onnx.ModelProto | bytes | str | os.PathLike[str]") -> ReferenceEvaluator:
    """Evaluate a model as ONNX's reference does, with the pooling of regions computed by this package.

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

    Models that MMDetection and MMRotate have exported may have MMCVRoiAlign and MMCVRoIAlignRotated, of the
    domain mmdeploy or mmcv. They are `roi_align` and `roi_align_rotated` with boxes that begin with
    their image, and must have all their attributes: output_height, output_width, spatial_scale,
    sampling_ratio, aligned, and mode or clockwise. Their ``mode="max"`` is that of `roi_align`.

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
    return Evaluator(model)


def inference_session(
    model: "onnx.ModelProto | bytes | str | os.PathLike[str]",
    *,
    nodes: Collection[str] | None = None,
    sess_options: "onnxruntime.SessionOptions | None" = None,
    providers: Sequence[Any] = ("CPUExecutionProvider",),
    **options: Any,
) -> "onnxruntime.InferenceSession":
    """Make a session of ONNX Runtime in which this package computes the nodes that are RoIAlign.

    Parameters
    ----------
    model : onnx.ModelProto, bytes or path
        It is not changed. External data is read from beside the file.
    nodes : collection of str, optional
        Names of the nodes to replace; by default all that are RoIAlign.
    sess_options : onnxruntime.SessionOptions, optional
        This package's operators are registered in it. They run on the session's own threads, set by
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
        If `nodes` has a name that no such node has. Wrong attributes of a node, such as an unknown ``mode``,
        raise an error of ONNX Runtime with our message.

    Notes
    -----
    RoiAlign of the standard domain is replaced in opsets 10, 16 and 22, also in branches, bodies of loops and
    the model's functions, by the rules that `reference_evaluator` states; and so are MMCVRoiAlign and
    MMCVRoIAlignRotated, which otherwise need a library of MMCV or mmdeploy. All read and write the tensors of
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
    replace(proto, nodes, sess_options.intra_op_num_threads)
    _register(sess_options)
    return InferenceSession(proto.SerializeToString(), sess_options, providers=list(providers), **options)


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


def _prepare(name: str, attributes: dict[str, Any]) -> "Compute":
    """Make what ONNX Runtime calls at each run of a node."""
    threads = attributes.pop("num_threads") or os.cpu_count() or 1
    arguments = settings(name, attributes)

    def compute(
        run: "Run", input: np.ndarray, boxes: np.ndarray, batch_indices: np.ndarray | None = None
    ) -> None:
        operator = OPERATORS[name].pool

        def pool(part: slice) -> None:
            operator(
                input,
                boxes[part],
                batch_indices=None if batch_indices is None else batch_indices[part],
                out=out[part],
                num_threads=1,  # others, of OpenMP, would wait for work where the runtime's want to run
                **arguments,
            )

        fits = batch_indices is None or batch_indices.shape == boxes.shape[:1]
        if input.ndim != 4 or boxes.ndim != 2 or not fits:
            operator(input, boxes, batch_indices=batch_indices, **arguments)  # raises what is wrong
        rois = len(boxes)
        out = run.allocate((rois, input.shape[1], *arguments["output_size"]))
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
