"""The network that names what stands where in a head, with the weights that come along."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_mri.core.errors import WeightsProblem
from napari_mri.core.model import Runtime, Weights
from napari_mri.models._anatomy import Array, Ask, Key

if TYPE_CHECKING:
    from torch import Tensor

ANATOMY = Weights("anatomy.safetensors", licence="BSD-3-Clause", shipped=True)


def network(rt: Runtime) -> Ask:
    """Return the network alone; run by numpy on a processor and in a process that torch is not loaded in."""
    path = rt.weights(ANATOMY)
    if rt.device != "cpu" or "torch" in sys.modules:
        return rt.keep(f"anatomy {path}", lambda: named(path, rt.device))[0]
    from napari_mri.engine.weights import load_arrays
    from napari_mri.nets.unet_numpy import Anatomy as Net

    return rt.keep(f"anatomy {path} plain", lambda: Net(load_arrays(path)))


def named(path: Path, device: str) -> tuple[Ask, Key]:
    """Return the network of anatomy, image (I, J, K) to logits (N + 1, I, J, K), and what its answers are."""
    import torch

    there, key = loaded(path, device)

    def ask(image: Array) -> Array:
        with torch.inference_mode():
            answer = there(torch.from_numpy(np.ascontiguousarray(image)).to(device))
        return np.asarray(answer.cpu().numpy())

    return ask, key


def network_on(rt: Runtime) -> Callable[[Tensor], Tensor]:
    """Return the network alone, from tensors to tensors on the run's device."""
    path = rt.weights(ANATOMY)
    return rt.keep(f"anatomy {path} on the device", lambda: loaded(path, rt.device))[0]


def loaded(path: Path, device: str) -> tuple[Callable[[Tensor], Tensor], Key]:
    """Return the network on a device, tensor (I, J, K) to logits (N + 1, I, J, K), and what its answers are."""
    import torch

    from napari_mri.engine.weights import load
    from napari_mri.nets.anatomy import BEYOND, NAMES, PAIRED
    from napari_mri.nets.anatomy import Anatomy as Net

    net, state = Net(), {name: value.float() for name, value in load(path).items()}
    beyond = state.pop(BEYOND, None)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise unfit(path, error) from None
    net = net.to(device, memory_format=torch.channels_last_3d).eval().requires_grad_(False)
    key = Key(PAIRED, NAMES, None if beyond is None else np.asarray(beyond.numpy()))
    return lambda image: net(image[None, None])[0].float(), key


def unfit(path: Path, error: Exception) -> WeightsProblem:
    """Return the error of weights that are not those of a network."""
    return WeightsProblem(f"{path.name} does not fit the network: {error}.", hint="Install the package again.")
