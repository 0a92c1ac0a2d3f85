"""Features of all images below a folder, with Ray Data: one Parquet file for each part of the images.

::

    python examples/cluster/with_ray.py photographs features --workers 4

What is computed is in step.py; here is who computes it, and what happens if some of them die:

    part       the same images for every run: the sorted paths, cut every IMAGES_PER_PART
    decode     tasks, as many as there are free cores: a part's paths -> its images, in the object store
    extract    workers that live as long as the job, each with a model: images -> features -> a file
    file       has another name until it is complete, so a part has been done if and only if it has its file

A part that is done again, since its worker or the whole job was killed, gives the same file again.
"""

import argparse
import json
import os
import pathlib
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import ray
from step import IMAGES_PER_PART, Step, decode, digest, find_images, read_model  # beside this script


def decode_part(batch):
    """A block of one part: its paths -> its rows, with their images."""
    (part,), (paths,) = batch["part"], batch["paths"]
    images, errors = decode(paths)
    whole = {"part": np.full(len(paths), part), "size": np.full(len(paths), len(paths))}
    return {**whole, "path": paths, "error": np.array(errors), "image": images}


class Extract:
    """A worker: writes the features of a part, and returns one row about it."""

    def __init__(self, model, num_threads, folder):
        self.step, self.folder = Step(model, num_threads), pathlib.Path(folder)

    def __call__(self, batch):
        """Take a block, with images that are read-only views of the object store."""
        part = int(batch["part"][0])
        if (batch["part"] != part).any() or (batch["size"] != len(batch["size"])).any():
            raise RuntimeError(f"a block is not a part: choose fewer than {IMAGES_PER_PART} images per part")
        features = self.step(batch["image"], batch["error"])
        table = pa.table(
            {
                "path": pa.array(batch["path"], pa.string()),
                "error": pa.array(batch["error"], pa.string()),
                "features": pa.FixedShapeTensorArray.from_numpy_ndarray(features),
            }
        )
        replace(part_file(self.folder, part), lambda file: pq.write_table(table, file))
        return {"part": [part], "rows": [len(table)], "worker": [os.getpid()]}


def part_file(folder, part):
    """Return the path of the file of a part."""
    return folder / f"part-{part:06}.parquet"


def replace(path, write):
    """Write a file such that others see all of it or nothing, whoever else writes it at the same time."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".draft")
    with os.fdopen(handle, "wb") as file:
        write(file)
    pathlib.Path(draft).replace(path)


def plan(images, folder, model):
    """Return the parts of the job, as it was planned when it ran first.

    Raises
    ------
    ValueError
        If the folder is another job's: of other images or another model.
    """
    paths = find_images(images)
    job = {"images_per_part": IMAGES_PER_PART, "model": digest(model), "paths": paths}
    file = folder / "job.json"
    folder.mkdir(parents=True, exist_ok=True)
    if not file.exists():
        replace(file, lambda stream: stream.write(json.dumps(job, indent=1).encode()))
    if json.loads(file.read_bytes()) != job:
        raise ValueError(f"{folder} has features of other images or of another model: choose another folder")
    return [paths[start : start + IMAGES_PER_PART] for start in range(0, len(paths), IMAGES_PER_PART)]


def run(images, folder, model, workers, num_threads):
    """Do the parts that have no file yet, and say which worker has done each."""
    folder = pathlib.Path(folder).resolve()  # workers have other current folders
    parts = plan(pathlib.Path(images).resolve(), folder, model)
    missing = [number for number in range(len(parts)) if not part_file(folder, number).exists()]
    print(f"{len(parts)} parts, {len(missing)} of them to do", flush=True)
    if not missing:
        return
    blocks = [pa.table({"part": [number], "paths": [parts[number]]}) for number in missing]
    ray.data.DataContext.get_current().enable_progress_bars = False
    done = (
        ray.data.from_arrow(blocks)
        .map_batches(decode_part, batch_size=None)  # None: a block, which is a part
        .map_batches(
            Extract,
            fn_constructor_args=(model, num_threads, str(folder)),
            batch_size=None,
            zero_copy_batch=True,
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=num_threads,  # Ray sets OMP_NUM_THREADS to it, and starts no more workers than fit
        )
    )
    for row in done.iter_rows():
        print("part {part}: {rows} rows, worker {worker}".format(**row), flush=True)


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", help="a folder; the images below it are found by their suffix")
    parser.add_argument("folder", help="where the features go; a job that was killed goes on there")
    parser.add_argument("--model", help="an ONNX file in place of the network with random weights")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="of each worker")
    arguments = parser.parse_args()
    ray.init()  # the cluster of RAY_ADDRESS, or a small one on this machine
    run(arguments.images, arguments.folder, read_model(arguments.model), arguments.workers, arguments.threads)


if __name__ == "__main__":
    main()
