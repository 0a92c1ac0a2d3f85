"""What the step costs an image: CPU time of each stage on one thread, and bytes read and written.

::

    python examples/cluster/measure.py          # images that it makes: JPEG, 500 x 375, soft noise
    python examples/cluster/measure.py photographs

CPU time is counted and not what a clock shows, so that other programs on the machine change little.
"""

import pathlib
import sys
import tempfile
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from step import IMAGES_PER_PART, Step, decode, find_images, random_backbone

ROUNDS = 7


def make_images(folder):
    """Write the images of a part."""
    rng = np.random.default_rng(0)
    for number in range(IMAGES_PER_PART):
        noise = Image.fromarray(rng.integers(0, 256, (75, 100, 3), np.uint8))
        noise.resize((500, 375), Image.Resampling.BICUBIC).save(pathlib.Path(folder) / f"{number}.jpg")


def cpu_time(function, *arguments):
    """Return the median of CPU seconds of some calls, and the result."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.process_time()
        result = function(*arguments)
        seconds.append(time.process_time() - start)
    return np.median(seconds), result


def write(features):
    """Return the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"features": pa.FixedShapeTensorArray.from_numpy_ndarray(features)}), sink)
    return sink.getvalue()


def measure(folder):
    """Print a row for each stage."""
    paths = find_images(folder)[:IMAGES_PER_PART]
    step = Step(random_backbone(), num_threads=1)
    stages = {}
    stages["decode and resize"], (images, _) = cpu_time(decode, paths)
    stages["backbone"], maps = cpu_time(step.maps, images)
    stages["pooling"], features = cpu_time(step.pooled, maps)
    stages["Parquet"], data = cpu_time(write, features)
    for stage, seconds in stages.items():
        print(f"{stage:20} {1e3 * seconds / len(paths):8.2f} ms of CPU an image")
    print(f"{'all':20} {1e3 * sum(stages.values()) / len(paths):8.2f} ms of CPU an image")
    size = sum(pathlib.Path(path).stat().st_size for path in paths)
    print(f"read {size / len(paths) / 1e3:.1f} kB, written {data.size / len(paths) / 1e3:.1f} kB an image")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as made:
            make_images(made)
            measure(made)
