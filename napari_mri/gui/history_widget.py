"""The list of steps of a Labels layer: click one to go back to it, or forward."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from napari.components import ViewerModel
from napari.layers import Labels as LabelsLayer
from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtGui import QColor, QFont
from qtpy.QtWidgets import QFormLayout, QLabel, QListWidget, QListWidgetItem, QVBoxLayout, QWidget

from napari_mri.edit.entry import Entry
from napari_mri.gui.choices import LayerChoice, Links
from napari_mri.gui.edit_history import Edits, edits_of
from napari_mri.gui.window import bare, watch

_STROKE = re.compile(r"(?:Brush|Fill|Polygon) (\d+)$")
_UNDONE = QColor("#8a8f96")


class HistoryList(QListWidget):
    """Named steps, oldest first; those undone are grey, the present one is bold."""

    def __init__(self) -> None:
        super().__init__()
        self._edits: Edits | None = None
        self._shown: list[tuple[Entry | None, str, bool, bool]] = []
        self._links = Links(self)
        self.setMinimumHeight(60)
        self.itemClicked.connect(self._on_clicked)

    def follow(self, edits: Edits | None) -> None:
        """Show the steps of another layer."""
        self._links.undo()
        self._edits = edits
        if edits is not None:
            self._links.connect(edits.changed, self.refresh)
        self.refresh()

    def refresh(self, event: Any = None) -> None:
        """Show what is true now; rows that stay are left alone."""
        edits = self._edits
        rows: list[tuple[Entry | None, str, bool, bool]] = []
        if edits is not None:
            done = edits.position
            if not edits.steps or edits.steps[0].kind != "start":
                rows.append((None, "Empty", True, done == 0))
            names = edits.labels.names
            rows += [(entry, _named(entry.name, names), n < done, n == done - 1) for n, entry in enumerate(edits.steps)]
        blocked = QSignalBlocker(self)
        while self.count() > len(rows):
            self.takeItem(self.count() - 1)
        for n, row in enumerate(rows):
            if n >= self.count():
                self.addItem(QListWidgetItem())
            elif n < len(self._shown) and self._shown[n] == row:
                continue
            _fill(self.item(n), *row)
        self._shown = rows
        here = next((n for n, row in enumerate(rows) if row[3]), -1)
        if here >= 0:
            self.setCurrentRow(here)
            self.scrollToItem(self.item(here))
        del blocked

    def _on_clicked(self, item: QListWidgetItem) -> None:
        if self._edits is not None:
            row = self.row(item)
            self._edits.go_to(row if self._shown and self._shown[0][0] is None else row + 1)


def _named(step: str, names: Mapping[int, str]) -> str:
    """Return a stroke's name with that of its label: ``"Brush 3 · spleen"``."""
    found = _STROKE.match(step)
    name = names.get(int(found[1]), "") if found else ""
    return f"{step} · {name}" if name else step


def _fill(item: QListWidgetItem, entry: Entry | None, name: str, done: bool, now: bool) -> None:
    when = "" if entry is None else time.strftime("%H:%M:%S", time.localtime(entry.time)) + "   "
    item.setText(f"{when}{name}")
    if entry is not None:
        item.setToolTip(f"{entry.voxels} voxel{'s' if entry.voxels != 1 else ''}. Click to go here.")
    font = QFont()
    font.setBold(now)
    font.setItalic(not done)
    item.setFont(font)
    item.setData(Qt.ItemDataRole.ForegroundRole, None if done else _UNDONE)


class HistoryWidget(QWidget):
    """The steps of a chosen Labels layer in a dock of its own.

    Parameters
    ----------
    napari_viewer : napari viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = napari_viewer = bare(napari_viewer)
        watch(napari_viewer)
        self.labels = LayerChoice(napari_viewer, LabelsLayer, "no labels yet")
        self.list = HistoryList()
        self.says = QLabel("Click a step to go there. Ctrl-Z and Ctrl-Shift-Z go one back and forth.")
        self.says.setWordWrap(True)
        rows = QFormLayout()
        rows.addRow("Labels", self.labels)
        whole = QVBoxLayout(self)
        whole.addLayout(rows)
        whole.addWidget(self.list, 1)
        whole.addWidget(self.says)
        self._links = Links(self)
        self._links.connect(napari_viewer.layers.selection.events.active, self._on_active)
        self.labels.changed.connect(self._on_labels)
        self._on_active()
        self._on_labels()

    def _on_active(self, event: Any = None) -> None:
        active = self._viewer.layers.selection.active
        if isinstance(active, LabelsLayer):
            self.labels.choose(active)

    def _on_labels(self) -> None:
        self.list.follow(edits_of(self.labels.layer))
