"""What the benchmark times in cyroialign: the operators, in both layouts, and the floor under them.

A call that takes `out=` gets it: peers, too, are spared the cost of new memory if possible.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import numpy as np

import cyroialign
from cyroialign.arguments import dtypes
from cyroialign.bench.problem import TOLERANCE, Problem, Row, rotated

FLOOR = "floor"  # the name of the row that no library can beat by much
OURS = ("cyroialign", "level-by-level")  # how the names of our rows begin
EPSILONS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}  # where rounding alone is more
CHANNELS_LAST = {4: (0, 2, 3, 1), 5: (0, 2, 3, 4, 1)}  # by the number of axes
CHANNELS_FIRST = {4: (0, 3, 1, 2), 5: (0, 4, 1, 2, 3)}
VOLUMES = {"NCHW": "NCDHW", "NHWC": "NDHWC"}


def ours(problem: Problem) -> list[Row]:
    """Return the rows of cyroialign; the first of each direction is what the others have to agree with."""
    kinds = [(problem.features.dtype.name, "cyroialign", _CALLS.get(problem.operator, _of_one_map))]
    if problem.operator == "multiscale":
        kinds.append((*kinds[0][:1], "level-by-level", _by_level))
    kinds += [(dtype, f"cyroialign {dtype}", kinds[0][2]) for dtype in problem.dtypes]
    rows = []
    for kind in kinds:
        first, last = _rows(problem, "NCHW", *kind), _rows(problem, "NHWC", *kind)
        rows += [row for pair in zip(first, last, strict=True) for row in pair]
    return rows


def floor(problem: Problem) -> Callable[[], Any]:
    """Write the output and read the maps once: what no forward pass can beat by much."""
    copy = np.empty_like(problem.gradient)

    def touch() -> None:
        np.copyto(copy, problem.gradient)
        for features in problem.levels:
            features.sum()

    return touch


def _rows(problem: Problem, layout: str, dtype: str, library: str, calls: "_Calls") -> list[Row]:
    """Return what an operator computes for maps in one layout and type."""
    result = dtypes.of_result(np.dtype(dtype)).name
    maps = [_in(layout, features, dtype) for features in problem.levels]
    gradient = _in(layout, problem.gradient, result)
    axes = gradient.ndim
    options = {"layout": layout if axes == 4 else VOLUMES[layout], "num_threads": problem.threads}
    there = tuple(range(axes)) if layout == "NCHW" else CHANNELS_FIRST[axes]
    return [
        Row(library, direction, layout, partial(_seen, call, there), EPSILONS.get(dtype, TOLERANCE))
        for direction, call in calls(problem, maps, gradient, options).items()
        if result == dtype or direction == "forward"
    ]


def _in(layout: str, array: np.ndarray, dtype: str) -> np.ndarray:
    axes = tuple(range(array.ndim)) if layout == "NCHW" else CHANNELS_LAST[array.ndim]
    return np.ascontiguousarray(array.transpose(axes), np.dtype(dtype))


def _seen(call: Callable[[], np.ndarray], axes: tuple[int, ...]) -> np.ndarray:
    result = call()
    return result.transpose(axes) if result.ndim == len(axes) else result


def _of_one_map(
    problem: Problem, maps: list[np.ndarray], gradient: np.ndarray, options: dict[str, Any]
) -> dict[str, Callable[[], np.ndarray]]:
    """Return the calls of RoIAlign in its modes, and of the operators that pool from one map as it does."""
    operator, [features], boxes = problem.operator, maps, problem.boxes
    scale, ratio = problem.spatial_scale, problem.sampling_ratio
    name = "roi_align" if operator in ("max", "onnx_max") else operator
    sampling: dict[str, tuple[Any, ...]] = {"ps_roi_align": (scale, ratio)}
    sampling["roi_align"] = sampling["roi_align_3d"] = (scale, ratio, True)
    if name == "roi_align_rotated":
        sampling[name] = sampling["roi_align"]
        boxes = np.column_stack([boxes[:, 0], rotated(problem.corners)])
    given = sampling.get(name, (scale,))
    known = (features, boxes, problem.bins) if name == "roi_pool" else (boxes, features.shape)
    forward, backward = getattr(cyroialign, name), getattr(cyroialign, f"{name}_backward")
    forward = partial(forward, features, boxes, problem.bins, *given, out=np.empty_like(gradient), **options)
    backward = partial(backward, gradient, *known, *given, out=np.empty_like(features), **options)
    if name == "roi_pool":  # as torchvision does in training
        _, argmax = cyroialign.roi_pool(features, boxes, problem.bins, scale, **options, return_argmax=True)
        backward = partial(backward, argmax=argmax)
    if name != operator:
        forward = partial(forward, mode=operator)
        backward = partial(backward, mode=operator, input=features)
    return {"forward": forward, "backward": backward}


def _of_boxes(
    problem: Problem, maps: list[np.ndarray], gradient: np.ndarray, options: dict[str, Any]
) -> dict[str, Callable[[], np.ndarray]]:
    given = (maps[0], problem.boxes, problem.spatial_scale, problem.sampling_ratio, True)
    return {"boxes": partial(cyroialign.roi_align_boxes_backward, gradient, *given, **options)}


def _of_integrals(
    problem: Problem, maps: list[np.ndarray], gradient: np.ndarray, options: dict[str, Any]
) -> dict[str, Callable[[], np.ndarray]]:
    given = (gradient, maps[0], problem.boxes, problem.spatial_scale)
    boxes = partial(cyroialign.prroi_pool_boxes_backward, *given, **options)
    return {**_of_one_map(problem, maps, gradient, options), "boxes": boxes}


def _of_crops(
    problem: Problem, maps: list[np.ndarray], gradient: np.ndarray, options: dict[str, Any]
) -> dict[str, Callable[[], np.ndarray]]:
    [features], given = maps, (problem.shares, problem.images)
    out, grad_out = np.empty_like(gradient), np.empty_like(features)
    return {
        "forward": partial(cyroialign.crop_and_resize, features, *given, problem.bins, out=out, **options),
        "backward": partial(
            cyroialign.crop_and_resize_backward, gradient, *given, features.shape, out=grad_out, **options
        ),
        "boxes": partial(cyroialign.crop_and_resize_boxes_backward, gradient, features, *given, **options),
    }


def _of_pyramid(
    problem: Problem, maps: list[np.ndarray], gradient: np.ndarray, options: dict[str, Any]
) -> dict[str, Callable[[], np.ndarray]]:
    """Return the calls that pool from all levels at once; of the gradients, that of the finest is shown."""
    x = {str(level): features for level, features in enumerate(maps)}
    pool = cyroialign.MultiScaleRoIAlign(list(x), problem.bins, problem.sampling_ratio, **options)
    given = (x, [problem.corners], [problem.image])
    return {
        "forward": partial(pool, *given),
        "backward": lambda: pool.backward(gradient, *given)["0"],
    }


def _by_level(
    problem: Problem, maps: list[np.ndarray], gradient: np.ndarray, options: dict[str, Any]
) -> dict[str, Callable[[], np.ndarray]]:
    """Return what does the same by a call for each level, whose boxes and results are gathered."""
    boxes, scale, given = problem.boxes, problem.spatial_scale, (problem.sampling_ratio, False)

    def forward() -> np.ndarray:
        result = np.empty_like(gradient)
        for level, (features, rows) in enumerate(zip(maps, problem.rows_of_levels(), strict=True)):
            result[rows] = cyroialign.roi_align(
                features, boxes[rows], problem.bins, scale / 2**level, *given, **options
            )
        return result

    def backward() -> np.ndarray:
        gradients = [
            cyroialign.roi_align_backward(
                gradient[rows], boxes[rows], features.shape, scale / 2**level, *given, **options
            )
            for level, (features, rows) in enumerate(zip(maps, problem.rows_of_levels(), strict=True))
        ]
        return gradients[0]

    return {"forward": forward, "backward": backward}


_Calls: TypeAlias = Callable[
    [Problem, list[np.ndarray], np.ndarray, dict[str, Any]], dict[str, Callable[[], np.ndarray]]
]
_CALLS: dict[str, _Calls] = {
    "boxes_backward": _of_boxes,
    "multiscale": _of_pyramid,
    "prroi_pool": _of_integrals,
    "crop_and_resize": _of_crops,
}
