"""Things to click on: synthetic crops at many zooms, objects in them, and a user who points and corrects."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from napari_mri.nets.click3d import Pointed, standard
from training.synth import Head, Pose, degrade, paint, place, sample_pose
from training.synth.geometry import chance, smooth_noise, uniform

SHAPE_CLASS = 200
"""Class numbers from here on are shapes laid over the head: lesions, blobs, tubes."""
OVERVIEW = 48
"""Voxels along the longest side of a session's first look at a whole scan."""
SMALLEST = 24
"""Fewest voxels of an object worth clicking on."""


@dataclass(frozen=True)
class Scene:
    """A crop with everything in it that can be clicked on.

    Attributes
    ----------
    image : (I, J, K) float32
        As `standard` gives it.
    labels : (I, J, K) uint8
    spacing : float
        mm.
    base, inside : tuple
        Of the head (see `Head`).
    whole : bool
        Whether the crop shows the whole field of view.
    """

    image: torch.Tensor
    labels: torch.Tensor
    spacing: float
    base: tuple[int, ...]
    inside: tuple[bool, ...]
    whole: bool


def extents(head: Head) -> dict[int, tuple[torch.Tensor, float]]:
    """Return per class up to 4000 of its voxels (N, 3) and the longest side of its box, mm."""
    found: dict[int, tuple[torch.Tensor, float]] = {}
    thinned = head.labels[::2, ::2, ::2]
    flat = thinned.reshape(-1)
    order = torch.argsort(flat, stable=True)
    counts = torch.bincount(flat, minlength=len(head.tissue))
    start = 0
    for number, count in enumerate(counts.tolist()):
        part = order[start : start + count]
        start += count
        if number == 0 or count < 8:
            continue
        thin = part[:: max(1, count // 4000)]
        at = torch.stack(torch.unravel_index(thin, thinned.shape), 1).float() * 2
        low, high = torch.quantile(at, 0.01, dim=0), torch.quantile(at, 0.99, dim=0)
        found[number] = (at, float((high - low).max()) + 4)
    return found


def make_scene(head: Head, known: dict[int, tuple[torch.Tensor, float]], side: int, seed: int) -> Scene:
    """Paint one crop of `side` voxels: the whole head, or the surroundings of one structure."""
    gen = torch.Generator().manual_seed(seed)
    whole = chance(gen, 0.3)
    numbers = [n for n in known if head.inside[n] or chance(gen, 0.4)]
    number = numbers[int(torch.randint(len(numbers), (), generator=gen))]
    places, extent = known[number]
    if whole:
        mm = uniform(gen, 190, 270) / min(side, OVERVIEW)
    else:
        mm = min(max(extent * math.exp(uniform(gen, math.log(0.7), math.log(2.6))) / side, 0.8), 4.5)
    shape = (side,) * 3
    pose = sample_pose(head, shape, (mm, mm, mm), gen)
    if not whole:
        # Somewhere about the structure: its middle for half of the crops, any of its voxels for the others.
        at = places.mean(0) if chance(gen, 0.5) else places[int(torch.randint(len(places), (), generator=gen))]
        middle = at + 0.12 * side * mm * torch.randn(3, generator=gen)
        pose = Pose(pose.shape, pose.spacing, pose.matrix, middle, pose.warp, pose.neck)
    layers, _, _ = place(head, pose, gen, 3)
    image = paint(layers, head, gen)
    labels = layers[0]
    if chance(gen, 0.35):
        image, labels = _with_shapes(image, labels, gen)
    size = None
    if not whole:  # thick slices far coarser than the object leave nothing to see
        fine = mm * uniform(gen, 0.6, 1.6)
        size = (fine, fine, fine * (uniform(gen, 1.5, 3.5) if chance(gen, 0.35) else 1.0))
        size = tuple(size[n] for n in torch.randperm(3, generator=gen).tolist())  # type: ignore[assignment]
    image = degrade(image, (mm, mm, mm), gen, uniform(gen, 0.2, 1.0), size)
    return Scene(standard(image).half(), labels, mm, head.base, head.inside, whole)


def _with_shapes(image: torch.Tensor, labels: torch.Tensor, gen: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay up to three soft shapes of their own brightness over the crop."""
    side = image.shape[0]
    axes = torch.stack(torch.meshgrid(*[torch.arange(side, dtype=torch.float32)] * 3, indexing="ij"))
    labels = labels.clone()
    for number in range(int(torch.randint(1, 4, (), generator=gen))):
        radius = side * math.exp(uniform(gen, math.log(0.05), math.log(0.3)))
        at = torch.rand(3, generator=gen) * side * 0.7 + side * 0.15
        rough = smooth_noise((1, side, side, side), (int(uniform(gen, 3, 9)),) * 3, gen)[0]
        if chance(gen, 0.25):  # a tube
            way = F.normalize(torch.randn(3, generator=gen), dim=0)
            offset = axes - at.reshape(3, 1, 1, 1)
            along = (offset * way.reshape(3, 1, 1, 1)).sum(0)
            bend = smooth_noise((3, side, side, side), (4, 4, 4), gen) * side * 0.06
            across = ((offset - along * way.reshape(3, 1, 1, 1) + bend) ** 2).sum(0).sqrt()
            inner = across - 0.35 * radius
        else:
            squash = torch.exp(0.4 * torch.randn(3, generator=gen)).reshape(3, 1, 1, 1)
            inner = (((axes - at.reshape(3, 1, 1, 1)) * squash) ** 2).sum(0).sqrt() - radius
        inner = inner + rough * radius * uniform(gen, 0, 0.5)
        soft = torch.sigmoid(-inner / uniform(gen, 0.3, 1.0))
        level = uniform(gen, 0, 1.2) * float(image.max())
        image = image + soft * uniform(gen, 0.5, 1) * (level - image)
        labels[inner < 0] = SHAPE_CLASS + number
    return image, labels


def _members(scene: Scene, number: int) -> list[int]:
    """Classes that look like one structure by the map's making: the shells of one tissue."""
    if number >= SHAPE_CLASS:
        return [number]
    if scene.inside[number]:
        return [number]
    root = scene.base[number]
    return [n for n, b in enumerate(scene.base) if b == root and n > 0]


def choose_object(scene: Scene, gen: torch.Generator) -> torch.Tensor | None:
    """Return the mask (I, J, K) bool of something in the scene, or None if nothing is large enough."""
    labels = scene.labels
    counts = torch.bincount(labels.reshape(-1), minlength=256)
    n = labels.shape[0]
    a, b = int(n * 0.35), int(n * 0.65)
    near = torch.bincount(labels[a:b, a:b, a:b].reshape(-1), minlength=256)
    table = near if not scene.whole and chance(gen, 0.7) else counts
    there = [v for v in range(1, 256) if table[v] >= SMALLEST]
    if not there:
        return None
    inside = torch.tensor([*scene.inside, *[False] * (256 - len(scene.inside))])
    # Brain structures and laid-over shapes are what people click on; skin and bone less often.
    weight = torch.tensor([1.0 if v >= SHAPE_CLASS or inside[v] else 0.3 for v in there])
    number = there[int(torch.multinomial(weight, 1, generator=gen))]
    kind = float(torch.rand((), generator=gen))
    chosen = _members(scene, number)
    if kind > 0.93 and any(scene.inside[v] for v in there if v < SHAPE_CLASS):
        chosen = [v for v, brain in enumerate(scene.inside) if brain]
    elif kind > 0.85 and number < SHAPE_CLASS:
        chosen = [v for v, root in enumerate(scene.base) if v > 0 and root == scene.base[number]]
    elif kind > 0.80:
        chosen = [*chosen, there[int(torch.randint(len(there), (), generator=gen))]]
    table = torch.zeros(256, dtype=torch.bool)
    table[chosen] = True
    mask = table[labels.long()]
    return mask if int(mask.sum()) >= SMALLEST else None


def deepest(mask: np.ndarray, gen: torch.Generator | None = None) -> tuple[np.ndarray, float]:
    """Return the voxel (3,) deepest inside a mask and its depth; with `gen` any voxel, deep ones more often."""
    import edt

    part, low = mask, np.zeros(3, dtype=int)
    if mask.any():  # only the box that holds the mask, and what bounds it, can matter
        along = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
        low = np.array([max(0, at[0] - 1) for at in along])
        part = mask[tuple(slice(a, at[-1] + 2) for a, at in zip(low, along, strict=True))]
    depth = edt.edt(np.ascontiguousarray(part), black_border=False, parallel=1)
    top = float(depth.max())
    if gen is None or top <= 0:
        return np.asarray(np.unravel_index(int(depth.argmax()), part.shape)) + low, top
    flat = torch.from_numpy(depth.reshape(-1))
    good = torch.nonzero(flat >= min(top, 1.0 + 0.3 * top)).reshape(-1)
    pick = int(good[int(torch.randint(len(good), (), generator=gen))])
    return np.asarray(np.unravel_index(pick, part.shape)) + low, top


def _part(mask: torch.Tensor, side: int, gen: torch.Generator) -> tuple[slice, ...]:
    """Choose a part of a scene with a voxel of the object not too far from its middle."""
    spots = torch.nonzero(mask)
    spot = spots[int(torch.randint(len(spots), (), generator=gen))]
    middle = 0.5 * spot + 0.5 * spots.float().mean(0) if chance(gen, 0.7) else spot
    corner = middle - side / 2 + 0.15 * side * torch.randn(3, generator=gen)
    # The spot itself stays inside, a little away from the border.
    corner = corner.round().long().minimum(spot - 3).maximum(spot + 4 - side)
    corner = corner.clamp(min=0).minimum(torch.tensor(mask.shape) - side)
    i, j, k = (slice(int(c), int(c) + side) for c in corner)
    return i, j, k


class Episode:
    """One object being clicked on, round after round.

    Parameters
    ----------
    scene : Scene
    mask : (I, J, K) bool tensor
    gen : torch.Generator
    side : int
        Part of the scene that is shown, voxels; the object lies in it, or some of it does.
    """

    def __init__(self, scene: Scene, mask: torch.Tensor, gen: torch.Generator, side: int) -> None:
        self.spacing, self.gen = scene.spacing, gen
        part = _part(mask, side, gen)
        self.image = standard(scene.image[part].float())
        self.mask = mask[part]
        self._turn()
        self.truth = self.mask.numpy()
        self.marks: dict[bool, list[np.ndarray]] = {True: [], False: []}
        self.box = self._box() if chance(gen, 0.25) else None
        self.before: torch.Tensor | None = None
        if self.box is not None and chance(gen, 0.7):
            self.before = self._rounded(self.box)
        elif not scene.whole and chance(gen, 0.6):
            self.before = self._coarse_guess()
        self.left = int(min(8, 1 + torch.empty(()).exponential_(0.45, generator=gen)))
        if self.box is None or chance(gen, 0.4):
            self._click(self.truth, True)

    def _turn(self) -> None:
        """Turn and mirror the crop, and change its contrast: one scene serves many times."""
        order = torch.randperm(3, generator=self.gen).tolist()
        flips = [axis for axis in range(3) if chance(self.gen, 0.5)]
        # The left half keeps being a mirrored right one, but up stays up in half of the cases.
        if chance(self.gen, 0.6):
            order, flips = [0, 1, 2], [0] if chance(self.gen, 0.5) else []
        self.image = self.image.permute(order).flip(flips).contiguous()
        self.mask = self.mask.permute(order).flip(flips).contiguous()
        if chance(self.gen, 0.15):
            self.image = -self.image
        if chance(self.gen, 0.3):
            self.image = self.image + uniform(self.gen, 0.02, 0.25) * torch.randn(self.image.shape, generator=self.gen)

    def _box(self) -> torch.Tensor:
        at = torch.nonzero(self.mask).float()
        low, high = at.min(0).values, at.max(0).values
        room = (high - low + 1) * 0.08
        return torch.stack(
            [low - torch.randn(3, generator=self.gen) * room, high + torch.randn(3, generator=self.gen) * room]
        )

    def _rounded(self, box: torch.Tensor) -> torch.Tensor:
        """Return the soft ellipsoid (I, J, K) that fills a box: what a session begins with when it is given one."""
        middle, half = box.mean(0), ((box[1] - box[0]) / 2).clamp(min=0.5)
        parts = [((torch.arange(n) - m) / h) ** 2 for n, m, h in zip(self.mask.shape, middle, half, strict=True)]
        radius = (parts[0][:, None, None] + parts[1][:, None] + parts[2]).sqrt()
        return torch.sigmoid(-8 * (radius - 0.95))

    def _coarse_guess(self) -> torch.Tensor:
        """Return what an earlier, coarser answer may have looked like: the truth blurred, bent and cut at a wrong level."""
        n = self.mask.shape[0]
        nodes = max(4, int(n / uniform(self.gen, 1.5, 5)))
        small = F.adaptive_avg_pool3d(self.mask.float()[None, None], nodes)
        noise = uniform(self.gen, 0, 0.25) * torch.randn(small.shape, generator=self.gen)
        slow = F.interpolate(torch.randn((1, 1, 3, 3, 3), generator=self.gen), size=small.shape[2:], mode="trilinear")
        small = small + noise * (small > 0.02) + 0.25 * slow * (small > 0.02)
        guess = F.interpolate(small, size=self.mask.shape, mode="trilinear")[0, 0]
        steep = uniform(self.gen, 3, 12)
        return torch.sigmoid((guess - uniform(self.gen, 0.25, 0.6)) * steep)

    def _click(self, where: np.ndarray, positive: bool) -> None:
        at, depth = deepest(where, self.gen if chance(self.gen, 0.5) else None)
        if depth <= 0:
            return
        self.marks[positive].append(at)
        if chance(self.gen, 0.12):  # a scribble: the voxels of a short line that lie in the same region
            way = torch.randn(3, generator=self.gen).numpy()
            way /= np.linalg.norm(way)
            for step in np.arange(-8, 9) * max(1.0, depth / 4):
                spot = np.rint(at + way * step).astype(int)
                if (spot >= 0).all() and (spot < where.shape).all() and where[tuple(spot)]:
                    self.marks[positive].append(spot)

    def told(self) -> Pointed:
        """Return what the network is told this round."""
        points = [torch.tensor(np.array(self.marks[s]).reshape(-1, 3), dtype=torch.float32) for s in (True, False)]
        return Pointed(points[0], points[1], self.box, self.before)

    def corrected(self, probability: torch.Tensor) -> bool:
        """Take the network's answer (I, J, K) and point at its largest error. False when the episode is over."""
        self.left -= 1
        if self.left <= 0:
            return False
        found = probability.numpy() > 0.5
        missing, extra = self.truth & ~found, found & ~self.truth
        deep_missing = deepest(missing)[1] if missing.any() else 0.0
        deep_extra = deepest(extra)[1] if extra.any() else 0.0
        if max(deep_missing, deep_extra) <= 0:
            return False
        positive = deep_missing >= deep_extra
        self._click(missing if positive else extra, positive)
        if not self.marks[True] and self.box is None:
            self._click(self.truth, True)
        self.before = probability
        return True
