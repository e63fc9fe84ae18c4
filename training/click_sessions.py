"""Lessons from the product's own sessions: a simulated user corrects what place and brightness say of a painted head.

What the network is asked in a session, about a window around the object or around a mark, is kept together with the
right answer. At first it is not asked at all, so that it learns from what it will find; later it is, with the weights
that a training has come to, so that it learns from what it does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import label

import napari_mri as mri
from napari_mri.core.grid import Grid
from napari_mri.core.model import Runtime
from napari_mri.core.volume import Volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.models._click3d_mend import WINDOW
from napari_mri.models._click3d_rounds import extent
from napari_mri.models._click3d_zoom import Pyramid
from napari_mri.models._marks import Pointed
from napari_mri.models.click3d import Clicking, Params, loaded, told_on
from napari_mri.nets import click3d as nets
from training.click_tasks import deepest
from training.synth import Head, Recipe, make_sample
from training.synth.geometry import WILD, chance, uniform

RECIPE = Recipe(extent=((170, 200), (200, 230), (170, 200)), stripped=0, defaced=0.05, cavities=0.1, cropped=0.05, warp=WILD)
OBJECTS, MOST_MARKS = 14, 10
"""Of one painted head, and marks on each."""
LEAST_ML = 0.4
OWN, NEAR = 0.75, 0.5
"""How often the network answers itself, and how often a user clicks in the very middle of what is wrong."""


@dataclass(frozen=True)
class Lesson:
    """One question of a session, on a cube of `WINDOW` voxels, and the right answer.

    Attributes
    ----------
    image, truth : (I, J, K) float16
        The scan as `nets.click3d.standard` gives it; how much of each voxel is the object's.
    before : (I, J, K) uint8
        The answer so far in steps of 1/255.
    turned : (I, J, K) int8
        What of it follows from the newest marks alone, in steps of 1/127.
    inside, outside : (N, 3) float32
        Marks, voxels.
    box : (2, 3) float32 or None
    spacing : float
        mm.
    """

    image: torch.Tensor
    before: torch.Tensor
    turned: torch.Tensor
    truth: torch.Tensor
    inside: torch.Tensor
    outside: torch.Tensor
    box: torch.Tensor | None
    spacing: float

    def inputs(self, gen: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return what a `Mender` is told (fine, coarse) and the truth; mirrored or with noise now and then."""
        image, before, turned, truth = self.image.float(), self.before.float() / 255, self.turned.float() / 127, self.truth.float()
        inside, outside, box = self.inside, self.outside, self.box
        if chance(gen, 0.5):
            image, before, turned, truth = (part.flip(0) for part in (image, before, turned, truth))
            inside, outside = (_mirrored(marks, image.shape[0]) for marks in (inside, outside))
            box = None if box is None else _mirrored(box, image.shape[0]).sort(dim=0).values
        if chance(gen, 0.2):
            image = image + uniform(gen, 0.02, 0.15) * torch.randn(image.shape, generator=gen)
        told = nets.Pointed(inside, outside, box, before)
        fine, coarse = nets.encode(image, told, self.spacing)
        return torch.cat([fine, turned[None]]), coarse, truth


def _mirrored(marks: torch.Tensor, side: int) -> torch.Tensor:
    marks = marks.clone()
    marks[:, 0] = side - 1 - marks[:, 0]
    return marks


class Watched(Clicking):
    """A session whose questions are kept.

    Parameters
    ----------
    scan : Volume
    rt : Runtime
    draw : random.Random
    """

    def __init__(self, scan: Volume, rt: Runtime, draw: random.Random) -> None:
        super().__init__(scan, Params(), rt)
        self.draw = draw
        self.lessons: list[Lesson] = []
        self.truth: Pyramid | None = None

    def about(self, truth: np.ndarray) -> None:
        """Begin with another object, (I, J, K) bool."""
        self.truth = Pyramid(truth.astype(np.float32), self.scan.grid)

    def _better(self, window: Grid, told: Pointed, found: Any, turned: Any) -> Any:
        if self.truth is not None and window.shape == (WINDOW,) * 3:
            marks = told_on(window, told, found)
            self.lessons.append(
                Lesson(
                    nets.standard(torch.as_tensor(self.pyramid.view(window))).half(),
                    (torch.as_tensor(found) * 255).round().to(torch.uint8),
                    (torch.as_tensor(turned) * 127).round().to(torch.int8),
                    torch.from_numpy(self.truth.view(window)).half(),
                    marks.inside, marks.outside, marks.box, float(np.mean(window.spacing)),
                )
            )  # fmt: skip
            if self.draw.random() > OWN:
                return found
        return super()._better(window, told, found, turned)


def structures(labels: np.ndarray, head: Head, spacing: float, least_ml: float = LEAST_ML) -> Iterator[tuple[int, np.ndarray]]:
    """Yield what may be clicked on in a painted head, class and mask (I, J, K) bool.

    Each class stands alone, but outside the brain the shells of one tissue belong together.
    """
    for value in range(1, len(head.tissue)):
        if head.inside[value]:
            members = [value]
        elif head.base[value] == value:
            members = [n for n, b in enumerate(head.base) if b == value and n > 0]
        else:
            continue
        truth = np.isin(labels, members)
        if truth.sum() * spacing**3 >= least_ml * 1000:
            yield value, truth


def paired(labels: np.ndarray, head: Head, draw: random.Random) -> np.ndarray:
    """Return a mask of something larger: both sides of a structure, the brain, or two structures together."""
    inner = [n for n, inside in enumerate(head.inside) if inside and n > 0]
    some = draw.choice(inner)
    members = [n for n in inner if head.base[n] == head.base[some]]
    if draw.random() < 0.3:
        members = inner
    elif draw.random() < 0.4:
        members = [some, draw.choice(inner)]
    return np.isin(labels, members)


def wrong(truth: np.ndarray, found: np.ndarray, draw: random.Random) -> tuple[np.ndarray, bool] | None:
    """Return where a user clicks next, (3,), and whether that belongs to the object; None if nothing is wrong."""
    span = extent(truth | found)
    if span is None:
        return None
    part = tuple(slice(int(a), int(b) + 1) for a, b in zip(*span, strict=True))
    truth, found = truth[part], found[part]
    best: tuple[int, np.ndarray, bool] | None = None
    for error, positive in ((truth & ~found, True), (found & ~truth, False)):
        pieces, count = label(error)
        if not count:
            continue
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        which = int(sizes.argmax())
        if draw.random() < 0.15:  # not everybody sees the largest one
            which = draw.randrange(1, count + 1)
        if best is None or sizes[which] > best[0]:
            best = int(sizes[which]), pieces == which, positive
    if best is None:
        return None
    return aimed_at(best[1], draw) + span[0], best[2]


def aimed_at(where: np.ndarray, draw: random.Random) -> np.ndarray:
    """Return a voxel (3,) of a mask: its very middle, or any that is not near its border."""
    gen = None if draw.random() < NEAR else torch.Generator().manual_seed(draw.randrange(1 << 30))
    return deepest(where, gen)[0]


def play(session: Watched, truth: np.ndarray, draw: random.Random) -> None:
    """Point at one object and correct the answers, some times."""
    grid = session.scan.grid
    session.about(truth)
    prompts = mri.Prompts()
    marks = min(MOST_MARKS, 1 + int(draw.expovariate(0.25)))
    if draw.random() < 0.2:
        at = np.argwhere(truth)
        low, high = at.min(axis=0) - 0.5, at.max(axis=0) + 0.5
        off = np.array([[draw.gauss(0, 0.03) for _ in range(3)] for _ in range(2)]) * (high - low)
        ends = grid.to_patient(np.stack([low, high]) + off)
        prompts = prompts.plus(mri.Box.around(ends))
    else:
        prompts = prompts.plus(mri.Point(tuple(grid.to_patient(aimed_at(truth, draw)))))
    while True:
        found = session.answer(prompts).data > 0
        if len(prompts) >= marks:
            return
        following = wrong(truth, found, draw)
        if following is None:
            return
        prompts = prompts.plus(mri.Point(tuple(grid.to_patient(following[0])), following[1]))


def lessons(heads: list[Head], first: int, stride: int, weights: Callable[[], Path | None]) -> Iterator[list[Lesson]]:
    """Yield the lessons of one painted head after the other.

    Parameters
    ----------
    heads : list of Head
    first, stride : int
        Seeds are `first`, `first + stride`, …
    weights : callable
        Gives the file of the network as it is by now, or None.
    """
    rt = LocalRuntime("cpu")
    net, known = None, None
    number = first
    while True:
        gen, draw = torch.Generator().manual_seed(number), random.Random(number)
        head = heads[number % len(heads)]
        number += stride
        spacing = uniform(gen, 1.0, 2.0)
        fine = [spacing] * 3
        if chance(gen, 0.3):  # thick slices
            fine[draw.randrange(3)] *= uniform(gen, 1.3, 3.0)
        grid = tuple(round(uniform(gen, *side) / spacing / 2) * 2 for side in RECIPE.extent)
        sample = make_sample(head, RECIPE, 300_000_000 + number, (fine[0], fine[1], fine[2]), ((grid[0], grid[1], grid[2]), spacing))
        labels = sample.labels.numpy()
        session = Watched(Volume(sample.image.numpy(), Grid.plain(labels.shape, (spacing,) * 3)), rt, draw)
        file = weights()
        stamp = None if file is None else file.stat().st_mtime
        if file is not None and stamp != known:
            net, known = loaded(file, "cpu", mends=True), stamp
        if net is not None:
            session.mender = net
        every = [truth for _, truth in structures(labels, head, spacing)]
        for truth in draw.sample(every, min(OBJECTS, len(every))):
            play(session, truth, draw)
        for _ in range(2):
            truth = paired(labels, head, draw)
            if truth.any():
                play(session, truth, draw)
        yield session.lessons
        session.close()

