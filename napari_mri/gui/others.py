"""Further scans that a model takes along, ticked in a short list."""

from __future__ import annotations

from typing import Any

from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QListWidget, QListWidgetItem

from napari_mri.gui.choices import Links


class Others(QListWidget):
    """The window's images but the scan itself; at most so many can be ticked.

    Parameters
    ----------
    viewer : napari viewer
    """

    changed = Signal()
    """Another set is ticked."""

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._scan: Layer | None = None
        self._most = 0
        self._layers: list[Layer] = []
        self.setToolTip("<qt>Further scans of this patient that help: tick them.</qt>")
        self.itemChanged.connect(self._on_ticked)
        self.links = Links(self)
        self.links.connect(viewer.layers.events.inserted, self._refill)
        self.links.connect(viewer.layers.events.removed, self._refill)

    @property
    def layers(self) -> list[Layer]:
        """The ticked layers, in the order of the window's list from the top."""
        ticked = [self.item(row).checkState() == Qt.CheckState.Checked for row in range(self.count())]
        return [layer for layer, tick in zip(self._layers, ticked, strict=True) if tick]

    def offer(self, scan: Layer | None, most: int) -> None:
        """Offer all images but this scan, of which `most` can be ticked."""
        self._scan, self._most = scan, most
        self._refill()

    def tick(self, layer: Layer, on: bool = True) -> None:
        """Tick a layer, as the user does."""
        state = Qt.CheckState.Checked if on else Qt.CheckState.Unchecked
        self.item(self._layers.index(layer)).setCheckState(state)

    def _refill(self, event: Any = None) -> None:
        before = self.layers
        self.blockSignals(True)
        self.clear()
        self._layers = [
            layer
            for layer in reversed(self._viewer.layers)
            if isinstance(layer, Image) and layer is not self._scan and (layer.visible or layer in before)
        ]
        left = self._most
        for layer in self._layers:
            item = QListWidgetItem(layer.name, self)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            ticked = layer in before and left > 0
            left -= ticked
            item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
        height = self.sizeHintForRow(0) if self.count() else 18
        self.setFixedHeight(height * min(max(self.count(), 1), 4) + 6)
        self.blockSignals(False)
        self.changed.emit()

    def _on_ticked(self, item: QListWidgetItem) -> None:
        if len(self.layers) > self._most:  # the one ticked last stays
            self.blockSignals(True)
            for row in range(self.count()):
                if self.item(row) is not item and self.item(row).checkState() == Qt.CheckState.Checked:
                    self.item(row).setCheckState(Qt.CheckState.Unchecked)
                    break
            self.blockSignals(False)
        self.changed.emit()
