"""One training pair from one head: which step happens how often, in which order."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from training.synth.degrade import crop_field, degrade, normalise
from training.synth.geometry import WARP, Pose, Warp, chance, commonest, place, sample_pose, smooth_noise, uniform
from training.synth.heads import Head
from training.synth.paint import add_lesions, paint


@dataclass(frozen=True)
class Recipe:
    """Ranges and probabilities of a training set.

    Attributes
    ----------
    spacing : tuple of float
        Lowest and highest isotropic voxel size drawn, mm.
    extent : tuple of tuple
        Per RAS axis the smallest and the largest field of view drawn, mm.
    multiple : int
        Grid sizes are multiples of this.
    parts : int
        Points of each voxel that partial volume comes from: 1, 3, 5 or 9.
    strength : float
        Of deformation, bias, noise; 1 exceeds the real.
    warp : tuple of tuple
        As of `sample_pose`.
    physics, lesions, stripped, defaced, cavities, cropped, dropout : float
        Probabilities.
    """

    spacing: tuple[float, float] = (2.0, 2.0)
    extent: tuple[tuple[float, float], ...] = ((150, 224), (170, 256), (140, 256))
    multiple: int = 16
    parts: int = 5
    strength: float = 1.0
    warp: Warp = WARP
    physics: float = 0.5
    lesions: float = 0.25
    stripped: float = 0.08
    defaced: float = 0.12
    cavities: float = 0.25
    cropped: float = 0.3
    dropout: float = 0.1


@dataclass(frozen=True)
class Sample:
    """A training pair.

    Attributes
    ----------
    image : torch.Tensor
        (I, J, K) float32, normalised 0..1.5.
    clean : torch.Tensor
        (I, J, K) float32, the painted image before the scanner.
    distance : torch.Tensor
        (2, I, J, K) float32 mm, negative inside: brain with CSF, brain alone.
    labels : torch.Tensor
        (I, J, K) uint8 classes of the head, that which fills most of each voxel.
    seen : torch.Tensor
        (I, J, K) bool, false where the field of view was cut off.
    pose : Pose
    """

    image: torch.Tensor
    clean: torch.Tensor
    distance: torch.Tensor
    labels: torch.Tensor
    seen: torch.Tensor
    pose: Pose


def draw_grid(recipe: Recipe, gen: torch.Generator) -> tuple[tuple[int, int, int], float]:
    """Draw a grid: its shape, and its voxel size in mm."""
    mm = uniform(gen, *recipe.spacing)
    shape = []
    for low, high in recipe.extent:
        voxels = uniform(gen, low, high) / mm
        shape.append(max(2, round(voxels / recipe.multiple)) * recipe.multiple)
    return (shape[0], shape[1], shape[2]), mm


def _deface(image: torch.Tensor, where: torch.Tensor, head: Head, near: torch.Tensor, gen: torch.Generator) -> None:
    """Blank the face in place: all in front of a tilted plane, but for a margin around the brain."""
    _, y, z = where
    ahead = y - (head.centre[1] + uniform(gen, 35, 75))
    below = head.centre[2] + uniform(gen, -45, 0) - z
    gone = (ahead + uniform(gen, 0.2, 1.5) * below > 0) & (near > uniform(gen, 3, 15))
    image[gone] = 0.0 if chance(gen, 0.7) else float(image.max()) * uniform(gen, 0, 0.4)


def _strip(image: torch.Tensor, distance: torch.Tensor, gen: torch.Generator) -> torch.Tensor:
    """Blank all but the brain in place; the target is then the brain that is left."""
    which = int(torch.randint(2, (), generator=gen))
    margin = uniform(gen, 0.0, 4.0) if chance(gen, 0.5) else 0.0
    image[distance[which] > margin] = 0.0
    if which == 1 and margin == 0.0:
        distance = torch.stack([distance[1], distance[1]])
    return distance


def make_sample(
    head: Head,
    recipe: Recipe,
    seed: int,
    size: tuple[float, float, float] | None = None,
    grid: tuple[tuple[int, int, int], float] | None = None,
) -> Sample:
    """Synthesise one pair; the same seed gives the same pair.

    Parameters
    ----------
    head : Head
    recipe : Recipe
    seed : int
    size : tuple of float, optional
        Voxel size in mm of the simulated scan; drawn if None.
    grid : tuple, optional
        Shape and voxel size of the output, as `draw_grid` gives it; drawn if None.

    Returns
    -------
    Sample
        On the head's device.
    """
    return make_samples(head, recipe, seed, 1, size, grid)[0]


def make_samples(
    head: Head,
    recipe: Recipe,
    seed: int,
    looks: int,
    size: tuple[float, float, float] | None = None,
    grid: tuple[tuple[int, int, int], float] | None = None,
) -> list[Sample]:
    """Synthesise several pairs of one pose, which takes most of the time, painted and measured anew in each.

    Parameters
    ----------
    head, recipe, seed, size, grid
        As of `make_sample`, whose pair is the first.
    looks : int
    """
    gen = torch.Generator().manual_seed(seed)
    shape, mm = draw_grid(recipe, gen) if grid is None else grid
    pose = sample_pose(head, shape, (mm, mm, mm), gen, recipe.strength, recipe.warp)
    layers, distance, where = place(head, pose, gen, recipe.parts)
    posed = _Posed(head, pose, layers, commonest(layers), distance, where)
    return [_looked_at(posed, recipe, gen, size) for _ in range(looks)]


@dataclass(frozen=True)
class _Posed:
    """A head in its pose, as `place` gives it, and which class fills most of each voxel."""

    head: Head
    pose: Pose
    layers: list[torch.Tensor]
    labels: torch.Tensor
    distance: torch.Tensor
    where: torch.Tensor


def _looked_at(
    posed: _Posed, recipe: Recipe, gen: torch.Generator, size: tuple[float, float, float] | None
) -> Sample:
    """Paint a head and put it through a scanner."""
    head, pose, distance = posed.head, posed.pose, posed.distance
    shape, mm = pose.shape, pose.spacing[0]
    image = paint(posed.layers, head, gen, recipe.physics)
    device = image.device
    if chance(gen, recipe.lesions):
        image = add_lesions(image, (distance[1] < -1).to(image), gen)
    if chance(gen, recipe.cavities):
        nodes = tuple(max(3, int(n * mm / uniform(gen, 12, 40))) for n in shape)
        holes = smooth_noise((1, *shape), (nodes[0], nodes[1], nodes[2]), gen, device)[0]
        image = image * (1 - ((holes > uniform(gen, 0.8, 1.6)) & (distance[0] > uniform(gen, 2, 8))).to(image))
    if chance(gen, recipe.dropout):
        nodes = tuple(max(3, int(n * mm / 45)) for n in shape)
        loss = smooth_noise((1, *shape), (nodes[0], nodes[1], nodes[2]), gen, device)[0]
        image = image * (1 - uniform(gen, 0.3, 1) * torch.sigmoid((loss - 1.2) * 6))
    if chance(gen, recipe.defaced):
        _deface(image, posed.where, head, distance[0], gen)
    if chance(gen, recipe.stripped):
        distance = _strip(image, distance, gen)
    clean = image
    image = degrade(image, pose.spacing, gen, recipe.strength, size)
    seen = torch.ones(shape, dtype=torch.bool)
    if chance(gen, recipe.cropped):
        seen = crop_field(shape, pose.spacing, gen).to(device)
    return Sample(normalise(image * seen), clean, distance, posed.labels, seen, pose)
