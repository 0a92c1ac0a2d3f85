"""The gradient of RoIAlign to its boxes: where each edge should move."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cyroialign._kernels import MEAN
from cyroialign.operators import calls

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def roi_align_boxes_backward(
    grad_output: "ArrayLike",
    input: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    spatial_scale: float | tuple[float, float] = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    *,
    batch_indices: "ArrayLike | None" = None,
    layout: str = "NCHW",
    num_threads: int | None = None,
) -> np.ndarray:
    r"""Return the gradient of `roi_align` with respect to the coordinates of its boxes.

    Parameters
    ----------
    grad_output : (K, C, height, width) array of the dtype of `input`, float32 for uint8 and int8
        Gradient to the result of `roi_align`; (K, height, width, C) with ``layout="NHWC"``.
    input : (N, C, H, W) array of float32, float64, float16, bfloat16, uint8 or int8
        The feature maps that `roi_align` was given; (N, H, W, C) with ``layout="NHWC"``.
    boxes, spatial_scale, sampling_ratio, aligned, batch_indices, layout, num_threads
        As given to `roi_align`.

    Returns
    -------
    (K, 4) ndarray
        Gradients with respect to (x1, y1, x2, y2) of each box, per unit of the boxes; the rows of a sequence
        of arrays are concatenated. float32 if positions are computed in float32, that is, if `input` and
        `boxes` are both float32 or narrower, else float64.

    Raises
    ------
    TypeError
        If an argument has a wrong type or dtype.
    ValueError
        If a shape or value is wrong, as in `roi_align`, or if `grad_output`, `boxes` and `input` do
        not match.

    See Also
    --------
    roi_align_backward : the gradient with respect to the feature map.

    Notes
    -----
    A sample of a RoI that reaches from ``start`` to ``end`` lies at ``x = start + u * (end - start)`` with

    .. math:: u = (p + (i + 1/2) / g) / width

    for sample ``i`` of ``g`` in bin ``p``. Moving with the edges, it adds to the gradient of its bin

    .. math:: \frac{\partial}{\partial x_1} = spatial\_scale \cdot (1 - u) \cdot (f(i + 1) - f(i)) / g,
        \qquad \frac{\partial}{\partial x_2} = spatial\_scale \cdot u \cdot (f(i + 1) - f(i)) / g

    where ``f`` are the pixels on either side of it, interpolated along y. The same holds for y. Detectors
    that treat their boxes as constants do not need this gradient; Precise RoI Pooling was designed to have
    one [1]_.
    Where RoIAlign is not differentiable, these rules apply:

    - Adaptive sampling (``sampling_ratio <= 0``) counts samples by ``ceil``: the count is taken as constant.
    - A sample outside the map, or clamped to its rim (``x < 0`` or ``x >= W - 1``), has derivative 0.
    - On a whole pixel, where left and right derivatives differ, the right one is taken.
    - With ``aligned=False`` a RoI narrower than a pixel is one pixel wide wherever its end lies: ``x1`` moves
      all of it, and ``x2`` has gradient 0.

    Rows and channels are summed in float64, in an order that depends only on the box: results have the same
    bits for any number of threads, any SIMD level and either layout, regardless of the other boxes in the
    call. Time and memory do not grow with how far a box reaches outside the map. A NaN or infinity of the map
    reaches only the boxes that sample one of its neighbours. Maps of float16, bfloat16 (that of the package
    ml_dtypes), uint8 and int8 are copied as float32.

    References
    ----------
    .. [1] Jiang, Luo, Mao, Xiao, Jiang, "Acquisition of Localization Confidence for Accurate
       Object Detection", ECCV 2018.

    Examples
    --------
    A map that rises to the right: the mean over a box rises with either of its vertical edges.

    >>> import numpy as np
    >>> import cyroialign
    >>> image = np.tile(np.arange(8.0), (1, 1, 8, 1))
    >>> boxes = np.array([[0, 1.5, 2.0, 5.0, 6.0]])
    >>> cyroialign.roi_align_boxes_backward(np.ones((1, 1, 1, 1)), image, boxes, aligned=True)
    array([[0.5, 0. , 0.5, 0. ]])
    """
    return calls.boxes_backward(
        MEAN,
        grad_output,
        input,
        boxes,
        spatial_scale,
        sampling_ratio,
        aligned,
        batch_indices=batch_indices,
        layout=layout,
        num_threads=num_threads,
    )
