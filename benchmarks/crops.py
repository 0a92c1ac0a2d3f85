"""Masks into images, and TensorFlow's crops, on one thread."""

import numpy as np

import cyroialign

from .common import chosen

IMAGE = (1333, 800)


class PasteSuiteBase:
    """Masks of 28 x 28 into an image as detectors are given them; sides of boxes from 16 to 512 pixels."""

    params = (chosen((100,), (1, 20, 100, 300)), ("torchvision", "detectron2"))
    param_names = ("masks", "rule")

    def setup(self, masks, rule):
        rng = np.random.default_rng(0)
        self.masks = rng.random((masks, 1, 28, 28), np.float32)
        middle, half = rng.uniform(0, IMAGE[::-1], (masks, 2)), 2 ** rng.uniform(3, 8, (masks, 2))
        self.boxes = np.hstack([middle - half, middle + half]).astype(np.float32)
        self.settings = {"rule": rule, "num_threads": 1}


class PasteValuesSuite(PasteSuiteBase):
    """Images of numbers."""

    def time_values(self, masks, rule):
        cyroialign.paste_masks(self.masks, self.boxes, IMAGE, **self.settings)


class PasteThresholdSuite(PasteSuiteBase):
    """Images of truth values."""

    def time_threshold(self, masks, rule):
        cyroialign.paste_masks(self.masks, self.boxes, IMAGE, threshold=0.5, **self.settings)


class PasteMemorySuite(PasteSuiteBase):
    """What a threshold needs at most, the result included."""

    def peakmem_threshold(self, masks, rule):
        cyroialign.paste_masks(self.masks, self.boxes, IMAGE, threshold=0.5, **self.settings)


class CropSuiteBase:
    """A map of stride 16 and boxes of a tenth to three tenths of its sides."""

    params = (chosen(((300, 7),), ((300, 7), (300, 14), (1000, 7))), ("NHWC", "NCHW"))
    param_names = ("boxes_and_bins", "layout")

    def setup(self, boxes_and_bins, layout):
        count, self.bins = boxes_and_bins
        rng = np.random.default_rng(0)
        shape, grads = (1, 50, 68, 256), (count, self.bins, self.bins, 256)
        if layout == "NCHW":
            shape, grads = ((n, c, h, w) for n, h, w, c in (shape, grads))
        self.image, self.gradient = rng.random(shape, np.float32), rng.random(grads, np.float32)
        first = rng.uniform(0, 0.7, (count, 2))
        boxes = np.hstack([first, first + rng.uniform(0.1, 0.3, (count, 2))]).astype(np.float32)
        self.given = boxes, np.zeros(count, np.int64)
        self.settings = {"layout": layout, "num_threads": 1}


class CropForwardSuite(CropSuiteBase):
    """Forward."""

    def time_forward(self, boxes_and_bins, layout):
        cyroialign.crop_and_resize(self.image, *self.given, self.bins, **self.settings)


class CropBackwardSuite(CropSuiteBase):
    """The gradient to the image."""

    def time_backward(self, boxes_and_bins, layout):
        cyroialign.crop_and_resize_backward(self.gradient, *self.given, self.image.shape, **self.settings)


class CropBoxesSuite(CropSuiteBase):
    """The gradient to the boxes."""

    def time_boxes(self, boxes_and_bins, layout):
        cyroialign.crop_and_resize_boxes_backward(self.gradient, self.image, *self.given, **self.settings)
