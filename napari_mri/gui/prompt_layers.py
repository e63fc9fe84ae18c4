"""Clicks, boxes and lines as napari layers: drawn there, read as prompts in patient mm, put back by undo."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer

from napari_mri.core.prompts import Box, Extremes, Lasso, Mark, Point, Prompts, Scribble, Slab
from napari_mri.gui.choices import Links
from napari_mri.gui.exact_layers import Points, Shapes
from napari_mri.gui.placing import STRAIGHT, Frame
from napari_mri.gui.prompt_ray import first_seen

OBJECT, BACKGROUND, EXTREME = "object", "background", "outline end"
COLOURS = {OBJECT: "#3ddc84", BACKGROUND: "#ff5c5c", EXTREME: "#5cc8ff"}
CLICKS, LINES = "clicks", "boxes and lines"
STILL_PX = 5
"""A press that moves less than this is a click."""


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

    def sharing(self, before: Snapshot) -> Snapshot:
        """Return the same, with the arrays of an earlier snapshot where they are equal: a scribble is kept once."""
        if np.array_equal(self.points, before.points):
            points = before.points
        else:
            points = self.points
        old = {shape.tobytes(): shape for shape in before.shapes}
        shapes = tuple(old.get(shape.tobytes(), shape) for shape in self.shapes)
        return Snapshot(points, self.sides, shapes, self.kinds, self.shape_sides)

    @classmethod
    def of(cls, prompts: Prompts, frame: Frame) -> tuple[Snapshot, tuple[Mark, ...]]:
        """Return prompts as they are drawn, and those that cannot be drawn (masks, boxes with depth).

        Ranges of slices are left out: they are no drawing.
        """
        points: list[Any] = []
        sides: list[str] = []
        shapes: list[tuple[Any, str, str]] = []
        rest: list[Mark] = []
        for mark in prompts:
            if isinstance(mark, Slab):
                continue
            side = OBJECT if mark.positive else BACKGROUND
            if isinstance(mark, Point):
                points.append(frame.to_world(mark.xyz))
                sides.append(side)
            elif isinstance(mark, Extremes):
                points += list(frame.to_world(mark.points))
                sides += [EXTREME] * len(mark.points)
            elif isinstance(mark, Scribble):
                shapes.append((frame.to_world(mark.points), "polygon" if isinstance(mark, Lasso) else "path", side))
            elif isinstance(mark, Box) and (corners := _corners(mark, frame)) is not None:
                shapes.append((corners, "rectangle", side))
            else:
                rest.append(mark)
        drawn = cls(
            np.array(points, dtype=float).reshape(-1, 3), tuple(sides), tuple(s[0] for s in shapes),
            tuple(s[1] for s in shapes), tuple(s[2] for s in shapes),
        )  # fmt: skip
        return drawn, tuple(rest)

    def prompts(self, frame: Frame) -> Prompts:
        """Return the prompts in patient mm: boxes and outlines first, then clicks, then lines."""
        first: list[Mark] = []
        last: list[Mark] = []
        for corners, kind, side in zip(self.shapes, self.kinds, self.shape_sides, strict=True):
            places = [tuple(p) for p in frame.to_patient(corners)]
            if kind == "rectangle":
                first.append(Box.around(places) if frame.same(STRAIGHT) else Box.around(places, frame.axes.T))
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


def _corners(box: Box, frame: Frame) -> Any:
    """Return the four corners (4, 3) of a box that lies in one plane of the window and along its axes, else None."""
    places = frame.to_world(box.corners()).reshape(-1, 3)
    low, high = places.min(axis=0), places.max(axis=0)
    flat = np.flatnonzero(high - low < 1e-6)
    along = np.minimum(np.abs(places - low), np.abs(places - high)) < 1e-6
    if len(flat) != 1 or not along.all():
        return None
    a, b = (axis for axis in range(3) if axis != flat[0])
    corners = np.tile(low, (4, 1))
    corners[1:3, a], corners[2:4, b] = high[a], high[b]
    return corners


class PromptLayers:
    """The two layers that hold what is drawn; made when needed, gone when the widget goes.

    Parameters
    ----------
    viewer : napari viewer
    links : Links
        Of the widget.
    changed : callable
        Called after every change the user makes; once for a whole drag.
    tell : callable
        Takes a sentence for the user.
    surfaces : callable
        Returns the layers a click in the 3D view may land on, most meant first.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        links: Links,
        changed: Callable[[], None],
        tell: Callable[[str], None] = lambda _: None,
        surfaces: Callable[[], list[Layer]] = list,
    ) -> None:
        self._viewer, self._links, self._changed, self._tell = viewer, links, changed, tell
        self._surfaces = surfaces
        self.points: Points | None = None
        self.shapes: Shapes | None = None
        self._quiet = False
        self._dragging = False
        self._moved = False
        self._mode, self._side = "", OBJECT
        links.connect(viewer.dims.events.ndisplay, self._on_view)
        links.connect(viewer.layers.events.removed, self._on_removed)

    def clicks(self) -> Points:
        """Return the layer of clicks."""
        if self.points is None or self.points not in self._viewer.layers:
            self.points = Points(
                ndim=3, name=CLICKS, size=5, projection_mode="rescale_linear", units=self._units(),
                features={"side": np.array([], dtype=object)}, face_color="white", border_color="black",
            )  # fmt: skip
            self._viewer.add_layer(self.points)
            self._follow(self.points)
            self.points.mouse_drag_callbacks.append(self._click_in_3d)
        return self.points

    def lines(self) -> Shapes:
        """Return the layer of boxes, scribbles and lassos."""
        if self.shapes is None or self.shapes not in self._viewer.layers:
            self.shapes = Shapes(
                ndim=3, name=LINES, edge_width=1.5, face_color="transparent", edge_color=COLOURS[OBJECT],
                features={"side": np.array([], dtype=object)}, units=self._units(),
            )  # fmt: skip
            self._viewer.add_layer(self.shapes)
            self._follow(self.shapes)
        return self.shapes

    def _units(self) -> Any:
        """Return the units of the scans here, whatever they are called: napari complains of others beside them."""
        return next((layer.units[-3:] for layer in self._viewer.layers if isinstance(layer, Image)), ("mm",) * 3)

    def _follow(self, layer: Points | Shapes) -> None:
        for event in (layer.events.data, layer.events.features):
            self._links.connect(event, self._on_event)
        layer.mouse_drag_callbacks.append(self._drag)

    def draw(self, mode: str, side: str) -> None:
        """Make the next stroke in the window a mark of this kind and side."""
        self._rest()
        self._mode, self._side = mode, side
        if mode == "point":
            layer: Any = self.clicks()
            layer.selected_data = set()  # the colour of the next mark would become that of the selected ones, too
            layer.feature_defaults = {"side": side}
            layer.current_face_color = COLOURS[side]
        else:
            layer = self.lines()
            layer.selected_data = set()
            layer.feature_defaults = {"side": side}
            layer.current_edge_color = COLOURS[side]
        self._viewer.layers.selection = {layer}
        self._arm()

    def _rest(self) -> None:
        """End what is being drawn."""
        if self.shapes is not None and self.shapes in self._viewer.layers:
            self.shapes.rest()

    def _arm(self) -> None:
        """Give the layer the mode that draws in this view."""
        flat = self._viewer.dims.ndisplay == 2
        if self._mode == "point":
            # napari's own way of adding puts a click of the 3D view on no surface: see `_click_in_3d`.
            self.clicks().mode = "add" if flat else "pan_zoom"
        elif self._mode:
            drawing = {"box": "add_rectangle", "scribble": "add_path", "lasso": "add_polygon_lasso"}[self._mode]
            self.lines().mode = drawing if flat else "pan_zoom"
            if not flat:
                self._tell("Boxes and lines are drawn in the 2D view; clicks work here, too.")

    def _on_view(self, event: Any = None) -> None:
        here = self._viewer.layers
        if self._mode and (self.points if self._mode == "point" else self.shapes) in here:
            self._arm()

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
            # Not what is still being drawn; and napari may have more rows of features than shapes, or fewer, for a moment.
            whole = self.shapes.nshapes - self.shapes.unfinished
            shapes = tuple(np.array(s, dtype=float) for s in self.shapes.data[:whole])
            kinds = tuple(str(k) for k in self.shapes.shape_type[:whole])
            told = [str(s) for s in self.shapes.features["side"][:whole]]
            ways = (*told, *[self._side] * (whole - len(told)))
        return Snapshot(points, sides, shapes, kinds, ways)

    def restore(self, drawn: Snapshot) -> None:
        """Draw a snapshot again, without telling that anything changed; what is the same is left alone."""
        self._quiet = True
        try:
            self._rest()
            now = self.snapshot()
            points = (now.sides, len(now.points)) != (drawn.sides, len(drawn.points))
            if points or not np.array_equal(now.points, drawn.points):
                layer = self.clicks()
                layer.selected_data = set()  # napari keeps numbers of points that are gone
                layer.data = np.array(drawn.points).reshape(-1, 3)  # a copy: napari moves points in place
                layer.features = {"side": np.array(drawn.sides, dtype=object)}
                layer.feature_defaults = {"side": self._side}  # new features make napari forget it
                self._colour_points()
            bare = Snapshot(EMPTY.points, (), drawn.shapes, drawn.kinds, drawn.shape_sides)
            if not bare.same(Snapshot(EMPTY.points, (), now.shapes, now.kinds, now.shape_sides)):
                lines = self.lines()
                lines.selected_data = set(range(len(lines.data)))
                lines.remove_selected()
                for corners, kind, side in zip(drawn.shapes, drawn.kinds, drawn.shape_sides, strict=True):
                    lines.feature_defaults = {"side": side}
                    lines.add(np.array(corners), shape_type=kind, edge_color=COLOURS[side])
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

    # ------------------------------------------------------------------------------ the mouse

    def _drag(self, layer: Points | Shapes, event: Any) -> Iterator[None]:
        """Hold back what changes between press and release: a drag is one step of undo and one question."""
        self._dragging, self._moved = True, False
        try:
            yield
            while event.type == "mouse_move":
                yield
        finally:
            self._dragging = False
        if self._moved:
            self._moved = False
            self._tell_changed()

    def _click_in_3d(self, layer: Points, event: Any) -> Iterator[None]:
        """Put a click of the 3D view on what is seen under the cursor."""
        if len(event.dims_displayed) != 3 or self._mode != "point" or str(layer.mode) != "pan_zoom":
            return
        began, still = np.asarray(event.pos), event.button == 1
        yield
        while event.type == "mouse_move":
            still &= bool(np.linalg.norm(np.asarray(event.pos) - began) < STILL_PX)
            yield
        if not still:
            return  # the view was turned, or moved
        place = first_seen(self._surfaces(), event)
        if place is None:
            self._tell("There is nothing under the cursor that a click could land on.")
        else:
            layer.add(layer.world_to_data(place))

    # ------------------------------------------------------------------------------ napari's events

    def _colour_points(self) -> None:
        sides = list(self.points.features["side"]) if self.points is not None else []
        if sides and self.points is not None:
            self.points.face_color = [COLOURS.get(str(s), "white") for s in sides]

    def _on_event(self, event: Any) -> None:
        if not self._quiet and getattr(event, "action", "") not in ("adding", "removing", "changing"):
            self._tell_changed()

    def _on_removed(self, event: Any) -> None:
        """Take back the marks of a layer that was deleted."""
        if not self._quiet and event.value in (self.points, self.shapes) and len(event.value.data):
            self._changed()

    def _tell_changed(self) -> None:
        if self._dragging:
            self._moved = True
            return
        self._quiet = True
        try:
            self._colour_points()
        finally:
            self._quiet = False
        self._changed()
