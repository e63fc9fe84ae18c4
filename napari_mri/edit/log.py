"""The edit log of one label layer: undo, redo, autosave, recovery and history in one record."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from napari_mri.core.errors import BrokenFile, GridMismatch
from napari_mri.core.history import Step
from napari_mri.edit.entry import Entry, Later
from napari_mri.edit.journal import Journal, Record, encode, read_records
from napari_mri.edit.packed import Box, apply, count_of, pack, region_of, tally

ENDING = ".mrilog"
KEEP_BYTES = 64 * 2**20
"""Packed steps kept in memory; older ones that are safe in the file are read back when undone."""


@dataclass(frozen=True, eq=False)
class Recovered:
    """What `EditLog.recover` found.

    Parameters
    ----------
    log : EditLog
        Goes on where the old one ended, undo and redo included.
    array : ndarray of int
        The labels as they were.
    notes : tuple of str
        What the user should know, e.g. that a torn tail was cut off.
    """

    log: EditLog
    array: NDArray[Any]
    notes: tuple[str, ...] = ()


class EditLog:
    """Records every change of a label array, and takes it back.

    The array itself stays with its owner: change it, then `record` what it was and what it is.
    All methods are for one thread (the window's); writing happens on another.

    Parameters
    ----------
    shape : tuple of int
        Of the label array, 3 or 4 axes.
    dtype : integer type
    path : Path, optional
        Where to keep the log; it must not exist. Without one, the log lives in memory.
    author : str
        Written with every record if given. Never guessed.
    facts : mapping
        Written once at the head of the file: title, affine, fingerprint, … No patient data.
    on_warning : callable
        ``on_warning(sentence)`` when the disk refuses; may be called from another thread.

    Raises
    ------
    FileProblem
        If there is a file already.

    Notes
    -----
    Labels that were not empty at first are recorded as a step of kind ``"start"`` (see `begin`), so
    that the log alone gives the layer; undo does not go behind it.
    """

    def __init__(
        self,
        shape: Sequence[int],
        dtype: DTypeLike,
        path: Path | str | None = None,
        *,
        author: str = "",
        facts: Mapping[str, Any] | None = None,
        on_warning: Callable[[str], None] | None = None,
    ) -> None:
        self.shape, self.dtype = tuple(int(n) for n in shape), np.dtype(dtype)
        self.author, self.facts = author, dict(facts or {})
        self.path = None if path is None else Path(path)
        self._entries: list[Entry] = []
        self._done = 0
        self._notes: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._journal = None if self.path is None else Journal(self.path, on_warning=on_warning)
        self._write({"kind": "open", "shape": self.shape, "dtype": self.dtype.newbyteorder("<").str, **self.facts})

    def begin(self, array: NDArray[Any], name: str = "Opened") -> None:
        """Record what the labels hold before the first edit; nothing if they are empty.

        With a file, the packing is left to the writing thread: a large mask would hold up the first stroke.
        """
        assert not self._entries, "the labels at the start come first"
        voxels = int(np.count_nonzero(array))
        if self._journal is None or not voxels:
            self.record(name, None, np.zeros(self.shape, self.dtype), array, kind="start")
            return
        held, whole, now = np.array(array, self.dtype), tuple(slice(0, n) for n in self.shape), time.time()
        later = Later(lambda: pack(whole, np.zeros_like(held), held)[0])
        entry = Entry(name, "start", now, whole, voxels, {}, self.dtype, _later=later)
        self._entries.append(entry)
        self._done = 1
        self._write({"kind": "start", "name": name}, entry, now)

    # --- recording -------------------------------------------------------------------------------

    def record(
        self,
        name: str,
        region: Box | None,
        before: NDArray[Any],
        after: NDArray[Any],
        *,
        kind: str = "stroke",
        facts: Mapping[str, Any] | None = None,
    ) -> Entry | None:
        """Record a change that has been made. What was undone before it cannot be redone any more.

        Parameters
        ----------
        name : str
            As in the history list.
        region : tuple of slice, or None
            Where the two arrays lie in the whole; None if they are the whole.
        before, after : ndarray of int
            Same shape; only what differs is kept.
        kind : str
        facts : mapping of plain values
            E.g. the order of a tool, or the prompts a model was given. No patient data.

        Returns
        -------
        Entry or None
            None if nothing differs; then nothing is recorded.

        Raises
        ------
        GridMismatch
            If the arrays do not fit the region or the log.
        """
        whole = (slice(None),) * len(self.shape)
        box = tuple(slice(*side.indices(n)) for side, n in zip(region or whole, self.shape, strict=True))
        size = tuple(side.stop - side.start for side in box)
        if before.shape != size or after.shape != size:
            raise GridMismatch(f"A change of shape {before.shape} to {after.shape} does not fit its region {size}.")
        packed, count = pack(box, before.astype(self.dtype, copy=False), after.astype(self.dtype, copy=False))
        if not count:
            return None
        now = time.time()
        entry = Entry(
            name, kind, now, region_of(packed, len(self.shape)), count, dict(facts or {}), self.dtype, packed, None, len(packed)
        )
        del self._entries[self._done :]
        self._entries.append(entry)
        self._done += 1
        told: dict[str, Any] = {"kind": kind} if kind != "stroke" else {}  # most are, and each byte counts
        self._write({**told, "name": name, **({"facts": dict(facts)} if facts else {})}, entry, now)
        self._make_room()
        return entry

    def note(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Record something that changes no voxel: prompts, a save, a remark. It cannot be undone."""
        self._notes.append({"kind": kind, "time": time.time(), "facts": dict(facts)})
        self._write({"kind": "note", "about": kind, "facts": dict(facts)})

    def name_last(self, name: str, kind: str, facts: Mapping[str, Any]) -> None:
        """Give the last step the name its maker tells only afterwards."""
        entry = self._entries[self._done - 1]
        entry.name, entry.kind, entry.facts = name, kind, dict(facts)
        self._write({"kind": "name", "name": name, "is": kind, "facts": dict(facts)})

    def widen(self, dtype: DTypeLike) -> None:
        """Go on in a wider integer type: the layer's array was exchanged for one that holds larger labels.

        Raises
        ------
        GridMismatch
            If the type cannot hold every value of the present one.
        """
        wider = np.dtype(dtype)
        if not np.can_cast(self.dtype, wider, "safe"):
            raise GridMismatch(f"Labels of type {self.dtype} do not fit into {wider}.", hint="Start a new log.")
        if wider != self.dtype:
            self.dtype = wider
            self._write({"kind": "type", "dtype": wider.newbyteorder("<").str})

    def tally(self, entry: Entry) -> dict[int, int]:
        """Return how many voxels each label gained (or lost, below 0) by a step."""
        if entry._gained is None:
            entry._gained = tally(self._bytes(entry), len(self.shape), entry.dtype)
        return dict(entry._gained)

    # --- going back and forth --------------------------------------------------------------------

    @property
    def steps(self) -> tuple[Entry, ...]:
        """Every step that can be undone or redone, oldest first; the first `position` are done."""
        return tuple(self._entries)

    @property
    def position(self) -> int:
        """How many of the steps are done."""
        return self._done

    @property
    def _first(self) -> int:
        """How many steps cannot be undone: what was there at the start."""
        return int(bool(self._entries) and self._entries[0].kind == "start")

    @property
    def notes(self) -> tuple[Mapping[str, Any], ...]:
        """What `note` recorded, oldest first."""
        return tuple(self._notes)

    @property
    def nbytes(self) -> int:
        """Bytes of packed steps held in memory."""
        return sum(len(entry._packed) for entry in self._entries if entry._packed is not None)

    def undo(self, array: NDArray[Any]) -> Entry | None:
        """Take back the last step in `array`; return it, or None if there is none."""
        if self._done <= self._first:
            return None
        entry = self._entries[self._done - 1]
        apply(self._bytes(entry), self._fitting(array), backwards=True, dtype=entry.dtype)
        self._done -= 1
        self._write({"kind": "undo"})
        return entry

    def redo(self, array: NDArray[Any]) -> Entry | None:
        """Make the last step taken back again in `array`; return it, or None if there is none."""
        if self._done == len(self._entries):
            return None
        entry = self._entries[self._done]
        apply(self._bytes(entry), self._fitting(array), dtype=entry.dtype)
        self._done += 1
        self._write({"kind": "redo"})
        return entry

    def go_to(self, array: NDArray[Any], position: int) -> None:
        """Undo or redo until the first `position` steps are done."""
        target = min(max(position, self._first), len(self._entries))
        while self._done > target:
            self.undo(array)
        while self._done < target:
            self.redo(array)

    def replay(self) -> NDArray[Any]:
        """Return the labels that the steps done give, from nothing: the layer bit for bit."""
        array = np.zeros(self.shape, self.dtype)
        for entry in self._entries[: self._done]:
            apply(self._bytes(entry), array, dtype=entry.dtype)
        return array

    # --- keeping ---------------------------------------------------------------------------------

    @property
    def trouble(self) -> str:
        """Why nothing can be written now; empty while all is well or the log lives in memory."""
        return "" if self._journal is None else self._journal.trouble

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until everything recorded is on the disk; False if it is not (see `trouble`)."""
        return self._journal is None or self._journal.flush(timeout)

    def close(self, *, delete: bool = False) -> bool:
        """Write what waits and let go of the file; False if something could not be written.

        Parameters
        ----------
        delete : bool
            Remove the file: the labels are saved elsewhere or not wanted any more.
        """
        whole = self._journal is None or self._journal.close()
        if delete and self.path is not None:
            self.path.unlink(missing_ok=True)
        return whole

    def __enter__(self) -> EditLog:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def history(self) -> tuple[Step, ...]:
        """Return the steps done as lines for a sidecar: name, kind, voxels and time of each."""
        return tuple(_step_of(entry) for entry in self._entries[: self._done])

    @classmethod
    def recover(cls, path: Path | str, *, on_warning: Callable[[str], None] | None = None) -> Recovered:
        """Read a log back, cut off a torn tail, and go on with it.

        Raises
        ------
        BrokenFile
            If it is no edit log, or not even its head is whole.
        FileProblem
            If it cannot be read, or another window has it open.
        """
        path = Path(path)
        records, good, size = read_records(path)
        if not records or records[0].facts.get("kind") != "open":
            raise BrokenFile(
                f"The edit log {path.name} has no sound head.", hint="It was cut off before its first step."
            )
        log = cls._from_head(records[0])
        notes = []
        if size > good:
            notes.append(f"The last {size - good} bytes of the edit log were unfinished and have been cut off.")
        for record in records[1:]:
            log._take(record)
        array = log.replay()
        log.path = path
        log._journal = Journal(path, fresh=False, good=good, on_warning=on_warning)
        log._make_room()
        return Recovered(log, array, tuple(notes))

    @classmethod
    def _from_head(cls, head: Record) -> EditLog:
        facts = dict(head.facts)
        for known in ("kind", "time", "author"):
            facts.pop(known, None)
        try:
            return cls(facts.pop("shape"), facts.pop("dtype"), author=str(head.facts.get("author", "")), facts=facts)
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenFile("The head of the edit log tells no shape and type.") from error

    def _take(self, record: Record) -> None:
        """Follow one record of a file that is being read back."""
        facts = record.facts
        kind = str(facts.get("kind", "stroke"))
        if kind == "undo":
            self._done = max(0, self._done - 1)
        elif kind == "redo":
            self._done = min(len(self._entries), self._done + 1)
        elif kind == "name" and self._done:
            entry = self._entries[self._done - 1]
            entry.name, entry.kind = str(facts.get("name", entry.name)), str(facts.get("is", entry.kind))
            entry.facts = dict(facts.get("facts", {}))
        elif kind == "type":
            self.dtype = np.dtype(str(facts.get("dtype", self.dtype.str)))
        elif kind == "note":
            self._notes.append({"kind": facts.get("about"), "time": facts.get("time"), "facts": facts.get("facts", {})})
        elif record.body:
            del self._entries[self._done :]
            self._entries.append(
                Entry(
                    str(facts.get("name", kind)), kind, float(facts.get("time", 0)),
                    region_of(record.body, len(self.shape)), count_of(record.body, len(self.shape)), dict(facts.get("facts", {})),
                    self.dtype, record.body, record.place, len(record.body),
                )
            )  # fmt: skip
            self._done += 1

    def _write(self, facts: Mapping[str, Any], entry: Entry | None = None, now: float | None = None) -> None:
        if self._journal is None:
            return
        told = {**facts, "time": round(time.time() if now is None else now, 3)}
        if self.author:
            told["author"] = self.author

        if entry is None:
            self._journal.append(told)
            return

        later = entry._later

        def safe(place: int) -> None:
            packed = entry._packed if later is None else later()
            with self._lock:
                entry._place = place
                if later is not None and packed is not None:  # from here on it may leave the memory like any other
                    entry._packed, entry._size, entry._later = packed, len(packed), None

        if later is None:
            self._journal.append(told, entry._packed or b"", safe)
        else:
            self._journal.append_later(lambda: (encode(told, later()), len(later())), safe)

    def _bytes(self, entry: Entry) -> bytes:
        with self._lock:
            held, later = entry._packed, entry._later
        if held is not None:
            return held
        if later is not None:
            return later()
        assert self._journal is not None
        assert entry._place is not None
        return self._journal.read(entry._place, entry._size)

    def _make_room(self) -> None:
        """Let the oldest steps that are safe in the file go from memory."""
        held = self.nbytes
        for entry in self._entries:
            if held <= KEEP_BYTES:
                return
            with self._lock:
                if entry._packed is not None and entry._place is not None:
                    held -= len(entry._packed)
                    entry._packed = None

    def _fitting(self, array: NDArray[Any]) -> NDArray[Any]:
        if array.shape != self.shape or array.dtype != self.dtype:
            raise GridMismatch(
                f"The log is of labels {self.shape} {self.dtype}, the layer now holds {array.shape} {array.dtype}.",
                hint="Start a new log for the new labels.",
            )
        return array


def _step_of(entry: Entry) -> Step:
    by_hand = entry.kind in ("stroke", "fill")
    facts = {
        "kind": entry.kind, "voxels": entry.voxels,
        "time": datetime.fromtimestamp(entry.time, timezone.utc).isoformat(timespec="seconds"), **entry.facts,
    }  # fmt: skip
    told = facts.pop("step", None)
    if isinstance(told, dict):  # a tool or a model told all about itself
        made = Step.from_json(told)
        return Step(made.action, made.order, {**made.facts, **facts}, made.warnings)
    return Step(f"edited by hand: {entry.name}" if by_hand else entry.name, None, facts)
