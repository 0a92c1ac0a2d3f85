"""The forward pass on the workloads."""

import cyroialign
from cyroialign.bench import WORKLOADS

from .common import Arrays, names


class ForwardSuiteBase(Arrays):
    """One thread: how good the kernels are."""

    params = names(["P2-box", "P2-mask", "P4-box"])
    param_names = ("workload",)

    def setup(self, workload):
        self.prepare(WORKLOADS[workload], threads=1)


class ForwardSuite(ForwardSuiteBase):
    """Into memory that is there."""

    def time_forward(self, workload):
        self.forward()


class ForwardNewSuite(ForwardSuiteBase):
    """Into a new array, whose pages the system has to hand out."""

    def time_forward_new(self, workload):
        cyroialign.roi_align(self.features, self.boxes, self.bins, **self.options)


class ForwardSizeSuiteBase(Arrays):
    """Results of more and more MiB: the size from which non-temporal stores pay off."""

    params = ((1, 4, 8, 16, 32), ("NCHW", "NHWC"))
    param_names = ("size", "layout")  # in MiB

    def setup(self, size, layout):
        workload = WORKLOADS["C4-adaptive"]
        rois = size * 2**20 // (4 * workload.channels * workload.bins**2)
        self.prepare(workload._replace(rois=rois), layout, threads=1)


class ForwardSizeSuite(ForwardSizeSuiteBase):
    """With a reader, to whom they come from memory then."""

    def time_forward_then_sum(self, size, layout):
        self.forward()
        self.output.sum()
