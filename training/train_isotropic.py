"""Train the net that halves voxels and leaves noise out: `python -m training.train_isotropic --minutes 25`.

The noise-free volumes are the denoiser's bank. Every step measures voxels twice as large from pieces of them, as a
scanner or a resampling does (the middle of k-space, apodised or not, a slice profile along one axis; a mean or a
Gaussian blur along all), adds Rician noise, tells the network its level, not always quite right, and asks for the
fine voxels. The loss is L1. Starting again goes on from the last checkpoint; `--init FILE.safetensors` begins from
finished weights; `--schedule gpu` is the long recipe.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_mri.core.grid import Grid
from napari_mri.engine.device import half_is_quick
from napari_mri.models._superres import Wish, way_to
from napari_mri.nets.isotropic import HalvingNet, from_state
from napari_mri.nets.unet import unfold
from training.learner import Learner, write_weights
from training.paths import CACHE, DATA
from training.synth.geometry import chance, uniform
from training.train_denoise import HELD_OUT, Bank, make_bank
from training.train_superres import held_back

CARD = {
    "name": "isotropic_x2",
    "data": "painted heads from 13 SynthSeg label maps (Apache-2.0) and piled-up random shapes; no real scan",
    "held_out": list(HELD_OUT),
    "recipe": "training/train_isotropic.py",
    "licence": "BSD-3-Clause",
    "limits": (
        "Voxels about as long as wide, Rician noise of 0 to 6 %. Not trained on real scans or on anatomy other than heads."
    ),
}
NOISIEST = 0.06
"""Highest noise, in parts of bright tissue: the 5 % asked for, and a little for the error of measuring it."""
FLOOR = 1e-3
"""Mean error, in parts of bright tissue, below which nothing is to be won."""
RIM = 4
"""Fine voxels at the border of a piece that do not count: the network does not see beyond it."""


@dataclass(frozen=True)
class Schedule:
    """How long, how much at once, and how large a network (see `HalvingNet`)."""

    minutes: float
    batch: int
    side: int
    bank: int
    rate: float
    size: tuple[int, int, int, int, int]


SCHEDULES = {
    "cpu": Schedule(minutes=25, batch=3, side=56, bank=220, rate=0.01, size=(32, 32, 2, 3, 1)),
    "gpu": Schedule(minutes=240, batch=16, side=80, bank=2000, rate=0.01, size=(64, 32, 4, 3, 3)),
}


@cache
def spline(coarse: int) -> torch.Tensor:
    """Return the (fine, coarse) matrix of the cubic spline, by the code that refines scans."""
    way = way_to(Grid.plain((coarse, 2, 2)), (0.5, 0.5, 0.5), Wish())
    matrix = way.refine[0]
    assert matrix is not None
    return torch.from_numpy(np.ascontiguousarray(matrix)).float()


@cache
def box(fine: int) -> torch.Tensor:
    """Return the (fine / 2, fine) matrix of means over two voxels."""
    return 0.5 * torch.eye(fine // 2).repeat_interleave(2, 1)


def gaussian(fine: int, width: float) -> torch.Tensor:
    """Return the (fine / 2, fine) matrix of a Gaussian profile, its width at half maximum in coarse voxels."""
    apart = torch.arange(fine)[None] - (2 * torch.arange(fine // 2)[:, None] + 0.5)
    weight = torch.exp(-4 * math.log(2) * (apart / (2 * width)) ** 2)
    return weight / weight.sum(1, keepdim=True)


@cache
def _cosines(count: int) -> torch.Tensor:
    """Return the (frequencies, places) matrix of the orthonormal cosine transform."""
    place = (torch.arange(count, dtype=torch.float64) + 0.5) * math.pi / count
    waves = torch.cos(torch.arange(count, dtype=torch.float64)[:, None] * place) * math.sqrt(2 / count)
    waves[0] /= math.sqrt(2)
    return waves


def kspace(fine: int, soft: float) -> torch.Tensor:
    """Return the (fine / 2, fine) matrix that keeps the lower half of the frequencies.

    Cosines in place of complex waves: a piece goes on mirrored, not with its other end.

    Parameters
    ----------
    fine : int
    soft : float
        Share of the kept frequencies over which a raised cosine takes them to nothing; 0 cuts (and rings).
    """
    few = fine // 2
    f = (torch.arange(few, dtype=torch.float64) + 0.5) / few
    taper = 0.5 * (1 + torch.cos(math.pi * ((f - 1 + soft) / max(soft, 1e-6)).clamp(0, 1)))
    kept = taper[:, None] * _cosines(fine)[:few]
    return (_cosines(few).T @ kept).float() / math.sqrt(2)


def along(data: torch.Tensor, matrices: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Apply one (new, old) matrix along each of the last three axes."""
    for axis, matrix in zip((-3, -2, -1), matrices, strict=True):
        data = (data.movedim(axis, -1) @ matrix.T.to(data.device)).movedim(-1, axis)
    return data


def sampling(shape: tuple[int, ...], gen: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw how voxels twice as large are measured, one matrix for each axis of `shape`."""
    kind = float(torch.rand((), generator=gen))
    soft = 0.0 if chance(gen, 0.3) else uniform(gen, 0.1, 1.0)
    width = uniform(gen, 0.9, 1.3)
    ways = {"box": box, "gaussian": lambda n: gaussian(n, width), "kspace": lambda n: kspace(n, soft)}
    names = ["box" if kind < 0.35 else "gaussian" if kind < 0.45 else "kspace"] * 3
    if kind > 0.8:  # slices: excited one by one, the plane read out as ever
        names[int(torch.randint(3, (), generator=gen))] = "gaussian" if chance(gen, 0.5) else "box"
    i, j, k = (ways[name](n) for name, n in zip(names, shape, strict=True))
    return i, j, k


def level_of(gen: torch.Generator) -> float:
    """Draw a noise level: none, less than 1 %, or up to `NOISIEST`."""
    kind = float(torch.rand((), generator=gen))
    return 0.0 if kind < 0.25 else uniform(gen, 0, 0.01) if kind < 0.5 else uniform(gen, 0.01, NOISIEST)


def measured(fine: torch.Tensor, gen: torch.Generator, level: float | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Measure voxels twice as large, with noise.

    Parameters
    ----------
    fine : torch.Tensor
        (B, 1, I, J, K).
    gen : torch.Generator
    level : float, optional
        Of the noise; drawn for every piece by default.

    Returns
    -------
    scan, told : torch.Tensor
        (B, 1, I / 2, J / 2, K / 2) magnitudes; (B, 1, 1, 1, 1) the noise level told to the network.
    """
    scan = torch.stack([along(piece, sampling(piece.shape[1:], gen)) for piece in fine]).abs()
    levels = [level_of(gen) if level is None else level for _ in fine]
    sigma = torch.tensor(levels).reshape(-1, 1, 1, 1, 1)
    real = scan + sigma * torch.randn(scan.shape, generator=gen)
    scan = torch.hypot(real, sigma * torch.randn(scan.shape, generator=gen))
    wrong = torch.exp(0.05 * torch.randn(sigma.shape, generator=gen))
    return scan, sigma * wrong


def refined(
    net: torch.nn.Module, scan: torch.Tensor, told: torch.Tensor, half: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the spline and what the network makes of it, both (B, 1, I, J, K) of the fine grid."""
    i, j, k = (spline(n) for n in scan.shape[2:])
    plain = along(scan, (i, j, k))
    with torch.autocast(scan.device.type, torch.bfloat16, enabled=half):
        parts = net(scan, told)
    return plain, plain + unfold(parts.float())


def loss_of(answer: torch.Tensor, plain: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
    """Mean error in parts of the spline's, so that clean and noisy pieces count alike."""
    inner = (..., *(slice(RIM, -RIM),) * 3)

    def error(found: torch.Tensor) -> torch.Tensor:
        return (found - fine)[inner].abs().mean((1, 2, 3, 4))

    return (error(answer) / (error(plain) + FLOOR)).mean()


@torch.no_grad()
def validate(net: torch.nn.Module, bank: Bank, device: str) -> dict[str, float]:
    """PSNR gain in dB over the cubic spline on middle pieces of held-back heads."""
    net.eval()
    half, gains = half_is_quick(device), {}
    for name, level in (("gain_clean", 0.0), ("gain_1", 0.01), ("gain_4", 0.04)):
        gen, found = torch.Generator().manual_seed(7), []
        for _, volume in sorted(bank.held.items())[:4]:
            low = [(n - 64) // 2 for n in volume.shape]
            fine = volume[tuple(slice(a, a + 64) for a in low)].float()[None, None]
            scan, told = measured(fine, gen, level)
            plain, answer = refined(net, scan.to(device), told.to(device), half)
            errors = [((x.cpu() - fine)[..., RIM:-RIM, RIM:-RIM, RIM:-RIM] ** 2).mean() for x in (plain, answer)]
            found.append(10 * float((errors[0] / errors[1]).log10()))
        gains[name] = round(float(np.mean(found)), 2)
    net.train()
    return gains


def export(net: HalvingNet, folder: Path, facts: dict[str, Any]) -> None:
    """Write `isotropic.safetensors` (float16) and its card."""
    write_weights(net, folder, "isotropic", facts)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedule", choices=sorted(SCHEDULES), default="cpu")
    parser.add_argument("--minutes", type=float, default=None, help="length by the clock instead of the schedule's")
    parser.add_argument("--maps", type=Path, default=DATA)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--run", default="isotropic", help="checkpoints go to CACHE/RUN")
    parser.add_argument("--init", type=Path, default=None, help="finished weights to begin from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="processor cores, where there is no GPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--export", type=Path, default=None, help="folder for the weights")
    return parser.parse_args(argv)


class Training(Learner[HalvingNet]):
    """The network in training."""

    def __init__(self, args: argparse.Namespace, plan: Schedule) -> None:
        torch.manual_seed(args.seed)
        self.device, self.half = args.device, half_is_quick(args.device)
        net = HalvingNet(*plan.size)
        if args.init is not None:
            from safetensors.torch import load_file

            net = from_state({k: v.float() for k, v in load_file(args.init).items()})
        both = [n.to(self.device).to(memory_format=torch.channels_last_3d) for n in (net, from_state(net.state_dict()))]
        super().__init__(both[0], both[1], args.cache / args.run / "last.pt", plan.rate)
        self.resume()

    def take(self, fine: torch.Tensor, gen: torch.Generator, progress: float) -> float:
        """Take one step on fine pieces (B, 1, I, J, K); return the loss."""
        scan, told = (part.to(self.device) for part in measured(fine, gen))
        plain, answer = refined(self.net, scan, told, self.half)
        return self.follow(loss_of(answer, plain, fine.to(self.device)), progress)


def main(argv: list[str] | None = None) -> None:
    """Make the bank where it is not there, then train or go on training."""
    args = parse(argv)
    plan = SCHEDULES[args.schedule]
    minutes = args.minutes or plan.minutes
    torch.set_num_threads(args.threads if args.device == "cpu" else torch.get_num_threads())
    bank = Bank(args.cache / "denoise_bank")
    if bank.refresh() < plan.bank // 2:
        make_bank(bank.folder, plan.bank, args.maps, args.cache)
        bank.refresh()
    held = held_back(args.cache / "superres_held", args.maps, args.cache)
    run = Training(args, plan)
    losses: list[float] = []
    for gen, progress in run.lessons(minutes, args.seed):
        losses.append(run.take(bank.pieces(plan.batch, plan.side, gen), gen, progress))
        if run.step % 25 == 0:
            print(f"{run.step} {run.spent / 60:.1f} min loss {np.mean(losses[-100:]):.4f}", flush=True)
        if run.step % args.every == 0 or progress >= 1:
            run.keep()
            found = validate(run.average, held, args.device)
            print(f"{run.step} {found}", flush=True)
            if args.export is not None:
                facts = {"steps": run.step, "minutes": round(run.spent / 60, 1), "seed": args.seed}
                export(run.average, args.export, CARD | facts | found)


if __name__ == "__main__":
    main()
