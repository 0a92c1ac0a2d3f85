"""The backward pass on the workloads."""

import cyroialign
from cyroialign.bench import WORKLOADS

from .common import Arrays, names


class BackwardSuiteBase(Arrays):
    """One thread: how good the kernels are."""

    params = names(["P2-box", "P2-mask", "P4-box"])
    param_names = ("workload",)

    def setup(self, workload):
        self.prepare(WORKLOADS[workload], threads=1)


class BackwardSuite(BackwardSuiteBase):
    """Into memory that is there."""

    def time_backward(self, workload):
        self.backward()


class BackwardNewSuite(BackwardSuiteBase):
    """Into a new array, whose pages the system has to hand out."""

    def time_backward_new(self, workload):
        cyroialign.roi_align_backward(self.gradient, self.boxes, self.features.shape, **self.options)
