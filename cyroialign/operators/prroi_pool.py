"""Precise RoI Pooling: the integral of the map over each bin, without samples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cyroialign._kernels import PRROI_POOL
from cyroialign.operators import calls

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
    input : (N, C, H, W) array of float32, float64, float16, bfloat16 or uint8
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
        Number of threads for this call; by default that of `get_num_threads`.

    Returns
    -------
    (K, C, height, width) ndarray
        With the dtype of `input` (float32 for uint8) and its memory order; (K, height, width, C) with
        ``layout="NHWC"``.

    Raises
    ------
    TypeError
        If an argument has a wrong type or dtype.
    ValueError
        If a shape or value is wrong: a box that is not finite, an image that does not exist, a
        map without pixels. The message names the first bad box. In that case `out` is unchanged.

    See Also
    --------
    roi_align : the mean of some samples of each bin.

    Notes
    -----
    The map is the surface of hats that its pixels span [1]_: pixel (i, j) of value v adds, at (y, x),

    .. math:: v \cdot \max(0, 1 - |y - i|) \cdot \max(0, 1 - |x - j|)

    so that the surface falls to 0 one pixel outside the map. A box reaches from ``x1 * spatial_scale`` to
    ``x2 * spatial_scale``, with no half-pixel shift; an inverted side counts as 0. A bin is the integral
    of the surface over it, divided by its area, or 0 if its area is 0. There is no number of samples to
    choose, and the result changes smoothly with the box.

    Edges are computed in float32 if `input` and `boxes` are both float32 or narrower, else in float64.
    Results have the same bits for any number of threads and any SIMD level, and do not depend on the
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
