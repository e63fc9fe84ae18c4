"""The box of correction tools: choose one, set its options, apply it as one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels as LabelsLayer
from qtpy.QtWidgets import QComboBox, QFormLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_mri.core.errors import GridMismatch, MriError
from napari_mri.core.volume import Labels, Volume
from napari_mri.edit.guard import Guard
from napari_mri.edit.tools import TOOLS, Tool
from napari_mri.gui import layers as bridge
from napari_mri.gui.choices import LayerChoice
from napari_mri.gui.edit_history import edits_of
from napari_mri.gui.form import Form
from napari_mri.gui.message import Message


class Desk(Protocol):
    """What the box needs of the widget it stands in."""

    message: Message

    @property
    def layer(self) -> LabelsLayer | None:
        """The labels worked on."""

    def record(self) -> bridge.Shown:
        """Whose voxels they lie on."""

    def frozen(self) -> Labels:
        """Return a copy of them on their exact grid."""

    def grey_values(self, labels: Labels) -> Volume | None:
        """Return the scan they lie on."""

    def start(self, work: Callable[[Any], Any], then: Callable[[Any], None]) -> None:
        """Run something off the window's thread."""


class CorrectBox(QWidget):
    """Tools that correct labels.

    Parameters
    ----------
    desk : Desk
    viewer : napari viewer
    """

    def __init__(self, desk: Desk, viewer: ViewerModel) -> None:
        super().__init__()
        self._desk, self._viewer = desk, viewer
        self.tool, self.says, self.form = QComboBox(), QLabel(), Form()
        self.other = LayerChoice(viewer, LabelsLayer, "no second labels")
        self.other.follow = False
        self.apply_button = QPushButton("Apply")
        self.undo_button, self.redo_button = QPushButton("Undo"), QPushButton("Redo")
        self.says.setWordWrap(True)
        second = QFormLayout()
        second.addRow("Second labels", self.other)
        buttons = QHBoxLayout()
        for widget, stretch in ((self.apply_button, 2), (self.undo_button, 1), (self.redo_button, 1)):
            buttons.addWidget(widget, stretch)
        whole = QVBoxLayout(self)
        for part in (self.tool, self.says, self.form):
            whole.addWidget(part)
        self._second = QWidget()
        self._second.setLayout(second)
        whole.addWidget(self._second)
        whole.addLayout(buttons)
        whole.addStretch(1)
        for tool in TOOLS.values():
            self.tool.addItem(tool.title, tool)
        self.tool.currentIndexChanged.connect(self._show_tool)
        self.apply_button.clicked.connect(self.apply)
        self.undo_button.clicked.connect(self.undo)
        self.redo_button.clicked.connect(self.redo)
        self._show_tool()

    def _show_tool(self) -> None:
        tool: Tool | None = self.tool.currentData()
        self.form.show_knobs(tool.knobs if tool else ())
        self.says.setText(tool.says if tool else "")
        self._second.setVisible(bool(tool) and "other" in (*tool.needs, *tool.takes))
        if tool and any(knob.name == "label" and knob.low == 0 for knob in tool.knobs):
            self.form.field("label").setSpecialValueText("every label")

    def undo(self) -> None:
        """Take back the last step."""
        if self._desk.layer is not None:
            self._desk.layer.undo()

    def redo(self) -> None:
        """Make the last step that was taken back again."""
        if self._desk.layer is not None:
            self._desk.layer.redo()

    def apply(self) -> None:
        """Run the chosen tool; its change is one step of undo."""
        desk, tool, options = self._desk, self.tool.currentData(), self.form.values()
        layer, edits = desk.layer, edits_of(desk.layer)
        if layer is None or tool is None or edits is None:
            return
        desk.message.clear()
        try:
            record, before = desk.record(), desk.frozen()
            scan = desk.grey_values(before)
            other = self._second_labels(tool, layer)
        except MriError as error:
            desk.message.show_error(str(error))
            return
        guard, begun = Guard(locked=frozenset(edits.rules.locked)), edits.top

        def work(rt: Any) -> tuple[Any, ...]:
            after = tool(before, scan=scan, other=other, guard=guard, **options)
            new = record.placing.forth(after.data, labels=True)
            changed = new != record.placing.forth(before.data, labels=True)
            return layer, begun, changed, new, after

        desk.start(work, self._on_applied)

    def _second_labels(self, tool: Tool, layer: LabelsLayer) -> Labels | None:
        other = self.other.layer if "other" in (*tool.needs, *tool.takes) else None
        if other is layer:
            if "other" in tool.needs:
                raise GridMismatch(f"{tool.title} needs a second labels layer.", hint="Choose one below its options.")
            return None
        return None if other is None else bridge.labels_of(other, self._viewer.layers)

    def _on_applied(self, made: tuple[Any, ...]) -> None:
        layer, begun, changed, new, after = made
        step, edits = after.history[-1], edits_of(layer)
        if edits is None:  # closed meanwhile
            return
        if edits.top is not begun:  # what was painted meanwhile is kept
            new = np.where(changed, new, layer.data)
        count = edits.change(new, step.action, step=step)
        what = "no change" if not count else "1 voxel changed" if count == 1 else f"{count} voxels changed"
        self._desk.message.show_good(f"{step.action}: {what}.")
