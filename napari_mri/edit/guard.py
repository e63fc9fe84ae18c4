"""What no tool, model or brush may change: locked labels, and everything outside a chosen region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BadOption, GridMismatch


@dataclass(frozen=True, eq=False)
class Guard:
    """Where a change is allowed; the one place that knows about locks.

    Parameters
    ----------
    locked : collection of int
        Label values that are never changed: their voxels stay, and no voxel joins them. 0 may be
        locked too, which keeps the background.
    labels : collection of int, optional
        Change only voxels that hold one of these values now ("paint inside a label").
    mask : ndarray of bool, (I, J, K), optional
        Change only voxels that are True here.
    window : (float, float), optional
        Change only voxels whose grey value in the scan lies in this range, ends included.
    """

    locked: frozenset[int] = frozenset()
    labels: frozenset[int] | None = None
    mask: NDArray[Any] | None = None
    window: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "locked", frozenset(int(v) for v in self.locked))
        if self.labels is not None:
            object.__setattr__(self, "labels", frozenset(int(v) for v in self.labels))
        if self.window is not None and not self.window[0] <= self.window[1]:
            raise BadOption(f"An intensity range from {self.window[0]} to {self.window[1]} holds no value.")

    @property
    def open(self) -> bool:
        """Whether nothing is guarded."""
        return not self.locked and self.labels is None and self.mask is None and self.window is None

    def free(self, old: NDArray[Any], scan: NDArray[Any] | None = None) -> NDArray[np.bool_] | None:
        """Return where `old` may be changed, as a bool array of its shape; None if everywhere.

        Parameters
        ----------
        old : ndarray of int, (I, J, K), or any part of one together with the same part of `scan`
        scan : ndarray, same shape, optional
            Grey values; needed if there is a `window`.

        Raises
        ------
        BadOption
            If there is a `window` and no scan.
        GridMismatch
            If mask or scan are of another shape.
        """
        if self.open:
            return None
        free = np.ones(old.shape, dtype=bool)
        if self.locked:
            free &= ~_among(old, self.locked)
        if self.labels is not None:
            free &= _among(old, self.labels)
        if self.mask is not None:
            _fits("The region to stay inside", self.mask, old)
            free &= self.mask != 0
        if self.window is not None:
            if scan is None:
                raise BadOption("Staying inside an intensity range needs the scan.", hint="Choose the scan too.")
            _fits("The scan", scan, old)
            free &= (scan >= self.window[0]) & (scan <= self.window[1])
        return free

    def compose(self, old: NDArray[Any], new: NDArray[Any], scan: NDArray[Any] | None = None) -> NDArray[Any]:
        """Return `new` where the change is allowed and `old` elsewhere.

        Parameters
        ----------
        old, new : ndarray of int, same shape
        scan : ndarray, same shape, optional

        Returns
        -------
        ndarray
            Of `new`'s type; `new` itself if nothing is guarded.
        """
        free = self.free(old, scan)
        if free is None:
            return new
        if self.locked:
            free &= ~_among(new, self.locked)
        return np.where(free, new, old.astype(new.dtype, copy=False))


def compose(
    old: NDArray[Any],
    new: NDArray[Any],
    *,
    locked: frozenset[int] | set[int] | tuple[int, ...] = (),
    inside: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Return `new` where neither a locked label nor a place outside `inside` is touched, else `old`.

    The short form of `Guard.compose` for brushes and model results.
    """
    return Guard(locked=frozenset(locked), mask=inside).compose(old, new)


def _among(data: NDArray[Any], values: frozenset[int]) -> NDArray[np.bool_]:
    # A handful of comparisons is quicker than isin, and knows no limits of the integer type.
    found = np.zeros(data.shape, dtype=bool)
    for value in values:
        found |= data == value
    return found


def _fits(what: str, array: NDArray[Any], old: NDArray[Any]) -> None:
    if array.shape != old.shape:
        raise GridMismatch(f"{what} has shape {array.shape}, the labels {old.shape}.", hint="They must share a grid.")
