"""Sampling grids: fixed, adaptive, and far larger than the map."""

from cyroialign.bench import WORKLOADS

from .common import Arrays, chosen


class GridSuiteBase(Arrays):
    """Boxes that differ much in size; sampling_ratio 0 adapts to them."""

    params = (chosen(["C4-adaptive"], ["C4-adaptive", "P2-adaptive-large"]), chosen([0, 2], [0, 1, 2, 4, 8]))
    param_names = ("workload", "sampling_ratio")

    def setup(self, workload, sampling_ratio):
        self.prepare(WORKLOADS[workload]._replace(sampling_ratio=sampling_ratio), threads=1)


class GridForwardSuite(GridSuiteBase):
    """Forward, the samples of a bin as a parameter."""

    def time_forward(self, workload, sampling_ratio):
        self.forward()


class GridBackwardSuite(GridSuiteBase):
    """Backward, the samples of a bin as a parameter."""

    def time_backward(self, workload, sampling_ratio):
        self.backward()


class HugeBoxSuiteBase(Arrays):
    """A box of a given width and height around a small map: the work must not grow with it."""

    params = (1e3, 1e6, 1e9)
    param_names = ("pixels",)

    def setup(self, pixels):
        self.prepare(WORKLOADS["P5-single"]._replace(sampling_ratio=0), threads=1)
        self.boxes[0] = 0, -pixels / 2, -pixels / 2, pixels / 2, pixels / 2


class HugeBoxForwardSuite(HugeBoxSuiteBase):
    """Forward, the size of the box as a parameter."""

    def time_forward(self, pixels):
        self.forward()


class HugeBoxBackwardSuite(HugeBoxSuiteBase):
    """Backward, the size of the box as a parameter."""

    def time_backward(self, pixels):
        self.backward()
