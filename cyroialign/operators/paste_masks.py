"""Pasting the masks of a mask head into images: RoIAlign the other way round."""

from typing import TYPE_CHECKING

import numpy as np

from cyroialign._kernels import paste
from cyroialign.arguments import dtypes, validation
from cyroialign.arguments.threads import threads_for

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

RULES = ("torchvision", "detectron2")
CHUNK = 1 << 22  # pixels of narrow images that are summed before they are rounded, about


def paste_masks(
    masks: "ArrayLike",
    boxes: "ArrayLike",
    image_shape: tuple[int, int],
    *,
    rule: str = "torchvision",
    padding: int = 1,
    threshold: float | None = None,
    out: np.ndarray | None = None,
    num_threads: int | None = None,
) -> np.ndarray:
    r"""Paste each mask into an image of its own, where its box lies; the rest of the image is 0.

    Parameters
    ----------
    masks : (N, 1, M, M) array of float32, float64, float16, bfloat16 or uint8
        Square masks, as a mask head gives them for its detections. Any strides.
    boxes : (N, 4) array
        Rows of (x1, y1, x2, y2), in pixels of the image. Any float dtype or integers. Boxes may lie partly or
        wholly outside.
    image_shape : (int, int)
        Height and width of the images.
    rule : {"torchvision", "detectron2"}, optional
        Where the pixels of a mask lie: see Notes.
    padding : int, optional
        With the rule of torchvision, pixels of 0 around each mask, by which its box grows too.
    threshold : float, optional
        Instead of values, tell where they are at least so large. Each is compared as soon as it is computed:
        there never is an image of numbers.
    out : ndarray, optional
        Array of the result's shape and dtype to fill and return; C-contiguous, writeable, and sharing no
        memory with the inputs.
    num_threads : int, optional
        Threads for this call; by default those of `get_num_threads`.

    Returns
    -------
    (N, 1, height, width) ndarray
        Of the dtype of `masks`, but float32 for uint8; with a threshold, bool.

    Raises
    ------
    TypeError
        If an argument has a wrong type or dtype.
    ValueError
        If a shape or value is wrong: a box that is not finite, masks that are not square. The message
        names the first bad box. In that case `out` is unchanged.

    See Also
    --------
    roi_align : the way from an image to its boxes.

    Notes
    -----
    The rule of torchvision's ``paste_masks_in_image``: mask and box are grown by `padding` pixels of the mask
    on each side, the corners of the box are cut to whole numbers, and the mask is resized to
    ``max(x2 - x1 + 1, 1)`` by ``max(y2 - y1 + 1, 1)`` pixels, bilinearly, with half-pixel centres and edges
    that repeat. Of these pixels the image gets those that lie in it.

    The rule of detectron2 and of PyTorch's ``grid_sample`` leaves boxes as they are. The middle of a pixel of
    the image, at x + 0.5, lies on the mask at

    .. math:: u = \frac{x + 0.5 - x_1}{x_2 - x_1} M - 0.5

    and the mask is bilinear between its pixels, at 0, 1, ..., M - 1, and falls to 0 one pixel outside. An
    inverted box mirrors the mask; one without width or height pastes nothing.

    Corners are cut in float32 if `masks` and `boxes` are both float32 or narrower, else in float64. The
    threshold is rounded to the type in which values are summed, float32 or, for float64, float64, and so
    compared with them as NumPy and PyTorch do. Results have the same bits for every number of threads, and a
    mask does not depend on the others. Time and memory do not grow with how far a box reaches outside the
    image: without `out`, a part of the result that no mask reaches is not even written.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> mask = np.array([[[[0.9, 0.4], [0.6, 0.1]]]], np.float32)
    >>> box = np.array([[1, 0, 5, 4]], np.float32)
    >>> cyroialign.paste_masks(mask, box, (5, 6), rule="detectron2", threshold=0.5).astype(int)
    array([[[[0, 1, 1, 0, 0, 0],
             [0, 1, 1, 0, 0, 0],
             [0, 1, 1, 0, 0, 0],
             [0, 0, 0, 0, 0, 0],
             [0, 0, 0, 0, 0, 0]]]])
    """
    given = validation.square_masks(masks)
    corners = validation.box_array(boxes, "boxes", 4)
    validation.box_a_mask(corners.shape, given.shape)
    shape = (len(given), 1, *validation.image_shape(image_shape))
    validation.choice(rule, "rule", RULES)
    padding = validation.not_negative(padding, "padding")
    if rule == "detectron2":
        padding = 0
    kind, dtype = dtypes.of_sums(given.dtype), dtypes.of_result(given.dtype).newbyteorder("=")
    if threshold is not None:
        dtype, threshold = np.dtype(bool), validation.finite_number(threshold, "threshold")
        with np.errstate(over="ignore"):
            threshold = float(kind.type(threshold))
    if out is not None:
        validation.output_array(out, shape, dtype, (0, 1, 2, 3), [given, corners])
    single = kind == dtypes.FLOAT32 and np.can_cast(corners.dtype, dtypes.FLOAT32)
    rounded = corners.astype(np.float32 if single else np.float64)
    find = _whole_spans if rule == "torchvision" else _spans
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
        spans = find(rounded, given.shape[-1], padding, shape[2:])
    bad = np.flatnonzero(~np.isfinite(spans).all(axis=(1, 2)))
    if bad.size:
        row = bad[0]
        validation.raise_bad_corners(corners[row], f"boxes[{row}]", single)
    settings = (float(padding), rule == "detectron2" or padding > 0, threshold)
    numbers = np.require(given[:, 0].astype(kind, copy=False), kind, ["C", "A"])
    return _filled(numbers, spans, shape, dtype, out, settings, threads_for(num_threads))


def _filled(
    masks: np.ndarray,
    spans: np.ndarray,
    shape: tuple[int, ...],
    dtype: np.dtype,
    out: np.ndarray | None,
    settings: tuple[float, bool, float | None],
    threads: tuple[int, bool],
) -> np.ndarray:
    """Let the kernels fill the result, or of narrow results some sums at a time, which are rounded."""
    blank = out is None and not (settings[2] is not None and settings[2] <= 0)
    result = (np.zeros if blank else np.empty)(shape, dtype) if out is None else out
    if not result.size:
        return result
    if dtype in (masks.dtype, np.bool_) and result.flags.aligned:
        paste(masks, spans, result[:, 0].view(np.uint8), *settings, blank, *threads)
        return result
    step = max(1, CHUNK // (shape[2] * shape[3]))
    for i in range(0, len(masks), step):
        some = slice(i, i + step)
        sums = np.zeros((len(masks[some]), *shape[2:]), masks.dtype)
        paste(masks[some], spans[some], sums.view(np.uint8), *settings, True, *threads)
        with np.errstate(over="ignore", under="ignore"):
            np.copyto(result[some, 0], sums, casting="unsafe")
    return result


def _whole_spans(boxes: np.ndarray, side: int, padding: int, image: tuple[int, ...]) -> np.ndarray:
    """Where the rule of torchvision stretches masks, (N, 2, 4): see Span in src/once/paste.pxi."""
    half = (boxes[:, 2:] - boxes[:, :2]) * boxes.dtype.type(0.5)
    middle = (boxes[:, 2:] + boxes[:, :2]) * boxes.dtype.type(0.5)
    half *= boxes.dtype.type((side + 2 * padding) / max(side, 1))
    start = np.trunc(middle - half).astype(np.float64)
    end = np.trunc(middle + half).astype(np.float64)
    return _within(start, np.maximum(end - start + 1, 1), start, end + 1, image)


def _spans(boxes: np.ndarray, side: int, padding: int, image: tuple[int, ...]) -> np.ndarray:
    """The same with the rule of detectron2: to half a pixel of the mask around a box it is not yet 0."""
    size = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    start = boxes[:, :2].astype(np.float64)
    rim = size / (2 * max(side, 1))
    edges = np.stack([start - rim, start + (size + rim)])
    first, last = np.floor(edges.min(axis=0)) - 1, np.where(size == 0, -1, np.ceil(edges.max(axis=0)) + 1)
    return _within(start, size, first, last, image)


def _within(
    start: np.ndarray, size: np.ndarray, first: np.ndarray, last: np.ndarray, image: tuple[int, ...]
) -> np.ndarray:
    """Put spans together, of y and of x, with the pixels of the image that they have."""
    width_height = np.array(image[::-1], np.float64)
    numbers = [start, size, np.clip(first, 0, width_height), np.clip(last, 0, width_height)]
    return np.ascontiguousarray(np.stack(numbers, axis=-1)[:, ::-1])
