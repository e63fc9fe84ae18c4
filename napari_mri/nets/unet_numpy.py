"""`HeadNet` run by numpy alone, for processors: importing torch takes longer than stripping a head.

A convolution lays the 27 neighbours of some lines of voxels side by side and is one matrix product then, few lines at
a time so that all of it stays near the processor; numpy hands it to BLAS, several threads at a time. Between
convolutions features lie in a frame of zeros, (I + 2, J + 2, K + 2, C), which is what they see beyond the border.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from napari_mri.nets.blas import each, own_threads

Array = NDArray[np.float32]

AT_ONCE = 200_000
"""About so many values are laid side by side for a matrix product: as many as stay near the processor."""

Part = tuple[slice, ...]
"""Of blocks of two voxels a side, along three axes."""


class HeadNet:
    """The same network as `nets.anatomy.HeadNet`, from the same tensors.

    Parameters
    ----------
    state : mapping of str to ndarray
        As a state dict of the torch network names them, of any float type.

    Raises
    ------
    KeyError, ValueError
        If the tensors are not those of such a network.
    """

    def __init__(self, state: Mapping[str, NDArray[Any]]) -> None:
        self.state = {name: np.asarray(value, dtype=np.float32) for name, value in state.items()}
        self.widths, self.depths, wide = structure_of(state)
        outs = len(state["names.bias"])
        for name, shape in shapes(self.widths, self.depths, wide, outs).items():
            if self.state[name].shape != shape:
                raise ValueError(f"{name} is {self.state[name].shape} and not {shape}")

    def surfaces(self, features: Array) -> Array:
        """Return distances (2, I, J, K), voxels, to the inner skull and to the brain, from `features`."""
        x = convolved(features, self.state["head.weight"])
        x += self.state["head.bias"]
        return unfold(x)

    def named(self, features: Array, part: Part = (slice(None),) * 3) -> Array:
        """Return logits (structures + 1, I, J, K) of some blocks: the names, and right (above 0) or left."""
        x = self._told(features)[part]
        i, j, k, wide = x.shape
        flat = x.reshape(-1, wide).T
        kernel, bias = (self.state[f"names.{name}"].reshape(-1, 8, n) for name, n in (("weight", wide), ("bias", 1)))
        out = np.empty((len(kernel), i, 2, j, 2, k, 2), dtype=np.float32)
        # One of the eight voxels of each block after the other: all at once would be turned around in memory after.
        def name(n: int) -> None:
            a, b, c = np.unravel_index(n, (2, 2, 2))
            answer = kernel[:, n] @ flat
            answer += bias[:, n]
            out[:, :, a, :, b, :, c] = answer.reshape(-1, i, j, k)

        with own_threads() as threads:
            each(name, range(8), threads)
        return out.reshape(-1, 2 * i, 2 * j, 2 * k)

    def naming(self, features: Array) -> Callable[[NDArray[np.intp]], Array]:
        """Return what tells the logits (structures + 1, V) that `named` has at some voxels (3, V)."""
        x = self._told(features)
        wide = x.shape[3]
        kernel, bias = (self.state[f"names.{name}"].reshape(-1, 8, n) for name, n in (("weight", wide), ("bias", 1)))

        def ask(voxels: NDArray[np.intp]) -> Array:
            blocks = x[tuple(voxels // 2)]
            places = np.ravel_multi_index(tuple(voxels % 2), (2, 2, 2))
            out = np.empty((len(kernel), len(places)), dtype=np.float32)
            for n in range(8):
                here = np.flatnonzero(places == n)
                if here.size:
                    out[:, here] = kernel[:, n] @ blocks[here].T + bias[:, n]
            return out

        return ask

    def features(self, image: Array) -> Array:
        """(I, J, K) to features of blocks of two voxels a side, framed."""
        x = framed(fold(image))
        spare = np.empty(x[1:-1, 1:-1, 1:-1, 0].size * self.widths[0], dtype=np.float32)
        x = self._block("stem", x, spare)
        skips = []
        for level, depth in enumerate(self.depths):
            for number in range(depth):
                x = self._block(f"down.{level}.{number}", x, spare)
            if level + 1 < len(self.depths):
                skips.append(x)
                x = self._block(f"shrink.{level}", x, spare, stride=2)
        for level in reversed(range(len(self.depths) - 1)):
            kernel, bias = self.state[f"widen.{level}.weight"], self.state[f"widen.{level}.bias"]
            with own_threads():
                coarse = inner(x) @ kernel[:, :, 0, 0, 0].T + bias
            x = skips.pop()
            add_doubled(inner(x), coarse)
            x = self._block(f"up.{level}", x, spare)
        return x

    def _told(self, features: Array) -> Array:
        """Return what the names follow from, (I / 2, J / 2, K / 2, wide), without a frame."""
        y, (scale, offset) = self._convolved("tell", features)
        same = features.shape[3] == y.shape[3]

        def finish(n: int) -> None:
            _lit(y[n], scale, offset)
            if same:
                y[n] += inner(features)[n]

        with own_threads() as threads:
            each(finish, range(len(y)), threads)
        return y

    def _block(self, name: str, x: Array, spare: Array, stride: int = 1) -> Array:
        """Convolution, group norm, LeakyReLU; adds its input, and is written over it, where the width does not change.

        Parameters
        ----------
        name : str
        x : ndarray, (I + 2, J + 2, K + 2, ins)
        spare : ndarray
            Room to work in: memory that is new takes longer than that which was used before.
        stride : int

        Returns
        -------
        ndarray, (I' + 2, J' + 2, K' + 2, outs)
        """
        y, (scale, offset) = self._convolved(name, x, stride, spare)
        same = stride == 1 and x.shape[3] == y.shape[3]
        out = x if same else frame_of(y.shape)
        answer = inner(out)

        def finish(n: int) -> None:
            _lit(y[n], scale, offset)
            if same:
                answer[n] += y[n]
            else:
                answer[n] = y[n]

        with own_threads() as threads:
            each(finish, range(len(y)), threads)
        return out

    def _convolved(
        self, name: str, x: Array, stride: int = 1, spare: Array | None = None
    ) -> tuple[Array, tuple[Array, Array]]:
        """Return the convolution of a block, and what its group norm multiplies it by and adds then."""
        kernel = self.state[f"{name}.conv.weight"]
        sums = np.zeros((2, (x.shape[0] - 2) // stride, len(kernel)))
        ones = np.ones((x.shape[1] - 2) // stride * ((x.shape[2] - 2) // stride), dtype=np.float32)

        def count(n: int, slab: Array) -> None:
            rows = slab.reshape(-1, slab.shape[-1])
            sums[0, n], sums[1, n] = ones @ rows, ones @ np.square(rows)

        y = convolved(x, kernel, stride, spare, count)
        norm = (self.state[f"{name}.norm.{part}"] for part in ("weight", "bias"))
        return y, _normaliser(sums.sum(axis=1), y.size, *norm)


def structure_of(state: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Return widths and depths of a network's levels, and from how many channels it names, by its tensors."""
    levels = 1 + sum(name.startswith("shrink.") and name.endswith(".conv.weight") for name in state)
    first = ("stem", *(f"shrink.{level}" for level in range(levels - 1)))
    depths = (
        sum(name.startswith(f"down.{level}.") and name.endswith(".conv.weight") for name in state)
        for level in range(levels)
    )
    return tuple(len(state[f"{name}.conv.weight"]) for name in first), tuple(depths), len(state["tell.norm.weight"])


def shapes(widths: tuple[int, ...], depths: tuple[int, ...], wide: int, outs: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of such a network, by name; `outs` are eight for each structure and the side."""
    blocks = {"stem": (widths[0], 8), "tell": (wide, widths[0])}
    found: dict[str, tuple[int, ...]] = {}
    for level, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        blocks |= {f"down.{level}.{number}": (width, width) for number in range(depth)}
        if level + 1 < len(widths):
            blocks |= {f"shrink.{level}": (widths[level + 1], width), f"up.{level}": (width, width)}
            found |= {f"widen.{level}.weight": (width, widths[level + 1], 1, 1, 1), f"widen.{level}.bias": (width,)}
    for name, (after, before) in blocks.items():
        found[f"{name}.conv.weight"] = (after, before, 3, 3, 3)
        found |= {f"{name}.norm.weight": (after,), f"{name}.norm.bias": (after,)}
    found |= {"head.weight": (16, widths[0], 3, 3, 3), "head.bias": (16,)}
    return found | {"names.weight": (outs, wide, 1, 1, 1), "names.bias": (outs,)}


def fold(image: Array) -> Array:
    """(I, J, K) to (I / 2, J / 2, K / 2, 8): each block of voxels becomes channels."""
    i, j, k = (n // 2 for n in image.shape)
    blocks = np.asarray(image, dtype=np.float32).reshape(i, 2, j, 2, k, 2)
    return np.ascontiguousarray(blocks.transpose(0, 2, 4, 1, 3, 5)).reshape(i, j, k, 8)


def unfold(x: Array) -> Array:
    """(I, J, K, outs * 8) to (outs, 2 I, 2 J, 2 K)."""
    i, j, k, channels = x.shape
    blocks = x.reshape(i, j, k, channels // 8, 2, 2, 2).transpose(3, 0, 4, 1, 5, 2, 6)
    return np.ascontiguousarray(blocks).reshape(channels // 8, 2 * i, 2 * j, 2 * k)


def inner(x: Array) -> Array:
    """Return what a frame of zeros holds, (I, J, K, C) of (I + 2, J + 2, K + 2, C)."""
    return x[1:-1, 1:-1, 1:-1]


def frame_of(shape: tuple[int, ...]) -> Array:
    """Return room for features of a shape (I, J, K, C) within a frame of zeros."""
    i, j, k, channels = shape
    return np.zeros((i + 2, j + 2, k + 2, channels), dtype=np.float32)


def framed(x: Array) -> Array:
    """Put features (I, J, K, C) into a frame of zeros."""
    out = frame_of(x.shape)
    inner(out)[:] = x
    return out


def add_doubled(x: Array, coarse: Array) -> None:
    """Add (I, J, K, C) to (2 I, 2 J, 2 K, C) in place, every voxel to eight."""
    i, j, k, channels = coarse.shape
    blocks = x.reshape(i, 2, j, 2, k, 2, channels)  # a view: only axes are split

    def add(n: int) -> None:
        blocks[n] += coarse[n, None, :, None, :, None]

    with own_threads() as threads:
        each(add, range(i), threads)


def convolved(
    x: Array, kernel: Array, stride: int = 1, spare: Array | None = None, then: Callable[[int, Array], None] | None = None
) -> Array:
    """Convolve, at every voxel or at every second one.

    Parameters
    ----------
    x : ndarray, (I + 2, J + 2, K + 2, ins)
    kernel : ndarray, (outs, ins, 3, 3, 3)
    stride : int
        1 or 2.
    spare : ndarray, optional
        Flat room for the answer, at least as large.
    then : callable, optional
        Is handed the number of each finished slab, and the slab (J', K', outs), from any thread.

    Returns
    -------
    ndarray, (I / stride, J / stride, K / stride, outs), without a frame
    """
    outs, ins = kernel.shape[:2]
    i, j, k = ((n - 2) // stride for n in x.shape[:3])
    # Neighbours along the last axis stand side by side in memory: nine strips of three voxels around each.
    a, b, c, d = x.strides
    strips = as_strided(x, (i, j, k, 3, 3, 3 * ins), (stride * a, stride * b, stride * c, a, b, d), writeable=False)
    weights = kernel.transpose(2, 3, 4, 1, 0).reshape(27 * ins, outs)
    size = i * j * k * outs
    out = (np.empty(size, dtype=np.float32) if spare is None else spare[:size]).reshape(i, j, k, outs)
    lines = max(1, AT_ONCE // (k * 27 * ins))

    def take(n: int) -> None:
        room = np.empty((min(lines, j), k, 3, 3, 3 * ins), dtype=np.float32)
        for start in range(0, j, lines):
            stop = min(start + lines, j)
            around = room[: stop - start]
            np.copyto(around, strips[n, start:stop])
            np.matmul(around.reshape(-1, 27 * ins), weights, out=out[n, start:stop].reshape(-1, outs))
        if then is not None:
            then(n, out[n])

    with own_threads() as threads:
        each(take, range(i), threads)
    return out


def _lit(slab: Array, scale: Array, offset: Array) -> None:
    """Multiply, add, and make what is below 0 a tenth of itself, in place; (J, K, C)."""
    slab *= scale
    slab += offset
    np.maximum(slab, np.float32(0.1) * slab, out=slab)


def _normaliser(sums: NDArray[np.float64], size: int, weight: Array, bias: Array) -> tuple[Array, Array]:
    """Return what group norm of eight channels a group multiplies each channel by, and adds then, (C,) each.

    Parameters
    ----------
    sums : ndarray, (2, C)
        Of the values of each channel, and of their squares.
    size : int
        Values in all channels together.
    weight, bias : ndarray, (C,)
    """
    channels = len(weight)
    groups = max(1, channels // 8)
    mean, square = (part.reshape(groups, -1).sum(axis=1) * groups / size for part in sums)
    factor = weight / np.repeat(np.sqrt(np.maximum(square - mean**2, 0) + 1e-5), channels // groups)
    return factor.astype(np.float32), (bias - np.repeat(mean, channels // groups) * factor).astype(np.float32)
