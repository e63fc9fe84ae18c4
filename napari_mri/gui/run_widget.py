"""The widget that runs a model on a scan: skull-strip, denoise, super-resolution."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_mri import registry, tasks
from napari_mri.core.errors import MriError
from napari_mri.core.history import Order
from napari_mri.core.model import TASKS, Model
from napari_mri.core.volume import Volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.gui import layers as bridge
from napari_mri.gui.choices import PREVIEW, DeviceChoice, LayerChoice
from napari_mri.gui.column import column
from napari_mri.gui.form import Form
from napari_mri.gui.layers import LayerTuple
from napari_mri.gui.message import Message
from napari_mri.gui.noise_line import NoiseLine
from napari_mri.gui.others import Others
from napari_mri.gui.placing import Frame
from napari_mri.gui.preview import learns, order_for, slab
from napari_mri.gui.split_bar import SplitBar
from napari_mri.gui.window import bare, watch
from napari_mri.gui.worker import Job, time_left

PREVIEWED = ("denoise", "superres")
"""Tasks whose result is looked at beside the scan."""
RESULT = {"skullstrip": "brain mask", "denoise": "denoised", "superres": "super-resolved"}


class RunWidget(QWidget):
    """Choose a scan, a task, a model and a device; run; the result becomes a layer.

    Parameters
    ----------
    napari_viewer : napari viewer
        Given by napari.
    """

    finished = Signal()
    """A result has become a layer."""

    def __init__(self, napari_viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = napari_viewer = bare(napari_viewer)
        self._job: Job | None = None
        self._began = 0.0
        self._source: Layer | None = None
        self._preview: Layer | None = None
        watch(napari_viewer)
        self.scan = LayerChoice(napari_viewer, Image, "open a scan first")
        self.task, self.model, self.device = QComboBox(), QComboBox(), DeviceChoice()
        self.says, self.noise = QLabel(), NoiseLine()
        self.form = Form()
        self.others, self.split = Others(napari_viewer), SplitBar(napari_viewer)
        self.preview_button = QPushButton("Preview")
        self.run_button, self.stop_button = QPushButton("Run"), QPushButton("Cancel")
        self.progress = QProgressBar()
        self.status = QLabel()
        self.message = Message()
        self._lay_out()
        for name, task in TASKS.items():
            if name in RESULT:
                self.task.addItem(task.title, name)
        self.task.currentIndexChanged.connect(self._fill_models)
        self.model.currentIndexChanged.connect(self._show_model)
        self.scan.changed.connect(self._refresh)
        self.scan.changed.connect(self._offer_others)
        self.scan.changed.connect(self._tell_noise)
        self.others.changed.connect(self._refresh)
        self.preview_button.clicked.connect(self.preview)
        self.run_button.clicked.connect(self.run)
        self.stop_button.clicked.connect(self.stop)
        self.destroyed.connect(_abandoner(self))
        self._fill_models()
        self._idle()

    def _lay_out(self) -> None:
        top = QFormLayout()
        top.addRow("Scan", self.scan)
        top.addRow("Task", self.task)
        top.addRow("Model", self.model)
        self._others_label = QLabel("With")
        top.addRow(self._others_label, self.others)
        self.says.setWordWrap(True)
        self.says.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.options = QGroupBox("Options")
        QVBoxLayout(self.options).addWidget(self.form)
        below = QFormLayout()
        below.addRow("Compute on", self.device)
        buttons = QHBoxLayout()
        buttons.addWidget(self.run_button, 2)
        buttons.addWidget(self.preview_button, 1)
        buttons.addWidget(self.stop_button, 1)
        self.preview_button.setToolTip("<qt>Try it on a slab around the slice in view: seconds.</qt>")
        self.progress.setRange(0, 1000)
        self.status.setWordWrap(True)
        whole = column(self)
        for part in (
            top,
            self.says,
            self.noise,
            self.options,
            below,
            buttons,
            self.progress,
            self.status,
            self.split,
            self.message,
        ):
            whole.addLayout(part) if hasattr(part, "addRow") or part is buttons else whole.addWidget(part)
        whole.addStretch(1)

    # -------------------------------------------------------------------------------- choosing

    def _fill_models(self) -> None:
        """List the models of the task, best first; what cannot run here is grey and says why."""
        self.model.blockSignals(True)
        self.model.clear()
        for listed in registry.list_models(self.task.currentData()):
            if listed.model is not None and listed.model.run is None:
                continue
            self.model.addItem(listed.title, listed)
            row = self.model.count() - 1
            words = listed.reason or (listed.model.card.says if listed.model else "")
            self.model.setItemData(row, f"<qt>{words}</qt>", Qt.ItemDataRole.ToolTipRole)
            if not listed.available:
                self.model.setItemText(row, f"{listed.title} (not available)")
                self.model.model().item(row).setEnabled(False)
        usable = [n for n in range(self.model.count()) if self.model.itemData(n).available]
        best = next((n for n in usable if self.model.itemData(n).model.card.rank >= 0), -1)
        self.model.setCurrentIndex(best if best >= 0 else (usable or [-1])[0])
        self.model.blockSignals(False)
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
        says = model.card.says if model else "No model for this task can run here."
        if model is None:
            reasons = [self.model.itemData(n).reason for n in range(self.model.count())]
            says += " " + " ".join(f"{reason}." for reason in reasons if reason)
        self.says.setText(says)
        self.preview_button.setVisible(self.task.currentData() in PREVIEWED)
        self._offer_others()
        self._tell_noise()
        self._refresh()

    def _tell_noise(self) -> None:
        """Say how much noise there is before any is taken out."""
        wanted = self.task.currentData() == "denoise"
        self.noise.show_of(self.scan.layer if wanted else None, self._viewer.layers)

    def _offer_others(self) -> None:
        most = self.chosen.card.wants.others if self.chosen else 0
        self.others.setVisible(most > 0)
        self._others_label.setVisible(most > 0)
        self.others.offer(self.scan.layer, most)

    def _refresh(self) -> None:
        busy = self._job is not None and self._job.running
        model = self.chosen
        ready = model is not None and self.scan.layer is not None
        if ready and model is not None:
            ready = len(self.others.layers) >= model.card.wants.least_others
        self.run_button.setEnabled(ready and not busy)
        self.preview_button.setEnabled(ready and not busy)
        for widget in (self.task, self.model, self.device, self.form, self.others):
            widget.setEnabled(not busy)

    # --------------------------------------------------------------------------------- running

    @property
    def order(self) -> Order:
        """What a press of Run would order."""
        model = self.chosen
        assert model is not None, "Run is grey without a model"
        return Order(model.card.task.name, model.card.name, self.form.values())

    def run(self) -> None:
        """Run the chosen model on the chosen scan, without holding up the window."""
        given = self._given()
        if given is None:
            return
        (scan, *others), frame, order = given, bridge.frame_of(self._viewer.layers), self.order
        self._start(lambda rt: make_result(order, scan, frame, rt, others), self._on_done)

    def preview(self) -> None:
        """Run the chosen model on a slab around the slice in view; the result is a layer that the next one replaces."""
        given = self._given()
        if given is None or self.chosen is None:
            return
        frame = bridge.frame_of(self._viewer.layers)
        scan, *others = given
        part = slab(scan, self._viewer, frame or Frame.of(scan.grid))
        order = order_for(self.chosen, self.order)
        self._start(lambda rt: make_result(order, part, frame, rt, others), self._on_previewed)

    def _given(self) -> list[Volume] | None:
        """Return the scan, under its layer's name, and those to take along; None if nothing can be run now."""
        layer = self.scan.layer
        if layer is None or self.chosen is None or (self._job is not None and self._job.running):
            return None
        self.message.clear()
        try:
            scans = [bridge.volume_of(one, self._viewer.layers) for one in (layer, *self.others.layers)]
        except MriError as error:
            self.message.show_error(str(error))
            return None
        if bridge.shown(layer) is None:
            self.message.show_warnings(scans[0].origin.warnings)
        self._source = layer
        return [scans[0].titled(layer.name.removesuffix(bridge.TILTED)), *scans[1:]]

    def _start(self, work: Callable[[LocalRuntime], Any], then: Callable[[Any], None]) -> None:
        self._job = Job(work, self.device.currentData())
        self._job.told.connect(self._on_told)
        self._job.done.connect(then)
        self._job.failed.connect(self._on_failed)
        self._job.stopped.connect(self._on_stopped)
        self._began = time.monotonic()
        self._job.start()
        self.progress.setVisible(True)
        self.progress.setRange(0, 0)  # a moving bar until the model says how far it is
        self.status.setText("Starting …")
        self.status.setVisible(True)
        self.stop_button.setVisible(True)
        self.stop_button.setEnabled(True)
        self._refresh()

    def stop(self) -> None:
        """Ask the run to stop."""
        if self._job is not None and self._job.running:
            self.stop_button.setEnabled(False)
            self.status.setText("Stopping …")
            self._job.stop()

    def _idle(self, text: str = "") -> None:
        self.progress.setVisible(False)
        self.stop_button.setVisible(False)
        self.status.setText(text)
        self.status.setVisible(bool(text))
        self._refresh()

    def _on_told(self, fraction: float, text: str) -> None:
        if self._job is None or not self._job.running or not self.stop_button.isEnabled():
            return
        if fraction > 0:
            self.progress.setRange(0, 1000)
            self.progress.setValue(round(1000 * fraction))
        left = time_left(fraction, time.monotonic() - self._began)
        self.status.setText(" · ".join(part for part in (text.capitalize() if text else "", left) if part))

    def _on_done(self, made: tuple[list[LayerTuple], tuple[str, ...]]) -> None:
        tuples, warnings = made
        result = self._added(tuples)
        seconds = time.monotonic() - self._began
        self._idle(f"Done in {seconds:.1f} s: the new layer '{result.name}'.")
        self.message.show_warnings(warnings)
        self.finished.emit()

    def _on_previewed(self, made: tuple[list[LayerTuple], tuple[str, ...]]) -> None:
        (data, facts, kind), *_ = made[0]
        model = self.chosen
        facts["name"] = f"{facts['name']} (preview)"
        facts["metadata"] = {**facts.get("metadata", {}), PREVIEW: True}
        self._preview = self._added([(data, facts, kind)])
        seconds = time.monotonic() - self._began
        short = ", learned for seconds only" if model is not None and learns(model) else ""
        self._idle(f"Preview in {seconds:.1f} s, of a slab around this slice{short}.")
        self.message.show_warnings(made[1])

    def _added(self, tuples: list[LayerTuple]) -> Layer:
        """Add layers, the first last so that it is selected; take the old preview away; offer the split."""
        self.scan.follow = False  # another model is more often wanted on the scan than on the result
        old = self._preview
        self._preview = None
        for data, facts, kind in reversed(tuples):
            made = self._viewer.add_layer(Layer.create(data, facts, kind))
        if old is not None and old in self._viewer.layers:
            self._viewer.layers.remove(old)
        self.scan.follow = True
        source = self._source if self._source in self._viewer.layers else None
        if isinstance(made, Image) and isinstance(source, Image):
            ranges = [*made.contrast_limits_range, *source.contrast_limits_range]
            made.contrast_limits_range = (min(ranges), max(ranges))
            made.contrast_limits = source.contrast_limits  # else a brighter picture would look like a better one
            self.split.show_pair(source, made)
        else:
            self.split.show_pair(None, None)
        return made

    def _on_failed(self, sentence: str) -> None:
        self._idle()
        self.message.show_error(sentence)

    def _on_stopped(self, sentence: str) -> None:
        self._idle(sentence)


def make_result(
    order: Order, scan: Volume, frame: Frame | None, rt: LocalRuntime, others: Sequence[Volume] = ()
) -> tuple[list[LayerTuple], Any]:
    """Carry out an order and make layer tuples of the result (first) and its by-products.

    Runs off the window's thread: nothing of Qt is touched.
    """
    outcome = tasks.run(order, scan, rt, others)
    model = registry.find(order.task, order.model)
    invents = " (may invent texture)" if model.card.invents else ""
    made = [
        bridge.to_tuple(outcome.result, frame, name=f"{scan.title} · {RESULT[order.task]} · {order.model}{invents}")
    ]
    for name, extra in outcome.extras.items():
        look = {"name": f"{scan.title} · {name} · {order.model}", "visible": False}
        made.append(bridge.to_tuple(extra, frame, **look))
    return made, outcome.warnings


def _abandoner(widget: RunWidget) -> Any:
    """Return a callback for the widget's end; by then its Qt half is gone, so only the job is touched."""

    def abandon(*_: Any) -> None:
        job = widget._job
        widget.split.end()
        if job is not None:
            job.abandon()

    return abandon
