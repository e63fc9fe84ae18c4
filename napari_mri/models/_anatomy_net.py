"""The network that names what stands where in a head, with the weights that come along."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from napari_mri.core.errors import WeightsProblem
from napari_mri.core.model import Runtime, Weights
from napari_mri.models._anatomy import Array, Ask, Key

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

    def ask(image: Array) -> Array:
        with torch.inference_mode():
            answer = net(torch.from_numpy(np.ascontiguousarray(image))[None, None].to(device))
        return np.asarray(answer[0].float().cpu().numpy())

    return ask, Key(PAIRED, NAMES, None if beyond is None else np.asarray(beyond.numpy()))


def unfit(path: Path, error: Exception) -> WeightsProblem:
    """Return the error of weights that are not those of a network."""
    return WeightsProblem(f"{path.name} does not fit the network: {error}.", hint="Install the package again.")
