"""What widgets choose alike: a layer of the window, a device; and connections that end with their widget."""

from __future__ import annotations

import sys
from collections.abc import Callable
from ctypes.util import find_library
from typing import Any

from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QSizePolicy, QWidget

from napari_mri.engine.device import DEVICES, has_torch

DEVICE_TITLES = {"auto": "Automatic", "cuda": "NVIDIA GPU (CUDA)", "mps": "Apple GPU (MPS)", "cpu": "Processor (CPU)"}


PREVIEW = "napari_mri_preview"
"""In the metadata of the layer that shows the answer to clicks, or a model's work on a slab: it is no layer to choose."""


class Links:
    """Connections to napari's events that are undone when a widget goes.

    napari outlives widgets; an event that reaches a deleted one is an error in the user's face.

    Parameters
    ----------
    owner : QWidget
    """

    def __init__(self, owner: QWidget) -> None:
        self._undo: list[Callable[[], Any]] = []
        owner.destroyed.connect(self.undo)

    def connect(self, emitter: Any, callback: Callable[..., Any]) -> None:
        """Connect a callback to a napari event emitter."""
        emitter.connect(callback)
        self._undo.append(lambda: emitter.disconnect(callback))

    def undo(self, *_: Any) -> None:
        """Disconnect everything."""
        while self._undo:
            self._undo.pop()()


class LayerChoice(QComboBox):
    """Pick a layer of one kind; newest on top, as in napari's list.

    Parameters
    ----------
    viewer : napari viewer
    kind : type
        Such as `napari.layers.Image`.
    nothing : str
        What stands there while no such layer is open.
    or_nothing : bool
        Whether `nothing` can be chosen beside layers, too.
    """

    changed = Signal()
    """Another layer is chosen now, by the user or because layers came or went."""

    def __init__(self, viewer: ViewerModel, kind: type[Layer], nothing: str, or_nothing: bool = False) -> None:
        super().__init__()
        self._viewer, self._kind, self._nothing, self._or_nothing = viewer, kind, nothing, or_nothing
        self._layers: list[Layer] = []
        self.follow = True
        """Whether a new layer is chosen as soon as it comes."""
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.links = Links(self)
        self.links.connect(viewer.layers.events.inserted, self._on_inserted)
        self.links.connect(viewer.layers.events.removed, self._on_removed)
        self.links.connect(viewer.layers.events.reordered, self._refill)
        self._refill()
        self.activated.connect(lambda _: self.changed.emit())

    @property
    def layer(self) -> Layer | None:
        """The chosen layer."""
        here = self.currentIndex()
        return self._layers[here] if 0 <= here < len(self._layers) else None

    def choose(self, layer: Layer | None) -> None:
        """Choose a layer, if it is in the list."""
        if layer is self.layer or not (layer in self._layers or (layer is None and self._or_nothing)):
            return
        self.setCurrentIndex(len(self._layers) if layer is None else self._layers.index(layer))
        self.changed.emit()

    def showPopup(self) -> None:
        """Open the list, under the names the layers have by now."""
        self._refill()
        super().showPopup()

    def _on_inserted(self, event: Any) -> None:
        self._refill()
        # By-products of a run come hidden: nobody means those.
        if self.follow and isinstance(event.value, self._kind) and event.value.visible:
            self.choose(event.value)

    def _on_removed(self, event: Any) -> None:
        self._refill()

    def _refill(self, event: Any = None) -> None:
        before, count = self.layer, len(self._layers)
        self._layers = [
            layer
            for layer in reversed(self._viewer.layers)
            if isinstance(layer, self._kind) and PREVIEW not in layer.metadata
        ]
        self.blockSignals(True)
        self.clear()
        for layer in self._layers:
            self.addItem(layer.name)
        if not self._layers or self._or_nothing:
            self.addItem(self._nothing)
        if before in self._layers:
            self.setCurrentIndex(self._layers.index(before))
        elif before is None and count:  # nothing was chosen, though there was something
            self.setCurrentIndex(len(self._layers))
        self.setEnabled(bool(self._layers))
        self.blockSignals(False)
        if self.layer is not before:
            self.changed.emit()


class DeviceChoice(QComboBox):
    """Pick what computes; what is not here is grey and says why.

    A guess without importing torch, which would hold up the window for seconds.
    """

    def __init__(self) -> None:
        super().__init__()
        reasons = {"auto": "", "cpu": "", "cuda": "", "mps": ""}
        if not has_torch():
            reasons |= dict.fromkeys(("cuda", "mps"), "needs torch: pip install 'napari-mri-workbench[models]'")
        elif sys.platform == "darwin":
            reasons["cuda"] = "Apple machines have no CUDA"
        else:
            reasons["mps"] = "only on Apple machines"
            if find_library("cuda") is None and find_library("nvcuda") is None:
                reasons["cuda"] = "no NVIDIA driver was found"
        for name in DEVICES:
            self.addItem(DEVICE_TITLES[name] + (f" ({reasons[name]})" if reasons[name] else ""), name)
            self.model().item(self.count() - 1).setEnabled(not reasons[name])
