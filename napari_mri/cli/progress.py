"""Progress on the terminal, Ctrl-C that stops cleanly, and errors as one sentence."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

import click

from napari_mri.core.errors import MriError
from napari_mri.engine.runtime import LocalRuntime

_BEGUN = "napari_mri.begun"


class Progress:
    """One line on stderr that is written over; a line every few seconds where stderr is no terminal."""

    def __init__(self, quiet: bool = False) -> None:
        self._began = self._said = time.monotonic()
        self._live = sys.stderr.isatty()
        self._quiet = quiet
        self._width = 0

    def __call__(self, fraction: float, text: str = "") -> None:
        """Show a fraction 0 to 1 and what is being done."""
        now = time.monotonic()
        if self._quiet or now - self._said < (0.1 if self._live else 5.0):
            return
        self._said = now
        line = f"{100 * fraction:3.0f} %  {text}{self._left(now, fraction)}"
        if self._live:
            click.echo("\r" + line.ljust(self._width), err=True, nl=False)
            self._width = len(line)
        else:
            click.echo(line, err=True)

    def _left(self, now: float, fraction: float) -> str:
        spent = now - self._began
        if fraction < 0.02 or spent < 2:
            return ""
        return f"  ({spent * (1 - fraction) / fraction:.0f} s left)"

    def close(self) -> None:
        """Clear the line."""
        if self._live and self._width:
            click.echo("\r" + " " * self._width + "\r", err=True, nl=False)


@contextmanager
def running(device: str = "auto", seed: int = 0, quiet: bool = False) -> Iterator[LocalRuntime]:
    """Give a runtime whose first Ctrl-C stops the run at its next report; a second one interrupts at once."""
    progress = Progress(quiet)
    rt = LocalRuntime(device, progress, threading.Event(), seed)

    def stop(number: int, frame: FrameType | None) -> None:
        if rt.cancel.is_set():
            raise KeyboardInterrupt
        rt.cancel.set()
        click.echo("\nStopping …", err=True)

    try:
        with _heard(signal.SIGINT, stop):
            yield rt
    finally:
        progress.close()


@contextmanager
def _heard(number: int, answer: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Answer a signal while the block runs; only the main thread may."""
    on_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(number, answer) if on_main else None
    try:
        yield
    finally:
        if on_main:
            signal.signal(number, before)


class _Ended(KeyboardInterrupt):
    """The system asked the program to end."""


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # asked twice, it would not take away what is half written
    raise _Ended


@contextmanager
def told(window: bool = False) -> Iterator[None]:
    """Turn a known error into one sentence and a hint on stderr, and exit code 1.

    SIGTERM stops the block as Ctrl-C does, with exit code 143, but for one that opens a window, whose loop would not hear it.
    """
    try:
        with nullcontext() if window else _heard(signal.SIGTERM, _end):
            yield
    except MriError as error:
        click.echo(f"Error: {error.what}", err=True)
        if error.hint:
            click.echo(f"Hint: {error.hint}", err=True)
        sys.exit(1)
    except KeyboardInterrupt as stop:
        ctx = click.get_current_context(silent=True)
        begun = ctx.meta.get(_BEGUN, []) if ctx else []
        wrote = f"Look whether these are whole, with their .json: {', '.join(begun)}." if begun else "Nothing was written."
        click.echo(f"Stopped. {wrote}", err=True)
        sys.exit(128 + signal.SIGTERM if isinstance(stop, _Ended) else 1)


def begins(target: str) -> None:
    """Note that a result is being written, for whoever stops the program at that moment."""
    ctx = click.get_current_context(silent=True)
    if ctx:
        ctx.meta.setdefault(_BEGUN, []).append(target)


def warn(sentences: tuple[str, ...]) -> None:
    """Show warnings on stderr."""
    for sentence in sentences:
        click.echo(f"Warning: {sentence}", err=True)
