"""Every way to write the boxes of a call gives the same bits."""

import numpy as np
import pytest
from operators import every_direction

BATCHES = (0, 0, 1, 1, 1, 2)  # image after image, as lists have it


def make(operator, dtype):
    """Whole coordinates, to suit any type, and a scale that tells float32 from float64."""
    arguments = {"spatial_scale": 0.37, "sampling_ratio": 2, "aligned": True}
    rng = np.random.default_rng(0)
    shape = (3, 4, 12, 17)
    boxes = operator.random_boxes(rng, len(BATCHES), shape, 0.37).round()
    boxes[:, 0] = BATCHES
    return operator.make(rng, shape, len(boxes), (3, 2), arguments, boxes=boxes.astype(dtype))


def of_images(boxes, of_one=np.asarray):
    return [of_one(boxes[boxes[:, 0] == image, 1:]) for image in range(3)]


FORMS = {
    "array": lambda boxes: {"boxes": boxes},
    "list": lambda boxes: {"boxes": of_images(boxes)},
    "tuple": lambda boxes: {"boxes": tuple(of_images(boxes))},
    "nested lists": lambda boxes: {"boxes": of_images(boxes, np.ndarray.tolist)},
    "memoryviews": lambda boxes: {"boxes": of_images(boxes, lambda one: memoryview(one.copy()))},
    "batch_indices": lambda boxes: {"boxes": boxes[:, 1:], "batch_indices": boxes[:, 0].astype(np.int64)},
    "list of batch_indices": lambda boxes: {"boxes": boxes[:, 1:], "batch_indices": list(BATCHES)},
    "unsigned batch_indices": lambda boxes: {
        "boxes": boxes[:, 1:],
        "batch_indices": boxes[:, 0].astype(np.uint8),
    },
}


@every_direction
@pytest.mark.parametrize("form", FORMS)
def test_forms(operator, direction, form):
    call = make(operator, np.float64)  # as nested lists become
    keywords = operator.keywords(direction, call, "NCHW")
    given = FORMS[form](call.boxes)
    if operator.by_image and not isinstance(given["boxes"], list | tuple):
        given = {"boxes": tuple(of_images(call.boxes))}  # no other form is taken
    result = operator.callable(direction)(**{**keywords, **given})
    expected = operator.run(direction, call)
    results = operator.results(direction, result, "NCHW")
    assert [one.tobytes() for one in results] == [one.tobytes() for one in expected]


@every_direction
def test_types(operator, direction):
    """Narrow types are as float32, wide ones as float64; lists of several as what holds them all."""

    def results(dtype):
        return [one.tobytes() for one in operator.run(direction, make(operator, dtype))]

    single, double = results(np.float32), results(np.float64)
    if "aligned" in operator.settings and not operator.by_image:  # one that rounds, with a scale that does
        assert single != double
    for dtype in ("float16", "int8", "int16"):
        assert results(dtype) == single
    for dtype in ("longdouble", "int32", "int64"):
        assert results(dtype) == double
    call = make(operator, np.float64)
    one, two, three = of_images(call.boxes)
    keywords = operator.keywords(direction, call, "NCHW")
    keywords["boxes"] = [one.astype(np.float16), two, three.astype(np.float32)]
    mixed = operator.results(direction, operator.callable(direction)(**keywords), "NCHW")
    assert [one.tobytes() for one in mixed] == double


@every_direction
def test_no_images_and_no_lists_of_boxes(operator, direction):
    call = make(operator, np.float32)
    call = call._replace(
        maps=tuple(one[:0] for one in call.maps), boxes=call.boxes[:0], grad_output=call.grad_output[:0]
    )
    keywords = operator.keywords(direction, call, "NCHW")
    result = operator.callable(direction)(**{**keywords, "boxes": []})
    assert not any(one.size for one in operator.results(direction, result, "NCHW"))
