"""What a seed of fuzz.py means: a call of an operator, in hostile memory, with hostile boxes and settings."""

import math
import random
from typing import Any, NamedTuple

import numpy as np
from memory import ODD, amid, in_other_order
from narrow import BYTES, INSTALLED, result_of
from operators import BOX_DTYPES, DIRECTIONS, FLOATS, LAYOUTS, Call, Operator, changed, geometry, in_layout

MARGIN, FILLING = 16, 77  # numbers around `out`, and what they are
CASES = list(DIRECTIONS.values())
WITH_OUT = [operator.accepts(direction, "out") for operator, direction in CASES]
DTYPES = (*FLOATS * 4, *INSTALLED)
BOX_KINDS = ("usual",) * 8 + ("whole",) * 4 + ("flat", "far", "huge", "odd", "broken")
ODD_NUMBERS = (
    -1.0,
    -0.5,
    0.0,
    -0.0,
    0.5,
    1.0,
    8.999999,
    5e-324,
    1e-40,
    1e-30,
    2.0**24 + 1,
    2.0**31,
    1e30,
    -1e30,
)
NOT_FINITE = (math.nan, math.inf, -math.inf)
ANGLES = (0.0, math.pi / 2, -math.pi, 0.3, -2.5, 12.0, 1e6)
LIES = (  # an argument, and what is no value for it
    ("num_threads", (0, -3, 1.5, "2")),
    ("sampling_ratio", (32768, 1.5, "2")),
    ("spatial_scale", (0.0, -1.0, math.nan, math.inf)),
    ("output_size", ((0, 3), (3, -1), (1.5, 2))),
    ("grad_output", (lambda grads: np.pad(grads, [(0, 1), (0, 0), (0, 0), (0, 0)]),)),
    ("input", (lambda maps: maps[0], lambda maps: maps.astype(complex))),
    ("out", (lambda out: out[None], lambda out: out.astype(np.int32), lambda out: frozen(out))),
)


class Case(NamedTuple):
    """A call, and how it is to be checked."""

    operator: Operator
    direction: str
    call: Call
    layout: str
    keywords: dict[str, Any]  # of the function, in memory of all kinds
    around: np.ndarray | None  # `out` and the numbers around it
    refused: tuple[type | tuple[type, ...], str] | None  # which error, and a word of its message
    may_pass: bool  # although it may be refused
    second: str | None  # with which other calls to compare
    threads: int
    spoiled: bool  # some numbers of the maps are not finite
    large: bool  # enough for several threads


def draw(seed):
    """Draw the case of a seed."""
    with np.errstate(all="ignore"):
        return draw_case(seed, random.Random(seed), np.random.default_rng(seed))


def draw_case(seed, choose, rng):
    """Draw it from generators of that seed."""
    operator, direction = CASES[seed % len(CASES)]
    large = choose.random() < 0.01
    dtype, layout = choose.choice(DTYPES), choose.choice(tuple(LAYOUTS))
    output_size = (choose.randint(1, 4), choose.randint(1, 4))
    most = 2 if operator.position_sensitive else 80 if large else 4
    shape = [
        choose.randint(1, 3),
        most if large else choose.randint(1, most),
        choose.randint(1, 9),
        choose.randint(1, 9),
    ]
    shape[2:] = [max(side, operator.least_side) for side in shape[2:]]
    arguments = {name: choose.choice(choices) for name, choices in operator.settings.items()}
    kind, form = choose.choice(BOX_KINDS), choose.choice(("rows", "rows", "list", "indices"))
    count = 40 if large else choose.choice((0, 1, 1, 2, 3, 4))
    boxes = draw_boxes(choose, rng, operator, kind, count, shape, arguments["spatial_scale"], dtype)
    if form == "list":
        boxes = boxes[np.argsort(boxes[:, 0], kind="stable")]
    spoiled = dtype not in BYTES and choose.random() < 0.04
    call = operator.make(rng, shape, count, output_size, arguments, dtype, boxes, 7 if spoiled else None)
    keywords = operator.keywords(direction, call, layout)
    bad = first_bad(operator, call)
    if not operator.by_image and valid_indices(call):
        keywords |= in_form(choose, call, form)
    around = None
    if WITH_OUT[seed % len(CASES)] and choose.random() < 0.4:
        result = call.grad_output if direction == "forward" else call.maps[0]
        nothing = np.full(in_layout(result, layout).shape, FILLING, result_of(result.dtype))
        keywords["out"], around = amid(nothing, FILLING, MARGIN)
    refused, may_pass = None, False
    if bad is not None:
        refused = ValueError, f"boxes[{bad}]" if isinstance(keywords["boxes"], np.ndarray) else "boxes["
        may_pass = operator.by_image and bool(np.isfinite(call.boxes).all())
    elif choose.random() < 0.03:
        refused = lie(choose, keywords)
    if refused is None:
        disguise(choose, keywords, layout)
    if choose.random() < 0.4 and "num_threads" not in keywords:
        keywords["num_threads"] = choose.randint(1, 4)
    second = choose.choice(("plain", "plain", "layout", "parts"))
    if large:
        second = "threads"
    elif second == "layout" and direction == "backward":
        second = "plain"
    if direction == "backward" and any(in_other_layout(one, layout) for one in arrays_in(keywords)):
        second = None  # sums have the order that suits the memory
    return Case(
        operator,
        direction,
        call,
        layout,
        keywords,
        around,
        refused,
        may_pass,
        second,
        choose.randint(2, 5),
        spoiled,
        large,
    )


def draw_boxes(choose, rng, operator, kind, count, shape, scale, dtype):
    """Boxes of a kind, in a dtype that can hold them."""
    images, _, height, width = shape
    corners = rng.uniform(-0.4, 1.4, (count, 4)) * np.array([width, height, width, height]) / scale
    if choose.random() < 0.7:
        corners = np.sort(corners.reshape(-1, 2, 2), axis=1).reshape(-1, 4)
    dtypes = BOX_DTYPES
    if kind == "whole":
        corners = np.round(corners * 2) / 2
    elif kind == "flat":
        corners[:, 2:] = np.where(choose.choice(((1, 0), (0, 1), (1, 1))), corners[:, :2], corners[:, 2:])
    elif kind == "far":
        corners += choose.choice((-1, 1)) * 10 ** choose.uniform(1, 9)
        dtypes = ("float32", "float64", "longdouble", "int64")
    elif kind in ("huge", "odd", "broken") and count:
        dtypes = ("float32", "float64", "longdouble") if kind != "broken" else BOX_DTYPES[:4]
        top = 300 if dtype == "float64" else 39
        for _ in range(choose.randint(1, 3)):
            number = {
                "huge": lambda: choose.choice((-1, 1)) * 10 ** choose.uniform(2, top),
                "odd": lambda: choose.choice(ODD_NUMBERS),
                "broken": lambda: choose.choice(NOT_FINITE),
            }[kind]()
            corners[choose.randrange(count), choose.randrange(4)] = number
    boxes = np.empty((count, operator.columns))
    boxes[:, 0] = rng.integers(images, size=count)
    boxes[:, 1:5] = corners
    if operator.columns == 6:
        boxes[:, 1:3], boxes[:, 3:5] = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        boxes[:, 5] = [choose.choice(ANGLES) for _ in range(count)]
    if kind == "broken" and count and not operator.by_image and choose.random() < 0.5:
        boxes[:, 1:] = np.nan_to_num(boxes[:, 1:], posinf=0, neginf=0)
        boxes[choose.randrange(count), 0] = choose.choice((-1.0, images, 0.5, math.nan, 1e4))
    return boxes.astype(choose.choice(dtypes))


def valid_indices(call):
    """Whether each box names an image."""
    index = call.boxes[:, 0]
    return bool(((index >= 0) & (index < len(call.maps[0])) & (index == np.floor(index))).all())


def first_bad(operator, call):
    """The first box that has no result: the index of an image, edges and sides are not what they must be."""
    real, (index, *_) = geometry(call), call.boxes.T
    numbers = call.boxes[:, 1:].astype(np.float64)
    scale, offset = real(call.arguments["spatial_scale"]), real(0.5 if call.arguments.get("aligned") else 0)
    first, last = numbers[:, :2].astype(real) * scale - offset, numbers[:, 2:4].astype(real) * scale
    if operator.columns == 5:
        last = last - offset - first
    good = np.isfinite(np.hstack([numbers, first, last])).all(axis=1)
    good &= (index >= 0) & (index < len(call.maps[0])) & (index == np.floor(index))
    return None if good.all() else int(np.argmin(good))


def in_form(choose, call, form):
    """Another form of the same boxes."""
    index = call.boxes[:, 0].astype(np.int64)
    if form == "indices":
        return {
            "boxes": call.boxes[:, 1:],
            "batch_indices": index.astype(choose.choice(("int32", "int64", "uint8"))),
        }
    if form == "list":
        return {"boxes": [call.boxes[index == image, 1:] for image in range(len(call.maps[0]))]}
    return {}


def lie(choose, keywords):
    """Give one argument a value that it cannot have; what to expect, or None."""
    name, values = choose.choice(LIES)
    value = choose.choice(values)
    if name not in keywords and name != "num_threads":
        return None
    keywords[name] = value(keywords[name]) if callable(value) else value
    return (TypeError, ValueError), name


def frozen(array):
    """A view of an array that may not be written."""
    view = array[...]
    view.flags.writeable = False
    return view


def disguise(choose, keywords, layout):
    """Move arrays into memory of all kinds, maps also into that of the other layout."""
    for name in [name for name, value in keywords.items() if isinstance(value, np.ndarray | list | dict)]:
        draw = choose.random()
        if name == "out" or draw > 0.4:
            continue
        odd = ODD[choose.choice(tuple(ODD))]
        if draw < 0.1:
            keywords[name] = changed(keywords[name], lambda array: in_other_order(array, layout))
        else:
            keywords[name] = changed(
                keywords[name], lambda array, odd=odd: odd(array) if array.size else array
            )


def in_other_layout(array, layout):
    """Whether a map lies in memory as the other layout has it."""
    [other] = set(LAYOUTS) - {layout}
    if array.ndim != 4 or array.flags.c_contiguous:
        return False
    return array.transpose(np.argsort(LAYOUTS[layout])).transpose(LAYOUTS[other]).flags.c_contiguous


def arrays_in(value):
    """The arrays of an argument, or of all."""
    if isinstance(value, np.ndarray):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [one for some in values for one in arrays_in(some)]
