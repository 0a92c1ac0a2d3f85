"""Sessions of ONNX Runtime: what they are made of, what they share and copy, and what they refuse."""

import gc
import threading
import weakref

import numpy as np
import pytest
from onnx_models import (
    FEATURES,
    FEED,
    IMAGE,
    adapter,
    compute_with,
    evaluate,
    graph_with_convolutions,
    model,
    onnx,
    onnxruntime,
    run,
    run_theirs,
    session,
)

from cyroialign import roi_align


def test_within_convolutions():
    detector, feed = graph_with_convolutions(), FEED | {"x": IMAGE}
    np.testing.assert_allclose(run(detector, feed), run_theirs(detector, feed), rtol=0, atol=1e-5)


def test_model_is_not_changed():
    detector = graph_with_convolutions()
    before = detector.SerializeToString()
    session(detector)
    assert detector.SerializeToString() == before


def test_nodes_of_others_stay():
    """A model without RoiAlign, and a RoiAlign of another domain."""
    plain = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 16]> f (float[n] x) => (float[n] y) { y = Relu (x) }""")
    np.testing.assert_array_equal(run(plain, {"x": np.array([-1, 2], np.float32)}), [0, 2])
    foreign = onnx.parser.parse_model("""
        <ir_version: 9, opset_import: ["": 16, "own": 1]>
        f (float[n] x, float[n] boxes, float[n] images) => (float[n] y)
        { y = own.RoiAlign (x, boxes, images) }
        <domain: "own", opset_import: ["": 16]>
        RoiAlign (x, boxes, images) => (y) { y = Neg (x) }""")
    feed = {name: np.ones(2, np.float32) for name in ("x", "boxes", "images")}
    np.testing.assert_array_equal(run(foreign, feed), [-1, -1])


@pytest.mark.parametrize("form", ["proto", "bytes", "path", "str"])
def test_forms_of_models(form, tmp_path):
    """The weights lie beside the file, and the working directory is elsewhere."""
    detector, feed = graph_with_convolutions(), FEED | {"x": IMAGE}
    expected = run(detector, feed)
    given = {"proto": lambda: detector, "bytes": detector.SerializeToString}
    if form in ("path", "str"):
        path = tmp_path / "detector.onnx"
        onnx.save(detector, path, save_as_external_data=True, location="weights", size_threshold=1)
        assert (tmp_path / "weights").stat().st_size > 100
        given |= {"path": lambda: path, "str": lambda: str(path)}
    assert run(given[form](), feed).tobytes() == expected.tobytes()
    np.testing.assert_allclose(evaluate(given[form](), feed), expected, rtol=0, atol=1e-5)


def test_relative_path_and_link(tmp_path, monkeypatch):
    """The weights lie beside the path as it is given, as where a cache of models links to its files."""
    for folder in ("models", "files"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "models")
    onnx.save(graph_with_convolutions(), "m.onnx", save_as_external_data=True, size_threshold=1)
    assert run("m.onnx", FEED | {"x": IMAGE}).shape == (30, 4, 5, 5)
    file = (tmp_path / "models/m.onnx").rename(tmp_path / "files/m.onnx")
    (tmp_path / "models/m.onnx").symlink_to(file)
    monkeypatch.chdir(tmp_path)
    assert run("models/m.onnx", FEED | {"x": IMAGE}).shape == (30, 4, 5, 5)


def test_chosen_nodes(monkeypatch):
    sizes = []
    compute_with(
        monkeypatch,
        lambda *args, **settings: sizes.append(settings["output_size"]) or roi_align(*args, **settings),
    )
    two = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 16]>
        crop (float[n, c, h, w] x, float[k, 4] boxes, int64[k] images)
            => (float[k, c, p, q] y, float[k, c, r, s] z)
        {
            [small] y = RoiAlign (x, boxes, images)
            [large] z = RoiAlign <output_height = 9> (x, boxes, images)
        }""")
    outputs = session(two, nodes=["large"]).run(None, FEED)
    assert sizes == [(9, 1)]
    for output, expected in zip(session(two).run(None, FEED), outputs, strict=True):
        np.testing.assert_allclose(output, expected, rtol=0, atol=4e-6)
    assert sorted(sizes) == [(1, 1), (9, 1), (9, 1)]
    sizes.clear()
    session(two, nodes=()).run(None, FEED)
    assert not sizes
    with pytest.raises(ValueError, match=r"model, \['large', 'small'\], got \['larger'\]"):
        session(two, nodes=["small", "larger"])


def test_session_options_serve_again():
    """ONNX Runtime refuses to register an operator twice with the same options."""
    options = onnxruntime.SessionOptions()
    first, second = (session(model(), sess_options=options) for _ in range(2))
    assert first.run(None, FEED)[0].tobytes() == second.run(None, FEED)[0].tobytes()


@pytest.fixture
def calls(monkeypatch):
    """Record the calls of roi_align, which get parts of any size: the RoIs and threads of each."""
    seen = []

    def remember(features, boxes, **settings):
        seen.append((len(boxes), settings.get("num_threads")))
        return roi_align(features, boxes, **settings)

    monkeypatch.setattr(adapter, "PART", 1)
    compute_with(monkeypatch, remember)
    return seen


@pytest.mark.parametrize(("threads", "parts"), [(1, 1), (3, 12), (50, 30)])
def test_threads_are_those_of_the_session(threads, parts, calls):
    """Of OpenMP none but the one that calls; the parts are nearly equal, and the bits the same."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    output = run(model(), FEED, sess_options=options)
    expected = roi_align(FEATURES, FEED["boxes"], (7, 4), 0.25, aligned=True, batch_indices=FEED["images"])
    assert output.tobytes() == expected.tobytes()
    sizes, counts = zip(*calls, strict=True)
    assert len(sizes) == parts
    assert sum(sizes) == len(FEED["boxes"])
    assert max(sizes) - min(sizes) <= 1
    assert set(counts) == {1}


def test_parts_run_at_once(monkeypatch):
    """Two parts wait for each other: on one thread they would wait for ever."""
    both = threading.Barrier(2, timeout=60)

    def meet(features, boxes, **settings):
        both.wait()
        return roi_align(features, boxes, **settings)

    monkeypatch.setattr(adapter, "PART", FEATURES.shape[1] * 7 * 4 * 15)
    compute_with(monkeypatch, meet)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    assert len(run(model(), FEED, sess_options=options)) == 30


def test_small_calls_are_not_parted(calls, monkeypatch):
    monkeypatch.setattr(adapter, "PART", len(FEED["boxes"]) * 5 * 7 * 4)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 3
    run(model(), FEED, sess_options=options)
    assert len(calls) == 1


def test_errors_of_a_part_name_the_box_among_all(calls):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 3
    crop = session(model(), sess_options=options)
    with pytest.raises(Exception, match=r"boxes\[17\] has batch_index 3, but input has 2 images"):
        crop.run(None, FEED | changed("images", 17, 3))
    longer = {"images": np.zeros(40, np.int64)}
    with pytest.raises(Exception, match=r"batch_indices must have shape \(30,\)"):
        crop.run(None, FEED | longer)
    assert len(crop.run(None, FEED)[0]) == 30


def test_tensors_are_not_copied(monkeypatch):
    """The input of the session, and the output that is bound to memory of the caller."""
    seen = []
    compute_with(
        monkeypatch,
        lambda features, *args, out, **settings: (
            seen.append((features.ctypes.data, out.ctypes.data, features.flags.writeable))
            or roi_align(features, *args, out=out, **settings)
        ),
    )
    crop = session(model())
    output = np.full((len(FEED["boxes"]), 5, 7, 4), np.nan, np.float32)
    binding = crop.io_binding()
    for name, array in FEED.items():
        binding.bind_cpu_input(name, array)
    binding.bind_output("y", "cpu", 0, np.float32, output.shape, output.ctypes.data)
    crop.run_with_iobinding(binding)
    assert seen == [(FEATURES.ctypes.data, output.ctypes.data, False)]
    assert output.tobytes() == run(model(), FEED).tobytes()


ARRAYS = onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 16]>
    crop (float x, float boxes, int64 images) => (float y) { y = RoiAlign (x, boxes, images) }""")
for value in (*ARRAYS.graph.input, *ARRAYS.graph.output):
    value.type.tensor_type.ClearField("shape")


def changed(name, place, value):
    array = FEED[name].copy()
    array[place] = value
    return {name: array}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (changed("images", 17, 3), r"boxes\[17\] has batch_index 3, but input has 2 images"),
        (changed("images", 17, -1), r"boxes\[17\] has batch_index -1, but input has 2 images"),
        (changed("images", 0, -(2**63)), r"boxes\[0\] has batch_index -9223372036854775808"),
        (changed("boxes", (7, 2), np.nan), r"boxes\[7\] must be finite"),
        (changed("boxes", (7, 2), np.inf), r"boxes\[7\] must be finite"),
        ({"boxes": FEED["boxes"][:, :3]}, r"boxes must have shape \(K, 4\), got \(30, 3\)"),
        ({"boxes": FEED["boxes"][0]}, r"boxes must have shape \(K, 4\), got \(4,\)"),
        ({"images": FEED["images"][:4]}, r"batch_indices must have shape \(30,\)"),
        ({"x": FEATURES[0]}, r"input must have 4 axes, got shape \(5, 19, 26\)"),
        ({"x": np.float32(1)}, r"input must have 4 axes, got shape \(\)"),
        ({"x": np.ones((1,) * 9, np.float32)}, "a tensor of RoiAlign has at most 4 axes, got 9"),
        ({"x": FEATURES[:, :, :0]}, "input must have pixels to pool 30 boxes from"),
    ],
)
def test_wrong_inputs(wrong, message):
    """Each is ONNX Runtime's error with our text, and the session goes on working."""
    crop = session(ARRAYS)
    feed = {name: np.asarray(array) for name, array in (FEED | wrong).items()}
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument, match=message):
        crop.run(None, feed)
    assert crop.run(None, FEED)[0].shape == (30, 5, 1, 1)


def test_wrong_inputs_of_the_evaluator():
    with pytest.raises(ValueError, match=r"boxes\[17\] has batch_index 3, but input has 2 images"):
        evaluate(model(), FEED | changed("images", 17, 3))


@pytest.mark.parametrize("names", [("boxes", "images"), ("x", "boxes", "images")])
def test_empty(names):
    feed = FEED | {name: FEED[name][:0] for name in names}
    assert run(model(), feed).shape == (0, 5, 7, 4)
    assert run(model(), FEED | {"x": FEATURES[:, :0]}).shape == (30, 0, 7, 4)


def test_huge_boxes_are_bounded():
    """Adaptive sampling of a box of 10⁹ pixels; ONNX Runtime's own would take 10¹⁵ samples."""
    feed = FEED | {"boxes": np.full_like(FEED["boxes"], 1e9) * [-1, -1, 1, 1]}
    feed["boxes"] = feed["boxes"].astype(np.float32)
    expected = roi_align(FEATURES, feed["boxes"], (7, 4), 0.25, aligned=True, batch_indices=FEED["images"])
    assert run(model(), feed).tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ('mode = "min"', "mode must be one of 'avg', 'max', got 'min'"),
        ('coordinate_transformation_mode = "no"', "coordinate_transformation_mode must be one of"),
        ("output_height = 0", "output_size must be at least 1"),
        ("spatial_scale = 0.0", "spatial_scale must be greater than 0"),
        ("sampling_ratio = 99999", "sampling_ratio must be at most 32767"),
    ],
)
def test_wrong_attributes(attributes, message):
    """A session is not even made; the evaluator finds out when it computes."""
    with pytest.raises(Exception, match=message):
        session(model(attributes=attributes))
    with pytest.raises(ValueError, match=message):
        evaluate(model(attributes=attributes), FEED)


def test_many_threads_at_once():
    crop, results = session(model()), {}
    expected = crop.run(None, FEED)[0].tobytes()

    def work(number):
        results[number] = [crop.run(None, FEED)[0].tobytes() for _ in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(result == expected for number in range(4) for result in results[number])


def test_nodes_are_freed_with_their_session(monkeypatch):
    nodes, prepare = [], adapter._prepare

    def remember(*node):
        compute = prepare(*node)
        nodes.append(weakref.ref(compute))
        return compute

    monkeypatch.setattr(adapter, "_prepare", remember)
    crop = session(model())
    crop.run(None, FEED)
    assert nodes[0]() is not None
    del crop
    gc.collect()
    assert nodes[0]() is None


def test_session_that_outlives_python(run_python):
    run_python("""
        import numpy as np, onnx, cyroialign.onnx
        model = onnx.parser.parse_model('''
            <ir_version: 8, opset_import: ["": 16]>
            crop (float[n, c, h, w] x, float[k, 4] boxes, int64[k] images) => (float[k, c, p, q] y)
            { y = RoiAlign (x, boxes, images) }''')
        kept = cyroialign.onnx.inference_session(model)
        kept.itself = kept
        kept.run(None, {
            "x": np.ones((1, 1, 4, 4), np.float32),
            "boxes": np.ones((1, 4), np.float32),
            "images": np.zeros(1, np.int64),
        })
    """)


def test_threads_of_the_runtime():
    """Nodes that the runtime runs side by side, on threads that Python does not know."""
    two = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["": 16]>
        crop (float[n, c, h, w] x, float[k, 4] boxes, int64[k] images)
            => (float[k, c, p, q] y, float[k, c, p, q] z)
        { y = RoiAlign (x, boxes, images) z = RoiAlign <mode = "max"> (x, boxes, images) }""")
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_PARALLEL
    options.inter_op_num_threads = 2
    outputs = session(two, sess_options=options).run(None, FEED)
    for output, mode in zip(outputs, ["avg", "onnx_max"], strict=True):
        expected = roi_align(
            FEATURES, FEED["boxes"], 1, aligned=True, batch_indices=FEED["images"], mode=mode
        )
        assert output.tobytes() == expected.tobytes()


def test_the_core_does_not_import_it(run_python):
    run_python("""
        import sys, cyroialign
        assert not {"onnx", "onnxruntime", "cyroialign._kernels._onnxruntime"} & set(sys.modules)
    """)
