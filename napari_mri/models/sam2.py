"""SAM 2 by the transformers package: an object is followed through the slices of any plane, both ways."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BadPrompt, WeightsProblem
from napari_mri.core.model import SEGMENT, Card, Model, Runtime, Session, Wants, knob
from napari_mri.core.prompts import Box, Lasso, Mask, Point, Prompts, Scribble
from napari_mri.core.volume import Labels, Volume
from napari_mri.models._marks import sorted_out
from napari_mri.models._sam_asked import Asked, by_slice, plane_of, span
from napari_mri.models._sam_slices import Plane, window_of

CARD = Card(
    name="sam2",
    task=SEGMENT,
    title="SAM 2 from a folder",
    says=(
        "Follows an object from the slices you point at to their neighbours, with a memory of what it looked like. "
        "Trained on films, not on MR: check where it ends. Give the folder of a SAM 2 or 2.1 checkpoint in the "
        "transformers format (config.json and model.safetensors)."
    ),
    wants=Wants(axes="RAS", min_slices=1),
    prompts=(Point, Box, Scribble, Lasso, Mask),
    needs=("torch", "transformers", "safetensors", "scipy"),
    licence="Apache-2.0",
    cite="Ravi et al., SAM 2: Segment Anything in Images and Videos, 2024",
    rank=-6,
)


@dataclass(frozen=True)
class Params:
    """Options of SAM 2."""

    checkpoint: str = knob("", "Folder of a SAM 2 checkpoint: config.json and model.safetensors.")
    plane: str = knob(
        "auto",
        "Slices that SAM 2 looks at; auto takes those across the thickest spacing, else axial.",
        choices=("auto", "axial", "coronal", "sagittal"),
    )
    reach: float = knob(
        40.0, "How far the object is followed beyond the slices prompted; 0 keeps to those.", low=0.0, high=500.0,
        unit="mm",
    )  # fmt: skip
    least: float = knob(0.5, "Following stops where SAM 2 is less sure that the object is there.", low=0.0, high=1.0)
    overlap: float = knob(0.5, "Following stops where two neighbouring masks overlap less than this.", low=0.0, high=1.0)
    memory: int = knob(1024, "Memory for slices that were looked at already.", low=0, high=1_000_000, unit="MB")


class Film(Session):
    """SAM 2 opened on one scan (storage order RAS). An answer depends on the scan and the prompts alone."""

    def __init__(self, scan: Volume, p: Params, rt: Runtime, net: Any) -> None:
        from napari_mri.nets.sam2 import Features

        self.scan, self.p, self.rt, self.net = scan, p, rt, net
        self.window = window_of(scan.data)
        self.features = Features(rt.device, p.memory)

    def answer(self, prompts: Prompts) -> Labels:
        """Return the mask (1 = object) on the grid of the scan."""
        told = sorted_out(prompts, self.scan.grid)
        plane = plane_of(self.scan.grid, prompts, self.p.plane)
        asked = by_slice(told, plane)
        masks = _drawn(told.mask, plane) if told.mask is not None and told.mask.any() else {}
        firm = {n for n, a in asked.items() if a.box is not None or a.positive.any()} | set(masks)
        if not firm:
            raise BadPrompt("No prompt on the object lies in the scan.", hint="Prompts are in patient mm, RAS+.")
        found = self._followed(asked, masks, sorted(firm), plane, span(told, plane, self.bounds))
        mask = np.zeros(self.scan.grid.shape, dtype=np.uint8)
        where: list[Any] = [slice(None)] * 3
        for number, (picture, _) in found.items():
            where[plane.axis] = number
            mask[tuple(where)] = plane.home(picture)
        self.score = float(np.mean([sure for _, sure in found.values()]))
        return self.scan.with_labels(mask, {1: "object"})

    def close(self) -> None:
        """Let go of what the encoder made."""
        self.features.clear_all()

    def _followed(
        self,
        asked: dict[int, Asked],
        masks: dict[int, NDArray[np.bool_]],
        firm: list[int],
        plane: Plane,
        ends: tuple[int, int],
    ) -> dict[int, tuple[NDArray[np.bool_], float]]:
        """Answer the prompted slices, go up from the lowest of them, then down."""
        from napari_mri.nets.sam2 import Following, Pictures, Told

        self.features.place = plane.axis
        pictures = Pictures(
            lambda n: plane.picture(self.scan.data, n, self.window), plane.count, int(self.net.image_size)
        )
        film = Following(self.net, pictures, plane.size, self.features, self.rt.device)

        def told(number: int) -> Told:
            a = asked.get(number)
            if number in masks or a is None:  # SAM 2 takes a mask alone: it is what was corrected by hand
                return Told(np.zeros((0, 2)), np.zeros(0, bool), None, masks[number])
            return Told(a.points, a.positive, a.box)

        found: dict[int, tuple[NDArray[np.bool_], float]] = {}
        for count, number in enumerate(firm):
            self.rt.report(0.3 * count / len(firm), f"slice {number}")
            found[number] = film.tell(number, told(number))
        steps = int(self.p.reach / self.scan.grid.spacing[plane.axis])
        up = range(firm[0] + 1, min(firm[-1] + steps, ends[1]) + 1)
        down = range(firm[0] - 1, max(firm[0] - steps, ends[0]) - 1, -1)
        for way in (up, down):
            before = found[firm[0]][0]
            for count, number in enumerate(way):
                self.rt.report((0.3 if way is up else 0.65) + 0.35 * count / len(way), f"slice {number}")
                if number in found:
                    film.follow(number)  # its memory is laid down already: read, not made anew
                    before = found[number][0]
                    continue
                between = number < firm[-1] and way is up
                if between and _far(number, firm, steps):
                    continue
                marked = number in asked
                here = film.tell(number, told(number), passing=True) if marked else film.follow(number, back=way is down)
                # Where the user has pointed, and between slices that were prompted, a sudden change is meant.
                if not here[0].any() or (not between and not marked and self._parted(before, here)):
                    if not between:
                        break
                    continue
                found[number] = here
                before = here[0]
        return found

    def _parted(self, a: NDArray[np.bool_], after: tuple[NDArray[np.bool_], float]) -> bool:
        """Whether two neighbouring masks are too unlike to be one object."""
        b, sure = after
        both, either = int((a & b).sum()), int((a | b).sum())
        ratio = float(b.sum()) / max(1.0, float(a.sum()))
        return sure < self.p.least or both < self.p.overlap * either or not 0.5 <= ratio <= 2.0


def _far(number: int, firm: list[int], steps: int) -> bool:
    """Whether a slice lies farther than the reach from both prompted slices it lies between."""
    below = max(n for n in firm if n < number)
    above = min(n for n in firm if n > number)
    return min(number - below, above - number) > steps


def _drawn(mask: NDArray[np.bool_], plane: Plane) -> dict[int, NDArray[np.bool_]]:
    """Return the slice a mask is largest on, as a picture: one slice drawn by hand tells SAM 2 the object."""
    areas = mask.sum(axis=tuple(a for a in range(3) if a != plane.axis))
    number = int(areas.argmax())
    return {number: plane.away(np.take(mask, number, axis=plane.axis))}


def open_folder(scan: Volume, p: Params, rt: Runtime) -> Film:
    """Open a SAM 2 from the user's folder on a 3D scan in storage order RAS.

    Raises
    ------
    WeightsProblem
        If there is no folder, or it holds no SAM 2.
    """
    if not p.checkpoint:
        raise WeightsProblem(
            "No SAM 2 folder was given.",
            hint="Download one, such as facebook/sam2.1-hiera-tiny, and set the checkpoint to its folder.",
        )
    folder = Path(p.checkpoint).expanduser()
    weights = folder / "model.safetensors"
    if not weights.is_file() or not (folder / "config.json").is_file():
        raise WeightsProblem(
            f"{folder} does not hold config.json and model.safetensors.",
            hint="Files of the sam2 package (.pt) are not read: take the transformers format of the same checkpoint.",
        )
    from napari_mri.nets.sam2 import loaded

    def make() -> Any:
        try:
            return loaded(folder, rt.device)
        except (ValueError, OSError, RuntimeError, json.JSONDecodeError) as error:
            raise WeightsProblem(f"{folder.name} holds no SAM 2 that can be used: {error}.") from None

    rt.report(0.1, "reading the weights")
    return Film(scan, p, rt, rt.keep(f"sam2 {weights} {weights.stat().st_mtime_ns}", make))


MODELS = (Model(CARD, Params, open=open_folder),)
