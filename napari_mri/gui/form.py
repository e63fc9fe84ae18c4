"""A form that grows from the options of a model or a tool, each told once as a `knob`."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QFormLayout,
    QLabel,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_mri.core.model import Knob

FAR = 1_000_000
SHORT = ("csf", "snr")
"""Option names that are abbreviations."""


POINT = "Point at an option to read what it does."


class Form(QWidget):
    """Rows of labelled fields; below them, what the one under the pointer does.

    Parameters
    ----------
    knobs : tuple of Knob
        May be replaced by `show_knobs`.
    """

    changed = Signal()
    """An option has another value."""

    def __init__(self, knobs: tuple[Knob, ...] = ()) -> None:
        super().__init__()
        self._rows = QFormLayout()
        self._rows.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        self.hint.setStyleSheet("color: #9aa3ad;")
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addLayout(self._rows)
        whole.addWidget(self.hint)
        self._fields: dict[str, tuple[Knob, QWidget]] = {}
        self._left: dict[tuple[Knob, ...], dict[str, Any]] = {}
        self.show_knobs(knobs)

    def show_knobs(self, knobs: tuple[Knob, ...]) -> None:
        """Replace all fields; what was set when the same were shown before is set again."""
        self._left[tuple(knob for knob, _ in self._fields.values())] = self.values()
        while self._rows.rowCount():
            self._rows.removeRow(0)
        self._fields = {}
        before = self._left.get(knobs, {})
        for knob in knobs:
            field = make_field(knob)
            label = QLabel(title_of(knob))
            for widget in (field, label):
                widget.setToolTip(f"<qt>{knob.says}</qt>")  # rich text, so that long sentences wrap
                widget.setProperty("says", f"{title_of(knob)}: {knob.says}")
                widget.installEventFilter(self)
            self._rows.addRow(label, field)
            self._fields[knob.name] = (knob, field)
            if knob.name in before:
                write_field(knob, field, before[knob.name])
            _when_changed(field).connect(self.changed)
        self.hint.setText(POINT)
        self.setVisible(bool(knobs))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Tell what an option does when the pointer or the keyboard comes to it."""
        if event.type() in (QEvent.Type.Enter, QEvent.Type.FocusIn):
            says = watched.property("says")
            if says:
                self.hint.setText(says)
        return bool(super().eventFilter(watched, event))

    def values(self) -> dict[str, Any]:
        """Return what the user has set, by option name."""
        return {name: read_field(knob, field) for name, (knob, field) in self._fields.items()}

    def set_value(self, name: str, value: Any) -> None:
        """Set one field."""
        write_field(*self._fields[name], value)

    def field(self, name: str) -> QWidget:
        """Return the widget of an option."""
        return self._fields[name][1]


def title_of(knob: Knob) -> str:
    """Return an option's name as a person reads it: ``below_ml`` -> "Below"."""
    words = knob.name.split("_")
    if len(words) > 1 and words[-1] == knob.unit:
        words = words[:-1]
    title = " ".join(words)
    return title.upper() if title in SHORT else title[:1].upper() + title[1:]


def _when_changed(field: QWidget) -> Any:
    """Return the signal by which a field tells that it has another value; of a text, that it is finished."""
    for kind, name in ((QComboBox, "currentIndexChanged"), (QCheckBox, "toggled"), (QLineEdit, "editingFinished")):
        if isinstance(field, kind):
            return getattr(field, name)
    return field.valueChanged  # type: ignore[attr-defined]


def make_field(knob: Knob) -> QWidget:
    """Make the field for an option, set to its default."""
    field: QWidget
    if knob.choices:
        field = QComboBox()
        for choice in knob.choices:
            field.addItem(str(choice).replace("_", " "), choice)
    elif knob.type is bool:
        field = QCheckBox()
    elif knob.type is int:
        field = QSpinBox()
        field.setRange(-FAR if knob.low is None else int(knob.low), FAR if knob.high is None else int(knob.high))
    elif knob.type is float:
        field = QDoubleSpinBox()
        low, high = -FAR if knob.low is None else knob.low, FAR if knob.high is None else knob.high
        span = high - low if knob.low is not None and knob.high is not None else 10.0
        field.setDecimals(3 if span <= 1 or 0 < abs(knob.default) < 0.1 else 2 if span <= 5 else 1)
        field.setRange(low, high)
        field.setSingleStep(0.05 if span <= 1 else 0.1 if span <= 5 else 0.5)
    else:
        field = QLineEdit()
    if knob.unit and isinstance(field, (QSpinBox, QDoubleSpinBox)):
        field.setSuffix(f" {knob.unit}")
    write_field(knob, field, knob.default)
    return field


def read_field(knob: Knob, field: QWidget) -> Any:
    """Return the value of a field in the option's type."""
    if isinstance(field, QComboBox):
        return field.currentData()
    if isinstance(field, QCheckBox):
        return field.isChecked()
    if isinstance(field, (QSpinBox, QDoubleSpinBox)):
        return field.value()
    assert isinstance(field, QLineEdit)
    return field.text()


def write_field(knob: Knob, field: QWidget, value: Any) -> None:
    """Put a value into a field."""
    if isinstance(field, QComboBox):
        field.setCurrentIndex(knob.choices.index(value))
    elif isinstance(field, QCheckBox):
        field.setChecked(bool(value))
    elif isinstance(field, (QSpinBox, QDoubleSpinBox)):
        field.setValue(value)
    else:
        assert isinstance(field, QLineEdit)
        field.setText(str(value))
