"""From labels to an image: random looks for every class, or the MR signal equations."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from training.synth.geometry import chance, smooth_noise, uniform
from training.synth.heads import Head

# Proton density (water = 1), T1 and T2 in ms near 1.5-3 T; textbook values, varied widely when drawn.
PHYSICS = {
    "air": (0.0, 1000.0, 10.0),
    "wm": (0.70, 880.0, 75.0),
    "wm_gm": (0.75, 1100.0, 82.0),
    "gm": (0.81, 1400.0, 95.0),
    "csf": (1.0, 4000.0, 1500.0),
    "vitreous": (1.0, 3800.0, 1200.0),
    "blood": (0.85, 1600.0, 110.0),
    "soft": (0.80, 1200.0, 42.0),
    "skin": (0.75, 800.0, 50.0),
    "fat": (0.90, 320.0, 75.0),
    "marrow": (0.70, 400.0, 65.0),
    "bone": (0.12, 700.0, 6.0),
}
OUTER = ("soft", "skin", "bone", "marrow", "blood", "vitreous", "fat")


@dataclass(frozen=True)
class Look:
    """How each class appears: tensors of length C on the image's intensity scale (about 0 to 1).

    `mean` is the plain value, `other` a second one that patches of the class take on (fat between muscle),
    `grain` the standard deviation within the class.
    """

    mean: torch.Tensor
    other: torch.Tensor
    grain: torch.Tensor


def _signal(name: str, tissue: tuple[float, float, float], setting: dict[str, float]) -> float:
    """Signal magnitude of one tissue under one sequence (times in ms)."""
    pd, t1, t2 = tissue
    tr, te = setting["tr"], setting["te"]
    e1 = math.exp(-tr / t1)
    if name in ("gre", "t2star"):
        a = math.radians(setting["flip"])
        t2s = t2 / (1 + t2 * setting["r2_extra"])
        return pd * math.sin(a) * (1 - e1) / (1 - math.cos(a) * e1) * math.exp(-te / t2s)
    if name == "mprage":
        return abs(pd * (1 - 1.92 * math.exp(-setting["ti"] / t1) + e1)) * math.exp(-te / t2)
    if name == "flair":
        return abs(pd * (1 - 2 * math.exp(-setting["ti"] / t1) + e1)) * math.exp(-te / t2)
    return pd * (1 - e1) * math.exp(-te / t2)


def sample_sequence(gen: torch.Generator) -> tuple[str, dict[str, float]]:
    """Draw a pulse sequence and its times (ms), within and somewhat beyond clinical use."""
    names = ("mprage", "gre", "t2", "pd", "flair", "t2star", "t1", "dwi")
    name = names[int(torch.randint(len(names), (), generator=gen))]
    ranges = {
        "mprage": {"tr": (1400, 2600), "te": (2, 5), "ti": (600, 1100)},
        "gre": {"tr": (6, 40), "te": (2, 8), "flip": (5, 40)},
        "t1": {"tr": (300, 900), "te": (8, 20)},
        "t2": {"tr": (2500, 8000), "te": (70, 140)},
        "pd": {"tr": (2000, 5000), "te": (8, 35)},
        "flair": {"tr": (6000, 11000), "te": (80, 140), "ti": (1900, 2700)},
        "t2star": {"tr": (30, 900), "te": (15, 50), "flip": (10, 60)},
        "dwi": {"tr": (3000, 9000), "te": (60, 110)},
    }[name]
    setting = {key: uniform(gen, *span) for key, span in ranges.items()}
    setting["r2_extra"] = uniform(gen, 0.0, 0.03)
    return name, setting


def look_by_physics(head: Head, gen: torch.Generator) -> Look:
    """Every class by the signal equations, with tissue constants varied class by class."""
    name, setting = sample_sequence(gen)
    fat_left = uniform(gen, 0.05, 0.35) if chance(gen, 0.4) or name == "dwi" else 1.0
    flow_void = chance(gen, 0.5)

    def value(tissue: str) -> float:
        pd, t1, t2 = (v * math.exp(0.1 * float(torch.randn((), generator=gen))) for v in PHYSICS[tissue])
        signal = _signal(name, (pd, t1, t2), setting)
        if tissue in ("fat", "marrow"):
            signal *= fat_left
        if tissue == "blood" and flow_void:
            signal *= uniform(gen, 0.0, 0.4)
        if name == "dwi" and tissue in ("csf", "vitreous"):
            signal *= uniform(gen, 0.02, 0.3)
        return signal

    plain = {tissue: value(tissue) for tissue in PHYSICS}
    mean, other = [], []
    for index, tissue in enumerate(head.tissue):
        own = plain[tissue] if chance(gen, 0.6) else value(tissue)
        twin = head.base[index]
        if twin < index and head.inside[index] and chance(gen, 0.9):
            own = mean[twin]
        deep = twin < index and not head.inside[index]
        if tissue == "soft" and not deep:
            own = plain["fat"] if chance(gen, 0.7) else own
        mean.append(own)
        other.append(plain["fat"] if tissue in ("soft", "skin", "marrow") else own * uniform(gen, 0.8, 1.2))
    means, others = torch.tensor(mean), torch.tensor(other)
    top = float(torch.quantile(means, 0.9)) + 1e-6
    grain = (means / top) * uniform(gen, 0.01, 0.08)
    return Look(means / top, others / top, grain)


def look_by_chance(head: Head, gen: torch.Generator) -> Look:
    """Every class by a draw, with classes outside the brain lumped into a few groups at random.

    A network that sees only free draws learns that neighbours differ; in real scans bone and air, or
    muscle and grey matter, may not differ at all. So groups are drawn first, and looks per group.
    """
    count = len(head.tissue)
    mean = torch.rand(count, generator=gen) * 0.9 + 0.05
    inside = torch.tensor(head.inside)
    keep_twin = chance(gen, 0.8)
    by_tissue = chance(gen, 0.5)
    kinds = sorted(set(head.tissue))
    of_kind = torch.rand(len(kinds), generator=gen) * 0.9 + 0.05
    for index in range(count):
        if inside[index] and by_tissue:
            spread = 0.04 * float(torch.randn((), generator=gen))
            mean[index] = (of_kind[kinds.index(head.tissue[index])] + spread).clamp(0.01, 1)
        twin = head.base[index]
        if twin < index and (keep_twin if inside[index] else chance(gen, 0.4)):
            mean[index] = mean[twin]
    groups = int(torch.randint(3, 12, (), generator=gen))
    of_group = torch.rand(groups, generator=gen) * 0.95 + 0.02
    if chance(gen, 0.5):
        of_group[0] = uniform(gen, 0.0, 0.08)
    drawn = torch.randint(groups, (count,), generator=gen)
    if chance(gen, 0.7):
        outer = ~inside
        mean[outer] = of_group[drawn[outer]] + 0.02 * torch.randn(int(outer.sum()), generator=gen)
    if chance(gen, 0.35):  # dark bone, as in nearly every sequence
        for index, tissue in enumerate(head.tissue):
            if tissue == "bone":
                mean[index] = uniform(gen, 0.0, 0.12)
    mean[0] = 0.0 if chance(gen, 0.75) else uniform(gen, 0.0, 0.5)
    other = torch.rand(count, generator=gen) if chance(gen, 0.7) else mean.clone()
    other = torch.where(inside, mean, other)
    other[0] = mean[0]
    grain = torch.rand(count, generator=gen) * uniform(gen, 0.0, 0.12)
    grain[0] *= 0.1
    return Look(mean.clamp(0, 1.2), other, grain)


def paint(layers: list[torch.Tensor], head: Head, gen: torch.Generator, physics: float = 0.5) -> torch.Tensor:
    """Paint labels.

    Parameters
    ----------
    layers : list of torch.Tensor
        Label arrays (I, J, K) uint8 of the same place read at different sub-voxel points; their images are
        averaged, which is partial volume.
    head : Head
        Whose classes they are.
    gen : torch.Generator
    physics : float
        Share of heads painted by the signal equations.

    Returns
    -------
    torch.Tensor
        (I, J, K) float32, about 0 to 1, not negative.
    """
    device = layers[0].device
    look = look_by_physics(head, gen) if chance(gen, physics) else look_by_chance(head, gen)
    mean = look.mean.to(device)
    first = layers[0].int().reshape(-1)
    image = mean.index_select(0, first)
    for layer in layers[1:]:
        image = image + mean.index_select(0, layer.int().reshape(-1))
    image = (image / len(layers)).reshape(layers[0].shape)

    # Patches: sharp or soft islands of the class's second value.
    nodes = tuple(max(3, int(n / uniform(gen, 2.5, 12))) for n in image.shape)
    islands = smooth_noise((1, *image.shape), (nodes[0], nodes[1], nodes[2]), gen, device)[0]
    islands = torch.sigmoid((islands - uniform(gen, -0.4, 0.8)) * uniform(gen, 3, 25))
    gap = (look.other - look.mean).to(device).index_select(0, first).reshape(image.shape)
    image += gap * islands

    grain = look.grain.to(device).index_select(0, first).reshape(image.shape)
    nodes = tuple(max(3, int(n / uniform(gen, 2, 5))) for n in image.shape)
    coarse = smooth_noise((1, *image.shape), (nodes[0], nodes[1], nodes[2]), gen, device)[0]
    fine = torch.randn(image.shape, generator=gen).to(device)
    image += grain * (coarse * 1.3 + fine * uniform(gen, 0, 0.7))
    return image.clamp_(min=0)


def add_lesions(image: torch.Tensor, inside: torch.Tensor, gen: torch.Generator) -> torch.Tensor:
    """Change the look of a few soft blobs.

    Parameters
    ----------
    image : torch.Tensor
        (I, J, K).
    inside : torch.Tensor
        (I, J, K) bool or 0..1: where lesions may lie.
    gen : torch.Generator

    Returns
    -------
    torch.Tensor
        (I, J, K).
    """
    nodes = tuple(max(3, int(n / uniform(gen, 4, 18))) for n in image.shape)
    blobs = smooth_noise((1, *image.shape), (nodes[0], nodes[1], nodes[2]), gen, image.device)[0]
    soft = torch.sigmoid((blobs - uniform(gen, 0.9, 1.8)) * uniform(gen, 4, 20)) * inside
    level = uniform(gen, 0, 1.3) * float(image.max())
    return image + soft * uniform(gen, 0.4, 1.0) * (level - image)
