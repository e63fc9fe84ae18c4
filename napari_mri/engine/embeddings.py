"""What an encoder made of an image, kept in half precision: in memory first, on disk after, oldest thrown out."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Half = NDArray[np.float16]


def folder() -> Path:
    """Return where embeddings are kept: in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "napari_mri" / "embeddings"


def key_of(*facts: Any) -> str:
    """Return a name for what the facts determine; it tells nothing about the patient."""
    return hashlib.sha256("\n".join(map(str, facts)).encode()).hexdigest()


class Embeddings:
    """A cache in two floors, safe to share between threads and between processes.

    Parameters
    ----------
    memory_mb, disk_mb : float
        Limits; 0 switches a floor off.
    place : pathlib.Path, optional
        By default `folder`.
    """

    def __init__(self, memory_mb: float = 512, disk_mb: float = 4096, place: Path | None = None) -> None:
        self.place = place or folder()
        self._memory_limit, self._disk_limit = int(memory_mb * 1e6), int(disk_mb * 1e6)
        self._held: OrderedDict[str, Half] = OrderedDict()
        self._bytes = 0
        self._lock = threading.RLock()

    def get(self, key: str) -> Half | None:
        """Return what was put under a key, or None."""
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        found = self._read(key) if self._disk_limit else None
        if found is not None:
            self._hold(key, found)
        return found

    def put(self, key: str, array: NDArray[Any]) -> None:
        """Keep an array in half precision."""
        half = np.ascontiguousarray(array, dtype=np.float16)
        self._hold(key, half)
        if self._disk_limit <= half.nbytes:
            return
        # Another process may write the same file: each writes its own and the last replaces whole.
        part = self.place / f"{key}.{os.getpid()}.{threading.get_ident()}.part"
        try:
            self.place.mkdir(parents=True, exist_ok=True, mode=0o700)
            with part.open("wb") as file:
                np.save(file, half)
            part.replace(self._file(key))
            self._make_room()
        except OSError:  # a full or read-only disk costs time, not the answer
            part.unlink(missing_ok=True)

    def clear_memory(self) -> None:
        """Let go of what is held in memory; the disk keeps its own."""
        with self._lock:
            self._held.clear()
            self._bytes = 0

    def _file(self, key: str) -> Path:
        return self.place / f"{key}.npy"

    def _read(self, key: str) -> Half | None:
        file = self._file(key)
        try:
            found = np.load(file, allow_pickle=False)
            os.utime(file)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError):  # cut off or damaged: made again
            file.unlink(missing_ok=True)
            return None
        return found if found.dtype == np.float16 else None

    def _hold(self, key: str, half: Half) -> None:
        with self._lock:
            if key in self._held:
                self._bytes -= self._held.pop(key).nbytes
            if half.nbytes > self._memory_limit:
                return
            self._held[key] = half
            self._bytes += half.nbytes
            while self._bytes > self._memory_limit:
                _, old = self._held.popitem(last=False)
                self._bytes -= old.nbytes

    def _make_room(self) -> None:
        """Throw out the files not used for longest; others may do the same at the same time."""
        files = []
        for file in self.place.glob("*.npy"):
            try:
                stat = file.stat()
            except FileNotFoundError:
                continue
            files.append((stat.st_mtime_ns, stat.st_size, file))
        total = sum(size for _, size, _ in files)
        for _, size, file in sorted(files, key=lambda entry: entry[0]):
            if total <= self._disk_limit:
                break
            file.unlink(missing_ok=True)
            total -= size
