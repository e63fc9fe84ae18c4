"""The widget "Window and level": automatic limits and presets, told apart by the scan's contrast."""

from __future__ import annotations

from napari.components import ViewerModel
from napari.layers import Image
from qtpy.QtWidgets import QComboBox, QFormLayout, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_mri.gui import window_level
from napari_mri.gui.choices import LayerChoice, Links
from napari_mri.gui.message import Message
from napari_mri.gui.window import bare, watch


class WindowWidget(QWidget):
    """Choose brightness and contrast of a scan, and keep what suits as a preset of its contrast.

    Parameters
    ----------
    napari_viewer : napari viewer
    """

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        napari_viewer = bare(napari_viewer)
        watch(napari_viewer)
        self._links = Links(self)
        self._layer: Image | None = None
        self.scan = LayerChoice(napari_viewer, Image, "Open a scan first")
        self.contrast = QComboBox()
        self.contrast.addItems([*window_level.CONTRASTS, window_level.OTHER])
        self.contrast.setToolTip("Presets are kept apart by contrast; guessed from the name of the scan")
        self.preset = QComboBox()
        self.preset.setEditable(True)
        self.preset.setToolTip("Choose a preset, or write a new name and press Keep")
        self.auto_button, self.whole_button = QPushButton("Auto"), QPushButton("All values")
        self.auto_button.setToolTip("From the background to the brightest of what is inside the head")
        self.keep_button, self.drop_button = QPushButton("Keep"), QPushButton("Drop")
        self.shows = QLabel()
        self.message = Message()
        form = QFormLayout()
        for name, field in (("Scan", self.scan), ("Contrast", self.contrast), ("Preset", self.preset)):
            form.addRow(name, field)
        keep, limits = QHBoxLayout(), QHBoxLayout()
        for row, buttons in (
            (keep, (self.keep_button, self.drop_button)),
            (limits, (self.auto_button, self.whole_button)),
        ):
            for button in buttons:
                row.addWidget(button)
        hint = QLabel(
            "Shift and drag on napari's canvas, or drag with the right button in a plane: right is wider, up is brighter."
        )
        hint.setWordWrap(True)
        whole = QVBoxLayout(self)
        for part in (form, keep, limits):
            whole.addLayout(part)
        for widget in (self.shows, hint, self.message):
            whole.addWidget(widget)
        whole.addStretch(1)
        whole.setSizeConstraint(QVBoxLayout.SizeConstraint.SetMinimumSize)
        self.scan.changed.connect(self._on_scan)
        self.contrast.currentTextChanged.connect(self._refill)
        self.preset.activated.connect(lambda _: self.apply())
        self.auto_button.clicked.connect(self.auto)
        self.whole_button.clicked.connect(self.whole)
        self.keep_button.clicked.connect(self.keep)
        self.drop_button.clicked.connect(self.drop)
        self._on_scan()

    def _on_scan(self) -> None:
        self._links.undo()
        self._layer = self.scan.layer
        for widget in (self.preset, self.auto_button, self.whole_button, self.keep_button, self.drop_button):
            widget.setEnabled(self._layer is not None)
        if self._layer is not None:
            self._links.connect(self._layer.events.contrast_limits, self._show)
            self.contrast.setCurrentText(window_level.contrast_of(self._layer))
        self._refill()
        self._show()

    def _refill(self, _: str = "") -> None:
        self.preset.clear()
        self.preset.addItems(list(window_level.presets(self.contrast.currentText())))
        self.preset.setCurrentIndex(-1)

    def _show(self, event: object = None) -> None:
        if self._layer is None:
            self.shows.setText("")
            return
        low, high = self._layer.contrast_limits
        self.shows.setText(f"Window {high - low:.5g}, level {(low + high) / 2:.5g}")

    def auto(self) -> None:
        """Set the limits from inside the head."""
        if self._layer is not None:
            window_level.apply(self._layer, window_level.automatic(self._layer))

    def whole(self) -> None:
        """Show every grey value."""
        if self._layer is not None:
            window_level.apply(self._layer, window_level.whole(self._layer))

    def apply(self) -> None:
        """Show the scan as the chosen preset tells."""
        pair = window_level.presets(self.contrast.currentText()).get(self.preset.currentText())
        if self._layer is not None and pair is not None:
            window_level.apply(self._layer, window_level.Greys.of(self._layer.data).limits(*pair))

    def keep(self) -> None:
        """Remember what is seen now under the name that is written in the preset's field."""
        name = self.preset.currentText().strip()
        if self._layer is None:
            return
        if not name:
            self.message.show_error("Write a name for the preset first.")
            return
        if not window_level.store(self.contrast.currentText(), name, self._layer):
            self.message.show_warnings(
                ["The preset could not be written to your settings; it is gone with the window."]
            )
            return
        self._refill()
        self.preset.setCurrentText(name)
        self.message.show_good(f"Kept as '{name}' for {self.contrast.currentText()}.")

    def drop(self) -> None:
        """Forget a preset of one's own; those built in stay."""
        window_level.forget(self.contrast.currentText(), self.preset.currentText())
        self._refill()
