"""Lesion-wise agreement, by definitions that have a name: a lesion found or missed counts, not its voxels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BadOption, GridMismatch
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels
from napari_mri.measure.overlap import dice, hausdorff

MISS_MM = 374.0
"""HD95 that a missed or invented lesion counts with in the ``brats`` definitions."""

DEFINITIONS = {
    "isles": "ISLES'22: lesions are 26-connected pieces; a reference lesion is found if one voxel of it is in the mask; "
    "a piece of the mask that meets no reference lesion is a false alarm; F1 = TP / (TP + (FP + FN) / 2), "
    "1 where there is no lesion in either.",
    "brats-glioma": "BraTS'23, glioma: reference lesions whose 3-step dilations (18 neighbours) touch are one; pieces of the "
    "mask (26-connected) that meet a lesion's dilation belong to it; lesions up to 50 mm³ are left out; score = sum of "
    "lesion Dice / (lesions + false alarms); each miss and false alarm counts HD95 374 mm.",
    "brats-mets": "BraTS'23, metastases: as for glioma with a 1-step dilation and lesions up to 2 mm³ left out.",
}
_BRATS = {"brats-glioma": (3, 50.0), "brats-mets": (1, 2.0)}


@dataclass(frozen=True)
class Lesions:
    """Lesion-wise figures of a mask against a reference.

    Parameters
    ----------
    definition : str
        A key of `DEFINITIONS`.
    reference, found, missed, false_alarms : int
        Reference lesions that count, those of them found and missed, and pieces of the mask that
        meet none.
    count_difference : int
        Pieces of the mask - pieces of the reference.
    volume_difference_ml : float
        Absolute.
    f1 : float
    dice : float
        Voxel-wise Dice for ``isles``; mean over lesions and false alarms for ``brats``.
    hd95 : float, mm
        Mean over lesions and false alarms for ``brats``; NaN for ``isles``.
    """

    definition: str
    reference: int
    found: int
    missed: int
    false_alarms: int
    count_difference: int
    volume_difference_ml: float
    f1: float
    dice: float
    hd95: float


def compare_lesions(labels: Labels, against: Labels, *, definition: str = "isles", label: int = 0) -> Lesions:
    """Compare lesions with those of a reference on the same grid.

    Parameters
    ----------
    labels, against : Labels, (I, J, K)
        `against` is the reference. Of 4D labels the first frame is compared.
    definition : str
        A key of `DEFINITIONS`.
    label : int
        Which label is the lesion; 0 takes anything that is not background.

    Raises
    ------
    BadOption
        If there is no such definition.
    GridMismatch
        If they lie on different grids.
    """
    if definition not in DEFINITIONS:
        raise BadOption(f"No lesion definition '{definition}'.", hint=f"There are {', '.join(DEFINITIONS)}.")
    if not labels.grid.same(against.grid):
        raise GridMismatch("The two masks lie on different grids.", hint="Resample one first.")
    mask, truth = (np.asarray(v.frame(0).data) for v in (labels, against))
    mask, truth = (v == label if label else v != 0 for v in (mask, truth))
    if definition == "isles":
        return _isles(mask, truth, labels.grid)
    return _brats(mask, truth, labels.grid, definition)


def _isles(mask: NDArray[np.bool_], truth: NDArray[np.bool_], grid: Grid) -> Lesions:
    pieces, n_pieces = _pieces(mask)
    lesions, n_lesions = _pieces(truth)
    found = int(np.unique(lesions[mask & truth]).size)
    false = n_pieces - int(np.unique(pieces[mask & truth]).size)
    return Lesions(
        "isles", n_lesions, found, n_lesions - found, false, n_pieces - n_lesions, _volume(mask, truth, grid),
        _f1(found, n_lesions - found, false), dice(mask, truth), float("nan"),
    )  # fmt: skip


def _brats(mask: NDArray[np.bool_], truth: NDArray[np.bool_], grid: Grid, definition: str) -> Lesions:
    from scipy.ndimage import binary_dilation, generate_binary_structure

    steps, smallest = _BRATS[definition]
    pieces, n_pieces = _pieces(mask)
    wide = binary_dilation(truth, generate_binary_structure(3, 2), iterations=steps) if truth.any() else truth
    groups, n_groups = _pieces(wide)
    taken: set[int] = set()
    scores: list[tuple[float, float]] = []
    found = 0
    for group in range(1, n_groups + 1):
        around = groups == group
        lesion = around & truth
        mine = [int(n) for n in np.unique(pieces[around]) if n]
        taken.update(mine)
        if np.count_nonzero(lesion) * grid.voxel_ml * 1000 <= smallest * (1 + 1e-9):
            continue
        if not mine:
            scores.append((0.0, MISS_MM))
            continue
        found += 1
        answer = np.isin(pieces, mine)
        scores.append((dice(answer, lesion), hausdorff(answer, lesion, grid, 95)))
    reference, false = len(scores), n_pieces - len(taken)
    scores += [(0.0, MISS_MM)] * false
    mean = np.mean(scores, axis=0) if scores else np.array([1.0, 0.0])
    return Lesions(
        definition, reference, found, reference - found, false, n_pieces - _pieces(truth)[1], _volume(mask, truth, grid),
        _f1(found, reference - found, false), float(mean[0]), float(mean[1]),
    )  # fmt: skip


def _pieces(mask: NDArray[np.bool_]) -> tuple[NDArray[Any], int]:
    from scipy.ndimage import label

    pieces, count = label(mask, np.ones((3, 3, 3)))
    return pieces, int(count)


def _volume(mask: NDArray[np.bool_], truth: NDArray[np.bool_], grid: Grid) -> float:
    return abs(int(np.count_nonzero(mask)) - int(np.count_nonzero(truth))) * grid.voxel_ml


def _f1(found: int, missed: int, false: int) -> float:
    return 1.0 if found + missed + false == 0 else found / (found + (missed + false) / 2)
