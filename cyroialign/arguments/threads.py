"""How many threads a call uses, and why a forked child uses one."""

import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

import cyroialign._kernels._runtime as _runtime
from cyroialign.arguments import validation

# An OpenMP runtime that cannot start a thread ends the process: far more threads than processors are refused.
MOST_THREADS = max(256, os.cpu_count() or 1)

_date = _runtime.openmp_date()
OPENMP: str | None = f"{_date // 100}-{_date % 100:02}" if _date else None

_process_setting: int | None = None
_context_setting: ContextVar[int | None] = ContextVar("cyroialign.num_threads", default=None)
_forked = False


def set_num_threads(n: int) -> None:
    """Set how many threads each call of this process uses unless it says otherwise.

    Parameters
    ----------
    n : int
        At least 1.

    See Also
    --------
    num_threads : the same for a block of code.
    """
    global _process_setting
    _process_setting = validation.thread_count(n, "n")


def get_num_threads() -> int:
    """Return how many threads a call uses, at most, unless it says otherwise.

    Returns
    -------
    int
        The setting of the innermost `num_threads` block; else that of `set_num_threads`; else what
        OpenMP grants this thread (``OMP_NUM_THREADS``, ``threadpoolctl``, the processors that the
        process may run on), and at most what the CPU quota of its control group allows unless
        ``OMP_NUM_THREADS`` is set. It is 1 in a forked child and in a build without OpenMP.

    Notes
    -----
    GNU's OpenMP runtime hangs in a child that was forked after its parent used threads. This cannot be
    fixed from here, so a forked child stays serial, even if told otherwise. Results do not depend on
    the number of threads. Spawned children are not affected.

    A number that was set is what calls use. One that is only granted is the most: a call uses fewer
    where others need the cores, as the guide to threads tells.
    """
    return threads_for(None)[0]


@contextmanager
def num_threads(n: int) -> Iterator[None]:
    """Use `n` threads in the calls of a ``with`` block.

    The setting belongs to the context (`contextvars`) that runs the block: other Python threads and
    other asyncio tasks keep theirs. A server that runs many calls at once should use ``num_threads(1)``.

    Parameters
    ----------
    n : int
        At least 1.

    Examples
    --------
    >>> import cyroialign
    >>> with cyroialign.num_threads(1):
    ...     cyroialign.get_num_threads()
    1
    """
    token = _context_setting.set(validation.thread_count(n, "n"))
    try:
        yield
    finally:
        _context_setting.reset(token)


class AtMost(int):
    """A number of threads that nobody asked for: a call may do with fewer."""


def threads_for(requested: int | None) -> tuple[int, bool]:
    """Threads for a call that was given ``num_threads=requested``, and whether it may do with fewer."""
    at_most = isinstance(requested, AtMost)
    if requested is not None:
        requested = validation.thread_count(requested, "num_threads")
    if _forked or OPENMP is None:
        return 1, False
    said = requested or _context_setting.get() or _process_setting
    return min(said or _default(), MOST_THREADS), said is None or at_most


def _default() -> int:
    granted = _runtime.openmp_max_threads()
    return min(granted, _BOUND)


def _bound(environ: Mapping[str, str], quota: int) -> int:
    """The most threads by default. OpenMP reads its variable when its library is loaded, not later."""
    return MOST_THREADS if "OMP_NUM_THREADS" in environ else quota


def _cpu_quota(root: pathlib.Path = pathlib.Path("/")) -> int:
    """The quota of the control group (version 2 or 1) in processors, rounded up."""
    quotas = [math.inf]
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        hierarchy, controllers, path = line.split(":", 2)
        if hierarchy == "0":
            base, read = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            base, read = root / "sys/fs/cgroup/cpu", _quota_v1
        else:
            continue
        group = pathlib.PurePosixPath(path.lstrip("/"))
        quotas += [read(base / parent) for parent in (group, *group.parents)]
    quota = min(quotas)
    return 1 << 30 if math.isinf(quota) else max(1, math.ceil(quota))


def _quota_v2(group: pathlib.Path) -> float:
    try:
        quota, period = (group / "cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return math.inf


def _quota_v1(group: pathlib.Path) -> float:
    try:
        quota = int((group / "cpu.cfs_quota_us").read_text())
        return quota / int((group / "cpu.cfs_period_us").read_text()) if quota > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):
        return math.inf


def _after_fork() -> None:
    global _forked
    _forked = True


_BOUND = _bound(os.environ, _cpu_quota())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
