"""One line on what is under the cursor: patient mm, grey values, the name of the label."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.components import ViewerModel
from napari.layers import Image, Layer
from napari.layers import Labels as LabelsLayer
from numpy.typing import ArrayLike, NDArray

from napari_mri.core.volume import Labels
from napari_mri.gui.layers import frame_of, shown

SIDES = (("L", "R"), ("P", "A"), ("I", "S"))
"""Low and high end of the patient's x, y, z."""


def sentence(viewer: ViewerModel, world: ArrayLike) -> str:
    """Return what lies at a point of the window.

    Parameters
    ----------
    viewer : napari viewer
    world : array-like, (ndim,)
        The window's coordinates, frames before space.

    Returns
    -------
    str
        Such as ``R 12.3  A 5.0  S 40.1 mm  ·  T1 512  ·  brain 3 hippocampus``; the uppermost layer first.
    """
    point = np.asarray(world, dtype=float)
    if point.size < 3 or not np.isfinite(point).all():
        return ""
    told = [place(viewer, point[-3:])]
    for layer in reversed(viewer.layers):
        if layer.visible and isinstance(layer, Image | LabelsLayer):
            value = value_at(layer, point)
            if value is not None:
                told.append(f"{layer.name} {value}")
    return "  ·  ".join(told)


def place(viewer: ViewerModel, world: NDArray[np.float64]) -> str:
    """Return a point of space, (3,) in the window, as patient mm with letters for the signs."""
    frame = frame_of(viewer.layers)
    if frame is None:
        return "  ".join(f"{value:.1f}" for value in world)
    patient = frame.to_patient(world)
    signs = (f"{ends[int(value >= 0)]} {abs(value):.1f}" for value, ends in zip(patient, SIDES, strict=True))
    return "  ".join(signs) + " mm"


def value_at(layer: Layer, world: NDArray[np.float64]) -> str | None:
    """Return a layer's grey value or label at a point (ndim,), or None outside it."""
    if layer.ndim > world.size:
        return None
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    index = np.round(layer.world_to_data(world)).astype(int)
    if (index < 0).any() or (index >= np.array(data.shape[: index.size])).any():
        return None
    value = np.asarray(data[tuple(int(n) for n in index)])
    if isinstance(layer, LabelsLayer):
        number = int(value)
        return " ".join(part for part in (str(number), name_of(layer, number) if number else "") if part)
    if value.ndim:
        return "(" + ", ".join(f"{float(v):.4g}" for v in value) + ")"
    number_or_float = value.item()
    return str(number_or_float) if isinstance(number_or_float, int) else f"{number_or_float:.5g}"


def name_of(layer: LabelsLayer, value: int) -> str:
    """Return the name of a label; empty if it has none."""
    table: Any = layer.features
    if "index" in table and "name" in table:
        found = table.loc[table["index"] == value, "name"]
        if len(found):
            return str(found.iloc[0])
    record = shown(layer)
    names = record.volume.names if record is not None and isinstance(record.volume, Labels) else {}
    return str(names.get(value, ""))
