"""What busy.py shows, over the history of the project: calls while other processes want the same cores."""

from .busy import beside, calls_of
from .common import chosen

SECONDS = 1.0  # of calls


class CompetitionSuiteBase:
    """RoIs of 256 channels beside processes that never rest, with the default threads and with one."""

    params = (chosen([1, 100], [1, 10, 100, 1000]), chosen([0, 2], [0, 1, 2, 4]), ("default", "one"))
    param_names = ("rois", "competitors", "threads")
    unit = "ms"
    timeout = 120

    def measure(self, rois, competitors, threads):
        """Return the spread of the calls."""
        name = "cyroialign" if threads == "default" else "cyroialign, 1 thread"
        return beside(competitors, {name: calls_of(rois)[name]}, SECONDS)[name]


class CompetitionMeanSuite(CompetitionSuiteBase):
    """The mean of many calls."""

    def track_mean(self, rois, competitors, threads):
        return self.measure(rois, competitors, threads).mean


class CompetitionTailSuite(CompetitionSuiteBase):
    """The 99th percentile."""

    def track_p99(self, rois, competitors, threads):
        return self.measure(rois, competitors, threads).p99
