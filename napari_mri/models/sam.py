"""SAM by the segment-anything package: any plane, slice after slice from the ones that were prompted."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BadPrompt, WeightsProblem
from napari_mri.core.model import SEGMENT, Card, Model, Runtime, Session, Wants, Weights, knob
from napari_mri.core.prompts import Box, Lasso, Mask, Point, Prompts, Scribble
from napari_mri.core.volume import Labels, Volume
from napari_mri.engine.embeddings import Embeddings, key_of
from napari_mri.models._marks import sorted_out
from napari_mri.models._sam_asked import Asked, box_of, by_slice, plane_of, span
from napari_mri.models._sam_files import PROFILES, opened
from napari_mri.models._sam_predict import Found, Predictor
from napari_mri.models._sam_slices import Plane, window_of

URL = "https://dl.fbaipublicfiles.com/segment_anything/"
OFFICIAL = {
    "sam-b": ("ViT-B", "sam_vit_b_01ec64.pth", 375_042_383),
    "sam-l": ("ViT-L", "sam_vit_l_0b3195.pth", 1_249_524_607),
    "sam-h": ("ViT-H", "sam_vit_h_4b8939.pth", 2_564_550_879),
}


@dataclass(frozen=True)
class Params:
    """Options of SAM."""

    plane: str = knob(
        "auto",
        "Slices that SAM looks at; auto takes those across the thickest spacing, else axial.",
        choices=("auto", "axial", "coronal", "sagittal"),
    )
    reach: float = knob(
        40.0, "How far the mask is carried to neighbouring slices; 0 keeps to the slices prompted.",
        low=0.0, high=500.0, unit="mm",
    )  # fmt: skip
    least: float = knob(0.6, "Carrying on stops where SAM itself expects a lower overlap than this.", low=0.0, high=1.0)
    overlap: float = knob(
        0.5, "Carrying on stops where two neighbouring masks overlap less than this.", low=0.0, high=1.0
    )
    ahead: int = knob(2, "Neighbouring slices prepared in the background; only on a GPU.", low=0, high=64)
    cache: int = knob(4096, "Disk space for prepared slices; 0 keeps none.", low=0, high=1_000_000, unit="MB")


@dataclass(frozen=True)
class FileParams(Params):
    """Options of a SAM from the user's own files."""

    checkpoint: str = knob("", "File of a full SAM or MedSAM.")
    encoder: str = knob("", "File of an encoder laid over it, such as LVM-Med's.")
    profile: str = knob("auto", "How pictures are prepared; must be that of the file.", choices=PROFILES)


class Slicing(Session):
    """SAM opened on one scan (storage order RAS)."""

    def __init__(self, scan: Volume, p: Params, rt: Runtime, predictor: Predictor) -> None:
        self.scan, self.p, self.rt, self.predictor = scan, p, rt, predictor
        self.window = window_of(scan.data)
        self.cache = Embeddings(512, p.cache)
        self.encoded = 0
        """How often the encoder ran; 0 on a slice seen before."""
        self._print = scan.fingerprint()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._worker: threading.Thread | None = None

    def answer(self, prompts: Prompts) -> Labels:
        """Return the mask (1 = object) on the grid of the scan."""
        told = sorted_out(prompts, self.scan.grid)
        plane = plane_of(self.scan.grid, prompts, self.p.plane)
        asked = by_slice(told, plane)
        if told.mask is not None and told.mask.any():
            asked = self._with_mask(asked, told.mask, plane)
        if not any(a.box is not None or a.positive.any() or a.before is not None for a in asked.values()):
            raise BadPrompt("No prompt on the object lies in the scan.", hint="Prompts are in patient mm, RAS+.")
        mask = np.zeros(self.scan.grid.shape, dtype=np.uint8)
        found = self._carried(asked, plane, span(told, plane, self.bounds))
        where: list[Any] = [slice(None)] * 3
        for number, answer in found.items():
            where[plane.axis] = number
            mask[tuple(where)] = plane.home(answer.mask)
        self._prepare_ahead(plane, found)
        # SAM's guess of the overlap is not held between 0 and 1.
        self.score = float(np.clip(np.mean([answer.score for answer in found.values()]), 0, 1)) if found else 0.0
        return self.scan.with_labels(mask, {1: "object"})

    def close(self) -> None:
        """Stop preparing slices and let go of them."""
        self._closed.set()
        if self._worker is not None:
            self._worker.join(timeout=60)
        self.cache.clear_memory()

    def _with_mask(self, asked: dict[int, Asked], mask: NDArray[np.bool_], plane: Plane) -> dict[int, Asked]:
        """Add the user's mask where it is largest, and wherever else something is asked."""
        areas = mask.sum(axis=tuple(a for a in range(3) if a != plane.axis))
        side = self.predictor.side // 4
        for number in {int(areas.argmax()), *(n for n in asked if areas[n])}:
            picture = plane.away(np.take(mask, number, axis=plane.axis))
            here = asked.get(number, Asked(np.zeros((0, 2)), np.zeros(0, bool)))
            box = here.box if here.box is not None else box_of(picture, 0.0)
            before = _as_logits(picture, self.predictor._sizes(plane.size), self.predictor.side, side)
            asked[number] = Asked(here.points, here.positive, box, before)
        return asked

    def _carried(self, asked: dict[int, Asked], plane: Plane, span: tuple[int, int]) -> dict[int, Found]:
        """Answer the prompted slices, then carry each mask both ways, half-way to the next prompted one."""
        firm = [n for n, a in asked.items() if a.box is not None or a.positive.any() or a.before is not None]
        found: dict[int, Found] = {}
        for count, number in enumerate(firm):
            self.rt.report(0.4 * count / len(firm), f"slice {number}")
            found[number] = self._ask(plane, number, asked[number])
        steps = int(self.p.reach / self.scan.grid.spacing[plane.axis])
        for number in firm:
            for way in (-1, 1):
                ahead = [n for n in firm if (n - number) * way > 0]
                edge = min(ahead, key=lambda n: abs(n - number)) if ahead else None
                last = number + way * steps
                if edge is not None and abs(edge - number) <= steps * 2:
                    # Two prompted slices are joined: each carries to the middle, whatever lies between.
                    last = number + (edge - number) // 2 if way > 0 else number - (number - edge - 1) // 2
                self._walk(plane, number, way, last, (asked, span, found, edge is not None))
        return found

    def _walk(self, plane: Plane, start: int, way: int, last: int, state: tuple[Any, ...]) -> None:
        """Carry a mask slice by slice until a stop rule holds."""
        asked, span, found, joining = state
        answer, number = found[start], start + way
        while number in range(span[0], span[1] + 1) and (last - number) * way >= 0 and number not in found:
            self.rt.report(0.4 + 0.5 * abs(number - start) / (abs(last - start) + 1), f"slice {number}")
            box = box_of(answer.mask, 0.05)
            if box is None:
                return
            more = asked.get(number)
            points = more.points if more is not None else np.zeros((0, 2))
            signs = more.positive if more is not None else np.zeros(0, bool)
            following = self._ask(plane, number, Asked(points, signs, box, answer.logits))
            # Where the user has marked the slice, a sudden change is what was asked for.
            bound = not joining and more is None
            if not following.mask.any() or (bound and self._parted(answer, following)):
                return
            found[number] = answer = following
            number += way

    def _parted(self, before: Found, after: Found) -> bool:
        """Whether two neighbouring masks are too unlike to be one object."""
        a, b = before.mask, after.mask
        both, either = int((a & b).sum()), int((a | b).sum())
        ratio = float(b.sum()) / max(1.0, float(a.sum()))
        return after.score < self.p.least or both < self.p.overlap * either or not 0.5 <= ratio <= 2.0

    def _ask(self, plane: Plane, number: int, asked: Asked) -> Found:
        seen = self._embedding(plane, number)
        found = [self.predictor.ask(seen, plane.size, part) for part in asked.parts()]
        if len(found) == 1:
            return found[0]
        score = float(np.mean([part.score for part in found]))
        return Found(np.any([part.mask for part in found], axis=0), score, np.max([part.logits for part in found], axis=0))

    def _embedding(self, plane: Plane, number: int) -> NDArray[np.float16]:
        """Return the slice's embedding, from the cache if it was ever made."""
        sam = self.predictor.sam
        key = key_of(self._print, plane.axis, number, self.window, sam.sha256, sam.profile)
        kept = self.cache.get(key)
        if kept is not None:
            return kept
        with self._lock:
            kept = self.cache.get(key)  # the background may have made it meanwhile
            if kept is None:
                kept = self.predictor.encode(plane.picture(self.scan.data, number, self.window))
                self.encoded += 1
                self.cache.put(key, kept)
        return kept

    def _prepare_ahead(self, plane: Plane, numbers: Iterable[int]) -> None:
        """Encode the neighbours of what was answered, in the background."""
        if not self.p.ahead or self.rt.device == "cpu" or (self._worker is not None and self._worker.is_alive()):
            return
        done = set(numbers)
        near = {n + d for n in done for d in range(-self.p.ahead, self.p.ahead + 1)} - done
        todo = sorted(n for n in near if 0 <= n < plane.count)

        def work() -> None:
            for number in todo:
                if self._closed.is_set():
                    return
                self._embedding(plane, number)

        self._worker = threading.Thread(target=work, name="sam-ahead", daemon=True)
        self._worker.start()


def _as_logits(picture: NDArray[Any], inner: tuple[int, int], side: int, low: int) -> NDArray[np.float32]:
    """Return a mask as the coarse logits (1, low, low) SAM would have given it."""
    square = np.zeros((low, low), dtype=np.float32)
    rows, columns = (max(1, round(n * low / side)) for n in inner)
    i = np.clip(((np.arange(rows) + 0.5) * picture.shape[0] / rows).astype(int), 0, picture.shape[0] - 1)
    j = np.clip(((np.arange(columns) + 0.5) * picture.shape[1] / columns).astype(int), 0, picture.shape[1] - 1)
    square[:rows, :columns] = picture[i[:, None], j[None, :]]
    return (square * 20 - 10)[None]


def _open_official(weights: Weights) -> Any:
    def open_session(scan: Volume, p: Params, rt: Runtime) -> Slicing:
        """Open an official SAM on a 3D scan in storage order RAS."""
        path = rt.weights(weights)
        sam = rt.keep(f"sam {path}", lambda: opened(path, None, "auto", rt.device))
        return Slicing(scan, p, rt, Predictor(sam, rt.device))

    return open_session


def open_files(scan: Volume, p: FileParams, rt: Runtime) -> Slicing:
    """Open a SAM from the user's own files on a 3D scan in storage order RAS."""
    if not p.checkpoint:
        raise WeightsProblem("No SAM file was given.", hint="Set the checkpoint, or fetch sam-b.")
    paths = [Path(name).expanduser() for name in (p.checkpoint, p.encoder) if name]
    for path in paths:
        if not path.is_file():
            raise WeightsProblem(f"There is no file {path}.", hint="Give the path of a SAM checkpoint.")
    key = " ".join(f"{path} {path.stat().st_mtime_ns}" for path in paths)
    over = paths[1] if p.encoder else None
    sam = rt.keep(f"sam {key} {p.profile}", lambda: opened(paths[0], over, p.profile, rt.device))
    if sam.profile == "lvm-med":
        rt.warn("LVM-Med's encoder is used with SAM's own decoder, which is not the published method.")
    return Slicing(scan, p, rt, Predictor(sam, rt.device))


def _card(name: str, title: str, says: str, weights: tuple[Weights, ...], rank: int) -> Card:
    return Card(
        name=name,
        task=SEGMENT,
        title=title,
        says=says,
        wants=Wants(axes="RAS", min_slices=1),
        prompts=(Point, Box, Scribble, Lasso, Mask),
        needs=("torch", "torchvision", "segment_anything", "scipy"),
        weights=weights,
        licence="Apache-2.0",
        cite="Kirillov et al., Segment Anything, ICCV 2023",
        rank=rank,
    )


def _models() -> tuple[Model, ...]:
    found = []
    for n, (name, (size, file, count)) in enumerate(OFFICIAL.items()):
        weights = Weights(file, url=URL + file, licence="Apache-2.0", size=count)
        says = "Answers on one slice and carries the mask to its neighbours; a box works best. Trained on photographs."
        card = _card(name, f"SAM {size}", says, (weights,), -2 - n)
        found.append(Model(card, Params, open=_open_official(weights)))
    says = "SAM, MedSAM or an LVM-Med encoder from a file of yours; slice after slice, a box works best."
    found.append(Model(_card("sam", "SAM from a file", says, (), -5), FileParams, open=open_files))
    return tuple(found)


MODELS = _models()
