"""Train the network that strips heads and names what stands where: `python -m training.train_headnet --minutes 60`.

It sees synthetic heads only, and is asked for the distance to the inner skull and to the brain, and for every voxel's
structure and side. Stopping and starting again goes on from the last checkpoint. A GPU learns faster than heads are
painted: give it one process a core (`--workers`); while none is ready earlier batches come again, mirrored and recoloured.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from napari_mri.engine.device import half_is_quick
from napari_mri.engine.weights import is_there, place
from napari_mri.models._anatomy import INNER
from napari_mri.models._headnet import HEADNET, asking
from napari_mri.nets.anatomy import BEYOND, NAMES, HeadNet
from napari_mri.nets.unet import fold
from training.crowd import Batch, batches
from training.head_tasks import (
    HELD_OUT,
    REACH,
    UNKNOWN,
    loss_of_names,
    loss_of_surfaces,
    named_in,
    reach_beyond,
)
from training.learner import Learner, write_weights
from training.paths import CACHE, DATA
from training.synth import Head, Recipe, draw_grid, load_heads, make_samples
from training.synth.geometry import WILD

STEPS = 16
"""Distances are kept in this many steps a voxel."""
SPACING = (1.92, 2.16)
"""Voxels, mm: the product looks at 2 mm."""
CARD = {
    "network": "HeadNet: FoldedUNet's trunk; signed distances in voxels to the inner skull and to the brain, one logit for "
    "each structure and one for the side, at 2 mm",
    "data": "SynthSeg's label maps (Apache-2.0, Billot et al. 2023); images synthesised, no scan was seen",
    "held_out": list(HELD_OUT),
    "recipe": "training/train_headnet.py",
    "limits": "Adult-like heads. It leads click-to-segment and the outline of skull-strip, each sharpened by the brightness "
    "of the scan; it is no segmentation to measure volumes with.",
    "licence": "BSD-3-Clause",
}


class Examples:
    """Batches by number: one grid each, some poses of some heads, each painted several times.

    Parameters
    ----------
    heads : list of Head
    seed, batch, looks : int
    """

    def __init__(self, heads: list[Head], seed: int, batch: int, looks: int) -> None:
        self.heads, self.seed, self.batch, self.looks = heads, seed, batch, looks

    def __call__(self, number: int) -> Batch:
        """Return images (B, 1, I, J, K) half, distances (B, 2, …), kinds, sides (B, …) int8 and what was seen (B, 1, …)."""
        gen = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        recipe = replace(Recipe(), spacing=SPACING, warp=WILD)
        grid = draw_grid(recipe, gen)
        found = []
        for _ in range(self.batch // self.looks):
            head = self.heads[int(torch.randint(len(self.heads), (), generator=gen))]
            seed = int(torch.randint(2**31, (), generator=gen))
            for sample in make_samples(head, recipe, seed, self.looks, grid=grid):
                kinds, sides = named_in(sample, head)
                kinds, sides = (
                    torch.where(sample.seen, x, torch.full_like(x, UNKNOWN)).to(torch.int8) for x in (kinds, sides)
                )
                far = (sample.distance / grid[1]).clamp(-REACH, REACH).mul(STEPS).round().to(torch.int8)
                found.append((sample.image[None].half(), far, kinds, sides, sample.seen[None]))
        return tuple(torch.stack(part) for part in zip(*found, strict=True))


def changed(batch: Batch, gen: torch.Generator) -> Batch:
    """Return a batch that was learned from before as if it were another: mirrored, with other tones and more noise."""
    image, far, kinds, sides, seen = (part.flip(-3) for part in batch)
    sides = torch.where(sides == UNKNOWN, sides, 1 - sides)
    count, knots = len(image), 7
    levels = torch.rand(count, knots, generator=gen)
    rising = levels.sort(1).values
    levels = torch.where(torch.rand(count, 1, generator=gen) < 0.5, rising, levels)
    levels[:, 0] *= (torch.rand(count, generator=gen) < 0.25).float()
    levels = levels.to(image.device)
    place = image.float().clamp(0, 1.49) / 1.5 * (knots - 1)
    low = place.long()
    part = place - low
    flat = levels.gather(1, low.flatten(1)) * (1 - part.flatten(1)) + levels.gather(
        1, low.flatten(1) + 1
    ) * part.flatten(1)
    noise = torch.rand(count, 1, generator=gen).to(image.device) ** 2 * 0.08
    flat = (flat + noise * torch.randn(flat.shape, device=image.device)).abs()
    top = flat[:, :: max(1, flat.shape[1] // 50_000)].quantile(0.99, dim=1, keepdim=True).clamp(min=0.05)
    return (flat / top).clamp(0, 1.5).reshape(image.shape).half(), far, kinds, sides, seen


def grown(small: dict[str, torch.Tensor], net: HeadNet) -> dict[str, torch.Tensor]:
    """Return a state of a wider and deeper network that answers as a smaller one does.

    New channels begin at chance but nothing listens to them yet; new blocks add nothing yet. Neither network may have a
    stem or a `tell` just as wide as what it sees: such a block adds its input.

    Parameters
    ----------
    small : dict
        State of the smaller network; of a tensor that is not in it the network's own is taken.
    net : HeadNet
    """
    state = {name: value.clone() for name, value in net.state_dict().items()}
    for name, new in state.items():
        old = small.get(name)
        if old is None:
            if name.endswith("norm.weight"):
                new.zero_()
            continue
        outs = old.shape[0]
        if new.ndim > 1:
            new[:outs, old.shape[1] :] = 0
            new[:outs, : old.shape[1]] = old
        else:
            new[:outs] = old
    return state


def lesson(net: HeadNet, batch: Batch, parts: torch.Tensor, half: bool, only_names: bool = False) -> torch.Tensor:
    """Return the loss of a batch; the names of two of the eight voxels of each block are asked for.

    With `only_names` nothing is asked of distances, and nothing learned by what they share with the names.
    """
    image, far, kinds, sides, seen = batch
    with torch.autocast(image.device.type, torch.bfloat16, enabled=half):
        with torch.set_grad_enabled(not only_names):
            features = net.features(image.float())
        surfaces, names = None if only_names else net.surfaces(features), net.some(features, parts)
    asked = (fold(x[:, None])[:, parts].long() for x in (kinds, sides))
    named = loss_of_names(names.float(), *asked)
    if surfaces is None:
        return named
    return named + 2 * loss_of_surfaces(surfaces.float(), far.float() / STEPS, seen)


def main(argv: list[str] | None = None) -> None:
    """Train, or go on training."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--maps", type=Path, default=DATA)
    ask.add_argument("--cache", type=Path, default=CACHE)
    ask.add_argument("--run", default="headnet", help="checkpoints go to CACHE/RUN")
    ask.add_argument(
        "--init", type=Path, nargs="*", default=[], help="weights to begin from, also of a smaller network"
    )
    ask.add_argument("--minutes", type=float, default=60)
    ask.add_argument("--rate", type=float, default=0.02)
    ask.add_argument("--batch", type=int, default=2, help="heads per step; 2 on a CPU, 24 on a GPU")
    ask.add_argument("--looks", type=int, default=2, help="how often each pose is painted")
    ask.add_argument("--workers", type=int, default=1, help="processes that paint heads")
    ask.add_argument("--seed", type=int, default=1)
    ask.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    ask.add_argument("--keep", type=float, default=60, help="seconds between checkpoints")
    ask.add_argument("--export", type=Path, default=None, help="folder for the weights")
    ask.add_argument(
        "--beyond", type=int, default=0, help="heads to measure how far structures reach on; 0: take the shipped numbers over"
    )
    ask.add_argument("--only-names", action="store_true", help="leave distances, and what they share with the names, as they are")
    ask.add_argument("--stop", action="store_true", help="train no more: measure and export what there is")
    args = ask.parse_args(argv)
    heads = load_heads(args.maps, args.cache)
    examples = Examples([h for h in heads if h.name not in HELD_OUT], args.seed, args.batch, args.looks)
    # Processes are forked before anything touches the GPU; a checkpoint's step is read first, so that examples go on.
    file = args.cache / args.run / "last.pt"
    step = int(torch.load(file, map_location="cpu", weights_only=True)["step"]) if file.exists() else 0
    stream = iter(()) if args.stop else batches(examples, args.workers, step, args.device)
    run = _learner(args)
    if not args.stop:
        _taught(run, stream, args)
    if args.export is not None:
        _export(run, heads, args)


def _learner(args: argparse.Namespace) -> Learner[HeadNet]:
    from safetensors.torch import load_file

    torch.manual_seed(args.seed)
    nets = [HeadNet().to(memory_format=torch.channels_last_3d) for _ in range(2)]
    start: dict[str, torch.Tensor] = {}
    for file in args.init:
        start |= {name: value.float() for name, value in load_file(file).items()}
    if start:
        nets[0].load_state_dict(grown(start, nets[0]))
    nets[1].load_state_dict(nets[0].state_dict())
    for name, parameter in nets[0].named_parameters():
        parameter.requires_grad_(not args.only_names or name.startswith(("tell", "names")))
    nets = [net.to(args.device) for net in nets]
    run: Learner[HeadNet] = Learner(nets[0], nets[1], args.cache / args.run / "last.pt", args.rate)
    run.resume()
    return run


def _taught(run: Learner[HeadNet], stream: Iterator[tuple[Batch, bool]], args: argparse.Namespace) -> None:
    half = half_is_quick(args.device)
    losses: list[float] = []
    new, kept = 0, time.perf_counter()
    first = next(stream)  # painting the first takes longer than a step
    for gen, progress in run.lessons(args.minutes, args.seed):
        batch, fresh = first or next(stream)
        first = None
        new += fresh
        if not fresh:
            batch = changed(batch, gen)
        parts = torch.randperm(8, generator=gen)[:2].to(args.device)
        loss = run.follow(lesson(run.net, batch, parts, half, args.only_names), progress)
        losses.append(loss)
        if run.step % 25 == 0:
            mean = sum(losses[-25:]) / len(losses[-25:])
            print(f"{run.step} {run.spent / 60:.1f} min loss {mean:.3f}, {new} batches of {run.step}", flush=True)
        if progress >= 1 or time.perf_counter() - kept > args.keep:
            run.keep()
            if args.export is not None:
                _export(run, [], args)
            kept = time.perf_counter()


def _export(run: Learner[HeadNet], heads: list[Head], args: argparse.Namespace) -> None:
    """Write the weights and their card; `heads` are what figures come from, none before the end."""
    facts: dict[str, Any] = {
        "steps": run.step,
        "minutes": round(run.spent / 60, 1),
        "seed": args.seed,
        "batch": args.batch,
        "looks": args.looks,
        "optimiser": f"Muon, lr {args.rate}, cosine; Adam for vectors; averaged weights",
        "device": args.device,
    }
    more = _beyond()
    if heads:
        held = [h for h in heads if h.name in HELD_OUT]
        facts["validation"] = validate(run.average, held, 24, args.device)
        print(f"{run.step} {facts['validation']}", flush=True)
        if args.beyond:
            train = [h for h in heads if h.name not in HELD_OUT]
            more = {BEYOND: reach_beyond(asking(run.average), train, args.beyond)}
    write_weights(run.average, args.export, "headnet", CARD | facts, more)


def _beyond() -> dict[str, torch.Tensor]:
    """Return how far structures reach beyond the shipped network's map, if there is one."""
    from safetensors import safe_open

    if not is_there(HEADNET):
        return {}
    with safe_open(place(HEADNET), "pt") as file:
        return {BEYOND: file.get_tensor(BEYOND)} if BEYOND in file.keys() else {}  # noqa: SIM118


@torch.no_grad()
def validate(net: HeadNet, heads: list[Head], count: int, device: str) -> dict[str, float]:
    """Dice of structures and masks, and error of the distance near the surface, mm, at 2 mm on held-out heads."""
    recipe = Recipe(cropped=0.2, stripped=0.0, lesions=0.0, defaced=0.0)
    both, total, masks, errors, right = torch.zeros(len(NAMES)), torch.zeros(len(NAMES)), [], [], []
    for number in range(count):
        head = heads[number % len(heads)]
        gen = torch.Generator().manual_seed(number)
        (sample,) = make_samples(head, recipe, 800_000_000 + number, 1, grid=draw_grid(recipe, gen))
        kinds, sides = named_in(sample, head)
        kinds = torch.where(sample.seen, kinds, torch.full_like(kinds, UNKNOWN))
        features = net.features(sample.image[None, None].to(device))
        names, near = net.named(features)[0].float().cpu(), net.surfaces(features)[0].float().cpu() * 2
        found, known = names[:-1].argmax(0), kinds != UNKNOWN
        both += torch.bincount(kinds[known & (found == kinds)], minlength=len(NAMES))
        total += torch.bincount(kinds[known], minlength=len(NAMES)) + torch.bincount(found[known], minlength=len(NAMES))
        paired = (sides >= 0) & sample.seen
        right.append(float(((names[-1] > 0) == (sides > 0))[paired].float().mean()))
        errors.append(float((near - sample.distance)[0][(sample.distance[0].abs() < 4) & sample.seen].abs().mean()))
        inside, truth = (near < 0) & sample.seen, (sample.distance < 0) & sample.seen
        masks.append(2 * (inside & truth).sum((1, 2, 3)) / (inside.sum((1, 2, 3)) + truth.sum((1, 2, 3)) + 1))
    dice = 2 * both / total.clamp(min=1)
    skull, brain = torch.stack(masks).mean(0).tolist()
    found_of = {name: round(float(d), 3) for name, d in zip(NAMES, dice, strict=True)}
    return {
        "structures": round(float(dice[INNER.start : INNER.stop].mean()), 3), "side": round(sum(right) / count, 4), "inner skull": round(skull, 4),
        "brain": round(brain, 4), "error_mm": round(sum(errors) / count, 3), **found_of,
    }  # fmt: skip


if __name__ == "__main__":
    main()
