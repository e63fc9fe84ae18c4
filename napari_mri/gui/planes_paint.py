"""Paints into a Labels layer from any plane: the layer's own modes, brush, locks and undo."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels as LabelsLayer
from napari.layers import Layer
from numpy.typing import ArrayLike, NDArray

from napari_mri.gui.edit_history import edits_of
from napari_mri.gui.planes_desk import Plane

MODES = ("paint", "erase", "fill", "pick")
"""napari's modes that work in every plane; polygons are drawn on napari's own canvas."""


def paintable(layer: Layer | None) -> bool:
    """Tell whether a press in a plane paints into this layer."""
    return (
        isinstance(layer, LabelsLayer)
        and layer.ndim >= 3
        and layer.visible
        and layer.editable
        and str(layer.mode) in MODES
    )


def brush_mm(layer: LabelsLayer, plane: Plane) -> float:
    """Return the radius of a layer's brush on a plane in mm."""
    axes = (0, 1, 2) if layer.n_edit_dimensions >= 3 else (plane.up, plane.across)
    step = np.abs(np.asarray(layer.scale)[-3:])[list(axes)].min()
    return float((np.floor(layer.brush_size / 2) + 0.5) * step)


class Stroke:
    """From press to release: one step of the layer's undo, whatever was touched.

    Parameters
    ----------
    viewer : napari viewer
    layer : napari Labels
    plane : Plane
        Where the brush is flat, unless the layer says that it is a ball.
    """

    def __init__(self, viewer: ViewerModel, layer: LabelsLayer, plane: Plane) -> None:
        self._viewer, self.layer, self._plane = viewer, layer, plane
        self._before: NDArray[np.float64] | None = None
        self._group = layer.block_history()
        self._group.__enter__()

    def end(self) -> None:
        """Close the step."""
        self._group.__exit__(None, None, None)

    def to(self, world: ArrayLike) -> None:
        """Go on to a point (ndim,) of the world."""
        layer = self.layer
        here = np.asarray(layer.world_to_data(world), dtype=float)
        mode = str(layer.mode)
        index = np.round(here).astype(int)
        shape = np.array(layer.data.shape)
        if mode in ("pick", "fill") and ((index < 0) | (index >= shape)).any():
            return
        if mode == "pick":
            layer.selected_label = int(np.asarray(layer.data[tuple(index)]))
        elif mode == "fill":
            self._fill(index)
        else:
            self._brush(here, 0 if mode == "erase" else layer.selected_label)
            self._before = here

    # ---------------------------------------------------------------------------------- brush

    def _axes(self) -> tuple[int, int]:
        first = self.layer.ndim - 3
        a, b = sorted((first + self._plane.up, first + self._plane.across))
        return a, b

    def _same_as_napari(self) -> bool:
        """Tell whether napari's own brush would be flat in this very plane, or is a ball."""
        layer, dims = self.layer, self._viewer.dims
        if layer.n_edit_dimensions >= 3:
            return True
        shown = {axis - (dims.ndim - layer.ndim) for axis in dims.order[-2:]}
        return shown == set(self._axes())

    def _brush(self, here: NDArray[np.float64], label: int) -> None:
        layer = self.layer
        before = here if self._before is None else self._before
        apart = float(np.abs(here - before).max())
        count = max(1, int(np.ceil(apart / max(1.0, layer.brush_size / 4))))
        points = [before + (here - before) * n / count for n in range(1, count + 1)]
        if self._same_as_napari():
            for n, point in enumerate(points):
                index = np.round(point).astype(int)
                flat = [a for a in range(layer.ndim) if a not in self._axes()]
                if layer.n_edit_dimensions >= 3 or all(0 <= index[a] < layer.data.shape[a] for a in flat):
                    layer.paint(tuple(point), label, refresh=n == len(points) - 1)
            return
        self._discs(points, label)

    def _discs(self, points: list[NDArray[np.float64]], label: int) -> None:
        """Paint flat discs in a plane that napari does not show, as its own brush would there."""
        layer = self.layer
        axes = list(self._axes())
        index = np.round(points[-1]).astype(int)
        flat = [a for a in range(layer.ndim) if a not in axes]
        shape = np.array(layer.data.shape)
        if any(not 0 <= index[a] < shape[a] for a in flat):
            return
        centres = np.round([p[axes] for p in points]).astype(int)
        scale = np.abs(np.asarray(layer.scale, dtype=float)[axes])
        radius = np.floor(layer.brush_size / 2) + 0.5
        reach = np.floor(radius * scale.min() / scale).astype(int)
        low = np.maximum(centres.min(axis=0) - reach, 0)
        high = np.minimum(centres.max(axis=0) + reach + 1, shape[axes])
        if (low >= high).any():
            return
        rows, columns = np.ogrid[low[0] : high[0], low[1] : high[1]]
        mask = np.zeros((high[0] - low[0], high[1] - low[1]), bool)
        a, b = scale / scale.min()
        for row, column in centres:
            mask |= ((rows - row) * a) ** 2 + ((columns - column) * b) ** 2 <= radius**2
        self._set(index, mask, low, label)

    def _set(self, index: NDArray[np.int_], mask: NDArray[np.bool_], low: NDArray[np.int_], label: int) -> None:
        layer = self.layer
        axes = self._axes()
        where: list[Any] = [int(n) for n in index]
        for axis, start, length in zip(axes, low, mask.shape, strict=True):
            where[axis] = slice(int(start), int(start) + length)
        there = np.asarray(layer.data[tuple(where)])
        mask = mask & (there != label)
        if layer.preserve_labels:
            # As napari has it: a label is laid on background only, and only the chosen label is erased.
            mask &= there == (layer.selected_label if label == 0 else 0)
        if not mask.any():
            return
        rows, columns = np.nonzero(mask)
        found: list[Any] = [np.full(len(rows), int(n)) for n in index]
        found[axes[0]], found[axes[1]] = rows + low[0], columns + low[1]
        edits = edits_of(layer)
        put = layer.data_setitem if edits is None else edits.set_points  # which leaves locked labels as they are
        put(tuple(found), label)

    # ----------------------------------------------------------------------------------- fill

    def _fill(self, index: NDArray[np.int_]) -> None:
        layer = self.layer
        label = layer.selected_label
        if self._same_as_napari():
            layer.fill(tuple(index), label)
            return
        from scipy.ndimage import label as pieces

        axes = self._axes()
        where: list[Any] = [int(n) for n in index]
        for axis in axes:
            where[axis] = slice(None)
        there = np.asarray(layer.data[tuple(where)])
        spot = (index[axes[0]], index[axes[1]])
        if there[spot] == label or (layer.preserve_labels and there[spot] != 0):
            return
        mask = there == there[spot]
        if layer.contiguous:
            number, _ = pieces(mask)
            mask = number == number[spot]
        self._set(index, mask, np.zeros(2, int), label)
