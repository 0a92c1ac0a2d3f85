"""Make crop_and_resize.npz: what TensorFlow makes of random images and boxes.

    python tests/data/make_crop_and_resize.py      needs: tensorflow-cpu

Cases are named by their number; "cases" holds their settings as JSON. Boxes lie inside, across and outside,
are mirrored, of no size, the whole image, or on whole pixels.
"""

import json
import pathlib

import numpy as np
import tensorflow as tf

FILE = pathlib.Path(__file__).with_name("crop_and_resize.npz")
SETTINGS = [
    (method, crop_size, size, value)
    for method in ("bilinear", "nearest")
    for crop_size, size, value in (
        ((7, 7), (2, 23, 31, 5), 0.0),
        ((14, 9), (1, 16, 16, 3), -1.5),
        ((1, 1), (3, 12, 19, 8), 0.25),
        ((1, 6), (2, 9, 8, 1), 2.0),
        ((3, 1), (2, 1, 40, 4), 7.0),
        ((5, 5), (1, 1, 1, 2), 3.0),
    )
]


def random_boxes(rng, height, width):
    """Return 24 boxes (y1, x1, y2, x2), four of each kind, in shares of the image."""
    first = rng.uniform(0, 0.6, (24, 2))
    extent = rng.uniform(0.1, 0.4, (24, 2))
    first[4:8] += rng.uniform(-1, 1, (4, 2))
    extent[8:12] *= rng.choice([-1, 1], (4, 2))
    extent[12:14, 0], extent[14:16] = 0, 0
    boxes = np.hstack([first, first + extent])
    boxes[16:18] = [[0, 0, 1, 1], [-0.5, -0.25, 1.5, 1.25]]
    steps = np.array([max(height - 1, 1), max(width - 1, 1)] * 2)
    boxes[20:] = np.round(boxes[20:] * steps) / steps
    return boxes.astype(np.float32)


if __name__ == "__main__":
    arrays, cases = {}, []
    for number, (method, crop_size, size, value) in enumerate(SETTINGS):
        rng = np.random.default_rng(number)
        image = rng.uniform(-1, 1, size).astype(np.float32)
        boxes = random_boxes(rng, *size[1:3])
        indices = rng.integers(size[0], size=len(boxes)).astype(np.int32)
        crops = tf.image.crop_and_resize(image, boxes, indices, crop_size, method, value)
        grad = rng.uniform(-1, 1, crops.shape).astype(np.float32)
        case = {
            "image": image,
            "boxes": boxes,
            "box_indices": indices,
            "crops": crops.numpy(),
            "grad_output": grad,
            "grad_image": tf.raw_ops.CropAndResizeGradImage(
                grads=grad, boxes=boxes, box_ind=indices, image_size=size, T=tf.float32, method=method
            ).numpy(),
        }
        if method == "bilinear":
            case["grad_boxes"] = tf.raw_ops.CropAndResizeGradBoxes(
                grads=grad, image=image, boxes=boxes, box_ind=indices
            ).numpy()
        arrays |= {f"{number:02}/{name}": array for name, array in case.items()}
        cases.append({"method": method, "crop_size": crop_size, "extrapolation_value": value})
    np.savez_compressed(FILE, cases=json.dumps(cases), **arrays)
