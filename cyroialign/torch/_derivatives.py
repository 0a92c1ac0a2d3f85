"""How the operators are differentiated, backwards and forwards, and mapped over a further axis.

A mean is linear in the maps. So it and its transpose are the gradient of each other, the tangent of a
result is the result of the tangent, and there is one gradient to the boxes. `roi_pool` is linear as long as
its winners stay the same: then it is the transpose of its gradient.

A kernel below PyTorch's own derivatives would lose tangents silently. So those of the operators stand at its
key "Autograd", where each transform of `torch.func` comes by in turn, as calls without transforms do.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.forward_ad import _set_fwd_grad_enabled
from torch.autograd.function import _SingleLevelFunction

from cyroialign.torch import _operators as operators

NO_TANGENT = (
    "{} has no forward-mode derivative to its boxes: give boxes without a tangent, such as "
    "torch.autograd.forward_ad.unpack_dual(boxes).primal"
)


def differentiable(
    operator: Any,
    keep: Any,
    backward: Any,
    forward: Any,
    library: Any = operators.LIBRARY,
    key: str = "Autograd",
) -> None:
    """Give an operator its derivatives, for as long as the library lasts.

    keep(ctx, *arguments)
        Save for `backward`; ``ctx.needed`` says which tensors have gradients.
    backward(ctx, grad)
        The gradients to the tensors among the arguments, one after the other.
    forward(tangents, *arguments)
        The tangent of the result from those of the tensors, of which some are None; None if it is 0.
    """

    class Derivative(_SingleLevelFunction):  # for the transform at work alone: the others come by later
        @staticmethod
        def forward(ctx: Any, keyset: Any, arguments: Sequence[Any], *tensors: Tensor) -> Any:
            ctx.needed = ctx.needs_input_grad[2:]
            keep(ctx, *arguments)
            # Function has turned derivatives off, also for the transforms that come by later.
            with torch.enable_grad(), _set_fwd_grad_enabled(True):
                result = below(keyset, arguments)
            ctx.several = not isinstance(result, Tensor)
            return tuple(result) if ctx.several else result

        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Any:
            return None, None, *backward(ctx, grads if ctx.several else grads[0])

        _compiled_autograd_key = torch.autograd.Function._compiled_autograd_key

    make: Any = type(Derivative)
    named = make(f"{operator._opname}", (Derivative,), {})  # as grad_fn shows it

    def below(keyset: Any, arguments: Sequence[Any]) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return operator.redispatch(keyset & torch._C._after_autograd_keyset, *arguments)

    def kernel(keyset: Any, *arguments: Any) -> Any:
        given = tensors_of(arguments)
        # There is one level, of which a trace of torch.func.jvp by torch.compile does not tell Python.
        level = 0 if torch._C._are_functorch_transforms_active() else forward_ad._current_level
        duals, tangents = [], []
        if level >= 0:
            duals = [
                forward_ad.unpack_dual(one, level=level) if one.is_floating_point() else (one, None)
                for one in given
            ]
            tangents = [tangent for _, tangent in duals]
        if any(one is not None for one in tangents):
            primals = with_tensors(arguments, iter([primal for primal, _ in duals]))
            result, tangent = kernel(keyset, *primals), forward(tangents, *primals)
            if tangent is None:
                return result
            if isinstance(result, Tensor):
                return forward_ad.make_dual(result, tangent, level=0)
            return [forward_ad.make_dual(*pair, level=0) for pair in zip(result, tangent, strict=True)]
        if torch.is_grad_enabled() and any(one.requires_grad for one in given):
            with enable_single_level_autograd_function():
                result = named.apply(keyset, arguments, *given)
            return list(result) if isinstance(result, tuple) else result
        return below(keyset, arguments)

    library.impl(operator._opname, kernel, key, with_keyset=True)


def tensors_of(arguments: Sequence[Any]) -> list[Tensor]:
    """The tensors among the arguments of an operator, and in their lists."""
    several = [one if isinstance(one, list | tuple) else [one] for one in arguments]
    return [one for list_ in several for one in list_ if isinstance(one, Tensor)]


def with_tensors(arguments: Sequence[Any], tensors: Iterator[Tensor]) -> list[Any]:
    """Put others in the place of the tensors among the arguments."""
    return [
        with_tensors(one, tensors)
        if isinstance(one, list | tuple)
        else next(tensors)
        if isinstance(one, Tensor)
        else one
        for one in arguments
    ]


def filled(tangents: Sequence[Tensor | None], primals: Any) -> Any:
    """Tangents of a tensor, or of several, with zeros where there are none."""
    if isinstance(primals, Tensor):
        return torch.zeros_like(primals) if tangents[0] is None else tangents[0]
    pairs = zip(tangents, primals, strict=True)
    return [torch.zeros_like(primal) if tangent is None else tangent for tangent, primal in pairs]


def linear(name: str, pool: Any, transpose: Any, to_boxes: Any = None) -> None:
    """Make a linear operator and its transpose the gradient of each other, and `to_boxes` that of both."""

    def keep(ctx: Any, maps: Any, boxes: Tensor, output_size: Any, *settings: Any) -> None:
        ctx.settings, ctx.in_list = settings, not isinstance(maps, Tensor)
        maps = maps if ctx.in_list else [maps]
        ctx.shapes = [side for one in maps for side in one.shape]
        ctx.save_for_backward(boxes, *(maps if to_boxes and ctx.needed[-1] else ()))

    def backward(ctx: Any, grad_output: Tensor) -> Any:
        boxes, *maps = ctx.saved_tensors
        *needed, boxes_needed = ctx.needed
        grad_maps: Any = [None] * len(needed)
        if any(needed):
            gradient = transpose(grad_output, boxes, ctx.shapes, *ctx.settings)
            grad_maps = gradient if ctx.in_list else [gradient]
        grad_boxes = None
        if to_boxes and boxes_needed:
            grad_boxes = to_boxes(grad_output, maps if ctx.in_list else maps[0], boxes, *ctx.settings)
        return *grad_maps, grad_boxes

    def keep_transposed(ctx: Any, grad_output: Tensor, boxes: Tensor, shapes: Any, *settings: Any) -> None:
        ctx.settings, ctx.output_size = settings, grad_output.shape[2:]
        ctx.save_for_backward(boxes, *([grad_output] if to_boxes and ctx.needed[-1] else ()))

    def backward_transposed(ctx: Any, maps: Any) -> Any:
        """The gradient to grad_output pools `maps`, which is the gradient to the result."""
        boxes, *grad_output = ctx.saved_tensors
        needed, boxes_needed = ctx.needed
        grad_grad_output = pool(maps, boxes, ctx.output_size, *ctx.settings) if needed else None
        grad_boxes = None
        if to_boxes and boxes_needed:
            grad_boxes = to_boxes(*grad_output, maps, boxes, *ctx.settings)
        return grad_grad_output, grad_boxes

    differentiable(pool, keep, backward, of_tangents(pool, name))
    differentiable(transpose, keep_transposed, backward_transposed, of_tangents(transpose, name))
    if to_boxes:
        differentiable(to_boxes, keep_nothing, refuse(name), product_rule(to_boxes, name))


def of_tangents(operator: Any, name: str) -> Callable[..., Any]:
    """What is linear in its first argument gives the tangent from that of it."""

    def forward(tangents: Sequence[Tensor | None], first: Any, boxes: Tensor, *settings: Any) -> Any:
        if tangents[-1] is not None:
            raise NotImplementedError(NO_TANGENT.format(name))
        return operator(filled(tangents[:-1], first), boxes, *settings)

    return forward


def product_rule(to_boxes: Any, name: str) -> Callable[..., Any]:
    """The gradient to boxes is linear in grad_output, and in the maps."""

    def forward(
        tangents: Sequence[Tensor | None], grad_output: Tensor, maps: Any, boxes: Tensor, *settings: Any
    ) -> Any:
        of_output, *of_maps, of_boxes = tangents
        if of_boxes is not None:
            raise NotImplementedError(NO_TANGENT.format(f"the gradient of {name} to its boxes"))
        total = 0 if of_output is None else to_boxes(of_output, maps, boxes, *settings)
        if any(one is not None for one in of_maps):
            total = total + to_boxes(grad_output, filled(of_maps, maps), boxes, *settings)
        return total

    return forward


def keep_nothing(ctx: Any, *arguments: Any) -> None:
    pass


def refuse(name: str) -> Callable[..., Any]:
    """What has no derivative."""

    def backward(ctx: Any, grad_boxes: Tensor) -> Any:
        raise NotImplementedError(f"the gradient of {name} to its boxes cannot be differentiated once more")

    return backward


def of_maximum(pool: Any, pool_backward: Any, at_winners: Any) -> None:
    """Make the maximum, its gradient and the transpose of that the derivatives of each other.

    No winner changes with a small change of the map, or of a box that is rounded: their derivatives are 0.
    """

    def keep(ctx: Any, input: Tensor, boxes: Tensor, *settings: Any) -> None:
        ctx.settings = settings
        ctx.save_for_backward(input, boxes)

    def backward(ctx: Any, grad_output: Tensor) -> Any:
        gradient = None
        if ctx.needed[0]:
            gradient = pool_backward(grad_output, *ctx.saved_tensors, *ctx.settings)
        return gradient, None

    def forward(tangents: Sequence[Tensor | None], *arguments: Any) -> Any:
        return None if tangents[0] is None else at_winners(tangents[0], *arguments)

    differentiable(pool, keep, backward, forward)
    for operator, transpose in ((pool_backward, at_winners), (at_winners, pool_backward)):

        def keep_rest(ctx: Any, values: Tensor, *arguments: Any) -> None:
            keep(ctx, *arguments)

        def backward_of_linear(ctx: Any, grad: Tensor, transpose: Any = transpose) -> Any:
            gradient = transpose(grad, *ctx.saved_tensors, *ctx.settings) if ctx.needed[0] else None
            return gradient, None, None

        def forward_of_linear(
            tangents: Any, values: Tensor, *arguments: Any, operator: Any = operator
        ) -> Any:
            return None if tangents[0] is None else operator(tangents[0], *arguments)

        differentiable(operator, keep_rest, backward_of_linear, forward_of_linear)


def of_pasting(paste: Any) -> None:
    """Tangents of masks are pasted as masks are. There is no gradient: nothing is trained on images."""

    def backward(ctx: Any, grad_images: Tensor) -> Any:
        raise NotImplementedError("paste_masks has no gradient: give masks.detach()")

    def forward(tangents: Sequence[Tensor | None], masks: Tensor, *settings: Any) -> Any:
        if tangents[1] is not None:
            raise NotImplementedError(NO_TANGENT.format("paste_masks"))
        return None if tangents[0] is None or settings[-1] is not None else paste(tangents[0], *settings)

    differentiable(paste, keep_nothing, backward, forward)


def one_after_the_other(operator: Any) -> None:
    """Let torch.func.vmap call an operator for each entry of the axis that it maps over."""

    def entry(argument: Any, axis: Any, index: int) -> Any:
        if isinstance(argument, list | tuple):
            return [entry(*pair, index) for pair in zip(argument, axis, strict=True)]
        if axis is None:
            return argument
        # Without entries the shape of a result is that of zeros.
        return (
            argument.select(axis, index) if argument.shape[axis] else argument.sum(axis, dtype=argument.dtype)
        )

    def rule(info: Any, axes: Sequence[Any], *arguments: Any) -> Any:
        results = [operator(*entry(arguments, axes, index)) for index in range(max(info.batch_size, 1))]
        if isinstance(results[0], Tensor):
            return torch.stack(results)[: info.batch_size], 0
        stacked = [torch.stack(of_all)[: info.batch_size] for of_all in zip(*results, strict=True)]
        return stacked, [0] * len(stacked)

    torch.library.register_vmap(operator.name(), rule, lib=operators.LIBRARY)


linear("roi_align", operators.roi_align, operators.roi_align_backward, operators.roi_align_boxes_backward)
linear(
    "MultiScaleRoIAlign",
    operators.roi_align_levels,
    operators.roi_align_levels_backward,
    operators.roi_align_levels_boxes_backward,
)
linear("roi_align_rotated", operators.roi_align_rotated, operators.roi_align_rotated_backward)
linear("prroi_pool", operators.prroi_pool, operators.prroi_pool_backward, operators.prroi_pool_boxes_backward)
linear("roi_align_3d", operators.roi_align_3d, operators.roi_align_3d_backward)
linear("ps_roi_align", operators.ps_roi_align, operators.ps_roi_align_backward)
of_maximum(operators.roi_pool, operators.roi_pool_backward, operators.roi_pool_at_winners)
of_pasting(operators.paste_masks)
for one in operators.ALL:
    one_after_the_other(one)
