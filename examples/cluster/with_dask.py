"""Features of all images below a folder, with Dask: one Zarr array, a chunk for each part of the images.

::

    python examples/cluster/with_dask.py photographs features.zarr --workers 4

The step is that of with_ray.py, and so are its bytes. The threads of one process share a model; with
`dask.distributed`, a `Client(address)` before `run` is what changes. A run that was killed starts
again from the beginning: a chunk that is written again gets the same bytes.
"""

import argparse
import functools

import dask
import dask.array as da
import numpy as np
import zarr
from step import BINS, CHANNELS, IMAGES_PER_PART, Step, decode, find_images, read_model, regions


@functools.cache
def step(model, num_threads):
    """Return the step of this process."""
    return Step(read_model(model), num_threads)


def extract(paths, model, num_threads):
    """Paths of a part -> its features, a chunk."""
    return step(model, num_threads)(*decode(paths))


def run(images, folder, model, num_threads):
    """Write the array, with the paths as its attribute."""
    paths = find_images(images)
    shape = (len(regions()), CHANNELS, BINS, BINS)
    parts = da.from_array(np.array(paths), chunks=IMAGES_PER_PART)
    features = parts.map_blocks(
        extract,
        model,
        num_threads,
        dtype=np.float32,
        new_axis=[1, 2, 3, 4],
        chunks=(parts.chunks[0], *((length,) for length in shape)),
        meta=np.empty((0, *shape), np.float32),
    )
    features.to_zarr(folder, overwrite=True)
    zarr.open_array(folder).attrs["paths"] = paths


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", help="a folder; the images below it are found by their suffix")
    parser.add_argument("folder", help="the array; what is there is replaced")
    parser.add_argument("--model", help="an ONNX file in place of the network with random weights")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    arguments = parser.parse_args()
    with dask.config.set(scheduler="threads", num_workers=arguments.workers):
        run(arguments.images, arguments.folder, arguments.model, arguments.threads)


if __name__ == "__main__":
    main()
