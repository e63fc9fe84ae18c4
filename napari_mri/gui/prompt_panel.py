"""How the widget for clicking is laid out: rows of choices, a button for each kind of mark, what the next click does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from napari.components import ViewerModel
from napari.layers import Image
from napari.layers import Labels as LabelsLayer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QLabel,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_mri import registry
from napari_mri.core.model import Model
from napari_mri.core.prompts import Box, Extremes, Lasso, Point, Scribble
from napari_mri.gui.choices import DeviceChoice, LayerChoice
from napari_mri.gui.column import column
from napari_mri.gui.form import Form
from napari_mri.gui.message import Message
from napari_mri.gui.placing import Frame
from napari_mri.gui.prompt_accept import OTHERS, Rule
from napari_mri.gui.prompt_layers import BACKGROUND, EXTREME, OBJECT
from napari_mri.gui.prompt_range import SliceRange


@dataclass(frozen=True)
class Mode:
    """A way of pointing: title, how it is drawn, side, kind of mark, key, and what the next click will do."""

    title: str
    draws: str
    side: str
    kind: type
    key: str
    says: str


MODES = (
    Mode("Object", "point", OBJECT, Point, "J", "Click on the object; click again where something is missing."),
    Mode("Background", "point", BACKGROUND, Point, "K", "Click on what does not belong to the object."),
    Mode("Box", "box", OBJECT, Box, "G", "Draw a box around the object in any plane."),
    Mode("Scribble", "scribble", OBJECT, Scribble, "H", "Draw a line on the object with the button held; let go to end it."),
    Mode("Scribble outside", "scribble", BACKGROUND, Scribble, "", "Draw a line on what does not belong to it, with the button held."),
    Mode("Lasso", "lasso", OBJECT, Lasso, "", "Draw around the object in one slice, with the button held."),
    Mode("Outline ends", "point", EXTREME, Extremes, "", "Click both ends of the object along three directions."),
)
ACTIONS = (
    ("undo", "Undo", "U", "Take back the last mark, as often as you like."),
    ("redo", "Redo", "Shift+U", "Bring back a mark that was taken back."),
    ("toggle", "Turn over", "Q", "Turn the selected clicks from object to background and back."),
    ("clear", "Clear", "", "Remove all marks; can be undone."),
    ("refine", "Refine label", "", "Begin from the label as it is in the layer."),
    ("load", "Load marks", "", "Put the marks this label was made with back on the screen."),
    ("accept", "Accept", "N", "Write the outline into the layer as one step of its undo."),
    ("next_object", "Next object", "W", "Accept, and go on with the next free label."),
    ("stop", "Cancel", "", "Stop the work under way."),
)
"""Name of the method, title, key, and what it does."""
KEYS = {key: name for name, _, key, _ in ACTIONS if key}


class PromptPanel(QWidget):
    """What `PromptWidget` shows. A button's click calls the method that has the button's name.

    Parameters
    ----------
    viewer : napari viewer
    frame : callable
        Returns the window's frame.
    """

    def __init__(self, viewer: ViewerModel, frame: Callable[[], Frame]) -> None:
        super().__init__()
        self.scan = LayerChoice(viewer, Image, "open a scan first")
        self.target = LayerChoice(viewer, LabelsLayer, "a new layer", or_nothing=True)
        self.model, self.device, self.rule = QComboBox(), DeviceChoice(), QComboBox()
        self.number, self.inside = QSpinBox(), QSpinBox()
        self.range = SliceRange(viewer, lambda: self.scan.layer, frame)
        self.form, self.hint, self.score = Form(), QLabel(), QLabel()
        self.progress, self.message = QProgressBar(), Message()
        self.buttons: dict[str, QPushButton] = {}
        self.modes = QButtonGroup(self)
        self.options = QGroupBox("Options")
        self._lay_out()
        self._fill_models()

    def _lay_out(self) -> None:
        self.number.setRange(1, 65535)
        self.inside.setRange(0, 65535)
        self.inside.setEnabled(False)
        for name, title in OTHERS.items():
            self.rule.addItem(title, name)
        self.rule.currentIndexChanged.connect(lambda _: self.inside.setEnabled(self.rule.currentData() == "inside"))
        for line in (self.hint, self.score):
            line.setWordWrap(True)
        self.hint.setMinimumHeight(2 * self.hint.fontMetrics().lineSpacing())
        self.progress.setRange(0, 1000)
        self.progress.setVisible(False)
        QVBoxLayout(self.options).addWidget(self.form)
        whole = column(self)
        whole.addLayout(self._rows())
        whole.addLayout(self._mode_buttons())
        whole.addWidget(self.hint)
        whole.addLayout(self._action_buttons())
        for part in (self.score, self.progress, self.message, self.options):
            whole.addWidget(part)
        whole.addStretch(1)

    def _rows(self) -> QFormLayout:
        rows = QFormLayout()
        for title, field in (
            ("Scan", self.scan), ("Model", self.model), ("Compute on", self.device), ("Into", self.target),
            ("As label", self.number), ("Other labels", self.rule), ("Inside label", self.inside),
            ("Slices", self.range),
        ):  # fmt: skip
            rows.addRow(title, field)
        return rows

    def _mode_buttons(self) -> QGridLayout:
        grid = QGridLayout()
        for n, mode in enumerate(MODES):
            button = QPushButton(f"{mode.title} ({mode.key})" if mode.key else mode.title)
            button.setCheckable(True)
            self.modes.addButton(button, n)
            grid.addWidget(button, n // 2, n % 2)
            self.buttons[mode.title] = button
        return grid

    def _action_buttons(self) -> QGridLayout:
        grid = QGridLayout()
        for n, (name, title, key, says) in enumerate(ACTIONS):
            button = QPushButton(f"{title} ({key})" if key else title)
            button.setToolTip(f"<qt>{says}</qt>")
            button.clicked.connect(lambda _=False, name=name: getattr(self, name)())
            grid.addWidget(button, n // 3, n % 3)
            self.buttons[name] = button
        return grid

    # ------------------------------------------------------------------------------ what is chosen

    def _fill_models(self) -> None:
        for listed in registry.list_models("segment"):
            if listed.model is None or listed.model.open is None:
                continue
            self.model.addItem(listed.title, listed)
            row = self.model.count() - 1
            says = listed.reason or listed.model.card.says
            self.model.setItemData(row, f"<qt>{says}</qt>", Qt.ItemDataRole.ToolTipRole)
            if not listed.available:
                self.model.setItemText(row, f"{listed.title} (not available)")
                self.model.model().item(row).setEnabled(False)
        usable = [n for n in range(self.model.count()) if self.model.itemData(n).available]
        self.model.setCurrentIndex((usable or [-1])[0])

    @property
    def chosen(self) -> Model | None:
        """The chosen model."""
        listed = self.model.currentData()
        return listed.model if listed is not None and listed.available else None

    def choose_model(self, name: str) -> bool:
        """Choose a model by name; tell whether it can be had."""
        for row in range(self.model.count()):
            listed = self.model.itemData(row)
            if listed.name == name and listed.available:
                self.model.setCurrentIndex(row)
                return True
        return False

    def rule_now(self, replaces: bool) -> Rule:
        """Return how an object is to enter the layer."""
        return Rule(self.number.value(), self.rule.currentData(), self.inside.value(), replaces)

    def show_model(self) -> None:
        """Show the chosen model's options, and grey the marks it does not take, with the reason."""
        model = self.chosen
        self.form.show_knobs(model.knobs if model else ())
        self.options.setVisible(bool(model and model.knobs))
        for mode in MODES:
            takes = model is not None and mode.kind in model.card.prompts
            button = self.buttons[mode.title]
            button.setEnabled(takes)
            reason = mode.says if takes else f"{model.card.title if model else 'No model'} takes no such marks."
            button.setToolTip(f"<qt>{reason}</qt>")

    def say_hint(self, in_3d: bool, what: str = "") -> None:
        """Say what the next click will do, or `what`."""
        number = self.modes.checkedId()
        if what:
            self.hint.setText(what)
        elif number < 0:
            self.hint.setText("Choose what your clicks mean: Object (J), Background (K), Box (G), Scribble (H) …")
        else:
            mode = MODES[number]
            where = " It lands on the first voxel seen under the cursor; dragging turns the view." if in_3d else ""
            if in_3d and mode.draws != "point":
                self.hint.setText("Boxes and lines are drawn in the 2D view; clicks work here, too.")
            else:
                self.hint.setText(mode.says + where)
