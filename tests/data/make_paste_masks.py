"""Make paste_masks.npz: what torchvision and PyTorch paste of the masks and boxes that it holds.

    python tests/data/make_paste_masks.py      needs: torchvision

The inputs were drawn once and stay. "torchvision" is its `paste_masks_in_image` with padding 1, "detectron2"
what `grid_sample` gives at the middles of pixels.
"""

import pathlib

import numpy as np
import torch
from torchvision.models.detection.roi_heads import paste_masks_in_image

FILE = pathlib.Path(__file__).with_name("paste_masks.npz")


def sampled(masks, boxes, height, width):
    """Sample each mask at the middle of every pixel of the image, on a scale from -1 to 1 across its box."""
    x1, y1, x2, y2 = (corner[:, None] for corner in boxes.T)
    x = (torch.arange(width) + 0.5 - x1) / (x2 - x1) * 2 - 1
    y = (torch.arange(height) + 0.5 - y1) / (y2 - y1) * 2 - 1
    shape = (len(masks), height, width)
    grid = torch.stack([x[:, None].expand(shape), y[:, :, None].expand(shape)], dim=3)
    return torch.nn.functional.grid_sample(masks, grid, align_corners=False)


if __name__ == "__main__":
    arrays = dict(np.load(FILE))
    for case in sorted({name.split(".")[0] for name in arrays}):
        masks, boxes = (torch.from_numpy(arrays[f"{case}.{name}"]) for name in ("masks", "boxes"))
        height, width = arrays[f"{case}.image_shape"].tolist()
        for name, pasted in (
            ("torchvision", paste_masks_in_image(masks, boxes, (height, width))),
            ("detectron2", sampled(masks, boxes, height, width)),
        ):
            old = arrays.get(f"{case}.{name}")
            arrays[f"{case}.{name}"] = pasted.numpy()
            if old is not None and old.size:
                print(case, name, np.abs(pasted.numpy() - old).max())
    np.savez_compressed(FILE, **arrays)
