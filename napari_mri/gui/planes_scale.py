"""The scale and the plane's name on napari's canvas, drawn by the pane of glass before it while the planes are open.

napari draws both anew with every frame, with programs and buffers of their own, which in software OpenGL is a good
part of what a frame costs. On the glass they are drawn only when they change. What is to be seen stays in napari's
model: its menus, and whoever sets the overlays, go on deciding.
"""

from __future__ import annotations

from math import floor, log10
from typing import Any

from napari.components import ViewerModel
from qtpy.QtCore import QRect, QSize, Qt
from qtpy.QtGui import QColor, QFontMetrics, QPainter, QPen
from qtpy.QtWidgets import QStyle

from napari_mri.gui import planes_marks as marks
from napari_mri.gui.napari_private import leave_overlay, show_overlay

LONGEST = 150
"""Pixels the bar has at most, as napari's."""
STEPS = (1, 2, 5, 10, 15, 20, 25, 50, 75, 100, 125, 150, 200, 500, 750)
TICK = 11
_RIM = 9


class ScaleAndName:
    """Draws napari's scale bar and line of text in napari's place.

    Parameters
    ----------
    viewer : napari viewer
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self.drawn: list[Any] = []
        """The overlays that are drawn here and not by napari."""

    @property
    def _known(self) -> tuple[Any, Any]:
        overlays = self._viewer.canvas.overlays
        return overlays.scale_bar, overlays.text

    def take(self, *, flat: bool) -> None:
        """Take over what can be drawn here, and leave the rest to napari.

        Parameters
        ----------
        flat : bool
            Whether napari shows one plane.
        """
        scale_bar, _ = self._known
        self.drawn = []
        for overlay in self._known:
            fits = flat and overlay.visible and overlay.opacity == 1
            if overlay is scale_bar:
                fits = fits and self._in_mm()
            if fits and leave_overlay(self._viewer, overlay):
                self.drawn.append(overlay)
            else:
                show_overlay(self._viewer, overlay)

    def give_back(self) -> None:
        """Let napari draw all again."""
        self.drawn = []
        for overlay in self._known:
            show_overlay(self._viewer, overlay)

    def _in_mm(self) -> bool:
        units = self._viewer.layers.units
        return units is not None and all(str(units[axis]) == "millimeter" for axis in self._viewer.dims.displayed)

    def draw(self, painter: QPainter, width: int, height: int) -> None:
        """Draw what was taken over onto a picture of so many pixels."""
        scale_bar, text = self._known
        rim = QRect(0, 0, width, height).adjusted(_RIM, _RIM, -_RIM, -_RIM)
        if text in self.drawn and text.text:
            painter.setFont(marks.font(text.font_size))
            size = QFontMetrics(painter.font()).size(0, text.text)
            self._write(painter, self._box(painter, rim, text, size), text.text, self._colour(text, text.color))
        if scale_bar in self.drawn:
            self._draw_bar(painter, rim, scale_bar)

    def _draw_bar(self, painter: QPainter, rim: QRect, scale_bar: Any) -> None:
        zoom = float(self._viewer.scene.camera.zoom)
        mm = float(scale_bar.length or longest(LONGEST / zoom))
        long = max(1, round(mm * zoom))
        painter.setFont(marks.font(scale_bar.font_size))
        size = QFontMetrics(painter.font()).size(0, told(mm))
        where = self._box(painter, rim, scale_bar, QSize(max(long, size.width()) + 4, size.height() + TICK + 2))
        colour = self._colour(scale_bar, scale_bar.color if scale_bar.colored else None)
        self._write(painter, where, told(mm), colour)
        start, y = where.center().x() - long // 2, where.bottom() - TICK // 2 - 1
        painter.setPen(QPen(QColor(colour), 3))
        painter.drawLine(start, y, start + long, y)
        for x in (start, start + long) if scale_bar.ticks else ():
            painter.drawLine(x, y - TICK // 2, x, y + TICK // 2)

    def _write(self, painter: QPainter, where: QRect, text: str, colour: str) -> None:
        painter.setPen(QColor(colour))
        painter.drawText(where, int(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop), text)

    def _box(self, painter: QPainter, rim: QRect, overlay: Any, size: QSize) -> QRect:
        """Return where an overlay of this size stands, its background drawn as napari does."""
        level, side = str(overlay.position).split("_")
        tall = {"top": Qt.AlignmentFlag.AlignTop, "bottom": Qt.AlignmentFlag.AlignBottom}
        wide = {"left": Qt.AlignmentFlag.AlignLeft, "right": Qt.AlignmentFlag.AlignRight}
        at = tall.get(level, Qt.AlignmentFlag.AlignVCenter) | wide.get(side, Qt.AlignmentFlag.AlignHCenter)
        where = QStyle.alignedRect(Qt.LayoutDirection.LeftToRight, at, size, rim)
        if overlay.box:
            painter.fillRect(where.adjusted(-4, -4, 4, 4), self._ground(overlay))
        return where

    def _ground(self, overlay: Any) -> QColor:
        chosen = overlay.box_color if overlay.box else None
        if chosen is not None:
            return QColor.fromRgbF(*map(float, chosen))
        ground = QColor.fromRgbF(*map(float, self._viewer.canvas.background_color))
        ground.setAlphaF(0.8 * ground.alphaF())
        return ground

    def _colour(self, overlay: Any, chosen: Any) -> str:
        """Return the colour chosen, or black or white, whichever is seen on the ground."""
        if chosen is not None:
            return str(QColor.fromRgbF(*map(float, chosen)).name())
        return "#ffffff" if self._ground(overlay).lightness() < 128 else "#000000"


def longest(most: float) -> float:
    """Return the largest length that napari too would give a bar and that is not above `most`, both in mm."""
    power = 1000.0 ** floor(log10(max(most, 1e-9)) / 3)
    return max((step * power for step in STEPS if step * power <= most), default=power)


def told(mm: float) -> str:
    """Write a length in the unit that suits it: "50 mm", "200 µm", "1 m"."""
    if mm < 1:
        return f"{1000 * mm:g} µm"
    return f"{mm:g} mm" if mm < 1000 else f"{mm / 1000:g} m"
