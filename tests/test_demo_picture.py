"""The demo's picture: nothing is cut off or hidden, whatever the boxes and the shape of the photograph."""

import numpy as np
import pytest
from drawn import cut_off, figure_of, words_of

from cyroialign.demo import command, picture, scene

pytest.importorskip("matplotlib")


def drawn(size, boxes, stride):
    width, height = size
    photo = np.zeros((height, width, 3), np.uint8)
    found, _ = scene.compare(photo, np.array(boxes, np.float32), 7, stride)
    return figure_of(picture.draw, found)[1]


@pytest.mark.parametrize(
    ("size", "boxes", "stride"),
    [
        ((512, 512), [[150, 8, 153, 11]], 16),  # tiny: what rounding does has many letters
        ((512, 512), [[150, 8, 153, 11]] * 4, 128),
        ((160, 1999), [[1, 1, 4, 1998]], 1),  # tall, and many digits
        ((64, 1536), [[2, 40, 5, 43]] * 2, 64),
        ((1536, 64), [[2, 2, 60, 5]], 8),
        ((90, 60), [[9 * n, 5, 9 * n + 8, 50] for n in range(command.MAX_BOXES // 3)] * 3, 3),
    ],
)
def test_nothing_is_cut_off(size, boxes, stride):
    figure = drawn(size, boxes, stride)
    assert not cut_off(figure)


def test_numbers_lie_beside_small_boxes():
    boxes = np.array([[20, 20, 23, 23], [60, 40, 64, 43], [100, 80, 103, 84]])
    figure = drawn((128, 128), boxes, 4)
    photograph = figure.axes[0]
    assert [text.get_text() for text in photograph.texts] == ["1", "2", "3"]
    for text, box in zip(photograph.texts, boxes, strict=True):
        low, high = photograph.transData.transform(box.reshape(2, 2))
        number = text.get_window_extent()
        assert number.x1 < low[0] or number.x0 > high[0] or number.y0 > low[1] or number.y1 < high[1]


def test_every_box_has_a_colour_of_its_own():
    assert len(set(picture.COLOURS)) == len(picture.COLOURS) == command.MAX_BOXES


@pytest.mark.parametrize(("box", "told"), [([-9, 5, 20, 30], True), ([5, 5, 20, 30], False)])
def test_black_bins_are_explained(box, told):
    words = " ".join(text.replace("\n", " ") for text, _ in words_of(drawn((64, 64), [box], 4)))
    assert ("bins there are black" in words) == told
