"""The two layouts, and memory that is not in the order of the call's layout."""

import numpy as np

import cyroialign
from cyroialign.bench import WORKLOADS

from .common import Arrays, names


class LayoutSuiteBase(Arrays):
    """Both layouts, in memory of their own order."""

    params = (names(["P4-box", "C4-adaptive"]), ("NCHW", "NHWC"))
    param_names = ("workload", "layout")

    def setup(self, workload, layout):
        self.prepare(WORKLOADS[workload], layout, threads=1)


class LayoutForwardSuite(LayoutSuiteBase):
    """Forward, the layout as a parameter."""

    def time_forward(self, workload, layout):
        self.forward()


class LayoutBackwardSuite(LayoutSuiteBase):
    """Backward, the layout as a parameter."""

    def time_backward(self, workload, layout):
        self.backward()


class OtherOrderSuiteBase(Arrays):
    """A map with the axes of NCHW whose memory has another order."""

    params = (names(["P2-mask", "P4-box"]), ("channels last", "width first"))
    param_names = ("workload", "memory")

    def setup(self, workload, memory):
        self.prepare(WORKLOADS[workload], threads=1)
        axes, back = (
            ((0, 2, 3, 1), (0, 3, 1, 2)) if memory == "channels last" else ((0, 1, 3, 2), (0, 1, 3, 2))
        )
        self.features = np.ascontiguousarray(self.features.transpose(axes)).transpose(back)


class OtherOrderForwardSuite(OtherOrderSuiteBase):
    """Channels last is read in place, width first is copied."""

    def time_forward(self, workload, memory):
        cyroialign.roi_align(self.features, self.boxes, self.bins, **self.options)
