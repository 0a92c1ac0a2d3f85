"""What matplotlib has drawn: the figure behind a PNG, and where its words are."""

import pytest


def figure_of(draw, *arguments):
    """Call a function that draws one figure; return what it returned and the figure."""
    module = pytest.importorskip("matplotlib.figure")
    made = []

    class Kept(module.Figure):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            made.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "Figure", Kept)
        picture = draw(*arguments)
    [figure] = made
    return picture, figure


def words_of(figure):
    """Return all words of a figure, each with the box that it takes in pixels."""
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in figure.axes:
        texts += [*axes.texts, *axes.get_xticklabels(), axes.yaxis.label]
    return [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text()]


def cut_off(figure):
    """Return the words that do not lie on the picture."""
    width, height = figure.bbox.size + 1
    return [
        text
        for text, box in words_of(figure)
        if min(box.x0, box.y0) < -1 or box.x1 > width or box.y1 > height
    ]
