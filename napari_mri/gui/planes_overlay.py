"""Letters and crosshair on napari's own canvas: a clear pane of glass before it."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, QPointF, Qt
from qtpy.QtGui import QPainter, QPaintEvent
from qtpy.QtWidgets import QWidget

from napari_mri.gui import planes_marks as marks
from napari_mri.gui.planes_desk import ALL, Desk, Plane

TOP = 40
"""Pixels at the upper edge that napari's own line of text takes."""


class Glass(QWidget):
    """Lies over napari's canvas, lets every event through, and draws what the planes draw.

    Parameters
    ----------
    desk : Desk
    canvas : QWidget
        napari's.
    """

    def __init__(self, desk: Desk, canvas: QWidget) -> None:
        super().__init__(canvas)
        self.desk = desk
        self.crosshair = True
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.setAttribute(Qt.WidgetAttribute.WA_TranslucentBackground)
        canvas.installEventFilter(self)
        self.resize(canvas.size())
        self._drawn: tuple[float, ...] | None = None
        desk.moved.connect(self._on_moved)
        desk.turned.connect(self.update)
        self.show()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Stay as large as the canvas."""
        if event.type() == QEvent.Type.Resize:
            self.resize(self.parentWidget().size())
        return False

    def _on_moved(self) -> None:
        """Draw anew only if the crosshair is elsewhere: scrolling leaves it where it is."""
        plane = self.plane()
        here = None if plane is None else (self.desk.point[plane.up], self.desk.point[plane.across])
        if here != self._drawn:
            self._drawn = here
            self.update()

    def plane(self) -> Plane | None:
        """Return which plane napari shows, up being up, or None."""
        viewer = self.desk.viewer
        if viewer.dims.ndisplay != 2 or viewer.dims.ndim < 3 or viewer.scene.camera.orientation2d[0] != "up":
            return None
        shown = tuple(axis - (viewer.dims.ndim - 3) for axis in viewer.dims.displayed)
        return next((plane for plane in ALL if (plane.up, plane.across) == shown), None)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw letters and crosshair where they are true."""
        plane = self.plane()
        if plane is None or not self.desk.ready:
            return
        painter = QPainter(self)
        try:
            self._draw(painter, plane)
        finally:
            painter.end()

    def _draw(self, painter: QPainter, plane: Plane) -> None:
        side = -1 if self.desk.radiological else 1
        if self.crosshair:
            up, across = self._middle()
            camera = self.desk.viewer.scene.camera
            x = self.width() / 2 + side * (self.desk.point[plane.across] - across) * camera.zoom
            y = self.height() / 2 - (self.desk.point[plane.up] - up) * camera.zoom
            colours = {p.slider: marks.COLOURS[p.name] for p in ALL}
            marks.crosshair(painter, QPointF(x, y), self.width(), self.height(), plane, colours)
        if self.desk.letters:
            marks.letters(painter, plane, self.desk.radiological, self.width(), self.height(), TOP)

    def _middle(self) -> tuple[float, float]:
        up, across = self.desk.viewer.scene.camera.center[-2:]
        return float(up), float(across)

    def stop(self, *_: Any) -> None:
        """Take the pane away."""
        self.parentWidget().removeEventFilter(self)
        self.hide()
        self.deleteLater()
