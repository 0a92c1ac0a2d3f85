"""Validation of feature pyramids, their weights and their anchors."""

import numbers
import pathlib
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from cyroialign.arguments.validation import (
    MAX_LENGTH,
    _kind,
    as_array,
    feature_map,
    list_of_boxes,
    same_dtype,
    scale,
    spatial_scale,
    whole_number,
)

FLOATS = ("float32", "float64")
Numbers = tuple[float, ...]


def level_number(value: Any, name: str) -> int:
    level = whole_number(value, name)
    if abs(level) > MAX_LENGTH:
        raise ValueError(f"{name} must lie between -{MAX_LENGTH} and {MAX_LENGTH}")
    return level


def level_numbers(min_level: Any, max_level: Any) -> tuple[int, int]:
    low, high = level_number(min_level, "min_level"), level_number(max_level, "max_level")
    if low > high:
        raise ValueError(f"min_level must not exceed max_level, got {low} and {high}")
    return low, high


def height_and_width(value: Any, name: str) -> tuple[int, int]:
    try:
        sides = tuple(whole_number(side, f"a side of {name}") for side in value)
    except TypeError as error:
        raise TypeError(f"{name} must be (height, width) in whole numbers, got {_kind(value)}") from error
    if len(sides) != 2 or not all(1 <= side <= MAX_LENGTH for side in sides):
        raise ValueError(f"{name} must be (height, width), each at least 1, got {value!r}")
    return sides


def list_of_sizes(
    value: Any, name: str, count: int | None = None, per: str = "a level"
) -> list[tuple[int, int]]:
    """Check a sequence of (height, width): `count` of them if given, else one or more."""
    try:
        sizes = list(value)
    except TypeError:
        raise TypeError(f"{name} must be a sequence of (height, width), got {_kind(value)}") from None
    if len(sizes) != count if count is not None else not sizes:
        expected = "at least one size" if count is None else f"one size {per}, {count} here"
        raise ValueError(f"{name} must have {expected}, got {len(sizes)}")
    return [height_and_width(size, f"{name}[{i}]") for i, size in enumerate(sizes)]


def sizes_and_ratios(sizes: Any, aspect_ratios: Any) -> tuple[tuple[Numbers, ...], tuple[Numbers, ...]]:
    """Check the settings of an AnchorGenerator: for each level its sizes and its aspect ratios."""
    flat, by_size = _numbers_by_level(sizes, "sizes")
    if flat:
        by_size = tuple((size,) for size in by_size[0])
    flat, by_ratio = _numbers_by_level(aspect_ratios, "aspect_ratios")
    if flat:
        by_ratio *= len(by_size)
    if len(by_size) != len(by_ratio):
        raise ValueError(
            "sizes and aspect_ratios must have the same number of levels, "
            f"got {len(by_size)} and {len(by_ratio)}"
        )
    return by_size, by_ratio


def _numbers_by_level(value: Any, name: str) -> tuple[bool, tuple[Numbers, ...]]:
    """Tell whether these are numbers rather than numbers for each level, and check them, nested."""
    entries = _entries(value, name)
    if any(isinstance(entry, numbers.Real) for entry in entries):
        return True, (_positive(entries, name),)
    levels = [(_entries(entry, f"{name}[{i}]"), f"{name}[{i}]") for i, entry in enumerate(entries)]
    return False, tuple(_positive(*level) for level in levels)


def _entries(value: Any, name: str) -> tuple[Any, ...]:
    if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
        raise TypeError(
            f"{name} must be numbers, or a sequence of numbers for each level, got {_kind(value)}"
        )
    entries = tuple(value)
    if not entries:
        raise ValueError(f"{name} must not be empty")
    return entries


def _positive(values: tuple[Any, ...], name: str) -> Numbers:
    return tuple(scale(value, True, f"{name}[{i}]") for i, value in enumerate(values))


def finite_anchors(anchors: Sequence[np.ndarray]) -> None:
    for level, cell in enumerate(anchors):
        if not np.isfinite(cell).all():
            raise ValueError(f"sizes[{level}] and aspect_ratios[{level}] make anchors beyond float32")


def channels(in_channels_list: Any, out_channels: Any) -> tuple[list[int], int]:
    try:
        inputs = list(in_channels_list)
    except TypeError:
        raise TypeError(
            f"in_channels_list must be a sequence of whole numbers, got {_kind(in_channels_list)}"
        ) from None
    inputs = [whole_number(one, f"in_channels_list[{level}]") for level, one in enumerate(inputs)]
    if not inputs or min(inputs) < 1:
        raise ValueError(f"in_channels_list must have one or more levels of at least 1 channel, got {inputs}")
    outputs = whole_number(out_channels, "out_channels")
    if outputs < 1:
        raise ValueError(f"out_channels must be at least 1, got {outputs}")
    return inputs, outputs


def mapping(value: Any, name: str) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a mapping of names to arrays, got {_kind(value)}")
    return value


def pyramid(x: Any, in_channels_list: Sequence[int], taken: str | None) -> dict[str, np.ndarray]:
    """Check the maps of a pyramid, finest first, and return them C-contiguous and in native byte order."""
    maps = {name: as_array(value, f"x[{name!r}]") for name, value in mapping(x, "x").items()}
    if len(maps) != len(in_channels_list):
        raise ValueError(f"x must have one map per level, {len(in_channels_list)} here, got {len(maps)}")
    if taken in maps:
        raise ValueError(f"x may not have a map named {taken!r}: that is the name of the extra level")
    first = next(iter(maps.values()))
    for (name, array), expected in zip(maps.items(), in_channels_list, strict=True):
        where, kind = f"x[{name!r}]", array.dtype.newbyteorder("=")
        if kind.name not in FLOATS:
            raise TypeError(f"{where} must have dtype {' or '.join(FLOATS)}, got {array.dtype}")
        if kind != first.dtype.newbyteorder("="):
            raise TypeError(f"x must have maps of one dtype: {where} has {array.dtype}, not {first.dtype}")
        if array.ndim != 4:
            raise ValueError(f"{where} must have 4 axes, (N, C, H, W), got shape {array.shape}")
        if array.shape[1] != expected:
            raise ValueError(f"{where} must have {expected} channels, got shape {array.shape}")
        if array.shape[0] != first.shape[0]:
            raise ValueError(
                f"x must have maps with the same number of images: {where} has {len(array)}, "
                f"the first {len(first)}"
            )
        if not (array.shape[2] and array.shape[3]):
            raise ValueError(f"{where} must have pixels, got shape {array.shape}")
        maps[name] = np.require(array, kind, ["C", "A"])  # what BLAS reads in place
    return maps


def map_names(value: Any) -> list[str]:
    """Check featmap_names: one name, or several distinct names."""
    names: list[Any] = [value] if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"featmap_names must be a str or a sequence of str, got {_kind(value)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"featmap_names must have one or more names, each once, got {names}")
    return names


def values_of(x: Any, names: Sequence[str]) -> list[Any]:
    """Check that x has all the names, and return their maps."""
    given = mapping(x, "x")
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(f"x must have all maps of featmap_names: it lacks {missing}, and has {list(given)}")
    return [given[name] for name in names]


def maps_of_levels(x: Any, names: Sequence[str]) -> list[np.ndarray]:
    """Check the named maps of x, ignoring others; return them in native byte order."""
    maps = [feature_map(one, f"x[{name!r}]") for name, one in zip(names, values_of(x, names), strict=True)]
    return [array.astype(array.dtype.newbyteorder("="), order="K", copy=False) for array in maps]


def of_one_kind(maps: Sequence[np.ndarray], sizes: Sequence[tuple[int, ...]], names: Sequence[str]) -> None:
    """Check that maps of the given (N, C, H, W) can be levels of one pyramid."""
    first = f"x[{names[0]!r}]"
    for name, array, size in zip(names, maps, sizes, strict=True):
        same_dtype(array, f"x[{name!r}]", maps[0], first)
        if size[:2] != sizes[0][:2]:
            raise ValueError(
                "x must have maps with the same number of images and channels: "
                f"x[{name!r}], as (N, C, H, W), is {size}, and {first} {sizes[0]}"
            )


def pixels_to_pool(sizes: Sequence[tuple[int, ...]], names: Sequence[str], boxes: int) -> None:
    for name, size in zip(names, sizes, strict=True):
        if not (size[2] and size[3]):
            raise ValueError(
                f"x[{name!r}] must have pixels to pool {boxes} boxes from, "
                f"got height {size[2]} and width {size[3]}"
            )


def spatial_scales(value: Any, names: Sequence[str]) -> tuple[tuple[float, float], ...]:
    """Check the scales of named maps: a number each, or two, (y, x)."""
    try:
        scales = list(value)
    except TypeError:
        raise TypeError(f"spatial_scales must be a sequence, one scale per map, got {_kind(value)}") from None
    if len(scales) != len(names):
        raise ValueError(f"spatial_scales must have one scale per map, {len(names)} here, got {len(scales)}")
    pairs = tuple(spatial_scale(one, True, f"spatial_scales[{i}]") for i, one in enumerate(scales))
    finest_first([y * x for y, x in pairs], names)
    return pairs


def finest_first(scales: Sequence[float], names: Sequence[str]) -> None:
    if scales[0] < scales[-1]:
        raise ValueError(
            f"featmap_names must go from the finest map to the coarsest, got {list(names)} of scales {scales}"
        )


def boxes_by_image(value: Any, images: int) -> None:
    if not isinstance(value, list | tuple):
        raise TypeError(f"boxes must be a list or tuple of arrays (L, 4), one per image, got {_kind(value)}")
    list_of_boxes(value, None, images)


@contextmanager
def archive(path: Any) -> Iterator[Mapping[str, Any]]:
    """Open an ``.npz`` file."""
    with pathlib.Path(path).open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError(f"state must be the path of an .npz file, and {str(path)!r} is not one")
        with NpzFile(file) as arrays:
            yield arrays


def state_keys(keys: Mapping[Any, Any], expected: Mapping[str, Any]) -> None:
    """Check keys as given, each with its present spelling, against those that a network has."""
    given: dict[Any, Any] = {}
    for key, present in keys.items():
        if present not in expected:
            raise ValueError(f"state has the key {key!r}, which this network does not have")
        if present in given:
            raise ValueError(f"state has both {given[present]!r} and {key!r}, which are the same weights")
        given[present] = key
    missing = [key for key in expected if key not in given]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ValueError(f"state lacks the key {missing[0]!r}{more}")


def weights(value: Any, key: str, shape: tuple[int, ...]) -> np.ndarray:
    array = as_array(value, f"state[{key!r}]")
    kind = array.dtype.newbyteorder("=")
    if kind.name not in FLOATS:
        raise TypeError(f"state[{key!r}] must have dtype {' or '.join(FLOATS)}, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"state[{key!r}] must have shape {shape}, got {array.shape}")
    return np.array(array, kind, order="C")
