"""From which slice to which slice an answer may reach, set on the slice that is looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from napari.components import ViewerModel
from napari.layers import Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_mri.core.prompts import Slab
from napari_mri.gui.placing import Frame

NAMES = ("axial", "coronal", "sagittal")
"""Slices that follow each other along world axis 0, 1, 2."""
FAR = 1e5
"""mm: an open end."""


class SliceRange(QWidget):
    """"From here", "To here", "All": the answer stays between the slices, for every model.

    Parameters
    ----------
    viewer : napari viewer
    layer : callable
        Returns the layer of the scan, whose spacing tells how thick a slice is.
    frame : callable
        Returns the window's frame.
    """

    changed = Signal()

    def __init__(
        self, viewer: ViewerModel, layer: Callable[[], Layer | None], frame: Callable[[], Frame]
    ) -> None:
        super().__init__()
        self._viewer, self._layer, self._frame = viewer, layer, frame
        self.slab: Slab | None = None
        """The range, in the patient; None for all slices."""
        self.text = QLabel()
        self.buttons = {name: QPushButton(title) for name, title in
                        (("from", "From here"), ("to", "To here"), ("all", "All"))}  # fmt: skip
        self.buttons["from"].clicked.connect(lambda: self.limit("low"))
        self.buttons["to"].clicked.connect(lambda: self.limit("high"))
        self.buttons["all"].clicked.connect(lambda: self.show_slab(None))
        self.buttons["from"].setToolTip("<qt>Nothing below the slice you look at.</qt>")
        self.buttons["to"].setToolTip("<qt>Nothing above the slice you look at.</qt>")
        row = QHBoxLayout()
        row.setContentsMargins(0, 0, 0, 0)
        for button in self.buttons.values():
            row.addWidget(button)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(self.text)
        whole.addLayout(row)
        self._say()

    @property
    def marks(self) -> tuple[Slab, ...]:
        """The range as a prompt; none for all slices."""
        return () if self.slab is None else (self.slab,)

    def limit(self, end: str) -> None:
        """Let the range begin (``"low"``) or end (``"high"``) at the slice that is looked at."""
        layer, dims = self._layer(), self._viewer.dims
        if layer is None or dims.ndisplay != 2 or dims.ndim < 3:
            self.text.setText("Go to the 2D view: a range begins and ends at the slice you look at.")
            return
        axis = dims.order[-3] - (dims.ndim - 3)
        normal = self._frame().axes[:, axis]
        half = float(layer.scale[axis - 3]) / 2
        here = float(dims.point[dims.order[-3]])
        if self.slab is None or abs(float(np.asarray(self.slab.normal) @ normal)) < 0.999:
            self.slab = Slab((float(normal[0]), float(normal[1]), float(normal[2])), -FAR, FAR)
        low, high = self.slab.low, self.slab.high
        if end == "low":
            low, high = here - half, max(high, here + half)
        else:
            low, high = min(low, here - half), here + half
        self.show_slab(dataclasses.replace(self.slab, low=low, high=high))

    def show_slab(self, slab: Slab | None) -> None:
        """Set the range; None takes it away."""
        self.slab = slab
        self._say()
        self.changed.emit()

    def _say(self) -> None:
        self.buttons["all"].setEnabled(self.slab is not None)
        if self.slab is None:
            self.text.setText("All slices")
            return
        along = np.abs(np.asarray(self.slab.normal) @ self._frame().axes)
        name = NAMES[int(along.argmax())] if along.max() > 0.999 else "slanted"
        ends = [f"{value:.1f}" if abs(value) < FAR else "the end" for value in (self.slab.low, self.slab.high)]
        self.text.setText(f"{name.capitalize()} slices from {ends[0]} to {ends[1]} mm")
