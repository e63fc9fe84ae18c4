"""Train the network that knows the anatomy of heads: `python -m training.train_anatomy --minutes 60`.

It sees the same synthetic heads as the skull-strip network, begins from its weights, and is asked for every voxel's
structure and side. A click is then first taken for the structure it lies in.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.engine import fit
from napari_mri.engine.device import half_is_quick
from napari_mri.models._anatomy import BRAIN, Key, anatomy_of
from napari_mri.nets.anatomy import BEYOND, NAMES, PAIRED, Anatomy
from napari_mri.nets.unet import fold
from training.learner import Learner, write_weights
from training.paths import CACHE, DATA
from training.synth import Head, Recipe, Sample, draw_grid, load_heads, make_sample
from training.train_skullstrip import HELD_OUT, Stream

UNKNOWN = -100
"""A voxel that nothing is asked about."""
SAME = 20
"""Classes up to here mean the same structure in every label map, and their right twins point to them."""
RIGHT_LESION, LESION = 33, 17
FROM_END = {1: 21, 3: 22, 6: 23, 7: 24, 8: 25, 10: 26, 11: 27, 12: 28, 15: 29, 16: 30, 17: 31}
"""Later classes are counted from the end: what stands outside the brain."""
LEAST_ML, FOUND = 0.5, 0.3
"""What is smaller, or overlaps its map less (Dice), tells nothing about how far structures reach beyond it."""
SHIPPED = Path(__file__).resolve().parents[1] / "napari_mri" / "weights" / "skullnet.safetensors"


def tables(head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each class of a head is, and whether it is the right one of a pair (0, 1 or `UNKNOWN`); (256,) each."""
    kinds, sides = torch.full((256,), UNKNOWN), torch.full((256,), UNKNOWN)
    last = len(head.base)
    for number, root in enumerate(head.base):
        if root <= SAME:
            kinds[number] = root
        elif number == RIGHT_LESION:
            kinds[number] = LESION
        elif not head.inside[number]:
            kinds[number] = FROM_END.get(last - root, UNKNOWN)
        if int(kinds[number]) in PAIRED:
            sides[number] = int(number > SAME)
    return kinds, sides


def named_in(sample: Sample, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the kind and the side of each voxel of a sample, (I, J, K) long; a mirrored head's sides are swapped."""
    kinds, sides = (table[sample.labels.long()] for table in tables(head))
    if torch.linalg.det(sample.pose.matrix) < 0:
        sides = torch.where(sides == UNKNOWN, sides, 1 - sides)
    return kinds, sides


def asked(head: Head, recipe: Recipe, seed: int, grid: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return an image (1, I, J, K), the kind and the side of each voxel, (I, J, K) int8."""
    sample = make_sample(head, recipe, seed, grid=grid)
    kinds, sides = named_in(sample, head)
    kinds, sides = (torch.where(sample.seen, x, torch.full_like(x, UNKNOWN)) for x in (kinds, sides))
    return sample.image[None], kinds.to(torch.int8), sides.to(torch.int8)


def loss_of(answer: torch.Tensor, kinds: torch.Tensor, sides: torch.Tensor) -> torch.Tensor:
    """Cross-entropy in which rare structures count more, their soft Dice, and the side.

    Parameters
    ----------
    answer : torch.Tensor
        (B, len(NAMES) + 1, …).
    kinds, sides : torch.Tensor
        (B, …) long.
    """
    logits, right = answer[:, :-1].flatten(2), answer[:, -1].flatten(1)
    kinds, sides = kinds.flatten(1), sides.flatten(1)
    known = kinds != UNKNOWN
    counts = torch.bincount(kinds[known], minlength=len(NAMES)).float()
    weight = (counts.sum() / (counts + 200)).sqrt().clamp(max=60)
    loss = F.cross_entropy(logits, kinds, weight=weight, ignore_index=UNKNOWN)
    p = logits.softmax(1) * known[:, None]
    # Dice by gathering: sums over voxels of the probability given to the true structure.
    true = torch.where(known, kinds, 0)
    hit = p.gather(1, true[:, None])[:, 0] * known
    both = torch.zeros(len(NAMES), device=p.device).index_add(0, true.flatten(), hit.flatten())
    dice = (2 * both + 20) / (p.sum((0, 2)) + counts + 20)
    there = counts > 30
    loss = loss + (1 - dice[there]).sum() / there.sum().clamp(min=1)
    paired = sides != UNKNOWN
    return loss + 0.5 * F.binary_cross_entropy_with_logits(right[paired], sides[paired].float())


@torch.no_grad()
def validate(net: Anatomy, heads: list[Head], count: int, device: str) -> dict[str, Any]:
    """Dice of the structures at 2 mm on held-out heads: the mean, and one by one; and how often the side is right."""
    both, total = torch.zeros(len(NAMES)), torch.zeros(len(NAMES))
    right = []
    recipe = Recipe(cropped=0.2, stripped=0.0, lesions=0.0, defaced=0.0)
    for number in range(count):
        gen = torch.Generator().manual_seed(number)
        image, kinds, sides = asked(heads[number % len(heads)], recipe, 800_000_000 + number, draw_grid(recipe, gen))
        with torch.autocast(device.split(":")[0], torch.bfloat16, enabled=half_is_quick(device)):
            answer = net(image[None].to(device))[0].float().cpu()
        found, kinds = answer[:-1].argmax(0), kinds.long()
        known = kinds != UNKNOWN
        both += torch.bincount(kinds[known & (found == kinds)], minlength=len(NAMES))
        total += torch.bincount(kinds[known], minlength=len(NAMES)) + torch.bincount(found[known], minlength=len(NAMES))
        paired = sides >= 0
        right.append(float(((answer[-1] > 0) == (sides > 0))[paired].float().mean()))
    dice = 2 * both / total.clamp(min=1)
    each = {name: round(float(d), 3) for name, d in zip(NAMES, dice, strict=True)}
    return {"mean": round(float(dice[1:21].mean()), 3), "side": round(sum(right) / count, 4), **each}


@torch.no_grad()
def reach_beyond(net: Anatomy, heads: list[Head], count: int, device: str) -> torch.Tensor:
    """Measure how far structures reach beyond their map: `models._anatomy.Key.beyond`."""
    key = Key(PAIRED, NAMES)
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    recipe = Recipe(spacing=(1.5, 1.5), extent=((190, 200), (220, 230), (190, 200)), cropped=0, stripped=0, defaced=0)

    def ask(image: np.ndarray) -> np.ndarray:
        return np.asarray(net(torch.from_numpy(image)[None, None].to(device))[0].float().cpu().numpy())

    for number in range(count):
        head = heads[number % len(heads)]
        sample = make_sample(head, recipe, 700_000_000 + number, (1.5, 1.5, 1.5))
        labels = sample.labels.long().cpu()
        kinds, sides = (part.cpu().numpy() for part in named_in(sample, head))
        scan = Volume(sample.image.cpu().numpy(), Grid.plain(labels.shape, (1.5, 1.5, 1.5)))
        known = anatomy_of(scan, ask, key)
        if known is None:
            continue
        brain = torch.tensor([*head.inside, *[False] * (256 - len(head.inside))])[labels].numpy()
        for meaning, ends in known.ends.items():
            kind, side = meaning
            truth = brain if kind == BRAIN else kinds == kind
            if side:
                truth = truth & (sides == (side + 1) // 2)
            if truth.sum() * scan.grid.voxel_ml < LEAST_ML:
                continue
            there = fit.mask_resampled(truth, scan.grid, known.grid)
            mapped = known.shown(meaning) > 0.5
            if 2 * (there & mapped).sum() < FOUND * (there.sum() + mapped.sum()):
                continue
            spots = np.argwhere(truth)
            low, high = scan.grid.to_patient(np.array([spots.min(axis=0) - 0.5, spots.max(axis=0) + 0.5]))
            found.setdefault((kind, int(side == 0)), []).append(np.concatenate([ends[0] - low, high - ends[1]]).clip(-8, 8))
    table = torch.zeros(len(NAMES) + 1, 2, 2)
    for (kind, both), offs in found.items():
        some = np.stack(offs).ravel()
        # A few cases say little: they are drawn to no offset, and to a spread of 2 mm.
        mean = some.sum() / (some.size + 6)
        spread = np.sqrt((((some - some.mean()) ** 2).sum() + 24 * 4) / (some.size + 24))
        table[kind, both] = torch.tensor([mean, spread])
    return table


def main(argv: list[str] | None = None) -> None:
    """Train, or go on training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--maps", type=Path, default=DATA)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--run", default="anatomy", help="checkpoints go to CACHE/RUN")
    parser.add_argument("--init", type=Path, default=SHIPPED, help="weights of the skull-strip network or of this one")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--batch", type=int, default=2, help="heads per step; 2 on a CPU, 16 and more on a GPU")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--every", type=int, default=200, help="steps between checkpoints")
    parser.add_argument("--export", type=Path, default=None, help="folder for the weights")
    parser.add_argument("--stop", action="store_true", help="train no more: measure and export what there is")
    args = parser.parse_args(argv)
    from safetensors.torch import load_file

    torch.manual_seed(args.seed)
    heads = load_heads(args.maps, args.cache)
    held = [h for h in heads if h.name in HELD_OUT]
    cuda = args.device.startswith("cuda")
    train = [h.to(args.device) if cuda else h for h in heads if h.name not in HELD_OUT]
    nets = [Anatomy().to(args.device).to(memory_format=torch.channels_last_3d) for _ in range(2)]
    start = {k: v.float() for k, v in load_file(args.init).items()}
    nets[0].load_state_dict({k: start.get(k, v) for k, v in nets[0].state_dict().items()})
    nets[1].load_state_dict(nets[0].state_dict())
    run: Learner[Anatomy] = Learner(nets[0], nets[1], args.cache / args.run / "last.pt", args.rate, memory=0.998)
    run.resume()
    if args.stop:
        _finish(run, train, held, args)
        return
    stream = Stream(train, asked, args.seed, run.step, args.batch, SimpleNamespace(value=1.0))
    loader = iter(DataLoader(stream, batch_size=None, **({} if cuda else {"num_workers": 1, "prefetch_factor": 4})))
    half = half_is_quick(args.device)
    losses: list[float] = []
    for gen, progress in run.lessons(args.minutes, args.seed):
        image, kinds, sides = (part.to(args.device) for part in next(loader))
        # A quarter of the voxels of each block is asked for, others at each step: most of the cost is the answer's.
        parts = torch.randperm(8, generator=gen)[:2].to(args.device)
        with torch.autocast(args.device.split(":")[0], torch.bfloat16, enabled=half):
            answer = run.net.some(image, parts)
        asked_of = (fold(x[:, None])[:, parts].long() for x in (kinds, sides))
        losses.append(run.follow(loss_of(answer.float(), *asked_of), progress))
        if run.step % 25 == 0:
            mean = sum(losses[-25:]) / len(losses[-25:])
            print(f"{run.step} {run.spent / 60:.1f} min loss {mean:.3f}", flush=True)
        if run.step % args.every == 0 or progress >= 1:
            run.keep()
            print(f"{run.step} {validate(run.average, held, 6, args.device)}", flush=True)
    _finish(run, train, held, args)


def _finish(run: Learner[Anatomy], train: list[Head], held: list[Head], args: argparse.Namespace) -> None:
    """Write the weights, how far structures reach beyond their map, and the card."""
    if args.export is None:
        return
    figures = validate(run.average, held, 24, args.device)
    print(f"{run.step} {figures}", flush=True)
    facts = {"steps": run.step, "minutes": round(run.spent / 60, 1), "seed": args.seed, "batch": args.batch}
    more = {BEYOND: reach_beyond(run.average, train, 26, args.device)}
    write_weights(run.average, args.export, "anatomy", CARD | facts | {"validation": figures}, more)


CARD = {
    "network": "FoldedUNet's trunk, one logit for each structure and one for the side, at 2 mm",
    "data": "SynthSeg's label maps (Apache-2.0, Billot et al. 2023); images synthesised, no scan was seen",
    "held_out": list(HELD_OUT),
    "begun_from": "the trunk of the skull-strip network",
    "recipe": "training/train_anatomy.py",
    "limits": "Adult-like heads. It leads the first answer to a click; it is no segmentation to measure volumes with.",
    "licence": "BSD-3-Clause",
}

if __name__ == "__main__":
    main()
