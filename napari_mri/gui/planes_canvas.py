"""One plane on the screen: draws the cuts of all layers, and turns the mouse into steps and strokes."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image, Layer, Points, Shapes
from napari.layers import Labels as LabelsLayer
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRect, QRectF, Qt, Signal
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPixmap, QWheelEvent
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_mri.gui import planes_marks as marks
from napari_mri.gui.napari_private import native_of
from napari_mri.gui.planes_cut import Cut
from napari_mri.gui.planes_desk import ALL, Desk, Plane
from napari_mri.gui.planes_layers import Pictures
from napari_mri.gui.planes_paint import Stroke, brush_mm, paintable
from napari_mri.gui.window_level import Drag, meant

MIX = {
    "additive": QPainter.CompositionMode.CompositionMode_Plus,
    "minimum": QPainter.CompositionMode.CompositionMode_Darken,
    "multiplicative": QPainter.CompositionMode.CompositionMode_Multiply,
}
"""napari's ways of laying a layer over those below; the others are Qt's usual one."""
SLIDERS = {plane.slider: marks.COLOURS[plane.name] for plane in ALL}
RIM = 36
"""Pixels from the edge within which letters, name and place stand."""
_WHEEL = 120
"""Qt's units of one notch."""


class PlaneView(QWidget):
    """A plane through the shared point.

    The wheel scrolls, Ctrl and wheel zoom, the left button moves the point or paints, Shift and left always moves
    the point, the middle button shifts the picture, the right one sets window and level.

    Parameters
    ----------
    desk : Desk
    pictures : Pictures
    plane : Plane
    """

    enlarged = Signal(object)
    """A double click asks for this plane alone, or for all."""
    _soon = Signal()

    def __init__(self, desk: Desk, pictures: Pictures, plane: Plane) -> None:
        super().__init__()
        self.desk, self.pictures, self.plane = desk, pictures, plane
        self.crosshair = True
        self.follow = False
        """Whether the point goes where the cursor is, without a press."""
        self._base: QPixmap | None = None
        self._key: Any = None
        self._shown: list[tuple[Layer, Cut]] = []
        self._point: NDArray[np.float64] | None = None
        """Where the marks on the screen stand."""
        self._waiting = False
        self._fresh = False
        """Whether the picture kept holds all that has changed."""
        # Queued, not by a timer: Qt redraws the window once a round, after all that is queued but before timers.
        self._soon.connect(self._look, Qt.ConnectionType.QueuedConnection)
        self._stroke: Stroke | None = None
        self._drag: Drag | None = None
        self._grip: QPointF | None = None
        self._line: NDArray[np.float64] | None = None
        """Where a ruler begins that is being drawn."""
        self._cursor: QPointF | None = None
        self.setMouseTracking(True)
        self.setMinimumSize(120, 100)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setAttribute(Qt.WidgetAttribute.WA_OpaquePaintEvent)
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.setAccessibleName(f"{plane.name} plane")
        for signal in (desk.moved, desk.turned, pictures.changed):
            signal.connect(self._again)

    def _again(self) -> None:
        """Look what has changed at Qt's next leisure; a hidden plane costs nothing, several words cost one look."""
        self._fresh = False
        if self.isVisible() and not self._waiting:
            self._waiting = True
            self._soon.emit()

    # ---------------------------------------------------------------------------------- places

    @property
    def mirrored(self) -> bool:
        """Whether the screen's right is the low end of the across axis."""
        return self.desk.radiological

    def project(self, up: float, across: float) -> QPointF:
        """Return where world mm are on the screen."""
        desk, plane = self.desk, self.plane
        side = -1 if self.mirrored else 1
        x = self.width() / 2 + side * (across - desk.centre[plane.across]) * desk.zoom
        return QPointF(x, self.height() / 2 - (up - desk.centre[plane.up]) * desk.zoom)

    def world_at(self, at: QPointF) -> NDArray[np.float64]:
        """Return the point of the plane under a pixel, (3,) world mm."""
        desk, plane = self.desk, self.plane
        side = -1 if self.mirrored else 1
        point = desk.point.copy()
        point[plane.across] = desk.centre[plane.across] + side * (at.x() - self.width() / 2) / desk.zoom
        point[plane.up] = desk.centre[plane.up] - (at.y() - self.height() / 2) / desk.zoom
        return point

    # --------------------------------------------------------------------------------- drawing

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the pictures, and the marks on top of them, where Qt asks for it."""
        painter = QPainter(self)
        try:  # a painter that is left open by an error would take the whole window with it
            self._draw(painter, event.rect())
        finally:
            painter.end()

    def _draw(self, painter: QPainter, part: QRect) -> None:
        if not self.desk.ready:
            painter.fillRect(self.rect(), QColor("#000000"))
            painter.setPen(QColor("#909090"))
            painter.drawText(self.rect(), int(Qt.AlignmentFlag.AlignCenter), f"{self.plane.name}\n(no scan is open)")
            return
        if not self._fresh or self._base is None:
            self._compose()
        assert self._base is not None, "composed just now"
        painter.drawPixmap(0, 0, self._base)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        for layer in self._marked():
            marks.points_and_lines(painter, layer, self.plane, self.desk, self.project)
        self._draw_marks(painter, part)

    def _marked(self) -> list[Layer]:
        return [y for y in self.desk.viewer.layers if y.visible and isinstance(y, Points | Shapes)]

    def _cuts(self) -> list[tuple[Layer, Cut]]:
        world = self.desk.world(self.desk.point)
        shown = []
        for layer in self.desk.viewer.layers:
            if layer.visible and layer.opacity > 0:
                cut = self.pictures.cut(layer, self.plane, world, self.mirrored)
                if cut is not None:
                    shown.append((layer, cut))
        return shown

    def _look(self) -> None:
        """Ask Qt for what differs from what is on the screen, and for no more.

        The window is put together by the graphics card (or what stands in for it) from all that was drawn anew:
        a small piece is much cheaper than the whole plane.
        """
        self._waiting = False
        if not self.desk.ready or self._marked():
            self.update()
            return
        before = self._point
        changed = self._compose()
        if changed is None or before is None:
            self.update()
            return
        if not changed.isEmpty():
            self.update(changed)
        now = self.desk.point
        for axis in (self.plane.up, self.plane.across):
            if self.crosshair and now[axis] != before[axis]:
                for point in (before, now):
                    at = self.project(point[self.plane.up], point[self.plane.across]).toPoint()
                    level, upright = QRect(0, at.y() - 2, self.width(), 5), QRect(at.x() - 2, 0, 5, self.height())
                    self.update(level if axis == self.plane.up else upright)
                    self.update(QRect(at.x() - 12, at.y() - 12, 25, 25))
        if now[self.plane.slider] != before[self.plane.slider]:
            self.update(QRect(0, self.height() - 26, 110, 26))

    def _compose(self) -> QRect | None:
        """Lay all layers over one another where they have changed.

        Returns
        -------
        QRect or None
            What was drawn anew, in pixels of the plane; None for all of it.
        """
        shown = self._cuts() if self.desk.ready else []
        scale = self.devicePixelRatioF()
        looks = [(id(y), y.opacity, str(y.blending), str(getattr(y, "interpolation2d", ""))) for y, _ in shown]
        desk = self.desk
        key = (looks, desk.zoom, tuple(desk.centre), self.width(), self.height(), scale, self.mirrored)
        self._point = desk.point.copy()
        if self._base is None or key != self._key:
            self._base = QPixmap(round(self.width() * scale), round(self.height() * scale))
            self._base.setDevicePixelRatio(scale)
            self._lay(shown, None)
            changed: QRect | None = None
        else:
            changed = QRect()
            for (_, old), (_, new) in zip(self._shown, shown, strict=True):
                if old is not new:
                    changed = changed.united(self._difference(old, new))
            if not changed.isEmpty():
                self._lay(shown, changed)
        self._key, self._shown, self._fresh = key, shown, True
        return changed

    def _difference(self, old: Cut, new: Cut) -> QRect:
        """Return where two pictures of one layer differ on the screen."""
        if old.pixels.shape != new.pixels.shape or not np.array_equal(old.low, new.low):
            return self.rect()
        differs = old.pixels != new.pixels
        rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
        if not len(rows):
            return QRect()
        place = self._place(new)
        step_x, step_y = place.width() / differs.shape[1], place.height() / differs.shape[0]
        left, top = place.left() + columns[0] * step_x, place.top() + rows[0] * step_y
        wide, tall = (columns[-1] - columns[0] + 1) * step_x, (rows[-1] - rows[0] + 1) * step_y
        # A smoothed picture spreads over its neighbours.
        margin = 2 + int(np.ceil(max(step_x, step_y)))
        rim = QRectF(left, top, wide, tall).toAlignedRect().adjusted(-margin, -margin, margin, margin)
        return rim.intersected(self.rect())

    def _place(self, cut: Cut) -> QRectF:
        """Return where a picture lies on the screen."""
        ends = (cut.high[1], cut.low[1]) if self.mirrored else (cut.low[1], cut.high[1])
        return QRectF(self.project(cut.high[0], ends[0]), self.project(cut.low[0], ends[1]))

    def _lay(self, shown: list[tuple[Layer, Cut]], where: QRect | None) -> None:
        """Draw the layers into the picture kept, all of it or a piece."""
        painter = QPainter(self._base)
        try:
            if where is not None:
                painter.setClipRect(where)
            painter.fillRect(where or self.rect(), QColor("#000000"))
            for layer, cut in shown:
                painter.setOpacity(float(layer.opacity))
                how = MIX.get(str(layer.blending), QPainter.CompositionMode.CompositionMode_SourceOver)
                painter.setCompositionMode(how)
                smooth = isinstance(layer, Image) and str(layer.interpolation2d) != "nearest"
                painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform, smooth)
                painter.drawImage(self._place(cut), cut.image)
        finally:
            painter.end()

    def _draw_marks(self, painter: QPainter, part: QRect) -> None:
        """Draw the marks, without those at the rim if the part to be drawn has none of it."""
        width, height = self.width(), self.height()
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, False)
        if self.crosshair:
            at = self.project(self.desk.point[self.plane.up], self.desk.point[self.plane.across])
            marks.crosshair(painter, at, width, height, self.plane, SLIDERS)
        if not self.rect().adjusted(RIM, RIM, -RIM, -RIM).contains(part):
            if self.desk.letters:
                marks.letters(painter, self.plane, self.mirrored, width, height)
            marks.caption(painter, self.desk, self.plane, width, height)
            painter.setPen(QPen(QColor(marks.COLOURS[self.plane.name]), 2))
            painter.drawRect(1, 1, width - 2, height - 2)
        layer = self._active()
        if self._line is not None and self._cursor is not None:
            painter.setPen(QPen(QColor("#ffb84d"), 2))
            painter.drawLine(self.project(self._line[self.plane.up], self._line[self.plane.across]), self._cursor)
        if self._cursor is not None and paintable(layer) and str(layer.mode) in ("paint", "erase"):
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            marks.brush(painter, self._cursor, brush_mm(layer, self.plane) * self.desk.zoom)

    # ----------------------------------------------------------------------------------- mouse

    def _active(self) -> Any:
        return self.desk.viewer.layers.selection.active

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Begin a stroke, a shift, a change of contrast, or move the point."""
        if not self.desk.ready or self._stroke is not None:
            return
        canvas = native_of(self.desk.viewer)
        if canvas is not None:
            canvas.setFocus()  # napari's keys go on working
        at, shift = event.position(), bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        layer = self._active()
        if event.button() == Qt.MouseButton.MiddleButton:
            self._grip = at
        elif event.button() == Qt.MouseButton.RightButton:
            image = meant(self.desk.viewer)
            self._drag = Drag(image, at.x(), at.y()) if image is not None else None
        elif event.button() == Qt.MouseButton.LeftButton:
            if not shift and paintable(layer):
                self._stroke = Stroke(self.desk.viewer, layer, self.plane)
                self._stroke.to(self.desk.world(self.world_at(at)))
            elif not shift and isinstance(layer, Points) and str(layer.mode) == "add" and layer.ndim >= 3:
                layer.add(layer.world_to_data(self.desk.world(self.world_at(at))))
            elif not shift and isinstance(layer, Shapes) and str(layer.mode) == "add_line" and layer.ndim >= 3:
                self._line = self.world_at(at)
            else:
                self.desk.go(self.world_at(at))

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Go on with what the press began."""
        if not self.desk.ready:
            return
        at, buttons = event.position(), event.buttons()
        self._cursor = at
        if self._stroke is not None:
            if str(self._stroke.layer.mode) in ("paint", "erase"):
                self._stroke.to(self.desk.world(self.world_at(at)))
        elif self._drag is not None:
            self._drag.to(at.x(), at.y())
        elif self._grip is not None and buttons & Qt.MouseButton.MiddleButton:
            self._shift(at)
        elif self._line is not None:
            self.update()
        elif self._moves_point(event):
            self.desk.go(self.world_at(at))
        self.desk.pointed.emit(self.world_at(at))
        if paintable(self._active()):
            self.update()

    def _moves_point(self, event: QMouseEvent) -> bool:
        if event.buttons() & Qt.MouseButton.LeftButton:
            return not isinstance(self._active(), Points) or str(self._active().mode) != "add"
        return self.follow and not event.buttons()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End what the press began."""
        if self._stroke is not None and event.button() == Qt.MouseButton.LeftButton:
            stroke, self._stroke = self._stroke, None
            stroke.end()
        if self._line is not None and event.button() == Qt.MouseButton.LeftButton:
            start, self._line = self._line, None
            ends = [self.desk.world(point) for point in (start, self.world_at(event.position()))]
            layer = self._active()
            if isinstance(layer, Shapes) and np.abs(ends[1] - ends[0]).max() > 0:
                layer.add_lines(np.array([layer.world_to_data(end) for end in ends]))
        self._grip = self._drag = None

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Show this plane alone, or all again; while painting a second press is a second stroke."""
        if event.button() == Qt.MouseButton.LeftButton and not isinstance(self._active(), LabelsLayer | Points):
            self.enlarged.emit(self.plane)
        else:
            self.mousePressEvent(event)

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Scroll through the slices; with Ctrl zoom about the cursor."""
        notches = event.angleDelta().y() / _WHEEL
        if not self.desk.ready or not notches:
            return
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self._zoom(1.15**notches, event.position())
        else:
            self.desk.scroll(self.plane.slider, float(np.sign(notches)))
        event.accept()

    def leaveEvent(self, event: Any) -> None:
        """Take the brush and the status away."""
        self._cursor = None
        self.desk.pointed.emit(None)
        self.update()

    def resizeEvent(self, event: Any) -> None:
        """Draw all anew at the new size."""
        self._fresh = False

    def hideEvent(self, event: Any) -> None:
        """Free the picture, and end a stroke that no release will end."""
        self._base, self._key, self._shown = None, None, []
        if self._stroke is not None:
            stroke, self._stroke = self._stroke, None
            stroke.end()

    def _shift(self, at: QPointF) -> None:
        moved = self.world_at(at) - self.world_at(self._grip)
        self._grip = at
        self.desk.look(centre=self.desk.centre - moved)

    def _zoom(self, factor: float, at: QPointF) -> None:
        here = self.world_at(at)
        axes = [self.plane.up, self.plane.across]
        centre = self.desk.centre.copy()
        centre[axes] = here[axes] + (centre[axes] - here[axes]) / factor
        self.desk.look(self.desk.zoom * factor, centre)
