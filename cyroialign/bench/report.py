"""The benchmark's report: tables, JSON and a plot of what was measured."""

import io
import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cyroialign.bench.ours import FLOOR, OURS
from cyroialign.bench.problem import OPERATORS
from cyroialign.bench.progress import plural
from cyroialign.bench.timing import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Two of cyroialign, then the others: neighbours differ in hue or in brightness, for colour-blind eyes too.
COLOURS = (
    *("#0072B2", "#56B4E9", "#D55E00", "#009E73", "#E69F00", "#882255", "#F0E442", "#CC79A7", "#555555"),
    *("#117733", "#AA4499", "#88CCEE", "#DDCC77", "#332288", "#999999", "#44AA99", "#661100", "#C8C8C8"),
)
BAR, NUMBER = 0.13, 0.25  # inches that a bar needs at least, and that a number above it does if it lies


def table(results: Sequence[Result]) -> str:
    """Lay out the results of one workload: two columns for each number of threads.

    Under it: why other rows are not there.
    """
    names = _names(results)
    width = max(map(len, names))
    head = [f"{plural(result.threads, 'thread'):>12}{'ratio':>8}" for result in results]
    lines = [results[0].workload.words, f"  {'milliseconds':{width}}{''.join(head)}"]
    lines += [f"  {name:{width}}{''.join(_cells(result, name) for result in results)}" for name in names]
    lines.append(f"  ratio: how many times as fast as {_baselines(results)}")
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
    """Write a table for each operator and number of threads: a line for each row, a column a workload.

    Where there are several operators, the first table tells how each fares beside the fastest peer.
    """
    lines = []
    if len({result.operator for result in results}) > 1:
        lines += [*family(results), ""]
    for operator, threads in dict.fromkeys((result.operator, result.threads) for result in results):
        some = [result for result in results if (result.operator, result.threads) == (operator, threads)]
        lines += [
            f"{OPERATORS[operator]}, {plural(threads, 'thread')}: how many times as fast as "
            f"{_baselines(some)}; in brackets ms.",
            "",
            f"| | {' | '.join(result.workload.name for result in some)} |",
            "| --- |" + " ---: |" * len(some),
        ]
        for name in _names(some):
            lines.append(f"| {name} | {' | '.join(_pair(result, name) for result in some)} |")
        lines.append("")
    for topic in ("machine", "versions", "command"):
        lines.append(f"- {topic}: " + "; ".join(f"{key} {value}" for key, value in about[topic].items()))
    lines += [f"- settings of {library}: {text}" for library, text in about["settings"].items()]
    return "\n".join([*lines, ""]).encode()


def family(results: Sequence[Result]) -> list[str]:
    """Compare the rows of cyroialign with the fastest peer of the same direction: a line for each operator.

    Whoever has channels-last maps could hand them to a peer as channels-first ones: what that costs is left
    out, so that a row of NHWC stands beside peers of either layout.
    """
    lines = [
        "How many times as fast as the fastest peer, the least of all workloads (and the median):",
        "",
        "| operator | direction | threads | NCHW | NHWC | fastest peers |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    rows: dict[tuple[str, str, int], dict[str, list[tuple[float, str]]]] = {}
    for result in results:
        for name in result.seconds:
            if not name.startswith("cyroialign ") or len(name.split()) != 3:
                continue
            _, direction, layout = name.split()
            row = rows.setdefault((result.operator, direction, result.threads), {"NCHW": [], "NHWC": []})
            peer = fastest_peer(result.seconds, direction, layout)
            if peer:
                row[layout].append((result.median(peer) / result.median(name), peer.split()[0]))
    for (operator, direction, threads), layouts in rows.items():
        cells = [
            f"{digits(min(found)[0], 2)} ({digits(statistics.median(ratio for ratio, _ in found), 2)})"
            if found
            else "no peer"
            for found in layouts.values()
        ]
        peers = dict.fromkeys(peer for found in layouts.values() for _, peer in found)
        lines.append(f"| {operator} | {direction} | {threads} | {' | '.join(cells)} | {', '.join(peers)} |")
    return lines


def fastest_peer(seconds: Mapping[str, Sequence[float]], direction: str, layout: str) -> str | None:
    """Name the fastest row of another library that may stand beside ours of this direction and layout."""
    rivals = [
        name
        for name in seconds
        if name != FLOOR
        and name.split()[0] not in OURS
        and name.split()[-2] == direction
        and name.split()[-1] in ("NCHW", layout)
    ]
    return min(rivals, key=lambda name: statistics.median(seconds[name]), default=None)


def _pair(result: Result, name: str) -> str:
    if name not in result.seconds:
        return ""
    return f"{digits(result.ratio(name), 3)} ({digits(1e3 * result.median(name), 3)})"


def draw(results: Sequence[Result], title: str) -> bytes:
    """Draw the ratios, a panel for each operator, direction and number of threads, and return a PNG."""
    from matplotlib.figure import Figure

    shown = {
        (result.operator, result.threads, name.split()[-2]): result.threads
        for result in results
        for name in result.seconds
        if name != FLOOR
    }
    colours = _colours(results)
    bars = len(colours) * max(
        sum((result.operator, result.threads) == (operator, threads) for result in results)
        for operator, threads, _ in shown
    )
    width = max(10.8, BAR * bars / 0.86)
    figure = Figure((1.2 + width, 1.6 + 2.7 * len(shown)), 100, layout="constrained")
    panels = figure.subplots(len(shown), squeeze=False)[:, 0]
    for axes, (operator, threads, direction) in zip(panels, shown, strict=True):
        of_panel = [result for result in results if (result.operator, result.threads) == (operator, threads)]
        _draw_panel(axes, of_panel, direction, colours, width)
        words = f"{OPERATORS[operator]}: {direction}, {plural(threads, 'thread')}"
        axes.set_title(words, loc="left", size="medium")
    figure.suptitle(title, x=0.01, ha="left")
    handles = {label: handle for axes in panels for handle, label in _handles(axes)}
    floors = [label for label in handles if label not in colours]
    labels = [*(label for label in colours if label in handles), *floors]
    figure.legend(
        [handles[label] for label in labels], labels, loc="outside lower left", ncols=4, frameon=False
    )
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return picture.getvalue()


def _handles(axes: "Axes") -> Iterator[tuple[Any, str]]:
    return zip(*axes.get_legend_handles_labels(), strict=True)


def _colours(results: Sequence[Result]) -> dict[str, str]:
    """Give each library and layout a colour of its own, the same one in every panel."""
    names = [name for name in _names(results) if name != FLOOR]
    kinds = dict.fromkeys(_kind(name) for name in names)
    if len(kinds) > len(COLOURS):
        raise ValueError(
            f"a plot has at most {len(COLOURS)} colours, and these are {len(kinds)} rows: {kinds}"
        )
    return dict(zip(kinds, COLOURS, strict=False))


def _kind(name: str) -> str:
    """Name a row without its direction."""
    *library, _, layout = name.split()
    return " ".join([*library, layout])


def _draw_panel(
    axes: "Axes", results: Sequence[Result], direction: str, colours: Mapping[str, str], inches: float
) -> None:
    """Bars rise from the baseline, or sink where a row is slower: on a logarithmic scale both are as tall.

    inches is about the width of the panel.
    """
    from matplotlib.ticker import LogLocator, NullFormatter

    names = [name for name in _names(results) if name != FLOOR and name.split()[-2] == direction]
    width = 0.86 / len(names)
    for number, name in enumerate(names):
        ratios = {place: result.ratio(name) for place, result in enumerate(results) if name in result.seconds}
        places = [place - 0.43 + (number + 0.5) * width for place in ratios]
        rises = [ratio - 1 for ratio in ratios.values()]
        bars = axes.bar(places, rises, width, 1, color=colours[_kind(name)], label=_kind(name))
        texts = [digits(ratio, 2) for ratio in ratios.values()]
        rotation = 90 if width * inches / len(results) < NUMBER else 0
        for label in axes.bar_label(bars, texts, padding=2, size=7, rotation=rotation):
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # above the floor's line
    middles = np.arange(len(results))
    if direction == "forward":
        floors = [result.ratio(FLOOR) for result in results]
        words = "floor (one pass over memory, 1 thread)"
        axes.hlines(floors, middles - 0.46, middles + 0.46, "black", "dotted", label=words)
    axes.axhline(1, color="black", linewidth=1)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}×")
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(f"as fast as\n{_baselines(results)}", size="small")
    axes.set_xticks(middles, [result.workload.name for result in results])
    axes.tick_params(length=0, which="both")
    axes.grid(axis="y", color="#E8EAED")
    axes.set_axisbelow(True)
    axes.margins(x=0.01, y=0.16)
    axes.spines[:].set_visible(False)


def _names(results: Sequence[Result]) -> list[str]:
    return list(dict.fromkeys(name for result in results for name in result.seconds))


def _baselines(results: Sequence[Result]) -> str:
    return " or ".join(dict.fromkeys(result.baseline for result in results))


def digits(value: float, count: int) -> str:
    """Write so many digits that count, without an exponent."""
    return f"{value:.{max(0, count - 1 - math.floor(math.log10(value)))}f}"
