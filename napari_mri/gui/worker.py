"""One piece of work off the window's thread: progress, time left, stop, and the errors shown."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QCoreApplication, QObject, Qt, QTimer, Signal

from napari_mri.core.errors import Cancelled, MriError
from napari_mri.engine.runtime import LocalRuntime

LET_GO_MS = 700
"""After this long a stopped run is no longer waited for; its thread ends at its next report."""
TOLD_EVERY_S = 0.05

_log = logging.getLogger(__name__)
_kept: set[Job] = set()
"""Jobs whose thread may still run. A QObject must not die on a foreign thread, so they are let go of here."""


class Lane:
    """Jobs of one lane follow one another; those of two lanes run side by side.

    Parameters
    ----------
    name : str
        Of one of its jobs, for a sentence.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.free = threading.Lock()
        self.at_work: Job | None = None
        """The job that holds the lock."""


RUNS, CLICKS, EDITS = Lane("run"), Lane("question"), Lane("tool")
"""Models on whole scans take minutes: clicks, tools and exports do not wait for them."""


class Job(QObject):
    """A call that runs in a thread of its own and tells the window how it goes.

    Connect bound methods of widgets to the signals; they are called on the window's thread. Exactly
    one of `done`, `failed` and `stopped` is emitted, and none after `abandon`.

    Parameters
    ----------
    work : callable
        ``work(rt) -> anything``, called with a `LocalRuntime`.
    device : str
    lane : Lane
        It waits for others of this lane to end.
    """

    told = Signal(float, str)
    """Fraction done, and what is going on."""
    done = Signal(object)
    failed = Signal(str)
    stopped = Signal(str)
    _over = Signal(str, object)

    def __init__(self, work: Callable[[LocalRuntime], Any], device: str = "auto", lane: Lane = RUNS) -> None:
        super().__init__()
        self._work, self._device, self._lane = work, device, lane
        self._cancel = threading.Event()
        self._quiet = False
        self._last = 0.0
        self._over.connect(self._finish, Qt.ConnectionType.QueuedConnection)
        # Not a daemon: torch does not survive being cut off at the end of Python. It ends at its
        # next report, which every model makes at least once a tile.
        self._thread = threading.Thread(target=self._run, name="napari-mri work", daemon=False)
        app = QCoreApplication.instance()
        if app is not None:
            app.aboutToQuit.connect(self.abandon)
        for job in tuple(_kept):
            if not job._thread.is_alive():
                _kept.discard(job)

    @property
    def running(self) -> bool:
        """Whether the window still waits for it."""
        return not self._quiet and self._thread.ident is not None

    def start(self) -> None:
        """Begin."""
        _kept.add(self)
        self._thread.start()

    def stop(self) -> None:
        """Ask the work to stop; `stopped` follows within a second."""
        self._cancel.set()
        QTimer.singleShot(LET_GO_MS, self._let_go)

    def abandon(self) -> None:
        """Stop and say nothing more: the window is going away."""
        self._quiet = True
        self._cancel.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the thread; tell whether it has ended. For tests and the end of a window."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _let_go(self) -> None:
        self._finish("stopped", "Stopped. The last step is still winding down in the background.")

    def _finish(self, how: str, what: Any) -> None:
        if self._quiet:
            return
        self._quiet = True
        getattr(self, how).emit(what)

    def _run(self) -> None:
        try:
            lane = self._lane
            while not lane.free.acquire(timeout=0.1):
                if self._cancel.is_set():
                    raise Cancelled
                other = lane.at_work
                stopped = other is not None and other._cancel.is_set()
                ends = f"stopped {lane.name} to wind down" if stopped else f"{lane.name} under way to end"
                self._report(0.0, f"waiting for the {ends}")
            lane.at_work = self
            try:
                # Made here, not before: looking for a GPU imports torch, which takes seconds.
                answer = self._work(LocalRuntime(self._device, self._report, self._cancel))
            finally:
                lane.at_work = None
                lane.free.release()
                del self._work  # with the scan it holds
            if self._cancel.is_set():
                raise Cancelled
        except Cancelled:
            self._say("stopped", "Stopped. Nothing was changed.")
        except MriError as error:
            self._say("failed", str(error))
        except MemoryError:
            self._say("failed", "The memory of this machine is not enough for this scan. Close other programs.")
        except Exception as error:  # noqa: BLE001  (the last face before the user: shown and logged)
            if self._cancel.is_set() and self._quiet:
                return  # the window is gone, and Python may be ending under the work
            _log.exception("a run failed")
            self._say("failed", f"Something is wrong in the program: {type(error).__name__}: {error}")
        else:
            self._say("done", answer)

    def _say(self, how: str, what: Any) -> None:
        if not self._quiet:
            self._over.emit(how, what)

    def _report(self, fraction: float, text: str) -> None:
        now = time.monotonic()
        if not self._quiet and (now - self._last > TOLD_EVERY_S or fraction >= 1):
            self._last = now
            self.told.emit(fraction, text)


def time_left(fraction: float, seconds: float) -> str:
    """Return how long the rest will take, in words; empty while it cannot be told.

    Parameters
    ----------
    fraction : float
        Part of the work that is done.
    seconds : float
        Time it took.
    """
    if fraction < 0.03 or seconds < 1.0 or fraction >= 1:
        return ""
    rest = seconds / fraction * (1 - fraction)
    if rest < 1.5:
        return "about 1 s left"
    if rest < 90:
        return f"about {round(rest)} s left"
    if rest < 5400:
        return f"about {round(rest / 60)} min left"
    return f"about {rest / 3600:.1f} h left"
