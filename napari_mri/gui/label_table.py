"""The table of labels: name, colour, shown, locked, volume; add, remove, merge, reorder, sets of names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels as LabelsLayer
from qtpy.QtCore import QSignalBlocker, Qt, QTimer, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QMenu,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_mri.core.errors import MriError
from napari_mri.gui.choices import Links
from napari_mri.gui.edit_history import Edits
from napari_mri.gui.label_set import LabelSet
from napari_mri.io.label_tables import read_table, write_table

LABEL, NAME, SHOW, LOCK, ML, VOXELS = range(6)
HEADS = ("Label", "Name", "Show", "Lock", "Volume", "Voxels")
_COLOR = Qt.ItemDataRole.UserRole + 1
KINDS = {
    "ITK-SNAP label description (*.label *.txt)": "itksnap",
    "3D Slicer colour table (*.ctbl *.txt)": "slicer",
    "FreeSurfer lookup table (*.txt)": "freesurfer",
    "BIDS segmentation table (*.tsv)": "bids",
}
AGAIN_MS = 150
"""While a thread counts, its answer is asked for this often."""

Amounts = Callable[[], "tuple[dict[int, int] | None, float]"]
"""``amounts() -> (voxels of each label or None while they are counted, ml of a voxel or 0)``."""


class LabelTable(QWidget):
    """One row a label; what is changed here changes the layer.

    Parameters
    ----------
    amounts : callable
        Tells the voxels of each label of the layer shown, and a voxel's volume.
    """

    told = Signal(str)
    """A sentence for the user: why something cannot be done."""
    named = Signal()
    """Names, colours or the list of labels have changed."""
    listed = Signal()
    """Labels have come or gone."""

    def __init__(self, amounts: Amounts) -> None:
        super().__init__()
        self._amounts = amounts
        self._edits: Edits | None = None
        self._layer: LabelsLayer | None = None
        self._links = Links(self)
        self._again = QTimer(self, singleShot=True, interval=AGAIN_MS)
        self._again.timeout.connect(self.refresh)
        self.rows = QTableWidget(0, len(HEADS))
        self.buttons: dict[str, QPushButton] = {}
        self._lay_out()
        self.rows.itemChanged.connect(self._on_item)
        self.rows.itemSelectionChanged.connect(self._on_selected)
        self.rows.cellDoubleClicked.connect(self._on_double)

    def _lay_out(self) -> None:
        self.rows.setHorizontalHeaderLabels(list(HEADS))
        self.rows.verticalHeader().setDefaultSectionSize(22)
        self.rows.verticalHeader().setToolTip("Keys 1 to 9 choose the first nine rows.")
        self.rows.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.rows.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        header = self.rows.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        self.rows.setMinimumHeight(130)
        line = QHBoxLayout()
        for name, title, tip, call in (
            ("add", "Add", "A new label, ready to paint.", self.add),
            ("remove", "Remove", "Take the selected labels and their voxels away; can be undone.", self.remove),
            ("merge", "Merge", "Make the other selected labels part of the first one; can be undone.", self.merge),
            ("up", "▲", "Move up; keys 1 to 9 choose the first nine rows.", lambda: self.move(-1)),
            ("down", "▼", "Move down.", lambda: self.move(1)),
        ):
            button = self.buttons[name] = QPushButton(title)
            button.setToolTip(f"<qt>{tip}</qt>")
            button.clicked.connect(call)
            if title in "▲▼":
                button.setMaximumWidth(32)
            line.addWidget(button)
        names = self.buttons["names"] = QPushButton("Names")
        menu = QMenu(names)
        menu.addAction("Load names …", self.load)
        menu.addAction("Save names …", self.save)
        names.setMenu(menu)
        line.addWidget(names)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(self.rows)
        whole.addLayout(line)

    # -------------------------------------------------------------------------------- showing

    def follow(self, layer: LabelsLayer | None, edits: Edits | None) -> None:
        """Show the labels of another layer."""
        self._links.undo()
        self._layer, self._edits = layer, edits
        if layer is not None and edits is not None:
            self._links.connect(edits.changed, self.refresh)
            self._links.connect(layer.events.selected_label, self._on_label)
            self._links.connect(layer.events.colormap, self.refresh)
        for button in self.buttons.values():
            button.setEnabled(edits is not None)
        self.refresh()

    @property
    def set(self) -> LabelSet | None:
        """Names and colours of the layer shown."""
        return None if self._edits is None else self._edits.labels

    def values(self) -> list[int]:
        """Return the label of each row."""
        return [self.rows.item(n, LABEL).data(Qt.ItemDataRole.UserRole) for n in range(self.rows.rowCount())]

    def selected(self) -> list[int]:
        """Return the labels of the selected rows, in the order of the rows."""
        chosen = {index.row() for index in self.rows.selectionModel().selectedRows()}
        return [value for n, value in enumerate(self.values()) if n in chosen]

    def refresh(self, event: Any = None) -> None:
        """Show what is true now."""
        layer, names, edits = self._layer, self.set, self._edits
        found, ml = self._amounts() if layer is not None and names is not None else ({}, 0.0)
        if found is None:
            self._again.start()
        values = [] if names is None else names.values(found or ())
        blocked = QSignalBlocker(self.rows)
        came = values != self.values()
        if came:
            self.rows.setRowCount(len(values))
            for n, value in enumerate(values):
                self._new_row(n, value)
        for n, value in enumerate(values):
            assert names is not None
            assert edits is not None
            self._color(n, names.color(value))
            self._text(n, NAME, names.names.get(value, ""))
            self._tick(n, SHOW, value not in names.hidden)
            self._tick(n, LOCK, value in edits.rules.locked)
            number = None if found is None else found.get(value, 0)
            self._text(n, ML, "…" if number is None else in_ml(number * ml) if ml else "")
            self._text(n, VOXELS, "…" if number is None else f"{number:,}".replace(",", "\u202f"))
        del blocked
        self._on_label()
        if came:
            self.listed.emit()

    def _new_row(self, row: int, value: int) -> None:
        label = QTableWidgetItem(str(value))
        label.setData(Qt.ItemDataRole.UserRole, value)
        label.setToolTip("Double-click for another colour.")
        name = QTableWidgetItem()
        name.setToolTip("Double-click to give it a name.")
        flags = Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled
        for column in range(len(HEADS)):
            item = {LABEL: label, NAME: name}.get(column) or QTableWidgetItem()
            ticks = column in (SHOW, LOCK)
            item.setFlags(
                flags | Qt.ItemFlag.ItemIsUserCheckable if ticks else
                flags | Qt.ItemFlag.ItemIsEditable if column == NAME else flags
            )  # fmt: skip
            if column in (ML, VOXELS):
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.rows.setItem(row, column, item)

    def _color(self, row: int, color: tuple[float, float, float]) -> None:
        item = self.rows.item(row, LABEL)
        if item.data(_COLOR) != color:  # a picture for each row at each stroke would be felt
            item.setData(_COLOR, color)
            item.setIcon(_swatch(color))

    def _text(self, row: int, column: int, text: str) -> None:
        item = self.rows.item(row, column)
        if item.text() != text:
            item.setText(text)

    def _tick(self, row: int, column: int, on: bool) -> None:
        state = Qt.CheckState.Checked if on else Qt.CheckState.Unchecked
        self.rows.item(row, column).setCheckState(state)

    def _on_label(self, event: Any = None) -> None:
        """Mark the row of the label the brush holds."""
        if self._layer is None or self.set is None:
            return
        value, values = int(self._layer.selected_label), self.values()
        self.set.know(value)
        if value in values and value not in self.selected():
            blocked = QSignalBlocker(self.rows)
            self.rows.selectRow(values.index(value))
            del blocked

    # ------------------------------------------------------------------------------- changing

    def choose(self, row: int) -> None:
        """Take the label of a row onto the brush; nothing if there is no such row."""
        values = self.values()
        if self._layer is not None and 0 <= row < len(values):
            self._layer.selected_label = values[row]

    def _on_selected(self) -> None:
        row = self.rows.currentRow()
        if len(self.selected()) == 1:
            self.choose(self.values().index(self.selected()[0]))
        elif row >= 0 and not self.selected():
            self._on_label()

    def _on_item(self, item: QTableWidgetItem) -> None:
        names, edits = self.set, self._edits
        if names is None or edits is None:
            return
        value, on = self.values()[item.row()], item.checkState() == Qt.CheckState.Checked
        if item.column() == NAME:
            names.rename(value, item.text())
            self._changed()
        elif item.column() == SHOW:
            names.show(value, on)
        elif item.column() == LOCK:
            (edits.rules.locked.add if on else edits.rules.locked.discard)(value)

    def _on_double(self, row: int, column: int) -> None:
        if column == LABEL and self.set is not None:
            value = self.values()[row]
            color = self.ask_color(QColor.fromRgbF(*self.set.color(value)))
            if color.isValid():
                self.set.paint(value, (color.redF(), color.greenF(), color.blueF()))
                self._changed()

    def ask_color(self, now: QColor) -> QColor:
        """Ask for a colour; an invalid one means the user thought better of it."""
        return QColorDialog.getColor(now, self, "Colour of the label")

    def add(self) -> None:
        """List a new label and take it onto the brush."""
        layer, names = self._layer, self.set
        if layer is None or names is None:
            return
        value = max((0, *names.values())) + 1
        if value > np.iinfo(layer.data.dtype).max:  # the log follows the wider array
            layer.data = layer.data.astype(np.promote_types(layer.data.dtype, np.uint16))
        names.add(value, f"Label {value}")
        self._changed()
        layer.selected_label = value

    def remove(self) -> None:
        """Take the selected labels and their voxels away."""
        chosen = self._free_ones()
        if chosen and self._edits is not None and self._layer is not None:
            told = ", ".join(map(str, chosen))
            self._edits.change(np.where(np.isin(self._layer.data, chosen), 0, self._layer.data), f"Remove label {told}")
            for value in chosen:
                self._edits.labels.remove(value)
            self._changed()

    def merge(self) -> None:
        """Make the other selected labels part of the first one."""
        chosen = self._free_ones()
        if len(chosen) < 2 or self._edits is None or self._layer is None:
            if chosen:
                self.told.emit("Select two or more rows to merge (Ctrl-click).")
            return
        first, others = chosen[0], chosen[1:]
        told = ", ".join(map(str, others))
        data = self._layer.data
        self._edits.change(np.where(np.isin(data, others), data.dtype.type(first), data), f"Merge {told} into {first}")
        for value in others:
            self._edits.labels.remove(value)
        self._layer.selected_label = first
        self._changed()

    def _free_ones(self) -> list[int]:
        chosen = self.selected()
        locked = [] if self._edits is None else [value for value in chosen if value in self._edits.rules.locked]
        if locked:
            self.told.emit(f"Label {', '.join(map(str, locked))} is locked: untick Lock first.")
            return []
        return chosen

    def move(self, by: int) -> None:
        """Move the selected label up or down."""
        chosen = self.selected()
        if self.set is not None and len(chosen) == 1:
            self.set.move(chosen[0], by)
            self._changed()

    def load(self) -> None:
        """Ask for a set of names and take it over."""
        path = QFileDialog.getOpenFileName(self, "Load names", "", "Tables of labels (*.txt *.label *.ctbl *.tsv)")[0]
        if path:
            self.load_from(path)

    def load_from(self, path: str | Path) -> None:
        """Take over the names and colours of a file."""
        if self.set is None:
            return
        try:
            self.set.take(read_table(path))
        except MriError as error:
            self.told.emit(str(error))
        self._changed()

    def save(self) -> None:
        """Ask for a file and write the names there."""
        path, kind = QFileDialog.getSaveFileName(self, "Save names", "labels.txt", ";;".join(KINDS))
        if path:
            self.save_to(path, KINDS[kind])

    def save_to(self, path: str | Path, kind: str) -> None:
        """Write names and colours (see `io.label_tables.write_table`)."""
        if self.set is not None:
            try:
                write_table(self.set.table(), path, kind)
            except MriError as error:
                self.told.emit(str(error))

    def _changed(self) -> None:
        self.named.emit()
        self.refresh()


def in_ml(volume: float) -> str:
    """Return a volume in ml with as many decimals as one can believe: 0.123, 12.34, 1361.5 ml."""
    decimals = 3 if volume < 1 else 2 if volume < 100 else 1
    return f"{volume:.{decimals}f} ml"


def _swatch(color: tuple[float, float, float]) -> QIcon:
    picture = QPixmap(12, 12)
    picture.fill(QColor.fromRgbF(*color))
    icon = QIcon(picture)
    icon.addPixmap(picture, QIcon.Mode.Selected)  # Qt would tint it in a selected row
    return icon
