"""What pooling is fed with: a feature pyramid, and anchors on it."""

import numpy as np

import cyroialign

from .common import chosen

CHANNELS = (256, 512, 1024, 2048)  # of a ResNet-50's stages


class FeaturePyramidSuiteBase:
    """The network on the stages of a ResNet-50, by the height of the image; BLAS has its own threads."""

    params = chosen([224], [224, 800])
    param_names = ("height",)

    def setup(self, height):
        rng = np.random.default_rng(0)
        self.fpn = cyroialign.FeaturePyramidNetwork(CHANNELS, 256, extra_blocks="maxpool", seed=0)
        self.x = {
            f"c{level}": rng.standard_normal((1, channels, height >> level, height >> level), np.float32)
            for level, channels in enumerate(CHANNELS, 2)
        }


class FeaturePyramidForwardSuite(FeaturePyramidSuiteBase):
    """All levels, P2 to P6."""

    def time_forward(self, height):
        self.fpn(self.x)


class FeaturePyramidMemorySuite(FeaturePyramidSuiteBase):
    """Peak memory: no copy of a map that is nine times as large may exist."""

    def peakmem_forward(self, height):
        self.fpn(self.x)


class AnchorSuiteBase:
    """Three shapes on each pixel of five levels, by the height of the image."""

    params = chosen([224], [224, 800])
    param_names = ("height",)

    def setup(self, height):
        sizes = tuple((32 << level,) for level in range(5))
        self.anchors = cyroialign.AnchorGenerator(sizes, (0.5, 1.0, 2.0))
        self.grids = [(height >> level, height >> level) for level in (2, 3, 4, 5, 6)]
        self.boxes = self.anchors((height, height), self.grids)


class AnchorGeneratorSuite(AnchorSuiteBase):
    """All of them anew."""

    def time_anchors(self, height):
        self.anchors((height, height), self.grids)


class AssignLevelsSuite(AnchorSuiteBase):
    """The level of each as a box."""

    def time_assign_levels(self, height):
        cyroialign.assign_levels(self.boxes, 2, 5)
