"""What every training of ours has: a net, its running average, two optimisers, and the file they are kept in."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from napari_mri.engine.weights import STEP
from training.muon import Muon

PAUSE = 10.0
"""A step that seems to have taken more seconds than this is taken for a sleep of the machine, not for training."""
Net = TypeVar("Net", bound=torch.nn.Module)


class Learner(Generic[Net]):
    """A net that is trained: Muon for its kernels, Adam for the rest, the average of its last states kept.

    Parameters
    ----------
    net, average : torch.nn.Module
        Two of one kind and one state, on their device.
    file : Path
        Of the checkpoint.
    rate : float
        Of Muon at its highest.
    least : int
        Parameters of fewer axes than this are left to Adam.
    share : float
        Adam's rate in parts of Muon's.
    memory : float
        How much of the average stays at each step, at most.
    """

    def __init__(
        self, net: Net, average: Net, file: Path, rate: float, *, least: int = 3, share: float = 0.1, memory: float = 0.995
    ) -> None:
        self.net, self.average, self.file, self.rate = net, average, file, rate
        self.share, self.memory = share, memory
        learned = [p for p in net.parameters() if p.requires_grad]
        self.muon = Muon([p for p in learned if p.ndim >= least], lr=rate)
        rest = [p for p in learned if p.ndim < least]
        self.adam = torch.optim.Adam(rest, lr=share * rate) if rest else None
        self.step, self.spent = 0, 0.0
        file.parent.mkdir(parents=True, exist_ok=True)

    @property
    def _kept(self) -> dict[str, torch.nn.Module | torch.optim.Optimizer]:
        parts: dict[str, torch.nn.Module | torch.optim.Optimizer] = {
            "net": self.net,
            "average": self.average,
            "muon": self.muon,
        }
        return parts if self.adam is None else parts | {"adam": self.adam}

    def resume(self) -> None:
        """Go on from the checkpoint, if there is one."""
        if not self.file.exists():
            return
        device = next(self.net.parameters()).device
        state = torch.load(self.file, map_location=device, weights_only=True)
        for name, part in self._kept.items():
            part.load_state_dict(state[name])
        self.step, self.spent = state["step"], state["spent"]

    def keep(self) -> None:
        """Write the checkpoint."""
        state = {name: part.state_dict() for name, part in self._kept.items()}
        part = self.file.with_suffix(".part")
        torch.save(state | {"step": self.step, "spent": self.spent}, part)
        part.replace(self.file)

    def lessons(self, minutes: float, seed: int) -> Iterator[tuple[torch.Generator, float]]:
        """Yield, for one step after the other, what draws its chances and how far the training is, 0 to 1.

        The time between two of them is counted as spent; the last one is told 1.
        """
        before, progress = time.perf_counter(), 0.0
        while progress < 1:
            now = time.perf_counter()
            self.spent += min(now - before, PAUSE)
            before = now
            progress = min(1.0, self.spent / 60 / minutes)
            yield torch.Generator().manual_seed(seed * 1_000_003 + self.step), progress

    def follow(self, loss: torch.Tensor, progress: float) -> float:
        """Take one step down a loss; return it.

        Parameters
        ----------
        loss : torch.Tensor
        progress : float
            0 to 1, how far the training is: the rate rises over the first steps and falls along a cosine.
        """
        warm = min(1.0, (self.step + 1) / 60)
        rate = self.rate * (warm * (0.5 + 0.5 * math.cos(math.pi * progress)) + 0.002)
        self.muon.param_groups[0]["lr"] = rate
        loss.backward()
        self.muon.step()
        if self.adam is not None:
            self.adam.param_groups[0]["lr"] = self.share * rate
            self.adam.step()
        self.net.zero_grad(set_to_none=True)
        decay = min(self.memory, (1 + self.step) / (20 + self.step))
        with torch.no_grad():
            for mine, new in zip(self.average.parameters(), self.net.parameters(), strict=True):
                mine.lerp_(new, 1 - decay)
        self.step += 1
        return float(loss.detach())


def write_weights(
    net: torch.nn.Module,
    folder: Path,
    name: str,
    facts: dict[str, Any],
    more: dict[str, torch.Tensor] | None = None,
    as_bytes: bool = False,
) -> None:
    """Write `name`.safetensors (float16) and its card, `name`.json.

    Parameters
    ----------
    net : torch.nn.Module
    folder : Path
        Made where it is not there.
    name : str
    facts : dict
        What the card tells.
    more : dict, optional
        Tensors that are not the network's but belong to it.
    as_bytes : bool
        Keep kernels in steps of 1/127 of the largest number of each output channel: half the size.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    full = {name: tensor.detach().cpu().float() for name, tensor in (net.state_dict() | (more or {})).items()}
    tensors = {name: tensor.half().contiguous() for name, tensor in full.items()}
    if as_bytes:
        for key, kernel in full.items():
            if kernel.ndim > 2:
                step = kernel.abs().amax(tuple(range(1, kernel.ndim)), keepdim=True).clamp(min=1e-12) / 127
                tensors |= {key: (kernel / step).round().to(torch.int8).contiguous(), key + STEP: step}
    file = folder / f"{name}.safetensors"
    save_file(tensors, file)
    file.chmod(0o644)  # safetensors writes for the owner alone
    file.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")
