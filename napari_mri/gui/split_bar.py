"""A row of a widget that compares two layers on one picture: a switch, and a slider for the line between them."""

from __future__ import annotations

from weakref import ref

from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QSlider, QWidget

from napari_mri.gui.choices import Links
from napari_mri.gui.split import Split, above


class SplitBar(QWidget):
    """Before on the left, after on the right.

    Parameters
    ----------
    viewer : napari viewer
    """

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._pair: tuple[ref[Layer], ref[Layer]] | None = None
        self.split: Split | None = None
        self.switch = QCheckBox("Split before | after")
        self.switch.setToolTip("<qt>The scan left of a line on the picture, the result right of it.</qt>")
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, 1000)
        self.slider.setValue(500)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.switch)
        row.addWidget(self.slider, 1)
        self.switch.toggled.connect(self._on_switch)
        self.slider.valueChanged.connect(self._on_slide)
        self.links = Links(self)
        self.links.connect(viewer.layers.events.removed, self._on_removed)
        self.show_pair(None, None)

    def show_pair(self, before: Layer | None, after: Layer | None) -> None:
        """Compare other layers from now on; with None the row is hidden."""
        self._end()
        there = before is not None and after is not None
        self._pair = (ref(before), ref(after)) if there else None
        self.setVisible(there)
        if self.switch.isChecked():
            self._on_switch(there)

    @property
    def pair(self) -> tuple[Layer, Layer] | None:
        """The layers to compare, if both are still in the window."""
        layers = [] if self._pair is None else [one() for one in self._pair]
        if len(layers) == 2 and all(layer is not None and layer in self._viewer.layers for layer in layers):
            return layers[0], layers[1]  # type: ignore[return-value]
        return None

    def _on_switch(self, on: bool) -> None:
        self._end()
        pair = self.pair
        self.slider.setEnabled(bool(on and pair))
        if not on or pair is None:
            return
        before, after = pair
        before.visible = after.visible = True
        self.split = Split(self._viewer, [before], [after], self.slider.value() / 1000, without=above(self._viewer, pair))

    def _on_slide(self, value: int) -> None:
        if self.split is not None:
            self.split.move(value / 1000)

    def _on_removed(self, event: object) -> None:
        if self._pair is not None and self.pair is None:
            self.show_pair(None, None)

    def _end(self) -> None:
        if self.split is not None:
            self.split.close()
            self.split = None

    def end(self) -> None:
        """Show both layers whole again; for the end of the widget that holds the row."""
        self.links.undo()
        self._end()
