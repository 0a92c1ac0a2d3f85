"""Peak memory of a process that makes one call; what it takes beyond `peakmem_arrays` is the call's own."""

from cyroialign.bench import WORKLOADS

from .common import ALL_THREADS, Arrays, names


class MemorySuiteBase(Arrays):
    """All threads, each of which has scratch memory."""

    params = names(["P2-mask", "P4-box"])
    param_names = ("workload",)

    def setup(self, workload):
        self.prepare(WORKLOADS[workload], threads=ALL_THREADS)


class ArraysMemorySuite(MemorySuiteBase):
    """No call at all."""

    def peakmem_arrays(self, workload):
        pass


class ForwardMemorySuite(MemorySuiteBase):
    """Forward into memory that is there."""

    def peakmem_forward(self, workload):
        self.forward()


class BackwardMemorySuite(MemorySuiteBase):
    """Backward into memory that is there."""

    def peakmem_backward(self, workload):
        self.backward()


class HugeGridMemorySuite(MemorySuiteBase):
    """Forward of boxes 1e9 pixels wide with adaptive sampling: no table over samples may exist."""

    def setup(self, workload):
        super().setup(workload)
        self.boxes[:, 1:3], self.boxes[:, 3:] = -5e8, 5e8
        self.options["sampling_ratio"] = 0

    def peakmem_huge_grid(self, workload):
        self.forward()
