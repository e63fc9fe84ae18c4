"""Where painting is allowed in one Labels layer: locked labels, inside a label, inside an intensity range."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from weakref import ReferenceType, ref

import numpy as np
from napari.layers import Image
from numpy.typing import NDArray

from napari_mri.core.errors import GridMismatch
from napari_mri.edit.guard import Guard


@dataclass
class PaintRules:
    """What no brush, tool or model may change.

    Parameters
    ----------
    locked : set of int
        Labels whose voxels stay and that no voxel joins.
    inside : int, optional
        Change only voxels of this label (0: background), and of the one painted with.
    """

    locked: set[int] = field(default_factory=set)
    inside: int | None = None
    _window: tuple[float, float] | None = None
    _scan: ReferenceType[Image] | None = None

    @property
    def window(self) -> tuple[float, float] | None:
        """Grey values to stay between, ends included; None for any, or if the scan was closed."""
        return self._window if self._scan is not None and self._scan() is not None else None

    def stay_between(self, window: tuple[float, float] | None, scan: Image | None, shape: tuple[int, ...]) -> None:
        """Change only voxels whose grey value lies in a range.

        Parameters
        ----------
        window : (float, float) or None
            None allows every value.
        scan : napari Image
        shape : tuple of int
            Of the labels, as shown.

        Raises
        ------
        GridMismatch
            If scan and labels do not lie on the same voxels.
        """
        if window is None:
            self._window = self._scan = None
            return
        if scan is None or np.shape(_finest(scan))[-3:] != tuple(shape[-3:]):
            raise GridMismatch(
                "A range of grey values needs the scan the labels lie on.", hint="Choose that scan above."
            )
        Guard(window=window)  # refuses an empty range
        self._window, self._scan = window, ref(scan)

    def guard(self, painted: int | None = None) -> Guard:
        """Return the rules as a guard.

        Parameters
        ----------
        painted : int, optional
            The label the brush holds: what it has painted inside a label it may also change again.
        """
        labels = None
        if self.inside is not None:
            labels = frozenset({self.inside} | (set() if painted is None else {int(painted)}))
        return Guard(locked=frozenset(self.locked), labels=labels, window=self.window)

    def grey(self, shape: tuple[int, ...]) -> NDArray[Any] | None:
        """Return the scan's grey values as shown, of the labels' shape; None if no range is set."""
        scan = self._scan() if self._scan is not None else None
        if scan is None or self._window is None:
            return None
        data = np.asarray(_finest(scan))
        data = data if data.ndim == 3 or data.shape == tuple(shape) else data[0]
        return np.broadcast_to(data, shape)


def _finest(scan: Image) -> Any:
    return scan.data[0] if scan.multiscale else scan.data
