"""Click to segment in 3D: one small network, first on the whole field of view, then on a crop around the object."""

from __future__ import annotations

import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import WeightsProblem
from napari_mri.core.grid import Grid
from napari_mri.core.model import SEGMENT, Card, Model, Runtime, Session, Wants, Weights, knob
from napari_mri.core.prompts import Box, Extremes, Lasso, Mark, Mask, Point, Prompts, Scribble
from napari_mri.core.volume import Labels, Volume
from napari_mri.models._click3d_zoom import Pyramid, carried, crop_grid
from napari_mri.models._marks import Pointed, sorted_out, voxel_box

Array = NDArray[np.float32]

WEIGHTS = Weights("click3d.safetensors", licence="BSD-3-Clause", shipped=True)

CARD = Card(
    name="click3d",
    task=SEGMENT,
    title="Click in 3D",
    says=(
        "A network trained on synthetic heads of random contrast: click on a structure, then on what is missing or "
        "too much. Works on any MR contrast; expect several clicks for thin or faint structures."
    ),
    wants=Wants(axes="RAS", min_slices=3),
    prompts=(Point, Box, Scribble, Lasso, Extremes, Mask),
    needs=("torch", "safetensors", "scipy"),
    weights=(WEIGHTS,),
    cite="Trained by this project on label maps of SynthSeg (Billot et al., Med Image Anal 2023); see docs/click.md",
    rank=10,
)

OVERVIEW = 48
"""Longest side, voxels, of the look at the whole field of view: what the network was trained with."""
KEEP_STATES = 12
"""Answers kept for undo; older ones are worked out again, to the same voxel."""


@dataclass(frozen=True)
class Params:
    """Options of clicking in 3D."""

    detail: int = knob(
        64, "Longest side of the crop the object is refined in, voxels; larger is finer and slower.", low=48, high=128
    )
    level: float = knob(0.5, "How sure the network must be; lower gives larger masks.", low=0.05, high=0.95)
    pieces: bool = knob(False, "Keep pieces that no click lies in.")


@dataclass(frozen=True, eq=False)
class State:
    """An answer: probabilities in a crop, packed small."""

    grid: Grid
    packed: bytes

    @classmethod
    def of(cls, probability: Array, grid: Grid) -> State:
        """Pack probabilities in steps of 1/255; the session goes on with exactly what was packed."""
        return cls(grid, zlib.compress(np.rint(probability * 255).astype(np.uint8).tobytes(), 1))

    def probability(self) -> Array:
        """Return (I, J, K) float32, 0 to 1."""
        flat = np.frombuffer(zlib.decompress(self.packed), np.uint8)
        return (flat.reshape(self.grid.shape).astype(np.float32)) / np.float32(255)


class Clicking(Session):
    """The network opened on one scan (storage order RAS).

    An answer depends on the scan and on the prompts, in their order, and on nothing else: round after round
    is played from the first mark on, and rounds played before are remembered.
    """

    def __init__(self, scan: Volume, p: Params, rt: Runtime) -> None:
        self.scan, self.p, self.rt = scan, p, rt
        path = rt.weights(WEIGHTS)
        self.net = rt.keep(f"click3d {path}", lambda: loaded(path, rt.device))
        rt.report(0.3, "making coarser copies")
        self.pyramid = Pyramid(scan.data, scan.grid)
        self._states: OrderedDict[tuple[Mark, ...], State] = OrderedDict()
        self._overview = self._whole()

    def answer(self, prompts: Prompts) -> Labels:
        """Return the mask (1 = object) on the grid of the scan."""
        state: State | None = None
        first = next((n for n, mark in enumerate(prompts.marks) if mark.positive), 0) + 1
        for count in range(first, len(prompts) + 1):
            marks = prompts.marks[:count]
            if marks in self._states:
                self._states.move_to_end(marks)
                state = self._states[marks]
                continue
            self.rt.report((count - first) / max(1, len(prompts) + 1 - first), f"mark {count}")
            state = self._round(Prompts(marks), state)
            self._states[marks] = state
            while len(self._states) > KEEP_STATES:
                self._states.popitem(last=False)
        assert state is not None, "tasks refuses prompts without a positive mark"
        sure = state.probability()
        self.score = float(sure[sure > 0.5].mean()) if (sure > 0.5).any() else 0.0
        return self._home(state, sorted_out(prompts, self.scan.grid))

    def close(self) -> None:
        """Let go of the copies of the scan."""
        self.pyramid.levels.clear()
        self._states.clear()

    def _whole(self) -> Grid:
        grid = self.scan.grid
        return crop_grid(grid, np.full(3, -0.5), np.asarray(grid.shape) - 0.5, 16, OVERVIEW, min(grid.spacing))

    def _round(self, prompts: Prompts, before: State | None) -> State:
        """Answer one more mark, given the answer so far."""
        grid = self.scan.grid
        told = sorted_out(prompts, grid, room=1.5)
        if before is None and told.mask is not None:
            at = np.argwhere(told.mask)
            if len(at):
                crop = self._around(at.min(axis=0), at.max(axis=0), told)
                before = State.of(_share(told.mask, grid, crop), crop)
        if before is None and not len(told.boxes):
            look = self._overview
            found = self._asked(look, told, None)
        elif before is None:
            low, high = self._box_of(told)
            look = self._around(low, high, told)
            found = self._asked(look, told, _rounded(told, look))
        else:
            look = before.grid
            soft = before.probability()
            if not self._holds_marks(look, told):
                look = self._grown_to(before, told)
                soft = carried(soft, before.grid, look)
            found = self._asked(look, told, soft)
        for _ in range(2):
            crop = self._fitting(found, look, told)
            if crop is None:
                break
            found = self._asked(crop, told, carried(found, look, crop))
            look = crop
        return State.of(found, look)

    def _asked(self, crop: Grid, told: Pointed, before: Array | None) -> Array:
        """Run the network on a crop; returns probabilities (I, J, K)."""
        import torch

        from napari_mri.nets import click3d as nets

        device = self.rt.device
        image = nets.standard(torch.from_numpy(self.pyramid.view(crop)))
        boxes = [voxel_box(box, crop) for box in told.boxes]
        box = None
        if boxes:
            ends = np.stack([np.min([b[0] for b in boxes], axis=0), np.max([b[1] for b in boxes], axis=0)])
            box = torch.from_numpy(ends.astype(np.float32))
        marks = [torch.from_numpy(_within(crop.to_voxels(p), crop)) for p in (told.inside, told.outside)]
        shown = nets.Pointed(marks[0], marks[1], box, None if before is None else torch.from_numpy(before))
        with torch.inference_mode():
            fine, coarse = nets.encode(image, shown, float(np.mean(crop.spacing)))
            inputs = (fine[None].to(device), coarse[None].to(device))
            logits = self.net(*inputs)[0, 0].float().cpu()
            return np.asarray(torch.sigmoid(logits).numpy(), dtype=np.float32)

    def _box_of(self, told: Pointed) -> tuple[NDArray[Any], NDArray[Any]]:
        boxes = [voxel_box(box, self.scan.grid) for box in told.boxes]
        return np.min([b[0] for b in boxes], axis=0), np.max([b[1] for b in boxes], axis=0)

    def _around(self, low: NDArray[Any], high: NDArray[Any], told: Pointed) -> Grid:
        """Return a crop around an object's box (voxels of the scan) and the marks on it, with room to see beyond."""
        step = np.asarray(self.scan.grid.spacing)
        if len(told.inside):
            spots = self.scan.grid.to_voxels(told.inside)
            low, high = np.minimum(low, spots.min(axis=0)), np.maximum(high, spots.max(axis=0))
        size = (high - low) * step
        room = np.maximum(0.2 * size, max(6.0, 0.12 * float(size.max()))) / step
        return crop_grid(self.scan.grid, low - room, high + room, 16, self.p.detail // 16 * 16, min(step))

    def _holds_marks(self, crop: Grid, told: Pointed) -> bool:
        """Whether all marks on the object lie in a crop, not too near its border."""
        voxels = crop.to_voxels(told.inside)
        return bool(((voxels >= 2) & (voxels <= np.asarray(crop.shape) - 3)).all())

    def _grown_to(self, before: State, told: Pointed) -> Grid:
        """Return a crop around the answer so far and all marks on the object."""
        span = _extent(before.probability() > 0.5)
        corners = np.array(span if span is not None else ((0, 0, 0), np.asarray(before.grid.shape) - 1))
        ends = self.scan.grid.to_voxels(before.grid.to_patient(corners))
        return self._around(ends.min(axis=0), ends.max(axis=0), told)

    def _fitting(self, found: Array, look: Grid, told: Pointed) -> Grid | None:
        """Return a crop that fits the object better than `look`, or None if `look` is good enough."""
        mask = _touched(found > 0.5, look, told)
        span = _extent(mask)
        if span is None:
            spots = look.to_voxels(told.inside) if len(told.inside) else (np.asarray(look.shape)[None] - 1) / 2
            span = (spots.min(axis=0) - 4, spots.max(axis=0) + 4)
        low, high = span
        ends = self.scan.grid.to_voxels(look.to_patient(np.array([low - 0.5, high + 0.5])))
        crop = self._around(ends.min(axis=0), ends.max(axis=0), told)
        edge = (low <= 1) | (high >= np.asarray(look.shape) - 2)
        beyond = look.corners()
        outer = self.scan.grid.to_voxels(beyond)
        # A crop that already reaches the end of the scan cannot show more of the object.
        more = (outer.min(axis=0) > 0) | (outer.max(axis=0) < np.asarray(self.scan.grid.shape) - 1)
        if bool((edge & more).any()):
            return crop
        return crop if crop.spacing[0] < 0.8 * look.spacing[0] else None

    def _home(self, state: State, told: Pointed) -> Labels:
        """Bring the answer to the scan's grid."""
        grid = self.scan.grid
        mask = np.zeros(grid.shape, dtype=np.uint8)
        outer = grid.to_voxels(state.grid.to_patient(np.array([[0, 0, 0], np.asarray(state.grid.shape) - 1])))
        low = np.clip(np.floor(outer.min(axis=0)), 0, grid.shape).astype(int)
        high = np.clip(np.ceil(outer.max(axis=0)) + 1, low, grid.shape).astype(int)
        if (high > low).all():
            part = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            target = grid.cropped(low, high)
            found = carried(state.probability(), state.grid, target) > self.p.level
            found &= _in_boxes(told, target)
            mask[part] = found if self.p.pieces else _touched(found, target, told)
        return self.scan.with_labels(mask, {1: "object"})


def loaded(path: Path, device: str) -> Any:
    """Return the network with its weights, ready to answer."""
    import torch

    from napari_mri.engine.weights import load
    from napari_mri.nets.click3d import from_state

    try:
        net = from_state({name: value.float() for name, value in load(path).items()})
    except (KeyError, RuntimeError) as error:
        raise WeightsProblem(
            f"{path.name} does not fit the network: {error}.", hint="Install the package again."
        ) from None
    return net.to(device, memory_format=torch.channels_last_3d).eval().requires_grad_(False)


def _rounded(told: Pointed, grid: Grid) -> Array:
    """Return a first guess for boxes: soft ellipsoids that fill them, (I, J, K) 0 to 1."""
    guess = np.zeros(grid.shape, dtype=np.float32)
    for box in told.boxes:
        low, high = voxel_box(box, grid)
        middle, half = (low + high) / 2, np.maximum((high - low) / 2, 0.5)
        parts = [((np.arange(n) - m) / h) ** 2 for n, m, h in zip(grid.shape, middle, half, strict=True)]
        radius = np.sqrt(parts[0][:, None, None] + parts[1][:, None] + parts[2])
        guess = np.maximum(guess, 1 / (1 + np.exp(8 * (radius - 0.95)))).astype(np.float32)
    return guess


def _in_boxes(told: Pointed, grid: Grid) -> NDArray[np.bool_]:
    """Mark the voxels that lie in a box or no more than a twentieth of its side beyond; all, if there is no box."""
    if not len(told.boxes):
        return np.ones(grid.shape, dtype=bool)
    held = np.zeros(grid.shape, dtype=bool)
    for box in told.boxes:
        low, high = voxel_box(box, grid)
        room = 0.05 * (high - low) + 1
        first = np.clip(np.floor(low - room), 0, grid.shape).astype(int)
        last = np.clip(np.ceil(high + room) + 1, first, grid.shape).astype(int)
        held[tuple(slice(a, b) for a, b in zip(first, last, strict=True))] = True
    return held


def _within(voxels: NDArray[Any], crop: Grid) -> Array:
    """Keep the marks (N, 3) that lie in a crop, as float32."""
    voxels = voxels.reshape(-1, 3)
    held = ((voxels > -1) & (voxels < np.asarray(crop.shape))).all(axis=1)
    return np.asarray(voxels[held], dtype=np.float32)


def _extent(mask: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Return the first and last voxel (3,) of a mask along each axis, or None if it is empty."""
    ends = []
    for axis in range(3):
        there = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        if not there.size:
            return None
        ends.append((there[0], there[-1]))
    return np.array([e[0] for e in ends]), np.array([e[1] for e in ends])


def _touched(mask: NDArray[np.bool_], grid: Grid, told: Pointed) -> NDArray[np.bool_]:
    """Drop pieces that no mark lies in or beside, unless they are as large as a fifth of the largest."""
    from scipy.ndimage import label

    span = _extent(mask)
    if span is None:
        return mask
    # Only the box that holds the mask is searched: a small object in a large scan is the common case.
    part = tuple(slice(int(a), int(b) + 1) for a, b in zip(*span, strict=True))
    pieces, count = label(mask[part])
    if count < 2:
        return mask
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    keep = sizes >= 0.2 * sizes.max()
    if len(told.inside):
        top = np.asarray(pieces.shape) - 1
        for spot in np.rint(grid.to_voxels(told.inside)).astype(int) - span[0]:
            if ((spot >= -1) & (spot <= top + 1)).all():
                near = tuple(slice(max(0, s - 1), s + 2) for s in spot)
                keep[np.unique(pieces[near])] = True
    keep[0] = False
    kept = np.zeros_like(mask)
    kept[part] = keep[pieces]
    return kept


def _share(mask: NDArray[np.bool_], grid: Grid, crop: Grid) -> Array:
    """Return how much of each crop voxel a mask covers."""
    return Pyramid(mask.astype(np.float32), grid).view(crop).clip(0, 1)


def open_session(scan: Volume, p: Any, rt: Runtime) -> Clicking:
    """Open the network on a 3D scan in storage order RAS."""
    return Clicking(scan, p, rt)


MODELS = (Model(CARD, Params, open=open_session),)
