"""RoIAlign over HTTP: a feature map and boxes in, crops out.

::

    python examples/server/server.py            # needs: pip install -e ".[server]"
    cat features.npy boxes.npy | curl --data-binary @- -o crops.npy \
        "http://127.0.0.1:8000/roi_align?output_size=7&spatial_scale=0.0625&sampling_ratio=2&aligned=true"

The body is what `np.save` writes for the map, then what it writes for the boxes, (K, 5). The answer is what
it writes for the crops, or ``{"error": "..."}`` with a status of 4xx. The options are those of `roi_align`:
numbers, true or false, names, and ``output_size=7,14`` for two numbers. ``GET /`` answers with this text.

Nothing that a client sends is trusted: a body, result or amount of work that is too large is refused before
it is read, allocated or done, and no client, however slow, blocks a thread. See docs/servers.md.
"""

import argparse
import contextlib
import io
import json
import logging
import math
import multiprocessing
import os
import socket
import sys
import threading
from multiprocessing.connection import wait

import numpy as np
import waitress
import waitress.utilities
from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

# Kernel threads that wait leave their core to the rest of the server. OpenMP reads this when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import cyroialign
from cyroialign import roi_align

MAX_BODY = 2**24  # bytes
MAX_RESULT = 2**24  # bytes
MAX_BOXES = 1000
MAX_SIDE = 4096  # of an axis of the map
MAX_RATIO = 16  # samples
MAX_VISITS = 2**30  # numbers of the map that the boxes would read if each covered an image: below a second
OPTIONS = ("output_size", "spatial_scale", "sampling_ratio", "aligned", "mode", "layout")

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
SETTINGS = {  # processes, Python threads of each that serve requests, threads of a call
    "threads": (1, CORES, 1),
    "processes": (CORES, 1, 1),
    "pool": (1, 1, CORES),
    "unset": (1, CORES, None),  # what becomes of a server that leaves num_threads alone
}

app = Flask(__name__)
app.config["MAX_CONTENT_LENGTH"] = MAX_BODY


@app.post("/roi_align")
def crops():
    """Answer one request."""
    try:
        maps, boxes = read_arrays(request.get_data(), "the map", "the boxes")
        options = {name: read_option(text) for name, text in request.args.items()}
        refuse_what_is_too_much(maps, boxes, options)
        found = roi_align(maps, boxes, **options)
    except (TypeError, ValueError) as error:
        raise BadRequest(str(error)) from error
    return Response(npy(found), mimetype="application/octet-stream")


@app.get("/")
def usage():
    """Say what there is."""
    return Response(__doc__, mimetype="text/plain")


@app.errorhandler(HTTPException)
def tell(error):
    """Answer with the text of an error."""
    return {"error": error.description}, error.code


def tell_refusal(refusal, ident=None):
    """Answer likewise what Waitress refuses before the application sees it, such as a body of 1 TB."""
    words = f"{refusal.reason}: {refusal.body}"
    body = json.dumps({"error": words}).encode()
    return f"{refusal.code} {refusal.reason}", [("Content-Type", "application/json")], body


waitress.utilities.Error.to_response = tell_refusal


def read_arrays(body, *names):
    """Yield an array for each name: files of `np.save` one after the other, viewed in place."""
    stream = io.BytesIO(body)
    for name in names:
        shape, fortran_order, dtype = read_header(stream, name)
        start, count = stream.tell(), math.prod(shape)
        if not all(0 <= side <= MAX_BODY for side in shape) or dtype.hasobject or not dtype.itemsize:
            raise ValueError(f"{name} may not have shape {shape} and dtype {dtype}")
        if count * dtype.itemsize > len(body) - start:
            raise ValueError(
                f"{name} must have {count * dtype.itemsize} bytes for shape {shape} and dtype {dtype}, "
                f"got {len(body) - start}"
            )
        array = np.frombuffer(body, dtype, count, start)
        yield array.reshape(shape, order="F" if fortran_order else "C")
        stream.seek(start + array.nbytes)
    if stream.read(1):
        raise ValueError(f"the body must end after {' and '.join(names)}, got {len(body)} bytes")


def read_header(stream, name):
    """Read shape, order and dtype: NumPy evaluates literals alone, of at most 10 kB, and raises anything."""
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    try:
        return readers[np.lib.format.read_magic(stream)](stream)
    except Exception as error:
        raise ValueError(f"{name} must be what np.save writes: {error}") from error


def npy(array):
    """Return what `np.save` would write, with one copy."""
    array, header = np.ascontiguousarray(array), io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return b"".join((header.getvalue(), array.data))


def read_option(text):
    """Read what JSON can read, such as 7 or true or the list 7,14; leave other texts as they are."""
    try:
        values = json.loads(f"[{text.lower()}]")
    except (ValueError, RecursionError):
        return text
    return values[0] if len(values) == 1 else values


def refuse_what_is_too_much(maps, boxes, options):
    """Bound what the call would take. Arguments that are wrong are left to `roi_align` to refuse."""
    for name in options:
        if name not in OPTIONS:
            raise ValueError(f"the options are {', '.join(OPTIONS)}; got {name}")
    if "output_size" not in options:
        raise ValueError("output_size is missing: the bins of a crop, as in /roi_align?output_size=7")
    # Without boxes a call costs nothing, refuses all other arguments that are wrong, and tells the shape.
    none = roi_align(maps, np.empty((0, 5), np.float32), **options)
    rows = boxes.size // 5
    for name, value, most in (
        ("boxes", rows, MAX_BOXES),
        ("an axis of the map", max(maps.shape), MAX_SIDE),
        ("sampling_ratio", options.get("sampling_ratio", 0), MAX_RATIO),
        ("bytes of the result", rows * math.prod(none.shape[1:]) * none.itemsize, MAX_RESULT),
        ("boxes times numbers of an image", rows * math.prod(maps.shape[1:]), MAX_VISITS),
    ):
        if value > most:
            raise RequestEntityTooLarge(f"too much: {name}: {value}, and at most {most} are served")


def serve(sock, threads, num_threads):
    """Serve on a socket that listens, in this process."""
    if num_threads:
        cyroialign.set_num_threads(num_threads)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # it warns whenever a request has to wait
    # Waitress gives a request to a thread when all of it is there. Until then it lies in a file, and so
    # does an answer until the client reads it.
    waitress.serve(
        app,
        sockets=[sock],
        threads=threads,
        max_request_body_size=MAX_BODY + 1,  # what it refuses; without reading it
        max_request_header_size=2**14,
        channel_timeout=10,  # seconds in which a client may neither send nor read anything
        cleanup_interval=5,
        outbuf_high_watermark=sys.maxsize,  # no thread waits for a client that does not read
    )


def work(*arguments):
    """Serve until the process that started this one ends, however it ends."""
    threading.Thread(target=serve, args=arguments, daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt):
        multiprocessing.parent_process().join()


def main():
    """Serve in one of the settings."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("setting", nargs="?", choices=SETTINGS, default="threads")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; default: %(default)s")
    parser.add_argument("--port", type=int, default=8000, help="0 for one that is free; default: %(default)s")
    options = parser.parse_args()
    processes, *rest = SETTINGS[options.setting]
    try:
        sock = socket.create_server((options.host, options.port), backlog=1024)
    except OSError as error:
        parser.error(f"cannot listen on {options.host}:{options.port}: {error.strerror}; try another --port")
    host, port = sock.getsockname()[:2]
    print(f"http://{host}:{port}", flush=True)
    if processes == 1:
        serve(sock, *rest)
    else:
        spawn = multiprocessing.get_context("spawn")  # a forked child would do too, as long as it is serial
        workers = [spawn.Process(target=work, args=(sock, *rest), daemon=True) for _ in range(processes)]
        for worker in workers:
            worker.start()
        wait([worker.sentinel for worker in workers])
        sys.exit("a worker ended")  # and so do the others: whatever restarts this process restarts all


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
