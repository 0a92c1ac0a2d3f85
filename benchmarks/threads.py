"""How much several threads gain."""

from cyroialign.bench import WORKLOADS

from .common import ALL_THREADS, Arrays, chosen, names

POWERS_OF_TWO = {1 << power for power in range(ALL_THREADS.bit_length())}


class ThreadsSuiteBase(Arrays):
    """One thread, all, and in a full run what lies between."""

    params = (
        names(["P2-mask", "P4-box"]),
        chosen(sorted({1, ALL_THREADS}), sorted({*POWERS_OF_TWO, ALL_THREADS})),
    )
    param_names = ("workload", "threads")

    def setup(self, workload, threads):
        self.prepare(WORKLOADS[workload], threads=threads)


class ThreadsForwardSuite(ThreadsSuiteBase):
    """Forward, the threads as a parameter."""

    def time_forward(self, workload, threads):
        self.forward()


class ThreadsBackwardSuite(ThreadsSuiteBase):
    """Backward, the threads as a parameter."""

    def time_backward(self, workload, threads):
        self.backward()
