"""The grid of the map: which settings it has, and in which order they are measured."""

import itertools
import math
import random
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from cyroialign.bench.workloads import Workload

Axes: TypeAlias = Mapping[str, tuple[int, ...]]

AXES: Axes = {
    "channels": (1, 3, 16, 64, 256),
    "bins": (1, 3, 7, 14, 28),
    "rois": (1, 10, 300, 20_000),
    "window": (4, 16, 60),
    "sampling_ratio": (2, 0),
}
CORNERS: Axes = {name: (values[0], values[-1]) for name, values in AXES.items()} | {"rois": (1, 300)}
HEIGHT, WIDTH, STRIDE = 100, 136, 8  # of the map; an image of 800 by 1088 pixels
SAMPLES = 64_000_000  # of all RoIs and channels: with more, a call of some peers takes seconds


def place(channels: int, bins: int, rois: int, window: int, sampling_ratio: int) -> Workload:
    """Return a workload whose boxes are about `window` pixels of the map wide and high."""
    name = f"{channels} channels, {bins} bins, {rois} RoIs, window {window}"
    sizes = (round(0.9 * window * STRIDE), round(1.1 * window * STRIDE))
    return Workload(name, channels, HEIGHT, WIDTH, rois, bins, sampling_ratio, STRIDE, sizes)


def window(workload: Workload) -> int:
    """Return what `place` was given."""
    return round(sum(workload.sizes) / 2 / workload.stride)


def places(axes: Axes, threads: Sequence[int]) -> list[tuple[Workload, int]]:
    """Return all settings of the grid that are not too large, each with a number of threads."""
    found = [place(**dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values())]
    return [(workload, count) for workload in found if _samples(workload) <= SAMPLES for count in threads]


def _samples(workload: Workload) -> int:
    """Count four values for each bin at least, so that small windows do not make huge results."""
    a_bin = (workload.sampling_ratio or math.ceil(window(workload) / workload.bins)) ** 2
    return workload.rois * workload.channels * workload.bins**2 * max(4, a_bin)


def in_turn(places: Sequence[tuple[Workload, int]], seed: int) -> list[tuple[Workload, int]]:
    """Order them so that whatever is measured first is a fair sample; the same order for the same seed.

    Next comes always the one whose values, alone and in pairs, have been there least: each number of
    channels, of bins, and so on, is met about as often as any other, wherever time runs out.
    """
    shuffled = list(places)
    random.Random(seed).shuffle(shuffled)
    known: dict[tuple[tuple[int, int], ...], int] = {}
    groups = np.array([[known.setdefault(of, len(known)) for of in _groups(*one)] for one in shuffled])
    met = np.zeros(len(known) + 1)
    met[-1] = np.inf  # of those that have been taken
    order = []
    for _ in shuffled:
        best = int(met[groups].sum(axis=1).argmin())
        met[groups[best]] += 1
        order.append(shuffled[best])
        groups[best] = -1
    return order


def _groups(workload: Workload, threads: int) -> list[tuple[tuple[int, int], ...]]:
    """Return each value with the number of its axis, alone and in pairs."""
    values = list(enumerate((*settings(workload).values(), threads)))
    return [(value,) for value in values] + list(itertools.combinations(values, 2))


def settings(workload: Workload) -> dict[str, int]:
    """Return what `place` was given, by name."""
    return {
        "channels": workload.channels,
        "bins": workload.bins,
        "rois": workload.rois,
        "window": window(workload),
        "sampling_ratio": workload.sampling_ratio,
    }
