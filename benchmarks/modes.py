"""The mean and the two maxima, in both layouts."""

from cyroialign.bench import WORKLOADS

from .common import Arrays, names


class ModeSuiteBase(Arrays):
    """One thread, the mode as a parameter."""

    params = (names(["P2-box"]), ("NCHW", "NHWC"), ("avg", "max", "onnx_max"))
    param_names = ("workload", "layout", "mode")

    def setup(self, workload, layout, mode):
        self.prepare(WORKLOADS[workload], layout, threads=1)
        self.options["mode"] = mode


class ModeForwardSuite(ModeSuiteBase):
    """Forward."""

    def time_forward(self, workload, layout, mode):
        self.forward()


class ModeBackwardSuite(ModeSuiteBase):
    """Backward, which finds the winners again."""

    def setup(self, workload, layout, mode):
        super().setup(workload, layout, mode)
        self.options["input"] = self.features

    def time_backward(self, workload, layout, mode):
        self.backward()
