"""The values of all time frames at one point as a small curve, and the frames one after another."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from numpy.typing import ArrayLike, NDArray
from qtpy.QtCore import QPointF, QRectF, Qt, QTimer
from qtpy.QtGui import QColor, QMouseEvent, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QSpinBox, QVBoxLayout, QWidget

from napari_mri.gui.choices import LayerChoice, Links
from napari_mri.gui.layers import shown
from napari_mri.gui.planes_desk import desk_of
from napari_mri.gui.status import place
from napari_mri.gui.window import bare, watch

_WAIT_MS = 60


def course(layer: Image, world: ArrayLike) -> NDArray[np.float64] | None:
    """Return the values of all frames (F,) at a point (…, 3) of the window, or None outside the scan.

    The voxel is the one napari shows there; the frames are the layer's first axis.
    """
    if layer.ndim != 4 or layer.rgb:
        return None
    point = np.asarray(world, dtype=float)[-3:]
    index = np.round(np.asarray(layer.world_to_data((0.0, *point)))[1:]).astype(int)
    if (index < 0).any() or (index >= np.array(layer.data.shape[1:])).any():
        return None
    return np.asarray(layer.data[(slice(None), *(int(n) for n in index))], dtype=np.float64)


class Curve(QWidget):
    """A curve over the frames; a press goes to the frame under it."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self.values: NDArray[np.float64] | None = None
        self.frame = 0
        self.setMinimumHeight(140)
        self.setAccessibleName("time course")

    def _area(self) -> QRectF:
        return QRectF(52, 10, max(self.width() - 62, 10), max(self.height() - 34, 10))

    def _at(self, n: float, value: float, low: float, high: float) -> QPointF:
        area, count = self._area(), len(self.values) if self.values is not None else 1
        x = area.left() + area.width() * n / max(count - 1, 1)
        return QPointF(x, area.bottom() - area.height() * (value - low) / ((high - low) or 1.0))

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the curve, its range and the frame shown now."""
        painter = QPainter(self)
        try:
            self._draw(painter)
        finally:
            painter.end()

    def _draw(self, painter: QPainter) -> None:
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.fillRect(self.rect(), QColor("#16181d"))
        painter.setPen(QColor("#9aa0a6"))
        values = self.values
        if values is None or not np.isfinite(values).any():
            painter.drawText(self.rect(), int(Qt.AlignmentFlag.AlignCenter), "Point at a scan with several frames")
            return
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        area = self._area()
        painter.drawText(QRectF(0, area.top() - 6, 48, 16), int(Qt.AlignmentFlag.AlignRight), f"{high:.4g}")
        painter.drawText(QRectF(0, area.bottom() - 10, 48, 16), int(Qt.AlignmentFlag.AlignRight), f"{low:.4g}")
        painter.drawText(QRectF(area.left(), area.bottom() + 4, area.width(), 16), int(Qt.AlignmentFlag.AlignLeft), "0")
        last = str(len(values) - 1)
        painter.drawText(
            QRectF(area.left(), area.bottom() + 4, area.width(), 16), int(Qt.AlignmentFlag.AlignRight), last
        )
        painter.setPen(QPen(QColor("#3a3f47"), 1))
        painter.drawRect(area)
        here = self._at(self.frame, low, low, high).x()
        painter.setPen(QPen(QColor("#ffd75e"), 1))
        painter.drawLine(QPointF(here, area.top()), QPointF(here, area.bottom()))
        painter.setPen(QPen(QColor("#5cc8ff"), 1.6))
        whole = [self._at(n, v, low, high) for n, v in enumerate(values) if np.isfinite(v)]
        painter.drawPolyline(QPolygonF(whole))

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Go to the frame under the cursor."""
        if self.values is None or self._viewer.dims.ndim < 4:
            return
        share = (event.position().x() - self._area().left()) / self._area().width()
        self._viewer.dims.set_current_step(
            0, int(np.clip(round(share * (len(self.values) - 1)), 0, len(self.values) - 1))
        )

    mouseMoveEvent = mousePressEvent


class TimeCourse(QWidget):
    """Play the frames of a scan, and see the values of all frames at the point.

    Parameters
    ----------
    napari_viewer : napari viewer
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = napari_viewer = bare(napari_viewer)
        watch(napari_viewer)
        self._point: Any = None
        self._cursor: tuple[float, ...] = ()
        self.scan = LayerChoice(napari_viewer, Image, "Open a scan first")
        self.curve = Curve(napari_viewer)
        self.says = QLabel()
        self.says.setWordWrap(True)
        self.play_button = QPushButton("Play")
        self.play_button.setCheckable(True)
        self.pace = QSpinBox()
        self.pace.setRange(1, 30)
        self.pace.setValue(8)
        self.pace.setSuffix(" frames/s")
        row = QHBoxLayout()
        row.addWidget(self.play_button)
        row.addWidget(self.pace)
        whole = QVBoxLayout(self)
        whole.addWidget(self.scan)
        whole.addWidget(self.curve, 1)
        whole.addWidget(self.says)
        whole.addLayout(row)
        self._clock, self._slow = QTimer(self), QTimer(self)
        self._clock.timeout.connect(self._next)
        self._slow.setSingleShot(True)
        self._slow.setInterval(_WAIT_MS)
        self._slow.timeout.connect(self.draw)
        self.play_button.toggled.connect(self._on_play)
        self.pace.valueChanged.connect(lambda value: self._clock.setInterval(round(1000 / value)))
        self.scan.changed.connect(self._soon)
        self.links = Links(self)
        self.links.connect(napari_viewer.cursor.events.position, self._on_cursor)
        self.links.connect(napari_viewer.dims.events.point, self._on_scrolled)

    def _on_cursor(self, event: Any = None) -> None:
        point = np.asarray(self._viewer.cursor.position, dtype=float)
        shown = list(self._viewer.dims.displayed)
        if len(shown) != 2 or point.size < 3:
            return
        # The cursor's place is told anew at every scroll too; only a moved mouse means another point.
        here = tuple(point[shown])
        if here != self._cursor:
            self._cursor = here
            self._point = point[-3:]
            self._soon()

    def _on_scrolled(self, event: Any = None) -> None:
        desk = desk_of(self._viewer)
        if desk is not None and desk.ready:
            self._point = desk.point.copy()
        self._soon()

    def _soon(self) -> None:
        if self.isVisible() and not self._slow.isActive():
            self._slow.start()

    def draw(self) -> None:
        """Draw the curve at the point now."""
        layer, point = self.scan.layer, self._point
        values = course(layer, point) if layer is not None and point is not None else None
        self.curve.values = values
        dims = self._viewer.dims
        self.curve.frame = dims.current_step[0] if dims.ndim > 3 else 0
        if values is None or layer is None:
            self.says.setText("")
        else:
            record = shown(layer)
            kind = record.volume.frames.kind if record is not None and record.volume.frames is not None else "frame"
            here = int(np.clip(self.curve.frame, 0, len(values) - 1))
            self.says.setText(f"{place(self._viewer, point)}  ·  {kind} {here}: {values[here]:.5g}")
        self.curve.update()

    def _on_play(self, on: bool) -> None:
        self.play_button.setText("Stop" if on else "Play")
        if on:
            self._clock.start(round(1000 / self.pace.value()))
        else:
            self._clock.stop()

    def _next(self) -> None:
        dims = self._viewer.dims
        if dims.ndim < 4:
            self.play_button.setChecked(False)
            return
        dims.set_current_step(0, (dims.current_step[0] + 1) % dims.nsteps[0])
