"""FeaturePyramidNetwork equals torchvision's and a convolution by hand; weights, odd input, refusals."""

import pathlib
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cyroialign import FeaturePyramidNetwork
from cyroialign.pyramid import fpn as fpn_module

GOLDENS = np.load(pathlib.Path(__file__).parent / "data" / "torchvision_fpn.npz")
CHANNELS, OUT = [6, 10, 14, 18], 12
TOLERANCE = {"float32": 4e-6, "float64": 1e-13}  # of the largest value


def part(prefix):
    return {name.removeprefix(prefix): GOLDENS[name] for name in GOLDENS.files if name.startswith(prefix)}


def golden_network(extra_blocks="maxpool"):
    fpn = FeaturePyramidNetwork(CHANNELS, OUT, extra_blocks)
    fpn.load_state_dict(part("weight/"))
    return fpn


def convolve(image, weight, bias):
    """Convolve (C, H, W) in float64, pixel after pixel, in a ring of zeros that the kernel asks for."""
    image, weight = image.astype(float), weight.astype(float)
    _, height, width = image.shape
    margin = weight.shape[2] // 2
    result = np.empty((len(weight), height, width))
    for y, x in np.ndindex(height, width):
        total = bias.astype(float)
        for i, j in np.ndindex(*weight.shape[2:]):
            row, column = y + i - margin, x + j - margin
            if 0 <= row < height and 0 <= column < width:
                total = total + weight[:, :, i, j] @ image[:, row, column]
        result[:, y, x] = total
    return result


def nearest(old, new):
    """Repeat pixels as torch does, whose float32 product can fall short of a whole number."""
    scale = np.float32(old) / np.float32(new)
    return [min(int(scale * np.float32(i)), old - 1) for i in range(new)]


def reference(fpn, maps):
    """The network by its definition, in float64, from coarse to fine."""
    state, results, coarser = fpn.state_dict(), {}, None
    for level, name in reversed(list(enumerate(maps))):
        inner, layer = (
            [state[f"{block}.{level}.0.{kind}"] for kind in ("weight", "bias")]
            for block in ("inner_blocks", "layer_blocks")
        )
        merged = np.array([convolve(image, *inner) for image in maps[name]])
        if coarser is not None:
            rows, columns = (nearest(coarser.shape[axis], merged.shape[axis]) for axis in (2, 3))
            merged += coarser[:, :, rows][:, :, :, columns]
        results[name] = np.array([convolve(image, *layer) for image in merged])
        coarser = merged
    return {name: results[name] for name in maps}


def assert_close(actual, expected):
    assert actual.shape == expected.shape
    largest = np.abs(expected).max(initial=0)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[actual.dtype.name] * largest)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("extra_blocks", ["maxpool", None])
def test_equals_torchvision(extra_blocks, dtype):
    maps = {name: array.astype(dtype) for name, array in part("input/").items()}
    results, expected = golden_network(extra_blocks)(maps), part("output/")
    assert list(results) == [*maps, "pool"][: 5 if extra_blocks else 4]
    for name, result in results.items():
        assert result.dtype == dtype
        assert result.flags.c_contiguous
        assert_close(result.astype(np.float32), expected[name])


@given(
    sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=3),
    images=st.integers(1, 2),
    dtype=st.sampled_from(["float32", "float64"]),
    block=st.sampled_from([1, 7, 20, 4096]),
    seed=st.integers(0, 2**32 - 1),
)
def test_equals_the_definition(sizes, images, dtype, block, seed):
    """For levels of any size, and blocks of rows that begin and end anywhere."""
    rng = np.random.default_rng(seed)
    channels = rng.integers(1, 5, len(sizes)).tolist()
    fpn = FeaturePyramidNetwork(channels, int(rng.integers(1, 5)))
    fpn.load_state_dict({key: rng.standard_normal(array.shape) for key, array in fpn.state_dict().items()})
    maps = {
        str(level): rng.standard_normal((images, count, *size)).astype(dtype)
        for level, (count, size) in enumerate(zip(channels, sizes, strict=True))
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fpn_module, "BLOCK", block)
        results = fpn(maps)
    for name, expected in reference(fpn, maps).items():
        assert results[name].dtype == dtype
        assert_close(results[name], expected)


def test_nearest_neighbours_are_torchs():
    """Three sizes at which float32 falls short of the whole number that the quotient is."""
    for old, new, at, pixel in [(50, 198, 99, 24), (75, 297, 99, 24), (87, 345, 115, 28)]:
        assert fpn_module._nearest(old, new, np.dtype("float32"))[at] == pixel == at * old // new - 1


@pytest.mark.parametrize("height", [1, 2, 3, 4, 7, 8])
def test_pool_takes_every_second_pixel(height):
    fpn = FeaturePyramidNetwork([2], 3, extra_blocks="maxpool", seed=1)
    results = fpn({"a": np.random.default_rng(0).random((2, 2, height, 5))})
    np.testing.assert_array_equal(results["pool"], results["a"][:, :, ::2, ::2])
    assert not np.shares_memory(results["pool"], results["a"])


def test_no_images():
    results = golden_network()({name: array[:0] for name, array in part("input/").items()})
    assert {name: array.shape for name, array in results.items()} == {
        name: (0, *array.shape[1:]) for name, array in part("output/").items()
    }


@pytest.mark.parametrize(
    "odd",
    [
        lambda array: array.astype(">f4"),
        lambda array: np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        lambda array: np.repeat(array, 2, axis=3)[..., ::2],
        lambda array: np.frombuffer(b"x" + array.tobytes(), np.uint8)[1:].view("f4").reshape(array.shape),
        lambda array: memoryview(array),
    ],
    ids=["byte-swapped", "channels last", "strided", "unaligned and read-only", "memoryview"],
)
def test_memory_of_the_maps(odd):
    maps, fpn = part("input/"), golden_network()
    before = {name: array.copy() for name, array in maps.items()}
    for name, result in fpn({name: odd(array) for name, array in maps.items()}).items():
        np.testing.assert_array_equal(result, fpn(maps)[name])
    for name, array in maps.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_not_finite(value):
    """It reaches its neighbours through the smoothing, its like in finer levels, and no other image."""
    maps, fpn = part("input/"), golden_network()
    finite = fpn(maps)
    maps["c4"] = maps["c4"].copy()
    maps["c4"][1, 3, 5, 6] = value
    results = fpn(maps)
    for name, result in results.items():
        np.testing.assert_array_equal(result[0], finite[name][0])
        changed = ~(np.isclose(result[1], finite[name][1])).all(axis=0)
        if name in ("c5", "pool"):
            assert not changed.any()
        else:
            rows, columns = np.nonzero(changed)
            height, width = changed.shape
            assert len(rows)
            assert abs((rows + 0.5) * 10 / height - 5.5).max() < 1.6 + 10 / height
            assert abs((columns + 0.5) * 11 / width - 6.5).max() < 1.6 + 11 / width


def test_scratch_is_bounded():
    """Convolving a tall map takes the result and a few rows, not nine times the map."""
    x, weight = np.ones((1, 8, 4000, 100), np.float32), np.ones((8, 8, 3, 3), np.float32)
    tracemalloc.start()
    try:
        fpn_module._convolve_3x3(x, weight, np.zeros(8, np.float32))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.1 * x.nbytes


def test_fresh_weights():
    state = FeaturePyramidNetwork([100, 200], 50, seed=3).state_dict()
    for key, array in state.items():
        assert array.dtype == np.float32
        if key.endswith("bias"):
            assert not array.any()
        else:
            bound = np.sqrt(3 / np.prod(array.shape[1:]))
            assert 0.99 * bound < np.abs(array).max() <= bound * (1 + 1e-6)
            assert abs(array.std() / bound * np.sqrt(3) - 1) < 0.02
    again = FeaturePyramidNetwork([100, 200], 50, seed=np.random.default_rng(3)).state_dict()
    other = FeaturePyramidNetwork([100, 200], 50).state_dict()
    for key, array in state.items():
        np.testing.assert_array_equal(array, again[key])
        assert key.endswith("bias") or (array != other[key]).any()


@pytest.mark.parametrize("older", [False, True])
def test_state_dict_comes_back(older):
    state, fpn = part("weight/"), FeaturePyramidNetwork(CHANNELS, OUT)
    given = {key.replace(".0.weight", ".weight").replace(".0.bias", ".bias"): state[key] for key in state}
    fpn.load_state_dict(given if older else dict(reversed(state.items())))
    back = fpn.state_dict()
    assert list(back) == list(state)
    for key, array in back.items():
        assert array.dtype == state[key].dtype
        np.testing.assert_array_equal(array, state[key])
        array[:] = 0
    for key, array in fpn.state_dict().items():
        np.testing.assert_array_equal(array, state[key])


def test_weights_are_copied():
    state, fpn = part("weight/"), FeaturePyramidNetwork(CHANNELS, OUT)
    fpn.load_state_dict(state)
    expected = fpn(part("input/"))["c2"]
    for array in state.values():
        array[:] = 0
    np.testing.assert_array_equal(fpn(part("input/"))["c2"], expected)


def test_weights_of_float64_and_odd_memory():
    state = {key: np.asfortranarray(array.astype(">f8")) for key, array in part("weight/").items()}
    fpn = FeaturePyramidNetwork(CHANNELS, OUT, "maxpool")
    fpn.load_state_dict(state)
    assert {array.dtype for array in fpn.state_dict().values()} == {np.dtype("float64")}
    for name, result in fpn(part("input/")).items():
        np.testing.assert_array_equal(result, golden_network()(part("input/"))[name])


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_archive(tmp_path, kind):
    np.savez(tmp_path / "weights.npz", **part("weight/"))
    fpn = FeaturePyramidNetwork(CHANNELS, OUT)
    fpn.load_state_dict(kind(tmp_path / "weights.npz"))
    with np.load(tmp_path / "weights.npz") as opened:
        other = FeaturePyramidNetwork(CHANNELS, OUT)
        other.load_state_dict(opened)
    for key, array in part("weight/").items():
        np.testing.assert_array_equal(fpn.state_dict()[key], array)
        np.testing.assert_array_equal(other.state_dict()[key], array)


@pytest.mark.parametrize("content", [b"", b"weights", b"PK\x03\x04 broken", None])
def test_not_an_archive(tmp_path, content):
    path = tmp_path / "weights.npz"
    if content is None:
        with path.open("wb") as file:
            np.save(file, np.ones(3))
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"path of an \.npz file, and .*weights\.npz. is not one"):
        golden_network().load_state_dict(path)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        golden_network().load_state_dict(tmp_path / "weights.npz")


FIRST = "inner_blocks.0.0.weight"


@pytest.mark.parametrize(
    ("change", "error", "parts"),
    [
        (lambda s: None, TypeError, "state must be a mapping|None"),
        (lambda s: list(s), TypeError, "state must be a mapping|list"),
        (lambda s: s | {"inner_blocks.0.1.weight": np.ones(12)}, ValueError, "'inner_blocks.0.1.weight'"),
        (lambda s: s | {"inner_blocks.4.0.bias": np.ones(12)}, ValueError, "'inner_blocks.4.0.bias'"),
        (lambda s: s | {7: np.ones(12)}, ValueError, "state has the key 7"),
        (lambda s: s | {"inner_blocks.0.weight": s[FIRST]}, ValueError, f"'{FIRST}'|'inner_blocks.0.weight'"),
        (lambda s: {k: v for k, v in s.items() if k != FIRST}, ValueError, f"state lacks the key '{FIRST}'"),
        (lambda s: {}, ValueError, f"state lacks the key '{FIRST}' and 15 more"),
        (lambda s: s | {FIRST: s[FIRST][:, :5]}, ValueError, f"{FIRST}|(12, 6, 1, 1), got (12, 5, 1, 1)"),
        (lambda s: s | {FIRST: s[FIRST][:, :, 0, 0]}, ValueError, f"{FIRST}|(12, 6, 1, 1), got (12, 6)"),
        (lambda s: s | {FIRST: s[FIRST].astype("f2")}, TypeError, f"{FIRST}|float32 or float64, got float16"),
        (lambda s: s | {FIRST: s[FIRST].astype(int)}, TypeError, f"{FIRST}|got int64"),
        (lambda s: s | {FIRST: "weights"}, TypeError, f"state['{FIRST}'] must be a NumPy array|str"),
    ],
)
def test_refused_weights(change, error, parts):
    fpn = golden_network()
    with pytest.raises(error) as caught:
        fpn.load_state_dict(change(part("weight/")))
    assert all(words in str(caught.value) for words in parts.split("|")), caught.value
    for key, array in fpn.state_dict().items():  # as it was
        np.testing.assert_array_equal(array, part("weight/")[key])


def replaced(level, array):
    return {**part("input/"), level: array}


INPUT = part("input/")


@pytest.mark.parametrize(
    ("x", "error", "parts"),
    [
        (None, TypeError, "x must be a mapping|None"),
        (list(INPUT.values()), TypeError, "x must be a mapping|list"),
        ({}, ValueError, "one map per level, 4 here, got 0"),
        ({"c2": INPUT["c2"]}, ValueError, "one map per level, 4 here, got 1"),
        ({**INPUT, "c6": INPUT["c5"]}, ValueError, "4 here, got 5"),
        ({"pool" if k == "c5" else k: v for k, v in INPUT.items()}, ValueError, "named 'pool'"),
        (replaced("c3", None), TypeError, "x['c3'] must be a NumPy array|None"),
        (replaced("c3", INPUT["c3"].astype(np.float16)), TypeError, "x['c3']|float32 or float64|float16"),
        (replaced("c3", INPUT["c3"].astype(int)), TypeError, "x['c3']|int64"),
        (replaced("c3", INPUT["c3"].astype(float)), TypeError, "x['c3'] has float64, not float32"),
        (replaced("c3", INPUT["c3"][0]), ValueError, "x['c3'] must have 4 axes|(10, 19, 22)"),
        (replaced("c3", INPUT["c3"][:, :9]), ValueError, "x['c3'] must have 10 channels|(2, 9, 19, 22)"),
        (replaced("c3", INPUT["c3"].transpose(0, 2, 3, 1)), ValueError, "10 channels|(2, 19, 22, 10)"),
        (replaced("c3", INPUT["c3"][:1]), ValueError, "x['c3'] has 1, the first 2"),
        (replaced("c3", INPUT["c3"][:, :, :0]), ValueError, "x['c3'] must have pixels|(2, 10, 0, 22)"),
        (replaced("c5", INPUT["c5"][..., :0]), ValueError, "x['c5'] must have pixels|(2, 18, 5, 0)"),
    ],
)
def test_refused_maps(x, error, parts):
    with pytest.raises(error) as caught:
        golden_network()(x)
    assert all(words in str(caught.value) for words in parts.split("|")), caught.value


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (([], 4), ValueError, "in_channels_list must have one or more levels"),
        (([3, 0], 4), ValueError, r"at least 1 channel, got \[3, 0\]"),
        (([3, 2.0], 4), TypeError, r"in_channels_list\[1\] must be a whole number, got float 2.0"),
        ((3, 4), TypeError, "in_channels_list must be a sequence of whole numbers, got int 3"),
        (([3], 0), ValueError, "out_channels must be at least 1, got 0"),
        (([3], None), TypeError, "out_channels must be a whole number"),
        (([3], 4, "p6p7"), ValueError, "extra_blocks must be one of 'maxpool', got 'p6p7'"),
        (([3], 4, True), TypeError, "extra_blocks must be a str, got bool True"),
    ],
)
def test_refused_settings(arguments, error, words):
    with pytest.raises(error, match=words):
        FeaturePyramidNetwork(*arguments)


def test_repr():
    fpn = FeaturePyramidNetwork((3, 4), 5, "maxpool")
    assert repr(fpn) == "FeaturePyramidNetwork([3, 4], 5, 'maxpool')"
    assert repr(eval(repr(fpn))) == repr(fpn)
