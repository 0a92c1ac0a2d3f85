"""What a measurement ran on, in words."""

import os
import pathlib
import platform

import numpy as np

from cyroialign import show_config


def about() -> dict[str, dict[str, str]]:
    """Return the machine and the versions, as entries by name."""
    config = show_config(as_dict=True)
    own = f"{config['version']} (SIMD {config['simd']}, OpenMP {config['openmp']})"
    return {
        "machine": {
            "processor": processor(),
            "cores usable": str(cores()),
            "caches": caches(),
            "system": platform.platform(),
        },
        "versions": {"cyroialign": own, "python": platform.python_version(), "numpy": np.__version__},
    }


def processor() -> str:
    """Name the processor."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def caches() -> str:
    """What Linux tells about the first core, such as "L2 1024K"; caches of instructions left out."""
    found = []
    for folder in sorted(pathlib.Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found) or "unknown"


def cores() -> int:
    """Count the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
