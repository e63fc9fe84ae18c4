"""Widgets above each other fit a low window; the wheel scrolls them and changes no field that was not chosen."""

import pytest

pytest.importorskip("napari", reason="napari is not installed (extra 'gui')")

from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QComboBox, QFormLayout, QPushButton, QSpinBox, QWidget

from napari_mri.gui import layers as bridge
from napari_mri.gui.column import LEAST, Column, column
from tests.scans import GRIDS, head


@pytest.fixture
def tall(qtbot):
    outer = QWidget()
    layout, form = column(outer), QFormLayout()
    layout.addLayout(form)
    outer.spin, outer.combo = QSpinBox(), QComboBox()
    outer.combo.addItems(["one", "two", "three"])
    outer.combo.setCurrentIndex(1)
    outer.spin.setValue(7)
    form.addRow("spin", outer.spin)
    form.addRow("combo", outer.combo)
    for n in range(20):
        layout.addWidget(QPushButton(f"button {n}"))
    qtbot.addWidget(outer)
    outer.resize(outer.minimumSizeHint().width(), 220)
    outer.show()
    qtbot.waitExposed(outer)
    outer.bar = outer.findChild(Column).verticalScrollBar()
    return outer


def turn_wheel(field):
    """Turn the wheel towards the user over a field."""
    middle = QPointF(field.rect().center())
    event = QWheelEvent(
        middle, QPointF(field.mapToGlobal(field.rect().center())), QPoint(0, -120), QPoint(0, -120),
        Qt.MouseButton.NoButton, Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(field, event)
    return event


def test_all_can_be_scrolled_to(tall):
    assert tall.bar.maximum() > 0
    assert tall.minimumSizeHint().height() <= LEAST
    widest = max(button.minimumSizeHint().width() for button in tall.findChildren(QPushButton))
    assert tall.findChild(Column).viewport().width() >= widest
    tall.bar.setValue(tall.bar.maximum())
    last = tall.findChildren(QPushButton)[-1]
    assert not last.visibleRegion().isEmpty()


@pytest.mark.parametrize("name", ["spin", "combo"])
def test_the_wheel_changes_only_a_field_that_was_chosen(tall, qtbot, name):
    field = getattr(tall, name)
    value = field.value if name == "spin" else field.currentIndex
    before = value()
    event = turn_wheel(field)
    assert value() == before
    assert not event.isAccepted()  # so what scrolls gets it
    tall.activateWindow()
    field.setFocus()
    qtbot.waitUntil(field.hasFocus)
    turn_wheel(field)
    assert value() == before + (-1 if name == "spin" else 1)


def test_a_low_window_stays_low(window, qtbot):
    from napari_mri.gui.labels_widget import LabelsWidget
    from napari_mri.gui.prompt_widget import PromptWidget
    from napari_mri.gui.run_widget import RunWidget

    window.add_layer(bridge.to_layer(head(GRIDS["plain"])))
    widgets = [kind(window) for kind in (PromptWidget, LabelsWidget, RunWidget)]
    shell = window.window._qt_window
    shell.resize(1200, 850)
    for widget in widgets:
        window.window.add_dock_widget(widget, name=type(widget).__name__)
    qtbot.wait(300)
    assert shell.height() <= 850
    for widget in widgets:
        assert widget.height() >= LEAST
        assert widget.findChild(Column).viewport().width() >= widget.findChild(Column).widget().minimumSizeHint().width()
