"""Kernels that replace those of torchvision's own operators."""

import functools
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import cyroialign
from cyroialign.torch import _derivatives as derivatives
from cyroialign.torch import _functions as functions
from cyroialign.torch import _operators as operators

_lock = threading.Lock()
_active: set["Acceleration"] = set()
_library: Any = None  # torch drops the kernels of a library with the last reference to it
_pasting: dict[Any, Callable[..., Tensor]] = {}  # modules, and their own paste_masks_in_image
PASTES = ("torchvision.models.detection.roi_heads", "torchvision.models.detection.transform")


class Acceleration:
    """What `accelerate_torchvision` returns: it ends with a ``with`` block or by `undo`."""

    def __init__(self) -> None:
        global _library
        with _lock:
            if not _active:
                _library = _register()
                _replace_pasting()
            _active.add(self)

    def undo(self) -> None:
        """Give torchvision its own kernels back, unless another acceleration still lasts."""
        global _library
        with _lock:
            _active.discard(self)
            if not _active:
                _library = None
                _restore_pasting()

    def __enter__(self) -> "Acceleration":
        return self

    def __exit__(self, *exception: object) -> None:
        self.undo()


def accelerate_torchvision() -> Acceleration:
    """Let cyroialign compute `torchvision.ops.roi_align` and its gradient on the CPU, for the whole process.

    It takes effect when called. Callers of `torchvision.ops.roi_align` need no change: detectors, their
    training, graphs of `torch.export` and `torch.compile`. Its derivatives with respect to the map are those
    of `cyroialign.torch.roi_align`, also in forward mode, where torchvision's own tangent is 0.

    The detectors of torchvision then paste their masks with `cyroialign.torch.paste_masks`, where no gradient
    is asked for and nothing is traced for ONNX. A model that was scripted before goes on as it was.

    Returns
    -------
    Acceleration
        A context manager that undoes it on exit, as its ``undo()`` does. When this was called more than once,
        torchvision has its kernels back once all calls are undone, in any order.

    Raises
    ------
    ImportError
        If torchvision cannot be imported.

    Notes
    -----
    Results differ from torchvision's in the rounding of sums, and as the documentation of `cyroialign.torch`
    says: a box that is not finite is a ValueError. Boxes get no gradient, since torchvision asks for none.
    The result of a channels_last map is contiguous, as in torchvision, which costs a copy of the result.

    Examples
    --------
    ::

        with cyroialign.torch.accelerate_torchvision():
            detections = model(images)
    """
    return Acceleration()


def _replace_pasting() -> None:
    for name in PASTES:
        module: Any = sys.modules.get(name)
        if hasattr(module, "paste_masks_in_image"):
            _pasting[module] = module.paste_masks_in_image
            module.paste_masks_in_image = _paste_instead_of(module.paste_masks_in_image)


def _restore_pasting() -> None:
    for module, paste in _pasting.items():
        module.paste_masks_in_image = paste
    _pasting.clear()


def _paste_instead_of(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @functools.wraps(original)
    def paste_masks_in_image(
        masks: Tensor, boxes: Tensor, img_shape: tuple[int, int], padding: int = 1
    ) -> Tensor:
        differentiated = torch.is_grad_enabled() and (masks.requires_grad or boxes.requires_grad)
        here = masks.device.type == boxes.device.type == "cpu" and masks.is_floating_point()
        if differentiated or not here or masks.shape[1] != 1 or torch.jit.is_tracing():
            return original(masks, boxes, img_shape, padding)
        return functions.paste_masks(masks, boxes, img_shape, padding=padding)

    called_as_it_is: Callable[..., Tensor] = torch.jit.ignore(paste_masks_in_image)  # by what is scripted
    return called_as_it_is


def _register() -> Any:
    import torchvision  # noqa: F401  defines the operators

    library = torch.library.Library("torchvision", "IMPL")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*Overriding a previously registered kernel", UserWarning)
        library.impl("roi_align", _roi_align, "CPU")
        library.impl("_roi_align_backward", _roi_align_backward, "CPU")
        _differentiate(library)
    return library


def _differentiate(library: Any) -> None:
    """Put derivatives before those of torchvision, of which tangents come out as 0, silently."""
    pool, transpose = (
        torch.ops.torchvision.roi_align.default,
        torch.ops.torchvision._roi_align_backward.default,
    )

    def keep(ctx: Any, input: Tensor, rois: Tensor, *settings: Any) -> None:
        ctx.shape, ctx.settings = input.shape, settings
        ctx.save_for_backward(rois)

    def backward(ctx: Any, grad_output: Tensor) -> Any:
        before, after = ctx.settings[:3], ctx.settings[3:]
        gradient = None
        if ctx.needed[0]:
            gradient = transpose(grad_output, *ctx.saved_tensors, *before, *ctx.shape, *after)
        return gradient, None

    def keep_transposed(ctx: Any, grad: Tensor, rois: Tensor, *settings: Any) -> None:
        ctx.settings = settings[:3] + settings[7:]  # all but the shape of the map
        ctx.save_for_backward(rois)

    def backward_transposed(ctx: Any, grad_input: Tensor) -> Any:
        return pool(grad_input, *ctx.saved_tensors, *ctx.settings) if ctx.needed[0] else None, None

    name = "torchvision.ops.roi_align"
    tangents = derivatives.of_tangents
    settings = {"library": library, "key": "AutogradCPU"}
    derivatives.differentiable(pool, keep, backward, tangents(pool, name), **settings)
    derivatives.differentiable(
        transpose, keep_transposed, backward_transposed, tangents(transpose, name), **settings
    )


def _roi_align(
    input: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    settings = ((pooled_height, pooled_width), spatial_scale, sampling_ratio, aligned)
    return operators.call(cyroialign.roi_align, input, rois, *settings).contiguous()


def _roi_align_backward(
    grad: Tensor,
    rois: Tensor,
    spatial_scale: float,
    pooled_height: int,
    pooled_width: int,
    batch_size: int,
    channels: int,
    height: int,
    width: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    settings = ((batch_size, channels, height, width), spatial_scale, sampling_ratio, aligned)
    return operators.call(cyroialign.roi_align_backward, grad, rois, *settings).contiguous()
