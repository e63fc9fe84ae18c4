"""The dialog that asks which series of a folder to open: a picture and a name each, all ticked."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QSize, Qt, Signal
from qtpy.QtGui import QIcon, QImage, QPixmap
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QHBoxLayout,
    QLabel,
    QListWidget,
    QListWidgetItem,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mri.core.errors import Cancelled, MriError
from napari_mri.core.volume import Volume
from napari_mri.gui.placing import Frame, Placing
from napari_mri.io.formats import Found

SIDE = 96
"""Of a thumbnail, pixels."""
KEEP_BYTES = 1 << 30
"""Voxels read for thumbnails are kept up to this much, so that they are not read twice."""


class SeriesDialog(QDialog):
    """Tick the series to open.

    Patients and studies are told by number, and can be looked at one by one; names and dates are
    read and shown only while *Show names* is ticked.

    Parameters
    ----------
    found : tuple of Found
    parent : QWidget, optional
    """

    def __init__(self, found: tuple[Found, ...], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.found = found
        self.setWindowTitle("Which series?")
        self.setMinimumSize(520, 420)
        self.list = QListWidget()
        self.list.setIconSize(QSize(SIDE, SIDE))
        self.list.setSpacing(2)
        blank = QPixmap(SIDE, SIDE)
        blank.fill(Qt.GlobalColor.black)
        for one in found:
            item = QListWidgetItem(QIcon(blank), "")
            item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(Qt.CheckState.Checked)
            if one.problem:
                _refuse(item)
            self.list.addItem(item)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Open | QDialogButtonBox.StandardButton.Cancel)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        every, none = QPushButton("Tick all"), QPushButton("Tick none")
        every.clicked.connect(lambda: self.tick(True))
        none.clicked.connect(lambda: self.tick(False))
        self.list.itemChanged.connect(self._refresh)
        self.list.itemDoubleClicked.connect(self._only)
        below = QHBoxLayout()
        for widget in (every, none, self.buttons):
            below.addWidget(widget)
        self._why = {n: one.problem for n, one in enumerate(found) if one.problem}
        self.group, self.names = QComboBox(), QCheckBox("Show names")
        self._lay_out_choice()
        whole = QVBoxLayout(self)
        whole.addWidget(QLabel(f"This folder holds {len(found)} series. Tick those to open; a double click opens one."))
        whole.addLayout(self._above)
        whole.addWidget(self.list)
        whole.addLayout(below)
        self._say()
        self._refresh()
        self._pictures = _Pictures(found)
        self._pictures.made.connect(self._show_picture, Qt.ConnectionType.QueuedConnection)
        self._pictures.broken.connect(self._show_broken, Qt.ConnectionType.QueuedConnection)
        self._pictures.start()
        self.finished.connect(self._pictures.stop)

    def _lay_out_choice(self) -> None:
        """Offer patients and studies one by one, and names, where there are any."""
        self._above = QHBoxLayout()
        groups = list(dict.fromkeys(one.group[:n] for one in self.found for n in range(1, len(one.group) + 1)))
        if groups:
            self.group.addItem("All patients and studies", ())
            for group in groups:
                self.group.addItem(", ".join(group), group)
            self.group.currentIndexChanged.connect(self._filter)
            self._above.addWidget(self.group, 1)
        if any(one.who is not None for one in self.found):
            self.names.setToolTip("Names, numbers and dates are read from the files only while this is ticked.")
            self.names.toggled.connect(self._say)
            self._above.addWidget(self.names)

    def _say(self, *_: Any) -> None:
        """Write each row: its title, whose it is if that was asked for, why it will not open."""
        blocked = self.list.blockSignals(True)
        for n, one in enumerate(self.found):
            who = one.who() if self.names.isChecked() and one.who is not None else ""
            self.list.item(n).setText("\n".join(filter(None, (one.title, who, self._why.get(n, "")))))
        self.list.blockSignals(blocked)

    def _filter(self, *_: Any) -> None:
        group = tuple(self.group.currentData() or ())
        for n, one in enumerate(self.found):
            self.list.item(n).setHidden(one.group[: len(group)] != group)
        self._refresh()

    @classmethod
    def ask(cls, found: tuple[Found, ...]) -> tuple[Volume, ...]:
        """Show the dialog and return what was ticked.

        Raises
        ------
        Cancelled
            If it was dismissed.
        """
        dialog = cls(found, QApplication.activeWindow())
        try:
            if not dialog.exec():
                raise Cancelled("No series was opened.")
            return dialog.volumes()
        finally:
            dialog._pictures.stop()
            dialog.deleteLater()

    @property
    def ticked(self) -> tuple[int, ...]:
        """Numbers of the series that are ticked, of the patient and study looked at."""
        rows = [(n, self.list.item(n)) for n in range(self.list.count())]
        return tuple(n for n, row in rows if not row.isHidden() and row.checkState() == Qt.CheckState.Checked)

    def volumes(self) -> tuple[Volume, ...]:
        """Return the ticked series, read at most once."""
        read = self._pictures.stop()
        return tuple(read[n] if n in read else self.found[n].open() for n in self.ticked)

    def tick(self, on: bool) -> None:
        """Tick all that can be opened, or none."""
        for item in map(self.list.item, range(self.list.count())):
            if item.flags() & Qt.ItemFlag.ItemIsEnabled:
                item.setCheckState(Qt.CheckState.Checked if on else Qt.CheckState.Unchecked)

    def _only(self, item: QListWidgetItem) -> None:
        if item.flags() & Qt.ItemFlag.ItemIsEnabled:
            self.tick(False)
            item.setCheckState(Qt.CheckState.Checked)
            self.accept()

    def _refresh(self) -> None:
        self.buttons.button(QDialogButtonBox.StandardButton.Open).setEnabled(bool(self.ticked))

    def _show_picture(self, number: int, picture: NDArray[np.uint8]) -> None:
        height, width = picture.shape
        image = QImage(picture.tobytes(), width, height, width, QImage.Format.Format_Grayscale8)
        pixmap = QPixmap.fromImage(image).scaled(
            SIDE, SIDE, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
        )
        self.list.item(number).setIcon(QIcon(pixmap))

    def _show_broken(self, number: int, why: str) -> None:
        item = self.list.item(number)
        self._why[number] = why
        self._say()
        _refuse(item)


def _refuse(item: QListWidgetItem) -> None:
    item.setCheckState(Qt.CheckState.Unchecked)
    item.setFlags(Qt.ItemFlag.NoItemFlags)


class _Pictures(QObject):
    """Reads the series one after the other, off the window's thread, and makes a picture of each."""

    made = Signal(int, object)
    broken = Signal(int, str)

    def __init__(self, found: tuple[Found, ...]) -> None:
        super().__init__()
        self._found = found
        self._stop = threading.Event()
        self._read: dict[int, Volume] = {}
        self._thread = threading.Thread(target=self._run, name="napari-mri thumbnails")

    def start(self) -> None:
        self._thread.start()

    def stop(self, *_: Any) -> dict[int, Volume]:
        """Stop after the series being read, and return what was read."""
        self._stop.set()
        self._thread.join()
        return self._read

    def _run(self) -> None:
        kept = 0
        for number, one in enumerate(self._found):
            if self._stop.is_set():
                return
            if one.problem:
                continue
            try:
                volume = one.open()
                picture = thumbnail(volume)
            except MriError as error:
                self.broken.emit(number, str(error))
                continue
            kept += volume.data.nbytes
            if kept <= KEEP_BYTES:
                self._read[number] = volume
            self.made.emit(number, picture)


def thumbnail(volume: Volume) -> NDArray[np.uint8]:
    """Return the middle slice in the plane of acquisition, front or head up, right on the left.

    Returns
    -------
    ndarray of uint8, (rows, columns), pixels square to within a factor of two
    """
    still = volume.frame(0)
    placing = Placing(still.grid, Frame.of(still.grid))
    shown = placing.forth(still.data) if placing.exact else np.asarray(still.turned("SAR").data)
    axis = int(np.argmin(shown.shape))
    picture = np.asarray(shown.take(shown.shape[axis] // 2, axis=axis), dtype=np.float32)[::-1, ::-1]
    steps = np.delete(placing.scale, axis)
    repeat = np.maximum(1, np.round(steps / steps.min())).astype(int)
    picture = picture.repeat(repeat[0], axis=0).repeat(repeat[1], axis=1)
    low, high = np.nanpercentile(picture, (1, 99.5))
    grey = np.nan_to_num((picture - low) / max(high - low, 1e-12))
    return np.asarray(255 * np.clip(grey, 0, 1), dtype=np.uint8)
