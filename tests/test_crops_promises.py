"""What crop_and_resize and paste_masks promise, whose boxes are no RoIs of the registry."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import test_crop_and_resize
import test_paste_masks
from memory import peak_memory

from cyroialign import crop_and_resize, crop_and_resize_backward, crop_and_resize_boxes_backward, paste_masks

GROWTH = 16 * 2**20  # bytes
CALLERS = 4


def crops(boxes, indices, size=test_crop_and_resize.CROP):
    """All three directions of a call."""
    image = test_crop_and_resize.some_image()
    result = crop_and_resize(image, boxes, indices, size)
    return (
        result,
        crop_and_resize_backward(result, boxes, indices, image.shape),
        crop_and_resize_boxes_backward(result, image, boxes, indices),
    )


def masks(seed):
    """A call of paste_masks with boxes of all kinds."""
    boxes = test_paste_masks.boxes_of_all_kinds()
    return paste_masks(test_paste_masks.some_masks(len(boxes), seed=seed), boxes, test_paste_masks.IMAGE)


def as_bytes(arrays):
    return [one.tobytes() for one in arrays]


def work_on_huge_boxes():
    """What another process does: the growth of its peak memory, in bytes."""
    boxes = np.array([[-0.5, -0.5, 0.5, 0.5]])
    crops(boxes, [0])
    before = peak_memory()
    crops(boxes * np.geomspace(1e3, 1e300, 40)[:, None], np.zeros(40, int))
    return -1 if before is None else peak_memory() - before


@pytest.mark.promise("bounded_work", "crop_and_resize")
def test_huge_boxes(run_python):
    code = "import test_crops_promises; print(test_crops_promises.work_on_huge_boxes())"
    assert int(run_python(code, timeout=120).stdout) <= GROWTH


@pytest.mark.promise("box_formats", "crop_and_resize")
def test_forms_of_boxes():
    boxes = np.array([[0.25, 0.5, 0.75, 1], [-1, 0.125, 2, 0.5]])  # which float16 holds
    expected = as_bytes(crops(boxes, np.array([2, 0])))
    for indices in ([2, 0], np.array([2, 0], np.uint8), np.array([2, 9, 0])[::2]):
        assert as_bytes(crops(boxes, indices)) == expected
    for same in (boxes.tolist(), np.asfortranarray(boxes), boxes.astype("longdouble"), np.float16(boxes)):
        assert as_bytes(crops(same, [2, 0])) == expected


@pytest.mark.promise("concurrency", "crop_and_resize", "paste_masks")
def test_calls_from_many_threads_at_once():
    boxes, indices = test_crop_and_resize.boxes_of_all_kinds()
    start = threading.Barrier(CALLERS)

    def results(seed):
        return as_bytes([*crops(boxes[seed:], indices[seed:], (9, 9)), masks(seed)])

    def work(seed):
        start.wait()
        return [results(seed) for _ in range(4)]

    expected = [results(seed) for seed in range(CALLERS)]
    with ThreadPoolExecutor(CALLERS) as pool:
        for seed, same in enumerate(pool.map(work, range(CALLERS))):
            assert same == [expected[seed]] * 4


@pytest.mark.promise("large_arrays", "crop_and_resize")
def test_crops_of_a_large_image():
    """The last corner of an image of more than 2**31 values, the rest of which is never touched."""
    side, few = 26760, 30
    image = np.zeros((1, side, side, 3), np.uint8)
    corner = image[:, -few:, -few:]
    corner[...] = np.random.default_rng(0).integers(0, 256, corner.shape)
    assert image.size > 2**31
    places = np.array([[2.0, 3, 21, 25], [10, 0, 29, 29]])
    expected = crop_and_resize(corner, places / (few - 1), [0, 0], 5)
    result = crop_and_resize(image, (places + side - few) / (side - 1), [0, 0], 5)
    assert expected.any()
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-2)


@pytest.mark.promise("large_arrays", "paste_masks")
def test_masks_in_many_large_images():
    """Bits of more than 2**31 pixels, of which all but those of the boxes are never touched."""
    side, few = 30000, 40
    masks = test_paste_masks.some_masks(3, 28, "float32")
    boxes = np.array([[2.0, 3, 21, 25], [10, 5, 29, 29], [3, 3, 39, 38]])
    expected = paste_masks(masks, boxes, (few, few), threshold=0.25)
    result = paste_masks(masks, boxes + side - few, (side, side), threshold=0.25)
    assert result.size > 2**31
    assert expected[2].any()
    np.testing.assert_array_equal(result[:, :, -few:, -few:], expected)
