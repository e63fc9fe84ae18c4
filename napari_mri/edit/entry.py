"""One step of an edit log, and bytes that are made when somebody first needs them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from napari_mri.edit.packed import Box


class Later:
    """Bytes made once, by whichever thread asks first.

    Parameters
    ----------
    make : callable
        ``make() -> bytes``; let go of afterwards, with all it holds.
    """

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make: Callable[[], bytes] | None = make
        self._made = b""
        self._lock = threading.Lock()

    def __call__(self) -> bytes:
        """Return the bytes."""
        with self._lock:
            if self._make is not None:
                self._made, self._make = self._make(), None
            return self._made


@dataclass(eq=False)
class Entry:
    """One step that can be undone.

    Parameters
    ----------
    name : str
        As in the history list, e.g. ``"Brush"``.
    kind : str
        ``"start"``, ``"stroke"``, ``"fill"``, ``"tool"``, ``"model"``, …
    time : float
        Seconds since 1970, UTC.
    region : tuple of slice
        Box of voxels it changed.
    voxels : int
        How many.
    facts : mapping
        What else was told: author, order, …
    dtype : dtype
        Of the labels when it was made.
    """

    name: str
    kind: str
    time: float
    region: Box
    voxels: int
    facts: Mapping[str, Any] = field(default_factory=dict)
    dtype: np.dtype[Any] = field(default_factory=lambda: np.dtype(np.uint8))
    _packed: bytes | None = field(default=None, repr=False)
    _place: int | None = field(default=None, repr=False)
    _size: int = field(default=0, repr=False)
    _later: Later | None = field(default=None, repr=False)
    _gained: dict[int, int] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.name
