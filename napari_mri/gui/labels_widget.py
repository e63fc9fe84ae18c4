"""The widget for labels: whose voxels they lie on, volumes in ml, correction tools, save."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from napari.layers import Labels as LabelsLayer
from numpy.typing import NDArray
from qtpy.QtCore import Qt, QTimer
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mri.core.errors import MriError
from napari_mri.core.volume import Labels, Volume
from napari_mri.edit.tools import TOOLS, Tool
from napari_mri.gui import layers as bridge
from napari_mri.gui.choices import LayerChoice, Links
from napari_mri.gui.files import named
from napari_mri.gui.form import Form
from napari_mri.gui.message import Message
from napari_mri.gui.window import watch
from napari_mri.gui.worker import Job
from napari_mri.io import files
from napari_mri.io.formats import all_formats

SETTLE_MS = 300
"""Volumes are counted this long after the last stroke."""


def push_by_napari(layer: LabelsLayer, changed: NDArray[np.bool_], new: NDArray[Any], name: str) -> None:
    """Enter a change as one step into napari's own undo list."""
    where = np.nonzero(changed)
    if where[0].size:
        layer.data_setitem(where, new[where])


push: Callable[[LabelsLayer, NDArray[np.bool_], NDArray[Any], str], None] = push_by_napari
"""How a tool's change enters a layer: ``push(layer, changed, new, name)``, arrays as shown."""


class LabelsWidget(QWidget):
    """Measure, tidy and save what was drawn.

    Parameters
    ----------
    napari_viewer : napari viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._job: Job | None = None
        self._layer: LabelsLayer | None = None
        self._picked = False
        self._links = Links(self)
        watch(napari_viewer)
        self.labels = LayerChoice(napari_viewer, LabelsLayer, "no labels yet")
        self.scan = LayerChoice(napari_viewer, Image, "open a scan first")
        self.new_button = QPushButton("New labels on this scan")
        self.place = QLabel()
        self.table = QTableWidget(0, 3)
        self.tool = QComboBox()
        self.says = QLabel()
        self.form = Form()
        self.apply_button, self.save_button = QPushButton("Apply"), QPushButton("Save labels …")
        self.undo_button, self.redo_button = QPushButton("Undo"), QPushButton("Redo")
        self.message = Message()
        self._lay_out()
        for tool in TOOLS.values():
            if "other" not in tool.needs:
                self.tool.addItem(tool.title, tool)
        self._settle = QTimer(self)
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLE_MS)
        self._settle.timeout.connect(self.count)
        self.labels.changed.connect(self._on_labels)
        self.scan.changed.connect(self._refresh)
        self.scan.activated.connect(self._on_picked)
        self.new_button.clicked.connect(self.new_labels)
        self.tool.currentIndexChanged.connect(self._show_tool)
        self.apply_button.clicked.connect(self.apply)
        self.undo_button.clicked.connect(self.undo)
        self.redo_button.clicked.connect(self.redo)
        self.save_button.clicked.connect(self.save)
        self.destroyed.connect(_abandoner(self))
        self._show_tool()
        self._on_labels()

    def _lay_out(self) -> None:
        top = QFormLayout()
        top.addRow("Scan", self.scan)
        top.addRow("Labels", self.labels)
        self.place.setWordWrap(True)
        self.table.setHorizontalHeaderLabels(["Label", "Name", "Volume"])
        self.table.verticalHeader().setVisible(False)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.Stretch)
        self.table.setMinimumHeight(110)
        self.table.cellClicked.connect(self._select_label)
        self.says.setWordWrap(True)
        tidy = QGroupBox("Correct")
        inside = QVBoxLayout(tidy)
        for widget in (self.tool, self.says, self.form):
            inside.addWidget(widget)
        buttons = QHBoxLayout()
        for widget, stretch in ((self.apply_button, 2), (self.undo_button, 1), (self.redo_button, 1)):
            buttons.addWidget(widget, stretch)
        inside.addLayout(buttons)
        whole = QVBoxLayout(self)
        whole.addLayout(top)
        for widget in (self.new_button, self.place, self.table, tidy, self.save_button, self.message):
            whole.addWidget(widget)
        whole.addStretch(1)

    # -------------------------------------------------------------------------------- choosing

    def _on_labels(self) -> None:
        """Follow another labels layer."""
        self._links.undo()
        self._layer = self.labels.layer
        self._picked = False
        self.scan.follow = self._layer is None
        self.message.clear()
        if self._layer is not None:
            for name in ("paint", "data", "labels_update"):
                self._links.connect(getattr(self._layer.events, name), self._on_edited)
            owner = self._owner(self._layer)
            if owner is not None:
                self.scan.choose(owner)
        self._refresh()

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
            bridge.record_of(self._layer, self._viewer.layers)
        except MriError:
            return self.scan.layer
        return None

    def _record(self) -> bridge.Shown:
        return bridge.record_of(self._layer, self._viewer.layers, self._meant())

    def current(self) -> Labels:
        """Return the labels as they would be saved.

        Raises
        ------
        GridMismatch
            If nobody can tell whose voxels they lie on.
        """
        return bridge.labels_of(self._layer, self._viewer.layers, self._meant())

    def _refresh(self) -> None:
        layer, scan = self._layer, self.scan.layer
        self.new_button.setEnabled(scan is not None)
        known = False
        if layer is None:
            begin = "Open a scan first." if scan is None else "Press the button above to draw, or run a model."
            self.place.setText(f"No labels yet. {begin}")
        else:
            try:
                record = self._record()
            except MriError as error:
                self.place.setText(f"⚠ {error}")
            else:
                known = True
                size = "×".join(map(str, record.volume.grid.shape))
                step = "×".join(f"{s:.3g}" for s in record.volume.grid.spacing)
                near = (
                    ""
                    if record.placing.exact
                    else " It lies tilted in this window and is interpolated for the eye; strokes go to the nearest voxels."
                )
                self.place.setText(f"Will be saved on the scan's own voxels: {size} at {step} mm.{near}")
        free = known and (self._job is None or not self._job.running)
        for widget in (self.apply_button, self.save_button):
            widget.setEnabled(free)
        for widget in (self.undo_button, self.redo_button):
            widget.setEnabled(layer is not None)
        self.count()

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
        made = bridge.to_layer(empty, bridge.frame_of(self._viewer.layers), name=f"{layer.name} · labels")
        self._viewer.add_layer(made)
        made.mode = "paint"

    def undo(self) -> None:
        """Take back the last step."""
        if self._layer is not None:
            self._layer.undo()
            self._on_edited()

    def redo(self) -> None:
        """Do the last step that was taken back again."""
        if self._layer is not None:
            self._layer.redo()
            self._on_edited()

    def _on_edited(self, event: Any = None) -> None:
        self._settle.start()

    def _select_label(self, row: int, column: int) -> None:
        if self._layer is not None:
            self._layer.selected_label = int(self.table.item(row, 0).data(Qt.ItemDataRole.UserRole))

    # ------------------------------------------------------------------------------- measuring

    def count(self) -> None:
        """Show the volume of each label in ml."""
        self._settle.stop()
        layer = self._layer
        rows: list[tuple[int, str, str]] = []
        if layer is not None:
            try:
                record = self._record()
                exact = record.placing.exact
                data = np.asarray(layer.data) if exact else self.current().data
                names = dict(record.volume.names) if isinstance(record.volume, Labels) else {}
                ml = record.volume.grid.voxel_ml
                rows = [(v, names.get(v, ""), in_ml(n * ml)) for v, n in counts(data).items()]
            except MriError:
                rows = [(v, "", f"{n} voxels") for v, n in counts(np.asarray(layer.data)).items()]
        self.table.setRowCount(len(rows))
        for n, (value, name, volume) in enumerate(rows):
            label = QTableWidgetItem(str(value))
            label.setData(Qt.ItemDataRole.UserRole, value)
            colour = layer.get_color(value) if layer is not None else None
            if colour is not None:
                label.setData(Qt.ItemDataRole.DecorationRole, QColor.fromRgbF(*(float(c) for c in colour[:3])))
            amount = QTableWidgetItem(volume)
            amount.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            for column, item in enumerate((label, QTableWidgetItem(name), amount)):
                self.table.setItem(n, column, item)

    # ------------------------------------------------------------------------------ correcting

    def _show_tool(self) -> None:
        tool: Tool | None = self.tool.currentData()
        self.form.show_knobs(tool.knobs if tool else ())
        self.says.setText(tool.says if tool else "")
        if tool and any(knob.name == "label" and knob.low == 0 for knob in tool.knobs):
            self.form.field("label").setSpecialValueText("every label")

    def apply(self) -> None:
        """Run the chosen tool; its change is one step of undo."""
        tool, options = self.tool.currentData(), self.form.values()
        layer = self._layer
        if layer is None or tool is None:
            return
        self.message.clear()
        try:
            record, before = self._record(), _frozen(self.current())
            scan = self._grey_values(before)
        except MriError as error:
            self.message.show_error(str(error))
            return

        def work(rt: Any) -> tuple[Any, ...]:
            after = tool(before, scan=scan, **options)
            new = record.placing.forth(after.data, labels=True)
            changed = new != record.placing.forth(before.data, labels=True)
            return layer, changed, new, after

        self._start(work, self._on_applied)

    def _grey_values(self, labels: Labels) -> Volume | None:
        layer = self.scan.layer
        if layer is None:
            return None
        scan = bridge.volume_of(layer, self._viewer.layers)
        return scan if scan.grid.same(labels.grid) else None

    def _on_applied(self, made: tuple[Any, ...]) -> None:
        layer, changed, new, after = made
        step = after.history[-1]
        count = int(np.count_nonzero(changed))
        if count and new.max() > np.iinfo(layer.data.dtype).max:
            layer.data = layer.data.astype(new.dtype)
        push(layer, changed, new, step.action)
        if count:
            bridge.note(layer, step)
        what = "no change" if not count else "1 voxel changed" if count == 1 else f"{count} voxels changed"
        self.message.show_good(f"{step.action}: {what}.")
        self._refresh()

    # ----------------------------------------------------------------------------------- saving

    def save(self) -> None:
        """Ask for a file name and save there."""
        if self._layer is None:
            return
        path = self.ask_path(str(self.suggested_path()))
        if path:
            self.save_to(path)

    def ask_path(self, suggested: str) -> str:
        """Ask for a file name; an empty one means the user thought better of it."""
        able = [fmt for fmt in all_formats() if fmt.write is not None and "labels" in fmt.holds]
        kinds = ";;".join(f"{fmt.title} ({' '.join('*' + ending for ending in fmt.endings)})" for fmt in able)
        return str(QFileDialog.getSaveFileName(self, "Save labels", suggested, kinds)[0])

    def suggested_path(self) -> Path:
        """Return a file name made of the layer's, in the folder of the scan."""
        layer = self.scan.layer
        record = bridge.shown(layer) if layer is not None else None
        path = Path(record.volume.origin.path) if record is not None and record.volume.origin.path else Path.home()
        folder = path if path.is_dir() else path.parent
        words = re.findall(r"[\w.-]+", self._layer.name if self._layer is not None else "labels")
        return folder / ("_".join(words) + ".nii.gz")

    def save_to(self, path: str | Path) -> None:
        """Save the labels on the grid of their scan, whole or not at all."""
        self.message.clear()
        try:
            labels = _frozen(self.current())
            place = named(path)
        except MriError as error:
            self.message.show_error(str(error))
            return
        self._start(lambda rt: (files.save(labels, place), labels), self._on_saved)

    def _on_saved(self, made: tuple[Path, Labels]) -> None:
        path, labels = made
        if labels.data.any():
            count = len(labels.values)
            what = "1 label" if count == 1 else f"{count} labels"
            self.message.show_good(f"Saved {path}\n{what}, {in_ml(labels.volume_ml())}.")
        else:
            self.message.show_warnings([f"Saved {path}, but it is empty: no voxel is marked."])
        self._refresh()

    def _start(self, work: Callable[[Any], Any], then: Callable[[Any], None]) -> None:
        self._job = Job(work, "cpu")
        self._job.done.connect(then)
        self._job.failed.connect(self._on_failed)
        self._job.start()
        for widget in (self.apply_button, self.save_button):
            widget.setEnabled(False)

    def _on_failed(self, sentence: str) -> None:
        self.message.show_error(sentence)
        self._refresh()


def in_ml(volume: float) -> str:
    """Return a volume in ml with as many decimals as one can believe: 0.123, 12.34, 1361.5 ml."""
    decimals = 3 if volume < 1 else 2 if volume < 100 else 1
    return f"{volume:.{decimals}f} ml"


def counts(data: NDArray[Any]) -> dict[int, int]:
    """Count the voxels of each label value but 0."""
    found: dict[int, int] = {}
    for slab in data:  # slab by slab: bincount makes 8 bytes of every voxel
        if not slab.any():
            continue
        flat = slab.ravel()
        if flat.min() >= 0 and flat.max() < 65536:
            number = np.bincount(flat)
            values = np.nonzero(number)[0]
            pairs = zip(values.tolist(), number[values].tolist(), strict=True)
        else:
            unique, often = np.unique(flat, return_counts=True)
            pairs = zip(unique.tolist(), often.tolist(), strict=True)
        for value, often_here in pairs:
            found[value] = found.get(value, 0) + often_here
    found.pop(0, None)
    return dict(sorted(found.items()))


def _frozen(labels: Labels) -> Labels:
    """Return a copy that strokes cannot change while it is worked on."""
    copy = labels.with_labels(np.array(labels.data), labels.names)
    return Labels(copy.data, labels.grid, labels.history, labels.frames, labels.origin, labels.names, labels.colors)


def _abandoner(widget: LabelsWidget) -> Callable[..., None]:
    """Return a callback for the widget's end, when only the job may still be touched."""

    def abandon(*_: Any) -> None:
        if widget._job is not None:
            widget._job.abandon()

    return abandon
