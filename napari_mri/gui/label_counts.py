"""How many voxels each label of a layer holds, kept up to date by steps instead of counting again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

AT_ONCE = 4_000_000
"""Arrays of up to this many voxels are counted on the spot, larger ones in a thread."""


def counts(data: NDArray[Any]) -> dict[int, int]:
    """Count the voxels of each label value but 0."""
    found: dict[int, int] = {}
    for slab in data:  # slab by slab: bincount makes 8 bytes of every voxel
        if not slab.any():
            continue
        flat = slab.ravel()
        if flat.min() >= 0 and flat.max() < 65536:
            number = np.bincount(flat)
            values = np.nonzero(number)[0]
            pairs = zip(values.tolist(), number[values].tolist(), strict=True)
        else:
            unique, often = np.unique(flat, return_counts=True)
            pairs = zip(unique.tolist(), often.tolist(), strict=True)
        for value, often_here in pairs:
            found[value] = found.get(value, 0) + often_here
    found.pop(0, None)
    return dict(sorted(found.items()))


class Counts:
    """Voxels of each label.

    Parameters
    ----------
    stroking : callable
        ``stroking() -> bool``: whether a stroke is under way, so that what is counted may change meanwhile.
    """

    def __init__(self, stroking: Callable[[], bool]) -> None:
        self._stroking = stroking
        self._now: dict[int, int] | None = None
        self._version = 0
        self._found: tuple[int, dict[int, int]] | None = None
        self._thread: threading.Thread | None = None

    def add(self, gained: Mapping[int, int]) -> None:
        """Follow a step."""
        self._version += 1
        if self._now is None:
            return
        for value, number in gained.items():
            if value:
                self._now[value] = self._now.get(value, 0) + number
        if min(self._now.values(), default=0) < 0:  # somebody wrote into the array behind our back
            self.forget()

    def forget(self) -> None:
        """Count anew when next asked."""
        self._version += 1
        self._now = None

    def ask(self, data: NDArray[Any]) -> dict[int, int] | None:
        """Return the voxels of each label that has any, by value; None while a thread still counts (ask again)."""
        if self._now is None:
            self._count(data)
        if self._now is None:
            return None
        return {value: number for value, number in sorted(self._now.items()) if number}

    def _count(self, data: NDArray[Any]) -> None:
        if data.size <= AT_ONCE:
            if not self._stroking():
                self._now = counts(data)
            return
        if self._thread is not None and self._thread.is_alive():
            return
        found, self._found = self._found, None
        if found is not None and found[0] == self._version and not self._stroking():
            self._now = found[1]
            return
        version = self._version

        def work() -> None:
            self._found = (version, counts(data))

        self._thread = threading.Thread(target=work, name="napari-mri count", daemon=True)
        self._thread.start()
