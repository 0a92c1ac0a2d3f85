"""The step that each worker of the cluster does: paths of images in, a row of features for each out.

It knows neither Ray nor Dask, whose scripts are beside it. Its settings are those of all their results.
"""

import hashlib
import io
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import parser
from PIL import Image

from cyroialign import MultiScaleRoIAlign

SIDE = 256  # of the square that images are resized to
LEVELS = {"p2": 4, "p3": 8, "p4": 16}  # outputs of the backbone, and their strides
CHANNELS = 32
BINS = 3
IMAGES_PER_PART = 16  # what is done, or done again, as a whole
SUFFIXES = {".jpg", ".jpeg", ".png"}


def regions():
    """Return (14, 4) boxes: the whole image, its quarters, and its ninths.

    A detector's proposals are as good, if each image has the same number of them.
    """
    boxes = []
    for cells in (1, 2, 3):
        y, x = np.mgrid[:cells, :cells].reshape(2, -1)
        boxes.append(np.stack([x, y, x + 1, y + 1], axis=1) * (SIDE / cells))
    return np.concatenate(boxes).astype(np.float32)


def find_images(folder):
    """Return the paths of all images below a folder, sorted, so that every run has the same order."""
    return sorted(str(path) for path in pathlib.Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)


def decode(paths):
    """Return uint8 images (N, 3, SIDE, SIDE), and for each what went wrong, or an empty string.

    An image that cannot be decoded is black: one of them must not end the job for all others. A file that
    cannot be read does end it, since the disk may be at fault and not the file.
    """
    images, errors = np.zeros((len(paths), 3, SIDE, SIDE), np.uint8), [""] * len(paths)
    for number, path in enumerate(paths):
        data = pathlib.Path(path).read_bytes()
        try:
            with Image.open(io.BytesIO(data)) as image:
                square = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        except Exception as error:  # Pillow's decoders raise many kinds
            errors[number] = type(error).__name__  # its text may name an address, which differs each time
        else:
            images[number] = np.asarray(square).transpose(2, 0, 1)
    return images, errors


def random_backbone():
    """Return a small convolutional network, a serialised ONNX model; its random weights are always the same.

    A trained one has the same input, uint8 images that it converts and normalises itself, and as outputs
    a map for each of LEVELS.
    """
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        backbone (uint8[n, 3, h, w] images)
            => (float[n, c, h2, w2] p2, float[n, c, h3, w3] p3, float[n, c, h4, w4] p4)
        <float scale = {0.00392156862745098}>
        {
            real = Cast <to = 1> (images)
            unit = Mul (real, scale)
            c1 = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (unit, w1)
            r1 = Relu (c1)
            c2 = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (r1, w2)
            p2 = Relu (c2)
            c3 = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (p2, w3)
            p3 = Relu (c3)
            c4 = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (p3, w4)
            p4 = Relu (c4)
        }""")
    rng = np.random.default_rng(0)
    for number, channels in enumerate((3, CHANNELS, CHANNELS, CHANNELS), 1):
        weights = rng.standard_normal((CHANNELS, channels, 3, 3), np.float32) / np.sqrt(9 * channels / 2)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights.astype(np.float32), f"w{number}"))
    return model.SerializeToString()


def read_model(path):
    """Return the serialised model of a file, or the random one if there is none."""
    return pathlib.Path(path).read_bytes() if path else random_backbone()


def digest(model):
    """Tell one model from another."""
    return hashlib.sha256(model).hexdigest()


class Step:
    """Backbone and pooling, with a number of threads that holds for both.

    Parameters
    ----------
    model : bytes
        As from `read_model`.
    num_threads : int
        How many threads the worker computes with.
    """

    def __init__(self, model, num_threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = (
            num_threads  # it does not read OMP_NUM_THREADS, and would take all cores
        )
        options.inter_op_num_threads = 1
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # leave the core to the pooling
        self.session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.pool = MultiScaleRoIAlign(list(LEVELS), BINS, 2, aligned=True, num_threads=num_threads)
        self.boxes = regions()

    def maps(self, images):
        """Return the pyramid of images, which are read where they are: read-only memory is fine."""
        return dict(zip(LEVELS, self.session.run(list(LEVELS), {"images": images}), strict=True))

    def pooled(self, maps):
        """Return (N, boxes, CHANNELS, BINS, BINS) features of the regions."""
        count = len(maps["p2"])
        pooled = self.pool(maps, [self.boxes] * count, [(SIDE, SIDE)] * count)
        return pooled.reshape(count, len(self.boxes), *pooled.shape[1:])

    def __call__(self, images, errors):
        """Return the features of the images, NaN for those with an error."""
        features = self.pooled(self.maps(images))
        features[np.array(errors) != ""] = np.nan
        return features
