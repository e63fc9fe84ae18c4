"""What is private in napari's Labels layer and used here, with the reason; tests tell when it goes away.

The window's half stands in `napari_private`. Every function has an answer for the day its attribute is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from weakref import ref

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

Box = tuple[slice, ...]
Limit = Callable[[Box, NDArray[Any], int], "NDArray[np.bool_] | None"]
"""``limit(box, old, new label) -> where the label may be put``; None for everywhere."""


def changed(item: Sequence[Any], data: NDArray[Any]) -> tuple[Box, NDArray[Any], NDArray[Any]] | None:
    """Return the box that a step of napari's paint events touches, and what stands there before and after it.

    The event is public, what it carries is not: records with ``slice_key``, ``mask``, ``old_values`` and
    ``new_value`` (paint, fill, polygon), or triples of indices, old values, new values (`data_setitem`). Needed
    to make packed steps of strokes. A single call tells its event before it writes, a drag after its end: both
    states are therefore made from the records.

    Parameters
    ----------
    item : sequence
        The event's value.
    data : ndarray of int
        The layer's array at the time of the event.

    Returns
    -------
    (box, before, after) or None
        None for a kind of record that is not known.
    """
    low = np.full(data.ndim, np.iinfo(np.int64).max)
    high = np.zeros(data.ndim, np.int64)
    for atom in item:
        ends = _ends(atom, data.shape)
        if ends is None:
            return None
        low, high = np.minimum(low, ends[0]), np.maximum(high, ends[1])
    if (high <= low).any():
        return None
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    old, new = np.array(data[box]), np.array(data[box])
    for atom in reversed(item):
        _put(old, atom, low, back=True)
    for atom in item:
        _put(new, atom, low, back=False)
    return box, old, new


def _put(array: NDArray[Any], atom: Any, low: NDArray[Any], *, back: bool) -> None:
    if hasattr(atom, "slice_key"):
        part = array[tuple(slice(s.start - a, s.stop - a) for s, a in zip(atom.slice_key, low.tolist(), strict=True))]
        part[... if atom.mask is None else atom.mask] = atom.old_values if back else atom.new_value
    else:
        array[tuple(np.asarray(i) - a for i, a in zip(atom[0], low, strict=True))] = atom[1 if back else 2]


def _ends(atom: Any, shape: tuple[int, ...]) -> tuple[NDArray[Any], NDArray[Any]] | None:
    if all(hasattr(atom, name) for name in ("slice_key", "mask", "old_values", "new_value")):
        return np.array([s.start for s in atom.slice_key]), np.array([s.stop for s in atom.slice_key])
    if isinstance(atom, tuple) and len(atom) == 3 and len(atom[0]) == len(shape):
        indices = [np.asarray(i) for i in atom[0]]
        return np.array([i.min() for i in indices]), np.array([i.max() + 1 for i in indices])
    return None


def forget(layer: Labels) -> None:
    """Empty napari's own undo list: 25 bytes a voxel, and the edit log has it all.

    `_undo_history` and `_redo_history` are private; without them napari merely keeps its hundred steps.
    """
    for name in ("_undo_history", "_redo_history"):
        steps = getattr(layer, name, None)
        if steps is not None:
            steps.clear()


def stroking(layer: Labels) -> bool:
    """Tell whether a stroke is under way: `_staged_history` is private; without it the answer is no."""
    return bool(getattr(layer, "_staged_history", None))


def restrict(layer: Labels, limit: Limit) -> bool:
    """Let `limit` decide where paint, fill and polygons may put a label, before a voxel is written.

    Shadows the private `_apply_mask_to_data` of this one layer: the only place all of them go through. Without
    it locked voxels would be put back after each stroke instead, and could be seen changed during one.

    Returns whether it is in force.
    """
    if not hasattr(type(layer), "_apply_mask_to_data"):
        return False
    here = ref(layer)

    def limited(data: NDArray[Any], mask: NDArray[Any], new_label: int, volume_slice: Box) -> Any:
        free = limit(volume_slice, data, int(new_label))
        if free is not None:
            mask = mask & free
            if not mask.any():
                return None
        own = here()
        assert own is not None, "a layer outlives a call of its own method"
        return type(own)._apply_mask_to_data(own, data, mask, new_label, volume_slice)

    layer._apply_mask_to_data = limited
    return True


def release(layer: Labels) -> None:
    """Undo `restrict`."""
    vars(layer).pop("_apply_mask_to_data", None)
