"""The benchmark: times cyroialign, the other libraries that are installed, and what memory allows.

`problem` is what every library is given, `workloads` how large it is; `ours` and `peers` have the calls,
`timing` measures them, `report` tells, and `command` is ``cyroialign bench``. `map` measures the
settings of `grid`, and `map_report` tells, for ``cyroialign bench --map``.
"""

from cyroialign.bench.command import run
from cyroialign.bench.map import run as run_map
from cyroialign.bench.progress import Progress
from cyroialign.bench.timing import Result, measure, take_turns
from cyroialign.bench.workloads import WORKLOADS, Workload, workloads_of

__all__ = [
    "WORKLOADS",
    "Progress",
    "Result",
    "Workload",
    "measure",
    "run",
    "run_map",
    "take_turns",
    "workloads_of",
]
