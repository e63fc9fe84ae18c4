"""Whole-head label maps made ready for synthesis: few compact classes, and the distance to the brain surface.

A map is turned to RAS at 1 mm, its labels are renumbered 0..C-1 (soft tissue, skin and bone are also
split by depth, so that fat under the skin or the two tables of the skull can differ), and the signed
distance to two brain surfaces is computed once, because every later deformation can carry it along.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

# FreeSurfer-style ids of the maps: tissues that the signal equations know.
TISSUE_OF = {
    2: "wm", 41: "wm", 7: "wm", 46: "wm", 16: "wm_gm", 28: "wm_gm", 60: "wm_gm", 10: "wm_gm", 49: "wm_gm",
    3: "gm", 42: "gm", 8: "gm", 47: "gm", 11: "gm", 50: "gm", 12: "gm", 51: "gm", 13: "wm_gm", 52: "wm_gm",
    17: "gm", 53: "gm", 18: "gm", 54: "gm", 26: "gm", 58: "gm", 85: "wm",
    4: "csf", 43: "csf", 5: "csf", 44: "csf", 14: "csf", 15: "csf", 24: "csf", 72: "csf",
    30: "blood", 62: "blood", 502: "blood", 514: "blood", 506: "vitreous", 512: "wm",
    507: "soft", 508: "soft", 509: "soft", 511: "skin", 515: "bone", 516: "marrow", 530: "soft",
}  # fmt: skip
LEFT_OF_RIGHT = {
    41: 2, 42: 3, 43: 4, 44: 5, 46: 7, 47: 8, 49: 10, 50: 11, 51: 12, 52: 13, 53: 17, 54: 18, 58: 26, 60: 28,
    62: 30,
}  # fmt: skip
BY_DEPTH = {507: (6.0, 14.0), 511: (2.0,), 515: (3.0, 6.0), 516: (4.0,)}
"""Classes split by a depth in mm: 507 and 511 below the skin, 515 and 516 above the brain."""
CUT_BELOW_CEREBELLUM = 6.0
CACHE_VERSION = 3


@dataclass(frozen=True)
class Head:
    """One head ready for synthesis.

    Attributes
    ----------
    name : str
    labels : torch.Tensor
        (I, J, K) uint8, compact classes, RAS+, 1 mm; 0 is air. A rim of one voxel on every side is air,
        except below, where the neck leaves the map.
    distance : torch.Tensor
        (2, I/2, J/2, K/2) float32 mm, negative inside, on a 2 mm grid over the same box: channel 0 is the
        brain with the CSF around it, channel 1 the brain alone (sulci closed over).
    tissue : tuple of str
        Tissue of each class, "air" for class 0.
    base : tuple of int
        For each class, a class it shares its look with by default: left for right, the shallow for the deep.
    inside : tuple of bool
        For each class, whether it belongs to the brain (CSF counted in).
    centre : tuple of float
        Middle of the brain, voxel coordinates in `labels`.
    """

    name: str
    labels: torch.Tensor
    distance: torch.Tensor
    tissue: tuple[str, ...]
    base: tuple[int, ...]
    inside: tuple[bool, ...]
    centre: tuple[float, float, float]

    def to(self, device: torch.device | str) -> Head:
        """Return the same head on another device."""
        from dataclasses import replace

        return replace(self, labels=self.labels.to(device), distance=self.distance.to(device))


def _edt(mask: np.ndarray) -> np.ndarray:
    import edt

    return edt.edt(np.ascontiguousarray(mask), parallel=1)


def _signed(mask: np.ndarray) -> np.ndarray:
    """Signed distance in voxels to the face between voxels, negative inside."""
    outside = _edt(~mask)
    inside = _edt(mask)
    return np.where(mask, 0.5 - inside, outside - 0.5).astype(np.float32)


def _largest(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    pieces, count = ndimage.label(mask)
    if count <= 1:
        return mask
    return pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1


def _closed(mask: np.ndarray, radius: float) -> np.ndarray:
    from scipy import ndimage

    grown = _edt(~mask) <= radius
    return ndimage.binary_fill_holes(_edt(grown) > radius)


def brain_masks(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Brain with the CSF around it, and brain alone, of one label map in RAS at 1 mm.

    Parameters
    ----------
    labels : numpy.ndarray
        (I, J, K) integers; 1..499 brain, 24 the CSF outside the ventricles, 500 and more the rest of the head.

    Returns
    -------
    tuple of numpy.ndarray
        Two boolean arrays. Both end at one level, a little below the cerebellum, because where a map's
        stem becomes cord differs from map to map and a network cannot learn that.
    """
    from scipy import ndimage

    brain = (labels > 0) & (labels < 500)
    cerebellum = np.isin(labels, (7, 8, 46, 47))
    level = 0
    if cerebellum.any():
        heights = np.cumsum(cerebellum.sum((0, 1)))
        lowest = int(np.searchsorted(heights, 0.002 * heights[-1]))
        level = max(0, int(lowest - CUT_BELOW_CEREBELLUM))
    brain[:, :, :level] = False
    tissue = _largest(ndimage.binary_opening(_largest(brain & (labels != 24)), iterations=1))
    tissue = _closed(tissue, 4.0)
    whole = _closed(_largest(ndimage.binary_opening(brain | tissue, iterations=2)) | tissue, 3.0)
    # A closing may bulge below the level and past the skull's inner face: both are taken back.
    for mask in (tissue, whole):
        mask[:, :, :level] = False
    return _largest(whole), _largest(tissue & whole)


def _compact(labels: np.ndarray, brain: np.ndarray) -> tuple[np.ndarray, list[str], list[int], list[bool]]:
    """Renumber labels 0..C-1, splitting the classes of BY_DEPTH into shells."""
    from scipy import ndimage

    under_skin = _edt(np.pad(ndimage.binary_fill_holes(labels > 0), 1))[1:-1, 1:-1, 1:-1]
    above_brain = _edt(~brain)
    out = np.zeros(labels.shape, np.uint8)
    tissue, base, inside = ["air"], [0], [False]
    first: dict[int, int] = {}
    for label in (int(v) for v in np.unique(labels) if v > 0):
        here = labels == label
        # Rare ids (crus, cysts, vessels) look like the tissue they lie in: white matter or soft tissue.
        kind = TISSUE_OF.get(label, "gm" if label < 500 else "soft")
        depth = under_skin if label in (507, 511) else above_brain
        edges = (-np.inf, *BY_DEPTH.get(label, ()), np.inf)
        for low, high in pairwise(edges):
            index = len(tissue)
            twin = first.get(LEFT_OF_RIGHT.get(label, label), index)
            first.setdefault(label, index)
            out[here & (depth > low) & (depth <= high)] = index
            tissue.append(kind)
            base.append(twin)
            inside.append(label < 500)
    return out, tissue, base, inside


def build_head(labels: np.ndarray, name: str) -> Head:
    """Make a `Head` of one label map.

    Parameters
    ----------
    labels : numpy.ndarray
        (I, J, K) integers in RAS order at 1 mm, FreeSurfer-like ids (0 air, 1..499 brain with 24 the CSF
        around it, 500 and more outside the brain).
    name : str

    Returns
    -------
    Head
    """
    labels = np.asarray(labels).round().astype(np.int32)
    keep = [np.nonzero((labels > 0).any(axis=tuple(a for a in range(3) if a != axis)))[0] for axis in range(3)]
    labels = labels[tuple(slice(k[0], k[-1] + 1) for k in keep)]
    # One rim of air (no rim below: the neck goes on there), then an even size for the 2 mm distances.
    pads = [(1, 1 + labels.shape[0] % 2), (1, 1 + labels.shape[1] % 2), (0, 2 - labels.shape[2] % 2)]
    labels = np.pad(labels, pads)
    whole, alone = brain_masks(labels)
    compact, tissue, base, inside = _compact(labels, whole)
    halves = []
    for mask in (whole, alone):
        d = _signed(mask)
        i, j, k = (n // 2 for n in d.shape)
        halves.append(d.reshape(i, 2, j, 2, k, 2).mean((1, 3, 5)))
    middle = tuple(float(np.mean(axis)) for axis in np.nonzero(whole))
    return Head(
        name=name,
        labels=torch.from_numpy(compact),
        distance=torch.from_numpy(np.stack(halves).astype(np.float32)),
        tissue=tuple(tissue),
        base=tuple(base),
        inside=tuple(inside),
        centre=(middle[0], middle[1], middle[2]),
    )


def load_heads(folder: Path, cache: Path, names: tuple[str, ...] | None = None) -> list[Head]:
    """Load every label map of a folder, from the cache where it was made before.

    Parameters
    ----------
    folder : pathlib.Path
        Holds `training_seg_*.nii.gz`, 1 mm.
    cache : pathlib.Path
        Where the prepared heads are kept (about 15 MB each); made if absent.
    names : tuple of str, optional
        Only these maps ("01", "16"); all by default.

    Returns
    -------
    list of Head
        In the order of the file names.
    """
    import nibabel

    cache.mkdir(parents=True, exist_ok=True)
    heads = []
    for file in sorted(folder.glob("training_seg_*.nii.gz")):
        name = file.name.split("_")[-1].split(".")[0]
        if names is not None and name not in names:
            continue
        kept = cache / f"head_{name}_v{CACHE_VERSION}.pt"
        if not kept.exists():
            image = nibabel.as_closest_canonical(nibabel.load(file))
            head = build_head(np.asarray(image.dataobj), name)
            torch.save(vars(head) | {"labels": head.labels, "distance": head.distance}, kept)
        heads.append(Head(**torch.load(kept, weights_only=True)))
    return heads
