"""What the suites share: the parameters and a workload's arrays."""

import importlib
import os

import numpy as np

import cyroialign
from cyroialign.bench import WORKLOADS

FULL = os.environ.get("CYROIALIGN_BENCHMARKS") == "full"
ALL_THREADS = cyroialign.get_num_threads()


def chosen(few, every):
    """Pick the parameters of this run."""
    return tuple(every if FULL else few)


def names(few):
    """Pick the workloads of this run."""
    return chosen(few, WORKLOADS)


class Arrays:
    """A workload's arrays. They are filled, so that no call waits for the system to hand out their pages."""

    def prepare(self, workload, layout="NCHW", dtype="float32", threads=None):
        """Fill in what `forward` and `backward` need; `threads` is all of them unless given."""
        self.boxes, self.bins = workload.boxes(), workload.bins
        self.options = {**workload.options, "layout": layout, "num_threads": threads}
        features, output = workload.features(), (workload.rois, workload.channels, self.bins, self.bins)
        gradient = np.random.default_rng(2).standard_normal(output, np.float32)
        axes = (0, 2, 3, 1) if layout == "NHWC" else (0, 1, 2, 3)
        result = dtype
        if dtype in ("uint8", "int8"):
            zero = 128 if dtype == "uint8" else 0
            features, result = np.clip(32 * features + zero, zero - 128, zero + 127), "float32"
        if dtype == "bfloat16":
            importlib.import_module("ml_dtypes")  # registers the name with NumPy
        self.features = np.ascontiguousarray(features.transpose(axes), dtype)
        self.gradient = np.ascontiguousarray(gradient.transpose(axes), result)
        self.output, self.grad_input = np.ones_like(self.gradient), np.ones_like(self.features)

    def forward(self):
        """Run forward into memory that is there."""
        cyroialign.roi_align(self.features, self.boxes, self.bins, out=self.output, **self.options)

    def backward(self):
        """Run backward into memory that is there."""
        cyroialign.roi_align_backward(
            self.gradient, self.boxes, self.features.shape, out=self.grad_input, **self.options
        )
