"""RoIPool: regions of interest, rounded to whole pixels; each bin takes its largest pixel."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

import numpy as np

from cyroialign._kernels import ROI_POOL
from cyroialign.arguments import validation
from cyroialign.operators import calls
from cyroialign.operators.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@overload
def roi_pool(
    input: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    output_size: int | tuple[int, int],
    spatial_scale: float | tuple[float, float] = 1.0,
    *,
    batch_indices: "ArrayLike | None" = None,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
    num_threads: int | None = None,
    return_argmax: Literal[False] = False,
) -> np.ndarray: ...
@overload
def roi_pool(
    input: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    output_size: int | tuple[int, int],
    spatial_scale: float | tuple[float, float] = 1.0,
    *,
    batch_indices: "ArrayLike | None" = None,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
    num_threads: int | None = None,
    return_argmax: Literal[True],
) -> tuple[np.ndarray, np.ndarray]: ...
@overload
def roi_pool(
    input: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    output_size: int | tuple[int, int],
    spatial_scale: float | tuple[float, float] = 1.0,
    *,
    batch_indices: "ArrayLike | None" = None,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
    num_threads: int | None = None,
    return_argmax: bool,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]: ...
def roi_pool(
    input: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    output_size: int | tuple[int, int],
    spatial_scale: float | tuple[float, float] = 1.0,
    *,
    batch_indices: "ArrayLike | None" = None,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
    num_threads: int | None = None,
    return_argmax: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    r"""Pool each box of a feature map into a grid of bins by taking the largest pixel of each bin.

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
    return_argmax : bool, optional
        Whether to return the winners of the bins as well. It takes longer, and the gradient then less.

    Returns
    -------
    output : (K, C, height, width) ndarray
        Of the dtype of `input`, but float32 for uint8 and int8, and of its memory order; (K, height, width,
        C) with ``layout="NHWC"``.
    argmax : ndarray of int32
        Only with `return_argmax`. Of the shape and memory order of the output: of each bin the pixel that
        won, ``y * W + x``, the first of equals, row by row; -1 where none did.

    Raises
    ------
    TypeError
        If an argument has a wrong type or dtype.
    ValueError
        If a shape or value is wrong: a box that is not finite, an image that does not exist, a
        map without pixels. The message names the first bad box. In that case `out` is unchanged.

    See Also
    --------
    roi_pool_backward : the gradient with respect to the feature map.
    roi_align : the same without rounding, as most detectors use since Mask R-CNN.
    RoIPool : the same, as an object that keeps the settings.

    Notes
    -----
    The rule is that of torchvision and of Fast R-CNN [1]_. The edges of a box are rounded to whole
    pixels, halves away from zero, and the pixel of the far edge belongs to the box:

    .. math:: start_w = round(x_1 \cdot scale), \qquad roi_w = \max(round(x_2 \cdot scale) - start_w + 1, 1)

    With ``bin_w = roi_w / width``, bin ``p`` covers the pixels from ``start_w + floor(p * bin_w)`` up to, but
    not including, ``start_w + ceil((p + 1) * bin_w)``, clipped to the map: neighbouring bins may share
    a pixel. A bin without pixels is 0. All of this is computed in float32 if `input` and `boxes` are both
    float32 or narrower, else in float64.

    A NaN is never the largest, as in torchvision. A bin that holds only NaN and -inf is -inf, whereas
    torchvision returns the lowest float32 number, -3.4e38. To find NaNs, check the input.

    ONNX ``MaxRoiPool`` has the same rule. If the far edge of your boxes is the first pixel outside, pass
    ``x2 - 1 / spatial_scale`` and ``y2 - 1 / spatial_scale``.

    The result of a map of float16, bfloat16 (that of the package ml_dtypes), uint8 or int8 is what float32
    gives, rounded once to the dtype of the result. Such a map is copied as float32.

    Results have the same bits for any number of threads and any SIMD level, and do not
    depend on the other boxes of the call. Time and memory do not grow with how far a box reaches outside
    the map.

    References
    ----------
    .. [1] Girshick, "Fast R-CNN", ICCV 2015.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> image = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    >>> boxes = np.array([[0, 1, 1, 3, 3]], np.float32)  # 3 by 3 pixels: bins share the middle ones
    >>> cyroialign.roi_pool(image, boxes, output_size=(2, 2))
    array([[[[12., 13.],
             [17., 18.]]]], dtype=float32)
    >>> output, argmax = cyroialign.roi_pool(image, boxes, output_size=(2, 2), return_argmax=True)
    >>> argmax
    array([[[[12, 13],
             [17, 18]]]], dtype=int32)
    """
    argmax: list[np.ndarray] | None = [] if validation.flag(return_argmax, "return_argmax") else None
    output = calls.forward(
        ROI_POOL,
        input,
        boxes,
        output_size,
        spatial_scale,
        batch_indices=batch_indices,
        layout=layout,
        out=out,
        num_threads=num_threads,
        argmax=argmax,
    )
    return output if argmax is None else (output, argmax[0])


def roi_pool_backward(
    grad_output: "ArrayLike",
    input: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    output_size: int | tuple[int, int],
    spatial_scale: float | tuple[float, float] = 1.0,
    *,
    batch_indices: "ArrayLike | None" = None,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
    num_threads: int | None = None,
    argmax: np.ndarray | None = None,
) -> np.ndarray:
    """Return the gradient of `roi_pool` with respect to its feature map, which goes to each bin's winner.

    Parameters
    ----------
    grad_output : (K, C, height, width) array of float32, float64, float16 or bfloat16
        Gradient to the result of `roi_pool`; (K, height, width, C) with ``layout="NHWC"``.
    input : (N, C, H, W) array of the dtype of `grad_output`, or uint8 or int8 where that is float32
        The feature map that was pooled: the winner of each bin, its largest pixel, is found again from it.
        With `argmax` only its shape, dtype and memory order count.
    boxes, output_size, spatial_scale, batch_indices
        As given to `roi_pool`.
    layout, num_threads : optional
        As in `roi_pool`.
    out : ndarray, optional
        Array of the shape of `input` to fill and return, as in `roi_pool`; it is overwritten.
    argmax : ndarray of int32, optional
        What `roi_pool` returned with ``return_argmax=True`` for the same boxes and settings: the result is
        the same, sooner. A pixel outside the rows of its box, which is none of `roi_pool`, gets nothing.

    Returns
    -------
    ndarray of the shape of `input`
        Of the dtype of `grad_output` and the memory order of `input`.

    Raises
    ------
    TypeError
        If an argument has a wrong type or dtype.
    ValueError
        If a shape or value is wrong, as in `roi_pool`, or if `grad_output`, `input`, `boxes` and
        `output_size` do not match, or if `argmax` has another shape or names a pixel that does not exist; the
        message names the first such place. In that case `out` is unchanged.

    Notes
    -----
    If several pixels of a bin are largest, the first wins, row by row, as in torchvision. The gradient of a
    bin without a winner (no pixels, or only NaN and -inf) is dropped. The sums run in an order that
    depends only on the boxes, without atomic operations, so the result has the same bits for any
    number of threads and any SIMD level.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> image = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    >>> boxes = np.array([[0, 0, 0, 2, 2]], np.float32)
    >>> gradient = np.array([[[[1, 2], [3, 4]]]], np.float32)
    >>> cyroialign.roi_pool_backward(gradient, image, boxes, output_size=2)[0, 0]
    array([[0., 0., 0.],
           [0., 1., 2.],
           [0., 3., 4.]], dtype=float32)
    """
    shape = validation.feature_map(input, "input").shape
    return calls.backward(
        ROI_POOL,
        grad_output,
        boxes,
        shape,
        spatial_scale,
        input=input,
        output_size=validation.output_size(output_size),
        argmax=argmax,
        batch_indices=batch_indices,
        layout=layout,
        out=out,
        num_threads=num_threads,
    )


class RoIPool(Settings):
    """`roi_pool` and its gradient, with fixed settings.

    Parameters
    ----------
    output_size, spatial_scale, layout, num_threads
        As in `roi_pool`.

    Examples
    --------
    >>> import numpy as np
    >>> from cyroialign import RoIPool
    >>> pool = RoIPool(output_size=7, spatial_scale=1 / 16)
    >>> features = np.random.default_rng(0).random((1, 256, 50, 68), np.float32)
    >>> pool(features, [np.array([[32.0, 48.0, 256.0, 320.0]])]).shape
    (1, 256, 7, 7)
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

    @overload
    def __call__(
        self,
        input: "ArrayLike",
        boxes: "ArrayLike | Sequence[ArrayLike]",
        *,
        return_argmax: Literal[False] = False,
    ) -> np.ndarray: ...
    @overload
    def __call__(
        self,
        input: "ArrayLike",
        boxes: "ArrayLike | Sequence[ArrayLike]",
        *,
        return_argmax: Literal[True],
    ) -> tuple[np.ndarray, np.ndarray]: ...
    def __call__(
        self,
        input: "ArrayLike",
        boxes: "ArrayLike | Sequence[ArrayLike]",
        *,
        return_argmax: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Return ``roi_pool(input, boxes, ...)`` with these settings."""
        return roi_pool(
            input,
            boxes,
            self.output_size,
            self.spatial_scale,
            layout=self.layout,
            num_threads=self.num_threads,
            return_argmax=return_argmax,
        )

    def backward(
        self,
        grad_output: "ArrayLike",
        input: "ArrayLike",
        boxes: "ArrayLike | Sequence[ArrayLike]",
        *,
        argmax: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return ``roi_pool_backward(grad_output, input, boxes, ...)`` with these settings."""
        return roi_pool_backward(
            grad_output,
            input,
            boxes,
            self.output_size,
            self.spatial_scale,
            layout=self.layout,
            num_threads=self.num_threads,
            argmax=argmax,
        )
