"""A feature pyramid: all levels in one call, and level by level with a gather."""

import numpy as np

import cyroialign
from cyroialign.pyramid.multiscale import infer_scales

from .common import chosen

IMAGE = (800, 1088)
NAMES = ("p2", "p3", "p4", "p5")


class MultiscaleSuiteBase:
    """P2 to P5 of an image, 1000 RoIs whose sides are 16 to 700 pixels, as the mean of height and width."""

    params = (("NCHW", "NHWC"), chosen(("avg",), ("avg", "max", "onnx_max")))
    param_names = ("layout", "mode")

    def setup(self, layout, mode):
        rng = np.random.default_rng(0)
        self.axes = (0, 2, 3, 1) if layout == "NHWC" else (0, 1, 2, 3)
        sizes = [(IMAGE[0] >> level, IMAGE[1] >> level) for level in (2, 3, 4, 5)]
        self.x = {
            name: np.ascontiguousarray(rng.standard_normal((1, 256, *size), np.float32).transpose(self.axes))
            for name, size in zip(NAMES, sizes, strict=True)
        }
        side, aspect = np.exp(rng.uniform(np.log(16), np.log(700), 1000)), rng.uniform(0.5, 2, 1000) ** 0.5
        half = np.stack([side * aspect, side / aspect], axis=1) / 2
        centre = rng.uniform(0, 1, (1000, 2)) * [IMAGE[1], IMAGE[0]]
        self.boxes = np.hstack([centre - half, centre + half]).astype(np.float32)
        self.scales = infer_scales(sizes, [IMAGE])
        self.options = {"mode": mode, "layout": layout, "num_threads": 1}
        self.pool = cyroialign.MultiScaleRoIAlign(NAMES, 7, 2, **self.options)
        self.gradient = self.fused()

    def fused(self):
        """Pool in one call."""
        return self.pool(self.x, [self.boxes], [IMAGE])

    def fused_backward(self):
        """Compute all gradients in one call."""
        return self.pool.backward(self.gradient, self.x, [self.boxes], [IMAGE])

    def by_level(self):
        """Pool level by level and put the results in their places."""
        levels = cyroialign.assign_levels(self.boxes, 2, 5)
        shape = np.array([len(self.boxes), 256, 7, 7])[list(self.axes)]
        output = np.empty(shape, np.float32)
        for level, name in enumerate(NAMES):
            [rows] = np.nonzero(levels == level)
            output[rows] = cyroialign.roi_align(
                self.x[name], [self.boxes[rows]], 7, self.scales[level], 2, **self.options
            )
        return output

    def by_level_backward(self):
        """Take each level its rows of the gradient."""
        levels = cyroialign.assign_levels(self.boxes, 2, 5)
        gradients = {}
        for level, name in enumerate(NAMES):
            [rows] = np.nonzero(levels == level)
            gradients[name] = cyroialign.roi_align_backward(
                self.gradient[rows], [self.boxes[rows]], self.x[name].shape, self.scales[level], 2,
                input=self.x[name], **self.options,
            )  # fmt: skip
        return gradients


class MultiscaleForwardSuite(MultiscaleSuiteBase):
    """All levels in one call."""

    def time_fused(self, layout, mode):
        self.fused()


class MultiscaleByLevelForwardSuite(MultiscaleSuiteBase):
    """A call a level, results gathered."""

    def time_by_level(self, layout, mode):
        self.by_level()


class MultiscaleBackwardSuite(MultiscaleSuiteBase):
    """All gradients in one call."""

    def time_fused_backward(self, layout, mode):
        self.fused_backward()


class MultiscaleByLevelBackwardSuite(MultiscaleSuiteBase):
    """A call a level, rows of the gradient gathered."""

    def time_by_level_backward(self, layout, mode):
        self.by_level_backward()
