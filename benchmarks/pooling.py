"""The other ways of pooling a region, in both layouts."""

import numpy as np

import cyroialign
from cyroialign.bench import WORKLOADS
from cyroialign.bench.problem import rotated

from .common import Arrays, names


class PoolSuiteBase(Arrays):
    """RoIPool on one thread."""

    params = (names(["P4-box"]), ("NCHW", "NHWC"))
    param_names = ("workload", "layout")

    def setup(self, workload, layout):
        self.prepare(WORKLOADS[workload], layout, threads=1)
        self.settings = {
            "spatial_scale": self.options["spatial_scale"],
            "layout": layout,
            "num_threads": 1,
        }


class PoolForwardSuite(PoolSuiteBase):
    """Forward."""

    def time_forward(self, workload, layout):
        cyroialign.roi_pool(self.features, self.boxes, self.bins, **self.settings)


class PoolBackwardSuite(PoolSuiteBase):
    """Backward, which finds the winners again."""

    def setup(self, workload, layout):
        super().setup(workload, layout)
        self.gradient = cyroialign.roi_pool(self.features, self.boxes, self.bins, **self.settings)

    def time_backward(self, workload, layout):
        cyroialign.roi_pool_backward(self.gradient, self.features, self.boxes, self.bins, **self.settings)


class RotatedSuiteBase(Arrays):
    """RoIAlignRotated on one thread."""

    params = (names(["P4-box"]), ("NCHW", "NHWC"))
    param_names = ("workload", "layout")

    def setup(self, workload, layout):
        self.prepare(WORKLOADS[workload], layout, threads=1)
        self.boxes = np.column_stack([self.boxes[:, 0], rotated(self.boxes[:, 1:])])


class RotatedForwardSuite(RotatedSuiteBase):
    """Forward."""

    def time_forward(self, workload, layout):
        cyroialign.roi_align_rotated(self.features, self.boxes, self.bins, out=self.output, **self.options)


class RotatedBackwardSuite(RotatedSuiteBase):
    """Backward."""

    def time_backward(self, workload, layout):
        cyroialign.roi_align_rotated_backward(
            self.gradient, self.boxes, self.features.shape, out=self.grad_input, **self.options
        )


class IntegralSuiteBase(Arrays):
    """PrRoIPool on one thread."""

    params = (names(["P4-box"]), ("NCHW", "NHWC"))
    param_names = ("workload", "layout")

    def setup(self, workload, layout):
        self.prepare(WORKLOADS[workload], layout, threads=1)
        self.settings = {name: self.options[name] for name in ("spatial_scale", "layout", "num_threads")}


class IntegralForwardSuite(IntegralSuiteBase):
    """Forward, which does what RoIAlign does with as many pixels."""

    def time_forward(self, workload, layout):
        cyroialign.prroi_pool(self.features, self.boxes, self.bins, out=self.output, **self.settings)


class IntegralBackwardSuite(IntegralSuiteBase):
    """The gradient to the map."""

    def time_backward(self, workload, layout):
        cyroialign.prroi_pool_backward(
            self.gradient, self.boxes, self.features.shape, out=self.grad_input, **self.settings
        )


class IntegralBoxesSuite(IntegralSuiteBase):
    """The gradient to the boxes: what a step of a tracker's refinement takes."""

    def time_boxes_backward(self, workload, layout):
        cyroialign.prroi_pool_boxes_backward(self.gradient, self.features, self.boxes, **self.settings)


class PositionSensitiveSuiteBase:
    """R-FCN: 21 classes of 7 by 7 bins, one thread."""

    params = (("ps_roi_align", "ps_roi_pool"), ("NCHW", "NHWC"))
    param_names = ("operator", "layout")

    def setup(self, operator, layout):
        rng = np.random.default_rng(0)
        shape = (1, 21 * 49, 50, 68) if layout == "NCHW" else (1, 50, 68, 21 * 49)
        self.features = rng.standard_normal(shape, np.float32)
        corners = rng.uniform(0, 400, (300, 2))
        self.boxes = np.hstack([np.zeros((300, 1)), corners, corners + rng.uniform(64, 400, (300, 2))])
        self.settings = {"spatial_scale": 1 / 16, "layout": layout, "num_threads": 1}
        if operator == "ps_roi_align":
            self.settings["sampling_ratio"] = 2


class PositionSensitiveForwardSuite(PositionSensitiveSuiteBase):
    """Forward."""

    def time_forward(self, operator, layout):
        getattr(cyroialign, operator)(self.features, self.boxes, 7, **self.settings)


class PositionSensitiveBackwardSuite(PositionSensitiveSuiteBase):
    """Backward."""

    def setup(self, operator, layout):
        super().setup(operator, layout)
        self.gradient = getattr(cyroialign, operator)(self.features, self.boxes, 7, **self.settings)

    def time_backward(self, operator, layout):
        backward = getattr(cyroialign, f"{operator}_backward")
        backward(self.gradient, self.boxes, self.features.shape, **self.settings)
