"""A curve as a picture and as a table."""

import numpy as np

COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "#E69F00")


def draw(curve, path):
    """Write a PNG: lines side by side, bars one below the other."""
    from matplotlib.figure import Figure

    columns = 1 if curve.bars else len(curve.panels)
    rows = -(-len(curve.panels) // columns)
    figure = Figure((8, 0.9 + 2.6 * rows), 100, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=curve.bars).flat
    for axes, (label, panel) in zip(grid, curve.panels.items(), strict=True):
        places = np.arange(len(panel.x)) if curve.bars else panel.x
        for number, (name, values) in enumerate(panel.series.items()):
            colour = COLOURS[number % len(COLOURS)]
            if curve.bars:
                width = 0.84 / len(panel.series)
                middles = places - 0.42 + (number + 0.5) * width
                bars = axes.bar(middles, values, width, color=colour, label=name)
                texts = [f"{value:.2g}" if value < 99 else f"{value:.0f}" for value in values]
                for text in axes.bar_label(bars, texts, padding=1, size=7):
                    text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.3})
            else:
                axes.plot(places, values, "o-", color=colour, label=name, markersize=4)
        if curve.bars:
            axes.set_xticks(places, panel.x)
            axes.tick_params(axis="x", length=0)
        if curve.log_x:
            axes.set_xscale("log")
        if curve.guide:
            axes.axhline(curve.guide, color="black", linestyle="dotted")
        axes.set_xlabel(label)
        axes.grid(axis="y", color="#E8EAED")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in figure.axes:
        axes.set_ylim(0)  # once all is drawn: panels that share it would keep the first one's top
    figure.supylabel(curve.y_label, size="medium")
    figure.suptitle(curve.title, x=0.01, ha="left")
    handles = figure.axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower left", ncols=4, frameon=False)
    figure.savefig(path, pil_kwargs={"optimize": True})


def table(curve):
    """Write Markdown: a line for each x of each panel."""
    [names] = {tuple(panel.series) for panel in curve.panels.values()}
    lines = [f"| {curve.y_label} | {' | '.join(names)} |", "| --- |" + " ---: |" * len(names)]
    for label, panel in curve.panels.items():
        for place, x in enumerate(panel.x):
            cells = [f"{values[place]:.3g}" for values in panel.series.values()]
            lines.append(f"| {x} {label}".rstrip() + f" | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])
