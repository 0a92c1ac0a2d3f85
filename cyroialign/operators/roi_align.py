"""RoIAlign: regions of interest, sampled to a grid of bins by bilinear interpolation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cyroialign._kernels import MAX, MEAN, ONNX_MAX
from cyroialign.arguments import validation
from cyroialign.operators import calls
from cyroialign.operators.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

POOLINGS = {"avg": MEAN, "max": MAX, "onnx_max": ONNX_MAX}


def roi_align(
    input: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    output_size: int | tuple[int, int],
    spatial_scale: float | tuple[float, float] = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    *,
    batch_indices: "ArrayLike | None" = None,
    mode: str = "avg",
    layout: str = "NCHW",
    out: np.ndarray | None = None,
    num_threads: int | None = None,
) -> np.ndarray:
    r"""Pool each box of a feature map into a grid of bins: the mean or maximum of bilinear samples.

    Parameters
    ----------
    input : (N, C, H, W) array of float32, float64, float16, bfloat16, uint8 or int8
        Feature maps; (N, H, W, C) with ``layout="NHWC"``. Memory in the order of either layout is read
        in place, so a transposed view costs nothing; other strides cost one copy.
    boxes : (K, 5) array, or sequence of N arrays (L_i, 4), or (K, 4) array with `batch_indices`
        Rows of (batch_index, x1, y1, x2, y2), or for each image rows of (x1, y1, x2, y2), in pixels of
        the space that `spatial_scale` maps onto the feature map, usually the image that the network was
        given. Any float or integer dtype. Boxes may lie partly or entirely outside the map.
    output_size : int or (int, int)
        Number of bins: (height, width) of the result.
    spatial_scale : float or (float, float), optional
        Feature pixels per unit of the boxes, such as 1/16 for a map of stride 16; or a pair (y, x).
    sampling_ratio : int, optional
        Samples per bin on each axis, at most 32767. If 0 or less, the number adapts to the box:
        ceil(roi_height / height) by ceil(roi_width / width).
    aligned : bool, optional
        True subtracts half a pixel from the scaled coordinates, so that they refer to the centres of
        pixels (detectron2, ONNX ``half_pixel``). False is torchvision's default: no shift, and RoIs are
        at least one pixel wide and high.
    batch_indices : (K,) array of int, optional
        The image of each box, when `boxes` is (K, 4).
    mode : {"avg", "max", "onnx_max"}, optional
        How the samples of a bin become one value: their mean, the largest of them, or ONNX's maximum, which
        is the largest of all their neighbours, each times its weight.
    layout : {"NCHW", "NHWC"}, optional
        The order of the axes of `input`, of the result and of `out`.
    out : ndarray, optional
        Array to fill and return, with the result's shape and dtype. It must be writeable, C-contiguous or
        in the memory order of `input`, and share no memory with the inputs.
    num_threads : int, optional
        Threads for this call; by default those of `get_num_threads`, or fewer where others need
        the cores.

    Returns
    -------
    (K, C, height, width) ndarray
        Of the dtype of `input`, but float32 for uint8 and int8, and of its memory order; (K, height, width,
        C) with ``layout="NHWC"``.

    Raises
    ------
    TypeError
        If an argument has a wrong type or dtype.
    ValueError
        If a shape or value is wrong: a box that is not finite, an image that does not exist, a
        map without pixels. The message names the first bad box. In that case `out` is unchanged.

    See Also
    --------
    roi_align_backward : the gradient with respect to the feature map.
    RoIAlign : the same, as an object that keeps the settings.

    Notes
    -----
    A RoI starts at ``x1 * spatial_scale - offset``, where offset is 1/2 if aligned, else 0. Each of its
    bins is ``bin_w = roi_w / width`` wide, and sample ``i`` of ``g`` in bin ``p`` lies at [1]_

    .. math:: x = start_w + p \cdot bin_w + (i + 1/2) \cdot bin_w / g

    A sample more than one pixel outside the map is 0; others are clamped to the map and interpolated
    between four pixels. A bin is the mean of its samples, and 0 if it has none: with adaptive sampling
    an aligned box of zero or negative size. Positions are computed in float32 if `input` and `boxes` are
    both float32 or narrower, else in float64, with every step rounded as in torchvision.

    With ``mode="max"`` a bin is its largest sample (MMCV's maximum [2]_, and what papers call "the maximum
    of the samples"). A sample out of range counts as 0, as in the mean; a bin whose samples are all in range
    may be negative. With ``mode="onnx_max"`` it is ONNX's maximum [3]_, which does not sum the four
    neighbours of a sample:

    .. math:: \max_{\text{samples}} \max(w_1 v_1, w_2 v_2, w_3 v_3, w_4 v_4)

    as onnxruntime computes it, where a neighbour of weight 0 and a sample out of range count as 0. In both
    modes, a bin with a NaN among its samples (or weighted neighbours) is NaN, but a neighbour of weight 0
    always counts as 0. Of the samples of a bin between the same pixels, only the first and the last on each
    axis are examined: interpolation is linear between pixels, so no other can be larger except by rounding.

    The result of a map of float16 or bfloat16 (that of the package ml_dtypes) is what float32 gives, rounded
    once, to nearest; that of uint8 or int8 is of float32, since a mean of bytes is none. The mean converts
    such maps in registers, as it reads them; for a maximum they are copied as float32.

    The rules and defaults are torchvision's. Other libraries, by default or when asked to:

    - detectron2 (ROIAlignV2), MMCV, PaddlePaddle: ``aligned=True``.
    - ONNX, onnxruntime: a ``coordinate_transformation_mode`` of "half_pixel", the default since opset 16, is
      ``aligned=True``; "output_half_pixel", and any RoiAlign of an older opset, is ``aligned=False``. Its
      ``sampling_ratio`` means the same, 0 being adaptive, and its mode "max" is ``mode="onnx_max"``. The
      ReferenceEvaluator of the package onnx subtracts half a pixel in any opset.
    - OpenVINO: "asymmetric" is ``aligned=False`` and "half_pixel_for_nn" ``aligned=True``. "half_pixel" is
      ``aligned=True`` with 0.5 added to every coordinate.
    - Maxima: MMCV's starts at -10000 and OpenVINO's at 0, which hides smaller values; here none is hidden.
      ``np.maximum(output, 0)`` is OpenVINO's.
    - An aligned box without area, which has no samples, is NaN in OpenVINO and PaddlePaddle, and 0 here.
    - TensorFlow's ``crop_and_resize`` is not RoIAlign: it takes one sample per bin, from corner to corner.

    Results have the same bits for any number of threads and any SIMD level, and do not
    depend on the other boxes of the call. Time and memory do not grow with how far a box reaches outside
    the map. A NaN or infinity reaches only the bins that sample one of its neighbours.

    References
    ----------
    .. [1] He, Gkioxari, Dollár, Girshick, "Mask R-CNN", ICCV 2017.
    .. [2] `mmcv.ops.RoIAlign <https://mmcv.readthedocs.io>`_ with ``pool_mode="max"``.
    .. [3] `RoiAlign <https://onnx.ai/onnx/operators/onnx__RoiAlign.html>`_ with ``mode="max"``.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> image = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    >>> boxes = np.array([[0, 1, 1, 3, 3]], np.float32)
    >>> cyroialign.roi_align(image, boxes, output_size=(2, 2), aligned=True)
    array([[[[ 6.,  7.],
             [11., 12.]]]], dtype=float32)

    The largest of four samples per bin instead of their mean:

    >>> cyroialign.roi_align(image, boxes, 2, sampling_ratio=2, aligned=True, mode="max")
    array([[[[ 7.5,  8.5],
             [12.5, 13.5]]]], dtype=float32)
    """
    return calls.forward(
        POOLINGS[validation.choice(mode, "mode", validation.MODES)],
        input,
        boxes,
        output_size,
        spatial_scale,
        sampling_ratio,
        aligned,
        batch_indices=batch_indices,
        layout=layout,
        out=out,
        num_threads=num_threads,
    )


def roi_align_backward(
    grad_output: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    input_shape: Sequence[int],
    spatial_scale: float | tuple[float, float] = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    *,
    batch_indices: "ArrayLike | None" = None,
    mode: str = "avg",
    input: "ArrayLike | None" = None,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
    num_threads: int | None = None,
) -> np.ndarray:
    """Return the gradient of `roi_align` with respect to its feature map.

    Parameters
    ----------
    grad_output : (K, C, height, width) array of float32, float64, float16 or bfloat16
        Gradient with respect to the result of `roi_align`; (K, height, width, C) with ``layout="NHWC"``.
    boxes, spatial_scale, sampling_ratio, aligned, batch_indices
        As given to `roi_align`.
    input_shape : sequence of 4 ints
        The shape of the feature map, in the order of `layout`.
    mode : {"avg", "max", "onnx_max"}, optional
        As given to `roi_align`.
    input : array of shape `input_shape` and the dtype of `grad_output`, or of a type that has such a gradient
        The feature map. The gradient of the mean does not depend on it, and it may be left out; that of a
        maximum does. Memory in another order than that of `grad_output` costs one copy.
    layout, num_threads : optional
        As in `roi_align`.
    out : ndarray, optional
        Array of shape `input_shape` to fill and return, as in `roi_align`; it is overwritten.

    Returns
    -------
    ndarray of shape `input_shape`
        With the dtype and memory order of `grad_output`.

    Raises
    ------
    TypeError
        If an argument has a wrong type or dtype, or `input` is missing with a maximum.
    ValueError
        If a shape or value is wrong, as in `roi_align`, or if `grad_output`, `boxes` and
        `input_shape` do not match. In that case `out` is unchanged.

    Notes
    -----
    The mean is linear in the map, and this is its transpose: ``(roi_align(x) * g).sum() == (x *
    roi_align_backward(g)).sum()`` to rounding.

    With ``mode="max"`` the gradient of a bin goes to the four neighbours of its largest sample, each times
    its weight; with ``"onnx_max"`` to the neighbour whose product is the largest, times its weight. On a tie
    the first wins: samples are ordered row by row, neighbours column by column. If the winner is a sample out
    of range, or a bin has no samples, the gradient is dropped; if a bin is NaN, it goes to the first NaN.
    The winners are found again from `input`.

    The sums of a gradient of float16 or bfloat16 are kept in float32, and rounded once at the end. They run
    in an order that depends only on the boxes, without atomic operations, so the result has the same
    bits for any number of threads and any SIMD level.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> boxes = np.array([[0, 1, 1, 3, 3]], np.float32)
    >>> gradient = np.ones((1, 1, 1, 1), np.float32)
    >>> cyroialign.roi_align_backward(gradient, boxes, (1, 1, 3, 3), sampling_ratio=1)[0, 0]
    array([[0., 0., 0.],
           [0., 0., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    if validation.choice(mode, "mode", validation.MODES) != "avg":
        validation.map_for_gradient(input, mode)
    return calls.backward(
        POOLINGS[mode],
        grad_output,
        boxes,
        input_shape,
        spatial_scale,
        sampling_ratio,
        aligned,
        input=input,
        batch_indices=batch_indices,
        layout=layout,
        out=out,
        num_threads=num_threads,
    )


class RoIAlign(Settings):
    """`roi_align` and its gradient, with fixed settings.

    Parameters
    ----------
    output_size, spatial_scale, sampling_ratio, aligned, mode, layout, num_threads
        As in `roi_align`.

    Examples
    --------
    >>> import numpy as np
    >>> from cyroialign import RoIAlign
    >>> pool = RoIAlign(output_size=7, spatial_scale=1 / 16, sampling_ratio=2, aligned=True)
    >>> features = np.random.default_rng(0).random((1, 256, 50, 68), np.float32)
    >>> crops = pool(features, [np.array([[32.0, 48.0, 256.0, 320.0]])])
    >>> crops.shape
    (1, 256, 7, 7)
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float | tuple[float, float] = 1.0,
        sampling_ratio: int = -1,
        aligned: bool = False,
        *,
        mode: str = "avg",
        layout: str = "NCHW",
        num_threads: int | None = None,
    ) -> None:
        validation.output_size(output_size)
        validation.spatial_scale(spatial_scale, single=False)
        validation.sampling_ratio(sampling_ratio)
        validation.flag(aligned, "aligned")
        validation.choice(mode, "mode", validation.MODES)
        validation.choice(layout, "layout", validation.LAYOUTS)
        if num_threads is not None:
            validation.thread_count(num_threads, "num_threads")
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.mode = mode
        self.layout = layout
        self.num_threads = num_threads

    def __call__(self, input: "ArrayLike", boxes: "ArrayLike | Sequence[ArrayLike]") -> np.ndarray:
        """Return ``roi_align(input, boxes, ...)`` with these settings."""
        return roi_align(
            input,
            boxes,
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
            mode=self.mode,
            layout=self.layout,
            num_threads=self.num_threads,
        )

    def backward(
        self,
        grad_output: "ArrayLike",
        boxes: "ArrayLike | Sequence[ArrayLike]",
        input_shape: Sequence[int],
        input: "ArrayLike | None" = None,
    ) -> np.ndarray:
        """Return ``roi_align_backward(grad_output, boxes, input_shape, ...)`` with these settings."""
        return roi_align_backward(
            grad_output,
            boxes,
            input_shape,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
            mode=self.mode,
            input=input,
            layout=self.layout,
            num_threads=self.num_threads,
        )
