"""What the linked planes share: one point in the patient, one zoom in mm, one side for the patient's right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
from napari.components import ViewerModel
from numpy.typing import ArrayLike, NDArray
from qtpy.QtCore import QObject, Signal
from qtpy.QtWidgets import QWidget

from napari_mri.gui import settings
from napari_mri.gui.choices import Links
from napari_mri.gui.layers import frame_of
from napari_mri.gui.window import PLANES, RADIOLOGICAL

LETTERS = (("I", "S"), ("P", "A"), ("L", "R"))
"""Low and high end of the world axes: superior, anterior, right."""
_desks: WeakKeyDictionary[ViewerModel, ref[Desk]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Plane:
    """One of the three directions to look along.

    Parameters
    ----------
    name : str
    slider, up, across : int
        World axes: the one scrolled through, the one that points up, the one that runs across.
    """

    name: str
    slider: int
    up: int
    across: int


ALL = tuple(Plane(name, *order) for name, order in PLANES.items())
AXIAL, CORONAL, SAGITTAL = ALL


class Desk(QObject):
    """The state that napari's canvas and the planes have in common.

    The slice napari shows, its camera and the side of the patient's right live in napari's viewer and are
    only followed here; what napari has no room for (the point's place *within* its slice) lives here.

    Parameters
    ----------
    viewer : napari viewer
    owner : QWidget
        With whose end all connections end.
    """

    moved = Signal()
    """The point is elsewhere, or another time frame is shown."""
    turned = Signal()
    """Zoom, middle of the picture, side or letters have changed."""
    pointed = Signal(object)
    """The cursor is over (3,) world mm, or (None) has left the planes."""

    def __init__(self, viewer: ViewerModel, owner: QWidget) -> None:
        super().__init__(owner)
        self._viewer = viewer
        _desks[viewer] = ref(self)
        self._quiet = False
        self.point: NDArray[np.float64] = np.zeros(3)
        self.centre: NDArray[np.float64] = np.zeros(3)
        self.zoom = 1.0
        self.linked = True
        """Whether napari's canvas shares the zoom and the middle of the picture."""
        self.links = links = Links(owner)
        links.connect(viewer.dims.events.point, self._on_scrolled)
        links.connect(viewer.dims.events.range, self._on_range)
        links.connect(viewer.dims.events.order, self._on_rolled)
        links.connect(viewer.dims.events.ndisplay, self._on_rolled)
        links.connect(viewer.scene.camera.events.zoom, self._on_camera)
        links.connect(viewer.scene.camera.events.center, self._on_camera)
        links.connect(viewer.scene.camera.events.orientation, self._on_turned)
        for event in (viewer.layers.events.inserted, viewer.layers.events.removed):
            links.connect(event, self._on_turned)
        self._ranges: tuple[Any, ...] | None = None
        self._cut: set[int] = set()
        self._letters: bool | None = None
        """The answer of `letters`, once for all views: to read it off the layers takes as long as to draw a view."""
        self.moved.connect(self.forget)
        self.turned.connect(self.forget)
        if self.ready:
            self._ranges = tuple(viewer.dims.range[-3:])
            self.point = np.array(viewer.dims.point[-3:], dtype=float)
            low, high = self.extent()
            self.centre = (low + high) / 2

    # ------------------------------------------------------------------------------ what there is

    @property
    def viewer(self) -> ViewerModel:
        """The napari viewer."""
        return self._viewer

    @property
    def ready(self) -> bool:
        """Whether there is a volume to be cut."""
        return bool(self._viewer.layers) and self._viewer.dims.ndim >= 3

    @property
    def frames(self) -> tuple[float, ...]:
        """Where the sliders before the three of space stand (time, channel)."""
        return tuple(self._viewer.dims.point[:-3])

    @property
    def radiological(self) -> bool:
        """Whether the patient's right is on the left of the screen."""
        return bool(self._viewer.scene.camera.orientation2d[1] == "left")

    @property
    def letters(self) -> bool:
        """Whether it is known how the patient lies: napari's own images tell nothing of that."""
        if self._letters is None:
            self._letters = frame_of(self._viewer.layers) is not None
        return self._letters

    def forget(self) -> None:
        """Ask the layers again what they tell of the patient: one of them has changed."""
        self._letters = None

    def extent(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the outer ends of what is open, (3,) and (3,) world mm."""
        ranges = np.array(self._viewer.dims.range[-3:], dtype=float)
        return ranges[:, 0] - ranges[:, 2] / 2, ranges[:, 1] + ranges[:, 2] / 2

    def step(self, axis: int) -> float:
        """Return mm from slice to slice along a world axis."""
        return float(self._viewer.dims.range[-3:][axis].step) or 1.0

    def world(self, point: ArrayLike) -> NDArray[np.float64]:
        """Return a point of space, (3,), with the frames before it, (ndim,)."""
        return np.array([*self.frames, *np.asarray(point, dtype=float)])

    # ---------------------------------------------------------------------------------- moving

    def go(self, point: ArrayLike) -> None:
        """Put the shared point somewhere, (3,) world mm; every view follows.

        napari slices anew at every change of its sliders, even if the voxels stay the same: it is told only
        if another slice is meant.
        """
        if not self.ready:
            return
        dims = self._viewer.dims
        ranges = np.array(dims.range[-3:], dtype=float)
        self.point = np.clip(np.asarray(point, dtype=float), ranges[:, 0], ranges[:, 1])
        with self._quietly():
            self._push()
        self.moved.emit()

    def scroll(self, axis: int, steps: float) -> None:
        """Go some slices along a world axis."""
        point = self.point.copy()
        point[axis] += steps * self.step(axis)
        self.go(point)

    def _push(self) -> None:
        dims = self._viewer.dims
        first = dims.ndim - 3
        axes, values = [], []
        for axis in (a for a in dims.not_displayed if a >= first):
            start, _, step = dims.range[axis]
            value = start + round((self.point[axis - first] - start) / step) * step if step else start
            if abs(value - dims.point[axis]) > 1e-6 * max(1.0, step):
                axes.append(axis)
                values.append(value)
        if axes:
            dims.set_point(axes, values)

    def _on_scrolled(self, event: Any = None) -> None:
        if self._quiet or not self.ready:
            return
        dims = self._viewer.dims
        first = dims.ndim - 3
        self._on_range()
        cut, self._cut = self._cut, set()
        if any(
            abs(self.point[a] - dims.range[-3:][a].stop) > 1e-6 and dims.point[-3:][a] == dims.range[-3:][a].stop
            for a in cut
        ):
            self._stay()
            return
        for axis in dims.not_displayed:
            if axis >= first:
                self.point[axis - first] = dims.point[axis]
        self.moved.emit()

    def _on_range(self, event: Any = None) -> None:
        """Note which of napari's sliders lose their place now that a layer of finer steps is gone.

        A slider keeps its number of steps, and jumps to its end if it has become shorter than that.
        """
        if not self.ready:
            return
        before, self._ranges = self._ranges, tuple(self._viewer.dims.range[-3:])
        if before is None or before == self._ranges:
            return
        for axis, (old, new) in enumerate(zip(before, self._ranges, strict=True)):
            if old.step and new.step and (self.point[axis] - old.start) / old.step > (new.stop - new.start) / new.step:
                self._cut.add(axis)

    def _stay(self) -> None:
        """Go back to where the point was, or to the middle if that is no longer there."""
        low, high = self.extent()
        if ((low <= self.point) & (self.point <= high)).all():
            with self._quietly():
                self._push()
        else:
            self.go((low + high) / 2)
        self.moved.emit()

    def _on_rolled(self, event: Any = None) -> None:
        """Show the point in the plane napari was turned to, not where that slider stood before."""
        if self.ready:
            with self._quietly():
                self._push()
            self.turned.emit()

    # ---------------------------------------------------------------------------------- looking

    def look(self, zoom: float | None = None, centre: ArrayLike | None = None) -> None:
        """Set the zoom (screen pixels per mm) and the middle of every picture (world mm)."""
        if zoom is not None:
            self.zoom = float(np.clip(zoom, 0.05, 200.0))
        if centre is not None:
            self.centre = np.asarray(centre, dtype=float)
        if self.linked and self._viewer.dims.ndisplay == 2:
            camera = self._viewer.scene.camera
            shown = [axis - (self._viewer.dims.ndim - 3) for axis in self._viewer.dims.displayed]
            with self._quietly():
                camera.zoom = self.zoom
                if min(shown) >= 0:
                    camera.center = (0.0, *(float(self.centre[axis]) for axis in shown))
        self.turned.emit()

    def fit(self, sizes: list[tuple[Plane, int, int]]) -> None:
        """Choose the largest zoom at which every picture is seen whole.

        Parameters
        ----------
        sizes : list of (Plane, width, height)
            The places for the pictures, in screen pixels.
        """
        if not self.ready or not sizes:
            return
        low, high = self.extent()
        span = np.maximum(high - low, 1e-6)
        zoom = min(min(wide / span[p.across], tall / span[p.up]) for p, wide, tall in sizes)
        self.look(0.94 * zoom, (low + high) / 2)

    def set_radiological(self, on: bool) -> None:
        """Choose the side of the patient's right, here and in the next windows."""
        self._viewer.scene.camera.orientation2d = ("up", "left" if on else "right")
        settings.remember(RADIOLOGICAL, on)

    def _on_camera(self, event: Any = None) -> None:
        if self._quiet or not self.linked or self._viewer.dims.ndisplay != 2 or not self.ready:
            return
        camera = self._viewer.scene.camera
        self.zoom = float(camera.zoom)
        first = self._viewer.dims.ndim - 3
        for axis, value in zip(self._viewer.dims.displayed, camera.center[-2:], strict=True):
            if axis >= first:
                self.centre[axis - first] = value
        self.turned.emit()

    def _on_turned(self, event: Any = None) -> None:
        self.turned.emit()

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before


def desk_of(viewer: ViewerModel) -> Desk | None:
    """Return the desk of a window where the planes are open, or None."""
    known = _desks.get(viewer)
    return known() if known is not None else None
