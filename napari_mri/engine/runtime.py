"""What a model is handed when it runs: device, progress and stop, weights, nets kept warm."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from napari_mri.core.errors import Cancelled
from napari_mri.core.model import Runtime, Weights
from napari_mri.core.volume import Volume
from napari_mri.engine import device as devices
from napari_mri.engine import weights as files

Kept = TypeVar("Kept")

_KEEP_AT_MOST = 8
_kept: OrderedDict[tuple[str, str], Any] = OrderedDict()
_kept_lock = threading.RLock()


class LocalRuntime:
    """A `Runtime` on this machine.

    Parameters
    ----------
    device : str
        ``"auto"``, ``"cuda"``, ``"mps"`` or ``"cpu"``; looked up when first asked for, so that a
        model without torch never imports it.
    on_report : callable, optional
        ``on_report(fraction, text)``; called from the thread that runs the model.
    cancel : threading.Event, optional
        Set it from any thread to stop the run at its next report.
    seed : int
    """

    def __init__(
        self,
        device: str = "auto",
        on_report: Callable[[float, str], None] | None = None,
        cancel: threading.Event | None = None,
        seed: int = 0,
    ) -> None:
        self._wish = device
        self._device: str | None = None
        self._on_report = on_report
        self.cancel = cancel or threading.Event()
        self._seed = seed
        self.warnings: list[str] = []
        self.extras: dict[str, Volume] = {}
        self.used: dict[str, str] = {}
        """Weights used: file name -> sha256."""
        self.span = (0.0, 1.0)
        """Which part of the whole work the model's own 0 to 1 stands for (frames of a 4D scan)."""
        self.result_only = False
        """Set it where nobody looks at by-products: models may then leave out those that take long."""
        self.began = time.monotonic()
        if device != "auto":
            self._device = devices.choose(device)  # a wrong wish is told before the work begins

    @property
    def device(self) -> str:
        """``"cpu"``, ``"cuda"`` or ``"mps"``."""
        if self._device is None:
            self._device = devices.choose(self._wish)
        return self._device

    @property
    def device_used(self) -> str:
        """Device for the history; ``"cpu"`` if the model never asked."""
        return devices.processor_name(self._device or "cpu")

    def move_to_cpu(self) -> None:
        """Go on without the GPU, as after its memory ended."""
        self._device = "cpu"

    @property
    def seed(self) -> int:
        """Seed for every random draw of the run."""
        return self._seed

    def sow(self, seed: int) -> None:
        """Draw from another seed from now on, as a run that is repeated does."""
        self._seed = seed

    def report(self, fraction: float, text: str = "") -> None:
        """Tell the progress of the model, 0 to 1.

        Raises
        ------
        Cancelled
            When the user pressed stop.
        """
        if self.cancel.is_set():
            raise Cancelled("Stopped. Nothing was changed.")
        if self._on_report is not None:
            low, high = self.span
            self._on_report(low + (high - low) * min(max(fraction, 0.0), 1.0), text)

    def finish_early(self) -> bool:
        """Take back a pressed stop because the model can hand over what it has; a second stop ends the run.

        Returns
        -------
        bool
            Whether stop had been pressed.
        """
        pressed = self.cancel.is_set()
        self.cancel.clear()
        return pressed

    def follow(self, other: LocalRuntime) -> None:
        """Report to, and be stopped by, another runtime from now on: a session outlives the call that opened it."""
        self.cancel, self._on_report = other.cancel, other._on_report

    def warn(self, sentence: str) -> None:
        """Keep a sentence for the user and the history, once."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def wants(self, name: str) -> bool:
        """Tell whether anybody looks at a by-product: all but where `result_only` was set."""
        return not self.result_only

    def offer(self, name: str, volume: Volume) -> None:
        """Keep a by-product of the run."""
        self.extras[name] = volume

    def weights(self, weights: Weights) -> Path:
        """Return the checked file (see `engine.weights.checked`), and note its sha256."""
        path, sha = files.checked(weights)
        self.used[weights.file] = sha
        return path

    def keep(self, key: str, make: Callable[[], Kept]) -> Kept:
        """Return what was kept under `key` on this device, or make and keep it.

        Kept across runs in this process; the least recently used is let go.
        """
        place = (self.device, key)
        with _kept_lock:
            if place not in _kept:
                _kept[place] = make()
            _kept.move_to_end(place)
            while len(_kept) > _KEEP_AT_MOST:
                _kept.popitem(last=False)
            found: Kept = _kept[place]
            return found

    def drawn(self, make: Callable[[], Kept]) -> Kept:
        """Return what `make` draws at random: from the seed on, and no net is made meanwhile by another thread (`keep`)."""
        import torch

        with _kept_lock:
            torch.manual_seed(self._seed)
            return make()


def part_of(rt: Runtime, low: float, high: float) -> Runtime:
    """Return a runtime whose 0 to 1 is from `low` to `high` of another's: a frame, a turned copy."""
    return cast(Runtime, _Part(rt, low, high))


class _Part:
    def __init__(self, rt: Runtime, low: float, high: float) -> None:
        self._rt, self._low, self._share = rt, low, high - low

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rt, name)

    def report(self, fraction: float, text: str = "") -> None:
        self._rt.report(self._low + self._share * fraction, text)


def forget_kept() -> None:
    """Let go of every net kept warm."""
    with _kept_lock:
        _kept.clear()
