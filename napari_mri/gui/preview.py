"""What a preview runs on: a slab around the slice in view, small enough for seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from napari.components import ViewerModel
from numpy.typing import NDArray

from napari_mri.core.history import Order
from napari_mri.core.model import Model
from napari_mri.core.volume import Volume
from napari_mri.gui.placing import Frame

DEEP_MM = 24.0
"""Thickness of the slab."""
LEAST = 9
"""Fewest voxels along each axis of the slab, where the scan has them."""
MOST_VOXELS = 400_000
"""More are cut off at the sides, about the middle of the picture."""
MINUTES = 0.15
"""As long a model that learns on the scan may learn for a preview."""


def slab(scan: Volume, viewer: ViewerModel, frame: Frame) -> Volume:
    """Return the part of a scan around the slice in view, as a volume of its own.

    Parameters
    ----------
    scan : Volume
        Of a series, the frame in view is taken.
    viewer : napari viewer
        Tells the slice and the middle of the picture.
    frame : Frame
        The window's.

    Returns
    -------
    Volume, 3D
        At the exact place of its voxels.
    """
    world = np.asarray(viewer.dims.point, dtype=float)
    shown = [axis - (viewer.dims.ndim - 3) for axis in viewer.dims.displayed[-2:]]
    middle = np.asarray(viewer.scene.camera.center, dtype=float)[-2:]
    place = world[-3:].copy()
    for axis, at in zip(shown, middle, strict=True):
        place[axis] = at
    depth = 3 - sum(shown) if viewer.dims.ndisplay == 2 else 0
    low, high = _box(scan, frame.to_patient(place), frame.axes[:, depth])
    number = int(viewer.dims.current_step[0]) if scan.data.ndim == 4 and viewer.dims.ndim > 3 else 0
    volume = scan.frame(min(number, scan.n_frames - 1))
    data = volume.data[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    return replace(volume, data=np.ascontiguousarray(data), grid=scan.grid.cropped(low, high))


def _box(scan: Volume, place: NDArray[Any], depth: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return first and last (excluded) voxel: thin along `depth`, a unit vector, square across it."""
    grid = scan.grid
    shape, spacing = np.asarray(grid.shape), np.asarray(grid.spacing)
    along = int(np.argmax(np.abs(depth @ grid.directions)))
    size = shape.copy()
    size[along] = max(LEAST, round(DEEP_MM / spacing[along]))
    size = np.minimum(size, shape)
    across = [n for n in range(3) if n != along]
    while np.prod(size) > MOST_VOXELS:
        widest = max(across, key=lambda n: size[n] * spacing[n])
        if size[widest] <= 32:
            break
        size[widest] = int(size[widest] * 0.9)
    centre = np.round(grid.to_voxels(place)).astype(int)
    low = np.clip(centre - size // 2, 0, shape - size)
    return low, low + size


def order_for(model: Model, order: Order) -> Order:
    """Return the order of a preview: as the user set it, but learning for seconds at most."""
    params: Mapping[str, Any] = order.params
    if "minutes" in params:
        wished = float(params["minutes"])
        params = {**params, "minutes": min(wished, MINUTES) if wished > 0 else MINUTES}
    return Order(order.task, model.card.name, params)


def learns(model: Model) -> bool:
    """Tell whether a model learns on the scan, so that a preview of it is worse than its result."""
    return any(knob.name == "minutes" for knob in model.knobs)
