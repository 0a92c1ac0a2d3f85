"""What the benchmark compares with: the other libraries that pool regions on a CPU.

None of them is required, so they are imported by name and only when the benchmark asks. If a library lets
the caller bind its output, it is bound: like ours, such a call does not pay for new memory. All inputs
are read-only; a library that accepts only writeable memory gets its own copy.
"""

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from cyroialign.bench.problem import Problem, Row, rotated

Decorator: TypeAlias = Callable[[Callable[[], Any]], Callable[[], Any]]


class Peer(NamedTuple):
    """A library, the modules that it needs, and what its rows were set to."""

    library: str
    modules: tuple[str, ...]
    settings: str
    rows: Callable[[Problem], list[Row]]
    operators: tuple[str, ...] = ("roi_align",)

    def versions(self) -> dict[str, str]:
        """Return the versions of the modules, by name."""
        return {name: str(importlib.import_module(name).__version__) for name in self.modules}


def installed(operator: str = "roi_align") -> tuple[list[Peer], dict[str, str]]:
    """Tell which peers that have the operator can be imported, and why the others cannot."""
    found, missing = [], {}
    for peer in (peer for peer in PEERS if operator in peer.operators):
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


def _onnxruntime(problem: Problem) -> list[Row]:
    onnxruntime = importlib.import_module("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = problem.threads
    options.log_severity_level = 3  # it warns that its maximum was wrong once
    session = onnxruntime.InferenceSession(onnx_model(problem), options, ["CPUExecutionProvider"])
    output = np.empty_like(problem.gradient)
    binding = session.io_binding()
    if problem.operator == "multiscale":
        inputs = _onnx_levels(problem)
    else:
        inputs = {"input": problem.features, "images": problem.images}
        inputs["boxes"] = problem.boxes if problem.operator == "roi_pool" else problem.corners
    for name in (given.name for given in session.get_inputs()):
        binding.bind_cpu_input(name, inputs[name])
    binding.bind_output("output", "cpu", 0, output.dtype, output.shape, output.ctypes.data)

    def forward(read_in_place: Any = inputs) -> np.ndarray:
        session.run_with_iobinding(binding)
        return output

    return [Row("onnxruntime", "forward", "NCHW", forward)]


def _onnx_levels(problem: Problem) -> dict[str, np.ndarray]:
    """Return the inputs of a model of a pyramid: what a detector has once its boxes have levels."""
    rows = problem.rows_of_levels()
    inputs = {"order": np.argsort(np.concatenate(rows))}
    for level, (features, of_level) in enumerate(zip(problem.levels, rows, strict=True)):
        inputs |= {f"input{level}": features, f"boxes{level}": problem.corners[of_level]}
        inputs[f"images{level}"] = problem.images[of_level]
    return inputs


def onnx_model(problem: Problem) -> bytes:
    """Write the model in the format of its opset's time, which every onnxruntime since then reads."""
    bins = problem.bins
    if problem.operator == "roi_pool":
        inputs = "float[n, c, h, w] input, float[k, 5] boxes"
        scale = f"spatial_scale = {problem.spatial_scale}"
        nodes = f"output = MaxRoiPool <pooled_shape = [{bins}, {bins}], {scale}> (input, boxes)"
    elif problem.operator == "multiscale":
        levels = range(len(problem.levels))
        inputs = ", ".join(_onnx_inputs(level) for level in levels) + ", int64[all] order"
        nodes = "\n".join(_onnx_node(problem, f"pooled{level}", level) for level in levels)
        pooled = ", ".join(f"pooled{level}" for level in levels)
        nodes += f"\njoined = Concat <axis = 0> ({pooled})\noutput = Gather (joined, order)"
    else:
        inputs, nodes = _onnx_inputs(), _onnx_node(problem, "output")
    model = importlib.import_module("onnx.parser").parse_model(
        f"""
        <ir_version: 8, opset_import: ["": 16]>
        pool ({inputs}) => (float[all, c, p, q] output)
        {{
            {nodes}
        }}
        """
    )
    data: bytes = model.SerializeToString()
    return data


def _onnx_inputs(n: int | str = "") -> str:
    return f"float[n, c, h{n}, w{n}] input{n}, float[k{n}, 4] boxes{n}, int64[k{n}] images{n}"


def _onnx_node(problem: Problem, output: str, level: int | None = None) -> str:
    n = "" if level is None else level
    rule = "output_half_pixel" if problem.operator == "multiscale" else "half_pixel"
    mode = "max" if problem.operator == "onnx_max" else "avg"
    return f"""
        {output} = RoiAlign <
            coordinate_transformation_mode = "{rule}", output_height = {problem.bins},
            output_width = {problem.bins}, sampling_ratio = {problem.sampling_ratio}, mode = "{mode}",
            spatial_scale = {problem.spatial_scale / 2 ** (level or 0)}
        > (input{n}, boxes{n}, images{n})
    """


def _opencv(problem: Problem) -> list[Row]:
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(problem.threads)
    net = cv2.dnn.readNetFromONNX(np.frombuffer(onnx_model(problem), np.uint8), cv2.dnn.ENGINE_NEW)
    inputs = {"input": problem.features, "boxes": problem.corners, "images": problem.images}
    for name, array in inputs.items():
        net.setInput(array, name)  # which copies it
    return [Row("opencv", "forward", "NCHW", net.forward)]


def _openvino(problem: Problem) -> list[Row]:
    openvino = importlib.import_module("openvino")
    turned = problem.operator == "roi_align_rotated"
    ops = importlib.import_module("openvino.opset15" if turned else "openvino.opset9")
    boxes = rotated(problem.corners) if turned else problem.corners
    arrays = [array.copy() for array in (problem.features, boxes, problem.images)]
    inputs = [ops.parameter(array.shape, array.dtype) for array in arrays]
    bins, ratio, scale = problem.bins, problem.sampling_ratio, problem.spatial_scale
    if turned:
        node = ops.roi_align_rotated(*inputs, bins, bins, ratio, scale, False)
    else:  # OpenVINO's "half_pixel" is another rule: (x + 0.5) * scale - 0.5.
        mode = "max" if problem.operator == "max" else "avg"
        node = ops.roi_align(*inputs, bins, bins, ratio, scale, mode, aligned_mode="half_pixel_for_nn")
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    config = hints | {"INFERENCE_NUM_THREADS": str(problem.threads)}
    model = openvino.Model([node], inputs, "roi_align")
    request = openvino.Core().compile_model(model, "CPU", config).create_infer_request()
    for place, array in enumerate(arrays):
        request.set_input_tensor(place, openvino.Tensor(array, shared_memory=True))
    output = request.get_output_tensor(0)

    def forward(read_in_place: Any = arrays) -> Any:  # its tensors do not keep the arrays alive
        request.infer()
        return output.data

    return [Row("openvino", "forward", "NCHW", forward)]


def _torchvision(problem: Problem) -> list[Row]:
    torch, torchvision = importlib.import_module("torch"), importlib.import_module("torchvision")
    if problem.operator == "multiscale":
        return _torchvision_pyramid(torch, torchvision, problem)
    features, boxes, gradient = _tensors(torch, problem)
    bins, scale, ratio = problem.bins, problem.spatial_scale, problem.sampling_ratio
    operator, size = problem.operator, (scale, bins, bins)
    sampling = {"roi_align": (ratio, True), "ps_roi_align": (ratio,)}.get(operator, ())
    shape = (*features.shape, *sampling) if operator == "roi_align" else (*sampling, *features.shape)
    pool = getattr(torchvision.ops, operator)
    spread = getattr(torch.ops.torchvision, f"_{operator}_backward")
    made = getattr(torch.ops.torchvision, operator)(features, boxes, *size, *sampling)
    winners = made[1:] if isinstance(made, tuple) else ()  # or the channels that were read

    # Autograd costs time, and through it IPEX, where it is loaded, takes torchvision's call over.
    no_autograd: Decorator = torch.inference_mode()

    @no_autograd
    def forward() -> Any:
        return pool(features, boxes, bins, scale, *sampling)

    @no_autograd
    def backward() -> Any:
        return spread(gradient, boxes, *winners, *size, *shape)

    rows = {"forward": forward, "backward": backward}
    return [Row("torchvision", direction, "NCHW", call) for direction, call in rows.items()]


def _torchvision_pyramid(torch: ModuleType, torchvision: ModuleType, problem: Problem) -> list[Row]:
    boxes, gradient = (torch.from_numpy(array.copy()) for array in (problem.corners, problem.gradient))
    maps = {str(n): torch.from_numpy(array.copy()) for n, array in enumerate(problem.levels)}
    leaves = {name: features.clone().requires_grad_() for name, features in maps.items()}
    pool = torchvision.ops.MultiScaleRoIAlign(list(maps), problem.bins, problem.sampling_ratio)
    output = pool(leaves, [boxes], [problem.image])
    no_autograd: Decorator = torch.inference_mode()

    @no_autograd
    def forward() -> Any:
        return pool(maps, [boxes], [problem.image])

    def backward() -> Any:
        found = torch.autograd.grad(output, list(leaves.values()), gradient, True, allow_unused=True)
        return found[0]

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
    return [torch.from_numpy(array.copy()) for array in (problem.features, problem.boxes, problem.gradient)]


def _paddle(problem: Problem) -> list[Row]:
    paddle = importlib.import_module("paddle")
    paddle.set_device("cpu")
    features, boxes = (paddle.to_tensor(array.copy()) for array in (problem.features, problem.corners))
    boxes_num = paddle.to_tensor(np.array([len(problem.boxes)], np.int32))
    given = (features, boxes, boxes_num, problem.bins, problem.spatial_scale)
    pool, settings = paddle.vision.ops.roi_pool, {}
    if problem.operator == "roi_align":
        pool = paddle.vision.ops.roi_align
        settings = {"sampling_ratio": problem.sampling_ratio, "aligned": True}
    no_autograd: Decorator = paddle.no_grad()

    @no_autograd
    def forward() -> Any:
        return pool(*given, **settings)

    return [Row("paddle", "forward", "NCHW", forward)]


def _tensorflow(problem: Problem) -> list[Row]:
    tensorflow = importlib.import_module("tensorflow")
    threading = tensorflow.config.threading
    if threading.get_intra_op_parallelism_threads() != problem.threads:
        threading.set_intra_op_parallelism_threads(problem.threads)  # an error once it has computed
    arrays = [np.ascontiguousarray(a.transpose(0, 2, 3, 1)) for a in (problem.features, problem.gradient)]
    features, gradient, boxes, images = map(
        tensorflow.constant, (*arrays, problem.shares, problem.images.astype(np.int32))
    )
    size, raw = (problem.bins, problem.bins), tensorflow.raw_ops
    given = {"grads": gradient, "boxes": boxes, "box_ind": images}

    def forward() -> Any:
        crops = tensorflow.image.crop_and_resize(features, boxes, images, size)
        return crops.numpy().transpose(0, 3, 1, 2)

    def backward() -> Any:
        shape, kind = arrays[0].shape, tensorflow.float32
        spread = raw.CropAndResizeGradImage(**given, image_size=shape, T=kind)
        return spread.numpy().transpose(0, 3, 1, 2)

    def to_boxes() -> Any:
        return raw.CropAndResizeGradBoxes(**given, image=features).numpy()

    rows = {"forward": forward, "backward": backward, "boxes": to_boxes}
    return [Row("tensorflow", direction, "NHWC", call) for direction, call in rows.items()]


PEERS = [
    Peer(
        "onnxruntime",
        ("onnxruntime", "onnx"),
        "CPUExecutionProvider, intra_op_num_threads = threads, coordinate_transformation_mode half_pixel, "
        "output bound to memory that is there",
        _onnxruntime,
        ("roi_align", "onnx_max", "roi_pool", "multiscale"),
    ),
    Peer(
        "opencv",
        ("cv2", "onnx"),
        "cv2.dnn of OpenCV 5, cv2.setNumThreads(threads), ENGINE_NEW, half_pixel, inputs set before",
        _opencv,
        ("roi_align", "onnx_max"),
    ),
    Peer(
        "openvino",
        ("openvino",),
        "CPU, its own INFERENCE_NUM_THREADS = threads, f32, LATENCY, half_pixel_for_nn (as aligned=True)",
        _openvino,
        ("roi_align", "max", "roi_align_rotated"),
    ),
    Peer(
        "torchvision",
        ("torch", "torchvision"),
        "contiguous tensors, torch.set_num_threads(threads), inference_mode, its backward without autograd "
        "(that of multiscale by autograd) and with what its forward kept",
        _torchvision,
        ("roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool", "multiscale"),
    ),
    Peer(
        "ipex",
        ("torch", "intel_extension_for_pytorch"),
        "contiguous and channels_last tensors, torch.set_num_threads(threads), backward by autograd",
        _ipex,
    ),
    Peer(
        "tensorflow",
        ("tensorflow",),
        "CPU, eager, intra_op_parallelism_threads = threads, the operators without a tape",
        _tensorflow,
        ("crop_and_resize",),
    ),
    Peer(
        "paddle",
        ("paddle",),
        "CPU, no_grad; its kernel uses one thread whatever is set",
        _paddle,
        ("roi_align", "roi_pool"),
    ),
]
