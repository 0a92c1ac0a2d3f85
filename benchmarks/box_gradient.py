"""The gradient to the boxes on the workloads."""

import cyroialign
from cyroialign.bench import WORKLOADS

from .common import Arrays, names


class BoxGradientSuiteBase(Arrays):
    """One thread, in either layout."""

    params = (names(["P2-box", "P2-adaptive-large"]), ("NCHW", "NHWC"))
    param_names = ("workload", "layout")

    def setup(self, workload, layout):
        self.prepare(WORKLOADS[workload], layout, threads=1)


class BoxGradientSuite(BoxGradientSuiteBase):
    """What a step of gradient descent on boxes takes."""

    def time_boxes_backward(self, workload, layout):
        cyroialign.roi_align_boxes_backward(self.gradient, self.features, self.boxes, **self.options)
