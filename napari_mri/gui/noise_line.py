"""A line that tells how much noise a scan holds, before anything is run on it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from weakref import ref

from napari.layers import Layer
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QLabel

from napari_mri.core.errors import MriError
from napari_mri.core.volume import Volume
from napari_mri.gui import layers as bridge
from napari_mri.measure import noise

LOOK_EVERY_MS = 60
_WHERE = {"background": "in the air", "detail": "in flat tissue"}


class _Look:
    """One measurement in a thread of its own; it knows no widget, so none can die under it."""

    def __init__(self, volume: Volume) -> None:
        self.sentence = ""
        self._volume: Volume | None = volume
        # Not a daemon: numpy may be at work when Python ends. A second or two, then it is over.
        self._thread = threading.Thread(target=self._run, name="napari-mri noise", daemon=False)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        volume, self._volume = self._volume, None
        if volume is None:
            return
        try:
            self.sentence = told(noise.estimate(volume), volume.n_frames)
        except MriError as error:
            self.sentence = str(error)
        except MemoryError:
            self.sentence = "The noise could not be measured: too little memory."


def told(found: noise.Noise, frames: int = 1) -> str:
    """Return what was found, as a sentence or two for the user.

    Parameters
    ----------
    found : Noise
    frames : int
        Of the scan; of a series the first is measured.
    """
    if found.sigma <= 0:
        return " ".join(("No noise was found.", *found.notes))
    first = " of the first frame" if frames > 1 else ""
    where = _WHERE.get(found.how, found.how)
    text = f"Noise{first}: σ = {found.sigma:.3g}, {found.percent:.1f} % of bright tissue ({found.kind.capitalize()}, seen {where})."
    return text if found.trusted else f"{text}\n⚠ Not to be trusted: {' '.join(found.notes)}"


class NoiseLine(QLabel):
    """The noise of a layer, measured off the window's thread; empty while there is none to tell."""

    def __init__(self) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._look: _Look | None = None
        self._of: tuple[ref[Layer], int] | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_EVERY_MS)
        self._timer.timeout.connect(self._on_time)
        self.setVisible(False)

    @property
    def looking(self) -> bool:
        """Whether a measurement is under way."""
        return self._timer.isActive()

    def show_of(self, layer: Layer | None, layers: Iterable[Layer] = ()) -> None:
        """Measure a layer, unless that was done already; None hides the line.

        Parameters
        ----------
        layer : napari Image or None
        layers : iterable of napari layers
            The window's.
        """
        known = self._of is not None and layer is not None and self._of[0]() is layer and self._of[1] == id(layer.data)
        self.setVisible(layer is not None)
        if layer is None or known:
            return
        self._of = (ref(layer), id(layer.data))
        try:
            volume = bridge.volume_of(layer, layers)
        except MriError as error:
            self._timer.stop()
            self.setText(str(error))
            return
        self.setText("Looking at the noise …")
        self._look = _Look(volume)
        self._timer.start()

    def _on_time(self) -> None:
        if self._look is None or self._look.running:
            return
        self.setText(self._look.sentence)
        self._look = None
        self._timer.stop()
