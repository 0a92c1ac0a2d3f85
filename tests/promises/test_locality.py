"""A value that is not finite reaches what has it among its neighbours, and nothing else.

Each channel is a separate trial: one of its pixels, or of its bins, is spoiled. The textbook says what that
may change, and what it must.
"""

import numpy as np
import pytest
from operators import OPERATORS, every_direction, every_layout, every_operator

NOT_FINITE = (np.nan, np.inf, -np.inf)
LARGE = 1e6  # more than any other value: it shows where a pixel counts
CASES = {  # name -> (shape without channels, output_size, spatial_scale, sampling_ratio, aligned)
    "wide": ((2, 6, 11), (3, 2), 1.0, 2, True),
    "narrow": ((1, 7, 5), (2, 9), 1.0, -1, False),
    "one sample": ((1, 5, 9), (9, 3), 1.0, 1, True),
    "adaptive": ((1, 9, 17), (2, 3), 0.5, 0, True),
    "one row": ((2, 1, 8), (1, 4), 1.0, 3, False),
    "one column": ((1, 8, 1), (4, 1), 1.0, 2, True),
}
every_case = pytest.mark.parametrize("case", CASES)


def make(operator, case, channels, images=None):
    (own_images, *size), output_size, *arguments = CASES[case]
    arguments = dict(zip(("spatial_scale", "sampling_ratio", "aligned"), arguments, strict=True))
    shape = (images or own_images, channels, *size)
    return operator.make(np.random.default_rng(0), shape, 6, output_size, arguments)


def spoil_maps(call, pixels, value_of, per_channel=1):
    """Give each channel of the output one pixel that value_of(channel) tells; all images alike."""
    maps, rng = [one.copy() for one in call.maps], np.random.default_rng(0)
    for channel, (level, y, x) in enumerate(pixels):
        own = channel * per_channel + rng.integers(per_channel)  # of one bin, where bins have channels
        maps[level][:, own, y, x] = value_of(channel)
    return call._replace(maps=tuple(maps))


def not_finite(trial):
    return NOT_FINITE[trial % 3]


def same(first, second):
    return (first == second) | (np.isnan(first) & np.isnan(second))


def check(actual, clean, textbook, of_large):
    """All that must change has, and nothing that may not; textbook: what was expected of clean and spoiled.

    A neighbour of weight 0 may or may not spoil a mean: what a large value changes is where it counts.
    """
    before, after = textbook
    counts = ~same(before, of_large)
    must, may = counts & ~np.isfinite(after), counts | ~same(before, after)
    assert not np.isfinite(actual[must]).any()
    assert actual[~may].tobytes() == clean[~may].tobytes()
    return must.any(), may.all()


def trials(operator, case):
    """A call, and for each of its channels the pixel (map, y, x) to spoil; few where the textbook is slow."""
    maps = make(operator, case, 1).maps
    pixels = [(level, *yx) for level, one in enumerate(maps) for yx in np.ndindex(one.shape[2:])]
    pixels = pixels if operator.quick else pixels[::3]
    return make(operator, case, len(pixels)), pixels


@every_operator
@every_case
def test_maps(operator, case):
    call, pixels = trials(operator, case)
    per_channel = call.maps[0].shape[1] // call.grad_output.shape[1]
    spoiled = spoil_maps(call, pixels, not_finite, per_channel)
    large = spoil_maps(call, pixels, lambda channel: LARGE, per_channel)
    with np.errstate(invalid="ignore"):
        before, after, of_large = (operator.expected("forward", one)[0] for one in (call, spoiled, large))
    for layout in operator.layouts:
        clean, actual = (operator.run("forward", one, layout)[0].copy() for one in (call, spoiled))
        reached, everywhere = check(actual, clean, (before, after), of_large)
        assert reached or (operator.leaves_out_last and 1 in CASES[case][0][1:])
        assert not everywhere


@every_operator
@every_case
def test_gradients(operator, case):
    """What is given to a bin reaches the pixels that the bin has, in its channel."""
    call = make(operator, case, 1)
    bins = list(np.ndindex(len(call.boxes), *call.output_size))[:: 1 if operator.quick else 5]
    call = make(operator, case, len(bins))

    def spoil(value_of):
        grads = call.grad_output.copy()
        for channel, (k, i, j) in enumerate(bins):
            grads[k, channel, i, j] = value_of(channel)
        return call._replace(grad_output=grads)

    spoiled, large = spoil(not_finite), spoil(lambda channel: LARGE)
    with np.errstate(invalid="ignore"):
        wanted = [operator.expected("backward", one) for one in (call, spoiled, large)]
    for layout in operator.layouts:
        results, found = [operator.run("backward", one, layout) for one in (call, spoiled)], []
        for before, after, of_large, clean, actual in zip(*wanted, *results, strict=True):
            found.append(check(actual.copy(), clean.copy(), (before, after), of_large))
        assert any(reached for reached, _ in found)
        assert not any(everywhere for _, everywhere in found)


CHOOSING = {name: one for name, one in OPERATORS.items() if "input" in one.gradient_takes}


@pytest.mark.parametrize("operator", CHOOSING.values(), ids=CHOOSING)
@every_case
def test_gradients_that_depend_on_the_map(operator, case):
    """What is not finite may win a bin or lose it: its weight is finite, and other bins do not notice.

    Which of several samples that are not finite wins is a matter of those that are looked at.
    """
    call, pixels = trials(operator, case)
    spoiled = spoil_maps(call, pixels, not_finite)
    wanted = [operator.expected("backward", one) for one in (call, spoiled)]
    for layout in operator.layouts:
        results = [operator.run("backward", one, layout) for one in (call, spoiled)]
        for before, after, clean, actual in zip(*wanted, *results, strict=True):
            assert np.isfinite(actual).all()
            assert actual[before == after].tobytes() == clean[before == after].tobytes()


BOXES = {name: one for name, one in OPERATORS.items() if "boxes" in one.directions}


@pytest.mark.parametrize("operator", BOXES.values(), ids=BOXES)
@every_case
def test_gradients_to_boxes(operator, case):
    """Here each image is a trial, as all channels of a box add up."""
    call = make(operator, case, 3)
    maps, grads = call.maps[0][0], call.grad_output
    pixels = list(np.ndindex(maps.shape[1:]))
    count = len(pixels)
    boxes = np.tile(call.boxes, (count, 1))
    boxes[:, 0] = np.repeat(np.arange(count), len(call.boxes))
    call = call._replace(
        maps=(np.repeat(maps[None], count, axis=0),),
        boxes=boxes,
        grad_output=np.tile(grads, (count, 1, 1, 1)),
    )
    images = call.maps[0].copy()
    for image, pixel in enumerate(pixels):
        images[image, image % 3, *pixel] = not_finite(image)
    spoiled = call._replace(maps=(images,))
    with np.errstate(invalid="ignore"):
        [before], [after] = (operator.expected("boxes", one) for one in (call, spoiled))
    may = ~same(before, after).all(axis=1)
    assert 0 < may.sum() < len(may)
    for layout in operator.layouts:
        [clean], [actual] = (operator.run("boxes", one, layout) for one in (call, spoiled))
        assert actual[~may].tobytes() == clean[~may].tobytes()
        assert not np.isfinite(actual[may]).all()


@every_direction
@every_layout
def test_boxes_that_miss_the_map(operator, direction, layout):
    """They are 0 for any map, and their gradient reaches nothing."""
    call = make(operator, "wide", 5)
    boxes = call.boxes.copy()
    boxes[:, 1:5] = [500, 600, 520, 640]
    call = call._replace(
        maps=tuple(np.full_like(one, np.nan) for one in call.maps),
        boxes=boxes,
        grad_output=np.full_like(call.grad_output, np.inf),
    )
    assert all((one == 0).all() for one in operator.run(direction, call, layout))
