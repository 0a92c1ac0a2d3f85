"""Every operator in every direction with work for several threads: for interpreters that others spoil."""

import hashlib

import numpy as np
from operators import DIRECTIONS

WORK = 4096  # bins of all channels and RoIs: calls with fewer run on one thread
ARGUMENTS = {"spatial_scale": 0.5, "sampling_ratio": 2, "aligned": True}


def call_of(operator):
    """A call with enough work."""
    rng = np.random.default_rng(0)
    arguments = {name: ARGUMENTS.get(name, choices[0]) for name, choices in operator.settings.items()}
    channels = 3 if operator.position_sensitive else 12
    call = operator.make(rng, (2, channels, 16, 15), 40, (6, 7), arguments)
    assert call.grad_output.size >= WORK
    return call


def digest(operator, way, options):
    """What stands for the bits of all results."""
    results = operator.run(way, call_of(operator), **options)
    return hashlib.sha256(b"".join(one.tobytes() for one in results)).hexdigest()[:16]


def digests(**options):
    """Those of every direction."""
    return {name: digest(operator, way, options) for name, (operator, way) in DIRECTIONS.items()}
