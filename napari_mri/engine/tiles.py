"""Run a net over a large scan in overlapping tiles, within the memory there is."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import OutOfMemory
from napari_mri.core.model import Runtime

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float32]
Three = tuple[int, int, int]


@dataclass(frozen=True)
class Tiling:
    """How a scan is cut.

    Parameters
    ----------
    size : 3 int
        Sides of a tile, voxels; the scan is padded where it is smaller.
    overlap : float
        Share of a tile that lies on its neighbour, 0 to 0.9.
    gaussian : bool
        Whether the middle of a tile counts more than its rim; otherwise all voxels count alike.
    multiple : int
        What a net wants each side to be a multiple of; halved tiles keep to it.
    least : int
        No tile is halved below this side.
    """

    size: Three = (96, 96, 96)
    overlap: float = 0.5
    gaussian: bool = True
    multiple: int = 16
    least: int = 32

    def halved(self) -> Tiling | None:
        """Return a tiling of half the longest side, or None where it cannot be halved."""
        longest = int(np.argmax(self.size))
        unit = max(self.multiple, 1)
        half = max(self.size[longest] // 2 // unit, 1) * unit
        if half < min(self.least, self.size[longest]) or half == self.size[longest]:
            return None
        sides = list(self.size)
        sides[longest] = half
        return replace(self, size=(sides[0], sides[1], sides[2]))


def corners(shape: Three, size: Three, overlap: float) -> list[Three]:
    """Return the first voxel of each tile: evenly spread, the last one flush with the end.

    Parameters
    ----------
    shape : 3 int
        Sides of the (padded) scan, none smaller than the tile's.
    size : 3 int
    overlap : float
    """
    along = []
    for n, s in zip(shape, size, strict=True):
        step = max(1, round(s * (1 - overlap)))
        count = 1 + int(np.ceil((n - s) / step))
        along.append([round(t) for t in np.linspace(0, n - s, count)])
    return [(i, j, k) for i, j, k in product(*along)]


def importance(size: Three, gaussian: bool = True) -> Array:
    """Return the weight of each voxel of a tile, (I, J, K), 1 in the middle and never 0."""
    weight = np.ones(size, dtype=np.float32)
    if gaussian:
        for axis, n in enumerate(size):
            place = (np.arange(n) - (n - 1) / 2) / (n / 8)
            line = np.exp(-0.5 * place**2).astype(np.float32)
            weight *= line.reshape([-1 if a == axis else 1 for a in range(3)])
    return np.maximum(weight, np.float32(1e-3))


@dataclass
class Blend:
    """The mean, and if wanted the spread, of all that was said about each voxel.

    Parameters
    ----------
    shape : 4 int
        (C, I, J, K)
    spread : bool
        Whether to keep what `variance` needs: as much memory again.
    """

    shape: tuple[int, int, int, int]
    spread: bool = False

    def __post_init__(self) -> None:
        self._sum = np.zeros(self.shape, dtype=np.float32)
        self._square = np.zeros(self.shape, dtype=np.float32) if self.spread else None
        self._weight = np.zeros(self.shape[1:], dtype=np.float32)

    def add(self, corner: Three, answer: Array, weight: Array) -> None:
        """Lay an answer (C, i, j, k) at a corner, with its weights (i, j, k)."""
        box = tuple(slice(c, c + n) for c, n in zip(corner, weight.shape, strict=True))
        place = (slice(None), *box)
        self._weight[box] += weight
        if self._square is None:
            self._sum[place] += answer * weight
            return
        # West's update: no difference of two large sums, so a variance of zero stays zero.
        total = self._weight[box]
        step = answer - self._sum[place]
        moved = step * (weight / total)
        self._sum[place] += moved
        self._square[place] += weight * step * (step - moved)

    def mean(self) -> Array:
        """Return the weighted mean, (C, I, J, K)."""
        if self._square is not None:
            return self._sum
        return np.asarray(self._sum / np.maximum(self._weight, 1e-12), dtype=np.float32)

    def variance(self) -> Array:
        """Return the weighted variance between answers, (C, I, J, K); needs `spread`."""
        assert self._square is not None, "a Blend without spread keeps no squares"
        return np.asarray(np.maximum(self._square, 0) / np.maximum(self._weight, 1e-12), dtype=np.float32)


@dataclass(frozen=True)
class Blended:
    """What came of it.

    Parameters
    ----------
    mean : ndarray, (C, I, J, K) float32
    variance : ndarray, (C, I, J, K) float32, optional
    """

    mean: Array
    variance: Array | None = None


def tiled(
    apply: Callable[[Array], Array], data: Array, tiling: Tiling, rt: Runtime, *, spread: bool = False
) -> Blended:
    """Apply a function to overlapping tiles and blend the answers.

    Parameters
    ----------
    apply : callable
        (C, i, j, k) float32 -> (C', i, j, k) float32, of the same three sides.
    data : ndarray, (C, I, J, K) or (I, J, K)
    tiling : Tiling
    rt : Runtime
        Is told of each tile, and stops between two.
    spread : bool
        Whether the variance between overlapping answers is wanted.

    Raises
    ------
    Cancelled
    """
    full, inner = _widened(data, tiling.size)
    spots = corners((full.shape[1], full.shape[2], full.shape[3]), tiling.size, tiling.overlap)
    weight = importance(tiling.size, tiling.gaussian)
    blend: Blend | None = None
    for number, corner in enumerate(spots):
        rt.report(number / len(spots), f"tile {number + 1} of {len(spots)}")
        box = tuple(slice(c, c + n) for c, n in zip(corner, tiling.size, strict=True))
        answer = apply(np.ascontiguousarray(full[(slice(None), *box)]))
        if blend is None:
            blend = Blend((answer.shape[0], full.shape[1], full.shape[2], full.shape[3]), spread)
        blend.add(corner, answer, weight)
    assert blend is not None, "a scan has at least one tile"
    rt.report(1.0, "blending")
    return Blended(blend.mean()[inner], blend.variance()[inner] if spread else None)


def _widened(data: Array, size: Three) -> tuple[Array, tuple[slice, ...]]:
    """Give data a channel axis and at least the sides of a tile."""
    full = data[None] if data.ndim == 3 else data
    short = [max(0, s - n) for s, n in zip(size, full.shape[1:], strict=True)]
    sides = [(n // 2, n - n // 2) for n in short]
    inner = tuple(slice(before, before + n) for (before, _), n in zip(sides, full.shape[1:], strict=True))
    if any(short):
        full = np.pad(full, [(0, 0), *sides], mode="edge")
    return full, (slice(None), *inner)


def run_net(
    net: torch.nn.Module | Callable[[torch.Tensor], torch.Tensor],
    data: Array,
    tiling: Tiling,
    rt: Runtime,
    *,
    spread: bool = False,
) -> Blended:
    """Run a torch net over a scan in tiles; where memory ends, halve the tile, then go on with the CPU.

    Parameters
    ----------
    net : torch module or callable
        (1, C, i, j, k) -> (1, C', i, j, k). A module is moved to the device and put in eval mode.
    data : ndarray, (C, I, J, K) or (I, J, K) float32
    tiling : Tiling
        How to begin.
    rt : Runtime
        Its `device` is used; a warning tells if the work had to move to the CPU.
    spread : bool
        As in `tiled`.

    Raises
    ------
    OutOfMemory
        If the smallest tile does not fit into main memory either.
    Cancelled
    """
    for device, cut in _ways(tiling, rt.device):
        try:
            with _Watched(net, rt) as watched:
                return tiled(_on(net, device), data, cut, watched, spread=spread)
        except (RuntimeError, MemoryError) as error:
            if not memory_ended(error):
                raise
            _let_go(device)
            rt.warn(f"Memory of the {device} ended with tiles of {'×'.join(map(str, cut.size))}; smaller ones were tried.")
    raise OutOfMemory(
        "Neither the GPU nor the main memory can hold the smallest tile.",
        hint="Close other programs, or run the model on a smaller scan.",
    )


def _ways(tiling: Tiling, device: str) -> Iterator[tuple[str, Tiling]]:
    """Yield what to try: smaller and smaller tiles on the device, then the same on the CPU."""
    for place in dict.fromkeys((device, "cpu")):
        cut: Tiling | None = tiling
        while cut is not None:
            yield place, cut
            cut = cut.halved()


class _Watched:
    """A runtime that looks for a stop before each layer of a net, too: a tile takes many seconds on a slow processor.

    Parameters
    ----------
    net : torch module or callable
        Of a mere callable nothing can be watched.
    rt : Runtime
    """

    def __init__(self, net: Any, rt: Runtime) -> None:
        self._net, self._rt = net, rt
        self._thread, self._last = threading.get_ident(), (0.0, "")
        self._hooks: list[Any] = []

    def __enter__(self) -> Any:
        modules = self._net.modules() if hasattr(self._net, "modules") else ()
        self._hooks = [m.register_forward_pre_hook(self._looked) for m in modules if not any(True for _ in m.children())]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _looked(self, layer: Any, inputs: Any) -> None:
        if threading.get_ident() == self._thread:  # a net that is kept may run for somebody else, too
            self._rt.report(*self._last)

    def report(self, fraction: float, text: str = "") -> None:
        self._last = fraction, text
        self._rt.report(fraction, text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rt, name)


def _on(net: Any, device: str) -> Callable[[Array], Array]:
    import torch

    if isinstance(net, torch.nn.Module):
        net = net.to(device).eval()

    def apply(tile: Array) -> Array:
        with torch.inference_mode():
            x = torch.from_numpy(tile)[None].to(device)  # (1, C, i, j, k)
            return np.asarray(net(x)[0].float().cpu().numpy(), dtype=np.float32)  # (C', i, j, k)

    return apply


def memory_ended(error: BaseException) -> bool:
    """Tell whether an error means that memory ran out: each device says it in its own words."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    text = str(error).lower()
    return any(sign in text for sign in ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate"))


def _let_go(device: str) -> None:
    """Give cached memory back before the next try."""
    import gc

    import torch

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()
