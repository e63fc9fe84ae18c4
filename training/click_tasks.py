"""Things to click on: synthetic crops at many zooms, objects in them, and a user who points and corrects."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from napari_mri.core.grid import Grid
from napari_mri.core.prompts import Box
from napari_mri.models import _marks as marks
from napari_mri.models._click3d_rounds import Answer, Rounds
from napari_mri.models._click3d_zoom import Pyramid, carried
from napari_mri.models.click3d import told_on
from napari_mri.nets.click3d import encode, standard
from training.synth import Head, Pose, degrade, paint, place, sample_pose
from training.synth.geometry import chance, commonest, smooth_noise, uniform

SHAPE_CLASS = 200
"""Class numbers from here on are shapes laid over the head: lesions, blobs, tubes."""
OUTLINES = 37
"""Classes up to here mean the same structure in every label map; later ones are counted from the end."""
KINDS = 64
"""Room for what a voxel can be, when the network is asked for the anatomy; left and right count as one."""
UNKNOWN = -100
"""A voxel that nothing is asked about."""
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
    """Paint a whole head at `side` voxels, or the surroundings of one structure at two thirds of them."""
    gen = torch.Generator().manual_seed(seed)
    whole = chance(gen, 0.6)
    numbers = [n for n in known if head.inside[n] or chance(gen, 0.4)]
    number = numbers[int(torch.randint(len(numbers), (), generator=gen))]
    places, extent = known[number]
    if whole:
        mm = uniform(gen, 185, 260) / side
    else:
        side = side * 2 // 3
        mm = min(max(extent * math.exp(uniform(gen, math.log(1.0), math.log(3.5))) / side, 0.8), 3.5)
    shape = (side,) * 3
    pose = sample_pose(head, shape, (mm, mm, mm), gen)
    if not whole:
        # Somewhere about the structure: its middle for half of the crops, any of its voxels for the others.
        at = places.mean(0) if chance(gen, 0.5) else places[int(torch.randint(len(places), (), generator=gen))]
        middle = at + 0.12 * side * mm * torch.randn(3, generator=gen)
        pose = Pose(pose.shape, pose.spacing, pose.matrix, middle, pose.warp, pose.neck)
    layers, _, _ = place(head, pose, gen, 3)
    image = paint(layers, head, gen)
    labels = commonest(layers)
    if chance(gen, 0.35):
        image, labels = _with_shapes(image, labels, gen)
    size = None
    if not (whole and chance(gen, 0.3)):  # thick slices far coarser than the object leave nothing to see
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
    if kind > 0.82 and any(scene.inside[v] for v in there if v < SHAPE_CLASS):
        chosen = [v for v, brain in enumerate(scene.inside) if brain]
    elif kind > 0.70 and number < SHAPE_CLASS:
        chosen = [v for v, root in enumerate(scene.base) if v > 0 and root == scene.base[number]]
    elif kind > 0.66:
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


def kinds(scene: Scene) -> torch.Tensor:
    """Return what each class of a scene is, (256,) long below `KINDS`, the same number in every head."""
    last = len(scene.base)
    table = torch.full((256,), UNKNOWN)
    for number, root in enumerate(scene.base):
        table[number] = root if root < OUTLINES else KINDS - (last - root)
    return table


class Episode:
    """One object being clicked on, round after round, by the rules of the product's own session.

    Parameters
    ----------
    scene : Scene
    mask : (I, J, K) bool tensor
    gen : torch.Generator
    side : int
        Side of every look, voxels.
    """

    def __init__(self, scene: Scene, mask: torch.Tensor, gen: torch.Generator, side: int) -> None:
        self.gen = gen
        image, labels, mask = self._turned(scene.image.float(), kinds(scene)[scene.labels.long()], mask)
        self.truth = mask.numpy()
        self.kind = labels.numpy()
        self.grid = Grid.plain(self.truth.shape, (scene.spacing,) * 3)
        self.image = Pyramid(image.numpy(), self.grid)
        self.whole_truth = Pyramid(self.truth.astype(np.float32), self.grid)
        self.rounds = Rounds(self.grid, self.image.view, side, side, side, math.exp(uniform(gen, -0.4, 0.6)))
        self.marks: dict[bool, list[np.ndarray]] = {True: [], False: []}
        self.box = self._box() if chance(gen, 0.4) else None
        self.left = int(min(8, 1 + torch.empty(()).exponential_(0.4, generator=gen)))
        if self.box is None or chance(gen, 0.3):
            self._click(self.truth, True)
        start = None
        if self.box is None and chance(gen, 0.15):
            start = self._rough()
        self.turn = self.rounds.play(self._told(), start)
        self.ask = next(self.turn)

    def _turned(self, *arrays: torch.Tensor) -> list[torch.Tensor]:
        """Turn and mirror the scene, and change its contrast: one scene serves many times."""
        order = torch.randperm(3, generator=self.gen).tolist()
        flips = [axis for axis in range(3) if chance(self.gen, 0.5)]
        # The left half keeps being a mirrored right one, but up stays up in most cases, as it does in the product.
        if chance(self.gen, 0.8):
            order, flips = [0, 1, 2], [0] if chance(self.gen, 0.5) else []
        image, *others = (array.permute(order).flip(flips).contiguous() for array in arrays)
        if chance(self.gen, 0.15):
            image = -image
        if chance(self.gen, 0.2):
            image = image + uniform(self.gen, 0.02, 0.2) * torch.randn(image.shape, generator=self.gen)
        return [image, *others]

    def _box(self) -> np.ndarray:
        """Return a box (2, 3) mm drawn by hand: each side a little off."""
        at = np.argwhere(self.truth)
        low, high = at.min(0) - 0.5, at.max(0) + 0.5
        off = torch.randn((2, 3), generator=self.gen).numpy() * 0.04 * (high - low)
        return np.asarray(self.grid.to_patient(np.stack([low, high]) + off))

    def _rough(self) -> Answer:
        """Return what a person may have drawn roughly, or another answer: the truth blurred, bent and cut wrongly."""
        at = np.argwhere(self.truth)
        look = self.rounds.around(at.min(0), at.max(0), self._told())
        true = torch.from_numpy(self.whole_truth.view(look))[None, None]
        small = F.adaptive_avg_pool3d(true, max(4, int(look.shape[0] / uniform(self.gen, 1.5, 5))))
        noise = uniform(self.gen, 0, 0.25) * torch.randn(small.shape, generator=self.gen)
        slow = F.interpolate(torch.randn((1, 1, 3, 3, 3), generator=self.gen), size=small.shape[2:], mode="trilinear")
        small = small + (noise + 0.25 * slow) * (small > 0.02)
        guess = F.interpolate(small, size=look.shape, mode="trilinear")[0, 0]
        return Answer(
            torch.sigmoid((guess - uniform(self.gen, 0.25, 0.6)) * uniform(self.gen, 3, 12)).numpy(), look
        )

    def _click(self, where: np.ndarray, positive: bool) -> None:
        at, depth = deepest(where, self.gen if chance(self.gen, 0.4) else None)
        if depth <= 0:
            return
        self.marks[positive].append(at)
        if chance(self.gen, 0.1):  # a scribble: the voxels of a short line that lie in the same region
            way = torch.randn(3, generator=self.gen).numpy()
            way /= np.linalg.norm(way)
            for step in np.arange(-8, 9) * max(1.0, depth / 4):
                spot = np.rint(at + way * step).astype(int)
                if (spot >= 0).all() and (spot < where.shape).all() and where[tuple(spot)]:
                    self.marks[positive].append(spot)

    def _told(self) -> marks.Pointed:
        inside, outside = (self.grid.to_patient(np.array(self.marks[s]).reshape(-1, 3)) for s in (True, False))
        boxes = np.zeros((0, 2, 2, 2, 3)) if self.box is None else Box(*self.box).corners()[None]
        return marks.Pointed(np.asarray(inside), np.asarray(outside), boxes)

    def question(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the network's inputs for the look the session asks for (see `encode`)."""
        crop, told = self.ask.crop, self._told()
        image = standard(torch.from_numpy(self.image.view(crop)))
        return encode(image, told_on(crop, told, self.ask.before), float(np.mean(crop.spacing)))

    def wanted(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the share of the object (I, J, K) in each voxel of the look, and the anatomy (I/2, J/2, K/2)."""
        crop = self.ask.crop
        share = torch.from_numpy(self.whole_truth.view(crop))
        outer = self.grid.to_voxels(crop.to_patient(np.array([[-0.5] * 3, np.asarray(crop.shape) - 0.5])))
        anatomy, inside = self.kind, []
        for axis, count in enumerate(crop.shape):
            place = outer[0, axis] + (outer[1, axis] - outer[0, axis]) * (np.arange(count // 2) + 0.5) / (count // 2)
            near = np.rint(place).astype(int)
            there = (near >= 0) & (near < self.kind.shape[axis])
            inside.append(there)
            anatomy = np.take(anatomy, np.clip(near, 0, self.kind.shape[axis] - 1), axis=axis)
        held = inside[0][:, None, None] & inside[1][:, None] & inside[2]
        # Beyond the end of the scan its border goes on, and is nobody's.
        edge = torch.from_numpy(held).repeat_interleave(2, 0).repeat_interleave(2, 1).repeat_interleave(2, 2)
        return share * edge, torch.from_numpy(np.where(held, anatomy, UNKNOWN))

    def answered(self, probability: torch.Tensor) -> bool:
        """Take the network's answer (I, J, K); look again, or point at the largest error. False when all is over."""
        try:
            self.ask = self.turn.send(probability.numpy())
            return True
        except StopIteration as done:
            answer: Answer = done.value
        self.left -= 1
        if self.left <= 0:
            return False
        found = carried(answer.found, answer.look, self.grid) > 0.5
        missing, extra = self.truth & ~found, found & ~self.truth
        deep_missing = deepest(missing)[1] if missing.any() else 0.0
        deep_extra = deepest(extra)[1] if extra.any() else 0.0
        if max(deep_missing, deep_extra) <= 0:
            return False
        positive = deep_missing >= deep_extra
        self._click(missing if positive else extra, positive)
        if not self.marks[True] and self.box is None:
            self._click(self.truth, True)
        self.turn = self.rounds.play(self._told(), answer)
        self.ask = next(self.turn)
        return True
