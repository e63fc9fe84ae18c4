"""The box that leads to where the labels are most in doubt: against an uncertainty map or another rater's labels."""

from __future__ import annotations

from typing import Any

from napari.components import ViewerModel
from napari.layers import Image, Layer
from napari.layers import Labels as LabelsLayer
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_mri.core.errors import MriError
from napari_mri.core.volume import Labels, Volume
from napari_mri.edit.look_next import Spot, look_next
from napari_mri.gui import layers as bridge
from napari_mri.gui.choices import LayerChoice
from napari_mri.gui.correct_box import Desk
from napari_mri.gui.edit_history import edits_of

_PLANES = ("axial", "coronal", "sagittal")
"""By the world axis (superior, anterior, right) the slices are stacked along."""


class DoubtBox(QWidget):
    """Steps from slice to slice, the most doubtful first.

    Parameters
    ----------
    desk : Desk
    viewer : napari viewer
    """

    def __init__(self, desk: Desk, viewer: ViewerModel) -> None:
        super().__init__()
        self._desk, self._viewer = desk, viewer
        self._spots: tuple[Spot, ...] = ()
        self._asked: Any = None
        self._here = -1
        self.source = LayerChoice(viewer, (Image, LabelsLayer), "a second mask or an uncertainty map")  # type: ignore[arg-type]
        self.source.follow = False
        self.next_button, self.back_button = QPushButton("Next (D)"), QPushButton("Back (Shift-D)")
        self.says = QLabel(
            "Choose another rater's or model's labels, or an uncertainty or probability map of the same scan. "
            "D goes to the slice where they and your labels disagree most, then to the next."
        )
        self.says.setWordWrap(True)
        rows = QFormLayout()
        rows.addRow("Compare with", self.source)
        line = QHBoxLayout()
        for button, by in ((self.back_button, -1), (self.next_button, 1)):
            button.clicked.connect(lambda _=False, by=by: self.step(by))
            line.addWidget(button)
        whole = QVBoxLayout(self)
        whole.addLayout(rows)
        whole.addLayout(line)
        whole.addWidget(self.says)
        whole.addStretch(1)

    def step(self, by: int = 1) -> None:
        """Go to the next (1) or the last (-1) place of doubt in the plane that is shown."""
        layer, source, plane = self._desk.layer, self.source.layer, self._plane()
        edits = edits_of(layer)
        if layer is None or source is None or source is layer or edits is None:
            self.says.setText("Choose another rater's or model's labels, or an uncertainty map, first.")
            return
        # Corrected slices are taken out of the order when it has been walked through.
        wanted = (id(layer), id(source), plane)
        if wanted == self._asked and 0 <= self._here + by < len(self._spots):
            self._go(self._here + by)
            return
        try:
            labels, other = self._desk.frozen(), self._other(source)
        except MriError as error:
            self._desk.message.show_error(str(error))
            return
        self.says.setText("Looking …")
        self._asked = wanted
        self._desk.start(lambda rt: _spots(labels, other, plane), self._on_found)

    def _other(self, source: Layer) -> Volume:
        layers = self._viewer.layers
        if isinstance(source, LabelsLayer):
            return bridge.labels_of(source, layers)
        return bridge.volume_of(source, layers).titled(source.name)

    def _plane(self) -> str:
        axes = [axis - (self._viewer.dims.ndim - 3) for axis in self._viewer.dims.not_displayed]
        return _PLANES[max((axis for axis in axes if axis >= 0), default=0)]

    def _on_found(self, spots: tuple[Spot, ...]) -> None:
        self._spots = spots
        if spots:
            self._go(0)
        else:
            self._here, self._asked = -1, None
            self.says.setText("They agree everywhere.")

    def _go(self, number: int) -> None:
        self._here = number
        spot = self._spots[number]
        frame = bridge.frame_of(self._viewer.layers)
        if frame is not None:
            world = frame.to_world(spot.at)
            first = self._viewer.dims.ndim - 3
            self._viewer.dims.set_point(range(first, first + 3), [float(v) for v in world])
        x, y, z = spot.at
        self.says.setText(
            f"{number + 1} of {len(self._spots)} slices in doubt: {spot.voxels} voxels about "
            f"({x:.0f}, {y:.0f}, {z:.0f}) mm."
        )


def _spots(labels: Labels, other: Volume, plane: str) -> tuple[Spot, ...]:
    if isinstance(other, Labels):
        return look_next(labels, other=other, plane=plane)
    return look_next(labels, uncertainty=other, plane=plane)
