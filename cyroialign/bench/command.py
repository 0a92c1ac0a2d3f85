"""The command `cyroialign bench`: what to measure, and where to write it."""

import importlib
import math
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from cyroialign import get_num_threads
from cyroialign._commands import CommandError, check_output, write
from cyroialign.arguments import dtypes
from cyroialign.bench import machine, report
from cyroialign.bench.peers import installed
from cyroialign.bench.problem import OPERATORS
from cyroialign.bench.progress import Progress
from cyroialign.bench.timing import measure
from cyroialign.bench.workloads import workloads_of

ROUNDS, QUICK_ROUNDS = 7, 3
QUICK_SHARE = 10  # --quick takes one RoI in so many
SETTINGS = "one image, num_threads = threads, out= where there is one, float32 unless the row says more"
BY_LEVEL = "a call of roi_align for each level; boxes and results are gathered"


def run(
    operator: str,
    workloads: Sequence[str] | None,
    dtypes: Sequence[str] | None,
    threads: Sequence[int] | None,
    quick: bool,
    json_file: pathlib.Path | None,
    markdown_file: pathlib.Path | None,
    plot_file: pathlib.Path | None,
) -> None:
    """Measure, print tables as they are ready, and write the files."""
    known = workloads_of(_choice(operator, "operator", OPERATORS))
    chosen = [known[_choice(name, "workload", known)] for name in dict.fromkeys(workloads or known)]
    types = [_dtype(name) for name in dict.fromkeys(dtypes or [])]
    counts = _thread_counts(threads)
    files = {"--json": json_file, "--markdown": markdown_file, "--plot": plot_file}
    _check_files({option: path for option, path in files.items() if path})
    if plot_file:
        importlib.import_module("matplotlib.figure")  # fails now, not after minutes of work
    peers, missing = installed(operator)
    settings = {"cyroialign": f"{OPERATORS[operator]}, {SETTINGS}"}
    settings |= {"level-by-level": BY_LEVEL} if operator == "multiscale" else {}
    settings |= {peer.library: peer.settings for peer in peers}
    progress = Progress(len(chosen) * len(counts))
    results = []
    for workload in chosen:
        part = workload._replace(rois=math.ceil(workload.rois / QUICK_SHARE)) if quick else workload
        rounds = QUICK_ROUNDS if quick else ROUNDS
        of_workload = [measure(part, count, rounds, peers, progress, operator, types) for count in counts]
        print(report.table(of_workload, settings), flush=True)
        results += of_workload
    about = machine.about()
    for peer in peers:
        about["versions"] |= peer.versions()
    about |= {
        "not compared": missing,
        "command": {"to repeat": _command(operator, workloads, types, counts, quick)},
    }
    print(report.entries(about))
    about["settings"] = settings  # the tables have said them
    title = f"{OPERATORS[operator]} on {machine.processor()}{' (--quick)' * quick}"
    for path, make in (
        (json_file, partial(report.as_json, results, about)),
        (markdown_file, partial(report.markdown, results, about)),
        (plot_file, partial(report.draw, results, title)),
    ):
        if path:
            write(path, make())
            print(f"wrote {path}")


def _command(
    operator: str,
    workloads: Sequence[str] | None,
    dtypes: Sequence[str],
    threads: Sequence[int],
    quick: bool,
) -> str:
    words = ["python -m cyroialign bench", *[f"--operator {operator}"] * (operator != "roi_align")]
    words += [f"--workload {name}" for name in dict.fromkeys(workloads or [])]
    words += [f"--dtype {name}" for name in dtypes]
    return " ".join([*words, f"--threads {','.join(map(str, threads))}", *["--quick"] * quick])


def _choice(name: str, what: str, known: Iterable[str]) -> str:
    if name not in known:
        raise CommandError(f"there is no {what} {name!r}; choose from {', '.join(known)}")
    return name


def _dtype(name: str) -> str:
    """Check the type of more rows. Of float64 they could differ from float32, whose boxes are rounded."""
    _choice(name, "dtype", dtypes.NARROW)
    if name == "bfloat16":
        try:
            importlib.import_module("ml_dtypes")  # registers the name with NumPy
        except ImportError as error:
            raise CommandError(f'{error}; --dtype bfloat16 needs: pip install "cyroialign[bench]"') from error
    return name


def _thread_counts(threads: Sequence[int] | None) -> list[int]:
    cores = machine.cores()
    counts = sorted(set(threads or [1, min(get_num_threads(), cores)]))
    if counts[0] < 1 or counts[-1] > cores:
        raise CommandError(f"--threads must be from 1 to {cores}, the cores that this process may use")
    return counts


def _check_files(files: Mapping[str, pathlib.Path]) -> None:
    for option, path in files.items():
        check_output(option, path, ".png" if option == "--plot" else "")
        for other in files:
            if other < option and files[other].resolve() == path.resolve():
                raise CommandError(f"{other} and {option} are the same file, {path}")
