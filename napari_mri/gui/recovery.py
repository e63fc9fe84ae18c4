"""Labels that were not saved when a window died or closed: offered, restored with their undo, or discarded."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QPushButton, QVBoxLayout

from napari_mri.core.errors import BrokenFile, MriError
from napari_mri.core.grid import Grid
from napari_mri.core.history import Step
from napari_mri.core.volume import Labels
from napari_mri.edit.log import EditLog, Recovered
from napari_mri.edit.unfinished import Unfinished, unfinished
from napari_mri.gui import layers as bridge
from napari_mri.gui.edit_history import Edits, edits_of
from napari_mri.gui.placing import Frame, Placing

NAMES = "names"
"""The note in a log that tells the names and colours of the labels."""


def restore(viewer: ViewerModel, left: Unfinished) -> tuple[Layer, tuple[str, ...]]:
    """Bring labels back into a window, where they stood in the patient.

    Returns
    -------
    layer : napari Labels
        In the window; its undo goes on where it was, unless the window looks along other axes now.
    notes : tuple of str
        What the user should know.

    Raises
    ------
    MriError
        If the log is broken, or open in another window.
    """
    warned: list[Edits] = []
    found = EditLog.recover(left.path, on_warning=lambda text: warned[0].hear(text) if warned else None)
    try:
        labels, placing = _labels(found)
    except MriError:
        found.log.close()
        raise
    frame = bridge.frame_of(viewer.layers)
    same = frame is None or frame.same(placing.frame)
    notes = list(found.notes)
    if not same:
        labels = labels.with_data(placing.home(found.array))
        notes.append("The window looks along other axes than before: the steps can no longer be undone.")
    elif not placing.exact:
        notes.append("These labels lay tilted in the window: each exact voxel takes the nearest that was drawn.")
    array, look, kind = bridge.to_tuple(labels, placing.frame if same else frame, name=_name(viewer, labels.grid))
    layer = Layer.create(found.array if same else array, look, kind)
    viewer.add_layer(layer)
    edits = edits_of(layer)
    assert edits is not None, "a window that offers this is followed"
    warned.append(edits)
    if same:
        edits.adopt(found.log)
    else:
        edits.begin_unsaved()
        found.log.close(delete=True)
    return layer, tuple(notes)


def _labels(found: Recovered) -> tuple[Labels, Placing]:
    facts = found.log.facts
    try:
        shape, affine = facts["grid"]["shape"], np.asarray(facts["grid"]["affine"], dtype=float)
        grid = Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)
        frame = Frame(np.asarray(facts["frame"], dtype=float).reshape(3, 3))
        told: Any = next((n["facts"] for n in reversed(found.log.notes) if n["kind"] == NAMES), facts)
        names = {int(value): str(name) for value, name in told.get("names", {}).items()}
        colors = {int(value): (float(r), float(g), float(b)) for value, (r, g, b) in told.get("colors", {}).items()}
        history = tuple(Step.from_json(step) for step in facts.get("history", ()))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise BrokenFile("The edit log does not tell where its labels stood.") from error
    placing = Placing(grid, frame)
    if found.array.shape[-3:] != placing.shape:
        raise BrokenFile("The edit log and its place do not fit each other.")
    size = grid.shape if found.array.ndim == 3 else (*grid.shape, found.array.shape[0])
    empty = np.zeros(size, found.array.dtype)
    return Labels(empty, grid, history, names=names, colors=colors), placing


def _name(viewer: ViewerModel, grid: Grid) -> str:
    for layer in reversed(viewer.layers):
        record = bridge.shown(layer)
        if isinstance(layer, Image) and record is not None and record.volume.grid.same(grid):
            return f"{layer.name} · labels (restored)"
    return "labels (restored)"


class RecoveryBar(QFrame):
    """Invisible unless labels were left behind; then it offers them one after another.

    Parameters
    ----------
    viewer : napari viewer
    """

    restored = Signal(object, object)
    """The layer, and notes for the user."""
    failed = Signal(str)

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self._left: list[Unfinished] = []
        self.says = QLabel()
        self.says.setWordWrap(True)
        self.restore_button, self.discard_button = QPushButton("Restore"), QPushButton("Discard")
        self.later_button = QPushButton("Later")
        self.setStyleSheet("RecoveryBar { background: #4a3a10; border-radius: 4px; } QLabel { color: #ffd479; }")
        line = QHBoxLayout()
        for button, call in (
            (self.restore_button, self.restore), (self.discard_button, self.discard), (self.later_button, self.later),
        ):  # fmt: skip
            button.clicked.connect(call)
            line.addWidget(button)
        whole = QVBoxLayout(self)
        whole.addWidget(self.says)
        whole.addLayout(line)
        self.look()

    def look(self) -> None:
        """Look for labels that were left behind."""
        self._left = list(unfinished())
        self._show()

    def _show(self) -> None:
        self.setVisible(bool(self._left))
        self.discard_button.setText("Discard")
        if not self._left:
            return
        left = self._left[0]
        when = time.strftime("%d %b %H:%M", time.localtime(left.time))
        how = "closed before they were saved" if left.closed else "not saved when napari ended"
        count = f"{len(left.steps)} change{'s' if len(left.steps) != 1 else ''}"
        more = f" ({len(self._left) - 1} more wait behind.)" if len(self._left) > 1 else ""
        self.says.setText(f"⚠ Labels of {when} were {how}: {count}, the last '{left.steps[-1]}'.{_place(left)}{more}")

    def restore(self) -> None:
        """Bring the labels offered back into the window."""
        if not self._left:
            return
        left = self._left.pop(0)
        try:
            layer, notes = restore(self._viewer, left)
        except MriError as error:
            self.failed.emit(str(error))
        else:
            self.restored.emit(layer, notes)
        self._show()

    def discard(self) -> None:
        """Remove the log offered; asks once more on the same button."""
        if not self._left:
            return
        if self.discard_button.text() == "Discard":
            self.discard_button.setText("Really discard?")
            return
        left = self._left.pop(0)
        try:
            left.path.unlink(missing_ok=True)
        except OSError as error:
            self.failed.emit(f"{left.path.name} cannot be removed: {error.strerror}.")
        self._show()

    def later(self) -> None:
        """Ask again when this widget is next opened."""
        self._left = []
        self._show()


def _place(left: Unfinished) -> str:
    shape = left.facts.get("grid", {}).get("shape", ())
    return f" Grid {'×'.join(map(str, shape))}." if shape else ""
