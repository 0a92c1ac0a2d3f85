"""The types of numbers."""

import importlib.util

from cyroialign.bench import WORKLOADS

from .common import Arrays, names


class DtypeSuiteBase(Arrays):
    """Every dtype that maps may have; bfloat16 where ml_dtypes is installed."""

    params = (names(["P2-box", "P4-box"]), ("float32", "float64", "float16", "bfloat16", "uint8", "int8"))
    param_names = ("workload", "dtype")

    def setup(self, workload, dtype):
        if dtype == "bfloat16" and not importlib.util.find_spec("ml_dtypes"):
            raise NotImplementedError("bfloat16 needs ml_dtypes")  # asv skips it
        self.prepare(WORKLOADS[workload], dtype=dtype, threads=1)


class DtypeForwardSuite(DtypeSuiteBase):
    """Forward, the dtype as a parameter."""

    def time_forward(self, workload, dtype):
        self.forward()


class DtypeBackwardSuite(DtypeSuiteBase):
    """Backward, the dtype as a parameter; bytes have no gradient."""

    params = (DtypeSuiteBase.params[0], DtypeSuiteBase.params[1][:-2])

    def time_backward(self, workload, dtype):
        self.backward()
