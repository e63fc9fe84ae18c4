"""Every private thing of napari that is used here, with the reason; tests tell when one goes away.

napari's public interface ends at the viewer's model and its dock widgets. What lies beyond is asked
for in this file only, each time with an answer for the day it is gone: a function returns None then,
and the caller does without.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from napari.components import ViewerModel
from qtpy.QtWidgets import QBoxLayout, QWidget


def _qt_viewer(viewer: ViewerModel) -> Any:
    """Return napari's widget that holds the canvas and the sliders.

    `Window._qt_viewer` is private: napari 0.9 offers no other way from a viewer to its canvas.
    """
    window = getattr(viewer, "window", None)
    if window is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(window, "_qt_viewer", None)


def canvas_of(viewer: ViewerModel) -> Any:
    """Return napari's canvas (its `VispyCanvas`), or None.

    `QtViewer.canvas` is private. Its `_scene_canvas` (vispy's canvas) and `layer_to_visual` (which vispy node
    draws a layer) are needed to clip the picture of a layer: napari's model knows no clipping in 2D.
    """
    return getattr(_qt_viewer(viewer), "canvas", None)


def native_of(viewer: ViewerModel) -> QWidget | None:
    """Return the Qt widget napari draws on, or None.

    `VispyCanvas.native` is private. Needed to lay letters and a crosshair over the picture (an overlay of
    napari's own would need its private table of vispy classes) and to hand the keyboard back to napari.
    """
    native = getattr(canvas_of(viewer), "native", None)
    return native if isinstance(native, QWidget) else None


def centre_of(viewer: ViewerModel) -> tuple[QBoxLayout, QWidget] | None:
    """Return the layout in the middle of the window and napari's viewer widget in it, or None.

    That the central widget holds `QtViewer` in a box layout is how napari builds its window, not a promise.
    Needed to put three planes beside the canvas, in one grid with it; docks cannot be arranged in such a grid.
    """
    inner = _qt_viewer(viewer)
    if inner is None:
        return None
    central = inner.window().centralWidget() if hasattr(inner.window(), "centralWidget") else None
    layout = central.layout() if central is not None else None
    if not isinstance(layout, QBoxLayout) or layout.indexOf(inner) < 0:
        return None
    return layout, inner


def leave_overlay(viewer: ViewerModel, overlay: Any) -> bool:
    """Keep napari from drawing one of its canvas overlays; return False if that cannot be done.

    The visuals stand in the private `VispyCanvas._viewer_overlay_to_visual`, and each asks its own private
    `_should_be_visible` whether it is drawn, which is shadowed here. Needed because the model's `visible` must go
    on telling what the user wants: the scale bar is drawn elsewhere (`planes_scale`).
    """
    visuals = _overlay_visuals(viewer, overlay)
    for visual in visuals:
        if visual._should_be_visible is not _never:
            visual._should_be_visible = _never
            visual._on_visible_change()
    return bool(visuals)


def show_overlay(viewer: ViewerModel, overlay: Any) -> None:
    """Undo `leave_overlay`."""
    for visual in _overlay_visuals(viewer, overlay):
        if vars(visual).pop("_should_be_visible", None) is not None:
            visual._on_visible_change()


def around_pictures(viewer: ViewerModel, before: Callable[[], None], after: Callable[[], None]) -> None:
    """Call something before and after napari takes a picture of its canvas alone.

    Shadows the private `VispyCanvas.screenshot` of this one canvas, which all of napari's pictures go through.
    Needed because such a picture holds nothing that lies over the canvas. Undone by `no_longer_around_pictures`.
    """
    canvas = canvas_of(viewer)
    taken = getattr(canvas, "screenshot", None)
    if taken is None:
        return

    def screenshot() -> Any:
        before()
        try:
            return taken()
        finally:
            after()

    canvas.screenshot = screenshot


def no_longer_around_pictures(viewer: ViewerModel) -> None:
    """Undo `around_pictures`."""
    canvas = canvas_of(viewer)
    if canvas is not None:
        vars(canvas).pop("screenshot", None)


def _overlay_visuals(viewer: ViewerModel, overlay: Any) -> list[Any]:
    found = getattr(canvas_of(viewer), "_viewer_overlay_to_visual", {}).get(overlay, ())
    return [v for v in found if hasattr(v, "_should_be_visible") and hasattr(v, "_on_visible_change")]


def _never() -> bool:
    return False
