"""Two layers on one picture: one left of a line, the other right of it; the line can be moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import ref

from napari.components import ViewerModel
from napari.layers import Image, Layer
from vispy.visuals.filters import Clipper

from napari_mri.gui.napari_private import canvas_of

SEAM = 2
"""Pixels left free between the two sides, so that the line is seen."""
_FAR = 1e6


def above(viewer: ViewerModel, pair: tuple[Layer, Layer]) -> list[Layer]:
    """Return the other scans that lie above one of a pair, and would hide it."""
    lowest = min(map(viewer.layers.index, pair))
    return [layer for layer in viewer.layers[lowest:] if isinstance(layer, Image) and layer not in pair]


class Split:
    """Show some layers left of (below) a line on the canvas only, others right of (above) it only.

    The line stands on the screen: scrolling, zooming and turning go on beneath it. Nothing is copied, and
    other layers are shown whole, but for those that are to be left out. It works in 2D and 3D, for as long
    as both sides have a layer in the window.

    Parameters
    ----------
    viewer : napari viewer
    first, second : layers
        Left and right of the line.
    at : float
        Where the line stands, 0 to 1 of the canvas.
    upright : bool
        False for a level line: `first` is then above it.
    without : layers
        Not shown meanwhile: they would hide both sides.
    canvas : napari canvas, optional
        Another than the viewer's own.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        first: Iterable[Layer],
        second: Iterable[Layer],
        at: float = 0.5,
        *,
        upright: bool = True,
        without: Iterable[Layer] = (),
        canvas: Any = None,
    ) -> None:
        self._viewer = viewer
        self._canvas = canvas_of(viewer) if canvas is None else canvas
        self._upright = upright
        self._sides, self._without = (tuple(first), tuple(second)), tuple(without)
        self._clips: dict[int, tuple[Any, Clipper]] = {}
        self.at = at
        self.closed = self._canvas is None
        self._undo: list[Callable[[], Any]] = []
        if self.closed:
            return
        me = ref(self)  # napari must not keep a split alive that its widget has let go of
        for emitter, call in (
            (self._canvas._scene_canvas.events.resize, _calls(me, "_place")),
            (self._canvas._scene_canvas.events.draw, _calls(me, "_on_draw")),
            (viewer.layers.events.removed, _calls(me, "_on_removed")),
        ):
            emitter.connect(call)
            self._undo.append(partial(emitter.disconnect, call))
        self._place()

    def move(self, at: float) -> None:
        """Put the line elsewhere, 0 to 1 of the canvas from the left (from the top)."""
        self.at = min(max(float(at), 0.0), 1.0)
        self._place()

    def close(self) -> None:
        """Show both sides whole again; calling it twice does nothing."""
        if self.closed:
            return
        self.closed = True
        while self._undo:
            self._undo.pop()()
        for node, clip in self._clips.values():
            node.detach(clip)
        self._clips = {}
        self._redraw()

    def _place(self) -> None:
        if self.closed:
            return
        width, height = self._canvas._scene_canvas.physical_size
        # The frame buffer counts from below.
        line = self.at * width if self._upright else (1 - self.at) * height
        low, high = (-_FAR, _FAR + line - SEAM / 2), (line + SEAM / 2, _FAR)
        spans = (low, high) if self._upright else (high, low)
        for layers, (start, length) in zip(self._sides, spans, strict=True):
            box = (start, -_FAR, length, 2 * _FAR) if self._upright else (-_FAR, start, 2 * _FAR, length)
            for layer in layers:
                self._clip(layer, box)
        for layer in self._without:
            self._clip(layer, (_FAR, _FAR, 0.0, 0.0))
        self._redraw()

    def _clip(self, layer: Layer, box: tuple[float, float, float, float]) -> None:
        drawn = self._canvas.layer_to_visual.get(layer)
        if drawn is None:
            return
        node, clip = self._clips.get(id(layer), (None, None))
        if node is not drawn.node:  # another node draws it in 3D
            if node is not None:
                node.detach(clip)
            clip = Clipper()
            drawn.node.attach(clip)
            self._clips[id(layer)] = (drawn.node, clip)
        assert clip is not None, "made together with its node"
        clip.bounds = box

    def _on_draw(self) -> None:
        """Follow a layer to another node: napari draws it by another one in 3D, and when it grows very large."""
        drawn = self._canvas.layer_to_visual
        clipped = (layer for side in (*self._sides, self._without) for layer in side)
        if any(layer in drawn and self._node(layer) is not drawn[layer].node for layer in clipped):
            self._place()

    def _node(self, layer: Layer) -> Any:
        return self._clips[id(layer)][0] if id(layer) in self._clips else None

    def _on_removed(self) -> None:
        here = set(self._viewer.layers)
        if not all(any(layer in here for layer in side) for side in self._sides):
            self.close()

    def _redraw(self) -> None:
        with suppress(RuntimeError):  # Qt's half of the canvas may have gone with its window
            self._canvas._scene_canvas.update()


def _calls(me: ref[Split], name: str) -> Callable[[Any], None]:
    def call(event: Any) -> None:
        here = me()
        if here is not None:
            getattr(here, name)()

    return call
