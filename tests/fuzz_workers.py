"""Processes that carry out the cases of fuzz.py: one that dies, or hangs, is a failure of its case."""

import math
import mmap
import multiprocessing
import os
import time

import numpy as np

PATIENCE = 120  # seconds for a case, on a machine that does much else
MOST_FAILURES = 100


def run(one_case, shape, options):
    """Run one_case(seed, counts) for all seeds; counts is an array of that shape.

    Returns the sum of all counts, and {seed: what is wrong}.
    """
    jobs = [Job(one_case, shape, options, number) for number in range(options.jobs)]
    while any(job.running() for job in jobs):
        time.sleep(0.2)
    failures = {seed: message for job in jobs for seed, message in job.failures.items()}
    return sum(job.counts for job in jobs), dict(sorted(failures.items()))


class Job:
    """One process after the other, each beginning behind the case at which the last one ended."""

    def __init__(self, one_case, shape, options, number):
        """Start the first."""
        self.one_case, self.failures = one_case, {}
        self.seed, self.step = options.first + number, options.jobs
        self.end = options.first + options.cases
        self.until = time.monotonic() + options.seconds
        shared = np.frombuffer(mmap.mmap(-1, 8 * (1 + math.prod(shape))), np.int64)
        self.now, self.counts = shared[:1], shared[1:].reshape(shape)
        self.start()

    def start(self):
        """Start a process, which has the counts in common with this one."""
        self.now[0], self.seen, self.since = self.seed, self.seed, time.monotonic()
        self.said, say = multiprocessing.Pipe(duplex=False)
        self.process = multiprocessing.get_context("fork").Process(target=self.work, args=(say,))
        self.process.start()
        say.close()

    def work(self, say):
        """Carry out cases; the exit status tells whether all are done."""
        for seed in range(self.seed, self.end, self.step):
            if time.monotonic() > self.until:
                break
            self.now[0] = seed
            try:
                self.one_case(seed, self.counts)
            except Exception as error:  # whatever it is, it is what fuzzing is for
                say.send((seed, f"{type(error).__name__}: {error}"[:500]))
        os._exit(0)

    def running(self):
        """Note what the process has said; start another if it died."""
        alive = self.process.is_alive()
        try:
            while self.said.poll():
                seed, message = self.said.recv()
                self.failures[seed] = message
        except EOFError:
            pass
        seed = int(self.now[0])
        if alive:
            if seed != self.seen:
                self.seen, self.since = seed, time.monotonic()
            if time.monotonic() - self.since < PATIENCE and len(self.failures) < MOST_FAILURES:
                return True
            self.process.kill()
        self.process.join()
        if self.process.exitcode == 0 or len(self.failures) >= MOST_FAILURES:
            return False
        self.failures[seed] = f"the process {'hung' if alive else f'ended with {self.process.exitcode}'}"
        self.seed = seed + self.step
        self.start()
        return True
