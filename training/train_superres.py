"""Train the through-plane network on synthetic volumes: `python -m training.train_superres --minutes 60`.

The noise-free volumes are the denoiser's bank. Every step takes pieces of them along any axis, measures thick
slices from them exactly as `napari_mri.measure.consistency` describes a slice (any distance and thickness, box or
Gaussian), adds noise, and asks the network for the fine voxels. `--resume` goes on from the last checkpoint;
`--init FILE.safetensors` begins from finished weights; `--schedule gpu` is the long recipe.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_mri.core.grid import Grid
from napari_mri.engine.device import half_is_quick
from napari_mri.models._superres import Wish, way_of
from napari_mri.models.through_plane import reading
from napari_mri.nets.superres import PARTS, SliceNet, facts, from_state
from training.clean_images import clean_volume
from training.learner import Learner, write_weights
from training.paths import CACHE, DATA
from training.synth import load_heads
from training.synth.geometry import chance, uniform
from training.train_denoise import HELD_OUT, Bank, make_bank

CARD = {
    "name": "through_plane",
    "data": "painted heads from 13 SynthSeg label maps (Apache-2.0) and piled-up random shapes; no real scan",
    "recipe": "training/train_superres.py",
    "licence": "BSD-3-Clause",
    "limits": "Slices 1.5 to 8 voxels apart, noise up to 3 %. Not trained on real scans or on anatomy other than heads.",
}
FLOOR = 3e-6
"""Squared error, in parts of the brightest tissue's square, below which nothing is to be won."""
RIM = 4
"""Voxels at the border of a piece that do not count: the network does not see beyond it."""


@dataclass(frozen=True)
class Schedule:
    """How long, how much at once, and how large a network."""

    minutes: float
    batch: int
    side: int
    slices: int
    width: int
    depth: int
    rate: float
    bank: int


SCHEDULES = {
    "cpu": Schedule(minutes=120, batch=4, side=48, slices=10, width=48, depth=8, rate=0.01, bank=220),
    "gpu": Schedule(minutes=240, batch=16, side=64, slices=12, width=64, depth=8, rate=0.01, bank=2000),
}


@dataclass(frozen=True)
class Slices:
    """One way of slicing, as matrices along the slice axis.

    Parameters
    ----------
    sample : torch.Tensor
        (slices, fine): what the scanner measures.
    spline, spread, read : torch.Tensor
        (fine, slices) cubic spline; (fine, slices) the correction of a measured difference; (fine, slices * parts).
    told : list of float
        What the network is told.
    """

    sample: torch.Tensor
    spline: torch.Tensor
    spread: torch.Tensor
    read: torch.Tensor
    told: list[float]

    def corrected(self, fine: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
        """Return fine voxels (..., fine) that the scan (..., slices) can be measured from."""
        return fine + (measured - fine @ self.sample.T) @ self.spread.T


def slices(count: int, distance: float, thickness: float, gaussian: bool = False) -> Slices:
    """Return how `count` slices are measured and refined, by the code that refines scans.

    Parameters
    ----------
    count : int
    distance, thickness : float
        Voxels of the fine grid.
    gaussian : bool
        The profile; else a box.
    """
    grid = Grid.plain((2, 2, count), (1.0, 1.0, distance))
    way = way_of(grid, Wish(spacing=1.0, thickness=thickness, profile="gaussian" if gaussian else "box"))
    fine = way.fine.shape[2]
    one = np.eye(count, dtype=np.float32)[:, None]
    spread = way.measure.corrected(np.zeros((count, 1, fine), np.float32), one)[:, 0].T
    sample, spline = way.measure.matrices[2], way.refine[2]
    assert sample is not None
    assert spline is not None
    parts = [
        torch.from_numpy(np.ascontiguousarray(m)).float() for m in (sample, spline, spread, reading(way, 2, PARTS))
    ]
    return Slices(*parts, facts(distance, thickness, gaussian))


def draw(count: int, gen: torch.Generator) -> Slices:
    """Draw a way of slicing: 1.5 to 8 voxels apart, as thick, thinner (gaps) or thicker (overlap)."""
    kind = float(torch.rand((), generator=gen))
    whole = 4.0 if kind < 0.25 else float(torch.randint(2, 9, (), generator=gen))
    distance = whole if kind < 0.6 else uniform(gen, 1.5, 8.0)
    kind = float(torch.rand((), generator=gen))
    share = 1.0 if kind < 0.6 else uniform(gen, 0.6, 1.0) if kind < 0.8 else uniform(gen, 1.0, 1.5)
    return slices(count, distance, max(share * distance, 1.0), chance(gen, 0.2))


def pieces(bank: Bank, batch: int, side: int, length: int, gen: torch.Generator) -> torch.Tensor:
    """(B, side, side, length) float32: turned, flipped pieces of different volumes that are long enough."""
    names = sorted(name for name, v in bank.held.items() if min(v.shape) >= 80)
    out: list[torch.Tensor] = []
    while len(out) < batch:
        volume = bank.held[names[int(torch.randint(len(names), (), generator=gen))]]
        volume = volume.permute(*torch.randperm(3, generator=gen).tolist())
        if volume.shape[2] < length:
            continue
        size = (side, side, length)
        best = None
        for _ in range(4):  # a piece of plain air teaches little
            at = [int(torch.randint(n - s + 1, (), generator=gen)) for n, s in zip(volume.shape, size, strict=True)]
            piece = volume[tuple(slice(a, a + s) for a, s in zip(at, size, strict=True))].float()
            best = piece if best is None or piece.std() > best.std() else best
            if float((piece > 0.05).float().mean()) > 0.3:
                best = piece
                break
        assert best is not None
        flips = [a for a in range(3) if chance(gen, 0.5)]
        best = best.flip(flips) if flips else best
        if chance(gen, 0.15):  # another contrast, and edges of dark on bright
            best = (uniform(gen, 0.6, 1.1) - best).clamp(min=0)
        out.append(best)
    return torch.stack(out)


def measured(fine: torch.Tensor, way: Slices, gen: torch.Generator, noise: float = 0.03) -> torch.Tensor:
    """Return the thick slices (B, I, J, slices) of fine voxels, with Rician noise of 0 to `noise`."""
    scan = fine @ way.sample.T
    levels = torch.tensor([uniform(gen, 0, noise) if chance(gen, 0.6) else 0.0 for _ in range(len(scan))])
    sigma = levels.reshape(-1, 1, 1, 1)
    real = scan + sigma * torch.randn(scan.shape, generator=gen)
    return torch.where(sigma > 0, torch.hypot(real, sigma * torch.randn(scan.shape, generator=gen)), scan)


def refined(net: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], scan: torch.Tensor, way: Slices) -> torch.Tensor:
    """Return the spline and what the network adds, (B, I, J, fine), before it is corrected."""
    told = torch.tensor([way.told] * len(scan), device=scan.device)
    parts = net(scan.permute(0, 3, 1, 2)[:, None], told)  # (B, PARTS, K, I, J)
    return scan @ way.spline.T + parts.permute(0, 3, 4, 2, 1).flatten(-2) @ way.read.T


def loss_of(answer: torch.Tensor, scan: torch.Tensor, fine: torch.Tensor, way: Slices) -> torch.Tensor:
    """Squared error in parts of the spline's, with and without the correction: every piece counts alike."""

    def error(found: torch.Tensor) -> torch.Tensor:
        inner = (found - fine)[:, RIM:-RIM, RIM:-RIM]
        return (inner**2).mean((1, 2, 3))

    spline = scan @ way.spline.T
    sure, free = error(way.corrected(answer, scan)), error(answer)
    return (sure / (error(way.corrected(spline, scan)) + FLOOR) + 0.5 * free / (error(spline) + FLOOR)).mean()


@torch.no_grad()
def validate(net: torch.nn.Module, bank: Bank) -> dict[str, float]:
    """PSNR gain in dB over the corrected spline on middle pieces of held-back heads, by factor; noise-free."""
    net.eval()
    gains = {}
    for factor, most in ((2, 2), (4, 6), (6, 2)):
        way = slices(96 // factor, float(factor), float(factor))
        found = []
        for _, volume in sorted(bank.held.items())[:most]:
            low = [(n - s) // 2 for n, s in zip(volume.shape, (72, 72, 96), strict=True)]
            fine = volume[tuple(slice(a, a + s) for a, s in zip(low, (72, 72, 96), strict=True))].float()[None]
            scan = fine @ way.sample.T
            before = (way.corrected(scan @ way.spline.T, scan) - fine)[:, RIM:-RIM, RIM:-RIM]
            after = (way.corrected(refined(net, scan, way), scan) - fine)[:, RIM:-RIM, RIM:-RIM]
            found.append(10 * float(((before**2).mean() / (after**2).mean()).log10()))
        gains[f"gain_x{factor}"] = round(float(np.mean(found)), 2)
    net.train()
    return gains


def held_back(folder: Path, maps: Path, cache: Path, count: int = 6) -> Bank:
    """Return a bank of heads that are never trained on; it is made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    number, seed = len(list(folder.glob("*.npy"))), 9_900_000
    heads = load_heads(maps, cache, HELD_OUT) if number < count else []
    while number < count:
        volume = clean_volume([heads[number % len(heads)]], seed)
        seed += 1
        if min(volume.shape) >= 96:
            np.save(folder / f"{number:05d}.npy", volume.half().numpy())
            number += 1
    bank = Bank(folder)
    bank.refresh()
    return bank


def deepened(net: SliceNet, depth: int) -> SliceNet:
    """Return the network with blocks added behind its own until it has `depth`; they change nothing before they learn."""
    deeper = SliceNet(net.width, max(depth, net.depth))
    deeper.load_state_dict(deeper.state_dict() | net.state_dict())
    with torch.no_grad():
        for block in list(deeper.blocks)[net.depth :]:
            block.second.weight.zero_()
    return deeper


def export(net: SliceNet, folder: Path, facts_: dict[str, Any]) -> None:
    """Write `superres.safetensors` (float16) and its card."""
    write_weights(net, folder, "superres", facts_)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedule", choices=sorted(SCHEDULES), default="cpu")
    parser.add_argument("--minutes", type=float, default=None, help="length by the clock instead of the schedule's")
    parser.add_argument("--maps", type=Path, default=DATA)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--run", default="superres", help="checkpoints go to CACHE/RUN")
    parser.add_argument("--init", type=Path, default=None, help="finished weights to begin from")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rate", type=float, default=None, help="highest learning rate instead of the schedule's")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--every", type=int, default=250, help="steps between checkpoints")
    parser.add_argument("--export", type=Path, default=None, help="folder for the weights")
    return parser.parse_args(argv)


class Training(Learner[SliceNet]):
    """The network in training."""

    def __init__(self, args: argparse.Namespace, plan: Schedule) -> None:
        torch.manual_seed(args.seed)
        self.device = args.device
        net = SliceNet(plan.width, plan.depth)
        if args.init is not None:
            from safetensors.torch import load_file

            net = deepened(from_state({k: v.float() for k, v in load_file(args.init).items()}), plan.depth)
        both = [n.to(self.device).to(memory_format=torch.channels_last_3d) for n in (net, from_state(net.state_dict()))]
        super().__init__(both[0], both[1], args.cache / args.run / "last.pt", plan.rate)
        if args.resume:
            self.resume()

    def take(self, fine: torch.Tensor, way: Slices, gen: torch.Generator, progress: float) -> float:
        """Take one step; return the loss."""
        scan = measured(fine, way, gen).to(self.device)
        way = Slices(*(m.to(self.device) for m in (way.sample, way.spline, way.spread, way.read)), way.told)

        def half(slices: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
            # The net alone: what slices measure is reckoned in full precision.
            with torch.autocast(self.device, torch.bfloat16, enabled=half_is_quick(self.device)):
                return self.net(slices, told).float()

        return self.follow(loss_of(refined(half, scan, way), scan, fine.to(self.device), way), progress)


def main(argv: list[str] | None = None) -> None:
    """Make the bank, then train or go on training."""
    args = parse(argv)
    plan = SCHEDULES[args.schedule]
    plan = replace(plan, rate=args.rate or plan.rate)
    minutes = args.minutes or plan.minutes
    torch.set_num_threads(args.threads)
    bank = Bank(args.cache / "denoise_bank")
    if bank.refresh() < plan.bank // 2:
        make_bank(bank.folder, plan.bank, args.maps, args.cache)
        bank.refresh()
    held = held_back(args.cache / "superres_held", args.maps, args.cache)
    run = Training(args, plan)
    losses: list[float] = []
    for gen, progress in run.lessons(minutes, args.seed):
        way = draw(plan.slices, gen)
        fine = pieces(bank, plan.batch, plan.side, len(way.spline), gen)
        losses.append(run.take(fine, way, gen, progress))
        if run.step % 25 == 0:
            print(f"{run.step} {run.spent / 60:.1f} min loss {np.mean(losses[-100:]):.4f}", flush=True)
        if run.step % args.every == 0 or progress >= 1:
            bank.refresh()
            run.keep()
            found = validate(run.average, held)
            print(f"{run.step} {found}", flush=True)
            if args.export is not None:
                told = CARD | {"steps": run.step, "minutes": round(run.spent / 60, 1), "seed": args.seed, **found}
                export(run.average, args.export, told)


if __name__ == "__main__":
    main()
