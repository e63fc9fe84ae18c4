"""The widget for labels: whose voxels they lie on, the label table, correction tools, history, save."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from napari.layers import Labels as LabelsLayer
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QFormLayout, QHBoxLayout, QLabel, QPushButton, QTabWidget, QWidget

from napari_mri.core.errors import MriError
from napari_mri.core.volume import Labels, Volume
from napari_mri.gui import layers as bridge
from napari_mri.gui.choices import LayerChoice, Links
from napari_mri.gui.column import column
from napari_mri.gui.correct_box import CorrectBox
from napari_mri.gui.doubt_box import DoubtBox
from napari_mri.gui.edit_history import edits_of
from napari_mri.gui.history_widget import HistoryList
from napari_mri.gui.label_counts import counts
from napari_mri.gui.label_keys import LabelKeys
from napari_mri.gui.label_table import LabelTable
from napari_mri.gui.labels_saving import LabelsSaver
from napari_mri.gui.message import Message
from napari_mri.gui.paint_box import PaintBox
from napari_mri.gui.recovery import NAMES, RecoveryBar
from napari_mri.gui.window import bare, watch
from napari_mri.gui.worker import EDITS, Job

SETTLE_MS = 300
"""A tilted layer's volumes are counted this long after the last stroke."""
LOOK_MS = 500
"""How often it is looked whether the disk takes the steps."""


class LabelsWidget(QWidget):
    """Name, paint, correct, check and save labels.

    Parameters
    ----------
    napari_viewer : napari viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = napari_viewer = bare(napari_viewer)
        self._job: Job | None = None
        self.layer: LabelsLayer | None = None
        self._picked = False
        self._trouble = ""
        self._exact_counts: dict[int, int] | None = None
        self._settle = QTimer(self, singleShot=True, interval=SETTLE_MS)
        self._settle.timeout.connect(self._count_exact)
        self._links = Links(self)
        watch(napari_viewer)
        self.labels = LayerChoice(napari_viewer, LabelsLayer, "no labels yet")
        self.scan = LayerChoice(napari_viewer, Image, "open a scan first")
        self.new_button, self.place = QPushButton("New labels on this scan"), QLabel()
        self.recovery = RecoveryBar(napari_viewer)
        self.table = LabelTable(self._amounts)
        self.message = Message()
        self.correct, self.doubt = CorrectBox(self, napari_viewer), DoubtBox(self, napari_viewer)
        self.paint, self.history = PaintBox(lambda: self.scan.layer), HistoryList()
        self.saver = LabelsSaver(self)
        self.save_button, self.report_button = QPushButton("Save labels …"), QPushButton("Report …")
        self.keys = LabelKeys(self.table.choose, self.doubt.step)
        self._lay_out()
        self._connect()
        self._on_labels()

    def _lay_out(self) -> None:
        top = QFormLayout()
        top.addRow("Scan", self.scan)
        top.addRow("Labels", self.labels)
        self.place.setWordWrap(True)
        self.tabs = QTabWidget()
        for page, title in (
            (self.correct, "Correct"), (self.paint, "Paint"), (self.doubt, "Look next"), (self.history, "History"),
        ):  # fmt: skip
            self.tabs.addTab(page, title)
        last = QHBoxLayout()
        last.addWidget(self.save_button, 2)
        last.addWidget(self.report_button, 1)
        whole = column(self)
        whole.addWidget(self.recovery)
        whole.addLayout(top)
        for widget in (self.new_button, self.place):
            whole.addWidget(widget)
        whole.addWidget(self.table, 1)
        whole.addWidget(self.tabs)
        whole.addLayout(last)
        whole.addWidget(self.message)

    def _connect(self) -> None:
        self.labels.changed.connect(self._on_labels)
        self.scan.changed.connect(self._refresh)
        self.scan.activated.connect(self._on_picked)
        self.new_button.clicked.connect(self.new_labels)
        self.table.told.connect(self.message.show_error)
        self.table.named.connect(self._on_named)
        self.table.listed.connect(self.paint.fill)
        self.paint.told.connect(self.message.show_error)
        self.paint.keys.toggled.connect(self._bind_keys)
        self.recovery.restored.connect(self._on_restored)
        self.recovery.failed.connect(self.message.show_error)
        self.save_button.clicked.connect(self.save)
        self.report_button.clicked.connect(self.saver.ask_report)
        self._look = QTimer(self, interval=LOOK_MS)
        self._look.timeout.connect(self._look_at_disk)
        self._look.start()
        self.destroyed.connect(_abandoner(self))

    # -------------------------------------------------------------------------------- choosing

    def _on_labels(self) -> None:
        """Follow another labels layer."""
        self._links.undo()
        self.correct.end_preview()
        self.layer = self.labels.layer
        self._picked = False
        self.scan.follow = self.layer is None
        self.message.clear()
        edits, self._exact_counts = edits_of(self.layer), None
        if edits is not None:
            self._links.connect(edits.changed, self._on_changed)
        if self.layer is not None:
            self._links.connect(self.layer.events.data, self._on_data)
            owner = self._owner(self.layer)
            if owner is not None:
                self.scan.choose(owner)
        self.table.follow(self.layer, edits)
        self.paint.follow(edits)
        self.history.follow(edits)
        self._bind_keys()
        self._refresh()

    def _bind_keys(self, _: Any = None) -> None:
        self.keys.follow(self.layer, digits=self.paint.keys.isChecked())

    def _owner(self, layer: LabelsLayer) -> Image | None:
        """Find the open scan that labels lie on."""
        try:
            grid = bridge.record_of(layer, self._viewer.layers).volume.grid
        except MriError:
            return None
        fitting = []
        for other in reversed(self._viewer.layers):
            record = bridge.shown(other)
            if isinstance(other, Image) and record is not None and record.volume.grid.same(grid):
                fitting.append(other)
        if self.scan.layer in fitting:
            return self.scan.layer
        return next((image for image in fitting if image.visible), fitting[0] if fitting else None)

    def _on_picked(self, _: int = 0) -> None:
        self._picked = True
        self._refresh()

    def _meant(self) -> Image | None:
        """Return the scan where the user's word decides, None where the layer itself tells."""
        if self._picked:
            return self.scan.layer
        try:
            bridge.record_of(self.layer, self._viewer.layers)
        except MriError:
            return self.scan.layer
        return None

    def record(self) -> bridge.Shown:
        """Return whose voxels the labels lie on (see `current`)."""
        return bridge.record_of(self.layer, self._viewer.layers, self._meant())

    def current(self) -> Labels:
        """Return the labels as they would be saved.

        Raises
        ------
        GridMismatch
            If nobody can tell whose voxels they lie on.
        """
        return bridge.labels_of(self.layer, self._viewer.layers, self._meant())

    def frozen(self) -> Labels:
        """Return them as a copy that strokes cannot change while it is worked on."""
        labels = self.current()
        data = np.array(labels.data)
        return Labels(data, labels.grid, labels.history, labels.frames, labels.origin, labels.names, labels.colors)

    def grey_values(self, labels: Labels) -> Volume | None:
        """Return the chosen scan if the labels lie on its voxels."""
        layer = self.scan.layer
        if layer is None:
            return None
        scan = bridge.volume_of(layer, self._viewer.layers)
        return scan if scan.grid.same(labels.grid) else None

    def _amounts(self) -> tuple[dict[int, int] | None, float]:
        """Return the voxels of each label, None while a thread counts them, and the ml of a voxel."""
        edits, layer = edits_of(self.layer), self.layer
        if layer is None:
            return {}, 0.0
        try:
            record = self.record()
        except MriError:
            return (counts(np.asarray(layer.data)) if edits is None else edits.counts.ask(layer.data)), 0.0
        if edits is None or not record.placing.exact:  # what is shown is not what is saved
            if self._exact_counts is None and not self._settle.isActive():
                self._settle.start()
            return self._exact_counts, record.volume.grid.voxel_ml
        return edits.counts.ask(layer.data), record.volume.grid.voxel_ml

    def _count_exact(self) -> None:
        """Count the voxels that a tilted layer would be saved as; too slow to be done at each stroke."""
        if self.layer is None:  # closed while the timer ran
            return
        try:
            self._exact_counts = counts(self.current().data)
        except MriError:
            self._exact_counts = {}
        self.table.refresh()

    def _on_changed(self, event: Any = None) -> None:
        self._exact_counts = None

    def count(self) -> None:
        """Count every label's voxels anew: a script may have written into the array."""
        edits, self._exact_counts = edits_of(self.layer), None
        if edits is not None:
            edits.counts.forget()
        self.table.refresh()

    def _on_data(self, event: Any = None) -> None:
        self.table.refresh()

    def _refresh(self) -> None:
        layer, scan = self.layer, self.scan.layer
        self.new_button.setEnabled(scan is not None)
        known = False
        if layer is None:
            begin = "Open a scan first." if scan is None else "Press the button above to draw, or run a model."
            self.place.setText(f"No labels yet. {begin}")
        else:
            try:
                record = self.record()
            except MriError as error:
                self.place.setText(f"⚠ {error}")
            else:
                known = True
                self.place.setText(_where(record))
        free = known and (self._job is None or not self._job.running)
        for widget in (self.correct.preview_button, self.correct.apply_button, self.save_button, self.report_button):
            widget.setEnabled(free)
        for widget in (self.correct.undo_button, self.correct.redo_button):
            widget.setEnabled(layer is not None)
        self.table.refresh()

    # -------------------------------------------------------------------------------- drawing

    def new_labels(self) -> None:
        """Add an empty Labels layer on the chosen scan."""
        layer = self.scan.layer
        if layer is None:
            return
        try:
            scan = bridge.volume_of(layer, self._viewer.layers)
        except MriError as error:
            self.message.show_error(str(error))
            return
        empty = scan.frame(0).with_labels(np.zeros(scan.grid.shape, np.uint8))
        made = bridge.to_layer(empty, bridge.frame_of(self._viewer.layers), name=f"{layer.name.removesuffix(bridge.TILTED)} · labels")
        self._viewer.add_layer(made)
        made.mode = "paint"

    def _on_named(self) -> None:
        """Keep new names where writers and the log find them."""
        edits = edits_of(self.layer)
        if edits is None:
            return
        try:
            told = edits.labels.keep(self.record())
        except MriError:
            return
        edits.note(NAMES, dict(told))
        self.paint.fill()  # under their new names

    def _on_restored(self, layer: LabelsLayer, notes: tuple[str, ...]) -> None:
        self.labels.choose(layer)
        edits = edits_of(layer)
        steps = 0 if edits is None else edits.position - sum(entry.kind == "start" for entry in edits.steps)
        undo = f", with {steps} step{'s' if steps != 1 else ''} to undo" if steps else ""
        self.message.show_good(f"'{layer.name}' is back{undo}. It is not saved yet.")
        if notes:
            self.message.show_warnings(notes)

    def _look_at_disk(self) -> None:
        """Keep the warning in sight for as long as the log cannot be written."""
        edits = edits_of(self.layer)
        trouble = "" if edits is None else edits.trouble
        if trouble and trouble != self._trouble:
            self.message.show_warnings([trouble])
        elif self._trouble and not trouble:
            self.message.show_good("The edit log is being saved again; nothing was lost.")
        self._trouble = trouble

    # ---------------------------------------------------------------------------------- working

    def save(self) -> None:
        """Ask for a file name and save there."""
        self.saver.ask()

    def save_to(self, path: str | Path) -> None:
        """Save the labels on the grid of their scan, whole or not at all."""
        self.saver.save_to(path)

    def start(self, work: Callable[[Any], Any], then: Callable[[Any], None]) -> None:
        """Run something off the window's thread; `then` hears its answer."""
        if self._job is not None and self._job.running:
            self.message.show_error("Something is still being worked on. Wait for it to end.")
            return
        self._job = Job(work, "cpu", EDITS)
        self._job.done.connect(then)
        self._job.done.connect(self._on_over)
        self._job.failed.connect(self._on_failed)
        self._job.start()
        for widget in (self.correct.preview_button, self.correct.apply_button, self.save_button, self.report_button):
            widget.setEnabled(False)

    def _on_over(self, _: Any = None) -> None:
        self._refresh()

    def _on_failed(self, sentence: str) -> None:
        self.message.show_error(sentence)
        self._refresh()


def _where(record: bridge.Shown) -> str:
    size = "×".join(map(str, record.volume.grid.shape))
    step = "×".join(f"{s:.3g}" for s in record.volume.grid.spacing)
    near = (
        ""
        if record.placing.exact
        else " It lies tilted in this window and is interpolated for the eye; strokes go to the nearest voxels."
    )
    return f"Will be saved on the scan's own voxels: {size} at {step} mm.{near}"


def _abandoner(widget: LabelsWidget) -> Callable[..., None]:
    """Return a callback for the widget's end, when only the job and the layer's keys may still be touched."""
    keys = widget.keys

    def abandon(*_: Any) -> None:
        keys.let_go()
        if widget._job is not None:
            widget._job.abandon()

    return abandon
