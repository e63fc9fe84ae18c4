"""What the network of heads is asked for, how wrong an answer is, and how far structures reach beyond their map."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.engine import fit
from napari_mri.models._anatomy import BRAIN, Ask, Key, anatomy_of
from napari_mri.nets.anatomy import NAMES, PAIRED
from training.synth import Head, Recipe, Sample, make_sample

HELD_OUT = ("16", "17", "19")
"""Heads that nothing is learned from."""
REACH = 6.0
"""Distances are learned up to this many voxels from the surface; beyond, only the side matters."""
UNKNOWN = -100
"""A voxel that nothing is asked about."""
SAME = 20
"""Classes up to here mean the same structure in every label map, and their right twins point to them."""
RIGHT_LESION, LESION = 33, 17
FROM_END = {
    1: 22, 3: 23, 6: 24, 7: 25, 8: 26, 10: 27, 11: 28, 12: 29, 15: 30, 16: 31, 17: 32, 18: 21, 19: 21, 20: 21, 21: 21,
}  # fmt: skip
"""Later classes are counted from the end: what stands outside the brain, and the choroid plexus."""
RIGHT_PLEXUS = (18, 19)
LEAST_ML, FOUND = 0.5, 0.3
"""What is smaller, or overlaps its map less (Dice), tells nothing about how far structures reach beyond it."""


def tables(head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what each class of a head is, and whether it is the right one of a pair (0, 1 or `UNKNOWN`); (256,) each."""
    kinds, sides = torch.full((256,), UNKNOWN), torch.full((256,), UNKNOWN)
    last = len(head.base)
    for number, root in enumerate(head.base):
        if root <= SAME:
            kinds[number] = root
        elif number == RIGHT_LESION:
            kinds[number] = LESION
        else:
            kinds[number] = FROM_END.get(last - root, UNKNOWN)
        if int(kinds[number]) in PAIRED:
            sides[number] = int(last - root in RIGHT_PLEXUS if root > SAME and number != RIGHT_LESION else number > SAME)
    return kinds, sides


def named_in(sample: Sample, head: Head) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the kind and the side of each voxel of a sample, (I, J, K) long; a mirrored head's sides are swapped."""
    kinds, sides = (table[sample.labels.long()] for table in tables(head))
    if torch.linalg.det(sample.pose.matrix) < 0:
        sides = torch.where(sides == UNKNOWN, sides, 1 - sides)
    return kinds, sides


def loss_of_names(answer: torch.Tensor, kinds: torch.Tensor, sides: torch.Tensor) -> torch.Tensor:
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


def loss_of_surfaces(answer: torch.Tensor, target: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
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
def reach_beyond(ask: Ask, heads: list[Head], count: int) -> torch.Tensor:
    """Measure how far structures reach beyond their map, on painted heads: `models._anatomy.Key.beyond`.

    Parameters
    ----------
    ask : callable
        Names structures: image (I, J, K) to logits (N + 1, I, J, K).
    heads : list of Head
    count : int
        How many are painted.
    """
    key = Key(PAIRED, NAMES)
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    recipe = Recipe(spacing=(1.5, 1.5), extent=((190, 200), (220, 230), (190, 200)), cropped=0, stripped=0, defaced=0)

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
