"""Where a click in the 3D view lands: on the first voxel of a layer along the line of sight."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image, Layer
from numpy.typing import NDArray

SHOWN = 0.25
"""Share of the display's grey window from which on a voxel counts as seen; air with its noise lies below."""


def first_seen(layers: list[Layer], event: Any) -> NDArray[np.float64] | None:
    """Return the window place (3,) mm of the first voxel under the cursor, or None if the line of sight meets none.

    Parameters
    ----------
    layers : list of napari layers
        Asked in turn: the first that is met counts, even if a later one lies nearer to the eye.
    event : napari mouse event
        With ``position``, ``view_direction`` and ``dims_displayed``.
    """
    for layer in layers:
        place = _met(layer, event)
        if place is not None:
            return place
    return None


def _met(layer: Layer, event: Any) -> NDArray[np.float64] | None:
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    ahead = np.ndim(data) - 3
    if not layer.visible or ahead < 0:
        return None
    # Of a series the frame in view is looked at.
    frame = tuple(np.rint(layer.world_to_data(event.position)[:ahead]).astype(int))
    data = data[tuple(np.clip(frame, 0, np.array(np.shape(data)[:ahead]) - 1))] if ahead else data
    # The two ends are where the line enters and leaves the layer's box, in its voxels.
    start, stop = layer.get_ray_intersections(
        event.position, event.view_direction, list(event.dims_displayed), world=True
    )
    if start is None or stop is None:
        return None
    start, stop = np.asarray(start, dtype=float)[-3:], np.asarray(stop, dtype=float)[-3:]
    count = int(np.ceil(np.linalg.norm(stop - start) * 3)) + 2
    path = np.rint(start + (stop - start) * np.linspace(0, 1, count)[:, None]).astype(np.intp)
    path = path[((path >= 0) & (path < np.shape(data))).all(axis=1)]
    values = np.asarray(data[tuple(path.T)])
    least = 0.0
    if isinstance(layer, Image):
        low, high = layer.contrast_limits
        least = low + SHOWN * (high - low)
    seen = np.flatnonzero(values > least)
    if not seen.size:
        return None
    return np.asarray(layer.data_to_world((*frame, *path[seen[0]])), dtype=float)[-3:]
