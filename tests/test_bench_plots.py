"""What the benchmark draws: that each row has a colour of its own, and that all of it is on the picture."""

import io
import itertools

import pytest
from drawn import cut_off, figure_of, words_of

from cyroialign.bench import WORKLOADS, report
from cyroialign.bench.timing import Result

BOTH = ("NCHW", "NHWC")
SIX_PEERS = {"onnxruntime": 1, "opencv": 1, "openvino": 1, "torchvision": 1, "ipex": 2, "paddle": 1}
ROWS = [
    f"{library} {direction} {layout}"
    for library, layouts in {
        "cyroialign": 2,
        "cyroialign float16": 2,
        "cyroialign uint8": 2,
        **SIX_PEERS,
    }.items()
    for direction in ("forward", "backward")
    for layout in BOTH[:layouts]
]


@pytest.fixture
def results():
    """Times that differ, of all rows, on all workloads, with one thread and with four."""
    seconds = {name: [1e-3 * (place + 1)] for place, name in enumerate([*ROWS, "floor"])}
    return [
        Result("roi_align", workload, threads, seconds, {})
        for workload in WORKLOADS.values()
        for threads in (1, 4)
    ]


def test_no_colour_twice(results):
    colours = report._colours(results)
    assert set(colours) == {report._kind(name) for name in ROWS}
    assert len(set(colours.values())) == len(colours)
    assert len(set(report.COLOURS)) == len(report.COLOURS)


def test_more_rows_than_colours_are_refused(results):
    more = {f"library{number} forward NCHW": [1.0] for number in range(len(report.COLOURS) + 1)}
    with pytest.raises(ValueError, match="at most"):
        report._colours([results[0]._replace(seconds=more)])


def test_nothing_is_cut_off(results):
    """Every word of the picture lies on it, numbers beside each other, and no panel lies on the legend."""
    picture, figure = figure_of(report.draw, results, "a title")
    assert {report._kind(name) for name in ROWS} < {text for text, _ in words_of(figure)}
    assert not cut_off(figure)
    [legend] = figure.legends
    for axes in figure.axes:
        numbers = [text.get_window_extent() for text in axes.texts]
        assert numbers
        assert not [(a, b) for a, b in itertools.combinations(numbers, 2) if a.overlaps(b)]
        assert axes.get_tightbbox().y0 >= legend.get_window_extent().y1
    image = pytest.importorskip("PIL.Image")
    with image.open(io.BytesIO(picture)) as opened:
        assert opened.size == tuple(figure.bbox.size.astype(int))


def test_a_peer_that_runs_ours_beside_channels_last():
    """NHWC stands beside peers of either layout, NCHW beside those that read it, and no row beside itself."""
    seconds = {
        "cyroialign forward NCHW": [1.0],
        "cyroialign forward NHWC": [1.0],
        "level-by-level forward NCHW": [0.1],
        "ipex forward NHWC": [2.0],
        "onnxruntime forward NCHW": [3.0, 3.0, 90.0],
        "torchvision forward NCHW": [4.0],
        "torchvision backward NCHW": [1.0],
        "floor": [0.1],
    }
    assert report.fastest_peer(seconds, "forward", "NCHW") == "onnxruntime forward NCHW"
    assert report.fastest_peer(seconds, "forward", "NHWC") == "ipex forward NHWC"
    assert report.fastest_peer(seconds, "backward", "NHWC") == "torchvision backward NCHW"
    assert report.fastest_peer(seconds, "boxes", "NCHW") is None


def test_the_table_of_the_family_has_the_least_and_the_median(results):
    ours, theirs = "cyroialign forward NCHW", "onnxruntime forward NCHW"
    times = [(ours, theirs, 1.0, 3.0), (ours, theirs, 1.0, 5.0), (ours, theirs, 2.0, 8.0)]
    some = [
        results[0]._replace(seconds={mine: [own], peer: [other], "floor": [1.0]}, operator="max")
        for mine, peer, own, other in times
    ]
    lines = report.family(
        [*some, results[0]._replace(seconds={"cyroialign boxes NCHW": [1.0], "floor": [1.0]})]
    )
    assert lines[-2] == "| max | forward | 1 | 3.0 (4.0) | no peer | onnxruntime |"
    assert lines[-1] == "| roi_align | boxes | 1 | no peer | no peer |  |"
