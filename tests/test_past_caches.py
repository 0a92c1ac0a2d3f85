"""Results of many MiB are non-temporal: with the same bits as small ones, and written nowhere else."""

import numpy as np
import pytest
from narrow import NARROW, dtype_of, numbers, result_of
from reference import random_boxes

from cyroialign import roi_align

SHAPE, BINS, ROIS = (2, 75, 20, 23), (14, 14), 300  # in float16 8.4 MiB
SMALL = 20  # RoIs of a small call
CASES = [(dtype, layout) for dtype in ("float32", "float64", *NARROW) for layout in ("NCHW", "NHWC")]


def check(dtype, layout):
    """Compare one large call, into memory that is aligned to its numbers alone, with small ones."""
    rng = np.random.default_rng(0)
    dtype = dtype_of(dtype)
    boxes = random_boxes(rng, ROIS, SHAPE, 0.5)
    input = numbers(rng, SHAPE, dtype)
    if layout == "NHWC":
        input = np.ascontiguousarray(input.transpose(0, 2, 3, 1))
    settings = {"output_size": BINS, "spatial_scale": 0.5, "sampling_ratio": 2, "layout": layout}
    parts = [roi_align(input, boxes[i : i + SMALL], **settings) for i in range(0, ROIS, SMALL)]
    expected = np.concatenate(parts)
    for margin in (1, 3):
        buffer = np.full(expected.size + 10, 7, result_of(dtype))
        out = buffer[margin : margin - 10].reshape(expected.shape)
        roi_align(input, boxes, **settings, out=out, num_threads=2)
        assert out.tobytes() == expected.tobytes()
        assert (buffer[:margin] == 7).all()
        assert (buffer[margin - 10 :] == 7).all()


@pytest.mark.parametrize(("dtype", "layout"), CASES)
def test_large_as_small(dtype, layout):
    check(dtype, layout)
