"""Load the server beside this script, in each of its settings, with honest and hostile clients.

::

    python examples/server/load.py                              # needs: pip install -e ".[server,demo]"
    python examples/server/load.py --write docs/servers.md      # 6 minutes; puts table and picture there

It starts a new server for each run, only on a loopback address. A client sends its next request when the
last one has been answered, and ends after a number of seconds or of requests, whichever comes first. Every
response is compared: with the crops, byte by byte, or with the status that a hostile request must get.
"""

import argparse
import contextlib
import http.client
import ipaddress
import itertools
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from server import SETTINGS, npy  # beside this script

from cyroialign import bench, roi_align
from cyroialign.bench import machine

HERE = pathlib.Path(__file__).parent
LOADS = {  # honest and hostile clients
    "1 client": (1, 0),
    "8 clients": (8, 0),
    "11 clients": (11, 0),
    "8 clients, 3 hostile": (8, 3),
}
TIMEOUT = 30  # seconds that anything may take
WORKLOAD = bench.Workload("P3", 256, 100, 136, 100, 7, 0, 8, (200, 700))  # large boxes, adaptive sampling
CUT, STALLED = "cut", "stalled"


class Request(NamedTuple):
    """Bytes to send, and what must come back.

    The answer is a status. CUT and STALLED stand for bytes that are not all of a request, after which the
    client leaves, or stays and is silent.
    """

    data: bytes
    answer: int | str
    content: bytes | None = None


class Run(NamedTuple):
    """What one run found: requests in a second, milliseconds, and MiB."""

    rate: float
    p50: float
    p99: float
    hostile_rate: float
    cpu: float
    memory: float


def post(body, length=None, **options):
    """Return the bytes of a request."""
    query = "&".join(f"{name}={value}" for name, value in options.items())
    lines = (
        f"POST /roi_align?{query} HTTP/1.1",
        "Host: loopback",
        f"Content-Length: {len(body) if length is None else length}",
    )
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode() + body


def requests():
    """Return an honest request, and hostile ones by name.

    The honest one has a map of a pyramid in half precision, and boxes that cover much of it.
    """
    maps, boxes = WORKLOAD.features().astype(np.float16), WORKLOAD.boxes()
    options = {"output_size": WORKLOAD.bins, **WORKLOAD.options}
    nan, index, huge = boxes.copy(), boxes.copy(), boxes.copy()
    nan[-1, 2], index[-1, 0], huge[:, 1:] = np.nan, 7, [-1e9, -1e9, 1e9, 1e9]
    body = npy(maps)
    crops = npy(roi_align(maps, boxes, num_threads=1, **options))
    honest = Request(post(body + npy(boxes), **options), 200, crops)
    half = honest.data[: len(honest.data) // 2]
    return honest, {
        "a NaN among the boxes": Request(post(body + npy(nan), **options), 400),
        "an image that is not there": Request(post(body + npy(index), **options), 400),
        "boxes of 10⁹ pixels, sampled adaptively": Request(post(body + npy(huge), **options), 200),
        "a result of 10 GB": Request(post(body + npy(boxes), **options | {"output_size": 450}), 413),
        "a header that promises 27 GB": Request(post(body.replace(b"(1, 256,", b"(999999,"), **options), 400),
        "noise": Request(post(np.random.default_rng(0).bytes(2**20), **options), 400),
        "a body of 1 TB": Request(post(b"", length=2**40, **options), 413),
        "a body that breaks off": Request(half, CUT),
        "a body that stops half-way": Request(half, STALLED),
    }


@contextlib.contextmanager
def serving(setting, host="127.0.0.1"):
    """Run the server; yield its process and address."""
    command = [sys.executable, HERE / "server.py", setting, "--host", host, "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        late = threading.Timer(TIMEOUT, server.kill)
        late.start()
        try:
            listens = server.stdout.readline()  # from now on clients may come, and wait in its queue
            late.cancel()
            if not listens:
                raise RuntimeError(f"the server did not start: exit status {server.wait(TIMEOUT)}")
            yield server, (host, int(listens.rsplit(":", 1)[1]))
        finally:
            late.cancel()
            server.kill()  # its workers end with it


def be_honest(address, request, barrier, seconds, most):
    """Send one request again and again over one connection; return the seconds that each took."""
    times = []
    with socket.create_connection(address, TIMEOUT) as sock:
        barrier.wait(TIMEOUT)
        end = time.perf_counter() + seconds
        while len(times) < most and time.perf_counter() < end:
            start = time.perf_counter()
            send(sock, request)
            times.append(time.perf_counter() - start)
    return times


def be_hostile(address, requests, barrier, seconds, most):
    """Send each request in turn, over connections of their own; return the seconds that each took."""
    times = []
    with contextlib.ExitStack() as last, contextlib.ExitStack() as stalled:
        barrier.wait(TIMEOUT)
        end = time.perf_counter() + seconds
        for request in itertools.islice(itertools.cycle(requests), most):
            start = time.perf_counter()
            connection = stalled if request.answer == STALLED else last
            connection.close()  # the one before it
            send(connection.enter_context(socket.create_connection(address, TIMEOUT)), request)
            times.append(time.perf_counter() - start)
            if time.perf_counter() > end:
                break
    return times


def send(sock, request):
    """Send a request, and see that it gets the answer that it must get."""
    sock.sendall(request.data)
    if request.answer in (CUT, STALLED):
        return
    answer = http.client.HTTPResponse(sock)
    answer.begin()
    content = answer.read()
    if answer.status != request.answer or request.content not in (None, content):
        raise RuntimeError(f"expected status {request.answer}, got {answer.status}: {content[:200]}")


def measure(setting, load, honest, hostile, options):
    """Put one load on a server in one setting."""
    clients, enemies = LOADS[load]
    bounds = (threading.Barrier(clients + enemies), options.seconds, options.requests)
    with serving(setting, options.host) as (server, address), ThreadPoolExecutor(clients + enemies) as pool:
        be_honest(address, honest, threading.Barrier(1), TIMEOUT, 1)  # the first one waits for imports
        before = cpu(server.pid)
        friends = [pool.submit(be_honest, address, honest, *bounds) for _ in range(clients)]
        foes = [pool.submit(be_hostile, address, hostile, *bounds) for _ in range(enemies)]
        times = [client.result() for client in friends]
        hostile_times = [client.result() for client in foes]
        spent, memory = cpu(server.pid) - before, high_water(server.pid)
    p50, p99 = np.percentile(1e3 * np.concatenate(times), [50, 99])
    answered = sum(map(len, times + hostile_times))
    return Run(rate(times), p50, p99, rate(hostile_times), 1e3 * spent / answered, memory)


def rate(times):
    """Requests in a second of clients that never paused."""
    return sum(len(of_client) / sum(of_client) for of_client in times)


def cpu(pid):
    """Seconds that all cores worked for a process and its children; on Linux."""
    _, _, fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK") + sum(map(cpu, children(pid)))


def high_water(pid):
    """MiB that a process and its children had at most, each at its own time; on Linux."""
    [line] = [
        line
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) / 1024 + sum(map(high_water, children(pid)))


def children(pid):
    """Return the processes that the main thread of a process started."""
    return map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def table(found):
    """Write Markdown: a line for each setting and load."""
    names = (
        "requests/s",
        "p50, ms",
        "p99, ms",
        "hostile requests/s",
        "CPU, ms a request",
        "peak memory, MiB",
    )
    lines = [f"| setting | load | {' | '.join(names)} |", "| --- | --- |" + " ---: |" * len(names)]
    for (setting, load), run in found.items():
        *cells, memory = run
        lines.append(f"| {setting} | {load} | {' | '.join(f'{cell:.1f}' for cell in cells)} | {memory:.0f} |")
    return "\n".join(lines)


def write(page, found, text):
    """Fill the page, and draw its picture."""
    sys.path.append(str(HERE.parent.parent / "benchmarks"))
    from curves import Curve, Panel
    from drawing import draw
    from figures import fill

    settings, loads = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    panels = {
        f"{name} of the honest requests": Panel(
            settings, {load: [getattr(found[setting, load], name) for setting in settings] for load in loads}
        )
        for name in ("p50", "p99")
    }
    curve = Curve("Time of a request, by setting and load", "milliseconds", panels, bars=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        draw(curve, folder / "load.png")
        (folder / "load.md").write_text(text)
        fill(page, folder)


def main(arguments=None):
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--write", type=pathlib.Path, metavar="PAGE", help="put table and picture there")
    parser.add_argument(
        "--setting", action="append", choices=SETTINGS, help="repeat it for more; default: all"
    )
    parser.add_argument("--rounds", type=int, default=3, help="take medians of so many; default: %(default)s")
    parser.add_argument("--seconds", type=float, default=5, help="of a run, at most; default: %(default)s")
    parser.add_argument(
        "--requests", type=int, default=2000, help="of a client, at most; default: %(default)s"
    )
    parser.add_argument("--host", type=loopback, default="127.0.0.1", help="default: %(default)s")
    options = parser.parse_args(arguments)
    honest, hostile = requests()
    cases = list(itertools.product(options.setting or SETTINGS, LOADS))
    progress = bench.Progress(options.rounds * len(cases))
    runs = {case: [] for case in cases}
    for number in range(options.rounds):
        for setting, load in cases:
            progress.show(0, f"round {number + 1}: {setting}, {load}")
            runs[setting, load].append(measure(setting, load, honest, list(hostile.values()), options))
            progress.end_task()
    found = {case: Run(*map(statistics.median, zip(*of_case, strict=True))) for case, of_case in runs.items()}
    about = machine.about()
    about["command"] = {
        "": f"`python examples/server/load.py --rounds {options.rounds} --seconds {options.seconds:g}`"
    }
    notes = [
        f"- {topic}: " + "; ".join(f"{key} {value}".strip() for key, value in entries.items())
        for topic, entries in about.items()
    ]
    text = "\n".join([table(found), "", *notes, ""])
    print(text)
    if options.write:
        write(options.write, found, text)


def loopback(host):
    """Return a loopback address as it is; no other machine may be loaded."""
    try:
        if ipaddress.IPv4Address(host).is_loopback:
            return host
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"{host} is no IPv4 loopback address, and this script loads no other machine"
    )


if __name__ == "__main__":
    main()
