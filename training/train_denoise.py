"""Train the denoiser on synthetic volumes: `python -m training.train_denoise --minutes 90`.

Noise-free volumes are made once into a bank (`--bank-only` makes it alone, while a training already draws from
what is there). Every step takes random pieces, adds noise of a random level, constant or varying over the field of
view, Rician or Gaussian, and asks the network for the noise-free signal. Starting again goes on from the last
checkpoint; `--init FILE.safetensors` begins from finished weights; `--schedule gpu` is the long recipe.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_mri.engine.device import half_is_quick
from napari_mri.nets.denoiser import Denoiser
from training.clean_images import clean_volume
from training.learner import Learner, write_weights
from training.paths import CACHE, DATA
from training.synth import load_heads
from training.synth.geometry import chance, smooth_noise, uniform

CARD = {
    "name": "denoiser",
    "network": "nets/denoiser.py",
    "data": "painted heads from 13 SynthSeg label maps (Apache-2.0) and piled-up random shapes; no real scan",
    "recipe": "training/train_denoise.py",
    "licence": "BSD-3-Clause",
    "limits": "White noise of 1 to 25 %, Rician or Gaussian. Not trained on real scans or on anatomy other than heads.",
}
HELD_OUT = ("16", "17", "19")
"""Label maps never painted for training: the benchmark's held-back heads."""


@dataclass(frozen=True)
class Schedule:
    """How long and how much at once."""

    minutes: float
    batch: int
    side: int
    bank: int
    rate: float
    widths: tuple[int, ...] = (32, 64, 96)
    depths: tuple[int, ...] = (2, 2, 2)


SCHEDULES = {
    "cpu": Schedule(minutes=45, batch=4, side=40, bank=500, rate=0.01),
    "gpu": Schedule(minutes=240, batch=16, side=64, bank=2000, rate=0.01),
}


def make_bank(folder: Path, count: int, maps: Path, cache: Path) -> None:
    """Write noise-free volumes 0..count-1 as float16 arrays; those that are there are left."""
    folder.mkdir(parents=True, exist_ok=True)
    heads = [h for h in load_heads(maps, cache) if h.name not in HELD_OUT]
    for number in range(count):
        file = folder / f"{number:05d}.npy"
        if file.exists():
            continue
        volume = clean_volume(heads, 7_000_000 + number).half().numpy()
        part = file.with_suffix(".part")
        with part.open("wb") as stream:
            np.save(stream, volume)
        part.replace(file)


class Bank:
    """Noise-free volumes in memory, growing while they are being made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: dict[str, torch.Tensor] = {}

    def refresh(self) -> int:
        """Read what is new; return how many there are."""
        for file in sorted(self.folder.glob("*.npy")):
            if file.name not in self.held:
                volume = torch.from_numpy(np.load(file))
                if min(volume.shape) >= 16:
                    self.held[file.name] = volume
        return len(self.held)

    def pieces(self, batch: int, side: int, gen: torch.Generator) -> torch.Tensor:
        """(B, 1, i, j, k) float32: turned, flipped pieces of different volumes, sides multiples of 8."""
        names = sorted(self.held)
        drawn = []
        for _ in range(batch):
            volume = self.held[names[int(torch.randint(len(names), (), generator=gen))]]
            volume = volume.permute(*torch.randperm(3, generator=gen).tolist())
            drawn.append(volume)
        size = [min(side, *(v.shape[a] // 8 * 8 for v in drawn)) for a in range(3)]
        out = []
        for volume in drawn:
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
            out.append(best * uniform(gen, 0.5, 1.1))
        return torch.stack(out)[:, None]


def noisy(clean: torch.Tensor, gen: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Add noise of a random level and kind.

    Parameters
    ----------
    clean : torch.Tensor
        (B, 1, I, J, K).
    gen : torch.Generator

    Returns
    -------
    scan, sigma, rician, target : torch.Tensor
        The noisy scan; the noise map told to the network, not always exactly true; (B, 1, 1, 1, 1) 1 for
        Rician; what the network is asked for.
    """
    maps, kinds = [], []
    for _ in range(len(clean)):
        low, high = (0.01, 0.25) if chance(gen, 0.88) else (0.001, 0.01)
        level = math.exp(uniform(gen, math.log(low), math.log(high)))
        sigma = torch.full(clean.shape[1:], level)
        if chance(gen, 0.4):
            nodes = int(torch.randint(2, 5, (), generator=gen))
            shade = smooth_noise((1, *clean.shape[2:]), (nodes, nodes, nodes), gen)
            sigma = sigma * torch.exp(uniform(gen, 0.1, 0.5) * shade)
        maps.append(sigma)
        kinds.append(1.0 if chance(gen, 0.8) else 0.0)
    sigma = torch.stack(maps)
    rician = torch.tensor(kinds).reshape(-1, 1, 1, 1, 1)
    real = clean + sigma * torch.randn(clean.shape, generator=gen)
    other = rician * sigma * torch.randn(clean.shape, generator=gen)
    scan = torch.where(rician > 0, torch.hypot(real, other), real)
    wrong = torch.exp(0.05 * torch.randn((len(clean), 1, 1, 1, 1), generator=gen))
    told = sigma * torch.where(torch.rand((len(clean), 1, 1, 1, 1), generator=gen) < 0.5, wrong, torch.ones(()))
    return scan, told, rician, clean


def loss_of(answer: torch.Tensor, target: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Squared error per piece in parts of what a good classical method leaves at that noise level.

    Plain squared error would be all about the noisiest piece of the batch; error over noise variance all about
    the cleanest, because little can be won there.
    """
    level = sigma.mean((1, 2, 3, 4)).clamp(min=1e-4)
    usual = level**2 * (0.35 * (0.03 / level) ** 1.2).clamp(0.02, 1.0)
    return (((answer - target) ** 2).mean((1, 2, 3, 4)) / usual).mean()


@torch.no_grad()
def validate(net: torch.nn.Module, bank: Bank, device: str) -> dict[str, float]:
    """PSNR gain in dB over the noisy piece at four Rician levels, on fixed pieces of the first volumes."""
    net.eval()
    gains = {}
    for level in (0.03, 0.05, 0.09, 0.15):
        gen = torch.Generator().manual_seed(5)
        before, after = 0.0, 0.0
        for _ in range(2):
            clean = bank.pieces(2, 48, gen)
            sigma = torch.full_like(clean, level)
            scan = torch.hypot(
                clean + level * torch.randn(clean.shape, generator=gen), level * torch.randn(clean.shape, generator=gen)
            )
            told = (scan.to(device), sigma.to(device), torch.ones(2, 1, 1, 1, 1, device=device))
            with torch.autocast(device, torch.bfloat16, enabled=half_is_quick(device)):
                answer = net(*told).float().cpu()
            before += float(((scan - clean) ** 2).mean().log10())
            after += float(((answer - clean) ** 2).mean().log10())
        gains[f"gain_{round(100 * level)}"] = round(10 * (before - after) / 2, 2)
    net.train()
    return gains


def export(net: Denoiser, folder: Path, facts: dict[str, Any]) -> None:
    """Write `denoiser.safetensors` (float16) and its card."""
    write_weights(net, folder, "denoiser", facts)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedule", choices=sorted(SCHEDULES), default="cpu")
    parser.add_argument("--minutes", type=float, default=None, help="length by the clock instead of the schedule's")
    parser.add_argument("--maps", type=Path, default=DATA)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--run", default="denoiser", help="checkpoints go to CACHE/RUN")
    parser.add_argument("--init", type=Path, default=None, help="finished weights to begin from")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--bank-only", action="store_true")
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--export", type=Path, default=None, help="folder for the weights")
    return parser.parse_args(argv)


class Training(Learner[Denoiser]):
    """The network in training."""

    def __init__(self, args: argparse.Namespace, plan: Schedule) -> None:
        torch.manual_seed(args.seed)
        self.device, self.half = args.device, half_is_quick(args.device)
        both = [
            Denoiser(plan.widths, plan.depths).to(self.device).to(memory_format=torch.channels_last_3d) for _ in range(2)
        ]
        if args.init is not None:
            from safetensors.torch import load_file

            both[0].load_state_dict({k: v.float() for k, v in load_file(args.init).items()})
        both[1].load_state_dict(both[0].state_dict())
        file = args.cache / args.run / "last.pt"
        super().__init__(both[0], both[1], file, plan.rate, least=2, share=0.05, memory=0.998)
        self.resume()

    def take(self, clean: torch.Tensor, gen: torch.Generator, progress: float) -> float:
        """Take one step; return the loss."""
        scan, sigma, rician, target = (part.to(self.device) for part in noisy(clean, gen))
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            answer = self.net(scan, sigma, rician)
        return self.follow(loss_of(answer.float(), target, sigma), progress)


def main(argv: list[str] | None = None) -> None:
    """Make the bank, then train or go on training."""
    args = parse(argv)
    plan = SCHEDULES[args.schedule]
    minutes = args.minutes or plan.minutes
    shelf = args.cache / "denoise_bank"
    if args.bank_only:
        torch.set_num_threads(1)
        make_bank(shelf, plan.bank, args.maps, args.cache)
        return
    bank = Bank(shelf)
    if bank.refresh() < 8:
        make_bank(shelf, 24, args.maps, args.cache)
        bank.refresh()
    torch.set_num_threads(args.threads)
    run = Training(args, plan)
    losses: list[float] = []
    for gen, progress in run.lessons(minutes, args.seed):
        losses.append(run.take(bank.pieces(plan.batch, plan.side, gen), gen, progress))
        if run.step % 10 == 0:
            print(
                f"{run.step} {run.spent / 60:.1f} min loss {np.mean(losses[-10:]):.4f} bank {len(bank.held)}",
                flush=True,
            )
        if run.step % args.every == 0 or progress >= 1:
            bank.refresh()
            run.keep()
            found = validate(run.average, bank, args.device)
            print(f"{run.step} {found}", flush=True)
            if args.export is not None:
                facts = CARD | {"steps": run.step, "minutes": round(run.spent / 60, 1), "seed": args.seed, **found}
                export(run.average, args.export, facts)


if __name__ == "__main__":
    main()
