"""RoIAlign on a feature pyramid: the level that a box is pooled from, and all levels at once."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cyroialign import _boxes, _foreign, _layout, _threads, _validation, _validation_pyramid
from cyroialign._settings import Settings
from cyroialign.operators import calls
from cyroialign.operators.roi_align import POOLINGS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

EPSILON = 1e-6  # torchvision's: a box just short of a level's size in rounding belongs to that level


def assign_levels(
    boxes: "ArrayLike | Sequence[ArrayLike]",
    min_level: int,
    max_level: int,
    *,
    canonical_scale: float = 224,
    canonical_level: int = 4,
) -> np.ndarray:
    r"""Find the level of a feature pyramid that each box is pooled from, by its size.

    Parameters
    ----------
    boxes : (K, 4) or (K, 5) array, or sequence of arrays (L_i, 4)
        Rows of (x1, y1, x2, y2), with or without a batch_index before them, which is not looked at; or such
        rows for each image, all K of them in that order. In pixels of the image, of any float dtype or
        integers.
    min_level, max_level : int
        The finest and the coarsest level there are; a map of level k has stride 2**k.
    canonical_scale : float, optional
        Side in pixels of a square box that belongs to `canonical_level`.
    canonical_level : int, optional
        The level of a box of that size.

    Returns
    -------
    (K,) ndarray of int64
        Levels counted from `min_level`: 0 is the finest.

    Raises
    ------
    TypeError
        Where an argument has a wrong type or dtype.
    ValueError
        Where a shape or a level is wrong, or a coordinate is NaN or infinite: the first such row is named.

    Notes
    -----
    With :math:`k_0` the canonical level and :math:`s_0` the canonical scale,

    .. math:: k = \lfloor k_0 + \log_2(\sqrt{\mathrm{width} \cdot \mathrm{height}} / s_0) + 10^{-6} \rfloor

    clamped to the levels there are. As in torchvision, the steps are rounded to float64 for boxes of float64
    (or longdouble), else to float32. A box whose area is zero or negative (inverted on one axis) belongs to
    the finest level; one that is inverted on both axes has the level of its mirror image.

    The small number keeps a box of exactly a level's size there in spite of rounding. Added to the logarithm
    it is torchvision's; detectron2 adds 1e-8, and MMDetection 1e-6, to the quotient. So a box within a few
    millionths of a limit may have another level there, and all others have the same. MMDetection's
    ``finest_scale=56`` is ``canonical_scale=56, canonical_level=min_level``.

    References
    ----------
    T.-Y. Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017, equation 1.

    Examples
    --------
    >>> import numpy as np
    >>> import cyroialign
    >>> boxes = np.array([[0, 0, 50, 60], [0, 0, 223, 223], [10, 10, 234, 234], [0, 0, 2000, 900]])
    >>> cyroialign.assign_levels(boxes, min_level=2, max_level=5)
    array([0, 1, 2, 3])
    """
    low, high = _validation_pyramid.level_numbers(min_level, max_level)
    origin = _validation_pyramid.level_number(canonical_level, "canonical_level")
    unit = _validation.scale(canonical_scale, True, "canonical_scale")
    x1, y1, x2, y2 = _corners(boxes).T
    real = np.float32 if x1.dtype.itemsize < 8 or x1.dtype.kind != "f" else np.float64
    if x1.dtype.kind != "f":  # areas of integers are exact before they are rounded
        x1, y1, x2, y2 = (side.astype(np.float64) for side in (x1, y1, x2, y2))
    with np.errstate(over="ignore", under="ignore", invalid="ignore", divide="ignore"):
        area = ((x2 - x1) * (y2 - y1)).astype(real)
        ratio = np.sqrt(area) / real(unit)
        # Rounded from float64, the logarithm is the same on every platform.
        octaves = np.log2(ratio.astype(np.float64)).astype(real)
        levels = np.floor(real(origin) + octaves + real(EPSILON)).astype(np.float64)
    levels = np.fmin(np.fmax(levels, low), high)  # fmax ignores the NaN of a negative area
    return np.asarray(levels - low).astype(np.int64)


def infer_scales(feature_sizes: Sequence[Any], image_shapes: Sequence[Any]) -> list[float]:
    """Infer the spatial_scale of each feature map, a power of two.

    Parameters
    ----------
    feature_sizes : sequence of (int, int)
        (height, width) of each map.
    image_shapes : sequence of (int, int)
        (height, width) of each image, before it was padded to a common size.

    Returns
    -------
    list of float
        ``2 ** round(log2(height of the map / height of the tallest image))`` for each map: as in
        torchvision, the width has no say.

    Raises
    ------
    TypeError, ValueError
        Where a size is not (height, width) of whole numbers from 1 up, or there are none.

    Examples
    --------
    >>> from cyroialign.poolers import infer_scales
    >>> infer_scales([(200, 272), (100, 136), (50, 68)], [(800, 1066), (704, 1088)])
    [0.25, 0.125, 0.0625]
    """
    heights = [height for height, _ in _validation_pyramid.list_of_sizes(feature_sizes, "feature_sizes")]
    tallest = max(height for height, _ in _validation_pyramid.list_of_sizes(image_shapes, "image_shapes"))
    # np.float32: a logarithm halfway between two whole numbers rounds as torchvision's does.
    return [2.0 ** float(np.rint(np.float32(math.log2(np.float32(h / tallest))))) for h in heights]


def level_range(scales: Sequence[float]) -> tuple[int, int]:
    """Tell (min_level, max_level) of maps with the given scales, finest first.

    No more levels than maps: of maps that skip a level, the last takes what is too large for the others.
    """
    first, last = (round(-math.log2(scale)) for scale in (scales[0], scales[-1]))
    _validation_pyramid.level_numbers(first, last)
    return first, min(last, first + len(scales) - 1)


class MultiScaleRoIAlign(Settings):
    """RoIAlign on a feature pyramid: each box is pooled from the level that suits its size.

    Parameters
    ----------
    featmap_names : str or sequence of str
        Names of the maps to pool from, from the finest to the coarsest. Other maps are not looked at.
    output_size, sampling_ratio, aligned, mode, layout, num_threads
        As in `roi_align`. torchvision's class has no `aligned`: it is False there.
    canonical_scale, canonical_level : optional
        As in `assign_levels`.

    Raises
    ------
    TypeError
        Where a setting has a wrong type.
    ValueError
        Where a setting has a wrong value.

    See Also
    --------
    assign_levels : the rule that says from which map a box is pooled.
    roi_align : the same from one map.

    Notes
    -----
    Maps have a `spatial_scale` each, the power of two next to the height of the map divided by that of the
    tallest image, as in torchvision. Boxes of all levels are pooled in one pass, straight to their place in
    the result: each has the same bits as from `roi_align` on the map of its level. As there, bits do not
    depend on the number of threads or the SIMD level. The gradients have the bits of `roi_align_backward`,
    level by level, unless there are so many boxes that they are carried out in several portions.

    The defaults are torchvision's class, which leaves out silently what `featmap_names` has and `x` has not;
    here that is an error. detectron2's ROIPooler with "ROIAlignV2" is ``aligned=True``; its scales are given,
    not inferred, and `assign_levels` says how its rule of levels differs. Where scales are not powers of two,
    or levels have another rule, call `roi_align` level by level.

    References
    ----------
    T.-Y. Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from cyroialign import MultiScaleRoIAlign
    >>> x = {"p2": np.zeros((1, 8, 64, 64), np.float32), "p3": np.ones((1, 8, 32, 32), np.float32)}
    >>> pool = MultiScaleRoIAlign(["p2", "p3"], output_size=7, sampling_ratio=2)
    >>> boxes = [np.array([[10.0, 10, 50, 60], [20, 10, 250, 200]])]
    >>> crops = pool(x, boxes, image_shapes=[(256, 256)])
    >>> crops.shape, crops.mean(axis=(1, 2, 3))
    ((2, 8, 7, 7), array([0., 1.], dtype=float32))
    """

    def __init__(
        self,
        featmap_names: str | Sequence[str],
        output_size: int | tuple[int, int],
        sampling_ratio: int,
        *,
        canonical_scale: float = 224,
        canonical_level: int = 4,
        aligned: bool = False,
        mode: str = "avg",
        layout: str = "NCHW",
        num_threads: int | None = None,
    ) -> None:
        names = _validation_pyramid.map_names(featmap_names)
        _validation.output_size(output_size)
        _validation.sampling_ratio(sampling_ratio)
        _validation.scale(canonical_scale, True, "canonical_scale")
        _validation_pyramid.level_number(canonical_level, "canonical_level")
        _validation.flag(aligned, "aligned")
        _validation.choice(mode, "mode", _validation.MODES)
        _validation.choice(layout, "layout", _validation.LAYOUTS)
        if num_threads is not None:
            _validation.thread_count(num_threads, "num_threads")
        self.featmap_names = names
        self.output_size = output_size
        self.sampling_ratio = sampling_ratio
        self.canonical_scale = canonical_scale
        self.canonical_level = canonical_level
        self.aligned = aligned
        self.mode = mode
        self.layout = layout
        self.num_threads = num_threads

    def __call__(
        self, x: "Mapping[str, ArrayLike]", boxes: "Sequence[ArrayLike]", image_shapes: Sequence[Any]
    ) -> np.ndarray:
        """Pool the boxes.

        Parameters
        ----------
        x : mapping of str to (N, C, H_l, W_l) array
            The maps, all of one dtype of those that `roi_align` takes; (N, H_l, W_l, C) with
            ``layout="NHWC"``. Memory in the order of either layout is read in place, if it is that of the
            first map.
        boxes : list or tuple of N arrays (L_i, 4)
            For each image rows of (x1, y1, x2, y2), in pixels of the image.
        image_shapes : sequence of N (int, int)
            (height, width) of each image, before it was padded to a common size.

        Returns
        -------
        (K, C, height, width) ndarray
            All boxes, image after image, of the dtype of the maps, but float32 for uint8, and the memory
            order of the first; (K, height, width, C) with ``layout="NHWC"``.

        Raises
        ------
        TypeError
            Where an argument has a wrong type, or the maps differ in dtype.
        ValueError
            Where x lacks a map, shapes do not fit each other, or a box is not finite: the first is named.
        """
        pyramid = self._read(x, boxes, image_shapes)
        first, channels_last = _layout.in_kernel_order(pyramid.maps[0], self.layout)
        others = (_layout.in_given_order(one, self.layout, channels_last) for one in pyramid.maps[1:])
        bins = _validation.output_size(self.output_size)
        return calls.pool(
            POOLINGS[self.mode],
            (first, *others),
            pyramid.boxes,
            (len(pyramid.boxes.rows), pyramid.sizes[0][1], *bins),
            _validation.sampling_ratio(self.sampling_ratio),
            self.layout,
            channels_last,
            _threads.threads_for(self.num_threads),
        )

    def backward(
        self,
        grad_output: "ArrayLike",
        x: "Mapping[str, ArrayLike]",
        boxes: "Sequence[ArrayLike]",
        image_shapes: Sequence[Any],
    ) -> dict[str, np.ndarray]:
        """Return the gradients to the maps: the transpose of the call, applied to `grad_output`.

        Parameters
        ----------
        grad_output : (K, C, height, width) array
            Gradient to the result and of its dtype; (K, height, width, C) with ``layout="NHWC"``.
        x, boxes, image_shapes
            As in the call. In mode "avg" shape and dtype of the maps count alone; a maximum is found again
            in their numbers.

        Returns
        -------
        dict of str to ndarray
            For each of `featmap_names` the gradient, of the shape of the map and the dtype and memory order
            of `grad_output`; zeros where no box was pooled from.

        Raises
        ------
        TypeError, ValueError
            As the call does, and where `grad_output` does not fit boxes and maps.
        """
        pyramid = self._read(x, boxes, image_shapes)
        array = _validation.gradient(grad_output)
        grads, channels_last = _layout.in_kernel_order(array, self.layout)
        _validation.gradient_dtype(grads, pyramid.maps[0], f"x[{self.featmap_names[0]!r}]")
        given = _layout.sizes(grads.shape, channels_last)
        _validation.fitting_gradient(given, len(pyramid.boxes.rows), pyramid.sizes[0])
        gradients = calls.scatter(
            POOLINGS[self.mode],
            grads,
            None if self.mode == "avg" else tuple(pyramid.maps),
            pyramid.boxes,
            pyramid.sizes,
            _validation.sampling_ratio(self.sampling_ratio),
            self.layout,
            channels_last,
            _threads.threads_for(self.num_threads),
        )
        return dict(zip(self.featmap_names, gradients, strict=True))

    def _read(self, x: Any, boxes: Any, image_shapes: Any) -> "_Pyramid":
        """What both directions check alike."""
        names = self.featmap_names
        maps = _validation_pyramid.maps_of_levels(x, names)
        sizes = [_layout.sizes(array.shape, self.layout == "NHWC") for array in maps]
        _validation_pyramid.of_one_kind(maps, sizes, names)
        images = sizes[0][0]
        _validation_pyramid.list_of_sizes(image_shapes, "image_shapes", images, "an image")
        _validation_pyramid.boxes_by_image(boxes, images)
        scales, levels = [1.0] * len(names), np.zeros(0, np.intp)
        count = sum(len(_validation.box_array(one, f"boxes[{i}]", 4)) for i, one in enumerate(boxes))
        if count:
            _validation_pyramid.pixels_to_pool(sizes, names, count)
            scales = infer_scales([size[2:] for size in sizes], image_shapes)
            _validation_pyramid.finest_first(scales, names)
            levels = assign_levels(
                boxes,
                *level_range(scales),
                canonical_scale=self.canonical_scale,
                canonical_level=self.canonical_level,
            ).astype(np.intp, copy=False)
        pairs = tuple((scale, scale) for scale in scales)
        rois = _boxes.read_boxes_of_levels(boxes, images, maps[0].dtype, pairs, levels, bool(self.aligned))
        return _Pyramid(maps, sizes, rois)


class _Pyramid(NamedTuple):
    """The checked arguments of a call, with the size (N, C, H, W) of each map."""

    maps: list[np.ndarray]
    sizes: list[_layout.Size]
    boxes: _boxes.Boxes


def _corners(boxes: Any) -> np.ndarray:
    """Read (K, 4) finite corners in their own dtype, float16 as float32 and longdouble as float64."""
    by_image = _boxes.is_by_image(boxes)
    if by_image:
        parts = [_validation.box_array(one, f"boxes[{i}]", 4) for i, one in enumerate(boxes)]
        corners = np.concatenate(parts) if parts else np.empty((0, 4), np.float32)
    else:
        array = _foreign.numbers_of(boxes, "boxes")
        columns = 5 if array.shape[1:] == (5,) else 4
        corners = _validation.box_array(array, "boxes", columns)[:, columns - 4 :]
    if corners.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a longdouble beyond float64 becomes infinite
            corners = corners.astype(np.float64 if corners.dtype.itemsize >= 8 else np.float32)
    bad = ~np.isfinite(corners).all(axis=1)
    if bad.any():
        row = int(bad.argmax())
        where = _boxes._place_in_list(boxes, row) if by_image else f"boxes[{row}]"
        _validation.raise_bad_box(np.r_[0, corners[row]], where, 1, 1.0, single=False)
    return corners
