"""The widget for clicking structures: point, see the mask at once, correct, accept as one step that can be undone."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image
from napari.layers import Labels as LabelsLayer
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QFormLayout,
    QGridLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_mri import registry, tasks
from napari_mri.core.errors import GridMismatch, MriError
from napari_mri.core.history import Order
from napari_mri.core.model import Model
from napari_mri.core.prompts import Box, Extremes, Lasso, Mark, Mask, Point, Prompts, Scribble
from napari_mri.core.volume import Labels, Volume
from napari_mri.gui import layers as bridge
from napari_mri.gui.choices import LayerChoice, Links
from napari_mri.gui.form import Form
from napari_mri.gui.message import Message
from napari_mri.gui.placing import STRAIGHT, Frame
from napari_mri.gui.prompt_layers import BACKGROUND, EMPTY, EXTREME, OBJECT, PromptLayers, Snapshot
from napari_mri.gui.window import watch
from napari_mri.gui.worker import Job

MODES: tuple[tuple[str, str, str, type, str, str], ...] = (
    ("Object", "point", OBJECT, Point, "J", "Click on the object; click again where something is missing."),
    ("Background", "point", BACKGROUND, Point, "K", "Click on what does not belong to the object."),
    ("Box", "box", OBJECT, Box, "G", "Draw a box around the object in any plane."),
    ("Scribble", "scribble", OBJECT, Scribble, "H", "Draw a line on the object."),
    ("Scribble outside", "scribble", BACKGROUND, Scribble, "", "Draw a line on what does not belong to it."),
    ("Lasso", "lasso", OBJECT, Lasso, "", "Draw around the object in one slice."),
    ("Outline ends", "point", EXTREME, Extremes, "", "Click both ends of the object along three directions."),
)
"""Title, way of drawing, side, kind of mark, key, and what the next click will do."""
KEYS = {"U": "undo", "N": "accept", "Q": "toggle"}
RULES = {"keep": "Keep other labels", "overwrite": "Overwrite other labels", "inside": "Only inside the label"}
SETTLE_MS = 60
"""The model is asked this long after the last change, so that a drag is one question."""


class PromptWidget(QWidget):
    """Click to segment.

    Parameters
    ----------
    napari_viewer : napari viewer
        Given by napari.
    """

    answered = Signal()
    """A preview is up to date."""
    accepted = Signal()

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._job: Job | None = None
        self._session: tasks.ScanSession | None = None
        self._opened: Any = None
        self._answer: Labels | None = None
        self._preview: LabelsLayer | None = None
        self._refined: Mask | None = None
        self._past: list[tuple[Snapshot, Mask | None]] = [(EMPTY, None)]
        self._future: list[tuple[Snapshot, Mask | None]] = []
        self._again = False
        self._began = 0.0
        watch(napari_viewer)
        self.links = Links(self)
        self.drawn = PromptLayers(napari_viewer, self.links, self._on_drawn)
        self.scan = LayerChoice(napari_viewer, Image, "open a scan first")
        self.target = LayerChoice(napari_viewer, LabelsLayer, "a new layer")
        self.model, self.rule, self.number = QComboBox(), QComboBox(), QSpinBox()
        self.inside = QSpinBox()
        self.form, self.hint, self.score = Form(), QLabel(), QLabel()
        self.progress, self.message = QProgressBar(), Message()
        self.buttons: dict[str, QPushButton] = {}
        self.modes = QButtonGroup(self)
        self._settle = QTimer(self, singleShot=True, interval=SETTLE_MS)
        self._settle.timeout.connect(self._ask)
        self._lay_out()
        self._fill_models()
        self.model.currentIndexChanged.connect(self._show_model)
        self.scan.changed.connect(self._forget_session)
        self._bind_keys()
        self.destroyed.connect(_abandoner(self))
        self._refresh()

    def _lay_out(self) -> None:
        top = QFormLayout()
        for title, field in (("Scan", self.scan), ("Model", self.model), ("Into", self.target)):
            top.addRow(title, field)
        self.number.setRange(1, 65535)
        self.inside.setRange(0, 65535)
        for name, title in RULES.items():
            self.rule.addItem(title, name)
        top.addRow("As label", self.number)
        top.addRow("Other labels", self.rule)
        top.addRow("Inside label", self.inside)
        marks = QGridLayout()
        for n, (title, _, _, _, key, says) in enumerate(MODES):
            button = QPushButton(f"{title} ({key})" if key else title)
            button.setCheckable(True)
            button.setToolTip(f"<qt>{says}</qt>")
            self.modes.addButton(button, n)
            marks.addWidget(button, n // 2, n % 2)
            self.buttons[title] = button
        self.modes.idClicked.connect(self.draw)
        below = QHBoxLayout()
        for name, title, call in (
            ("undo", "Undo (U)", self.undo), ("redo", "Redo", self.redo), ("clear", "Clear", self.clear),
            ("refine", "Refine label", self.refine), ("accept", "Accept (N)", self.accept),
            ("stop", "Cancel", self.stop),
        ):  # fmt: skip
            self.buttons[name] = QPushButton(title)
            self.buttons[name].clicked.connect(call)
            below.addWidget(self.buttons[name])
        self.options = QGroupBox("Options")
        QVBoxLayout(self.options).addWidget(self.form)
        self.hint.setWordWrap(True)
        self.progress.setRange(0, 1000)
        self.progress.setVisible(False)
        whole = QVBoxLayout(self)
        for part in (top, marks, self.hint, below, self.score, self.progress, self.message, self.options):
            whole.addWidget(part) if isinstance(part, QWidget) else whole.addLayout(part)
        whole.addStretch(1)

    # -------------------------------------------------------------------------------- choosing

    def _fill_models(self) -> None:
        for listed in registry.list_models("segment"):
            if listed.model is None or listed.model.open is None:
                continue
            self.model.addItem(listed.title, listed)
            row = self.model.count() - 1
            self.model.setItemData(
                row, f"<qt>{listed.reason or listed.model.card.says}</qt>", Qt.ItemDataRole.ToolTipRole
            )
            if not listed.available:
                self.model.setItemText(row, f"{listed.title} (not available)")
                self.model.model().item(row).setEnabled(False)
        usable = [n for n in range(self.model.count()) if self.model.itemData(n).available]
        self.model.setCurrentIndex((usable or [-1])[0])
        self._show_model()

    @property
    def chosen(self) -> Model | None:
        """The chosen model."""
        listed = self.model.currentData()
        return listed.model if listed is not None and listed.available else None

    def _show_model(self) -> None:
        model = self.chosen
        self.form.show_knobs(model.knobs if model else ())
        self.options.setVisible(bool(model and model.knobs))
        for title, _, _, kind, _, says in MODES:
            takes = model is not None and kind in model.card.prompts
            button = self.buttons[title]
            button.setEnabled(takes)
            reason = says if takes else f"{model.card.title if model else 'No model'} takes no such marks."
            button.setToolTip(f"<qt>{reason}</qt>")
        self._forget_session()

    def _forget_session(self) -> None:
        """Open the model anew at the next question."""
        self._opened = None
        self._refresh()
        if self._past[-1][0] is not EMPTY:
            self._settle.start()

    def _bind_keys(self) -> None:
        calls: dict[str, Callable[[], None]] = {key: getattr(self, name) for key, name in KEYS.items()}
        for n, (_, _, _, _, key, _) in enumerate(MODES):
            if key:
                calls[key] = lambda n=n: self.draw(n)
        for key, call in calls.items():
            self._viewer.bind_key(key, lambda _, call=call: call(), overwrite=True)

    # --------------------------------------------------------------------------------- drawing

    def draw(self, number: int) -> None:
        """Choose what the next click or stroke in the window means."""
        title, mode, side, _, _, says = MODES[number]
        if not self.buttons[title].isEnabled():
            return
        self.buttons[title].setChecked(True)
        self.drawn.draw(mode, side)
        self.hint.setText(says)

    @property
    def frame(self) -> Frame:
        """The window's directions in the patient."""
        return bridge.frame_of(self._viewer.layers) or STRAIGHT

    @property
    def prompts(self) -> Prompts:
        """What is drawn now, in patient mm."""
        drawn = self.drawn.snapshot().prompts(self.frame)
        first: tuple[Mark, ...] = (self._refined,) if self._refined is not None else ()
        return Prompts((*first, *drawn.marks))

    def _on_drawn(self) -> None:
        now = self.drawn.snapshot()
        if now.same(self._past[-1][0]):
            return
        self._past.append((now, self._refined))
        self._future.clear()
        self._settle.start()
        self._refresh()

    def undo(self) -> None:
        """Take back the last mark; without limit."""
        if len(self._past) > 1:
            self._future.append(self._past.pop())
            self._put_back()

    def redo(self) -> None:
        """Bring back a mark that was taken back."""
        if self._future:
            self._past.append(self._future.pop())
            self._put_back()

    def _put_back(self) -> None:
        drawn, self._refined = self._past[-1]
        self.drawn.restore(drawn)
        self._settle.start()
        self._refresh()

    def toggle(self) -> None:
        """Turn the selected clicks from object to background and back."""
        self.drawn.toggle_selected()

    def clear(self) -> None:
        """Remove all marks; can be undone."""
        self._refined = None
        self._past.append((EMPTY, None))
        self._future.clear()
        self.drawn.restore(EMPTY)
        self._settle.start()
        self._refresh()

    def refine(self) -> None:
        """Begin from the chosen label as it is in the target layer."""
        try:
            layer, scan = self._need_target(), self._volume()
            labels = bridge.labels_of(layer, self._viewer.layers)
            self._refined = Mask.of(labels.data == self.number.value(), scan.grid)
        except MriError as error:
            self.message.show_error(str(error))
            return
        self._past.append((self.drawn.snapshot(), self._refined))
        self._future.clear()
        self._settle.start()
        self._refresh()

    # ---------------------------------------------------------------------------------- asking

    def _volume(self) -> Volume:
        layer = self.scan.layer
        if layer is None:
            raise GridMismatch("There is no scan.", hint="Open one first.")
        return bridge.volume_of(layer, self._viewer.layers)

    def _ask(self) -> None:
        """Ask the model about what is drawn now; a question under way is replaced."""
        if self._job is not None and self._job.running:
            self._again = True
            self._job.stop()
            return
        self._again = False
        prompts, model, layer = self.prompts, self.chosen, self.scan.layer
        if model is None or layer is None or not any(mark.positive for mark in prompts):
            self._show(None)
            return
        try:
            scan = self._volume()
        except MriError as error:
            self.message.show_error(str(error))
            return
        order = Order("segment", model.card.name, self.form.values())
        wanted = (id(layer), order.to_json())
        session = self._session if self._opened == wanted else None

        def work(rt: Any) -> tuple[Any, Labels]:
            here = session
            if here is None:
                here = tasks.open_session(order, scan, rt)
            else:
                here.rt.follow(rt)
            return here, here.answer(prompts)

        self._opened, self._began = wanted, time.monotonic()
        self._job = Job(work)
        self._job.told.connect(self._on_told)
        self._job.done.connect(self._on_done)
        self._job.failed.connect(self._on_failed)
        self._job.stopped.connect(self._on_stopped)
        self._job.start()
        self._refresh()

    def stop(self) -> None:
        """Ask the work under way to stop."""
        self._again = False
        if self._job is not None and self._job.running:
            self._job.stop()

    def _on_told(self, fraction: float, text: str) -> None:
        if time.monotonic() - self._began > 0.5:
            self.progress.setVisible(True)
            self.progress.setValue(round(1000 * fraction))
            self.progress.setFormat(text)

    def _on_done(self, made: tuple[tasks.ScanSession, Labels]) -> None:
        self._session, answer = made
        self.message.show_warnings(self._session.rt.warnings)
        sure = f" · model's own estimate {self._session.score:.2f}" if self._session.score is not None else ""
        self._show(answer)
        self.score.setText(f"{answer.volume_ml():.2f} ml{sure} · {time.monotonic() - self._began:.2f} s")
        self._over()
        self.answered.emit()

    def _on_failed(self, sentence: str) -> None:
        self._opened = None
        self.message.show_error(sentence)
        self._over()

    def _on_stopped(self, _: str) -> None:
        if self._session is None:
            self._opened = None
        self._over()

    def _over(self) -> None:
        self.progress.setVisible(False)
        if self._again:
            self._settle.start()
        self._refresh()

    def _show(self, answer: Labels | None) -> None:
        """Show an answer as a preview with an outline, over everything but the marks."""
        self._answer = answer
        if answer is None:
            self.score.setText("")
            if self._preview is not None and self._preview in self._viewer.layers:
                self._preview.visible = False
            return
        made = bridge.to_tuple(answer, bridge.frame_of(self._viewer.layers), name="preview", opacity=0.6)
        if self._preview is not None and self._preview in self._viewer.layers:
            if self._preview.data.shape == made[0].shape:
                self._preview.data = made[0]
                self._preview.visible = True
                return
            self._viewer.layers.remove(self._preview)
        active, into = self._viewer.layers.selection.active, self.target.layer
        self._preview = LabelsLayer(made[0], **{k: v for k, v in made[1].items() if k != "features"})
        self._preview.contour = 1
        self._preview.editable = False
        self._viewer.layers.insert(self._viewer.layers.index(self.scan.layer) + 1, self._preview)
        self.target.choose(into)  # the newest layer would be chosen by itself, and the preview is no target
        if active is not None:
            self._viewer.layers.selection = {active}

    # -------------------------------------------------------------------------------- accepting

    def _need_target(self) -> LabelsLayer:
        layer = self.target.layer
        if layer is None or layer is self._preview:
            raise GridMismatch("No labels layer is chosen.", hint="Choose one under 'Into'.")
        return layer

    def accept(self) -> None:
        """Write the preview into the target as one step that can be undone, and go on to the next object."""
        if self._answer is None or not self._answer.data.any():
            return
        try:
            layer = self._written()
        except MriError as error:
            self.message.show_error(str(error))
            return
        bridge.note(layer, self._answer.history[-1])
        self._refined = None
        self._past, self._future = [(EMPTY, None)], []
        self.drawn.restore(EMPTY)
        self._show(None)
        self.message.show_good(f"Label {self.number.value()} is in '{layer.name}'; take it back there with Ctrl-Z.")
        if self.rule.currentData() == "keep":
            self.number.setValue(self.number.value() + 1)
        self._refresh()
        self.accepted.emit()

    def _written(self) -> LabelsLayer:
        answer = self._answer
        assert answer is not None
        assert self.scan.layer is not None
        frame = bridge.frame_of(self._viewer.layers)
        layer = self.target.layer
        if layer is None or layer is self._preview:
            empty = answer.with_labels(np.zeros(answer.grid.shape, np.uint16))
            layer = bridge.to_layer(empty, frame, name=f"{self.scan.layer.name} · labels")
            self._viewer.add_layer(layer)
            self.target.choose(layer)
        record = bridge.record_of(layer, self._viewer.layers)
        if not record.volume.grid.same(answer.grid):
            raise GridMismatch(
                f"'{layer.name}' does not lie on the voxels of '{self.scan.layer.name}'.",
                hint="Choose labels of that scan, or none to make a new layer.",
            )
        value = self.number.value()
        if value > np.iinfo(layer.data.dtype).max:
            raise GridMismatch(f"'{layer.name}' cannot hold the label {value}.", hint="Choose a smaller number.")
        new = record.placing.forth(answer.data, labels=True) > 0
        old = np.asarray(layer.data)
        rule = self.rule.currentData()
        free = np.ones(old.shape, bool)
        if rule == "keep":
            free = (old == 0) | (old == value)
        elif rule == "inside":
            free = (old == self.inside.value()) | (old == value)
        put = np.nonzero(new & free & (old != value))
        taken = np.nonzero((old == value) & ~new) if self._refined is not None else ()
        where = tuple(np.concatenate(pair) for pair in zip(put, taken, strict=True)) if taken else put
        if where[0].size:
            values = np.full(where[0].size, value, dtype=old.dtype)
            values[put[0].size :] = 0
            layer.data_setitem(where, values)
        return layer

    def _refresh(self) -> None:
        busy = self._job is not None and self._job.running
        self.buttons["undo"].setEnabled(len(self._past) > 1)
        self.buttons["redo"].setEnabled(bool(self._future))
        self.buttons["stop"].setEnabled(busy)
        self.buttons["accept"].setEnabled(self._answer is not None and not busy)
        takes = self.chosen is not None and Mask in self.chosen.card.prompts
        self.buttons["refine"].setEnabled(takes and self.scan.layer is not None)


def _abandoner(widget: PromptWidget) -> Callable[..., None]:
    """Return a callback for the widget's end: its job ends, its keys are free again, its session is closed."""
    viewer = widget._viewer

    def abandon(*_: Any) -> None:
        job, session = widget._job, widget._session
        if job is not None:
            job.abandon()
        for key in (*KEYS, *(mode[4] for mode in MODES if mode[4])):
            viewer.bind_key(key, None, overwrite=True)
        if session is not None:
            session.close()

    return abandon
