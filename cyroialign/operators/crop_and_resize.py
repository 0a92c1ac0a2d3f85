"""TensorFlow's crop_and_resize: boxes in shares of the image, one sample a bin."""

from typing import TYPE_CHECKING

import numpy as np

from cyroialign._kernels import CROP_BILINEAR, CROP_NEAREST
from cyroialign.arguments import dtypes, memory_order, validation
from cyroialign.arguments.boxes import read_shares
from cyroialign.operators import calls

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

METHODS = {"bilinear": CROP_BILINEAR, "nearest": CROP_NEAREST}


def crop_and_resize(
    image: "ArrayLike",
    boxes: "ArrayLike",
    box_indices: "ArrayLike",
    crop_size: int | tuple[int, int],
    method: str = "bilinear",
    extrapolation_value: float = 0.0,
    *,
    layout: str = "NHWC",
    out: np.ndarray | None = None,
    num_threads: int | None = None,
) -> np.ndarray:
    r"""Crop boxes of an image and resize them, as TensorFlow's operator of this name does.

    Parameters
    ----------
    image : (N, H, W, C) array of float32, float64, float16, bfloat16, uint8 or int8
        Images or feature maps; (N, C, H, W) with ``layout="NCHW"``. Memory in the order of either layout is
        read in place, so a transposed view costs nothing; other strides cost one copy.
    boxes : (K, 4) array
        Rows of (y1, x1, y2, x2), in shares of the image: 0 is the centre of its first pixel, 1 that of its
        last. Any float dtype or integers. Boxes may lie partly or wholly outside; y1 > y2 mirrors the crop.
    box_indices : (K,) array of int
        The image of each box.
    crop_size : int or (int, int)
        Height and width of the crops.
    method : {"bilinear", "nearest"}, optional
        What a sample is: interpolated between four pixels, or the nearest one.
    extrapolation_value : float, optional
        What samples outside the image are.
    layout : {"NHWC", "NCHW"}, optional
        The order of the axes of `image`, of the result and of `out`.
    out : ndarray, optional
        Array of the result's shape and dtype to fill and return; C-contiguous or in the memory order
        of `image`, writeable, and sharing no memory with the inputs.
    num_threads : int, optional
        Threads for this call; by default those of `get_num_threads`.

    Returns
    -------
    (K, height, width, C) ndarray
        Of the dtype of `image`, but float32 for uint8 and int8, and of its memory order; (K, C, height,
        width) with ``layout="NCHW"``. TensorFlow has float32 for all.

    Raises
    ------
    TypeError
        If an argument has a wrong type or dtype.
    ValueError
        If a shape or value is wrong: a box that is not finite, an image that does not exist, an
        image without pixels. The message names the first bad box. In that case `out` is unchanged.

    See Also
    --------
    roi_align : boxes in pixels, and the mean of several samples.

    Notes
    -----
    With n > 1 bins on an axis, sample i of the rows lies at

    .. math:: y_1 (H - 1) + i \frac{(y_2 - y_1) (H - 1)}{n - 1}

    so that the outer samples lie on the edges of the box, and with one bin in its middle; columns likewise. A
    sample outside [0, H - 1] or [0, W - 1] is `extrapolation_value`. "nearest" rounds halves up.

    Positions are computed in float32, as TensorFlow does, if `image` and `boxes` are both float32 or
    narrower, else in float64. Results have the same bits for any number of threads and any SIMD level,
    and do not depend on the other boxes of the call. Time and memory do not grow with how far a box reaches
    outside the image. A NaN or infinity reaches only the bins whose samples lie next to it.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> image = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    >>> boxes = np.array([[0, 0.25, 0.5, 1.25]], np.float32)
    >>> crops = cyroialign.crop_and_resize(image, boxes, [0], (2, 3), extrapolation_value=-1)
    >>> crops[0, :, :, 0]
    array([[ 1.,  3., -1.],
           [11., 13., -1.]], dtype=float32)
    """
    given = validation.feature_map(image, "image")
    pooling = METHODS[validation.choice(method, "method", tuple(METHODS))]
    validation.choice(layout, "layout", validation.LAYOUTS)
    maps, channels_last = memory_order.in_kernel_order(given, layout)
    bins = validation.output_size(crop_size, "crop_size")
    images, channels, height, width = memory_order.sizes(maps.shape, channels_last)
    rois = read_shares(boxes, box_indices, images, maps.dtype, height, width)
    validation.room_for_boxes(height, width, len(rois.rows), "image")
    outside = validation.number(extrapolation_value, "extrapolation_value")
    size = (len(rois.rows), channels, *bins)
    if out is not None:
        dtype = dtypes.of_result(maps.dtype)
        memory_order.check_out(out, size, dtype, layout, channels_last, [given, *rois.given])
    return calls.pool(
        pooling, (maps,), rois, size, 0, layout, channels_last, num_threads, out, outside=outside
    )


def crop_and_resize_backward(
    grad_output: "ArrayLike",
    boxes: "ArrayLike",
    box_indices: "ArrayLike",
    image_shape: tuple[int, int, int, int],
    method: str = "bilinear",
    *,
    layout: str = "NHWC",
    out: np.ndarray | None = None,
    num_threads: int | None = None,
) -> np.ndarray:
    """Sum the gradient of `crop_and_resize` to the image.

    Parameters
    ----------
    grad_output : (K, height, width, C) array of float32, float64, float16 or bfloat16
        Gradient to the crops; (K, C, height, width) with ``layout="NCHW"``.
    boxes, box_indices, method, layout
        As in `crop_and_resize`.
    image_shape : (int, int, int, int)
        Shape of the image, in the order of the layout.
    out : ndarray, optional
        Array of the result's shape and dtype to fill and return; C-contiguous or in the memory order
        of `grad_output`, writeable, and sharing no memory with the inputs.
    num_threads : int, optional
        Threads for this call; by default those of `get_num_threads`.

    Returns
    -------
    ndarray of shape `image_shape`
        Of the dtype of `grad_output` and of its memory order.

    Raises
    ------
    TypeError, ValueError
        As `crop_and_resize` does, and where shapes do not fit each other.

    Notes
    -----
    It is the transpose of `crop_and_resize` with an `extrapolation_value` of 0, for both methods. Results
    have the same bits for any number of threads and any SIMD level.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> gradient = np.ones((1, 1, 1, 1), np.float32)
    >>> cyroialign.crop_and_resize_backward(gradient, [[0.0, 0.0, 0.5, 1.0]], [0], (1, 3, 2, 1))[0, :, :, 0]
    array([[0.25, 0.25],
           [0.25, 0.25],
           [0.  , 0.  ]], dtype=float32)
    """
    given = validation.gradient(grad_output)
    pooling = METHODS[validation.choice(method, "method", tuple(METHODS))]
    validation.choice(layout, "layout", validation.LAYOUTS)
    shape = validation.shape_of_input(image_shape, name="image_shape")
    images, _, height, width = size = memory_order.sizes(shape, layout == "NHWC")
    rois = read_shares(boxes, box_indices, images, given.dtype, height, width)
    validation.room_for_boxes(height, width, len(rois.rows), "image")
    grads, channels_last = memory_order.in_kernel_order(given, layout)
    validation.fitting_gradient(memory_order.sizes(grads.shape, channels_last), len(rois.rows), size)
    if out is not None:
        memory_order.check_out(out, size, grads.dtype, layout, channels_last, [given, *rois.given])
    return calls.scatter(pooling, grads, None, rois, (size,), 0, layout, channels_last, num_threads, out)[0]


def crop_and_resize_boxes_backward(
    grad_output: "ArrayLike",
    image: "ArrayLike",
    boxes: "ArrayLike",
    box_indices: "ArrayLike",
    *,
    layout: str = "NHWC",
    num_threads: int | None = None,
) -> np.ndarray:
    """Sum the gradient of bilinear `crop_and_resize` to the boxes.

    Parameters
    ----------
    grad_output : (K, height, width, C) array
        Gradient to the crops, of their dtype; (K, C, height, width) with ``layout="NCHW"``.
    image, boxes, box_indices, layout
        As in `crop_and_resize`.
    num_threads : int, optional
        Threads for this call; by default those of `get_num_threads`.

    Returns
    -------
    (K, 4) ndarray
        Gradient to (y1, x1, y2, x2), float32 if `image` and `boxes` are both float32 or narrower, else
        float64.

    Raises
    ------
    TypeError, ValueError
        As `crop_and_resize` does, and where shapes do not fit each other.

    Notes
    -----
    As in TensorFlow a sample outside the image has no gradient, and on an axis where it lies on a pixel no
    slope. Results have the same bits for any number of threads and any SIMD level.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> image = np.arange(25, dtype=np.float32).reshape(1, 5, 5, 1)
    >>> gradient = np.ones((1, 1, 1, 1), np.float32)
    >>> box = np.array([[0.2, 0.2, 0.6, 0.6]], np.float32)
    >>> cyroialign.crop_and_resize_boxes_backward(gradient, image, box, [0])
    array([[10.,  2., 10.,  2.]], dtype=float32)
    """
    validation.choice(layout, "layout", validation.LAYOUTS)
    maps, channels_last = memory_order.in_kernel_order(validation.feature_map(image, "image"), layout)
    grads = validation.gradient(grad_output)
    validation.gradient_dtype(grads, maps, "image")
    images, _, height, width = size = memory_order.sizes(maps.shape, channels_last)
    rois = read_shares(boxes, box_indices, images, maps.dtype, height, width)
    validation.room_for_boxes(height, width, len(rois.rows), "image")
    validation.fitting_gradient(memory_order.sizes(grads.shape, layout == "NHWC"), len(rois.rows), size)
    gradient = calls.to_boxes(CROP_BILINEAR, maps, grads, rois, 0, layout, channels_last, num_threads)
    return gradient[:, [1, 0, 3, 2]]
