"""Eight Python threads on all operators, with forks and interrupts; and 10^5 calls without growth.

``python tests/soak.py --seconds 60 --calls 100000``
"""

import argparse
import collections
import itertools
import json
import os
import pathlib
import random
import signal
import sys
import threading
import time

import busy_calls
import numpy as np
from operators import DIRECTIONS

import cyroialign

THREADS = 8
PERIOD = 0.005  # seconds between interrupts, about as long as some calls
GROWTH = 1 << 20  # bytes by which resident memory may grow over all calls of a direction
PAGE = os.sysconf("SC_PAGE_SIZE")
RECORD = pathlib.Path(__file__).parent.parent / "docs" / "reliability" / "soak.json"


class InterruptError(Exception):
    """What the handler of the signal raises."""


def soak(seconds, forks):
    """Calls of all kinds at once for so long; {what: how often}."""
    expected, wrong = busy_calls.digests(), []
    done, ends = collections.Counter(), time.monotonic() + seconds

    def work(number):
        choose = random.Random(number)
        while time.monotonic() < ends and not wrong:
            name = choose.choice(list(DIRECTIONS))
            if busy_calls.digest(*DIRECTIONS[name], {"num_threads": choose.randint(1, 4)}) != expected[name]:
                wrong.append(name)
            done[f"thread {number}"] += 1

    workers = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for worker in workers:
        worker.start()
    for name in itertools.cycle(DIRECTIONS):
        if time.monotonic() > ends or wrong:
            break
        done["interrupts"] += interrupted(name, expected, wrong)
        if forks:
            fork(name, expected, wrong)
            done["forks"] += 1
    for worker in workers:
        worker.join()
    assert not wrong, f"other bits, or a child that did not end well: {wrong}"
    calls = sum(done[f"thread {number}"] for number in range(THREADS))
    return {
        "seconds": seconds,
        "threads": THREADS,
        "calls": calls,
        "forks": done["forks"],
        "interrupts": done["interrupts"],
    }


def interrupted(name, expected, wrong):
    """Call until a signal has come between; then once more, undisturbed."""

    def handler(number, frame):
        raise InterruptError

    before, came = signal.signal(signal.SIGALRM, handler), 0
    try:
        signal.setitimer(signal.ITIMER_REAL, PERIOD)
        while True:
            busy_calls.digest(*DIRECTIONS[name], {})
    except InterruptError:
        came = 1
    finally:
        signal.signal(signal.SIGALRM, before)
    if busy_calls.digest(*DIRECTIONS[name], {}) != expected[name]:
        wrong.append(f"{name}, after an interrupt")
    return came


def fork(name, expected, wrong):
    """A child calls, while other threads of its parent do."""
    child = os.fork()
    if not child:
        signal.alarm(60)  # ends a child that hangs
        os._exit(busy_calls.digest(*DIRECTIONS[name], {"num_threads": 2}) != expected[name])
    if os.waitpid(child, 0)[1]:
        wrong.append(f"{name}, in a forked child")


def growth(name, calls):
    """Bytes by which resident memory grows over so many calls of a direction."""
    operator, direction = DIRECTIONS[name]
    settings = {"spatial_scale": 0.5, "sampling_ratio": 2, "aligned": True}
    call = operator.make(np.random.default_rng(0), (1, 2, 8, 9), 3, (2, 2), settings)
    keywords, function = operator.keywords(direction, call, "NCHW"), operator.callable(direction)
    for number in range(calls):
        if number == calls // 10:
            before = resident()
        function(**keywords)
    return resident() - before


def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * PAGE


def main():
    """Do as the command line says; an assertion fails where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=20, help="of threads, forks and interrupts (default 20)"
    )
    parser.add_argument("--calls", type=int, default=2000, help="of each direction, for leaks (default 2000)")
    parser.add_argument("--no-forks", action="store_true", help="for sanitizers that cannot follow them")
    parser.add_argument("--record", action="store_true", help=f"write what was found to {RECORD.name}")
    options = parser.parse_args()
    grown = {name: growth(name, options.calls) for name in DIRECTIONS}
    print(f"{options.calls} calls of each direction, grown by at most {max(grown.values())} bytes")
    assert max(grown.values()) <= GROWTH, grown
    found = soak(options.seconds, not options.no_forks)
    print(found)
    if options.record:
        entry = {"version": cyroialign.__version__, "soak": found, "calls": options.calls, "grown": grown}
        RECORD.write_text(json.dumps(entry, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
