"""Feature pyramid network: the maps that regions are pooled from, computed from a backbone's maps."""

import itertools
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cyroialign.arguments import pyramids, validation

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

BLOCK = 4096  # pixels of a block of rows: of 1024 to 8192 the fastest or level with it, 64 to 256 channels
OLDER_KEY = re.compile(r"(inner_blocks|layer_blocks)\.(\d+)\.(weight|bias)")


class FeaturePyramidNetwork:
    r"""Feature pyramid network: a backbone's maps, merged from coarse to fine.

    Parameters
    ----------
    in_channels_list : sequence of int
        Channels of the map of each level, finest first.
    out_channels : int
        Channels of each map of the result.
    extra_blocks : {None, "maxpool"}, optional
        "maxpool" adds a level "pool": every second row and column of the coarsest map (torchvision's
        ``LastLevelMaxPool``).
    seed : int or numpy.random.Generator, optional
        Seed or generator for the initial weights, as in `numpy.random.default_rng`.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong.

    Notes
    -----
    With :math:`x_l` the map of level :math:`l`, coarser as :math:`l` grows,

    .. math::
        m_l = \mathrm{conv}_{1 \times 1}(x_l) + \mathrm{nearest}(m_{l+1}), \qquad
        y_l = \mathrm{conv}_{3 \times 3}(m_l)

    where the coarsest level has nothing to add, `nearest` enlarges to the size of level :math:`l`, and the
    second convolution is padded with a ring of zeros. A new network has biases of zero and weights
    uniform in :math:`\pm\sqrt{3 / n}`, for n weights per output channel, as in torchvision.

    The rules are torchvision's. detectron2's FPN (``fuse_type="sum"``, no norm) has the same rules if
    each map is half as high and wide as the one before; to use its weights, rename ``fpn_lateral2`` and
    ``fpn_output2`` to ``inner_blocks.0.0`` and ``layer_blocks.0.0``, and so on.

    Maps are (N, C, H, W) only. The products are computed by NumPy's BLAS: its settings control the threads,
    and the last bits differ from machine to machine. Besides the maps themselves, a call needs scratch for
    some rows of one image.

    References
    ----------
    T.-Y. Lin et al., "Feature Pyramid Networks for Object Detection", CVPR 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from cyroialign import FeaturePyramidNetwork
    >>> fpn = FeaturePyramidNetwork([64, 128, 256], 32, extra_blocks="maxpool", seed=0)
    >>> maps = {f"c{i + 2}": np.ones((1, 64 << i, 48 >> i, 64 >> i), np.float32) for i in range(3)}
    >>> {name: level.shape for name, level in fpn(maps).items()}
    {'c2': (1, 32, 48, 64), 'c3': (1, 32, 24, 32), 'c4': (1, 32, 12, 16), 'pool': (1, 32, 6, 8)}
    """

    def __init__(
        self,
        in_channels_list: Sequence[int],
        out_channels: int,
        extra_blocks: str | None = None,
        *,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        inputs, outputs = pyramids.channels(in_channels_list, out_channels)
        self.in_channels_list, self.out_channels = inputs, outputs
        if extra_blocks is not None:
            validation.choice(extra_blocks, "extra_blocks", ("maxpool",))
        self.extra_blocks = extra_blocks
        rng = np.random.default_rng(seed)
        self._state = {key: _fresh(rng, shape) for key, shape in self._shapes().items()}

    def load_state_dict(self, state: "Mapping[str, ArrayLike] | str | os.PathLike[str]") -> None:
        """Take over weights and biases.

        Parameters
        ----------
        state : mapping of str to arrays of float32 or float64, or path of an ``.npz`` file
            All of ``inner_blocks.L.0.weight`` (out_channels, in_channels_list[L], 1, 1),
            ``layer_blocks.L.0.weight`` (out_channels, out_channels, 3, 3) and a ``bias``
            (out_channels,) beside each, and nothing else: the ``state_dict()`` of torchvision's
            FeaturePyramidNetwork, or the keys used before torchvision 0.14, without the ``.0``. The
            arrays are copied.

        Raises
        ------
        TypeError
            If `state` is neither a mapping nor a path, or an array has a wrong dtype.
        ValueError
            If a key is unknown, missing or given in both spellings, or a shape is wrong. The message names
            the key, and the network is unchanged.

        Examples
        --------
        From the state of a whole detector, keep the keys of the pyramid::

            prefix = "backbone.fpn."
            keys = [key for key in state if key.startswith(prefix)]
            fpn.load_state_dict({key.removeprefix(prefix): state[key] for key in keys})
        """
        if isinstance(state, str | os.PathLike):
            with pyramids.archive(state) as arrays:
                return self.load_state_dict(arrays)
        pyramids.mapping(state, "state")
        keys = {key: OLDER_KEY.sub(r"\1.\2.0.\3", key) if isinstance(key, str) else key for key in state}
        shapes = self._shapes()
        pyramids.state_keys(keys, shapes)
        self._state = {keys[key]: pyramids.weights(state[key], key, shapes[keys[key]]) for key in state}

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copy weights and biases, with the keys and in the order of torchvision."""
        return {key: self._state[key].copy() for key in self._shapes()}

    def __call__(self, x: "Mapping[str, ArrayLike]") -> dict[str, np.ndarray]:
        """Merge the maps of a backbone.

        Parameters
        ----------
        x : mapping of names to (N, C_l, H_l, W_l) arrays, all of float32 or all of float64
            The maps, finest first. Sizes are free: nearest neighbours bridge any ratio.

        Returns
        -------
        dict of names to (N, out_channels, H_l, W_l) ndarrays of the same dtype
            In the same order, and then "pool" if there are `extra_blocks`.

        Raises
        ------
        TypeError
            If `x` is not a mapping, or a map is not an array or differs in dtype.
        ValueError
            If the number of maps, of their channels or of their images is wrong, a map has no pixels, or a
            map is named "pool" like the extra level.
        """
        maps = pyramids.pyramid(x, self.in_channels_list, "pool" if self.extra_blocks else None)
        results: dict[str, np.ndarray] = {}
        coarser = None
        with np.errstate(all="ignore"):  # infinities and NaNs propagate
            for level, (name, features) in reversed(list(enumerate(maps.items()))):
                inner = _convolve_1x1(features, *self._block("inner_blocks", level, features.dtype))
                if coarser is not None:
                    _add_enlarged(inner, coarser)
                results[name] = _convolve_3x3(inner, *self._block("layer_blocks", level, features.dtype))
                coarser = inner
        ordered = {name: results[name] for name in maps}
        if self.extra_blocks:
            ordered["pool"] = next(reversed(ordered.values()))[:, :, ::2, ::2].copy()
        return ordered

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        out, shapes = self.out_channels, dict[str, tuple[int, ...]]()
        for block, taps in (("inner_blocks", 1), ("layer_blocks", 3)):
            for level, channels in enumerate(self.in_channels_list):
                shapes[f"{block}.{level}.0.weight"] = (out, channels if taps == 1 else out, taps, taps)
                shapes[f"{block}.{level}.0.bias"] = (out,)
        return shapes

    def _block(self, block: str, level: int, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        weight, bias = (self._state[f"{block}.{level}.0.{part}"] for part in ("weight", "bias"))
        return weight.astype(dtype, copy=False), bias.astype(dtype, copy=False)

    def __repr__(self) -> str:
        settings = (self.in_channels_list, self.out_channels, self.extra_blocks)
        return f"{type(self).__name__}({', '.join(map(repr, settings))})"


def _fresh(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Draw weights as torch's ``kaiming_uniform_(a=1)`` does; a bias is zero."""
    if len(shape) == 1:
        return np.zeros(shape, np.float32)
    bound = math.sqrt(3 / math.prod(shape[1:]))
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def _convolve_1x1(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Convolve (N, C, H, W) with weights (O, C, 1, 1)."""
    images, channels, height, width = x.shape
    y: np.ndarray = np.matmul(weight[:, :, 0, 0], x.reshape(images, channels, height * width))
    y += bias[:, None]
    return y.reshape(images, len(weight), height, width)


def _convolve_3x3(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Convolve (N, C, H, W), in a ring of zeros, with weights (O, C, 3, 3).

    A block of rows is laid out three times, shifted by a pixel along x. A shift along y is then a shift along
    the pixels of the block, in place: one product of (O, 3C) with (3C, pixels) for each row of the
    kernel. Within 10 % of one product for all nine taps and of nine products, or faster, in a third of
    the scratch of the former.
    """
    images, channels, height, width = x.shape
    taps = np.ascontiguousarray(weight.transpose(2, 0, 3, 1)).reshape(3, len(weight), 3 * channels)
    block = max(1, min(height, BLOCK // width))
    shifted = np.zeros((3, channels, block + 2, width), x.dtype)  # what no row or column fills stays zero
    pixels = shifted.reshape(3 * channels, (block + 2) * width)
    products = np.empty((len(weight), block * width), x.dtype)
    y = np.empty((images, len(weight), height * width), x.dtype)
    for image, result in zip(x, y, strict=True):
        for top in range(0, height, block):
            rows = min(block, height - top)
            above, below = min(top, 1), min(height - top - rows, 1)
            source = image[:, top - above : top + rows + below]
            inside = slice(1 - above, 1 + rows + below)
            shifted[:, :, : inside.start] = 0
            shifted[:, :, inside.stop :] = 0
            shifted[0, :, inside, 1:] = source[:, :, :-1]
            shifted[1, :, inside] = source
            shifted[2, :, inside, :-1] = source[:, :, 1:]
            part = result[:, top * width : (top + rows) * width]
            np.matmul(taps[0], pixels[:, : rows * width], out=part)
            for row in (1, 2):
                product = products[:, : rows * width]
                np.matmul(taps[row], pixels[:, row * width : (row + rows) * width], out=product)
                part += product
            part += bias[:, None]
    return y.reshape(images, len(weight), height, width)


def _add_enlarged(fine: np.ndarray, coarse: np.ndarray) -> None:
    """Add to (N, O, H, W), in place, the nearest neighbours of (N, O, h, w)."""
    rows = _nearest(coarse.shape[2], fine.shape[2], fine.dtype)
    columns = _nearest(coarse.shape[3], fine.shape[3], fine.dtype)
    starts = np.searchsorted(rows, np.arange(coarse.shape[2] + 1)).tolist()
    for target, source in zip(fine, coarse, strict=True):
        for row, (start, stop) in enumerate(itertools.pairwise(starts)):
            target[:, start:stop] += source[:, row, columns][:, None]


def _nearest(old: int, new: int, dtype: np.dtype) -> np.ndarray:
    """Index of the pixel of `old` that each of `new` repeats; rounded as torch rounds it."""
    positions: np.ndarray = dtype.type(old) / dtype.type(new) * np.arange(new, dtype=dtype)
    return positions.astype(np.float32).astype(np.intp).clip(max=old - 1)
