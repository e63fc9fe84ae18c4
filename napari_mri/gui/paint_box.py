"""The box that says where painting is allowed: inside a label, inside a range of grey values."""

from __future__ import annotations

from collections.abc import Callable

from napari.layers import Image
from qtpy.QtCore import QSignalBlocker, Signal
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QFormLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_mri.core.errors import MriError
from napari_mri.gui.edit_history import Edits

KEYS_TEXT = (
    "While this is on and the labels are selected, 1 to 9 take the label of that row onto the brush. napari's own "
    "tools stay on their letters: E erase, P paint, F fill, L pick, Z move. The polygon, which napari has on 3 only, "
    "moves to O; the transform tool (7) is on its button."
)


class PaintBox(QWidget):
    """Rules for the brush.

    Parameters
    ----------
    scan : callable
        ``scan() -> Image or None``: the scan whose grey values are meant.
    """

    told = Signal(str)

    def __init__(self, scan: Callable[[], Image | None]) -> None:
        super().__init__()
        self._scan = scan
        self._edits: Edits | None = None
        self.inside = QComboBox()
        self.inside.setToolTip("<qt>Brush, fill, polygon and accepted answers change voxels of this label only.</qt>")
        self.range = QCheckBox("Only grey values from")
        self.low, self.high = QDoubleSpinBox(), QDoubleSpinBox()
        self.keys = QCheckBox("Keys 1 to 9 choose labels")
        self.keys.setChecked(True)
        self.keys.setToolTip(f"<qt>{KEYS_TEXT}</qt>")
        for field in (self.low, self.high):
            field.setRange(-1e7, 1e7)
            field.setDecimals(1)
            field.setKeyboardTracking(False)
            field.valueChanged.connect(self._on_range)
        rows = QFormLayout()
        rows.addRow("Paint", self.inside)
        line = QHBoxLayout()
        for part in (self.range, self.low, QLabel("to"), self.high):
            line.addWidget(part)
        line.addStretch(1)
        locks = QLabel("A locked label is changed by no brush, tool or model. Undo alone may go behind a lock.")
        hint = QLabel(KEYS_TEXT)
        for text in (locks, hint):
            text.setWordWrap(True)
            text.setStyleSheet("color: #9aa3ad;")
        whole = QVBoxLayout(self)
        whole.addLayout(rows)
        whole.addLayout(line)
        for part in (locks, self.keys, hint):
            whole.addWidget(part)
        whole.addStretch(1)
        self.inside.activated.connect(self._on_inside)
        self.range.toggled.connect(self._on_range)

    def follow(self, edits: Edits | None) -> None:
        """Show the rules of another layer."""
        self._edits = edits
        blocked = QSignalBlocker(self.range)
        window = None if edits is None else edits.rules.window
        self.range.setChecked(window is not None)
        if window is not None:
            for field, value in zip((self.low, self.high), window, strict=True):
                inner = QSignalBlocker(field)
                field.setValue(value)
                del inner
        del blocked
        self.fill()

    def fill(self) -> None:
        """List the labels one can paint inside of, under the names they have now."""
        edits = self._edits
        self.inside.clear()
        self.inside.addItem("everywhere", None)
        if edits is None:
            return
        self.inside.addItem("on the background only", 0)
        for value in edits.labels.values():
            name = edits.labels.names.get(value, "")
            self.inside.addItem(f"inside label {value}" + (f" · {name}" if name else ""), value)
        self.inside.setCurrentIndex(max(0, self.inside.findData(edits.rules.inside)) if edits.rules.inside is not None else 0)

    def _on_inside(self, _: int = 0) -> None:
        if self._edits is not None:
            self._edits.rules.inside = self.inside.currentData()

    def _on_range(self, _: object = None) -> None:
        edits, scan = self._edits, self._scan()
        if edits is None:
            return
        if self.range.isChecked() and self.low.value() == self.high.value() == 0 and scan is not None:
            for field, value in zip((self.low, self.high), scan.contrast_limits, strict=True):
                inner = QSignalBlocker(field)
                field.setValue(float(value))
                del inner
        window = (self.low.value(), self.high.value()) if self.range.isChecked() else None
        try:
            edits.rules.stay_between(window, scan, edits.layer.data.shape)
        except MriError as error:
            edits.rules.stay_between(None, None, edits.layer.data.shape)
            self.told.emit(str(error))
