"""Letters, crosshair, scale and the plane's name on napari's own canvas: a clear pane of glass before it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QEvent, QObject, QPointF, Qt, QTimer
from qtpy.QtGui import QPainter, QPaintEvent, QPixmap
from qtpy.QtWidgets import QWidget

from napari_mri.gui import planes_marks as marks
from napari_mri.gui.choices import Links
from napari_mri.gui.napari_private import around_pictures, no_longer_around_pictures
from napari_mri.gui.planes_desk import ALL, Desk, Plane
from napari_mri.gui.planes_scale import ScaleAndName

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
        self._picture: QPixmap | None = None
        """What was drawn last: Qt asks for it again whenever the canvas below has a new frame."""
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.setAttribute(Qt.WidgetAttribute.WA_TranslucentBackground)
        canvas.installEventFilter(self)
        self.resize(canvas.size())
        self._drawn: tuple[float, ...] | None = None
        desk.moved.connect(self._on_moved)
        desk.turned.connect(self._on_turned)
        self.scale = ScaleAndName(desk.viewer)
        self._due = QTimer(self)
        self._due.setSingleShot(True)
        self._due.timeout.connect(self._share)
        self._connect(desk)
        around_pictures(desk.viewer, self.scale.give_back, self._share)
        self._share()
        self.show()

    def _connect(self, desk: Desk) -> None:
        """Hear of all that napari may draw otherwise from now on; the camera also where it is not the planes'."""
        self.links = links = Links(self)
        canvas, camera = desk.viewer.canvas, desk.viewer.scene.camera
        links.connect(camera.events.zoom, self.refresh)
        links.connect(camera.events.center, self.refresh)
        links.connect(canvas.grid.events.enabled, self._on_turned)
        links.connect(canvas.events.background_color, self.refresh)
        for overlay in (canvas.overlays.scale_bar, canvas.overlays.text):
            links.connect(overlay.events, self._on_turned)

    def refresh(self, event: Any = None) -> None:
        """Draw all anew."""
        self._picture = None
        self.update()

    def _on_turned(self, event: Any = None) -> None:
        """Look once all of napari has heard of it: it makes the visuals of an overlay when that is first shown."""
        self._due.start(0)
        self.refresh()

    def _share(self) -> None:
        """Agree with napari on who draws the scale and the plane's name."""
        self.scale.take(flat=self.plane() is not None and self.desk.ready)
        self.refresh()

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
            self.refresh()

    def plane(self) -> Plane | None:
        """Return which plane napari shows, up being up, or None."""
        viewer = self.desk.viewer
        if viewer.dims.ndisplay != 2 or viewer.dims.ndim < 3 or viewer.canvas.grid.enabled:
            return None
        if viewer.scene.camera.orientation2d[0] != "up":
            return None
        shown = tuple(axis - (viewer.dims.ndim - 3) for axis in viewer.dims.displayed)
        return next((plane for plane in ALL if (plane.up, plane.across) == shown), None)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw letters, crosshair and scale where they are true."""
        plane = self.plane()
        if plane is None or not self.desk.ready:
            return
        scale = self.devicePixelRatioF()
        if self._picture is None or self._picture.size() != self.size() * scale:
            self._picture = QPixmap(self.size() * scale)
            self._picture.setDevicePixelRatio(scale)
            self._picture.fill(Qt.GlobalColor.transparent)
            self._with_painter(self._picture, lambda painter: self._draw(painter, plane))
        picture = self._picture
        self._with_painter(self, lambda painter: painter.drawPixmap(0, 0, picture))

    def _with_painter(self, where: QWidget | QPixmap, draw: Callable[[QPainter], None]) -> None:
        painter = QPainter(where)
        try:
            draw(painter)
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
        self.scale.draw(painter, self.width(), self.height())

    def _middle(self) -> tuple[float, float]:
        up, across = self.desk.viewer.scene.camera.center[-2:]
        return float(up), float(across)

    def stop(self, *_: Any) -> None:
        """Take the pane away."""
        self.links.undo()
        self._due.stop()
        no_longer_around_pictures(self.desk.viewer)
        self.scale.give_back()
        self.parentWidget().removeEventFilter(self)
        self.hide()
        self.deleteLater()
