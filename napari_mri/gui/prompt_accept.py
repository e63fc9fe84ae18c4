"""Accepting a mask: the only place where an answer to clicks is written into a Labels layer, in one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Labels as LabelsLayer
from numpy.typing import NDArray

from napari_mri.core.errors import GridMismatch
from napari_mri.core.grid import Grid
from napari_mri.core.prompts import Slab
from napari_mri.core.volume import Labels
from napari_mri.gui.edit_history import edits_of
from napari_mri.gui.layers import Shown
from napari_mri.gui.recovery import NAMES

OTHERS = {"keep": "Keep other labels", "overwrite": "Overwrite other labels", "inside": "Only inside the label"}
"""What an object does to voxels that hold another label."""


@dataclass(frozen=True)
class Rule:
    """How an object enters a layer.

    Parameters
    ----------
    value : int
        The label it gets.
    others : str
        One of `OTHERS`.
    inside : int
        The label it stays inside, where `others` is ``"inside"``; 0 is the background.
    replaces : bool
        Whether what held the label before and is not in the object becomes background.
    """

    value: int
    others: str = "keep"
    inside: int = 0
    replaces: bool = False


Where = tuple[NDArray[np.intp], ...]


def changes(old: NDArray[Any], new: NDArray[np.bool_], rule: Rule) -> tuple[Where, Where]:
    """Return the voxels that take the label, and those that lose it.

    Parameters
    ----------
    old : ndarray of int, (S, A, R)
        Labels before.
    new : ndarray of bool, same shape
        The object.
    rule : Rule
    """
    free = old != rule.value
    if rule.others == "keep":
        free &= old == 0
    elif rule.others == "inside":
        free &= old == rule.inside
    put = np.nonzero(new & free)
    lost = np.nonzero((old == rule.value) & ~new) if rule.replaces else tuple(axis[:0] for axis in put)
    return put, lost


def must_lie_on(layer: LabelsLayer, grid: Grid, scan: Grid) -> None:
    """Raise `GridMismatch` unless a layer's grid is that of the scan that is clicked."""
    if not grid.same(scan):
        raise GridMismatch(
            f"'{layer.name}' does not lie on the voxels of the scan that was clicked.",
            hint="Choose labels of that scan under 'Into', or a new layer.",
        )


def write(layer: LabelsLayer, record: Shown, answer: Labels, rule: Rule, slabs: tuple[Slab, ...] = ()) -> int:
    """Write an object into a layer as one step of its undo; return how many voxels changed.

    Parameters
    ----------
    layer : napari Labels
    record : Shown
        Of the layer (`layers.record_of`).
    answer : Labels
        The object, on the exact grid.
    rule : Rule
    slabs : tuple of Slab
        Beyond these slices nothing was asked, so nothing is taken away there.

    Raises
    ------
    GridMismatch
        If the layer lies on other voxels, or cannot hold the label.
    """
    must_lie_on(layer, record.volume.grid, answer.grid)
    if layer.data.ndim != answer.data.ndim:
        raise GridMismatch(f"'{layer.name}' is a series of labels.", hint="Choose labels of one volume, or a new layer.")
    if rule.value > np.iinfo(layer.data.dtype).max:
        raise GridMismatch(f"'{layer.name}' cannot hold the label {rule.value}.", hint="Choose a smaller number.")
    new = record.placing.forth(answer.data, labels=True) > 0
    put, lost = changes(np.asarray(layer.data), new, rule)
    if slabs and lost[0].size:
        places = record.placing.shown.to_patient(np.stack(lost, axis=1))
        asked = np.all([slab.holds(places) for slab in slabs], axis=0)
        lost = tuple(axis[asked] for axis in lost)
    where = tuple(np.concatenate(pair) for pair in zip(put, lost, strict=True))
    if where[0].size:
        values = np.full(where[0].size, rule.value, dtype=layer.data.dtype)
        values[put[0].size :] = 0
        layer.data_setitem(where, values)
    return int(where[0].size)


_given: WeakKeyDictionary[LabelsLayer, dict[int, str]] = WeakKeyDictionary()
"""Names that labels have from what marks were taken for, not from the user."""


def name_label(layer: LabelsLayer, record: Shown, value: int, taken_for: str, alone: bool) -> None:
    """Call a label what its marks were taken for, if the user has not named it.

    Parameters
    ----------
    layer : napari Labels
    record : Shown
        Of the layer (`layers.record_of`).
    value : int
    taken_for : str
        A structure, or an empty text where nobody knows.
    alone : bool
        Whether the label holds nothing else; of two structures it has the name of neither.
    """
    edits = edits_of(layer)
    if edits is None:
        return
    labels, given = edits.labels, _given.setdefault(layer, {})
    now = labels.names.get(value, "")
    wanted = taken_for if alone else now if taken_for in ("", now) else ""
    if now != given.get(value, "") or now == wanted:
        return
    given[value] = wanted
    labels.add(value)
    labels.rename(value, wanted)
    edits.note(NAMES, dict(labels.keep(record)))
    edits.changed()


def next_free(data: NDArray[Any], after: int) -> int:
    """Return the smallest label above `after` that no voxel holds."""
    taken = set(np.unique(np.asarray(data)).tolist())
    return next(value for value in range(after + 1, after + len(taken) + 2) if value not in taken)
