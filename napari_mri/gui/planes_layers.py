"""Knows which cuts of which layers are still true, so that a plane draws anew only what has changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import ref

import numpy as np
from napari.layers import Image, Layer
from napari.layers import Labels as LabelsLayer
from numpy.typing import NDArray
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QWidget

from napari_mri.gui.choices import Links
from napari_mri.gui.planes_cut import (
    Cut,
    address,
    grey_table,
    label_table,
    picture,
    place_of,
    sliced,
    straight,
)
from napari_mri.gui.planes_desk import Desk, Plane

LOOK = ("colormap", "contrast_limits", "gamma", "contour", "show_selected_label", "selected_label")
EDITS = ("labels_update", "paint", "data")
PLACE = ("scale", "translate", "rotate", "shear", "affine")
DRAWN = ("visible", "opacity", "blending", "interpolation2d", "face_color", "edge_color", "size", "features", "text")


class Followed:
    """What is known of one layer: its colours, its place, the cuts made of it.

    Parameters
    ----------
    layer : napari Image or Labels
    """

    def __init__(self, layer: Layer) -> None:
        self._layer = ref(layer)
        self._cuts: dict[str, tuple[Any, Cut | None]] = {}
        self._table: NDArray[np.uint32] | None = None
        self._place: Any = None
        self.seen: tuple[Any, ...] = ()
        """Where napari's sliders stood when the layer last told that it was sliced."""

    def forget(self, *, colours: bool = False, place: bool = False) -> None:
        """Count every cut as out of date."""
        self._cuts.clear()
        if colours:
            self._table = None
        if place:
            self._place = None

    def cut(self, plane: Plane, world: NDArray[np.float64], mirrored: bool) -> Cut | None:
        """Return the layer's picture on a plane through a point (ndim,), made anew only if it must be."""
        layer = self._layer()
        if layer is None or layer.ndim < 3:
            return None
        if self._place is None:
            self._place = place_of(layer)
        if straight(self._place):
            where: Any = address(layer, self._place, plane, world)
        else:
            where = tuple(np.delete(world, len(world) - 3 + np.array([plane.up, plane.across])))
        before = self._cuts.get(plane.name)
        if before is not None and before[0] == (where, mirrored):
            return before[1]
        made = None if where is None else self._make(layer, plane, world, mirrored)
        self._cuts[plane.name] = (where, mirrored), made
        return made

    def _make(self, layer: Layer, plane: Plane, world: NDArray[np.float64], mirrored: bool) -> Cut | None:
        found = sliced(layer, self._place, plane, world)
        if found is None:
            return None
        voxels, low, high = found
        if self._table is None:
            self._table = label_table(layer, voxels.dtype) if isinstance(layer, LabelsLayer) else grey_table(layer)
        image, pixels = picture(voxels, layer, self._table, mirrored)
        return Cut(image, low, high, pixels)


class Pictures(QObject):
    """The cuts of a window's layers.

    Parameters
    ----------
    desk : Desk
    owner : QWidget
    """

    changed = Signal()
    """A picture may look different now."""

    def __init__(self, desk: Desk, owner: QWidget) -> None:
        super().__init__(owner)
        self._viewer = desk.viewer
        self.changed.connect(desk.forget)
        self._known: dict[int, Followed] = {}
        self._undo: dict[int, list[Callable[[], Any]]] = {}
        owner.destroyed.connect(self.stop)
        self.links = links = Links(owner)
        links.connect(desk.viewer.layers.events.inserted, self._on_inserted)
        links.connect(desk.viewer.layers.events.removed, self._on_removed)
        links.connect(desk.viewer.layers.events.reordered, self._tell)
        for layer in desk.viewer.layers:
            self._follow(layer)

    def cut(self, layer: Layer, plane: Plane, world: NDArray[np.float64], mirrored: bool) -> Cut | None:
        """Return a layer's picture on a plane (see `Followed.cut`)."""
        known = self._known.get(id(layer))
        return known.cut(plane, world, mirrored) if known is not None else None

    def stop(self, *_: Any) -> None:
        """Let go of every layer."""
        for undo in self._undo.values():
            for call in undo:
                call()
        self._undo.clear()
        self._known.clear()

    def _on_inserted(self, event: Any) -> None:
        self._follow(event.value)
        self.changed.emit()

    def _on_removed(self, event: Any) -> None:
        for call in self._undo.pop(id(event.value), ()):
            call()
        self._known.pop(id(event.value), None)
        self.changed.emit()

    def _follow(self, layer: Layer) -> None:
        undo = self._undo.setdefault(id(layer), [])
        known = Followed(layer) if isinstance(layer, Image | LabelsLayer) else None
        if known is not None:
            self._known[id(layer)] = known
            known.seen = tuple(self._viewer.dims.point)

        def connect(names: tuple[str, ...], call: Callable[[Any], None]) -> None:
            for name in names:
                emitter = getattr(layer.events, name, None)
                if emitter is not None:
                    emitter.connect(call)
                    undo.append(partial(emitter.disconnect, call))

        if known is None:
            connect((*DRAWN, *PLACE, "set_data"), self._tell)
            return

        def on_look(event: Any = None) -> None:
            known.forget(colours=True)
            self.changed.emit()

        def on_edit(event: Any = None) -> None:
            known.forget()
            self.changed.emit()

        def on_place(event: Any = None) -> None:
            known.forget(place=True)
            self.changed.emit()

        def on_sliced(event: Any = None) -> None:
            # The one word for undo, redo and for another slice: only the sliders tell them apart.
            now = tuple(self._viewer.dims.point)
            if now == known.seen:
                on_edit()
            known.seen = now

        def on_data(event: Any = None) -> None:
            known.forget(colours=True, place=True)
            self.changed.emit()

        connect(LOOK, on_look)
        connect(EDITS[:2], on_edit)
        connect(EDITS[2:], on_data)
        connect(PLACE, on_place)
        connect(("set_data",), on_sliced)
        connect(DRAWN, self._tell)

    def _tell(self, event: Any = None) -> None:
        self.changed.emit()
