"""A file that only grows: checksummed records, written and synced by a thread of its own."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from napari_mri.core.errors import BrokenFile, FileProblem

MAGIC = b"MRIEDIT1"
_HEAD = struct.Struct("<4sIII")
_MARK = b"REC:"
_RETRY_SECONDS = 2.0


@dataclass(eq=False)
class _Item:
    """A record that waits to be written; `make` gives its bytes and the length of its body."""

    record: bytes
    body_at: int
    done: Callable[[int], None] | None = None
    make: Callable[[], tuple[bytes, int]] | None = None

    def ready(self) -> bytes:
        if self.make is not None:
            self.record, body = self.make()
            self.body_at, self.make = len(self.record) - body, None
        return self.record


@dataclass(frozen=True)
class Record:
    """One record as it stands in the file.

    Parameters
    ----------
    facts : mapping
        Small plain values: kind, name, time, …
    body : bytes
        A packed difference, or empty.
    place : int
        Offset of the body in the file.
    """

    facts: Mapping[str, Any]
    body: bytes
    place: int


def encode(facts: Mapping[str, Any], body: bytes = b"") -> bytes:
    """Return a record's bytes: mark, two lengths, CRC-32 of all the rest, facts as JSON, body."""
    text = json.dumps(facts, separators=(",", ":"), ensure_ascii=False).encode()
    sizes = struct.pack("<II", len(text), len(body))
    return b"".join((_MARK, sizes, struct.pack("<I", zlib.crc32(body, zlib.crc32(sizes + text))), text, body))


def read_records(path: Path) -> tuple[list[Record], int, int]:
    """Read a journal up to its first damaged or unfinished record.

    Returns
    -------
    records : list of Record
    good : int
        Length of the sound part, bytes.
    size : int
        Length of the file, bytes; more than `good` if the tail is torn.

    Raises
    ------
    BrokenFile
        If the file is no journal at all.
    FileProblem
        If it cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileProblem(f"The edit log cannot be read: {error.strerror}.", hint=str(path)) from error
    if not content.startswith(MAGIC):
        raise BrokenFile(f"{path.name} is not an edit log.")
    records = list(_sound(content))
    good = records[-1].place + len(records[-1].body) if records else len(MAGIC)
    return records, good, len(content)


def _sound(content: bytes) -> Iterator[Record]:
    place = len(MAGIC)
    while place + _HEAD.size <= len(content):
        mark, text_size, body_size, crc = _HEAD.unpack_from(content, place)
        start = place + _HEAD.size
        end = start + text_size + body_size
        if mark != _MARK or end > len(content):
            return
        if zlib.crc32(content[start:end], zlib.crc32(content[place + 4 : place + 12])) != crc:
            return
        try:
            facts = json.loads(content[start : start + text_size])
        except ValueError:
            return
        yield Record(facts, content[start + text_size : end], start + text_size)
        place = end


class Journal:
    """Appends records to a file off the calling thread, each synced to the disk within a second.

    Parameters
    ----------
    path : Path
    fresh : bool
        Make the file; it must not exist. Otherwise go on after the sound part of an old one.
    good : int
        Length of that sound part; what follows is cut off.
    on_warning : callable
        ``on_warning(sentence)``, called from the writing thread when the disk refuses, once for
        each trouble, and again when writing goes on. Records wait in memory meanwhile.

    Raises
    ------
    FileProblem
        If the file is there already (fresh), or another program has it open.
    """

    def __init__(
        self, path: Path, *, fresh: bool = True, good: int = 0, on_warning: Callable[[str], None] | None = None
    ) -> None:
        self.path = path
        self._warn = on_warning or (lambda sentence: None)
        self._waiting: deque[_Item] = deque()
        self._news = threading.Condition()
        self._closing = False
        self._trouble = ""
        self._file: FileIO | None = None
        self._end = good
        self._fresh = fresh
        if fresh:
            if path.exists():
                raise FileProblem(
                    f"There is an edit log at {path.name} already.", hint="Recover it or choose another name."
                )
            self._waiting.append(_Item(MAGIC, 0))
            self._end = 0
        else:
            self._file = self._opened()
        self._thread = threading.Thread(target=self._work, name=f"napari-mri edit log {path.name}", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why the disk does not take the records now; empty while all is well."""
        return self._trouble

    def append(self, facts: Mapping[str, Any], body: bytes = b"", done: Callable[[int], None] | None = None) -> None:
        """Queue a record; `done` is called with its body's offset once it is safe on the disk."""
        record = encode(facts, body)
        self._queue(_Item(record, len(record) - len(body), done))

    def append_later(self, make: Callable[[], tuple[bytes, int]], done: Callable[[int], None] | None = None) -> None:
        """Queue a record that the writing thread makes itself: ``make() -> (encoded record, length of its body)``."""
        self._queue(_Item(b"", 0, done, make))

    def _queue(self, item: _Item) -> None:
        with self._news:
            self._waiting.append(item)
            self._news.notify_all()

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until all that was queued is on the disk; False if it is not by then."""
        limit = time.monotonic() + timeout
        with self._news:
            while self._waiting and self._thread.is_alive():
                if (left := limit - time.monotonic()) <= 0 or (self._trouble and self._closing):
                    return False
                self._news.wait(min(left, 0.1))
            return not self._waiting

    def read(self, place: int, size: int) -> bytes:
        """Read a body back.

        Raises
        ------
        FileProblem
            If the file has gone or was cut.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(place)
                body = file.read(size)
        except OSError as error:
            raise FileProblem(f"The edit log cannot be read: {error.strerror}.", hint=str(self.path)) from error
        if len(body) != size:
            raise BrokenFile("The edit log has become shorter while in use.", hint=str(self.path))
        return body

    def close(self, timeout: float = 10.0) -> bool:
        """Write what waits, stop the thread and let go of the file; False if something was not written."""
        with self._news:
            self._closing = True
            self._news.notify_all()
        self._thread.join(timeout)
        return not self._waiting

    def _work(self) -> None:
        while True:
            with self._news:
                while not self._waiting and not self._closing:
                    self._news.wait()
                batch = list(self._waiting)
            if batch and self._write(batch):
                with self._news:
                    for _ in batch:
                        self._waiting.popleft()
                    self._news.notify_all()
                continue
            if self._closing:  # either nothing waits, or the disk had its last chance
                self._let_go()
                return
            if batch:
                with self._news:
                    self._news.wait_for(lambda: self._closing, timeout=_RETRY_SECONDS)

    def _write(self, batch: list[_Item]) -> bool:
        try:
            if self._file is None:
                self._file = self._opened()
            left = memoryview(b"".join([item.ready() for item in batch]))
            while left:  # a disk that is nearly full takes a part and says nothing
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            self._refused(error)
            return False
        except FileProblem as error:
            self._tell(str(error))
            return False
        place = self._end
        for item in batch:
            if item.done is not None:
                item.done(place + item.body_at)
            place += len(item.record)
        self._end = place
        if self._trouble:
            self._trouble = ""
            self._warn("The edit log is being saved again; nothing was lost.")
        return True

    def _refused(self, error: OSError) -> None:
        """Cut off what was half written, so that the file stays sound for whoever finds it."""
        self._let_go()
        with suppress(OSError):  # a torn tail is cut off on recovery as well
            if self.path.exists() and self.path.stat().st_size > self._end:
                os.truncate(self.path, self._end)
        self._tell(
            f"Your edits cannot be saved to {self.path.parent}: {error.strerror or error}. "
            "You can go on painting; they are kept in memory. Free some space or save the labels elsewhere."
        )

    def _tell(self, sentence: str) -> None:
        first = not self._trouble
        self._trouble = sentence
        if first:
            self._warn(sentence)

    def _opened(self) -> FileIO:
        # Unbuffered: what a write call has not handed over when the disk is full must not come later.
        mode = "x" if self._fresh and self._end == 0 and not self.path.exists() else "r+"
        file = FileIO(self.path, mode)
        try:
            _lock(file, self.path)
        except FileProblem:
            file.close()
            raise
        file.truncate(self._end)
        file.seek(self._end)
        return file

    def _let_go(self) -> None:
        if self._file is not None:
            with suppress(OSError):  # nothing waits in a buffer
                self._file.close()
            self._file = None


def in_use(path: Path) -> bool:
    """Tell whether a window, this one or another, has a journal open. On Windows nobody can tell: False."""
    try:
        import fcntl
    except ImportError:
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return False


def _lock(file: FileIO, path: Path) -> None:
    """Keep other programs from writing into the same log, as long as the file is open."""
    try:
        import fcntl
    except ImportError:  # Windows: two windows on one log are not kept apart there
        return
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise FileProblem(
            f"The edit log {path.name} is in use by another window.", hint="Close that one first."
        ) from None
    except OSError:
        pass  # a network folder without locks
