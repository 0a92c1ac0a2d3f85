"""What the benchmark times: cyroialign, and the other libraries that have RoIAlign on a CPU.

None of those is required, so they are imported by name and only when the benchmark asks. Where one lets
the caller bind its output, it is bound: like ours, such a call does not pay for new memory.
"""

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from cyroialign import roi_align, roi_align_backward

TOLERANCE = 1e-4  # of the largest value
FLOOR = "floor"  # the name of the row that no library can beat by much
Decorator: TypeAlias = Callable[[Callable[[], Any]], Callable[[], Any]]
CHANNELS_LAST, CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


class Problem(NamedTuple):
    """What every library is given. Some read these arrays in place: it has to live as long as the rows."""

    features: np.ndarray  # (1, C, H, W)
    boxes: np.ndarray  # (K, 5)
    corners: np.ndarray  # (K, 4): boxes without the image
    images: np.ndarray  # (K,) of int64
    output: np.ndarray  # (K, C, bins, bins): our forward fills it, and every backward takes it as gradient
    bins: int
    spatial_scale: float
    sampling_ratio: int
    threads: int


class Row(NamedTuple):
    """One thing to time. `call` returns what NumPy can view, with its axes in the order N, C, H, W."""

    library: str
    direction: str  # "forward" or "backward"
    layout: str  # of the memory that it reads
    call: Callable[[], Any]

    @property
    def name(self) -> str:
        return f"{self.library} {self.direction} {self.layout}"


class Peer(NamedTuple):
    """A library, the modules that it needs, and what its rows were set to."""

    library: str
    modules: tuple[str, ...]
    settings: str
    rows: Callable[[Problem], list[Row]]

    def versions(self) -> dict[str, str]:
        return {name: str(importlib.import_module(name).__version__) for name in self.modules}


def agreeing(rows: Sequence[Row]) -> tuple[list[Row], dict[str, str]]:
    """Call all rows; return those that agree with the first of their direction, and what others did."""
    expected: dict[str, np.ndarray] = {}
    kept, excluded = [], {}
    for row in rows:
        try:
            result = np.asarray(row.call())
            error = _difference(result, expected.setdefault(row.direction, result))
        except Exception as raised:  # whatever a foreign library raises
            excluded[row.name] = reason(raised)
        else:
            if error <= TOLERANCE:
                kept.append(row)
            else:
                excluded[row.name] = f"disagrees by {error:.2g} of the largest value"
    return kept, excluded


def _difference(result: np.ndarray, expected: np.ndarray) -> float:
    if result.shape != expected.shape:
        raise ValueError(f"the result has shape {result.shape} instead of {expected.shape}")
    error = result - expected
    return float(np.abs(error, out=error).max() / max(expected.max(), -expected.min()))


def installed() -> tuple[list[Peer], dict[str, str]]:
    """Tell which peers can be imported, and why the others cannot."""
    found, missing = [], {}
    for peer in PEERS:
        try:
            for name in peer.modules:
                importlib.import_module(name)
            found.append(peer)
        except ModuleNotFoundError as error:
            missing[peer.library] = f"no module {error.name}"
        except (Exception, SystemExit) as error:  # IPEX exits where it does not fit the version of torch
            missing[peer.library] = reason(error)
    return found, missing


def reason(error: BaseException) -> str:
    """Put what a foreign library raised into one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def ours(problem: Problem) -> list[Row]:
    """Return the rows of cyroialign; the first of each direction is what the others have to agree with."""
    first, last = _our_rows(problem, "NCHW"), _our_rows(problem, "NHWC")
    return [first[0], last[0], first[1], last[1]]


def _our_rows(problem: Problem, layout: str) -> tuple[Row, Row]:
    features, output, there = problem.features, problem.output, (0, 1, 2, 3)
    if layout == "NHWC":
        features, output = (np.ascontiguousarray(a.transpose(CHANNELS_LAST)) for a in (features, output))
        there = CHANNELS_FIRST
    gradient = np.empty_like(features)
    given = (problem.spatial_scale, problem.sampling_ratio, True)
    options: dict[str, Any] = {"layout": layout, "num_threads": problem.threads}

    def forward() -> np.ndarray:
        roi_align(features, problem.boxes, problem.bins, *given, out=output, **options)
        return output.transpose(there)

    def backward() -> np.ndarray:
        roi_align_backward(output, problem.boxes, features.shape, *given, out=gradient, **options)
        return gradient.transpose(there)

    return Row("cyroialign", "forward", layout, forward), Row("cyroialign", "backward", layout, backward)


def floor(problem: Problem) -> Callable[[], Any]:
    """Write the output and read the map once: what no forward pass can beat by much."""
    copy = np.empty_like(problem.output)

    def touch() -> None:
        np.copyto(copy, problem.output)
        problem.features.sum()

    return touch


def _onnxruntime(problem: Problem) -> list[Row]:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = problem.threads
    session = onnxruntime.InferenceSession(_onnx_model(problem), options, ["CPUExecutionProvider"])
    output = np.empty_like(problem.output)
    binding = session.io_binding()
    binding.bind_cpu_input("input", problem.features)
    binding.bind_cpu_input("boxes", problem.corners)
    binding.bind_cpu_input("images", problem.images)
    binding.bind_output("output", "cpu", 0, output.dtype, output.shape, output.ctypes.data)

    def forward() -> np.ndarray:
        session.run_with_iobinding(binding)
        return output

    return [Row("onnxruntime", "forward", "NCHW", forward)]


def _onnx_model(problem: Problem) -> bytes:
    """Write the model in the format of its opset's time, which every onnxruntime since then reads."""
    model = importlib.import_module("onnx.parser").parse_model(
        f"""
        <ir_version: 8, opset_import: ["": 16]>
        roi_align (float[n, c, h, w] input, float[k, 4] boxes, int64[k] images) => (float[k, c, p, q] output)
        {{
            output = RoiAlign <
                coordinate_transformation_mode = "half_pixel", output_height = {problem.bins},
                output_width = {problem.bins}, sampling_ratio = {problem.sampling_ratio},
                spatial_scale = {problem.spatial_scale}
            > (input, boxes, images)
        }}
        """
    )
    data: bytes = model.SerializeToString()
    return data


def _openvino(problem: Problem) -> list[Row]:
    openvino = importlib.import_module("openvino")
    ops = importlib.import_module("openvino.opset9")
    arrays = [problem.features, problem.corners, problem.images]
    inputs = [ops.parameter(array.shape, array.dtype) for array in arrays]
    bins, ratio, scale = problem.bins, problem.sampling_ratio, problem.spatial_scale
    # OpenVINO's "half_pixel" is another rule: (x + 0.5) * scale - 0.5.
    node = ops.roi_align(*inputs, bins, bins, ratio, scale, "avg", aligned_mode="half_pixel_for_nn")
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    config = hints | {"INFERENCE_NUM_THREADS": str(problem.threads)}
    model = openvino.Model([node], inputs, "roi_align")
    request = openvino.Core().compile_model(model, "CPU", config).create_infer_request()
    for place, array in enumerate(arrays):
        request.set_input_tensor(place, openvino.Tensor(array, shared_memory=True))
    output = request.get_output_tensor(0)

    def forward() -> Any:
        request.infer()
        return output.data

    return [Row("openvino", "forward", "NCHW", forward)]


def _torchvision(problem: Problem) -> list[Row]:
    torch, torchvision = importlib.import_module("torch"), importlib.import_module("torchvision")
    features, boxes, gradient = _tensors(torch, problem)
    bins, scale, ratio = problem.bins, problem.spatial_scale, problem.sampling_ratio

    # Autograd costs time, and through it IPEX, where it is loaded, takes torchvision's call over.
    no_autograd: Decorator = torch.inference_mode()

    @no_autograd
    def forward() -> Any:
        return torchvision.ops.roi_align(features, boxes, bins, scale, ratio, aligned=True)

    @no_autograd
    def backward() -> Any:
        return torch.ops.torchvision._roi_align_backward(
            gradient, boxes, scale, bins, bins, *features.shape, ratio, True
        )

    rows = {"forward": forward, "backward": backward}
    return [Row("torchvision", direction, "NCHW", call) for direction, call in rows.items()]


def _ipex(problem: Problem) -> list[Row]:
    torch = importlib.import_module("torch")
    tensors = _tensors(torch, problem)
    formats = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
    return [row for layout in formats for row in _ipex_rows(torch, problem, tensors, layout, formats[layout])]


def _ipex_rows(torch: ModuleType, problem: Problem, tensors: list[Any], layout: str, order: Any) -> list[Row]:
    features, gradient = (tensors[place].contiguous(memory_format=order) for place in (0, 2))
    boxes = tensors[1]
    bins, scale, ratio = problem.bins, problem.spatial_scale, problem.sampling_ratio
    roi_align = torch.ops.torch_ipex.ROIAlign_forward
    leaf = features.detach().requires_grad_()
    output = roi_align(leaf, boxes, scale, bins, bins, ratio, True)
    no_autograd: Decorator = torch.inference_mode()

    @no_autograd
    def forward() -> Any:
        return roi_align(features, boxes, scale, bins, bins, ratio, True)

    def backward() -> Any:
        return torch.autograd.grad(output, leaf, gradient, retain_graph=True)[0]

    return [Row("ipex", "forward", layout, forward), Row("ipex", "backward", layout, backward)]


def _tensors(torch: ModuleType, problem: Problem) -> list[Any]:
    torch.set_num_threads(problem.threads)
    return [torch.from_numpy(array) for array in (problem.features, problem.boxes, problem.output)]


def _paddle(problem: Problem) -> list[Row]:
    paddle = importlib.import_module("paddle")
    paddle.set_device("cpu")
    features, boxes = paddle.to_tensor(problem.features), paddle.to_tensor(problem.corners)
    boxes_num = paddle.to_tensor(np.array([len(problem.boxes)], np.int32))
    settings = (problem.bins, problem.spatial_scale, problem.sampling_ratio)
    no_autograd: Decorator = paddle.no_grad()

    @no_autograd
    def forward() -> Any:
        return paddle.vision.ops.roi_align(features, boxes, boxes_num, *settings, aligned=True)

    return [Row("paddle", "forward", "NCHW", forward)]


PEERS = [
    Peer(
        "onnxruntime",
        ("onnxruntime", "onnx"),
        "CPUExecutionProvider, intra_op_num_threads = threads, coordinate_transformation_mode half_pixel, "
        "output bound to memory that is there",
        _onnxruntime,
    ),
    Peer(
        "openvino",
        ("openvino",),
        "CPU, its own INFERENCE_NUM_THREADS = threads, f32, LATENCY, half_pixel_for_nn (as aligned=True)",
        _openvino,
    ),
    Peer(
        "torchvision",
        ("torch", "torchvision"),
        "contiguous tensors, torch.set_num_threads(threads), inference_mode, _roi_align_backward",
        _torchvision,
    ),
    Peer(
        "ipex",
        ("torch", "intel_extension_for_pytorch"),
        "contiguous and channels_last tensors, torch.set_num_threads(threads), backward by autograd",
        _ipex,
    ),
    Peer("paddle", ("paddle",), "CPU, no_grad; its kernel uses one thread whatever is set", _paddle),
]
