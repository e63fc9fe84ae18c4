"""Clicks, boxes and lines as napari layers: drawn there, read as prompts in patient mm, put back by undo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Points, Shapes

from napari_mri.core.prompts import Box, Extremes, Lasso, Mark, Point, Prompts, Scribble
from napari_mri.gui.choices import Links
from napari_mri.gui.placing import Frame

OBJECT, BACKGROUND, EXTREME = "object", "background", "outline end"
COLOURS = {OBJECT: "#3ddc84", BACKGROUND: "#ff5c5c", EXTREME: "#5cc8ff"}
CLICKS, LINES = "clicks", "boxes and lines"
MARKED_WITH = {"rectangle": Box, "path": Scribble, "polygon": Lasso}


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What is drawn: a few numbers, so that hundreds of them weigh nothing.

    Parameters
    ----------
    points : ndarray, (N, 3) window mm
    sides : tuple of str
        Of the points.
    shapes : tuple of ndarray, (V, 3) window mm
    kinds : tuple of str
        napari's shape types.
    shape_sides : tuple of str
    """

    points: Any
    sides: tuple[str, ...] = ()
    shapes: tuple[Any, ...] = ()
    kinds: tuple[str, ...] = ()
    shape_sides: tuple[str, ...] = ()

    def same(self, other: Snapshot) -> bool:
        """Tell whether the same is drawn."""
        told = (self.sides, self.kinds, self.shape_sides) == (other.sides, other.kinds, other.shape_sides)
        return told and all(np.array_equal(a, b) for a, b in zip(self._arrays(), other._arrays(), strict=True))

    def _arrays(self) -> tuple[Any, ...]:
        return (self.points, *self.shapes)

    def prompts(self, frame: Frame) -> Prompts:
        """Return the prompts in patient mm: boxes and outlines first, then clicks, then lines."""
        first: list[Mark] = []
        last: list[Mark] = []
        for corners, kind, side in zip(self.shapes, self.kinds, self.shape_sides, strict=True):
            places = [tuple(p) for p in frame.to_patient(corners)]
            if kind == "rectangle":
                first.append(Box(tuple(np.min(places, axis=0)), tuple(np.max(places, axis=0))))
            elif kind == "polygon":
                first.append(Lasso(tuple(places), side != BACKGROUND))
            else:
                last.append(Scribble(tuple(places), side != BACKGROUND))
        clicks: list[Mark] = []
        ends: list[Any] = []
        for place, side in zip(frame.to_patient(self.points.reshape(-1, 3)), self.sides, strict=True):
            if side == EXTREME:
                ends.append(tuple(place))
            else:
                clicks.append(Point(tuple(place), side == OBJECT))
        outlines = [Extremes(tuple(ends[n : n + 6])) for n in range(0, len(ends) - 5, 6)]
        return Prompts((*outlines, *first, *clicks, *last))


EMPTY = Snapshot(np.zeros((0, 3)))


class PromptLayers:
    """The two layers that hold what is drawn; made when needed, gone when the widget goes.

    Parameters
    ----------
    viewer : napari viewer
    links : Links
        Of the widget.
    changed : callable
        Called after every change the user makes.
    """

    def __init__(self, viewer: ViewerModel, links: Links, changed: Callable[[], None]) -> None:
        self._viewer, self._links, self._changed = viewer, links, changed
        self.points: Points | None = None
        self.shapes: Shapes | None = None
        self._quiet = False
        self._side = OBJECT

    def clicks(self) -> Points:
        """Return the layer of clicks."""
        if self.points is None or self.points not in self._viewer.layers:
            self.points = Points(
                ndim=3, name=CLICKS, size=5, out_of_slice_display=True, units=("mm",) * 3,
                features={"side": np.array([], dtype=object)}, face_color="white", border_color="black",
            )  # fmt: skip
            self._viewer.add_layer(self.points)
            for event in (self.points.events.data, self.points.events.features):
                self._links.connect(event, self._on_points)
        return self.points

    def lines(self) -> Shapes:
        """Return the layer of boxes, scribbles and lassos."""
        if self.shapes is None or self.shapes not in self._viewer.layers:
            self.shapes = Shapes(
                ndim=3, name=LINES, edge_width=1.5, face_color="transparent", edge_color=COLOURS[OBJECT],
                features={"side": np.array([], dtype=object)}, units=("mm",) * 3,
            )  # fmt: skip
            self._viewer.add_layer(self.shapes)
            for event in (self.shapes.events.data, self.shapes.events.features):
                self._links.connect(event, self._on_shapes)
        return self.shapes

    def draw(self, mode: str, side: str) -> None:
        """Make the next stroke in the window a mark of this kind and side."""
        self._side = side
        if mode == "point":
            layer: Any = self.clicks()
            layer.feature_defaults = {"side": side}
            layer.current_face_color = COLOURS[side]
            layer.mode = "add"
        else:
            layer = self.lines()
            layer.feature_defaults = {"side": side}
            layer.current_edge_color = COLOURS[side]
            layer.mode = {"box": "add_rectangle", "scribble": "add_path", "lasso": "add_polygon_lasso"}[mode]
        self._viewer.layers.selection = {layer}

    def snapshot(self) -> Snapshot:
        """Return what is drawn now."""
        points, sides = np.zeros((0, 3)), ()
        if self.points is not None and self.points in self._viewer.layers:
            points = np.array(self.points.data, dtype=float).reshape(-1, 3)
            sides = tuple(str(s) for s in self.points.features["side"])
        shapes: tuple[Any, ...] = ()
        kinds: tuple[str, ...] = ()
        ways: tuple[str, ...] = ()
        if self.shapes is not None and self.shapes in self._viewer.layers:
            shapes = tuple(np.array(s, dtype=float) for s in self.shapes.data)
            kinds = tuple(str(k) for k in self.shapes.shape_type)
            ways = tuple(str(s) for s in self.shapes.features["side"])
        return Snapshot(points, sides, shapes, kinds, ways)

    def restore(self, drawn: Snapshot) -> None:
        """Draw a snapshot again, without telling that anything changed."""
        self._quiet = True
        try:
            if len(drawn.points) or self.points is not None:
                layer = self.clicks()
                layer.data = np.asarray(drawn.points).reshape(-1, 3)
                layer.features = {"side": np.array(drawn.sides, dtype=object)}
                layer.feature_defaults = {"side": self._side}  # new features make napari forget it
                self._colour_points()
            if drawn.shapes or self.shapes is not None:
                lines = self.lines()
                lines.selected_data = set(range(len(lines.data)))
                lines.remove_selected()
                for corners, kind, side in zip(drawn.shapes, drawn.kinds, drawn.shape_sides, strict=True):
                    lines.feature_defaults = {"side": side}
                    lines.add(corners, shape_type=kind, edge_color=COLOURS[side])
                lines.feature_defaults = {"side": self._side}
        finally:
            self._quiet = False

    def toggle_selected(self) -> None:
        """Turn the selected clicks from object to background and back."""
        if self.points is None or not self.points.selected_data:
            return
        features = self.points.features.copy()
        for n in self.points.selected_data:
            was = features.loc[n, "side"]
            features.loc[n, "side"] = {OBJECT: BACKGROUND, BACKGROUND: OBJECT}.get(was, was)
        self.points.features = features
        self._on_points()

    def _colour_points(self) -> None:
        assert self.points is not None
        sides = list(self.points.features["side"])
        if sides:
            self.points.face_color = [COLOURS.get(str(s), "white") for s in sides]

    def _on_points(self, event: Any = None) -> None:
        if self._quiet or getattr(event, "action", "") in ("adding", "removing", "changing"):
            return
        self._quiet = True
        try:
            self._colour_points()
        finally:
            self._quiet = False
        self._changed()

    def _on_shapes(self, event: Any = None) -> None:
        if not self._quiet and getattr(event, "action", "") not in ("adding", "removing", "changing"):
            self._changed()
