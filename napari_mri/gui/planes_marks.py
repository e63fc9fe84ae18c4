"""Draws what lies over the pictures of a plane: crosshair, letters, points, lines, the brush."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from napari.layers import Layer, Points, Shapes
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QFont, QPainter, QPen, QPolygonF

from napari_mri.gui.planes_desk import LETTERS, Desk, Plane

COLOURS = {"axial": "#ff6b6b", "coronal": "#5fd068", "sagittal": "#ffd75e"}
"""Each plane's colour: its frame, and its trace in the other planes."""
GAP = 9
"""Pixels left free about the point, so that the crosshair does not hide what it points at."""
Project = Callable[[float, float], QPointF]
"""From (up, across) in world mm to the screen."""


def crosshair(painter: QPainter, at: QPointF, width: int, height: int, plane: Plane, colours: dict[int, str]) -> None:
    """Draw the traces of the two other planes, each in its colour, with a gap about the point.

    Parameters
    ----------
    painter : QPainter
    at : QPointF
        The shared point on the screen.
    width, height : int
        Of the picture.
    plane : Plane
    colours : dict
        World axis to the colour of the plane that is scrolled along it.
    """
    for level, axis in ((True, plane.up), (False, plane.across)):
        painter.setPen(QPen(QColor(colours[axis]), 1))
        if level:
            painter.drawLine(QPointF(0, at.y()), QPointF(at.x() - GAP, at.y()))
            painter.drawLine(QPointF(at.x() + GAP, at.y()), QPointF(width, at.y()))
        else:
            painter.drawLine(QPointF(at.x(), 0), QPointF(at.x(), at.y() - GAP))
            painter.drawLine(QPointF(at.x(), at.y() + GAP), QPointF(at.x(), height))


def letters(painter: QPainter, plane: Plane, mirrored: bool, width: int, height: int, top: int = 5) -> None:
    """Write at each edge to which side of the patient it lies; `top` pixels are taken at the upper edge."""
    left, right = LETTERS[plane.across][:: -1 if mirrored else 1]
    low, high = LETTERS[plane.up]
    painter.setFont(font(13, bold=True))
    rim = QRectF(7, top, width - 14, height - top - 4)
    middle = Qt.AlignmentFlag.AlignVCenter
    for text, where in (
        (high, Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop),
        (low, Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignBottom),
    ):
        shaded(painter, rim, where, text, "#ffffff")
    level = QRectF(7, 0, width - 14, height)
    shaded(painter, level, Qt.AlignmentFlag.AlignLeft | middle, left, "#ffffff")
    shaded(painter, level, Qt.AlignmentFlag.AlignRight | middle, right, "#ffffff")


def shaded(painter: QPainter, rim: QRectF, where: Any, text: str, colour: str) -> None:
    """Write on any picture, bright or dark: a thin shadow lies under the letters."""
    painter.setPen(QColor(0, 0, 0, 200))
    painter.drawText(rim.translated(1, 1), int(where), text)
    painter.setPen(QColor(colour))
    painter.drawText(rim, int(where), text)


def caption(painter: QPainter, desk: Desk, plane: Plane, width: int, height: int) -> None:
    """Write the plane's name and where it stands, in mm and as a letter."""
    painter.setFont(font(10))
    rim = QRectF(8, 5, width - 16, height - 10)
    colour, left, top = COLOURS[plane.name], Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignTop
    shaded(painter, rim, left | top, plane.name.capitalize(), colour)
    shaded(painter, rim, left | Qt.AlignmentFlag.AlignBottom, place_text(desk, plane), colour)


def place_text(desk: Desk, plane: Plane) -> str:
    """Return where a plane stands: "S 12.5 mm", or the plain number where the patient's axes are unknown."""
    value = float(desk.point[plane.slider])
    if not desk.letters:
        return f"{value:.1f}"
    low, high = LETTERS[plane.slider]
    return f"{high if value >= 0 else low} {abs(value):.1f} mm"


def points_and_lines(painter: QPainter, layer: Layer, plane: Plane, desk: Desk, project: Project) -> None:
    """Draw the points and shapes that lie on a plane, to half a slice."""
    if isinstance(layer, Points):
        _points(painter, layer, plane, desk, project)
    elif isinstance(layer, Shapes):
        _shapes(painter, layer, plane, desk, project)


def _world(layer: Layer, data: NDArray[Any]) -> NDArray[np.float64]:
    """Return points (N, 3) of space of a 3D layer that is not turned."""
    return np.asarray(data, dtype=float)[:, -3:] * np.asarray(layer.scale)[-3:] + np.asarray(layer.translate)[-3:]


def _points(painter: QPainter, layer: Points, plane: Plane, desk: Desk, project: Project) -> None:
    if layer.ndim < 3 or not len(layer.data):
        return
    places = _world(layer, layer.data)
    away = np.abs(places[:, plane.slider] - desk.point[plane.slider])
    radii = np.broadcast_to(np.asarray(layer.size, dtype=float), (len(places),)) / 2
    reach = np.maximum(radii * str(layer.projection_mode).startswith("rescale"), desk.step(plane.slider) / 2)
    for place, radius, colour, far, limit in zip(places, radii, layer.face_color, away, reach, strict=True):
        if far > limit:
            continue
        painter.setPen(QPen(QColor("#000000"), 1))
        painter.setBrush(QColor.fromRgbF(*(float(c) for c in colour)))
        size = max(3.0, float(radius) * desk.zoom * (1 - 0.7 * far / max(limit, 1e-9)))
        painter.drawEllipse(project(place[plane.up], place[plane.across]), size, size)
    painter.setBrush(Qt.BrushStyle.NoBrush)


def _shapes(painter: QPainter, layer: Shapes, plane: Plane, desk: Desk, project: Project) -> None:
    if layer.ndim < 3:
        return
    said = layer.features.get("says")
    half = desk.step(plane.slider) / 2
    for n, (corners, kind, colour) in enumerate(zip(layer.data, layer.shape_type, layer.edge_color, strict=True)):
        places = _world(layer, corners)
        if np.abs(places[:, plane.slider] - desk.point[plane.slider]).max() > half:
            continue
        line = QPolygonF([project(p[plane.up], p[plane.across]) for p in places])
        painter.setPen(QPen(QColor.fromRgbF(*(float(c) for c in colour)), 2))
        (painter.drawPolyline if kind in ("line", "path") else painter.drawPolygon)(line)
        if said is not None and str(said.iloc[n]):
            painter.setFont(font(11, bold=True))
            end = line.at(1)
            rim = QRectF(end.x() + 8, end.y() - 22, 160, 22)
            shaded(painter, rim, Qt.AlignmentFlag.AlignLeft, str(said.iloc[n]), "#ffe28a")


def brush(painter: QPainter, at: QPointF, radius: float) -> None:
    """Draw the brush's outline, seen on dark and bright."""
    for colour, wide in (("#000000", 3), ("#ffffff", 1)):
        painter.setPen(QPen(QColor(colour), wide))
        painter.drawEllipse(at, radius, radius)


def font(size: float, *, bold: bool = False) -> QFont:
    """Return the window's own font in another size, in points."""
    made = QFont()
    made.setPointSizeF(size)
    made.setBold(bold)
    return made
