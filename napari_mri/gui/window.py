"""How a window is set up for patients: which way is up, a scale in mm, and new layers known at once."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any
from weakref import WeakSet, ref

from napari.components import ViewerModel
from napari.layers import Layer
from napari.utils.notifications import show_error, show_warning

from napari_mri.core.errors import MriError
from napari_mri.core.volume import Volume
from napari_mri.gui import layers as bridge
from napari_mri.gui import settings
from napari_mri.gui.edit_history import follow
from napari_mri.gui.window_level import shift_drag

PLANES = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}
"""Order of the world axes (superior, anterior, right) in each view: slider, up, across."""

RADIOLOGICAL = "radiological"
"""Under this name the side of the patient's right is remembered."""

_watched: WeakSet[ViewerModel] = WeakSet()


def bare(viewer: ViewerModel) -> ViewerModel:
    """Return the viewer itself where napari hands over a stand-in for it, as it does to a script that opens a widget.

    The stand-in wraps all that is asked of it: a layer is then not the layer, and Qt does not know its own widgets.
    """
    itself: ViewerModel = getattr(viewer, "__wrapped__", viewer)
    return itself


def watch(viewer: ViewerModel) -> None:
    """Know each new layer of a window from the start, and set the window up at its first scan.

    Calling it again does nothing.
    """
    if viewer in _watched:
        return
    if not _watched and (danger := unsafe_binding()):
        show_warning(danger)
    _watched.add(viewer)
    window = ref(viewer)

    def on_inserted(event: Any) -> None:
        here = window()
        if here is not None:
            welcome(event.value, here)

    def on_turned(event: Any) -> None:
        here = window()
        if here is not None:
            say_plane(here)

    viewer.layers.events.inserted.connect(on_inserted)
    viewer.dims.events.order.connect(on_turned)
    viewer.dims.events.ndisplay.connect(on_turned)
    viewer.scene.camera.events.orientation.connect(on_turned)
    viewer.mouse_drag_callbacks.append(shift_drag)
    for layer in viewer.layers:
        welcome(layer, viewer)
    follow(viewer)


def welcome(layer: Layer, viewer: ViewerModel) -> None:
    """Adopt a layer; set the window up if it is the first scan."""
    selected = viewer.layers.selection.active
    known = bridge.adopt(layer, viewer.layers, prefer=None if selected is layer else selected)
    if known and sum(bridge.shown(other) is not None for other in viewer.layers) == 1:
        arrange(viewer, layer)


def arrange(viewer: ViewerModel, layer: Layer) -> None:
    """Show patients as radiologists expect: front up, patient's right on the left, scale in mm.

    Who has switched to the patient's right on the right once finds it so in the next window.

    A scan of a single slice is looked at along that slice; all others from below, slice by slice
    up the body.
    """
    scale_bar = viewer.canvas.overlays.scale_bar
    scale_bar.visible = True
    viewer.canvas.overlays.text.position = "top_center"
    record = bridge.shown(layer)
    assert record is not None, "only known layers are arranged"
    shape = record.placing.shape
    plane = next((name for name, order in PLANES.items() if shape[order[0]] == 1), "axial")
    look(viewer, plane, radiological=settings.recall(RADIOLOGICAL, True))


def look(viewer: ViewerModel, plane: str, *, radiological: bool = True) -> None:
    """Turn the window to a plane.

    Parameters
    ----------
    viewer : napari viewer
    plane : str
        ``"axial"``, ``"coronal"`` or ``"sagittal"``.
    radiological : bool
        Whether the patient's right is on the screen's left (in sagittal views the front is left).
    """
    extra = viewer.dims.ndim - 3
    viewer.dims.order = (*range(extra), *(extra + axis for axis in PLANES[plane]))
    # Never by a negative scale: brushes and writers would have to know about it.
    viewer.scene.camera.orientation2d = ("up", "left" if radiological else "right")
    viewer.reset_view()
    say_plane(viewer)


def say_plane(viewer: ViewerModel) -> None:
    """Write onto the picture which plane is shown and on which side the patient's right is."""
    text = viewer.canvas.overlays.text
    shown = tuple(axis - (viewer.dims.ndim - 3) for axis in viewer.dims.order[-2:])
    known = any(bridge.shown(layer) is not None for layer in viewer.layers)
    if not known or viewer.dims.ndim < 3 or viewer.dims.ndisplay != 2 or viewer.scene.camera.orientation2d[0] != "up":
        text.visible = False
        return
    mirrored = viewer.scene.camera.orientation2d[1] == "left"
    sides = {
        (1, 2): "Axial · patient's right is on the " + ("left" if mirrored else "right"),
        (0, 2): "Coronal · patient's right is on the " + ("left" if mirrored else "right"),
        (0, 1): "Sagittal · front is on the " + ("left" if mirrored else "right"),
    }
    text.text = sides.get(shown, "")
    text.visible = shown in sides


def unsafe_binding() -> str:
    """Return why this Qt binding may kill the window, or an empty text."""
    if "PySide6" not in sys.modules or sys.version_info >= (3, 12):
        return ""
    if getattr(sys.modules["PySide6"], "__version__", "") != "6.12.0":
        return ""
    # Measured: sys.getrefcount(None) falls by one at every call that returns nothing, by 60 at a slice step.
    return (
        "PySide6 6.12.0 with this Python ends napari after some thousand slice steps, and unsaved work is lost. "
        "Save often, and run: pip install 'PySide6!=6.12.0'"
    )


def tell(volumes: Iterable[Volume]) -> None:
    """Show what the files had to be told about."""
    for volume in volumes:
        for sentence in volume.origin.warnings:
            show_warning(f"{volume.title}: {sentence}" if volume.title else sentence)


def tell_error(error: MriError) -> None:
    """Show a known error as one sentence and the way out."""
    show_error(str(error))
