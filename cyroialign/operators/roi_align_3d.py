"""RoIAlign of volumes: boxes on three axes, sampled to a grid of bins by trilinear interpolation."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cyroialign.arguments import validation
from cyroialign.operators import volumes
from cyroialign.operators.settings import Settings

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def roi_align_3d(
    input: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    output_size: int | tuple[int, int, int],
    spatial_scale: float | tuple[float, float, float] = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    *,
    batch_indices: "ArrayLike | None" = None,
    layout: str = "NCDHW",
    out: np.ndarray | None = None,
    num_threads: int | None = None,
) -> np.ndarray:
    r"""Pool each box of a volume into a grid of bins: the mean of trilinear samples.

    Parameters
    ----------
    input : (N, C, D, H, W) array of float32, float64, float16, bfloat16, uint8 or int8
        Volumes of D slices; (N, D, H, W, C) with ``layout="NDHWC"``. Memory in the order of either layout is
        read in place, so a transposed view costs nothing; other strides cost one copy.
    boxes : (K, 7) array, or sequence of N arrays (L_i, 6), or (K, 6) array with `batch_indices`
        Rows of (batch_index, x1, y1, z1, x2, y2, z2), or for each volume rows of (x1, y1, z1, x2, y2, z2), in
        voxels of the space that `spatial_scale` maps onto `input`: most often the volume that the network
        was given. Any float dtype or integers. Boxes may lie partly or wholly outside.
    output_size : int or (int, int, int)
        Bins: (depth, height, width) of the result.
    spatial_scale : float or (float, float, float), optional
        Voxels of `input` for one unit of the boxes; or three of them, (z, y, x), where slices are not as far
        from each other as pixels, or the network has strides of its own on each axis.
    sampling_ratio : int, optional
        Samples a bin on each axis, at most 32767. With 0 or less it adapts to the box, on each axis for
        itself: ceil(roi_depth / depth), and so on.
    aligned : bool, optional
        True takes half a voxel off the scaled coordinates, so that they refer to the centres of voxels.
        False, the legacy rule, shifts nothing, and makes RoIs at least one voxel long on each axis.
    batch_indices : (K,) array of int, optional
        The volume of each box, when `boxes` is (K, 6).
    layout : {"NCDHW", "NDHWC"}, optional
        The order of the axes of `input`, of the result and of `out`.
    out : ndarray, optional
        Array of the result's shape and dtype to fill and return; C-contiguous or in the memory order
        of `input`, writeable, and sharing no memory with the inputs.
    num_threads : int, optional
        Threads for this call; by default those of `get_num_threads`.

    Returns
    -------
    (K, C, depth, height, width) ndarray
        Of the dtype of `input`, but float32 for uint8 and int8, and of its memory order; (K, depth, height,
        width, C) with ``layout="NDHWC"``.

    Raises
    ------
    TypeError
        If an argument has a wrong type or dtype.
    ValueError
        If a shape or value is wrong: a box that is not finite, a volume that does not exist or has no
        voxels. The message names the first bad box. In that case `out` is unchanged.

    See Also
    --------
    roi_align : the same on two axes.
    roi_align_3d_backward : the gradient to the volume.
    RoIAlign3D : the same, as an object that keeps the settings.

    Notes
    -----
    On each axis the rule is that of `roi_align`: sample ``i`` of ``g`` in bin ``p`` lies at

    .. math:: z = start_d + p \cdot bin_d + (i + 1/2) \cdot bin_d / g

    A sample more than one voxel outside the volume on any axis is 0; others are clamped to it and
    interpolated between eight voxels. A bin is the mean of its samples, and 0 if it has none. Of a volume of
    one slice, boxes from z1 = 0 to z2 = 1 give `roi_align` of that slice.

    The rule is separable, as it is on two axes: time grows with the voxels that bins reach, not with the
    samples. Neither time nor memory grows with how far a box reaches outside the volume. Beside its arrays a
    call has tables of some boxes at a time, with a weight for each row of each slice that a bin reaches.

    Positions are computed in float32 if `input` and `boxes` are both float32 or narrower, else in float64.
    Volumes of float16, bfloat16, uint8 and int8 are converted in registers as they are read. Results have the
    same bits for any number of threads and any SIMD level, and do not depend on the other boxes of the
    call. A NaN or infinity reaches only the bins that sample one of its neighbours.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> volume = np.arange(64, dtype=np.float32).reshape(1, 1, 4, 4, 4)
    >>> boxes = np.array([[0, 1, 1, 1, 3, 3, 3]], np.float32)
    >>> cyroialign.roi_align_3d(volume, boxes, output_size=(2, 1, 2), aligned=True)
    array([[[[[23., 24.]],
    <BLANKLINE>
             [[39., 40.]]]]], dtype=float32)
    """
    return volumes.forward(
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


def roi_align_3d_backward(
    grad_output: "ArrayLike",
    boxes: "ArrayLike | Sequence[ArrayLike]",
    input_shape: Sequence[int],
    spatial_scale: float | tuple[float, float, float] = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
    *,
    batch_indices: "ArrayLike | None" = None,
    layout: str = "NCDHW",
    out: np.ndarray | None = None,
    num_threads: int | None = None,
) -> np.ndarray:
    """Return the gradient of `roi_align_3d` to its volume.

    Parameters
    ----------
    grad_output : (K, C, depth, height, width) array of float32, float64, float16 or bfloat16
        Gradient to the result of `roi_align_3d`; (K, depth, height, width, C) with ``layout="NDHWC"``.
    boxes, spatial_scale, sampling_ratio, aligned, batch_indices
        As given to `roi_align_3d`.
    input_shape : sequence of 5 ints
        The shape of the volume, in the order of `layout`.
    layout, num_threads : optional
        As in `roi_align_3d`.
    out : ndarray, optional
        Array of shape `input_shape` to fill and return, as in `roi_align_3d`; it is overwritten.

    Returns
    -------
    ndarray of shape `input_shape`
        Of the dtype and memory order of `grad_output`.

    Raises
    ------
    TypeError
        If an argument has a wrong type or dtype.
    ValueError
        If a shape or value is wrong, as in `roi_align_3d`, or if `grad_output`, `boxes` and
        `input_shape` do not fit each other. In that case `out` is unchanged.

    Notes
    -----
    The mean is linear in the volume, and this is its transpose: ``(roi_align_3d(x) * g).sum() == (x *
    roi_align_3d_backward(g)).sum()`` to rounding. Sums of a gradient of float16 or bfloat16 are kept in
    float32 and rounded once in the end. They run in an order that depends on the boxes alone, so that the
    result has the same bits for any number of threads and any SIMD level.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> boxes = np.array([[0, 0, 0, 0, 2, 1, 2]], np.float32)
    >>> gradient = np.ones((1, 1, 1, 1, 1), np.float32)
    >>> shape = (1, 1, 2, 1, 2)
    >>> cyroialign.roi_align_3d_backward(gradient, boxes, shape, sampling_ratio=1, aligned=True)[0, 0]
    array([[[0.25, 0.25]],
    <BLANKLINE>
           [[0.25, 0.25]]], dtype=float32)
    """
    return volumes.backward(
        grad_output,
        boxes,
        input_shape,
        spatial_scale,
        sampling_ratio,
        aligned,
        batch_indices=batch_indices,
        layout=layout,
        out=out,
        num_threads=num_threads,
    )


class RoIAlign3D(Settings):
    """`roi_align_3d` and its gradient, with fixed settings.

    Parameters
    ----------
    output_size, spatial_scale, sampling_ratio, aligned, layout, num_threads
        As in `roi_align_3d`.

    Examples
    --------
    >>> import numpy as np
    >>> from cyroialign import RoIAlign3D
    >>> pool = RoIAlign3D(output_size=(7, 7, 3), spatial_scale=(1 / 4, 1 / 8, 1 / 8), sampling_ratio=2)
    >>> features = np.random.default_rng(0).random((1, 32, 24, 40, 40), np.float32)
    >>> crops = pool(features, [np.array([[32.0, 48, 8, 256, 320, 64]])])
    >>> crops.shape
    (1, 32, 7, 7, 3)
    """

    def __init__(
        self,
        output_size: int | tuple[int, int, int],
        spatial_scale: float | tuple[float, float, float] = 1.0,
        sampling_ratio: int = -1,
        aligned: bool = False,
        *,
        layout: str = "NCDHW",
        num_threads: int | None = None,
    ) -> None:
        validation.volume_output_size(output_size)
        validation.volume_spatial_scale(spatial_scale, single=False)
        validation.sampling_ratio(sampling_ratio)
        validation.flag(aligned, "aligned")
        validation.choice(layout, "layout", validation.VOLUME_LAYOUTS)
        if num_threads is not None:
            validation.thread_count(num_threads, "num_threads")
        self.output_size = output_size
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned
        self.layout = layout
        self.num_threads = num_threads

    def __call__(self, input: "ArrayLike", boxes: "ArrayLike | Sequence[ArrayLike]") -> np.ndarray:
        """Return ``roi_align_3d(input, boxes, ...)`` with these settings."""
        return roi_align_3d(
            input,
            boxes,
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
            layout=self.layout,
            num_threads=self.num_threads,
        )

    def backward(
        self,
        grad_output: "ArrayLike",
        boxes: "ArrayLike | Sequence[ArrayLike]",
        input_shape: Sequence[int],
    ) -> np.ndarray:
        """Return ``roi_align_3d_backward(grad_output, boxes, input_shape, ...)`` with these settings."""
        return roi_align_3d_backward(
            grad_output,
            boxes,
            input_shape,
            self.spatial_scale,
            self.sampling_ratio,
            self.aligned,
            layout=self.layout,
            num_threads=self.num_threads,
        )
