"""How large each label is, and what the scan holds in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import GridMismatch
from napari_mri.core.volume import Labels, Volume

NAN = float("nan")


@dataclass(frozen=True)
class Region:
    """One label measured.

    Parameters
    ----------
    frame : int
        Of 4D labels, counted from 0.
    label : int
    name : str
    voxels : int
    ml : float
        Voxels × voxel volume, millilitres.
    percent : float
        Share of all labelled voxels of the frame, %.
    x, y, z : float
        Centre of mass, patient mm, RAS+.
    mean, sd, minimum, p5, median, p95, maximum : float
        Of the scan's grey values in the label; NaN without a scan. NaN and infinite voxels of the
        scan are left out. `sd` divides by the number of voxels.
    """

    frame: int
    label: int
    name: str
    voxels: int
    ml: float
    percent: float
    x: float
    y: float
    z: float
    mean: float = NAN
    sd: float = NAN
    minimum: float = NAN
    p5: float = NAN
    median: float = NAN
    p95: float = NAN
    maximum: float = NAN


def volumes(labels: Labels, scan: Volume | None = None) -> tuple[Region, ...]:
    """Measure every label that occurs, or has a name.

    Parameters
    ----------
    labels : Labels, (I, J, K) or (I, J, K, C)
    scan : Volume, optional
        On the same grid; of a 4D scan the frame of the same number, or the last one.

    Returns
    -------
    tuple of Region
        By frame, then by label value. A named label without voxels has volume 0.

    Raises
    ------
    GridMismatch
        If the scan lies on another grid.
    """
    if scan is not None and not scan.grid.same(labels.grid):
        raise GridMismatch("The scan lies on another grid than the labels.", hint="Resample one first.")
    regions: list[Region] = []
    for frame in range(labels.n_frames):
        grey = None if scan is None else np.asarray(scan.frame(min(frame, scan.n_frames - 1)).data)
        regions += _frame(labels.frame(frame), grey, frame)
    return tuple(regions)


def _frame(labels: Labels, grey: NDArray[Any] | None, frame: int) -> list[Region]:
    data = np.asarray(labels.data)
    places = np.flatnonzero(data)
    values, index = np.unique(data.ravel()[places], return_inverse=True)
    order = np.argsort(index, kind="stable")
    ends = np.cumsum(np.bincount(index, minlength=values.size))
    parts = dict(zip((int(v) for v in values), np.split(places[order], ends[:-1]), strict=True)) if values.size else {}
    empty = np.zeros(0, dtype=np.int64)
    regions = []
    for label in sorted({*parts, *(value for value in labels.names if value)}):
        part = parts.get(label, empty)
        x = y = z = NAN
        if part.size:
            middle = [float(axis.mean()) for axis in np.unravel_index(part, data.shape)]
            x, y, z = (float(v) for v in labels.grid.to_patient(middle))
        regions.append(
            Region(
                frame, label, labels.names.get(label, ""), int(part.size), part.size * labels.grid.voxel_ml,
                100.0 * part.size / max(1, places.size), x, y, z,
                *(() if grey is None else _statistics(grey.ravel()[part])),
            )
        )  # fmt: skip
    return regions


def _statistics(values: NDArray[Any]) -> tuple[float, ...]:
    real = values[np.isfinite(values)].astype(np.float64)
    if not real.size:
        return (NAN,) * 7
    low, p5, median, p95, high = (float(v) for v in np.percentile(real, (0, 5, 50, 95, 100)))
    return float(real.mean()), float(real.std()), low, p5, median, p95, high
