"""The edit log of each Labels layer in a window: napari's strokes become steps, Ctrl-Z goes through the log."""

from __future__ import annotations

import atexit
import os
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary, WeakSet, ref

import numpy as np
from napari.components import ViewerModel
from napari.layers import Labels as LabelsLayer
from napari.layers import Layer
from napari.utils.events import EventEmitter
from napari.utils.notifications import show_warning
from numpy.typing import NDArray
from qtpy.QtCore import QCoreApplication, QTimer

from napari_mri.core.errors import MriError
from napari_mri.core.history import Step
from napari_mri.core.volume import Labels
from napari_mri.edit.entry import Entry
from napari_mri.edit.log import EditLog
from napari_mri.edit.packed import Box
from napari_mri.edit.unfinished import CLOSED, RESTORED, SAVED, new_path
from napari_mri.gui import layers as bridge
from napari_mri.gui import napari_private_labels as private
from napari_mri.gui.label_counts import Counts
from napari_mri.gui.label_set import LabelSet
from napari_mri.gui.paint_rules import PaintRules
from napari_mri.gui.step_names import merged, stroke_name

ASK_MS = 1500
"""So long after a step it is looked whether the disk took it."""

_all: WeakKeyDictionary[Layer, Edits] = WeakKeyDictionary()
_followed: WeakSet[ViewerModel] = WeakSet()


def edits_of(layer: Layer | None) -> Edits | None:
    """Return the edits of a Labels layer in a followed window, or None."""
    return None if layer is None else _all.get(layer)


def follow(viewer: ViewerModel) -> None:
    """Keep a log for every Labels layer of a window, those to come included. Calling it again does nothing."""
    if viewer in _followed:
        return
    _followed.add(viewer)
    window = ref(viewer)

    def on_inserted(event: Any) -> None:
        here = window()
        if here is not None:
            _attach(event.value, here)

    def on_removed(event: Any) -> None:
        edits = _all.pop(event.value, None)
        if edits is not None:
            edits.close()

    viewer.layers.events.inserted.connect(on_inserted)
    viewer.layers.events.removed.connect(on_removed)
    for layer in viewer.layers:
        _attach(layer, viewer)


def _attach(layer: Layer, viewer: ViewerModel) -> None:
    fits = isinstance(layer, LabelsLayer) and isinstance(layer.data, np.ndarray) and layer.data.ndim in (3, 4)
    if fits and layer not in _all:
        _all[layer] = Edits(layer, viewer)


@atexit.register
def _at_the_end() -> None:
    """Let no step be lost when a program ends without closing its window."""
    for edits in tuple(_all.values()):
        edits.close()


class Edits:
    """All that is done to one Labels layer: the log, the locks, and the voxels of each label.

    Replaces the layer's `undo`, `redo` and `data_setitem`, so that keys, scripts and widgets all end here.

    Parameters
    ----------
    layer : napari Labels
        Its array is a numpy array of 3 or 4 axes.
    viewer : napari viewer

    Attributes
    ----------
    changed : event
        A step was made, taken back, made again or named.
    rules : PaintRules
        Locked labels, and where painting is allowed.
    labels : LabelSet
        Names, colours, order, visibility.
    counts : Counts
        Voxels of each label.
    """

    def __init__(self, layer: LabelsLayer, viewer: ViewerModel) -> None:
        self._layer, self._viewer = ref(layer), ref(viewer)
        self.changed = EventEmitter(source=None, type_name="changed")
        self.rules = PaintRules()
        self.counts = Counts(lambda: private.stroking(layer) if (layer := self._layer()) is not None else False)
        self.labels = LabelSet(layer)
        self.log: EditLog | None = None
        self._array = layer.data
        self._saved: Entry | None = None
        self._restored = self._called = False
        self._warned = ""
        layer.undo, layer.redo, layer.data_setitem = self.undo, self.redo, self.set_points
        layer.events.paint.connect(self._on_paint)
        layer.events.data.connect(self._on_data)
        private.forget(layer)
        private.restrict(layer, self._free)
        bridge.tell_history(layer, self)

    @property
    def layer(self) -> LabelsLayer:
        """The layer."""
        layer = self._layer()
        assert layer is not None, "the layer has gone, nobody should ask"
        return layer

    @property
    def steps(self) -> tuple[Entry, ...]:
        """Every step that can be undone or redone, oldest first."""
        return () if self.log is None else self.log.steps

    @property
    def position(self) -> int:
        """How many of them are done."""
        return 0 if self.log is None else self.log.position

    @property
    def top(self) -> Entry | None:
        """The last step done."""
        return self.steps[self.position - 1] if self.position else None

    # ------------------------------------------------------------------------------- changing

    def change(self, new: NDArray[Any], name: str, *, kind: str = "tool", step: Step | None = None) -> int:
        """Put a new picture into the layer as one step, locked labels left as they are.

        Parameters
        ----------
        new : ndarray of int
            As shown, of the layer's shape.
        name, kind : str
            As in the history list.
        step : Step, optional
            What the maker tells for the sidecar.

        Returns
        -------
        int
            Voxels changed.
        """
        layer = self.layer
        if new.size and new.max() > np.iinfo(layer.data.dtype).max:
            layer.data = layer.data.astype(new.dtype)
        guard = self.rules.guard()
        if not guard.open:
            new = guard.compose(layer.data, new, self.rules.grey(layer.data.shape))
        whole = tuple(slice(0, n) for n in layer.data.shape)
        facts = {} if step is None else {"step": step.to_json()}
        entry = self._record(name, whole, layer.data, new, kind=kind, facts=facts)
        if entry is None:
            return 0
        np.copyto(layer.data, new, casting="unsafe")
        layer.refresh()
        self._after(entry)
        return entry.voxels

    def set_points(self, indices: tuple[Any, ...], value: Any, refresh: bool = True) -> None:
        """Set voxels as napari's `data_setitem` does, locked labels left as they are."""
        layer, guard = self.layer, self.rules.guard(self.layer.selected_label)
        if not guard.open:
            old = layer.data[indices]
            grey = self.rules.grey(layer.data.shape)
            new = np.broadcast_to(np.asarray(value, dtype=old.dtype), old.shape)
            free = guard.compose(old, new, None if grey is None else grey[indices]) == new
            if not free.any():
                return
            indices, value = tuple(np.asarray(place)[free] for place in indices), new[free]
        self._called = True
        try:
            type(layer).data_setitem(layer, indices, value, refresh)
        finally:
            self._called = False

    def _free(self, box: Box, old: NDArray[Any], new_label: int) -> NDArray[np.bool_] | None:
        """Tell where a stroke may put a label (see `napari_private_labels.restrict`)."""
        guard = self.rules.guard(self.layer.selected_label)
        if guard.open:
            return None
        if new_label in guard.locked:
            return np.zeros(old.shape, bool)
        grey = self.rules.grey(self.layer.data.shape)
        return guard.free(old, None if grey is None else grey[box])

    def _on_paint(self, event: Any) -> None:
        """Take a finished stroke of napari's over into the log."""
        layer = self.layer
        private.forget(layer)
        found = private.changed(event.value, layer.data)
        if found is None:  # a napari that tells its strokes in another way
            found = self._differing()
        if found is None:
            return
        box, old, new = found
        guard = self.rules.guard(layer.selected_label)
        if not guard.open and np.array_equal(layer.data[box], new):
            # All this was done before a voxel was written, where napari allows (`restrict`).
            grey = self.rules.grey(layer.data.shape)
            kept = guard.compose(old, new, None if grey is None else grey[box])
            if not np.array_equal(kept, new):
                new = layer.data[box] = kept
                layer.refresh()
        name, kind = stroke_name(layer, event.value, called=self._called)
        entry = self._record(name, box, old, new, kind=kind)
        if entry is not None:
            self._after(entry)

    def _on_data(self, event: Any = None) -> None:
        """Follow an exchanged array; what differs is one step."""
        layer, old = self.layer, self._array
        new = layer.data
        if new is old:
            return
        self._array = new
        self.counts.forget()
        log = self.log
        if log is not None:
            same = isinstance(new, np.ndarray) and new.shape == log.shape
            if same and np.can_cast(log.dtype, new.dtype, "safe"):
                log.widen(new.dtype)
                log.record("Replaced", None, log.replay(), new, kind="edit")
            else:  # other labels altogether
                self._let_go()
        private.forget(layer)
        self.changed()

    def _record(self, name: str, box: Box, old: NDArray[Any], new: NDArray[Any], **told: Any) -> Entry | None:
        return self._opened(box, old).record(name, box, old, new, **told)

    def _after(self, entry: Entry) -> None:
        assert self.log is not None
        self.counts.add(self.log.tally(entry))
        if QCoreApplication.instance() is not None and self.log.path is not None:
            here = ref(self)  # a timer must not keep a closed layer's log alive
            QTimer.singleShot(ASK_MS, lambda: edits._look_at_disk() if (edits := here()) is not None else None)
        self.changed()

    def _differing(self) -> tuple[Box, NDArray[Any], NDArray[Any]] | None:
        if self.log is None:
            return None
        return tuple(slice(0, n) for n in self.log.shape), self.log.replay(), self.layer.data

    # ---------------------------------------------------------------------------- back and forth

    def undo(self) -> None:
        """Take back the last step."""
        self.go_to(self.position - 1)

    def redo(self) -> None:
        """Make the last step taken back again."""
        self.go_to(self.position + 1)

    def go_to(self, position: int) -> None:
        """Undo or redo until so many steps are done, and turn to the slice where the last of them lies."""
        layer, log = self.layer, self.log
        if log is None or private.stroking(layer):  # half a stroke cannot be undone under the brush
            return
        last = None
        while log.position != position:
            back = log.position > position
            last = log.undo(layer.data) if back else log.redo(layer.data)
            if last is None:
                break
            gained = log.tally(last)
            self.counts.add({value: -n for value, n in gained.items()} if back else gained)
        self._show(log.steps[position - 1] if last is None and 0 < position <= len(log.steps) else last)
        layer.refresh()
        self.changed()

    def _show(self, entry: Entry | None) -> None:
        """Turn to where a step lies, if none of it is in the slices shown: an undo nobody sees looks like none."""
        viewer, layer = self._viewer(), self.layer
        if entry is None or viewer is None or layer not in viewer.layers or viewer.dims.ndim < layer.ndim:
            return
        first = viewer.dims.ndim - layer.ndim
        here = layer.world_to_data(viewer.dims.point[first:])
        middle = layer.data_to_world([(side.start + side.stop - 1) // 2 for side in entry.region])
        for axis in viewer.dims.not_displayed:
            own = axis - first
            if own >= 0 and not entry.region[own].start <= round(here[own]) < entry.region[own].stop:
                viewer.dims.set_point(axis, float(middle[own]))

    # ----------------------------------------------------------------------------------- telling

    def history(self) -> tuple[Step, ...]:
        """Return the steps done as lines for a sidecar; strokes that follow one another share a line."""
        return () if self.log is None else merged(self.log.history())

    def name_last(self, step: Step) -> None:
        """Hear from a maker what the change it has just made was."""
        if self.log is not None and self.top is not None and self.top.kind == "edit":
            kind = "tool" if step.order is not None and step.order.task == "edit" else "model"
            self.log.name_last(step.action, kind, {"step": step.to_json()})
            self.changed()

    def note(self, about: str, facts: dict[str, Any]) -> None:
        """Write something into the log that changes no voxel."""
        if self.log is not None:
            self.log.note(about, facts)

    # ----------------------------------------------------------------------------------- keeping

    @property
    def unsaved(self) -> bool:
        """Whether there are steps that are in no file of the user's."""
        if self.log is None:
            return False
        return self._restored or (self.top is not self._saved and not (self._saved is None and _is_start(self.top)))

    @property
    def trouble(self) -> str:
        """Why the log cannot be written now; empty while all is well."""
        return "" if self.log is None else self.log.trouble

    def saved(self, top: Entry | None) -> None:
        """Hear that the labels were saved as they were after the step `top`."""
        self._saved = top
        self._restored = self._restored and self.top is not top
        if self.log is not None and self.top is top:
            self.log.note(SAVED, {})

    def adopt(self, log: EditLog) -> None:
        """Go on with a log that was recovered; the layer holds what it gives."""
        self._let_go()
        self.log, self._restored = log, True
        self.changed()

    def begin_unsaved(self) -> None:
        """Begin a log for labels that are in no file of the user's, before the first stroke."""
        none = tuple(slice(0, 0) for _ in self.layer.data.shape)
        self._opened(none, self.layer.data[none], RESTORED)
        self._restored = True
        self.changed()

    def hear(self, sentence: str) -> None:
        """Take a warning of the writing thread; the window's thread shows it after the next step."""
        self._warned = sentence

    def close(self) -> None:
        """Let go of the layer and of the log's file: kept if something in it was not saved, else removed."""
        self._let_go()
        layer = self._layer()
        if layer is not None:  # it may come back to the window, and get another log then
            layer.events.paint.disconnect(self._on_paint)
            layer.events.data.disconnect(self._on_data)
            private.release(layer)
            for name in ("undo", "redo", "data_setitem"):
                vars(layer).pop(name, None)

    def _let_go(self) -> None:
        log, unsaved = self.log, self.unsaved
        self.log, self._saved, self._restored = None, None, False
        if log is not None:
            if unsaved:
                log.note(CLOSED, {})
            with suppress(OSError):
                log.close(delete=not unsaved)

    def _opened(self, box: Box, old: NDArray[Any], name: str = "Opened") -> EditLog:
        """Return the log; begin it if this is the first step, with what the layer held before."""
        if self.log is None:
            layer = self.layer
            path, facts = None, {}
            try:
                record = bridge.record_of(layer, self._layers())
                path, facts = new_path(record.volume.grid), _head(record)
                path.parent.mkdir(parents=True, exist_ok=True)
            except MriError:  # it stands on no scan: there would be no place to bring it back to
                pass
            except OSError:  # the log itself will say so, and go on in memory
                pass
            author = os.environ.get("NAPARI_MRI_AUTHOR", "")
            kind = layer.data.dtype
            self.log = EditLog(layer.data.shape, kind, path, author=author, facts=facts, on_warning=self.hear)
            start = layer.data.copy()
            start[box] = old
            self.log.begin(start, name)
            self._saved = self.top
        return self.log

    def _layers(self) -> Any:
        viewer = self._viewer()
        return () if viewer is None else viewer.layers

    def _look_at_disk(self) -> None:
        sentence, self._warned = self._warned, ""
        if sentence:
            show_warning(sentence)
            self.changed()


def _is_start(entry: Entry | None) -> bool:
    return entry is None or entry.kind == "start"


def _head(record: bridge.Shown) -> dict[str, Any]:
    """Return what is needed to put recovered labels back into their place; nothing of the patient."""
    volume = record.volume
    told: dict[str, Any] = {
        "grid": {"shape": list(volume.grid.shape), "affine": volume.grid.affine.tolist()},
        "frame": record.placing.frame.axes.tolist(),
        "history": [step.to_json() for step in volume.history],
    }
    if isinstance(volume, Labels):
        told["names"] = {str(value): name for value, name in volume.names.items()}
        told["colors"] = {str(value): list(color) for value, color in volume.colors.items()}
    return told
