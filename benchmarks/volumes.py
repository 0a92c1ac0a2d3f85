"""RoIAlign of volumes, in both layouts."""

import cyroialign
from cyroialign.bench.workloads import VOLUME


class VolumeSuiteBase:
    """A patch of a tomogram on one thread."""

    params = ("NCHW", "NHWC")
    param_names = ("layout",)

    def setup(self, layout):
        problem = VOLUME.problem(threads=1, operator="roi_align_3d")
        last = layout == "NHWC"
        axes = (0, 2, 3, 4, 1) if last else (0, 1, 2, 3, 4)
        self.features, self.gradient = (
            array.transpose(axes).copy() for array in (problem.features, problem.gradient)
        )
        self.boxes, self.bins = problem.boxes, problem.bins
        self.settings = {**VOLUME.options, "layout": "NDHWC" if last else "NCDHW", "num_threads": 1}


class VolumeForwardSuite(VolumeSuiteBase):
    """Forward."""

    def time_forward(self, layout):
        cyroialign.roi_align_3d(self.features, self.boxes, self.bins, **self.settings)


class VolumeBackwardSuite(VolumeSuiteBase):
    """Backward."""

    def time_backward(self, layout):
        cyroialign.roi_align_3d_backward(self.gradient, self.boxes, self.features.shape, **self.settings)
