"""The network that finds the brain in a head and names what stands where, with the weights that come along.

One look at a 2 mm copy gives features; the distance to two surfaces and the names of structures both follow from them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from napari_mri.core.errors import WeightsProblem
from napari_mri.core.model import Runtime, Weights
from napari_mri.models._anatomy import MULTIPLE, Array, Ask, Key

if TYPE_CHECKING:
    from torch import Tensor

    from napari_mri.nets.anatomy import HeadNet

HEADNET = Weights(
    "headnet.safetensors",
    sha256="d1171acf73e3d239760ceef5b1ec8a70af4e2affe88b54899cb66c4bc114caf6",
    licence="BSD-3-Clause",
    shipped=True,
    size=5_816_232,
)
LIFT = 0.25
"""So many voxels too high the distances of these weights lie: they were learned from images painted as much too low."""
Part = tuple[slice, ...]
ALL: Part = (slice(None),) * 3


class Network(Protocol):
    """What looks at an image; arrays or tensors all through."""

    def features(self, image: Any) -> Any:
        """(I, J, K), sides multiples of `MULTIPLE`, to what the answers follow from."""

    def surfaces(self, features: Any) -> Any:
        """Return distances (2, I, J, K), voxels, negative inside, to the inner skull and to the brain."""

    def named(self, features: Any, part: Part = ALL) -> Any:
        """Return logits (N + 1, …) of every structure and of the right side, in some blocks of two voxels a side."""


@dataclass(frozen=True, eq=False)
class Look:
    """One look at a copy (I, J, K), which may have been mirrored left to right and moved by some voxels."""

    network: Network
    features: Any
    shape: tuple[int, ...]
    mirrored: bool = False
    moved: int = 0

    @classmethod
    def at(cls, network: Network, image: Any, mirrored: bool = False, moved: int = 0) -> Look:
        """Look at an image (I, J, K)."""
        shape = tuple(image.shape)
        features = network.features(_padded(_flipped(image, 0) if mirrored else image, moved))
        return cls(network, features, shape, mirrored, moved)

    def surfaces(self) -> Any:
        """Return distances (2, I, J, K), voxels of the copy, to the inner skull and to the brain."""
        inner = tuple(slice(self.moved, self.moved + n) for n in self.shape)
        return self._turned(_lowered(self.network.surfaces(self.features))[(slice(None), *inner)])

    def named(self, box: Part) -> Any:
        """Return logits (N, …) of every structure in a box of the copy."""
        spans = [(part.start, part.stop) for part in box]
        if self.mirrored:
            spans[0] = self.shape[0] - spans[0][1], self.shape[0] - spans[0][0]
        spans = [(start + self.moved, stop + self.moved) for start, stop in spans]
        blocks = tuple(slice(start // 2, -(-stop // 2)) for start, stop in spans)
        inner = tuple(slice(start - start // 2 * 2, stop - start // 2 * 2) for start, stop in spans)
        return self._turned(self.network.named(self.features, blocks)[(slice(0, -1), *inner)])

    def _turned(self, answer: Any) -> Any:
        return _flipped(answer, 1) if self.mirrored else answer


def looks_at(network: Network, image: Any, count: int, rt: Runtime) -> list[Look]:
    """Look at an image (I, J, K) once, or at 2 or 4 variants of it."""
    looks = []
    for number in range(count):
        rt.report(0.1 + 0.4 * number / count, "running the network")
        # Odd variants are mirrored left to right; the later two are shifted by half a block of voxels.
        looks.append(Look.at(network, image, number % 2 == 1, number // 2))
    return looks


def names_of(looks: list[Look], box: Part) -> Any:
    """Return logits (N, …) of every structure in a box of a copy, the mean of some looks at it."""
    found = looks[0].named(box)
    for look in looks[1:]:
        found += look.named(box)
    if len(looks) > 1:
        found /= len(looks)
    return found


def _flipped(values: Any, axis: int) -> Any:
    return np.flip(values, axis) if isinstance(values, np.ndarray) else values.flip(axis)


def _lowered(near: Any) -> Any:
    """Bring distances (2, I, J, K) down by `LIFT` voxels."""
    moved = near[..., 1:] * (1 - LIFT) + near[..., :-1] * LIFT
    if isinstance(near, np.ndarray):
        return np.concatenate([near[..., :1], moved], axis=-1)
    from torch import cat

    return cat([near[..., :1], moved], dim=-1)


def _padded(image: Any, moved: int) -> Any:
    """Pad with background at the far end of each axis, and `moved` voxels at the near end."""
    sides = [(moved, -(n + moved) % MULTIPLE) for n in image.shape]
    if isinstance(image, np.ndarray):
        return np.pad(image, sides)
    from torch.nn.functional import pad

    return pad(image, [number for side in reversed(sides) for number in side])


class OnDevice:
    """The network by torch, from tensors to tensors.

    Parameters
    ----------
    net : HeadNet
    half : bool
        Whether to reckon in float16 where that is precise enough; answers are float32 either way.
    """

    def __init__(self, net: HeadNet, half: bool = False) -> None:
        import torch

        self.net, self._torch = net, torch
        self.device = next(net.parameters()).device.type
        self.half = half and self.device == "cuda"

    def _asked(self, ask: Callable[..., Tensor], *given: Any) -> Tensor:
        with self._torch.inference_mode(), self._torch.autocast(self.device, self._torch.float16, enabled=self.half):
            return ask(*given)

    def features(self, image: Tensor) -> Tensor:
        """(I, J, K) to (1, width, I / 2, J / 2, K / 2)."""
        return self._asked(self.net.features, image[None, None])

    def surfaces(self, features: Tensor) -> Tensor:
        """As `Network.surfaces`."""
        return self._asked(self.net.surfaces, features)[0].float()

    def named(self, features: Tensor, part: Part = ALL) -> Tensor:
        """As `Network.named`."""
        return self._asked(self.net.named, features, part)[0].float()


class WithArrays(OnDevice):
    """The network by torch, from arrays to arrays; features stay where it is."""

    def features(self, image: Any) -> Tensor:
        """(I, J, K) array to (1, width, I / 2, J / 2, K / 2)."""
        place = next(self.net.parameters()).device
        return super().features(self._torch.from_numpy(np.ascontiguousarray(image)).to(place))

    def surfaces(self, features: Tensor) -> Any:
        """As `Network.surfaces`."""
        return super().surfaces(features).cpu().numpy()

    def named(self, features: Tensor, part: Part = ALL) -> Any:
        """As `Network.named`."""
        return super().named(features, part).cpu().numpy()


def network(rt: Runtime) -> Network:
    """Return the network from arrays to arrays, on the run's device.

    By numpy on a processor and in a process that torch is not loaded in: its import alone takes longer.
    """
    path = rt.weights(HEADNET)
    if rt.device == "cpu" and "torch" not in sys.modules:
        return rt.keep(f"headnet {path} plain", lambda: by_numpy(path))
    return WithArrays(_kept(path, rt)[0], half=True)


def network_on(rt: Runtime) -> Network:
    """Return the network from tensors to tensors on the run's device."""
    return OnDevice(_kept(rt.weights(HEADNET), rt)[0], half=True)


def _kept(path: Path, rt: Runtime) -> tuple[HeadNet, Key]:
    found: tuple[HeadNet, Key] = rt.keep(f"headnet {path} {rt.device}", lambda: by_torch(path, rt.device))
    return found


def naming(rt: Runtime) -> tuple[Ask, Key]:
    """Return what names structures, image (I, J, K) array to logits (N + 1, I, J, K), and what its answers are."""
    net, key = _kept(rt.weights(HEADNET), rt)
    return asking(net), key


def asking(net: HeadNet) -> Ask:
    """Return the same for a network."""
    asked = WithArrays(net)

    def ask(image: Array) -> Array:
        found: Array = asked.named(asked.features(image))
        return found

    return ask


def by_numpy(path: Path) -> Network:
    """Return the network without torch."""
    from napari_mri.engine.weights import load_arrays
    from napari_mri.nets.unet_numpy import HeadNet as Net

    try:
        return Net(load_arrays(path))
    except (KeyError, ValueError) as error:
        raise unfit(path, error) from None


def by_torch(path: Path, device: str) -> tuple[HeadNet, Key]:
    """Return the network on a device, and what its names are."""
    import torch

    from napari_mri.engine.weights import load
    from napari_mri.nets.anatomy import BEYOND, NAMES, PAIRED
    from napari_mri.nets.anatomy import HeadNet as Net

    state = {name: value.float() for name, value in load(path).items()}
    beyond = state.pop(BEYOND, None)
    try:
        net = Net.from_state(state)
    except (KeyError, RuntimeError) as error:
        raise unfit(path, error) from None
    net = net.to(device, memory_format=torch.channels_last_3d).eval().requires_grad_(False)
    return net, Key(PAIRED, NAMES, None if beyond is None else np.asarray(beyond.numpy()))


def unfit(path: Path, error: Exception) -> WeightsProblem:
    """Return the error of weights that are not those of a network."""
    return WeightsProblem(f"{path.name} does not fit the network: {error}.", hint="Install the package again.")
