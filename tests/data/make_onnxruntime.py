"""Make the goldens onnxruntime_max.npz: what ONNX Runtime's RoiAlign with mode "max" makes of other goldens.

    python tests/data/make_onnxruntime.py            make it anew, of the inputs of torchvision_roi_align.npz
    python tests/data/make_onnxruntime.py --check    compare what it holds with what is made today

The file of today was made by ONNX Runtime 1.31.1. Cases that it refuses, without boxes, are left out.
"""

import argparse
import json
import pathlib

import numpy as np
import onnx
import onnx.helper
import onnxruntime

HERE = pathlib.Path(__file__).parent
OPSET = 16  # the first with coordinate_transformation_mode
TOLERANCE = {"float32": 4e-6, "float64": 1e-12}  # of the largest value


def model(settings, dtype):
    """One RoiAlign with the settings of a case."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    rows, columns = settings["output_size"]
    node = onnx.helper.make_node(
        "RoiAlign",
        ["x", "boxes", "images"],
        ["y"],
        mode="max",
        output_height=rows,
        output_width=columns,
        spatial_scale=settings["spatial_scale"],
        sampling_ratio=max(settings["sampling_ratio"], 0),
        coordinate_transformation_mode="half_pixel" if settings["aligned"] else "output_half_pixel",
    )
    inputs = [
        onnx.helper.make_tensor_value_info("x", kind, [None] * 4),
        onnx.helper.make_tensor_value_info("boxes", kind, [None, 4]),
        onnx.helper.make_tensor_value_info("images", onnx.TensorProto.INT64, [None]),
    ]
    output = onnx.helper.make_tensor_value_info("y", kind, [None] * 4)
    graph = onnx.helper.make_graph([node], "golden", inputs, [output])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=8)
    return made.SerializeToString()


def results():
    onnxruntime.set_default_logger_severity(3)  # it warns of its maximum, which is the one of its definition
    given, found = np.load(HERE / "torchvision_roi_align.npz"), {}
    for case, settings in enumerate(json.loads(str(given["cases"]))):
        input, boxes = given[f"{case:03}/input"], given[f"{case:03}/boxes"]
        if not len(boxes):
            continue
        feed = {"x": input, "boxes": boxes[:, 1:].copy(), "images": boxes[:, 0].astype(np.int64)}
        session = onnxruntime.InferenceSession(
            model(settings, input.dtype), providers=["CPUExecutionProvider"]
        )
        [found[f"{case:03}/onnx_max"]] = session.run(None, feed)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    path, made = HERE / "onnxruntime_max.npz", results()
    if not parser.parse_args().check:
        np.savez_compressed(path, **made)
        return
    given = np.load(path)
    assert set(given.files) == set(made)
    for name, array in made.items():
        atol = TOLERANCE[array.dtype.name] * np.abs(given[name]).max()
        np.testing.assert_allclose(given[name], array, rtol=0, atol=atol, err_msg=name)
    print(f"{path.name}: {len(made)} results agree")


if __name__ == "__main__":
    main()
