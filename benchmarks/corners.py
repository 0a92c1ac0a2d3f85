"""The corners of the map that ``cyroialign bench --map`` measures: few numbers, and many."""

from cyroialign.bench import grid

from .common import Arrays, chosen


class CornersSuiteBase(Arrays):
    """One thread, a sampling ratio of 2."""

    params = (
        grid.CORNERS["channels"],
        grid.CORNERS["bins"],
        grid.CORNERS["rois"],
        chosen([16], grid.AXES["window"]),
        ("NCHW", "NHWC"),
    )
    param_names = ("channels", "bins", "rois", "window", "layout")

    def setup(self, channels, bins, rois, window, layout):
        self.prepare(grid.place(channels, bins, rois, window, 2), layout, threads=1)


class CornersForwardSuite(CornersSuiteBase):
    """Forward."""

    def time_forward(self, channels, bins, rois, window, layout):
        self.forward()


class CornersBackwardSuite(CornersSuiteBase):
    """Backward, of which one RoI pays for a whole map of zeros."""

    def time_backward(self, channels, bins, rois, window, layout):
        self.backward()
