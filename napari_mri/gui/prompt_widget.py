"""The widget for clicking structures: point, see the mask at once, correct, accept as one step that can be undone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels as LabelsLayer
from napari.layers import Layer
from napari.utils.colormaps import DirectLabelColormap
from qtpy.QtCore import QTimer, Signal

from napari_mri import tasks
from napari_mri.core.errors import GridMismatch, MriError
from napari_mri.core.history import Order, Step
from napari_mri.core.prompts import Mark, Mask, Prompts, Slab
from napari_mri.core.volume import Labels, Volume
from napari_mri.gui import layers as bridge
from napari_mri.gui.choices import PREVIEW, Links
from napari_mri.gui.exact_layers import Labels as Outlined
from napari_mri.gui.placing import STRAIGHT, Frame
from napari_mri.gui.prompt_accept import Rule, must_lie_on, name_label, next_free, write
from napari_mri.gui.prompt_asking import Answer, Asker, Question
from napari_mri.gui.prompt_layers import COLOURS, EMPTY, OBJECT, PromptLayers, Snapshot
from napari_mri.gui.prompt_panel import KEYS, MODES, PromptPanel
from napari_mri.gui.window import bare, watch

SETTLE_MS = 60
"""The model is asked this long after the last change."""
LATE_MS = 500
"""Progress is shown of what takes longer."""
State = tuple[Snapshot, tuple[Mark, ...]]
"""What is drawn, and the marks that cannot be drawn: a mask to refine, a loaded box with depth."""
NOTHING: State = (EMPTY, ())


class PromptWidget(PromptPanel):
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
        self._viewer = napari_viewer = bare(napari_viewer)
        super().__init__(napari_viewer, lambda: self.frame)
        self._answer: Labels | None = None
        self._fresh = False
        """Whether what is shown answers the marks as they are."""
        self._refined: tuple[LabelsLayer, int] | None = None
        self._preview: LabelsLayer | None = None
        self._kept: tuple[Mark, ...] = ()
        self._marked_frame = 0
        self._past: list[State] = [NOTHING]
        self._future: list[State] = []
        watch(napari_viewer)
        self.links = Links(self)
        self.drawn = PromptLayers(napari_viewer, self.links, self._on_drawn, self._tell, self._surfaces)
        self.asker = Asker(self)
        self.asker.told.connect(self._on_told)
        self.asker.answered.connect(self._on_answered)
        self.asker.failed.connect(self._on_failed)
        self.asker.over.connect(self._over)
        self._settle = QTimer(self, singleShot=True, interval=SETTLE_MS)
        self._settle.timeout.connect(self._ask)
        self._late = QTimer(self, singleShot=True, interval=LATE_MS)
        self._late.timeout.connect(self._show_late)
        self._doubts: list[str] = []
        self.modes.idClicked.connect(self.draw)
        self.model.currentIndexChanged.connect(self._show_model)
        self.device.currentIndexChanged.connect(self._ask_anew)
        self.scan.changed.connect(self._ask_anew)
        self.range.changed.connect(self._ask_anew)
        self.form.changed.connect(self._ask_anew)
        self.target.changed.connect(self._refresh)
        self.links.connect(napari_viewer.dims.events.ndisplay, lambda _: self._tell())
        self._bind_keys()
        self.destroyed.connect(_ender(napari_viewer, self.asker))
        self._show_model()
        self._tell()

    def _bind_keys(self) -> None:
        calls: dict[str, Callable[[], None]] = {key: getattr(self, name) for key, name in KEYS.items()}
        for n, mode in enumerate(MODES):
            if mode.key:
                calls[mode.key] = lambda n=n: self.draw(n)
        for key, call in calls.items():
            self._viewer.bind_key(key, lambda _, call=call: call(), overwrite=True)

    def _show_model(self) -> None:
        self.show_model()
        self._ask_anew()

    def _ask_anew(self) -> None:
        """Ask again, because the model, the scan, the device or the range is another one."""
        self.message.clear()
        self._tell()
        if self._past[-1] is not NOTHING or self.modes.checkedId() >= 0:
            self._settle.start()
        self._refresh()

    def _tell(self, what: str = "") -> None:
        if not what and self.scan.layer is None and self.modes.checkedId() >= 0:
            what = "Open a scan first."
        self.say_hint(self._viewer.dims.ndisplay == 3, what)

    # --------------------------------------------------------------------------------- drawing

    def draw(self, number: int) -> None:
        """Choose what the next click or stroke in the window means."""
        mode = MODES[number]
        if not self.buttons[mode.title].isEnabled():
            return
        self.buttons[mode.title].setChecked(True)
        self.drawn.draw(mode.draws, mode.side)
        self._tell()
        self._open()

    def _open(self) -> None:
        """Open the model for what will be asked, and bring the marks over the scan."""
        question = self._question(Prompts())
        if question is not None:
            self._over_scan()
            self._late.start()
            self.asker.open(question)
            self._refresh()

    def _draw_on(self) -> None:
        """Select the layer of marks again: a new layer has taken its place, and the next click is meant for the marks."""
        if self.modes.checkedId() >= 0:
            self.draw(self.modes.checkedId())

    @property
    def frame(self) -> Frame:
        """The window's directions in the patient."""
        return bridge.frame_of(self._viewer.layers) or STRAIGHT

    @property
    def prompts(self) -> Prompts:
        """What is pointed at now, in patient mm."""
        return Prompts((*self.range.marks, *self._kept, *self._past[-1][0].prompts(self.frame)))

    def _surfaces(self) -> list[Layer]:
        """Return what a click in the 3D view may land on."""
        return [layer for layer in (self._preview, self.scan.layer) if layer in self._viewer.layers]

    def _on_drawn(self) -> None:
        now = self.drawn.snapshot()
        if not now.same(self._past[-1][0]):
            self._push(now, self._kept)

    def _push(self, drawn: Snapshot, kept: tuple[Mark, ...]) -> None:
        """Go on from a new state; what had been taken back is gone."""
        self._kept = kept
        if not self._marked():
            self._marked_frame = self._frame_in_view()
        self._past.append((drawn.sharing(self._past[-1][0]), kept))
        self._future.clear()
        self._change()

    def _change(self) -> None:
        """Ask about other marks; what was said of those before is no longer true."""
        self.message.clear()
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
        drawn, self._kept = self._past[-1]
        self.drawn.restore(drawn)
        self._change()

    def toggle(self) -> None:
        """Turn the selected clicks from object to background and back."""
        self.drawn.toggle_selected()

    def clear(self) -> None:
        """Remove all marks; can be undone."""
        self._doubts = []
        self.drawn.restore(EMPTY)
        self._push(EMPTY, ())

    def refine(self) -> None:
        """Begin from the chosen label as it is in the target layer."""
        try:
            layer, scan = self._need_target(), self._volume()
            labels = bridge.labels_of(layer, self._viewer.layers)
            must_lie_on(layer, labels.grid, scan.grid)
            mask = Mask.of(labels.data == self.number.value(), scan.grid)
        except MriError as error:
            self.message.show_error(str(error))
            return
        if not (labels.data == self.number.value()).any():
            self.message.show_error(f"Label {self.number.value()} is empty in '{layer.name}': there is nothing to refine.")
            return
        self._refined = layer, self.number.value()
        self._push(self._past[-1][0], (*(m for m in self._kept if not isinstance(m, Mask)), mask))

    def load(self) -> None:
        """Put the marks back on the screen that the chosen label was made with, and its model and options."""
        try:
            layer, scan = self._need_target(), self._volume()
            step = _made_by(bridge.labels_of(layer, self._viewer.layers).history, self.number.value())
            if step is None:
                raise GridMismatch(
                    f"The history of '{layer.name}' holds no marks of label {self.number.value()}.",
                    hint="Only what was accepted here, or made by 'napari-mri segment', can be edited again.",
                )
            prompts = Prompts.from_json(list(step.facts["prompts"]))
        except MriError as error:
            self.message.show_error(str(error))
            return
        told = [] if step.facts.get("input") in (None, scan.fingerprint()) else ["The marks were made on another scan."]
        if step.order is not None and not self.choose_model(step.order.model):
            told.append(f"The model '{step.order.model}' is not here: the chosen one answers.")
        elif step.order is not None:
            for knob in self.chosen.knobs if self.chosen else ():
                self.form.set_value(knob.name, step.order.params.get(knob.name, knob.default))
        drawn, rest = Snapshot.of(prompts, self.frame)
        if rest:
            told.append("A mask or a box with depth is used, too, but cannot be drawn.")
        self._refined = layer, self.number.value()
        slabs = prompts.of(Slab)
        self.range.show_slab(slabs[0] if slabs else None)
        self.drawn.restore(drawn)
        # As drawn, not as asked: what napari holds now is what the next change is told from.
        self._push(self.drawn.snapshot(), rest)
        self._draw_on()
        self._doubts = told
        self.message.show_warnings(told)

    # ---------------------------------------------------------------------------------- asking

    def _volume(self) -> Volume:
        layer = self.scan.layer
        if layer is None:
            raise GridMismatch("There is no scan.", hint="Open one first.")
        volume = bridge.volume_of(layer, self._viewer.layers)
        return volume.frame(min(self._frame_of(layer), volume.n_frames - 1)) if volume.data.ndim > 3 else volume

    def _frame_of(self, layer: Layer) -> int:
        """Return which frame of a series is meant: the one that was in view at the first mark."""
        if layer.ndim < 4:
            return 0
        return self._marked_frame if self._marked() else self._frame_in_view()

    def _marked(self) -> bool:
        """Whether there are marks."""
        drawn, kept = self._past[-1]
        return bool(len(drawn.points) or drawn.shapes or kept)

    def _frame_in_view(self) -> int:
        dims = self._viewer.dims
        return int(dims.current_step[0]) if dims.ndim > 3 else 0

    def _question(self, prompts: Prompts) -> Question | None:
        """Return what is asked about some prompts; None if there is nobody to ask, or nothing to ask about."""
        model, layer = self.chosen, self.scan.layer
        if model is None or layer is None:
            return None
        try:
            scan = self._volume()
        except MriError as error:
            self._on_failed(str(error))
            return None
        order = Order("segment", model.card.name, self.form.values())
        place = hash((id(layer), id(layer.data), self._frame_of(layer)))  # a scan whose voxels are replaced is another one
        return Question(order, scan, prompts, self.device.currentData(), place)

    def _ask(self) -> None:
        """Ask the model about what is drawn now; a question under way is replaced."""
        prompts = self.prompts
        if self.chosen is None or self.scan.layer is None or not any(mark.positive for mark in prompts):
            self.asker.rest()
            self._show(None)
            if self.scan.layer is not None and self._marked():
                self._tell("Nothing points at the object yet: only what lies beside it is marked.")
            if self.modes.checkedId() >= 0:
                self._open()
            return
        question = self._question(prompts)
        if question is None:
            return
        self._late.start()
        self._fresh = False
        self.asker.ask(question)
        self._refresh()

    def stop(self) -> None:
        """Ask the work under way to stop."""
        self.asker.stop()
        self._tell("Stopped. The next mark, or taking one back, asks again.")

    def _on_told(self, fraction: float, text: str) -> None:
        self.progress.setValue(round(1000 * fraction))
        self.progress.setFormat(text)

    def _show_late(self) -> None:
        """Show how far an answer is that takes long."""
        self.progress.setVisible(self.asker.busy)

    def _on_failed(self, sentence: str) -> None:
        self._show(None)  # what is shown was the answer to something else
        self.message.show_error(sentence)

    def _on_answered(self, answer: Answer) -> None:
        self._fresh = True
        self.message.show_warnings([*self._doubts, *answer.warnings])
        sure = f" · model's own estimate {answer.score:.2f}" if answer.score is not None else ""
        self._show(answer.labels)
        taken = f" · taken for {answer.taken_for}" if answer.taken_for else ""
        self.score.setText(f"{answer.labels.volume_ml():.2f} ml{taken}{sure} · {answer.seconds:.2f} s")
        self._refresh()
        self.answered.emit()

    def _over(self) -> None:
        self._late.stop()
        self.progress.setVisible(False)
        self.progress.setValue(0)
        self.progress.setFormat("")
        self._refresh()

    def _show(self, answer: Labels | None) -> None:
        """Show an answer as a preview with an outline, over everything but the marks."""
        self._answer = answer
        if answer is None:
            self.score.setText("")
            if self._preview is not None and self._preview in self._viewer.layers:
                self._preview.visible = False
            self._refresh()
            return
        made = bridge.to_tuple(answer, bridge.frame_of(self._viewer.layers), name="preview", opacity=0.8)
        if self._preview is not None and self._preview in self._viewer.layers:
            there = self._preview.data.shape == made[0].shape and all(
                np.allclose(getattr(self._preview, name), made[1][name]) for name in ("scale", "translate")
            )
            there &= self._viewer.layers.index(self._preview) > self._viewer.layers.index(self.scan.layer)
            if there:
                self._preview.data = made[0]
                self._preview.visible = True
                return
            self._viewer.layers.remove(self._preview)
        active, facts = self._viewer.layers.selection.active, made[1]
        facts["metadata"][PREVIEW] = True
        self._preview = Outlined(made[0], **{k: v for k, v in facts.items() if k != "features"})
        # The colour of clicks on the object: napari's own first label is a brown that is lost on a grey head.
        self._preview.colormap = DirectLabelColormap(color_dict={None: "transparent", 1: COLOURS[OBJECT]})
        self._preview.contour = 1
        self._preview.editable = False
        self._viewer.layers.insert(self._over_scan(), self._preview)
        if active is not None:
            self._viewer.layers.selection = {active}

    def _over_scan(self) -> int:
        """Bring the marks over the chosen scan, and return the place below them."""
        layers = self._viewer.layers
        marks = [layer for layer in (self.drawn.points, self.drawn.shapes) if layer in layers]
        for layer in marks:
            layer.lie_on(self.scan.layer.extent.step[-3:])
            if layers.index(layer) < layers.index(self.scan.layer):
                layers.move(layers.index(layer), len(layers))
        return min((layers.index(layer) for layer in marks), default=len(layers))

    # -------------------------------------------------------------------------------- accepting

    def _need_target(self) -> LabelsLayer:
        layer = self.target.layer
        if layer is None:
            raise GridMismatch("No labels layer is chosen.", hint="Choose one under 'Into'.")
        return layer

    def accept(self) -> bool:
        """Write the preview into the target as one step that can be undone; the marks are cleared. Tell whether it was."""
        if self.asker.busy or self._settle.isActive():
            self._tell("The model is still at work: accept when its outline shows.")
            return False
        if self._answer is None:
            self._tell("There is no outline to accept yet.")
            return False
        if not self._fresh:
            self._tell("The outline answers earlier marks: take the last mark back, or add one, and accept then.")
            return False
        if not self._answer.data.any() and not self._rule().replaces:
            self.message.show_error("The mask is empty: there is nothing to accept.")
            return False
        try:
            layer, count = self._written(self._answer)
        except MriError as error:
            self.message.show_error(str(error))
            return False
        self._begin_anew()
        if count:
            self.message.show_good(f"Label {self.number.value()} is in '{layer.name}'; take it back there with Ctrl-Z.")
        else:
            self.message.show_warnings(
                ["Nothing changed: the voxels of the mask have this label already, or hold others that are to be kept."]
            )
        self.accepted.emit()
        return True

    def next_object(self) -> None:
        """Accept what is shown, and go on with the next label that is not in use."""
        if (self._marked() or self._answer is not None) and not self.accept():
            return  # the message says why; the marks stay
        layer = self.target.layer
        if layer is not None:
            self.number.setValue(next_free(layer.data, self.number.value()))

    def _rule(self) -> Rule:
        """Return how the object enters the target: a label that was refined is replaced, and no other."""
        refined = any(isinstance(mark, Mask) for mark in self._kept)
        return self.rule_now(refined and self._refined == (self.target.layer, self.number.value()))

    def _begin_anew(self) -> None:
        self._settle.stop()
        self._kept, self._past, self._future = (), [NOTHING], []
        self._refined, self._doubts = None, []
        self.drawn.restore(EMPTY)
        self._show(None)
        self._draw_on()

    def _written(self, answer: Labels) -> tuple[LabelsLayer, int]:
        """Write the answer into the target, made if there is none, and note how it came about; tell how many voxels changed."""
        assert self.scan.layer is not None
        layer = self.target.layer
        if layer is None:
            empty = self._volume().with_labels(np.zeros(answer.grid.shape, np.uint16))
            frame = bridge.frame_of(self._viewer.layers)
            layer = bridge.to_layer(empty, frame, name=f"{self.scan.layer.name.removesuffix(bridge.TILTED)} · labels")
            self._viewer.add_layer(layer)
            self.target.choose(layer)
        record = bridge.record_of(layer, self._viewer.layers)
        rule = self._rule()
        alone = rule.replaces or not bool((np.asarray(layer.data) == rule.value).any())
        count = write(layer, record, answer, rule, self.range.marks)
        step = answer.history[-1]
        bridge.note(layer, dataclasses.replace(step, facts={**step.facts, "label": rule.value, "other_labels": rule.others}))
        name_label(layer, record, rule.value, str(step.facts.get(tasks.TAKEN_FOR, "")), alone)
        return layer, count

    def _refresh(self) -> None:
        if not hasattr(self, "asker"):
            return
        busy, there = self.asker.busy, self.target.layer is not None
        # Marks are meant for the scan they were made on, and not for the next one that opens.
        self.scan.follow = not self._marked()
        self.buttons["undo"].setEnabled(len(self._past) > 1)
        self.buttons["redo"].setEnabled(bool(self._future))
        self.buttons["stop"].setEnabled(busy)
        self.buttons["accept"].setEnabled(self._answer is not None and self._fresh and not busy)
        takes = self.chosen is not None and Mask in self.chosen.card.prompts
        self.buttons["refine"].setEnabled(takes and there and self.scan.layer is not None)
        self.buttons["load"].setEnabled(there and self.scan.layer is not None)


def _made_by(history: tuple[Step, ...], label: int) -> Step | None:
    """Return the latest step with marks that made a label, or any label where it is not told which."""
    for step in reversed(history):
        if step.facts.get("prompts") and step.facts.get("label", label) == label:
            return step
    return None


def _ender(viewer: ViewerModel, asker: Asker) -> Callable[..., None]:
    """Return a callback for the widget's end: its job ends, its keys are free again, its session is closed."""
    end_asking = asker.ender()

    def end(*_: Any) -> None:
        end_asking()
        for key in (*KEYS, *(mode.key for mode in MODES if mode.key)):
            viewer.bind_key(key, None, overwrite=True)

    return end
