"""PSRoIPool: averages of whole pixels in which each bin has its own channels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cyroialign._kernels import PS_ROI_POOL
from cyroialign.arguments import validation
from cyroialign.operators import calls
from cyroialign.operators.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def ps_roi_pool(
    input: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    output_size: int | tuple[int, int],
    spatial_scale: float | tuple[float, float] = 1.0,
    *,
    batch_indices: "ArrayLike | None" = None,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
    num_threads: int | None = None,
) -> np.ndarray:
    r"""Pool each box by averaging whole pixels, each bin from its own channels.

    Parameters
    ----------
    input : (N, C * height * width, H, W) array of float32, float64, float16, bfloat16, uint8 or int8
        Feature maps, with C channels for each bin; (N, H, W, C * height * width) with ``layout="NHWC"``.
        Memory in the order of either layout is read in place, so a transposed view costs nothing; other
        strides cost one copy.
    boxes : (K, 5) array, or sequence of N arrays (L_i, 4), or (K, 4) array with `batch_indices`
        Rows of (batch_index, x1, y1, x2, y2), or for each image rows of (x1, y1, x2, y2), in pixels of
        the space that `spatial_scale` maps onto the feature map, usually the image that the network was
        given. Any float or integer dtype. Boxes may lie partly or entirely outside the map.
    output_size : int or (int, int)
        Number of bins: (height, width) of the result.
    spatial_scale : float or (float, float), optional
        Feature pixels per unit of the boxes, such as 1/16 for a map of stride 16; or a pair (y, x).
    batch_indices : (K,) array of int, optional
        The image of each box, when `boxes` is (K, 4).
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
        map without pixels, channels that are not a multiple of the bins. The message names the first bad
        box. In that case `out` is unchanged.

    See Also
    --------
    ps_roi_pool_backward : the gradient with respect to the feature map.
    ps_roi_align : bilinear samples instead of whole pixels.
    PSRoIPool : the same, as an object that keeps the settings.

    Notes
    -----
    Bin ``(i, j)`` of channel ``c`` of the result reads one channel of the map [1]_,

    .. math:: c_{in} = (c \cdot height + i) \cdot width + j,

    and is the mean of its pixels, 0 if it has none. The edges of a box are rounded to whole pixels, halves
    away from zero, and the far edge is the first pixel outside the box:

    .. math:: start_w = round(x_1 \cdot scale), \qquad roi_w = \max(round(x_2 \cdot scale) - start_w, 1)

    With ``bin_w = roi_w / width``, bin ``p`` covers the pixels from ``start_w + floor(p * bin_w)`` up to,
    but not including, ``start_w + ceil((p + 1) * bin_w)``, clipped to the map: neighbouring bins may
    share a pixel. All of this is computed in float32 if `input` and `boxes` are both float32 or narrower,
    else in float64.

    The rule is torchvision's, and it has a quirk: the last row and the last column of the map belong to no
    bin, although the gradient includes them (see `ps_roi_pool_backward`). To include them, give the map one
    more row and column, of any value: ``np.pad(input, ((0, 0), (0, 0), (0, 1), (0, 1)))``.

    The result of a map of float16, bfloat16 (that of the package ml_dtypes), uint8 or int8 is what float32
    gives, rounded once to the dtype of the result. Such a map is copied as float32.

    Results have the same bits for any number of threads and any SIMD level, and do not
    depend on the other boxes of the call. Time and memory do not grow with how far a box reaches outside
    the map. A NaN or infinity reaches only the bins that hold it.

    References
    ----------
    .. [1] Dai, Li, He, Sun, "R-FCN: Object Detection via Region-based Fully Convolutional
       Networks", NeurIPS 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> image = np.arange(100, dtype=np.float32).reshape(1, 4, 5, 5)
    >>> boxes = np.array([[0, 0, 0, 4, 4]], np.float32)  # 4 by 4 pixels, 2 by 2 per bin
    >>> cyroialign.ps_roi_pool(image, boxes, output_size=2)
    array([[[[ 3., 30.],
             [63., 90.]]]], dtype=float32)
    """
    return calls.forward(
        PS_ROI_POOL,
        input,
        boxes,
        output_size,
        spatial_scale,
        batch_indices=batch_indices,
        layout=layout,
        out=out,
        num_threads=num_threads,
    )


def ps_roi_pool_backward(
    grad_output: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    input_shape: Sequence[int],
    spatial_scale: float | tuple[float, float] = 1.0,
    *,
    batch_indices: "ArrayLike | None" = None,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
    num_threads: int | None = None,
) -> np.ndarray:
    """Return the gradient of `ps_roi_pool` with respect to its feature map.

    Parameters
    ----------
    grad_output : (K, C, height, width) array of float32, float64, float16 or bfloat16
        Gradient with respect to the result of `ps_roi_pool`; (K, height, width, C) with ``layout="NHWC"``.
    boxes, spatial_scale, batch_indices
        As given to `ps_roi_pool`.
    input_shape : sequence of 4 ints
        The shape of the feature map, in the order of `layout`; it has C * height * width channels.
    layout, num_threads : optional
        As in `ps_roi_pool`.
    out : ndarray, optional
        Array of shape `input_shape` to fill and return, as in `ps_roi_pool`; it is overwritten.

    Returns
    -------
    ndarray of shape `input_shape`
        With the dtype and memory order of `grad_output`.

    Raises
    ------
    TypeError
        If an argument has a wrong type or dtype.
    ValueError
        If a shape or value is wrong, as in `ps_roi_pool`, or if `grad_output`, `boxes` and
        `input_shape` do not match. In that case `out` is unchanged.

    Notes
    -----
    The gradient of a bin is divided evenly among its pixels. In this direction torchvision's bins include
    the last row and column of the map, which `ps_roi_pool` leaves out, and this function agrees with
    it: the gradient is the transpose of `ps_roi_pool` for boxes that end before the last row and column,
    and for others the transpose of `ps_roi_pool` on a map with one more row and column. The sums run in an
    order that depends only on the boxes, without atomic operations, so the result has the same bits for any
    number of threads and any SIMD level.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> boxes = np.array([[0, 0, 0, 2, 2]], np.float32)
    >>> gradient = np.array([[[[8]]]], np.float32)
    >>> cyroialign.ps_roi_pool_backward(gradient, boxes, (1, 1, 3, 3))[0, 0]
    array([[2., 2., 0.],
           [2., 2., 0.],
           [0., 0., 0.]], dtype=float32)
    """
    return calls.backward(
        PS_ROI_POOL,
        grad_output,
        boxes,
        input_shape,
        spatial_scale,
        batch_indices=batch_indices,
        layout=layout,
        out=out,
        num_threads=num_threads,
    )


class PSRoIPool(Settings):
    """`ps_roi_pool` and its gradient, with fixed settings.

    Parameters
    ----------
    output_size, spatial_scale, layout, num_threads
        As in `ps_roi_pool`.

    Examples
    --------
    >>> import numpy as np
    >>> from cyroialign import PSRoIPool
    >>> pool = PSRoIPool(output_size=7, spatial_scale=1 / 16)
    >>> features = np.random.default_rng(0).random((1, 10 * 7 * 7, 50, 68), np.float32)
    >>> pool(features, [np.array([[32.0, 48.0, 256.0, 320.0]])]).shape
    (1, 10, 7, 7)
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float | tuple[float, float] = 1.0,
        *,
        layout: str = "NCHW",
        num_threads: int | None = None,
    ) -> None:
        validation.output_size(output_size)
        validation.spatial_scale(spatial_scale, single=False)
        validation.choice(layout, "layout", validation.LAYOUTS)
        if num_threads is not None:
            validation.thread_count(num_threads, "num_threads")
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.layout = layout
        self.num_threads = num_threads

    def __call__(self, input: "ArrayLike", boxes: "ArrayLike | Sequence[ArrayLike]") -> np.ndarray:
        """Return ``ps_roi_pool(input, boxes, ...)`` with these settings."""
        return ps_roi_pool(
            input,
            boxes,
            self.output_size,
            self.spatial_scale,
            layout=self.layout,
            num_threads=self.num_threads,
        )

    def backward(
        self,
        grad_output: "ArrayLike",
        boxes: "ArrayLike | Sequence[ArrayLike]",
        input_shape: Sequence[int],
    ) -> np.ndarray:
        """Return ``ps_roi_pool_backward(grad_output, boxes, input_shape, ...)`` with these settings."""
        return ps_roi_pool_backward(
            grad_output,
            boxes,
            input_shape,
            self.spatial_scale,
            layout=self.layout,
            num_threads=self.num_threads,
        )
