"""The command `cyroialign bench`: what to measure, and where to write it."""

import importlib
import math
import pathlib
from collections.abc import Sequence
from functools import partial

from cyroialign._commands import write
from cyroialign.bench import machine, report
from cyroialign.bench.choices import check_files, choice, narrow, thread_counts
from cyroialign.bench.peers import installed
from cyroialign.bench.problem import OPERATORS
from cyroialign.bench.progress import Progress
from cyroialign.bench.timing import measure
from cyroialign.bench.workloads import Workload, workloads_of

ROUNDS, QUICK_ROUNDS = 7, 3
QUICK_SHARE = 10  # --quick takes one RoI in so many
SETTINGS = "one image, num_threads = threads, out= where there is one, float32 unless the row says more"
BY_LEVEL = "a call of roi_align for each level; boxes and results are gathered"


def run(
    operators: Sequence[str] | None,
    workloads: Sequence[str] | None,
    dtypes: Sequence[str] | None,
    threads: Sequence[int] | None,
    quick: bool,
    json_file: pathlib.Path | None,
    markdown_file: pathlib.Path | None,
    plot_file: pathlib.Path | None,
) -> None:
    """Measure, print tables as they are ready, and write the files."""
    chosen = _operators(operators)
    parts = _workloads(chosen, workloads)
    types = [narrow(name) for name in dict.fromkeys(dtypes or [])]
    counts = thread_counts(threads)
    files = {"--json": json_file, "--markdown": markdown_file, "--plot": plot_file}
    check_files(files)
    if plot_file:
        importlib.import_module("matplotlib.figure")  # fails now, not after minutes of work
    progress = Progress(sum(map(len, parts.values())) * len(counts))
    settings: dict[str, str] = {}
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    results = []
    for operator, of_operator in parts.items():
        peers, absent = installed(operator)
        missing |= absent
        of_libraries = {"cyroialign": SETTINGS} | {peer.library: peer.settings for peer in peers}
        of_libraries |= {"level-by-level": BY_LEVEL} if operator == "multiscale" else {}
        settings |= of_libraries
        for peer in peers:
            versions |= peer.versions()
        print(report.entries({OPERATORS[operator]: of_libraries}) + "\n", flush=True)
        for workload in of_operator:
            part = workload._replace(rois=math.ceil(workload.rois / QUICK_SHARE)) if quick else workload
            rounds = QUICK_ROUNDS if quick else ROUNDS
            of_workload = [measure(part, count, rounds, peers, progress, operator, types) for count in counts]
            print(report.table(of_workload), flush=True)
            results += of_workload
    if len(chosen) > 1:
        print("\n".join([*report.family(results), ""]))
    about = machine.about()
    about["versions"] |= versions
    about |= {
        "not compared": missing,
        "command": {"to repeat": _command(operators, workloads, types, counts, quick)},
    }
    print(report.entries(about))
    about["settings"] = settings  # which have been printed, operator by operator
    title = f"How fast the pooling of regions is on {machine.processor()}{' (--quick)' * quick}"
    for path, make in (
        (json_file, partial(report.as_json, results, about)),
        (markdown_file, partial(report.markdown, results, about)),
        (plot_file, partial(report.draw, results, title)),
    ):
        if path:
            write(path, make())
            print(f"wrote {path}")


def _operators(names: Sequence[str] | None) -> list[str]:
    names = list(dict.fromkeys(names or ["roi_align"]))
    return list(OPERATORS) if "all" in names else [choice(name, "operator", OPERATORS) for name in names]


def _workloads(operators: Sequence[str], names: Sequence[str] | None) -> dict[str, list[Workload]]:
    """Tell what each operator pools: of the workloads that were named, those that it has."""
    all_known = {operator: workloads_of(operator) for operator in operators}
    every = dict.fromkeys(name for known in all_known.values() for name in known)
    wanted = [choice(name, "workload", every) for name in dict.fromkeys(names or every)]
    parts = {of: [known[name] for name in wanted if name in known] for of, known in all_known.items()}
    return {operator: part for operator, part in parts.items() if part}


def _command(
    operators: Sequence[str] | None,
    workloads: Sequence[str] | None,
    dtypes: Sequence[str],
    threads: Sequence[int],
    quick: bool,
) -> str:
    words = ["python -m cyroialign bench", *(f"--operator {name}" for name in dict.fromkeys(operators or []))]
    words += [f"--workload {name}" for name in dict.fromkeys(workloads or [])]
    words += [f"--dtype {name}" for name in dtypes]
    return " ".join([*words, f"--threads {','.join(map(str, threads))}", *["--quick"] * quick])
