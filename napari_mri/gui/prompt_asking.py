"""Asking a model about prompts, off the window's thread: the session is kept, a newer question replaces an older one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_mri import tasks
from napari_mri.core.history import Order
from napari_mri.core.prompts import Prompts
from napari_mri.core.volume import Labels, Volume
from napari_mri.gui.worker import CLICKS, Job


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked.

    Parameters
    ----------
    order : Order
        Model and options.
    scan : Volume
    prompts : Prompts
    device : str
    place : int
        Tells one scan of the window from another.
    """

    order: Order
    scan: Volume
    prompts: Prompts
    device: str = "auto"
    place: int = 0

    @property
    def opens(self) -> tuple[Any, ...]:
        """What a session is opened for; the same session answers all questions that agree in this."""
        return self.place, self.device, str(self.order.to_json())


@dataclass(frozen=True, eq=False)
class Answer:
    """What came back: the mask, the model's own estimate, what it took the marks for, its warnings, and how long it took."""

    labels: Labels
    score: float | None
    taken_for: str
    warnings: tuple[str, ...]
    seconds: float


class Asker(QObject):
    """One question at a time."""

    answered = Signal(object)
    """An `Answer`, to the latest question."""
    told = Signal(float, str)
    failed = Signal(str)
    over = Signal()
    """Nothing is under way any more, whatever came of it."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self._job: Job | None = None
        self._next: Question | None = None
        self._wanted: Question | None = None
        self._opening: tuple[Any, ...] | None = None
        self._kept: tuple[tuple[Any, ...], tasks.ScanSession] | None = None

    @property
    def busy(self) -> bool:
        """Whether a question is under way."""
        return self._job is not None and self._job.running

    @property
    def session(self) -> tasks.ScanSession | None:
        """The session that is open."""
        return self._kept[1] if self._kept is not None else None

    def open(self, question: Question) -> None:
        """Open the model for a question to come, if nothing is under way: opening takes longest."""
        if not self.busy and (self._kept is None or self._kept[0] != question.opens):
            self.ask(replace(question, prompts=Prompts()))

    def ask(self, question: Question) -> None:
        """Ask; a question under way is stopped, its answer never shown. What is being opened for this one, too, goes on."""
        self._wanted = question
        if self.busy:
            assert self._job is not None
            self._next = question
            if self._opening != question.opens:
                self._job.stop()
            return
        self._job = Job(lambda rt: self._work(question, rt), question.device, CLICKS)
        self._job.told.connect(self.told)
        self._job.done.connect(self._on_done)
        self._job.failed.connect(self._on_failed)
        self._job.stopped.connect(self._on_stopped)
        self._job.start()

    def stop(self) -> None:
        """Ask the work under way to stop."""
        self._next = self._wanted = None
        if self._job is not None and self._job.running:
            self._job.stop()

    def rest(self) -> None:
        """Ask nothing any more; what is being opened goes on."""
        self._next = self._wanted = None
        if self._opening is None:
            self.stop()

    def _work(self, question: Question, rt: Any) -> Answer | None:
        """Open the model if need be, and answer; not on the window's thread, and never two at a time.

        None if nothing is asked, or something newer than this by the time the model is open.
        """
        began = time.monotonic()
        kept = self._kept
        if kept is not None and kept[0] == question.opens:
            session = kept[1]
            session.rt.follow(rt)
        else:
            self._kept = None
            if kept is not None:
                kept[1].close()
            self._opening = question.opens
            try:
                session = tasks.open_session(question.order, question.scan, rt)
            finally:
                self._opening = None
            # Kept before the first answer: a click that replaces this one must not open the model again.
            self._kept = (question.opens, session)
        if self._wanted is not question or not question.prompts:
            return None
        labels = session.answer(question.prompts)
        return Answer(labels, session.score, session.taken_for, tuple(session.rt.warnings), time.monotonic() - began)

    def _on_done(self, answer: Answer | None) -> None:
        if not self._go_on():
            if answer is not None and self._wanted is not None:
                self.answered.emit(answer)
            self.over.emit()

    def _on_failed(self, sentence: str) -> None:
        if not self._go_on():
            self.failed.emit(sentence)
            self.over.emit()

    def _on_stopped(self, _: str) -> None:
        if not self._go_on():
            self.over.emit()

    def _go_on(self) -> bool:
        waiting, self._next = self._next, None
        if waiting is not None:
            self.ask(waiting)
        return waiting is not None

    def ender(self) -> Callable[..., None]:
        """Return a callback for the widget's end; by then Qt's half of this object is gone."""
        held = self.__dict__

        def end(*_: Any) -> None:
            job, kept = held.get("_job"), held.get("_kept")
            held["_next"] = None
            if job is not None:
                job.abandon()
            if kept is not None and (job is None or job.wait(0)):  # else the thread still works with it
                kept[1].close()

        return end
