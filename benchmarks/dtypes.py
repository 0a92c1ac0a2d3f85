"""The types of numbers."""

from cyroialign.bench import WORKLOADS

from .common import Arrays, names


class DtypeSuiteBase(Arrays):
    """Every dtype that maps may have."""

    params = (names(["P2-mask", "P4-box"]), ("float32", "float64"))
    param_names = ("workload", "dtype")

    def setup(self, workload, dtype):
        self.prepare(WORKLOADS[workload], dtype=dtype, threads=1)


class DtypeForwardSuite(DtypeSuiteBase):
    """Forward, the dtype as a parameter."""

    def time_forward(self, workload, dtype):
        self.forward()


class DtypeBackwardSuite(DtypeSuiteBase):
    """Backward, the dtype as a parameter."""

    def time_backward(self, workload, dtype):
        self.backward()
