"""RoIAlign of rotated boxes, as detectors of objects in aerial images and of text have them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cyroialign._kernels import ROI_ALIGN_ROTATED
from cyroialign.arguments import validation
from cyroialign.operators import calls
from cyroialign.operators.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def roi_align_rotated(
    input: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    output_size: int | tuple[int, int],
    spatial_scale: float | tuple[float, float] = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = True,
    clockwise: bool = False,
    *,
    batch_indices: "ArrayLike | None" = None,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
    num_threads: int | None = None,
) -> np.ndarray:
    r"""Pool each rotated box of a feature map into a grid of bins: the mean of bilinear samples.

    Parameters
    ----------
    input : (N, C, H, W) array of float32, float64, float16, bfloat16 or uint8
        Feature maps; (N, H, W, C) with ``layout="NHWC"``. Memory in the order of either layout is read
        in place, so a transposed view costs nothing; other strides cost one copy. NHWC is faster.
    boxes : (K, 6) array, or sequence of N arrays (L_i, 5), or (K, 5) array with `batch_indices`
        Rows of (batch_index, cx, cy, width, height, angle), or for each image rows of (cx, cy, width, height,
        angle): centre and sides in pixels of the space that `spatial_scale` maps onto the feature map, the
        angle in radians. Any float dtype or integers. Boxes may lie partly or wholly outside.
    output_size : int or (int, int)
        Bins: (height, width) of the result.
    spatial_scale : float or (float, float), optional
        Feature pixels for one unit of the boxes, such as 1/16 for a map of stride 16; or two of them, (y, x),
        of which x scales widths and y heights, whatever the angle.
    sampling_ratio : int, optional
        Samples a bin on each axis, at most 32767. With 0 or less it adapts to the box: ceil(roi_height /
        height) by ceil(roi_width / width).
    aligned : bool, optional
        Shift centres by half a pixel, so that pixel i of the map covers [i, i + 1). Without, they are not
        shifted, and sides are one pixel long at least.
    clockwise : bool, optional
        Whether a positive angle turns the box clockwise, as one sees the map with y down. By default it turns
        counter-clockwise.
    batch_indices : (K,) array of int, optional
        The image of each box, when `boxes` is (K, 5).
    layout : {"NCHW", "NHWC"}, optional
        The order of the axes of `input`, of the result and of `out`.
    out : ndarray, optional
        Array of the result's shape and dtype to fill and return; C-contiguous or in the memory order
        of `input`, writeable, and sharing no memory with the inputs.
    num_threads : int, optional
        Threads for this call; by default those of `get_num_threads`.

    Returns
    -------
    (K, C, height, width) ndarray
        Of the dtype of `input`, but float32 for uint8, and of its memory order; (K, height, width, C) with
        ``layout="NHWC"``. The box stands upright in it.

    Raises
    ------
    TypeError
        Where an argument has a wrong type or dtype.
    ValueError
        Where a shape or value is wrong: a box that is not finite, an image that does not exist, a
        map without pixels. The message names the first bad box. `out` is untouched then.

    See Also
    --------
    roi_align_rotated_backward : the gradient to the feature map.
    RoIAlignRotated : the same as an object that keeps the settings.

    Notes
    -----
    The samples of a box ``roi_w`` wide and ``roi_h`` high, its sides times `spatial_scale`, are a grid around
    the origin. Sample ``i`` of ``g`` in bin ``p`` lies at

    .. math:: x' = -roi_w / 2 + p \cdot bin_w + (i + 1/2) \cdot bin_w / g

    and y' likewise. The angle :math:`\alpha` turns them, and the centre moves them:

    .. math::
        y &= y' \cos \alpha - x' \sin \alpha + c_y \cdot scale - offset \\
        x &= y' \sin \alpha + x' \cos \alpha + c_x \cdot scale - offset

    where offset is 1/2 if aligned, else 0. From there on all is as in `roi_align`: a sample more than one
    pixel outside the map is 0, others are clamped to the map and interpolated between four pixels, and a bin
    is the mean of its samples, or 0 if it has none. A side below 0 with a fixed `sampling_ratio` mirrors the
    box.

    What other libraries compute, with their names for the settings:

    - MMCV's ``RoIAlignRotated`` has the same arguments with the same meaning and defaults, and boxes in the
      same form.
    - detectron2's ``ROIAlignRotated`` is ``aligned=True``, with angles in degrees, counter-clockwise:
      give ``np.deg2rad`` of them.
    - OpenVINO's ``ROIAlignRotated`` (opset 15) is ``aligned=True``, with its ``clockwise_mode`` as
      `clockwise` and its batch indices as `batch_indices`.

    Positions are computed in float32 if `input` and `boxes` are both float32 or narrower, else in float64,
    every step rounded. Sine and cosine are the package's own, the same on every machine, and right to the
    last bit or the one before it for angles of any size. Results have the same bits for every number of
    threads and every SIMD level, and do not depend on the other boxes of the call. Time and memory do not
    grow with how far a box reaches outside the map. A NaN or infinity reaches only the bins that sample one
    of its neighbours.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> image = np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5)
    >>> boxes = np.array([[0, 2.5, 2.5, 2, 2, np.pi / 2]], np.float32)
    >>> cyroialign.roi_align_rotated(image, boxes, output_size=2).round(3)
    array([[[[14.,  9.],
             [15., 10.]]]], dtype=float32)
    """
    return calls.forward(
        ROI_ALIGN_ROTATED,
        input,
        boxes,
        output_size,
        spatial_scale,
        sampling_ratio,
        aligned,
        clockwise,
        batch_indices=batch_indices,
        layout=layout,
        out=out,
        num_threads=num_threads,
    )


def roi_align_rotated_backward(
    grad_output: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    input_shape: Sequence[int],
    spatial_scale: float | tuple[float, float] = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = True,
    clockwise: bool = False,
    *,
    batch_indices: "ArrayLike | None" = None,
    layout: str = "NCHW",
    out: np.ndarray | None = None,
    num_threads: int | None = None,
) -> np.ndarray:
    """Return the gradient of `roi_align_rotated` to its feature map.

    Parameters
    ----------
    grad_output : (K, C, height, width) array of float32, float64, float16 or bfloat16
        Gradient to the result of `roi_align_rotated`; (K, height, width, C) with ``layout="NHWC"``.
    boxes, spatial_scale, sampling_ratio, aligned, clockwise, batch_indices
        As given to `roi_align_rotated`.
    input_shape : sequence of 4 ints
        The shape of the feature map, in the order of `layout`.
    layout, num_threads : optional
        As in `roi_align_rotated`.
    out : ndarray, optional
        Array of shape `input_shape` to fill and return, as in `roi_align_rotated`; what it held is lost.

    Returns
    -------
    ndarray of shape `input_shape`
        Of the dtype and memory order of `grad_output`.

    Raises
    ------
    TypeError
        Where an argument has a wrong type or dtype.
    ValueError
        Where a shape or value is wrong, as in `roi_align_rotated`, or where `grad_output`, `boxes` and
        `input_shape` do not fit each other. `out` is untouched then.

    Notes
    -----
    The transpose of `roi_align_rotated`: ``(roi_align_rotated(x) * g).sum() == (x *
    roi_align_rotated_backward(g)).sum()`` to rounding. The sums run in an order that depends on the boxes
    alone, without atomic operations, so that the result has the same bits for every number of threads and
    every SIMD level.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> boxes = np.array([[0, 1.5, 1.5, 2, 2, np.pi / 4]], np.float32)
    >>> gradient = np.ones((1, 1, 1, 1), np.float32)
    >>> cyroialign.roi_align_rotated_backward(gradient, boxes, (1, 1, 3, 3), sampling_ratio=1)[0, 0]
    array([[0., 0., 0.],
           [0., 1., 0.],
           [0., 0., 0.]], dtype=float32)
    """
    return calls.backward(
        ROI_ALIGN_ROTATED,
        grad_output,
        boxes,
        input_shape,
        spatial_scale,
        sampling_ratio,
        aligned,
        clockwise,
        batch_indices=batch_indices,
        layout=layout,
        out=out,
        num_threads=num_threads,
    )


class RoIAlignRotated(Settings):
    """`roi_align_rotated` and its gradient with settings that stay.

    Parameters
    ----------
    output_size, spatial_scale, sampling_ratio, aligned, clockwise, layout, num_threads
        As in `roi_align_rotated`.

    Examples
    --------
    >>> import numpy as np
    >>> from cyroialign import RoIAlignRotated
    >>> pool = RoIAlignRotated(output_size=7, spatial_scale=1 / 8, sampling_ratio=2, layout="NHWC")
    >>> features = np.random.default_rng(0).random((1, 128, 128, 256), np.float32)
    >>> pool(features, [np.array([[512.0, 400.0, 180.0, 60.0, 0.6]])]).shape
    (1, 7, 7, 256)
    """

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float | tuple[float, float] = 1.0,
        sampling_ratio: int = -1,
        aligned: bool = True,
        clockwise: bool = False,
        *,
        layout: str = "NCHW",
        num_threads: int | None = None,
    ) -> None:
        validation.output_size(output_size)
        validation.spatial_scale(spatial_scale, single=False)
        validation.sampling_ratio(sampling_ratio)
        validation.flag(aligned, "aligned")
        validation.flag(clockwise, "clockwise")
        validation.choice(layout, "layout", validation.LAYOUTS)
        if num_threads is not None:
            validation.thread_count(num_threads, "num_threads")
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.clockwise = clockwise
        self.layout = layout
        self.num_threads = num_threads

    def __call__(self, input: "ArrayLike", boxes: "ArrayLike | Sequence[ArrayLike]") -> np.ndarray:
        """Return ``roi_align_rotated(input, boxes, ...)`` with these settings."""
        return roi_align_rotated(
            input,
            boxes,
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
            self.clockwise,
            layout=self.layout,
            num_threads=self.num_threads,
        )

    def backward(
        self,
        grad_output: "ArrayLike",
        boxes: "ArrayLike | Sequence[ArrayLike]",
        input_shape: Sequence[int],
    ) -> np.ndarray:
        """Return ``roi_align_rotated_backward(grad_output, boxes, input_shape, ...)`` with these settings."""
        return roi_align_rotated_backward(
            grad_output,
            boxes,
            input_shape,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
            self.clockwise,
            layout=self.layout,
            num_threads=self.num_threads,
        )
