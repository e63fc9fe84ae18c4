"""Train the skull-strip network on synthetic heads: `python -m training.train_skullstrip --minutes 90`.

The network regresses the signed distance to the brain surface, in voxels, for two surfaces. Training begins on
coarse voxels, where a step costs a tenth, and ends at 2 mm. Stopping and starting again goes on from the last
checkpoint. On a GPU the generator and the network both run there; on a CPU the generator has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from napari_mri.engine.device import half_is_quick
from napari_mri.nets.unet import FoldedUNet
from training.learner import write_weights
from training.muon import Muon
from training.paths import CACHE, DATA
from training.synth import Head, Recipe, draw_grid, load_heads, make_sample

HELD_OUT = ("16", "17", "19")
REACH = 6.0
"""Distances are learned up to this many voxels from the surface; beyond, only the side matters."""


def recipe_at(progress: float, number: int) -> Recipe:
    """Return the recipe of a batch: coarse voxels first, 2 mm and a little more in the end."""
    if progress < 0.45:
        spacing = (2.9, 4.0)
    elif progress < 0.55:
        spacing = (2.4, 3.2)
    else:
        spacing = (2.0, 2.5) if number % 4 else (2.4, 3.2)
    return replace(Recipe(), spacing=spacing)


Pair = tuple[torch.Tensor, ...]


class Stream(IterableDataset[Pair]):
    """Endless batches of synthetic heads; the heads and faults of each follow from the seed and its number.

    Parameters
    ----------
    heads : list of Head
    make : callable
        Gives the tensors of one example, from a head, a recipe, a seed and a grid; those of a batch are stacked.
    seed, first, batch : int
        `first` is the number of the batch to begin with.
    clock : object
        Its `value` tells how far the training is, 0 to 1.
    """

    def __init__(
        self, heads: list[Head], make: Callable[..., Pair], seed: int, first: int, batch: int, clock: Any
    ) -> None:
        self.heads, self.make, self.seed, self.first, self.batch, self.clock = heads, make, seed, first, batch, clock

    def __iter__(self) -> Iterator[Pair]:
        """Yield one batch after the other."""
        if torch.utils.data.get_worker_info() is not None:
            torch.set_num_threads(1)
        number = self.first
        while True:
            gen = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
            recipe = recipe_at(self.clock.value, number)
            grid = draw_grid(recipe, gen)
            parts = []
            for _ in range(self.batch):
                head = self.heads[int(torch.randint(len(self.heads), (), generator=gen))]
                seed = int(torch.randint(2**31, (), generator=gen))
                parts.append(self.make(head, recipe, seed, grid))
            yield tuple(torch.stack(part) for part in zip(*parts, strict=True))
            number += 1


def asked(head: Head, recipe: Recipe, seed: int, grid: tuple[tuple[int, int, int], float]) -> Pair:
    """Return an image (1, I, J, K), the target in voxels (2, I, J, K) and what was seen (1, I, J, K)."""
    sample = make_sample(head, recipe, seed, grid=grid)
    target = (sample.distance / grid[1]).clamp(-REACH, REACH)
    return sample.image[None], target, sample.seen[None]


def loss_of(answer: torch.Tensor, target: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """Distance error near the surface, and Dice of the two masks.

    Parameters
    ----------
    answer, target : torch.Tensor
        (B, 2, I, J, K), voxels; the target is clipped to +-`REACH`.
    seen : torch.Tensor
        (B, 1, I, J, K) bool; elsewhere the scan has no data, and little is asked.

    Returns
    -------
    torch.Tensor
        Scalar.
    """
    far = (target.abs() >= REACH) & (answer * target.sign() >= REACH)
    error = F.smooth_l1_loss(answer, target, beta=0.5, reduction="none").masked_fill(far, 0)
    weight = (1.25 - target.abs() / 3).clamp(0.12, 1.0) * seen.float().clamp(min=0.02)
    distance = (error * weight).sum() / weight.sum()
    inside = torch.sigmoid(-answer / 0.4) * seen
    truth = torch.sigmoid(-target / 0.4) * seen
    both = (inside * truth).sum((2, 3, 4))
    dice = 1 - (2 * both + 50) / ((inside**2).sum((2, 3, 4)) + (truth**2).sum((2, 3, 4)) + 50)
    return distance + dice.mean()


@torch.no_grad()
def validate(net: torch.nn.Module, heads: list[Head], count: int, device: str) -> dict[str, float]:
    """Dice of both masks at 2 mm, and error of the distance within 2 voxels of the surface, on heads held out."""
    net.eval()
    dices: list[list[float]] = []
    errors = []
    for number in range(count):
        sample = make_sample(heads[number % len(heads)], Recipe(cropped=0.2, stripped=0.0), 900_000_000 + number)
        answer = net(sample.image[None, None].to(device))[0].cpu() * 2.0
        near = (sample.distance.abs() < 4) & sample.seen
        errors.append(float((answer - sample.distance)[near].abs().mean()))
        found, truth = (answer < 0) & sample.seen, (sample.distance < 0) & sample.seen
        both = (found & truth).sum((1, 2, 3))
        dices.append((2 * both / (found.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1)).tolist())
    net.train()
    table = torch.tensor(dices)
    return {
        "dice_csf": round(float(table[:, 0].mean()), 4),
        "dice_brain": round(float(table[:, 1].mean()), 4),
        "worst": round(float(table.min()), 4),
        "error_mm": round(sum(errors) / len(errors), 3),
    }


class Averaged:
    """Exponential moving average of a network's weights."""

    def __init__(self, net: torch.nn.Module, decay: float = 0.998) -> None:
        self.decay = decay
        self.net = FoldedUNet().to(next(net.parameters()).device).to(memory_format=torch.channels_last_3d)
        self.net.load_state_dict(net.state_dict())

    @torch.no_grad()
    def update(self, net: torch.nn.Module, step: int) -> None:
        """Move towards `net`; early on more quickly."""
        keep = min(self.decay, (1 + step) / (20 + step))
        for mine, new in zip(self.net.parameters(), net.parameters(), strict=True):
            mine.lerp_(new, 1 - keep)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=Path, default=DATA)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--run", default="skullnet", help="name of the run; checkpoints go to CACHE/RUN")
    parser.add_argument("--init", type=Path, default=None, help="finished weights to begin from")
    parser.add_argument("--minutes", type=float, default=None, help="length of the schedule by the clock")
    parser.add_argument("--steps", type=int, default=6000, help="length of the schedule without --minutes")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--batch", type=int, default=2, help="heads per step; 2 on a CPU, 16 and more on a GPU")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--every", type=int, default=250, help="steps between validations")
    parser.add_argument("--export", type=Path, default=None, help="folder for the finished weights")
    parser.add_argument("--stop", action="store_true", help="train no more: validate and export what there is")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Train, or go on training."""
    import torch.multiprocessing as mp

    args = parse(argv)
    folder = args.cache / args.run
    folder.mkdir(parents=True, exist_ok=True)
    heads = load_heads(args.maps, args.cache)
    held = [h for h in heads if h.name in HELD_OUT]
    # Heads stay on the CPU when a worker process makes the samples, on the GPU otherwise.
    cuda = args.device.startswith("cuda")
    train = [h.to(args.device) if cuda else h for h in heads if h.name not in HELD_OUT]
    torch.manual_seed(args.seed)
    net = FoldedUNet().to(args.device).to(memory_format=torch.channels_last_3d)
    if args.init is not None:
        from safetensors.torch import load_file

        net.load_state_dict({name: tensor.float() for name, tensor in load_file(args.init).items()})
    average = Averaged(net)
    kernels = [p for p in net.parameters() if p.ndim > 1]
    vectors = [p for p in net.parameters() if p.ndim == 1]
    muon = Muon(kernels, lr=args.lr)
    adam = torch.optim.AdamW(vectors, lr=args.lr * 0.15, weight_decay=0.0)
    step, spent = 0, 0.0
    kept = folder / "last.pt"
    if kept.exists():
        state = torch.load(kept, map_location=args.device, weights_only=True)
        net.load_state_dict(state["net"])
        average.net.load_state_dict(state["average"])
        muon.load_state_dict(state["muon"])
        adam.load_state_dict(state["adam"])
        step, spent = state["step"], state["spent"]
    half = half_is_quick(args.device)
    clock = mp.Value("d", 0.0)
    stream = Stream(train, asked, args.seed, step, args.batch, clock)
    workers = {"num_workers": 0} if cuda else {"num_workers": 1, "prefetch_factor": 4}
    loader = iter(DataLoader(stream, batch_size=None, **workers))
    if args.stop:
        _finish(average.net, held, args, step, spent)
        return
    running: list[float] = []
    begin = time.perf_counter() - spent
    while True:
        spent = time.perf_counter() - begin
        progress = min(1.0, spent / 60 / args.minutes if args.minutes else step / args.steps)
        clock.value = progress if args.init is None else max(0.55, progress)  # finished weights know coarse voxels
        rate = min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * progress)) + 0.005
        muon.param_groups[0]["lr"] = args.lr * rate
        adam.param_groups[0]["lr"] = args.lr * 0.15 * rate
        image, target, seen = (part.to(args.device) for part in next(loader))
        with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=half):
            answer = net(image)
        loss = loss_of(answer.float(), target, seen)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vectors, 1.0)
        muon.step()
        adam.step()
        net.zero_grad(set_to_none=True)
        average.update(net, step)
        step += 1
        running.append(float(loss.detach()))
        done = progress >= 1
        if step % 25 == 0:
            mean = sum(running[-25:]) / 25
            _log(folder, {"step": step, "minutes": round(spent / 60, 1), "loss": round(mean, 4)})
        if step % 100 == 0 or done:
            state = {"net": net.state_dict(), "average": average.net.state_dict(), "muon": muon.state_dict()}
            torch.save({**state, "adam": adam.state_dict(), "step": step, "spent": spent}, folder / "new.pt")
            (folder / "new.pt").replace(kept)
        if step % args.every == 0:
            figures = validate(average.net, held, 12, args.device)
            _log(folder, {"step": step, "minutes": round(spent / 60, 1), **figures})
        if done:
            break
    _finish(average.net, held, args, step, spent)


def _finish(net: torch.nn.Module, held: list[Head], args: argparse.Namespace, step: int, spent: float) -> None:
    """Write the weights and the card, where a folder for them is named."""
    if args.export is None:
        return
    facts = {
        "network": "FoldedUNet, 2 channels: signed distance in voxels to the inner skull and to the brain",
        "parameters": sum(p.numel() for p in net.parameters()),
        "data": "SynthSeg's label maps (Apache-2.0, Billot et al. 2023); images synthesised, no scan was seen",
        "held_out": list(HELD_OUT),
        "steps": step,
        "batch": args.batch,
        "seed": args.seed,
        "optimiser": f"Muon, lr {args.lr}, cosine; AdamW for vectors; averaged weights",
        "minutes": round(spent / 60),
        "device": args.device,
        "recipe": asdict(Recipe()),
        "validation": {"heads": 24, "spacing_mm": 2.0, **validate(net, held, 24, args.device)},
        "limits": "Adult-like anatomy warped to exceed its range; no tumours beyond the skull, no foetal heads.",
        "licence": "BSD-3-Clause",
    }
    write_weights(net, args.export, "skullnet", facts)


def _log(folder: Path, line: dict[str, Any]) -> None:
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


if __name__ == "__main__":
    main()
