"""The benchmark's report: tables, JSON and a plot of what was measured."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cyroialign.bench.ours import FLOOR
from cyroialign.bench.problem import OPERATORS
from cyroialign.bench.progress import plural
from cyroialign.bench.timing import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Cyroialign's own four rows, then others; told apart by colour-blind eyes.
COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00", "#555555", "#888888", "#AAAAAA", "#CCCCCC")


def table(results: Sequence[Result], settings: Mapping[str, str]) -> str:
    """Lay out the results of one workload: two columns for each number of threads.

    Under it: what the rows of a library were set to, and why others are not there.
    """
    names = _names(results)
    width = max(map(len, names))
    head = [f"{plural(result.threads, 'thread'):>12}{'ratio':>8}" for result in results]
    lines = [results[0].workload.words, f"  {'milliseconds':{width}}{''.join(head)}"]
    lines += [f"  {name:{width}}{''.join(_cells(result, name) for result in results)}" for name in names]
    lines.append(f"  ratio: how many times as fast as {_baselines(results)}")
    libraries = {name.split()[0] for name in names}
    lines += [f"  {library}: {text}" for library, text in settings.items() if library in libraries]
    excluded = {name: why for result in results for name, why in result.excluded.items()}
    lines += [f"  left out: {name}: {why}" for name, why in excluded.items()]
    return "\n".join(lines) + "\n"


def _cells(result: Result, name: str) -> str:
    if name not in result.seconds:
        return " " * 20
    return f"{digits(1e3 * result.median(name), 3):>12}{digits(result.ratio(name), 3):>8}"


def entries(about: Mapping[str, Mapping[str, str]]) -> str:
    """Write topics with their entries, one a line."""
    topics = about.items()
    return "\n".join(
        "\n  ".join([topic, *(f"{k}: {v}" for k, v in lines.items())]) for topic, lines in topics
    )


def as_json(results: Sequence[Result], about: Mapping[str, Mapping[str, str]]) -> bytes:
    """Write every time that was measured, in milliseconds."""
    return json.dumps({**about, "results": [_plain(result) for result in results]}, indent=1).encode()


def _plain(result: Result) -> dict[str, Any]:
    rows: dict[str, dict[str, Any]] = {}
    for name, seconds in result.seconds.items():
        rows[name] = {"ms": 1e3 * result.median(name), "ratio": result.ratio(name)}
        rows[name]["rounds"] = [1e3 * second for second in seconds]
    workload = {"operator": result.operator} | result.workload._asdict() | {"threads": result.threads}
    return workload | {"baseline": result.baseline, "rows": rows, "left out": result.excluded}


def markdown(results: Sequence[Result], about: Mapping[str, Mapping[str, str]]) -> bytes:
    """Write a table for each number of threads, a line for each workload."""
    names = _names(results)
    lines = []
    for threads in dict.fromkeys(result.threads for result in results):
        some = [result for result in results if result.threads == threads]
        lines += [
            f"{OPERATORS[some[0].operator]}, {plural(threads, 'thread')}: how many times as fast as "
            f"{_baselines(some)}; in brackets ms.",
            "",
            f"| workload | {' | '.join(names)} |",
            "| --- |" + " ---: |" * len(names),
        ]
        for result in some:
            lines.append(f"| {result.workload.name} | {' | '.join(_pair(result, name) for name in names)} |")
        lines.append("")
    for topic in ("machine", "versions", "command"):
        lines.append(f"- {topic}: " + "; ".join(f"{key} {value}" for key, value in about[topic].items()))
    lines += [f"- settings of {library}: {text}" for library, text in about["settings"].items()]
    return "\n".join([*lines, ""]).encode()


def _pair(result: Result, name: str) -> str:
    if name not in result.seconds:
        return ""
    return f"{digits(result.ratio(name), 3)} ({digits(1e3 * result.median(name), 3)})"


def draw(results: Sequence[Result], title: str) -> bytes:
    """Draw the ratios, a panel for each number of threads, and return a PNG."""
    from matplotlib.figure import Figure

    counts = list(dict.fromkeys(result.threads for result in results))
    figure = Figure((11, 1.3 + 2.7 * len(counts)), 150, layout="constrained")
    panels = figure.subplots(len(counts), sharex=True, sharey=True, squeeze=False)[:, 0]
    for axes, count in zip(panels, counts, strict=True):
        _draw_panel(axes, [result for result in results if result.threads == count])
        axes.set_title(plural(count, "thread"), loc="left", size="medium")
    figure.suptitle(title, x=0.01, ha="left")
    handles, labels = panels[0].get_legend_handles_labels()  # the floor first, which is none of the bars
    figure.legend(
        [*handles[1:], handles[0]], [*labels[1:], labels[0]], loc="outside lower left", ncols=4, frameon=False
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _draw_panel(axes: "Axes", results: Sequence[Result]) -> None:
    """Bars rise from the baseline, or sink where a row is slower: on a logarithmic scale both are as tall."""
    from matplotlib.ticker import LogLocator, NullFormatter

    names = [name for name in _names(results) if name not in (FLOOR, results[0].baseline)]
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        ratios = {place: result.ratio(name) for place, result in enumerate(results) if name in result.seconds}
        places = [place - 0.4 + (number + 0.5) * width for place in ratios]
        rises = [ratio - 1 for ratio in ratios.values()]
        bars = axes.bar(places, rises, width, 1, color=COLOURS[number % len(COLOURS)], label=name)
        labels = axes.bar_label(bars, [digits(ratio, 2) for ratio in ratios.values()], padding=2, size=7)
        for label in labels:
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # above the floor's line
    middles = np.arange(len(results))
    floors = [result.ratio(FLOOR) for result in results]
    axes.hlines(
        floors,
        middles - 0.44,
        middles + 0.44,
        "black",
        "dotted",
        label="floor (one pass over memory, 1 thread)",
    )
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}×")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(f"as fast as {_baselines(results)}", size="small")
    axes.set_xticks(middles, [result.workload.name for result in results])
    axes.tick_params(length=0, which="both")
    axes.grid(axis="y", color="#E8EAED")
    axes.set_axisbelow(True)
    axes.margins(x=0.01, y=0.12)
    axes.spines[:].set_visible(False)


def _names(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.seconds))


def _baselines(results: Sequence[Result]) -> str:
    return " or ".join(dict.fromkeys(result.baseline for result in results))


def digits(value: float, count: int) -> str:
    """Write so many digits that count, without an exponent."""
    return f"{value:.{max(0, count - 1 - math.floor(math.log10(value)))}f}"
