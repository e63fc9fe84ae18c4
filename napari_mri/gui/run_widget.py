"""The widget that runs a model on a scan: skull-strip, denoise, super-resolution."""

from __future__ import annotations

import sys
import time
from ctypes.util import find_library
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
from napari_mri.engine.device import DEVICES, has_torch
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.gui import layers as bridge
from napari_mri.gui.choices import LayerChoice
from napari_mri.gui.form import Form
from napari_mri.gui.layers import LayerTuple
from napari_mri.gui.message import Message
from napari_mri.gui.placing import Frame
from napari_mri.gui.window import watch
from napari_mri.gui.worker import Job, time_left

RESULT = {"skullstrip": "brain mask", "denoise": "denoised", "superres": "super-resolved"}
DEVICE_TITLES = {"auto": "Automatic", "cuda": "NVIDIA GPU (CUDA)", "mps": "Apple GPU (MPS)", "cpu": "Processor (CPU)"}


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
        self._viewer = napari_viewer
        self._job: Job | None = None
        self._began = 0.0
        watch(napari_viewer)
        self.scan = LayerChoice(napari_viewer, Image, "open a scan first")
        self.task, self.model, self.device = QComboBox(), QComboBox(), QComboBox()
        self.says = QLabel()
        self.form = Form()
        self.run_button, self.stop_button = QPushButton("Run"), QPushButton("Cancel")
        self.progress = QProgressBar()
        self.status = QLabel()
        self.message = Message()
        self._lay_out()
        for name, task in TASKS.items():
            if name in RESULT:
                self.task.addItem(task.title, name)
        _fill_devices(self.device)
        self.task.currentIndexChanged.connect(self._fill_models)
        self.model.currentIndexChanged.connect(self._show_model)
        self.scan.changed.connect(self._refresh)
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
        self.says.setWordWrap(True)
        self.says.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.options = QGroupBox("Options")
        QVBoxLayout(self.options).addWidget(self.form)
        below = QFormLayout()
        below.addRow("Compute on", self.device)
        buttons = QHBoxLayout()
        buttons.addWidget(self.run_button, 2)
        buttons.addWidget(self.stop_button, 1)
        self.progress.setRange(0, 1000)
        self.status.setWordWrap(True)
        whole = QVBoxLayout(self)
        for part in (top, self.says, self.options, below, buttons, self.progress, self.status, self.message):
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
        self._refresh()

    def _refresh(self) -> None:
        busy = self._job is not None and self._job.running
        ready = self.chosen is not None and self.scan.layer is not None
        self.run_button.setEnabled(ready and not busy)
        for widget in (self.task, self.model, self.device, self.form):
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
        layer = self.scan.layer
        if layer is None or self.chosen is None or (self._job is not None and self._job.running):
            return
        self.message.clear()
        try:
            scan = bridge.volume_of(layer, self._viewer.layers)
        except MriError as error:
            self.message.show_error(str(error))
            return
        order, frame = self.order, bridge.frame_of(self._viewer.layers)
        title = layer.name.removesuffix(bridge.TILTED)
        if bridge.shown(layer) is None:
            self.message.show_warnings(scan.origin.warnings)
        self._job = Job(lambda rt: make_result(order, scan.titled(title), frame, rt), self.device.currentData())
        self._job.told.connect(self._on_told)
        self._job.done.connect(self._on_done)
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
        self.scan.follow = False  # another model is more often wanted on the scan than on the result
        for data, facts, kind in reversed(tuples):  # the result last, so that it is selected
            self._viewer.add_layer(Layer.create(data, facts, kind))
        self.scan.follow = True
        seconds = time.monotonic() - self._began
        self._idle(f"Done in {seconds:.1f} s: the new layer '{tuples[0][1]['name']}'.")
        self.message.show_warnings(warnings)
        self.finished.emit()

    def _on_failed(self, sentence: str) -> None:
        self._idle()
        self.message.show_error(sentence)

    def _on_stopped(self, sentence: str) -> None:
        self._idle(sentence)


def make_result(order: Order, scan: Volume, frame: Frame | None, rt: LocalRuntime) -> tuple[list[LayerTuple], Any]:
    """Carry out an order and make layer tuples of the result (first) and its by-products.

    Runs off the window's thread: nothing of Qt is touched.
    """
    outcome = tasks.run(order, scan, rt)
    model = registry.find(order.task, order.model)
    invents = " (may invent texture)" if model.card.invents else ""
    made = [
        bridge.to_tuple(outcome.result, frame, name=f"{scan.title} · {RESULT[order.task]} · {order.model}{invents}")
    ]
    for name, extra in outcome.extras.items():
        look = {"name": f"{scan.title} · {name} · {order.model}", "visible": False}
        made.append(bridge.to_tuple(extra, frame, **look))
    return made, outcome.warnings


def _fill_devices(combo: QComboBox) -> None:
    """List the devices; a guess without importing torch, which would hold up the window for seconds."""
    reasons = {"auto": "", "cpu": "", "cuda": "", "mps": ""}
    if not has_torch():
        reasons |= dict.fromkeys(("cuda", "mps"), "needs torch: pip install 'napari-mri-workbench[models]'")
    elif sys.platform == "darwin":
        reasons["cuda"] = "Apple machines have no CUDA"
    else:
        reasons["mps"] = "only on Apple machines"
        if find_library("cuda") is None and find_library("nvcuda") is None:
            reasons["cuda"] = "no NVIDIA driver was found"
    for name in DEVICES:
        combo.addItem(DEVICE_TITLES[name] + (f" ({reasons[name]})" if reasons[name] else ""), name)
        combo.model().item(combo.count() - 1).setEnabled(not reasons[name])


def _abandoner(widget: RunWidget) -> Any:
    """Return a callback for the widget's end; by then its Qt half is gone, so only the job is touched."""

    def abandon(*_: Any) -> None:
        job = widget._job
        if job is not None:
            job.abandon()

    return abandon
