"""Rulers and angles in mm, drawn as lines in the window: the widget "Ruler and angle"."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from numpy.typing import ArrayLike
from qtpy.QtWidgets import QHBoxLayout, QLabel, QListWidget, QPushButton, QVBoxLayout, QWidget

from napari_mri.gui.choices import Links
from napari_mri.gui.exact_layers import Shapes
from napari_mri.gui.window import bare, watch

NAME = "rulers"
COLOUR = "#ffb84d"


def measured(corners: ArrayLike) -> str:
    """Return what a line of corners (N, 3) in window mm measures.

    Two corners are a ruler, three an angle at the middle one, more a path. The window's coordinates are millimetres
    along three right-angled directions in the patient, so nothing has to be known of voxels or obliquity.
    """
    places = np.asarray(corners, dtype=float)[:, -3:]
    sides = np.diff(places, axis=0)
    lengths = np.linalg.norm(sides, axis=1)
    if len(places) == 3:
        if lengths.min() == 0:
            return ""
        cosine = np.dot(-sides[0], sides[1]) / lengths.prod()
        return f"{np.degrees(np.arccos(np.clip(cosine, -1, 1))):.1f}°"
    return f"{lengths.sum():.1f} mm"


def tell(layer: Shapes) -> list[str]:
    """Write at every line what it measures, and return it."""
    says = [
        measured(corners) if kind in ("line", "path") else ""
        for corners, kind in zip(layer.data, layer.shape_type, strict=True)
    ]
    before = list(layer.features["says"]) if "says" in layer.features else None
    if before != says:
        layer.features = {"says": np.array(says, dtype=object)}
        layer.refresh_text()
    return says


class Rulers(QWidget):
    """Draw rulers and angles; each tells its measure beside it and in a list.

    Parameters
    ----------
    napari_viewer : napari viewer
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = napari_viewer = bare(napari_viewer)
        watch(napari_viewer)
        self._links = Links(self)
        self._layer: Shapes | None = None
        self.ruler_button, self.angle_button = QPushButton("Ruler"), QPushButton("Angle")
        self.ruler_button.setToolTip("Press, drag, release: on napari's canvas or in a plane")
        self.angle_button.setToolTip(
            "Click three corners on napari's canvas, the middle one is the angle's; double click ends"
        )
        self.remove_button = QPushButton("Remove")
        self.found = QListWidget()
        buttons = QHBoxLayout()
        for button in (self.ruler_button, self.angle_button, self.remove_button):
            buttons.addWidget(button)
        hint = QLabel(
            "Ruler: press and drag. Angle: three clicks, double click on the last. Pick a line of the list to go there."
        )
        hint.setWordWrap(True)
        whole = QVBoxLayout(self)
        whole.addLayout(buttons)
        whole.addWidget(hint)
        whole.addWidget(self.found, 1)
        self.ruler_button.clicked.connect(self.ruler)
        self.angle_button.clicked.connect(self.angle)
        self.remove_button.clicked.connect(self.remove)
        self.found.currentRowChanged.connect(self._on_picked)

    def layer(self) -> Shapes:
        """Return the layer of lines; it is made when the first is drawn."""
        if self._layer is None or self._layer not in self._viewer.layers:
            self._links.undo()
            self._layer = Shapes(
                ndim=3, name=NAME, edge_color=COLOUR, edge_width=1, face_color="transparent", opacity=1, units=("mm",) * 3,
                features={"says": np.array([], dtype=object)},
                text={"string": "{says}", "color": COLOUR, "size": 12, "anchor": "upper_left"},
            )  # fmt: skip
            self._viewer.add_layer(self._layer)
            self._links.connect(self._layer.events.data, self._on_data)
        return self._layer

    def ruler(self) -> None:
        """Make the next drag a ruler."""
        self._begin("add_line")

    def angle(self) -> None:
        """Make the next three clicks an angle."""
        self._begin("add_polyline")

    def _begin(self, mode: str) -> None:
        layer = self.layer()
        layer.rest()
        self._viewer.layers.selection = {layer}
        layer.mode = mode

    def remove(self) -> None:
        """Take the picked line away, or the last one."""
        if self._layer is None or not len(self._layer.data):
            return
        row = self.found.currentRow()
        self._layer.selected_data = {row if row >= 0 else len(self._layer.data) - 1}
        self._layer.remove_selected()
        self._on_data()

    def _on_data(self, event: Any = None) -> None:
        if self._layer is None or getattr(event, "action", None) in ("adding", "changing", "removing"):
            return
        says = tell(self._layer)
        self.found.blockSignals(True)
        self.found.clear()
        for text in says:
            self.found.addItem(text or "…")
        self.found.blockSignals(False)

    def _on_picked(self, row: int) -> None:
        """Go to the slice of a line."""
        if self._layer is not None and 0 <= row < len(self._layer.data):
            middle = np.asarray(self._layer.data[row], dtype=float)[:, -3:].mean(axis=0)
            dims = self._viewer.dims
            axes = [axis for axis in dims.not_displayed if axis >= dims.ndim - 3]
            dims.set_point(axes, [float(middle[axis - (dims.ndim - 3)]) for axis in axes])
