"""`HeadNet` run by numpy alone, for processors: importing torch takes longer than stripping a head.

A convolution is nine matrix products with the image shifted in memory, block by block so that all of it stays near
the processor; numpy hands them to BLAS, several threads at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.nets.blas import each, own_threads

Array = NDArray[np.float32]

ROWS, TURN = 512, 8192
"""Voxels per matrix product, and voxels a thread takes at a time."""


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
        return unfold(convolved(features, self.state["head.weight"]) + self.state["head.bias"])

    def named(self, features: Array, part: Part = (slice(None),) * 3) -> Array:
        """Return logits (structures + 1, I, J, K) of some blocks: the names, and right (above 0) or left."""
        x = self._block("tell", features)[part]
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

    def features(self, image: Array) -> Array:
        """(I, J, K) to (I / 2, J / 2, K / 2, width)."""
        x = self._block("stem", fold(image))
        skips = []
        for level, depth in enumerate(self.depths):
            for number in range(depth):
                x = self._block(f"down.{level}.{number}", x)
            if level + 1 < len(self.depths):
                skips.append(x)
                x = self._block(f"shrink.{level}", x, stride=2)
        for level in reversed(range(len(self.depths) - 1)):
            kernel, bias = self.state[f"widen.{level}.weight"], self.state[f"widen.{level}.bias"]
            with own_threads():
                x = x @ kernel[:, :, 0, 0, 0].T + bias
            x = self._block(f"up.{level}", doubled(x) + skips[level])
        return x

    def _block(self, name: str, x: Array, stride: int = 1) -> Array:
        """Convolution, group norm, LeakyReLU; adds its input when the width does not change."""
        kernel = self.state[f"{name}.conv.weight"]
        y = convolved(x, kernel) if stride == 1 else halved(x, kernel)
        _normalise(y, self.state[f"{name}.norm.weight"], self.state[f"{name}.norm.bias"])
        np.maximum(y, np.float32(0.1) * y, out=y)
        if stride == 1 and x.shape == y.shape:
            y += x
        return y


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


def doubled(x: Array) -> Array:
    """(I, J, K, C) to (2 I, 2 J, 2 K, C), every voxel eight times."""
    for axis in range(3):
        x = np.repeat(x, 2, axis=axis)
    return x


def convolved(x: Array, kernel: Array) -> Array:
    """Convolve with zeros beyond the border: (I, J, K, ins) and (outs, ins, 3, 3, 3) to (I, J, K, outs)."""
    i, j, k, ins = x.shape
    outs = kernel.shape[0]
    padded = np.zeros((i + 2, j + 2, k + 2, ins), dtype=np.float32)
    padded[1:-1, 1:-1, 1:-1] = x
    flat = padded.reshape(-1, ins)
    # Neighbours along the last axis stand side by side: then nine products do instead of 27.
    wide = np.zeros((len(flat), 3 * ins), dtype=np.float32)
    wide[1:, :ins], wide[:, ins : 2 * ins], wide[:-1, 2 * ins :] = flat[:-1], flat, flat[1:]
    slab, row = (j + 2) * (k + 2), k + 2
    shifts = [(a - 1) * slab + (b - 1) * row for a in range(3) for b in range(3)]
    parts = [np.ascontiguousarray(kernel[:, :, a, b].transpose(2, 1, 0).reshape(3 * ins, outs)) for a in range(3) for b in range(3)]
    out = np.empty((len(flat), outs), dtype=np.float32)
    first, last = slab + row + 1, len(flat) - slab - row - 1

    def take(begin: int) -> None:
        more = np.empty((ROWS, outs), dtype=np.float32)
        end = min(begin + TURN, last)
        for start in range(begin, end, ROWS):
            stop = min(start + ROWS, end)
            here, extra = out[start:stop], more[: stop - start]
            np.matmul(wide[start + shifts[0] : stop + shifts[0]], parts[0], out=here)
            for shift, part in zip(shifts[1:], parts[1:], strict=True):
                np.matmul(wide[start + shift : stop + shift], part, out=extra)
                here += extra

    with own_threads() as threads:
        each(take, range(first, last, TURN), threads)
    return out.reshape(i + 2, j + 2, k + 2, outs)[1:-1, 1:-1, 1:-1]


def halved(x: Array, kernel: Array) -> Array:
    """Convolve at every second voxel: (I, J, K, ins) and (outs, ins, 3, 3, 3) to (I / 2, J / 2, K / 2, outs)."""
    i, j, k = (n // 2 for n in x.shape[:3])
    ins, outs = x.shape[3], kernel.shape[0]
    padded = np.zeros((2 * i + 1, 2 * j + 1, 2 * k + 1, ins), dtype=np.float32)
    padded[1:, 1:, 1:] = x
    out = np.zeros((i * j * k, outs), dtype=np.float32)
    with own_threads():
        for a, b, c in np.ndindex(3, 3, 3):
            seen = padded[a : a + 2 * i : 2, b : b + 2 * j : 2, c : c + 2 * k : 2].reshape(-1, ins)
            out += seen @ np.ascontiguousarray(kernel[:, :, a, b, c].T)
    return out.reshape(i, j, k, outs)


def _normalise(x: Array, weight: Array, bias: Array) -> None:
    """Group norm of eight channels a group, in place; (I, J, K, C)."""
    channels = x.shape[-1]
    groups = max(1, channels // 8)
    count = x.size // groups
    # Sums along whole lines first: float32 alone would lose figures over millions of voxels.
    mean = x.sum(axis=2).sum(axis=(0, 1), dtype=np.float64).reshape(groups, -1).sum(1) / count
    each = np.repeat(mean, channels // groups).astype(np.float32)
    x -= each
    square = np.einsum("ijkc,ijkc->ijc", x, x).sum(axis=(0, 1), dtype=np.float64).reshape(groups, -1).sum(1) / count
    scale = weight / np.repeat(np.sqrt(square + 1e-5), channels // groups)
    x *= scale.astype(np.float32)
    x += bias
