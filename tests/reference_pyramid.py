"""Pooling from a pyramid as the textbook has it: each box from the map of its level, level after level.

Shares nothing with the package. Maps are (N, C, H_l, W_l), finest first, each half as long as the one before.
"""

import math

import numpy as np


def levels_of(boxes, count, canonical_scale):
    """The level of each box (K, 5) among `count`; a box of `canonical_scale` is the smallest of level 1."""
    levels = []
    for x1, y1, x2, y2 in boxes[:, 1:].astype(float).tolist():
        area = (x2 - x1) * (y2 - y1)
        side = min(math.sqrt(area), 1e99) if area > 0 else 0
        level = math.floor(1 + math.log2(side / canonical_scale) + 1e-6) if side else 0
        levels.append(min(max(level, 0), count - 1))
    return np.array(levels, int)


def by_level(direction, call, of_level):
    """Results of the reference `of_level` for all levels: the output, or a gradient for each map."""
    arguments = dict(call.arguments)
    levels = levels_of(call.boxes, len(call.maps), arguments.pop("canonical_scale"))
    output, gradients = np.zeros(call.grad_output.shape), []
    for level, array in enumerate(call.maps):
        at = levels == level
        scale = arguments["spatial_scale"] / 2**level
        [result] = of_level(
            direction,
            call._replace(
                maps=(array,),
                boxes=call.boxes[at],
                arguments=arguments | {"spatial_scale": scale},
                grad_output=call.grad_output[at],
            ),
        )
        if direction == "forward":
            output[at] = result
        gradients.append(result)
    return (output,) if direction == "forward" else tuple(gradients)
