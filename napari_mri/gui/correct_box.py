"""The box of correction tools: choose one, set its options, apply it as one step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels as LabelsLayer
from napari.utils.colormaps import DirectLabelColormap
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
        self.preview_button, self.apply_button = QPushButton("Preview"), QPushButton("Apply")
        self.preview_button.setToolTip("<qt>Shows what would change, and changes nothing: green comes, red goes.</qt>")
        self._preview: LabelsLayer | None = None
        self._ready: tuple[Any, tuple[Any, ...]] | None = None
        self.undo_button, self.redo_button = QPushButton("Undo"), QPushButton("Redo")
        self.says.setWordWrap(True)
        second = QFormLayout()
        second.addRow("Second labels", self.other)
        buttons = QHBoxLayout()
        for widget, stretch in (
            (self.preview_button, 1), (self.apply_button, 2), (self.undo_button, 1), (self.redo_button, 1),
        ):  # fmt: skip
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
        self.preview_button.clicked.connect(self.preview)
        self.apply_button.clicked.connect(self.apply)
        self.undo_button.clicked.connect(self.undo)
        self.redo_button.clicked.connect(self.redo)
        self._show_tool()

    def _show_tool(self) -> None:
        self.end_preview()
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
        """Run the chosen tool; its change is one step of undo. What was previewed is not worked out again."""
        ready, self._ready = self._ready, None
        if ready is not None and ready[0] == self._question():
            self._on_applied(ready[1])
            return
        self._run(self._on_applied)

    def preview(self) -> None:
        """Show what the chosen tool would change, and change nothing."""
        self._run(self._on_previewed)

    def _question(self) -> tuple[Any, ...]:
        """Return all that the answer depends on."""
        edits = edits_of(self._desk.layer)
        locked = () if edits is None else tuple(sorted(edits.rules.locked))
        top = None if edits is None else id(edits.top)
        options = tuple(sorted(self.form.values().items()))
        return self.tool.currentText(), options, id(self._desk.layer), id(self.other.layer), top, locked

    def _run(self, then: Callable[[tuple[Any, ...]], None]) -> None:
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

        desk.start(work, then)

    def _on_previewed(self, made: tuple[Any, ...]) -> None:
        """Lay what would change over the labels."""
        self.end_preview()
        layer, _, changed, new, after = made
        if edits_of(layer) is None:
            return
        count = int(np.count_nonzero(changed))
        self._desk.message.show_good(f"{after.history[-1].action} would change {count} voxel{'s' if count != 1 else ''}.")
        self._ready = self._question(), made
        if not count:
            return
        shown = np.where(changed, np.where(new != 0, 1, 2), 0).astype(np.uint8)
        colors = {None: (0.0, 0.0, 0.0, 0.0), 0: (0.0, 0.0, 0.0, 0.0), 1: (0.2, 1.0, 0.3, 1.0), 2: (1.0, 0.2, 0.2, 1.0)}
        preview = LabelsLayer(
            shown, name="preview", scale=layer.scale, translate=layer.translate, units=layer.units,
            axis_labels=layer.axis_labels, opacity=0.8,
            colormap=DirectLabelColormap(color_dict=colors), visible=False,
        )  # fmt: skip
        preview.editable = False
        self._viewer.add_layer(preview)  # hidden at first: the newest visible layer would be chosen for work
        preview.visible = True
        self._viewer.layers.selection.active = layer
        self._preview = preview

    def end_preview(self) -> None:
        """Take the preview away."""
        self._ready = None
        preview, self._preview = self._preview, None
        if preview is not None and preview in self._viewer.layers:
            self._viewer.layers.remove(preview)

    def _second_labels(self, tool: Tool, layer: LabelsLayer) -> Labels | None:
        other = self.other.layer if "other" in (*tool.needs, *tool.takes) else None
        if other is layer:
            if "other" in tool.needs:
                raise GridMismatch(f"{tool.title} needs a second labels layer.", hint="Choose one below its options.")
            return None
        return None if other is None else bridge.labels_of(other, self._viewer.layers)

    def _on_applied(self, made: tuple[Any, ...]) -> None:
        self.end_preview()
        layer, begun, changed, new, after = made
        step, edits = after.history[-1], edits_of(layer)
        if edits is None:  # closed meanwhile
            return
        if edits.top is not begun:  # what was painted meanwhile is kept
            new = np.where(changed, new, layer.data)
        count = edits.change(new, step.action, step=step)
        what = "no change" if not count else "1 voxel changed" if count == 1 else f"{count} voxels changed"
        self._desk.message.show_good(f"{step.action}: {what}.")
