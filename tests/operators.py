"""The registry of operators: what the promises run over. A new operator is one entry of OPERATORS.

An entry says what the operator is called, what its settings may be, what its gradients need, and which slow
textbook it must agree with. A `Call` is one use of it, with maps as (N, C, H, W) whatever the layout that it
goes by; `Operator.draw` makes one from a NumPy generator.
"""

import dataclasses
import functools
import inspect
import math
import numbers as numbers_of_python
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import reference
import reference_bounded
import reference_maximum
import reference_pools
import reference_prroi_pool
import reference_pyramid
import reference_rotated
from narrow import BYTES, NARROW, dtype_of, numbers, result_of

import cyroialign

LAYOUTS = {"NCHW": (0, 1, 2, 3), "NHWC": (0, 2, 3, 1)}  # where its axes come from
SUFFIXES = {"forward": "", "backward": "_backward", "boxes": "_boxes_backward"}
SCALE = {"spatial_scale": (1.0, 0.5, 0.25, 1 / 16, 0.37, 3.3)}
RATIO = {"sampling_ratio": (-1, 0, 1, 2, 3, 5)}
ALIGNED = {"aligned": (False, True)}
PYRAMID = {"spatial_scale": (1.0, 0.5, 0.25)} | RATIO | ALIGNED
ROI_ALIGN = SCALE | RATIO | ALIGNED
TOLERANCE = {"float32": 1e-6, "float64": 1e-14}  # of the largest value
FLOATS = ("float32", "float64")
DTYPES = (*FLOATS, *NARROW)
BOX_DTYPES = ("float32", "float64", "float16", "longdouble", "int16", "int64")


class Call(NamedTuple):
    """One use of an operator."""

    maps: tuple[np.ndarray, ...]  # each (N, C, H, W); one, but for a pyramid
    boxes: np.ndarray  # rows of (batch_index, coordinates)
    output_size: tuple[int, int]
    arguments: dict[str, Any]  # the settings of the operator, in their order
    grad_output: np.ndarray  # (K, C, PH, PW) of the output


@dataclasses.dataclass(frozen=True)
class Operator:
    """What the promises need to know of an operator."""

    function: str  # its name; "_backward" and "_boxes_backward" are added for its gradients
    settings: dict[str, tuple[Any, ...]]  # what may be drawn for each, in the order of the signature
    reference: Callable[..., tuple[np.ndarray, ...]]  # of (direction, call, bounded): see below
    gradients: tuple[str, ...] = ("backward",)  # of "backward" and "boxes"
    gradient_takes: tuple[str, ...] = ("input_shape",)  # beside grad_output and boxes
    fixed: dict[str, Any] = dataclasses.field(default_factory=dict)  # settings that make it this operator
    position_sensitive: bool = False  # each bin reads its own channels
    linear: bool = True  # in its map
    leaves_out_last: bool = False  # the last row and column, forward; not backward
    quick: bool = True  # its textbook does not visit channel after channel
    steepness: Callable[[Call], Any] = lambda call: 1  # of a bin, in pixels, as a box moves: a factor a box
    least_side: int = 1  # of a map
    by_image: bool = False  # takes boxes image after image
    columns: int = 5  # of the boxes
    refuses_as_maps: bool = True  # in words that are common to operators on maps
    layouts: tuple[str, ...] = ("NCHW", "NHWC")
    dtypes: tuple[str, ...] = DTYPES

    @property
    def directions(self):
        """Keys of SUFFIXES."""
        return ("forward", *self.gradients)

    # Calls

    def make(self, rng, shape, count, output_size, arguments, dtype="float32", boxes=None, spoiled=None):
        """Make a call of random numbers.

        shape is (N, C, H, W) with C channels of the output; of arguments it takes those that it has. With
        `spoiled`, 0 for none, numbers are of all magnitudes and one of so many is not finite.
        """
        arguments = self._arguments({name: arguments[name] for name in self.settings}, shape)
        images, channels, *size = shape
        size = [max(side, self.least_side) for side in size]
        if boxes is None:
            boxes = self.random_boxes(rng, count, (images, channels, *size), arguments["spatial_scale"])
        if self.by_image:
            boxes = boxes[np.argsort(boxes[:, 0], kind="stable")]
        of_input = channels * math.prod(output_size) if self.position_sensitive else channels
        dtype = dtype_of(dtype)

        def values(shape, dtype):
            if spoiled is not None or dtype in BYTES:
                return numbers(rng, shape, dtype, spoiled or 0)
            return rng.uniform(-1, 1, shape).astype(dtype)

        maps = tuple(values((images, of_input, *one), dtype) for one in self.map_sizes(size))
        grads = values((len(boxes), channels, *output_size), result_of(dtype))
        return Call(maps, boxes, tuple(output_size), arguments, grads)

    def draw(self, rng, dtype=None, box_dtype=None):
        """Draw a small call of any settings, sizes and boxes."""
        dtype = dtype or rng.choice(FLOATS)
        output_size = tuple(rng.integers(1, 10, 2).tolist())
        most = 20 if self.quick and not self.position_sensitive else 3
        size = [int(rng.choice([rng.integers(1, 4), rng.integers(4, 21)])) for _ in range(2)]
        size = [max(side, self.least_side) for side in size]
        shape = (int(rng.integers(1, 4)), int(rng.integers(1, most + 1)), *size)
        arguments = {name: choices[rng.integers(len(choices))] for name, choices in self.settings.items()}
        boxes = self.odd_boxes(rng, int(rng.integers(5)), shape, arguments["spatial_scale"])
        boxes = boxes.astype(box_dtype or rng.choice(BOX_DTYPES))
        return self.make(rng, shape, len(boxes), output_size, arguments, dtype, boxes)

    def random_boxes(self, rng, count, shape, spatial_scale):
        """Boxes inside, across, outside, inverted and larger than the map, of float32."""
        return reference.random_boxes(rng, count, shape, spatial_scale)

    def odd_boxes(self, rng, count, shape, spatial_scale):
        """Boxes that begin and end on pixels and their halves, at the rims and far outside as well."""
        images, _, height, width = shape
        near, far = rng.uniform(-0.25, 1.25, (count, 4)), rng.uniform(-10, 10, (count, 4))
        rims = rng.choice([-1.0, 0, 0.5, 1, 2], (count, 4))
        places = np.choose(rng.choice(3, (count, 4), p=[0.6, 0.3, 0.1]), [near, rims, far])
        places[: count * 2 // 3] = np.sort(places.reshape(-1, 2, 2), axis=1).reshape(-1, 4)[: count * 2 // 3]
        corners = places * [width, height, width, height] / spatial_scale
        whole = rng.choice([0, 1, 2])
        corners = np.round(corners * whole) / whole if whole else corners.astype(np.float32)
        return np.hstack([rng.integers(images, size=(count, 1)), corners])

    def _arguments(self, arguments, shape):
        return arguments

    def map_sizes(self, size):
        """(height, width) of each map where the first has that size."""
        return [tuple(size)]

    # Running them

    def callable(self, direction):
        """The public function of a direction."""
        return getattr(cyroialign, self.function + SUFFIXES[direction])

    def accepts(self, direction, name):
        """Whether the function of a direction has a parameter of that name."""
        return name in inspect.signature(self.callable(direction)).parameters

    def keywords(self, direction, call, layout):
        """The arguments of the function, with arrays in the order of the layout."""
        makers = {
            "input": lambda: in_layout(call.maps[0], layout),
            "grad_output": lambda: in_layout(call.grad_output, layout),
            "boxes": lambda: call.boxes,
            "output_size": lambda: call.output_size,
            "input_shape": lambda: tuple(call.maps[0].shape[axis] for axis in LAYOUTS[layout]),
        }
        takes = {
            "forward": ("input", "boxes", "output_size"),
            "backward": ("grad_output", "boxes", *self.gradient_takes),
            "boxes": ("grad_output", "input", "boxes"),
        }[direction]
        chosen = {name: makers[name]() for name in takes}
        return {**chosen, **call.arguments, **self.fixed, "layout": layout}

    def run(self, direction, call, layout="NCHW", change=None, **options):
        """The results of a call, with maps as (N, C, H, W).

        There is one; but of a pyramid's gradient one a map. change is applied to every array given.
        """
        keywords = {**self.keywords(direction, call, layout), **options}
        if change:
            keywords = changed(keywords, change)
        with np.errstate(invalid="ignore"):  # conversions of what was spoiled
            result = self.callable(direction)(**keywords)
        return self.results(direction, result, layout)

    def results(self, direction, result, layout):
        """What the function returned, as (N, C, H, W)."""
        results = tuple(result.values()) if isinstance(result, dict) else (result,)
        if direction == "boxes":
            return results
        return tuple(one.transpose(np.argsort(LAYOUTS[layout])) for one in results)

    def expected(self, direction, call, bounded=False):
        """The results by the textbook, in float64; bounded: without a visit to samples far outside."""
        return self.reference(direction, call, bounded)

    def largest(self, direction, call):
        """What rounding errors are relative to: what the results may come to, or an upper bound of it."""
        most = max((np.abs(one.astype(float)).max(initial=0) for one in call.maps), default=0)
        if direction == "forward":
            return (most,)
        if direction == "boxes":  # pixels differ by twice the largest at most
            sums = np.abs(call.grad_output).sum(axis=(1, 2, 3), dtype=float)
            sums = sums * call.arguments["spatial_scale"] * self.steepness(call)
            return (2 * most * sums[:, None],)
        ones = self.expected("backward", call._replace(grad_output=np.abs(call.grad_output)))
        return tuple(np.abs(one).max(initial=0) for one in ones)


def assert_textbook(operator, direction, call, results, message="", least=0.0, **options):
    """The results of a call equal the textbook's up to rounding; least: what may underflow."""
    wanted, largest = operator.expected(direction, call, **options), operator.largest(direction, call)
    for actual, expected, most in zip(results, wanted, largest, strict=True):
        assert actual.shape == expected.shape
        error = np.abs(actual.astype(float) - expected)
        allowed = TOLERANCE[call.maps[0].dtype.name] * most + least
        assert (error <= allowed).all(), f"{message} {direction} differs by {error.max()}"


def in_layout(array, layout):
    """A contiguous copy of an array (N, C, H, W) in a layout."""
    return np.ascontiguousarray(array.transpose(LAYOUTS[layout]))


def changed(value, change):
    """Apply change to all arrays of keywords, lists and mappings."""
    if isinstance(value, np.ndarray):
        return change(value)
    if isinstance(value, dict):
        return {name: changed(one, change) for name, one in value.items()}
    return [changed(one, change) for one in value] if isinstance(value, list) else value


def geometry(call):
    """The type T of the contract."""
    dtype = call.maps[0].dtype
    return reference.type_of_geometry(np.float64 if dtype == np.float64 else np.float32, call.boxes.dtype)


# References: (direction, call, bounded) -> results


def mean(direction, call, bounded=False):
    """Average RoIAlign."""
    book, options = reference_bounded if bounded else reference, {"dtype": geometry(call)}
    boxes, rest, input, grads = call.boxes, call.arguments.values(), call.maps[0], call.grad_output
    if direction == "forward":
        return (book.roi_align(input, boxes, call.output_size, *rest, **options),)
    if direction == "backward":
        return (book.roi_align_backward(grads, boxes, input.shape, *rest, **options),)
    return (book.roi_align_boxes_backward(grads, input, boxes, *rest, **options),)


def maximum(mode, direction, call, bounded=False):
    """RoIAlign with a maximum."""
    options = {"mode": mode, "dtype": geometry(call)}
    if bounded:
        options["positions"] = reference_bounded.distinct_positions
    boxes, rest, input = call.boxes, call.arguments.values(), call.maps[0]
    with np.errstate(over="ignore", invalid="ignore"):
        if direction == "forward":
            return (reference_maximum.roi_align(input, boxes, call.output_size, *rest, **options),)
        return (reference_maximum.roi_align_backward(call.grad_output, input, boxes, *rest, **options),)


def pool(name, direction, call, bounded=False):
    """RoIPool, PSRoIAlign and PSRoIPool."""
    if bounded and name == "ps_roi_align":
        return position_sensitive_mean(direction, call)
    rest = (call.boxes, call.output_size, tuple(call.arguments.values()), geometry(call))
    return (reference_pools.run_one(name, direction, call.maps[0], call.grad_output, *rest),)


def integral(direction, call, bounded=False):
    """PrRoIPool, whose textbook visits no samples."""
    book, options = reference_prroi_pool, {"dtype": geometry(call)}
    boxes, rest, input, grads = call.boxes, call.arguments.values(), call.maps[0], call.grad_output
    if direction == "forward":
        return (book.prroi_pool(input, boxes, call.output_size, *rest, **options),)
    if direction == "backward":
        return (book.prroi_pool_backward(grads, boxes, input.shape, *rest, **options),)
    return (book.prroi_pool_boxes_backward(grads, input, boxes, *rest, **options),)


def position_sensitive_mean(direction, call):
    """PSRoIAlign by way of RoIAlign: of all that each bin makes of all channels, its own."""
    (rows, columns), arguments = call.output_size, {**call.arguments, "aligned": True}
    channels = call.maps[0].shape[1]
    if direction == "forward":
        [whole] = mean("forward", call._replace(arguments=arguments), bounded=True)
        whole = whole.reshape(-1, channels // (rows * columns), rows, columns, rows, columns)
        return (np.einsum("kcijij->kcij", whole),)
    spread = np.einsum("kcij,ip,jq->kcijpq", call.grad_output, np.eye(rows), np.eye(columns))
    spread = spread.reshape(len(call.boxes), channels, rows, columns)
    return mean("backward", call._replace(arguments=arguments, grad_output=spread), bounded=True)


def rotated(direction, call, bounded=False):
    """RoIAlignRotated."""
    options = {"dtype": geometry(call)}
    if bounded:
        options["samples"] = reference_rotated.distinct_samples
    boxes, rest, input, grads = call.boxes, call.arguments.values(), call.maps[0], call.grad_output
    if direction == "forward":
        return (reference_rotated.roi_align_rotated(input, boxes, call.output_size, *rest, **options),)
    return (reference_rotated.roi_align_rotated_backward(grads, boxes, input.shape, *rest, **options),)


# Rotated boxes, whose numbers are others


@dataclasses.dataclass(frozen=True)
class Rotated(Operator):
    """RoIAlignRotated: boxes that are drawn by their corners get an angle, of which each has its own."""

    def make(self, rng, shape, count, output_size, arguments, dtype="float32", boxes=None, spoiled=None):  # noqa: D102
        arguments = {"clockwise": False, **arguments}
        if boxes is not None:
            boxes = turned(boxes)
        return super().make(rng, shape, count, output_size, arguments, dtype, boxes, spoiled)

    def random_boxes(self, rng, count, shape, spatial_scale):  # noqa: D102
        return turned(super().random_boxes(rng, count, shape, spatial_scale))


ANGLES = (0.3, 0.0, -2.5, math.pi / 2, 12.0, -0.04)


def turned(boxes):
    """Boxes with angles, (K, 6), of the same type, for boxes with corners."""
    if boxes.shape[1] != 5:
        return boxes
    index, first, last = boxes[:, :1], boxes[:, 1:3], boxes[:, 3:]
    with np.errstate(over="ignore", invalid="ignore"):
        wide = np.longdouble if boxes.dtype.kind == "f" else np.int64
        sides = last.astype(wide) - first
        centres = first + (sides / 2 if boxes.dtype.kind == "f" else sides // 2)
        angles = np.resize(ANGLES, (len(boxes), 1))
        return np.hstack([index, centres, sides, angles]).astype(boxes.dtype)


# Volumes, of which a map is one


class Volume(Operator):
    """`roi_align_3d` of the rows of a map, each a slice of one row; test_volumes.py has all three axes."""

    def callable(self, direction):  # noqa: D102
        function = super().callable(direction)

        @functools.wraps(function)
        def of_map(*, layout, spatial_scale, boxes, **keywords):
            axis = {"NCHW": 3, "NHWC": 2}[layout]
            for name in keywords.keys() & {"input", "grad_output", "out"}:
                keywords[name] = np.expand_dims(keywords[name], axis)
            for name, at in (("output_size", 1), ("input_shape", axis)):
                if name in keywords:
                    keywords[name] = (*keywords[name][:at], 1, *keywords[name][at:])
            scales = (spatial_scale, 1.0, spatial_scale)
            layout = {"NCHW": "NCDHW", "NHWC": "NDHWC"}[layout]
            result = function(boxes=with_z(boxes), spatial_scale=scales, layout=layout, **keywords)
            return np.squeeze(result, axis)

        def into_out(**keywords):
            result = of_map(**keywords)
            return result if keywords.get("out") is None else keywords["out"]

        return functools.wraps(function)(into_out)


def with_z(boxes):
    """Boxes in whatever form, with their y as z, and y from 0 to 1."""
    if isinstance(boxes, list | tuple):
        if boxes and isinstance(boxes[0], numbers_of_python.Real):
            *index, x1, y1, x2, y2 = boxes
            return [*index, x1, 0, y1, x2, 1, y2]
        return type(boxes)(map(with_z, boxes))
    if isinstance(boxes, memoryview):
        return memoryview(with_z(np.asarray(boxes)))
    more = np.empty((len(boxes), boxes.shape[1] + 2), boxes.dtype)
    more[:, :-6] = boxes[:, :-4]
    more[:, -6:] = np.array([0, 0, 0, 0, 1, 0], boxes.dtype)
    more[:, [-6, -4, -3, -1]] = boxes[:, -4:]
    return more


# The pyramid, whose call has another form


@dataclasses.dataclass(frozen=True)
class Pyramid(Operator):
    """MultiScaleRoIAlign of two maps: spatial_scale belongs to the finer one, a power of two."""

    def map_sizes(self, size):  # noqa: D102
        return [tuple(size), tuple(-(-side // 2) for side in size)]

    def _arguments(self, arguments, shape):
        scale = 2.0 ** round(math.log2(arguments["spatial_scale"]))
        side = math.sqrt(shape[2] * shape[3]) / scale
        return {**arguments, "spatial_scale": min(scale, 1.0), "canonical_scale": side / 2}

    def accepts(self, direction, name):  # noqa: D102
        return name in inspect.signature(cyroialign.MultiScaleRoIAlign).parameters

    def callable(self, direction):  # noqa: D102
        return pyramid_backward if direction == "backward" else pyramid

    def keywords(self, direction, call, layout):  # noqa: D102
        arguments = {**call.arguments, **self.fixed, "layout": layout}
        scale = arguments.pop("spatial_scale")
        images, _, height, width = call.maps[0].shape
        every = {
            "x": {f"level {i}": in_layout(one, layout) for i, one in enumerate(call.maps)},
            "boxes": [call.boxes[call.boxes[:, 0] == image, 1:] for image in range(images)],
            "image_shapes": [(round(height / scale) or 1, round(width / scale) or 1)] * images,
            "canonical_level": 1 - round(math.log2(scale)),
            "output_size": call.output_size,
            **arguments,
        }
        if direction == "backward":
            every["grad_output"] = in_layout(call.grad_output, layout)
        return every


def pyramid(*, x, boxes, image_shapes, **settings):
    """One use of a pooler made for it."""
    return cyroialign.MultiScaleRoIAlign(list(x), **settings)(x, boxes, image_shapes)


def pyramid_backward(*, grad_output, x, boxes, image_shapes, **settings):
    """The gradients of one use of a pooler made for it."""
    return cyroialign.MultiScaleRoIAlign(list(x), **settings).backward(grad_output, x, boxes, image_shapes)


def of_levels(of_one, direction, call, bounded=False):
    """The reference of a pyramid, built from the reference of one map."""
    return reference_pyramid.by_level(direction, call, functools.partial(of_one, bounded=bounded))


OPERATORS = {
    "roi_align": Operator("roi_align", ROI_ALIGN, mean, ("backward", "boxes")),
    "roi_align_3d": Volume("roi_align_3d", ROI_ALIGN, mean, refuses_as_maps=False),
    "roi_pool": Operator(
        "roi_pool",
        SCALE,
        functools.partial(pool, "roi_pool"),
        gradient_takes=("input", "output_size"),
        linear=False,
    ),
    "roi_align_rotated": Rotated(
        "roi_align_rotated", ROI_ALIGN | {"clockwise": (False, True)}, rotated, columns=6, quick=False
    ),
    "prroi_pool": Operator("prroi_pool", SCALE, integral, ("backward", "boxes")),
    "ps_roi_align": Operator(
        "ps_roi_align", SCALE | RATIO, functools.partial(pool, "ps_roi_align"), position_sensitive=True
    ),
    "ps_roi_pool": Operator(
        "ps_roi_pool",
        SCALE,
        functools.partial(pool, "ps_roi_pool"),
        position_sensitive=True,
        leaves_out_last=True,
    ),
    "pyramid": Pyramid(
        "MultiScaleRoIAlign", PYRAMID, functools.partial(of_levels, mean), least_side=2, by_image=True
    ),
}
for mode in ("max", "onnx_max"):
    of_mode, options = functools.partial(maximum, mode), {"fixed": {"mode": mode}, "linear": False}
    OPERATORS[f"roi_align, {mode}"] = Operator(
        "roi_align", ROI_ALIGN, of_mode, gradient_takes=("input_shape", "input"), quick=False, **options
    )
    OPERATORS[f"pyramid, {mode}"] = Pyramid(
        "MultiScaleRoIAlign",
        PYRAMID,
        functools.partial(of_levels, of_mode),
        least_side=2,
        by_image=True,
        quick=False,
        **options,
    )

DIRECTIONS = {f"{name}-{way}": (one, way) for name, one in OPERATORS.items() for way in one.directions}
every_operator = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS)
every_direction = pytest.mark.parametrize(("operator", "direction"), DIRECTIONS.values(), ids=DIRECTIONS)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)
