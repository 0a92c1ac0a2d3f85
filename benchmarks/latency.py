"""Calls with one RoI: what Python costs, and from which size on threads gain anything.

SERIAL_BINS in src/call.pxi is the number of results (7 x 7 x channels here) below which a call stays on
one thread. To set it anew, build with SERIAL_BINS = 0 and see from which number of channels on all threads
are faster than one.
"""

from cyroialign.bench import WORKLOADS

from .common import ALL_THREADS, Arrays, chosen


class LatencySuiteBase(Arrays):
    """P5-single with fewer channels, so that 7 x 7 x channels results lie on both sides of SERIAL_BINS."""

    params = (chosen([8, 64, 256], [1, 8, 32, 64, 96, 128, 192, 256]), tuple(sorted({1, ALL_THREADS})))
    param_names = ("channels", "threads")

    def setup(self, channels, threads):
        self.prepare(WORKLOADS["P5-single"]._replace(channels=channels), threads=threads)


class LatencyForwardSuite(LatencySuiteBase):
    """Forward of one RoI."""

    def time_forward(self, channels, threads):
        self.forward()


class LatencyBackwardSuite(LatencySuiteBase):
    """Backward of one RoI, on a map of 25 x 34 pixels."""

    def time_backward(self, channels, threads):
        self.backward()
