"""Precise RoI Pooling: the integral of the map over each bin, without samples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cyroialign._kernels import PRROI_POOL
from cyroialign.arguments import validation
from cyroialign.operators import calls
from cyroialign.operators.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def prroi_pool(
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
    r"""Pool each box of a feature map into a grid of bins: the mean of the map over each, exactly.

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
    prroi_pool_backward : the gradient to the feature map.
    prroi_pool_boxes_backward : the gradient to the boxes.
    PrRoIPool : the same, as an object that keeps the settings.
    roi_align : the mean of some samples of each bin.

    Notes
    -----
    The map is the surface of hats that its pixels span [1]_: pixel (i, j) of value v adds, at (y, x),

    .. math:: v \cdot \max(0, 1 - |y - i|) \cdot \max(0, 1 - |x - j|)

    so that the surface falls to 0 one pixel outside the map. A box reaches from ``x1 * spatial_scale`` to
    ``x2 * spatial_scale``, with no half-pixel shift; an inverted side counts as 0. A bin is the integral
    of the surface over it, divided by its area, or 0 if its area is 0. There is no number of samples to
    choose, and the result changes smoothly with the box.

    The edges of a box are computed in float32 if `input` and `boxes` are both float32 or narrower, else in
    float64, and all between them in float64. A bin so short that its ends are the same number is the value
    of the surface there. The result of a map of float16 or bfloat16 (from the package ml_dtypes) is what
    float32 gives, rounded once, to nearest; that of uint8 or int8 is of float32, since a mean of bytes is
    none. Such maps are converted in registers, as they are read.

    Results have the same bits for every number of threads and every SIMD level, and do not depend on the
    other boxes of the call. Time and memory do not grow with how far a box reaches outside the map. A NaN or
    infinity reaches only the bins that its hat overlaps.

    References
    ----------
    .. [1] Jiang, Luo, Mao, Xiao, Jiang, "Acquisition of Localization Confidence for Accurate
       Object Detection", ECCV 2018.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> image = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    >>> boxes = np.array([[0, 1, 1, 3, 3]], np.float32)
    >>> cyroialign.prroi_pool(image, boxes, output_size=(2, 2))
    array([[[[ 9., 10.],
             [14., 15.]]]], dtype=float32)
    """
    return calls.forward(
        PRROI_POOL,
        input,
        boxes,
        output_size,
        spatial_scale,
        batch_indices=batch_indices,
        layout=layout,
        out=out,
        num_threads=num_threads,
    )


def prroi_pool_backward(
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
    """Return the gradient of `prroi_pool` to its feature map.

    Parameters
    ----------
    grad_output : (K, C, height, width) array of float32, float64, float16 or bfloat16
        Gradient to the result of `prroi_pool`; (K, height, width, C) with ``layout="NHWC"``.
    boxes, spatial_scale, batch_indices
        As given to `prroi_pool`.
    input_shape : sequence of 4 ints
        The shape of the feature map, in the order of `layout`.
    layout, num_threads : optional
        As in `prroi_pool`.
    out : ndarray, optional
        Array of shape `input_shape` to fill and return, as in `prroi_pool`; it is overwritten.

    Returns
    -------
    ndarray of shape `input_shape`
        Of the dtype and memory order of `grad_output`.

    Raises
    ------
    TypeError
        If an argument has a wrong type or dtype.
    ValueError
        If a shape or value is wrong, as in `prroi_pool`, or if `grad_output`, `boxes` and
        `input_shape` do not fit each other. In that case `out` is unchanged.

    See Also
    --------
    prroi_pool_boxes_backward : the gradient to the boxes.

    Notes
    -----
    The integral is linear in the map, and this is its transpose: ``(prroi_pool(x) * g).sum() == (x *
    prroi_pool_backward(g)).sum()`` to rounding. The sums of a gradient of float16 or bfloat16 are kept in
    float32, and rounded once in the end. They run in an order that depends on the boxes alone, without atomic
    operations, so that the result has the same bits for any number of threads and any SIMD level.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> boxes = np.array([[0, 0, 0, 2, 2]], np.float32)
    >>> gradient = np.array([[[[16]]]], np.float32)
    >>> cyroialign.prroi_pool_backward(gradient, boxes, (1, 1, 3, 3))[0, 0]
    array([[1., 2., 1.],
           [2., 4., 2.],
           [1., 2., 1.]], dtype=float32)
    """
    return calls.backward(
        PRROI_POOL,
        grad_output,
        boxes,
        input_shape,
        spatial_scale,
        batch_indices=batch_indices,
        layout=layout,
        out=out,
        num_threads=num_threads,
    )


def prroi_pool_boxes_backward(
    grad_output: "ArrayLike",
    input: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    spatial_scale: float | tuple[float, float] = 1.0,
    *,
    batch_indices: "ArrayLike | None" = None,
    layout: str = "NCHW",
    num_threads: int | None = None,
) -> np.ndarray:
    r"""Return the gradient of `prroi_pool` to the coordinates of its boxes.

    Parameters
    ----------
    grad_output : (K, C, height, width) array of the dtype of `input`, float32 for uint8 and int8
        Gradient to the result of `prroi_pool`; (K, height, width, C) with ``layout="NHWC"``.
    input : (N, C, H, W) array of float32, float64, float16, bfloat16, uint8 or int8
        The feature maps that `prroi_pool` was given; (N, H, W, C) with ``layout="NHWC"``.
    boxes, spatial_scale, batch_indices, layout, num_threads
        As given to `prroi_pool`.

    Returns
    -------
    (K, 4) ndarray
        Gradients to (x1, y1, x2, y2) of each box, per unit of the boxes; the rows of a sequence of arrays
        follow one another. float32 where edges are computed in float32, which is where `input` and
        `boxes` are both float32 or narrower, else float64.

    Raises
    ------
    TypeError
        If an argument has a wrong type or dtype.
    ValueError
        If a shape or value is wrong, as in `prroi_pool`, or if `grad_output`, `boxes` and `input` do
        not fit each other.

    See Also
    --------
    prroi_pool_backward : the gradient to the feature map.
    roi_align_boxes_backward : that of RoIAlign, which jumps where a sample passes a pixel.

    Notes
    -----
    Let the surface of the map, averaged along y, be :math:`f`, and a bin reach from :math:`a` to :math:`b`.
    Its mean changes with its ends as

    .. math:: \mathrm{d} \frac{1}{b - a} \int_a^b f(t) \, \mathrm{d}t
        = \frac{(f(b) - m) \, \mathrm{d}b + (m - f(a)) \, \mathrm{d}a}{b - a},

    where :math:`m` is the mean itself, and an edge of the box moves the ends of all bins, each by its share.
    The same holds for y. The gradient is continuous in the boxes, also where an edge leaves the map. It is 0
    for a box without area, inverted ones among them: such boxes give 0, and the result jumps where two edges
    meet.

    It is computed as the integral of :math:`f'` over the bin, times what each point moves, which is the same
    without a difference of numbers that are almost equal. Rows and channels are summed in float64, in an
    order that the box alone decides: results have the same bits for every number of threads, every SIMD level
    and either layout, whichever other boxes are in the call. Time and memory do not grow with how far a box
    reaches outside the map. A NaN or infinity of the map reaches only the boxes that its hat overlaps. Maps
    of float16, bfloat16 (from the package ml_dtypes), uint8 and int8 are copied as float32.

    Examples
    --------
    A map that rises to the right: the mean over a box rises with either of its vertical edges.

    >>> import numpy as np
    >>> import cyroialign
    >>> image = np.tile(np.arange(8.0), (1, 1, 8, 1))
    >>> boxes = np.array([[0, 1.5, 2.0, 5.5, 6.0]])
    >>> cyroialign.prroi_pool_boxes_backward(np.ones((1, 1, 1, 1)), image, boxes)
    array([[0.5, 0. , 0.5, 0. ]])
    """
    return calls.boxes_backward(
        PRROI_POOL,
        grad_output,
        input,
        boxes,
        spatial_scale,
        batch_indices=batch_indices,
        layout=layout,
        num_threads=num_threads,
    )


class PrRoIPool(Settings):
    """`prroi_pool` and its gradients, with fixed settings.

    Parameters
    ----------
    output_size, spatial_scale, layout, num_threads
        As in `prroi_pool`.

    Examples
    --------
    >>> import numpy as np
    >>> from cyroialign import PrRoIPool
    >>> pool = PrRoIPool(output_size=5, spatial_scale=1 / 16)
    >>> features = np.random.default_rng(0).random((1, 256, 18, 18), np.float32)
    >>> boxes = [np.array([[32.0, 48.0, 256.0, 200.0]])]
    >>> crops = pool(features, boxes)
    >>> crops.shape
    (1, 256, 5, 5)
    >>> pool.boxes_backward(np.ones_like(crops), features, boxes).shape
    (1, 4)
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
        """Return ``prroi_pool(input, boxes, ...)`` with these settings."""
        return prroi_pool(
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
        """Return ``prroi_pool_backward(grad_output, boxes, input_shape, ...)`` with these settings."""
        return prroi_pool_backward(
            grad_output,
            boxes,
            input_shape,
            self.spatial_scale,
            layout=self.layout,
            num_threads=self.num_threads,
        )

    def boxes_backward(
        self, grad_output: "ArrayLike", input: "ArrayLike", boxes: "ArrayLike | Sequence[ArrayLike]"
    ) -> np.ndarray:
        """Return ``prroi_pool_boxes_backward(grad_output, input, boxes, ...)`` with these settings."""
        return prroi_pool_boxes_backward(
            grad_output,
            input,
            boxes,
            self.spatial_scale,
            layout=self.layout,
            num_threads=self.num_threads,
        )
