"""Two scans on one picture: a line between them, one after the other, or one through the other."""

from __future__ import annotations

from typing import Any

from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QComboBox, QFormLayout, QLabel, QSlider, QVBoxLayout, QWidget

from napari_mri.gui.choices import LayerChoice
from napari_mri.gui.message import Message
from napari_mri.gui.split import Split, above
from napari_mri.gui.window import bare, watch

OFF, FADE, BLINK, SPLIT, LEVEL = "Off", "Fade", "Blink", "Split left and right", "Split above and below"
SLOWEST_MS, FASTEST_MS = 1600, 150


class Compare(QWidget):
    """Look at one scan through another.

    The layers' own opacity and visibility are as they were when the comparison ends.

    Parameters
    ----------
    napari_viewer : napari viewer
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = napari_viewer = bare(napari_viewer)
        watch(napari_viewer)
        self._before: dict[Any, tuple[float, bool, str]] = {}
        self._split: Split | None = None
        self.first = LayerChoice(napari_viewer, Image, "Open a scan first")
        self.second = LayerChoice(napari_viewer, Image, "Open a scan first")
        self.first.follow = False
        self.how = QComboBox()
        self.how.addItems([OFF, FADE, BLINK, SPLIT, LEVEL])
        self.amount = QSlider(Qt.Orientation.Horizontal)
        self.amount.setRange(0, 100)
        self.amount.setValue(50)
        self.message = Message()
        self._timer = QTimer(self)
        self._timer.timeout.connect(self._swap)
        form = QFormLayout(None)
        for name, field in (("First", self.first), ("Second", self.second), ("Show", self.how), ("", self.amount)):
            form.addRow(name, field)
        hint = QLabel("The slider is the share of the second scan, the pace of the blinking, or the place of the line.")
        hint.setWordWrap(True)
        whole = QVBoxLayout(self)
        whole.addLayout(form)
        whole.addWidget(hint)
        whole.addWidget(self.message)
        whole.addStretch(1)
        self.how.currentTextChanged.connect(self.show_how)
        self.amount.valueChanged.connect(self._on_amount)
        for choice in (self.first, self.second):
            choice.changed.connect(self._again)
        self.destroyed.connect(_ender(self._before))

    def show_how(self, how: str) -> None:
        """Compare in one of the ways, or (`OFF`) no longer."""
        self.stop()
        self.message.clear()
        first, second = self.first.layer, self.second.layer
        if how == OFF:
            return
        if first is None or second is None or first is second:
            self.message.show_error("Choose two different scans.")
            return
        for layer in (first, second, *above(self._viewer, (first, second))):
            self._before[layer] = (layer.opacity, layer.visible, str(layer.blending))
            layer.visible = layer in (first, second)
        first.opacity = second.opacity = 1.0
        if how in (SPLIT, LEVEL):
            self._split = Split(self._viewer, (first,), (second,), self.amount.value() / 100, upright=how == SPLIT)
            return
        self._upper(first, second)
        if how == BLINK:
            self._pace()
            self._timer.start()
        self._on_amount()

    def _on_amount(self, _: int = 0) -> None:
        how, first, second = self.how.currentText(), self.first.layer, self.second.layer
        share = self.amount.value() / 100
        if self._split is not None:
            self._split.move(share)
        elif how == BLINK:
            self._pace()
        elif how == FADE and self._before:
            upper = self._upper(first, second)
            upper.opacity = share if upper is second else 1 - share

    def _pace(self) -> None:
        share = self.amount.value() / 100
        self._timer.setInterval(round(SLOWEST_MS * (FASTEST_MS / SLOWEST_MS) ** share))

    def _swap(self) -> None:
        """Show the other one: opacity, since napari would cut a layer anew that becomes visible."""
        first, second = self.first.layer, self.second.layer
        if first is None or second is None or not self._before:
            return
        upper = self._upper(first, second)
        upper.opacity = 0.0 if upper.opacity > 0 else 1.0

    def _upper(self, first: Any, second: Any) -> Any:
        """Return the layer that lies above the other by now, and make that one whole: only the upper can be seen through."""
        lower, upper = sorted((first, second), key=self._viewer.layers.index)
        lower.opacity, upper.blending = 1.0, "translucent"
        return upper

    def stop(self) -> None:
        """Show both as they were before."""
        self._timer.stop()
        if self._split is not None:
            self._split.close()
            self._split = None
        _restore(self._before)

    def _again(self) -> None:
        if self.how.currentText() != OFF:
            self.show_how(self.how.currentText())


def _restore(before: dict[Any, tuple[float, bool, str]]) -> None:
    while before:
        layer, (opacity, visible, blending) = before.popitem()
        layer.blending, layer.opacity, layer.visible = blending, opacity, visible


def _ender(before: dict[Any, tuple[float, bool, str]]) -> Any:
    """Return what gives the layers their looks back when only the widget's C++ half is left."""

    def end(*_: Any) -> None:
        _restore(before)

    return end
