"""RoIAlign on a feature pyramid, all levels at once."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cyroialign.arguments import memory_order, pyramids, validation
from cyroialign.arguments.boxes import Boxes, read_boxes_of_levels
from cyroialign.operators import calls
from cyroialign.operators.roi_align import POOLINGS
from cyroialign.operators.settings import Settings
from cyroialign.pyramid.levels import assign_levels, infer_scales, level_range

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


class MultiScaleRoIAlign(Settings):
    """RoIAlign on a feature pyramid: each box is pooled from the level that suits its size.

    Parameters
    ----------
    featmap_names : str or sequence of str
        Names of the maps to pool from, from the finest to the coarsest. Other maps are ignored.
    output_size, sampling_ratio, aligned, mode, layout, num_threads
        As in `roi_align`. torchvision's class has no `aligned`: it is False there.
    spatial_scales : sequence of float or (float, float), optional
        Feature pixels per pixel of the image, or a pair (y, x), for each map; by default as found by
        `infer_scales`.
    canonical_scale, canonical_level : optional
        As in `assign_levels`.

    Raises
    ------
    TypeError
        If a setting has a wrong type.
    ValueError
        If a setting has a wrong value.

    See Also
    --------
    assign_levels : the rule that decides which map a box is pooled from.
    roi_align : the same from one map.

    Notes
    -----
    Maps have a `spatial_scale` each, given or inferred: `infer_scales` says how, and how torchvision's rule
    differs for low, wide images. Boxes of all levels are pooled in one pass, straight to their place in
    the result: each has the same bits as from `roi_align` on the map of its level. As there, bits do not
    depend on the number of threads or the SIMD level. The gradients have the bits of `roi_align_backward`,
    level by level, unless there are so many boxes that they are processed in several chunks.

    The defaults are those of torchvision's class, which silently skips names in `featmap_names` that `x`
    lacks; here that is an error. detectron2's ROIPooler with "ROIAlignV2" is ``aligned=True``; it takes
    scales, like `spatial_scales`, and `assign_levels` says how its rule of levels differs. For a different
    rule, call `roi_align` level by level.

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
        spatial_scales: "Sequence[float | tuple[float, float]] | None" = None,
        canonical_scale: float = 224,
        canonical_level: int = 4,
        aligned: bool = False,
        mode: str = "avg",
        layout: str = "NCHW",
        num_threads: int | None = None,
    ) -> None:
        names = pyramids.map_names(featmap_names)
        validation.output_size(output_size)
        validation.sampling_ratio(sampling_ratio)
        if spatial_scales is not None:
            pyramids.spatial_scales(spatial_scales, names)
        validation.scale(canonical_scale, True, "canonical_scale")
        pyramids.level_number(canonical_level, "canonical_level")
        validation.flag(aligned, "aligned")
        validation.choice(mode, "mode", validation.MODES)
        validation.choice(layout, "layout", validation.LAYOUTS)
        if num_threads is not None:
            validation.thread_count(num_threads, "num_threads")
        self.featmap_names = names
        self.output_size = output_size
        self.sampling_ratio = sampling_ratio
        self.spatial_scales = spatial_scales
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
            The maps, all of the same dtype, one that `roi_align` takes; (N, H_l, W_l, C) with
            ``layout="NHWC"``. Memory in the order of either layout is read in place, if the first map has
            the same order.
        boxes : list or tuple of N arrays (L_i, 4)
            For each image rows of (x1, y1, x2, y2), in pixels of the image.
        image_shapes : sequence of N (int, int)
            (height, width) of each image, before it was padded to a common size.

        Returns
        -------
        (K, C, height, width) ndarray
            All boxes, image after image, of the dtype of the maps, but float32 for uint8 and int8, and the
            memory order of the first; (K, height, width, C) with ``layout="NHWC"``.

        Raises
        ------
        TypeError
            If an argument has a wrong type, or the maps differ in dtype.
        ValueError
            If x lacks a map, shapes do not match, or a box is not finite: the first one is named.
        """
        pyramid = self._read(x, boxes, image_shapes)
        first, channels_last = memory_order.in_kernel_order(pyramid.maps[0], self.layout)
        others = (memory_order.in_given_order(one, self.layout, channels_last) for one in pyramid.maps[1:])
        bins = validation.output_size(self.output_size)
        return calls.pool(
            POOLINGS[self.mode],
            (first, *others),
            pyramid.boxes,
            (len(pyramid.boxes.rows), pyramid.sizes[0][1], *bins),
            validation.sampling_ratio(self.sampling_ratio),
            self.layout,
            channels_last,
            self.num_threads,
        )

    def backward(
        self,
        grad_output: "ArrayLike",
        x: "Mapping[str, ArrayLike]",
        boxes: "Sequence[ArrayLike]",
        image_shapes: Sequence[Any],
    ) -> dict[str, np.ndarray]:
        """Return the gradients with respect to the maps: the transpose of the call, applied to `grad_output`.

        Parameters
        ----------
        grad_output : (K, C, height, width) array
            Gradient with respect to the result, of the same dtype; (K, height, width, C) with
            ``layout="NHWC"``.
        x, boxes, image_shapes
            As in the call. In mode "avg" only the shape and dtype of the maps matter; a maximum is found
            again from their values.

        Returns
        -------
        dict of str to ndarray
            For each of `featmap_names` the gradient, with the shape of the map and the dtype and memory
            order of `grad_output`; zeros if no box was pooled from that map.

        Raises
        ------
        TypeError, ValueError
            As for the call, and if `grad_output` does not match boxes and maps.
        """
        pyramid = self._read(x, boxes, image_shapes)
        array = validation.gradient(grad_output)
        grads, channels_last = memory_order.in_kernel_order(array, self.layout)
        validation.gradient_dtype(grads, pyramid.maps[0], f"x[{self.featmap_names[0]!r}]")
        given = memory_order.sizes(grads.shape, channels_last)
        validation.fitting_gradient(given, len(pyramid.boxes.rows), pyramid.sizes[0])
        gradients = calls.scatter(
            POOLINGS[self.mode],
            grads,
            None if self.mode == "avg" else tuple(pyramid.maps),
            pyramid.boxes,
            pyramid.sizes,
            validation.sampling_ratio(self.sampling_ratio),
            self.layout,
            channels_last,
            self.num_threads,
        )
        return dict(zip(self.featmap_names, gradients, strict=True))

    def _read(self, x: Any, boxes: Any, image_shapes: Any) -> "_Pyramid":
        """Check what both directions need."""
        names = self.featmap_names
        maps = pyramids.maps_of_levels(x, names)
        sizes = [memory_order.sizes(array.shape, self.layout == "NHWC") for array in maps]
        pyramids.of_one_kind(maps, sizes, names)
        images = sizes[0][0]
        pyramids.list_of_sizes(image_shapes, "image_shapes", images, "an image")
        pyramids.boxes_by_image(boxes, images)
        scales, levels = ((1.0, 1.0),) * len(names), np.zeros(0, np.intp)
        count = sum(len(validation.box_array(one, f"boxes[{i}]", 4)) for i, one in enumerate(boxes))
        if count:
            pyramids.pixels_to_pool(sizes, names, count)
            scales = self._scales(sizes, image_shapes)
            levels = assign_levels(
                boxes,
                *level_range(scales),
                canonical_scale=self.canonical_scale,
                canonical_level=self.canonical_level,
            ).astype(np.intp, copy=False)
        rois = read_boxes_of_levels(boxes, images, maps[0].dtype, scales, levels, bool(self.aligned))
        return _Pyramid(maps, sizes, rois)

    def _scales(self, sizes: list[memory_order.Size], image_shapes: Any) -> tuple[tuple[float, float], ...]:
        """The (y, x) scales of maps, finest first."""
        if self.spatial_scales is not None:
            return pyramids.spatial_scales(self.spatial_scales, self.featmap_names)
        scales = infer_scales([size[2:] for size in sizes], image_shapes)
        pyramids.finest_first(scales, self.featmap_names)
        return tuple((scale, scale) for scale in scales)


class _Pyramid(NamedTuple):
    """The checked arguments of a call, with the size (N, C, H, W) of each map."""

    maps: list[np.ndarray]
    sizes: list[memory_order.Size]
    boxes: Boxes
