"""What callers give, as the operators take it: tensors and rows of boxes, settings as plain numbers.

Refusals are those of `cyroialign` and of tensors that no array can show. While a call is traced, settings may
be symbols, and the operators look at them when the trace runs.
"""

import numbers
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from cyroialign.arguments import validation
from cyroialign.arguments.validation import _kind


def feature_maps(maps: Sequence[Any], names: Sequence[str], axes: int = 4) -> None:
    """Check that maps are tensors with 4 axes, or volumes with 5."""
    for one, name in zip(maps, names, strict=True):
        _tensor(one, name)
        if one.ndim != axes:
            raise ValueError(f"{name} must have {axes} axes, got shape {tuple(one.shape)}")


def rows(boxes: Any, maps: Sequence[Tensor], numbers: tuple[str, ...] = validation.CORNERS) -> Tensor:
    """Put the boxes of all images into rows of the batch index and their numbers, where the maps are."""
    columns = len(numbers)
    if isinstance(boxes, Tensor):
        _tensor(boxes, "boxes")
        _same_place([*maps, boxes])
        return boxes
    if not isinstance(boxes, Sequence) or isinstance(boxes, str | bytes):
        _refuse(boxes, "boxes", "a torch.Tensor, or a list or tuple of them, one an image")
    given = [maps[0].new_empty((0, columns), dtype=torch.float32) if _is_empty(one) else one for one in boxes]
    for image, one in enumerate(given):
        _tensor(one, f"boxes[{image}]")
    _same_place([*maps, *given])
    validation.list_of_boxes(given, None, maps[0].shape[0], numbers)
    given = [one.reshape(0, columns) if one.shape == (0,) else one for one in given]
    for image, one in enumerate(given):
        validation.box_shape(tuple(one.shape), f"boxes[{image}]", columns)
        if one.dtype is torch.bool or one.is_complex():  # which would be lost in the conversion
            raise TypeError(f"boxes[{image}] must have a float or integer dtype, got {one.dtype}")
    if not given:
        return maps[0].new_empty((0, columns + 1), dtype=torch.float32)
    kinds = {one.dtype for one in given}
    exact = len(kinds) > 1 and any(kind.itemsize > 2 and kind is not torch.float32 for kind in kinds)
    return torch.cat([_of_image(one, image, exact) for image, one in enumerate(given)])


def corners(boxes: Any, masks: Tensor) -> Tensor:
    """Check boxes, a row for each mask, and that they are where the masks are."""
    _tensor(boxes, "boxes")
    _same_place([masks, boxes])
    return boxes


def image_shape(value: Any) -> list[int]:
    """Height and width of images."""
    return list(value) if torch.compiler.is_compiling() else list(validation.image_shape(value))


def bins(output_size: Any) -> list[int]:
    """Height and width of the result."""
    if torch.compiler.is_compiling():
        return list(output_size) if isinstance(output_size, Sequence) else [output_size, output_size]
    return list(validation.output_size(output_size))


def volume_bins(output_size: Any) -> list[int]:
    """Depth, height and width of the result."""
    if torch.compiler.is_compiling():
        return list(output_size) if isinstance(output_size, Sequence) else [output_size] * 3
    return list(validation.volume_output_size(output_size))


def scales(spatial_scale: Any, name: str = "spatial_scale") -> list[float]:
    """(y, x) of a number for both axes, or of one for each."""
    return _of_axes(spatial_scale, name, "two, (y, x)", 2)


def volume_scales(spatial_scale: Any) -> list[float]:
    """(z, y, x) of a number for all axes, or of one for each."""
    return _of_axes(spatial_scale, "spatial_scale", "three, (z, y, x)", 3)


def _of_axes(spatial_scale: Any, name: str, several: str, axes: int) -> list[float]:
    each = isinstance(spatial_scale, Sequence | np.ndarray) and not isinstance(spatial_scale, str | bytes)
    if each and len(spatial_scale) != axes:
        raise ValueError(f"{name} must be a number or {several}, got {_kind(spatial_scale)}")
    numbers = list(spatial_scale) if each else [spatial_scale] * axes
    return numbers if torch.compiler.is_compiling() else [_number(one, name, several) for one in numbers]


def ratio(sampling_ratio: Any) -> Any:
    """Samples on each axis of a bin."""
    return sampling_ratio if torch.compiler.is_compiling() else validation.sampling_ratio(sampling_ratio)


def flag(value: Any, name: str = "aligned") -> Any:
    """Whether boxes are shifted by half a pixel, or the like."""
    return value if torch.compiler.is_compiling() else validation.flag(value, name)


def _number(value: Any, name: str, several: str) -> float:
    if not isinstance(value, numbers.Real) and not (isinstance(value, Tensor) and value.ndim == 0):
        raise TypeError(f"{name} must be a number or {several}, got {_kind(value)}")
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _tensor(value: Any, name: str) -> None:
    """Check that this is a tensor whose numbers lie in memory as they are."""
    if not isinstance(value, Tensor):
        _refuse(value, name, "a torch.Tensor")
    if value.is_nested:
        raise TypeError(f"{name} must be a dense tensor, got a nested one: give list({name}.unbind())")
    if value.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense tensor, got {value.layout}: give {name}.to_dense()")
    if value.is_quantized:
        raise TypeError(f"{name} must not be quantised, got {value.dtype}: give {name}.dequantize()")
    if value.device.type not in ("cpu", "meta"):
        raise ValueError(
            f"maps and boxes must be on the CPU, got a tensor on {value.device}: "
            "move it with .cpu(), or call torchvision.ops there"
        )


def _refuse(value: Any, name: str, expected: str) -> NoReturn:
    hint = f": give torch.as_tensor({name})" if isinstance(value, np.ndarray | list | tuple) else ""
    raise TypeError(f"{name} must be {expected}, got {_kind(value)}{hint}")


def _same_place(tensors: Sequence[Tensor]) -> None:
    """Check that all tensors have values, or none: of what has some alone, a result would be made up."""
    places = {one.device.type for one in tensors}
    if len(places) > 1:
        raise ValueError(f"maps and boxes must all be on the CPU or all on meta, got {sorted(places)}")


def _is_empty(boxes: Any) -> bool:
    return isinstance(boxes, list | tuple) and not boxes


def _of_image(boxes: Tensor, image: int, exact: bool) -> Tensor:
    """Rows of one image, of float64 where torch would round integers to the float32 of other images."""
    if exact:
        boxes = boxes.double()
    elif boxes.dtype.itemsize < 4:
        boxes = boxes.float()  # which can tell image 257 from 256, and 2049 from 2048
    return pad(boxes, (1, 0), value=image)
