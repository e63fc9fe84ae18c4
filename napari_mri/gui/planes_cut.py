"""Cuts a layer with a plane and paints the cut: arrays in, a picture with its place in mm out.

A picture is drawn from a table of colours: each grey value or label is looked up once per voxel, and
Qt's own painter puts it on the screen. That needs no graphics memory, and costs a small part of what a
further napari canvas would.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from napari.layers import Labels as LabelsLayer
from numpy.typing import NDArray
from qtpy.QtGui import QImage

from napari_mri.gui.layers import Place
from napari_mri.gui.planes_desk import Plane

SMALL = 1024
"""Labels up to this value are looked up in a table; larger ones are asked for by name."""


@dataclass(frozen=True, eq=False)
class Cut:
    """One layer on one plane.

    Parameters
    ----------
    image : QImage
        As it lies on the screen: up is up, and mirrored where the screen is.
    low, high : (2,) world mm
        The outer ends along (up, across).
    pixels : ndarray
        The memory the picture uses.
    """

    image: QImage
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    pixels: NDArray[Any]


def place_of(layer: Layer) -> Place:
    """Return where a layer's three axes of space stand."""
    shape = np.shape(layer.data[0] if getattr(layer, "multiscale", False) else layer.data)
    whole = Place.of(layer)
    space = tuple(shape[:-1] if getattr(layer, "rgb", False) else shape)
    return Place(space[-3:], whole.scale, whole.translate, whole.bent)


def address(layer: Layer, place: Place, plane: Plane, world: NDArray[np.float64]) -> tuple[int, ...] | None:
    """Return the indices of the frames before space and of the slice, or None if the point lies outside.

    Rounded as napari rounds, so that every view shows the same slice.
    """
    axis = plane.slider
    number = int(np.round((world[-3:][axis] - place.translate[axis]) / place.scale[axis]))
    if not 0 <= number < place.shape[axis]:
        return None
    if layer.ndim == 3:
        return (number,)
    shape = np.shape(layer.data[0] if getattr(layer, "multiscale", False) else layer.data)[: layer.ndim - 3]
    here = np.round(np.asarray(layer.world_to_data(world))[: layer.ndim - 3]).astype(int)
    if (here < 0).any() or (here >= np.array(shape)).any():
        return None
    return (*(int(n) for n in here), number)


def sliced(
    layer: Layer, place: Place, plane: Plane, world: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]] | None:
    """Return the voxels of a layer on a plane.

    Parameters
    ----------
    layer : napari Image or Labels
        3D, or with frames before space.
    plane : Plane
    world : ndarray, (ndim,)
        A point of the plane, with the viewer's frames.

    Returns
    -------
    voxels : ndarray, (U, A) or (U, A, 3 or 4)
        Rows along the plane's up axis, from its low end.
    low, high : (2,) world mm
        Outer ends of the picture along (up, across).
    None if the plane misses the layer.
    """
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    if straight(place):
        key = address(layer, place, plane, world)
        if key is None:
            return None
        where: list[Any] = [slice(None)] * 3
        where[plane.slider] = key[-1]
        voxels = np.asarray(data[(*key[:-1], *where)])
        if plane.up > plane.across:
            voxels = voxels.swapaxes(0, 1)
        axes = [plane.up, plane.across]
        first, step = place.translate[axes], place.scale[axes]
        return voxels, first - step / 2, first + step * (np.array(voxels.shape[:2]) - 0.5)
    return _resampled(layer, data, plane, world)


def straight(place: Place) -> bool:
    """Tell whether the voxels run along the window's axes, each axis upwards."""
    return not place.bent and place.scale.min() > 0


def _resampled(
    layer: Layer, data: Any, plane: Plane, world: NDArray[np.float64]
) -> tuple[NDArray[Any], NDArray[np.float64], NDArray[np.float64]] | None:
    """Cut a layer that is turned or sheared in napari: the nearest voxel at every mm of the plane."""
    space = layer.ndim
    ends = np.asarray(layer.extent.world)[:, -3:]
    axes = [plane.up, plane.across]
    if not ends[0][plane.slider] <= world[-3:][plane.slider] <= ends[1][plane.slider]:
        return None
    step = float(np.abs(np.asarray(layer.scale)[-3:]).min()) or 1.0
    low, high = ends[0][axes], ends[1][axes]
    count = np.clip(np.ceil((high - low) / step - 1e-6).astype(int) + 1, 1, 1024)
    up, across = (np.linspace(a, b, n) for a, b, n in zip(low, high, count, strict=True))
    matrix = np.linalg.inv(np.asarray(_to_world(layer), dtype=float))
    points = np.zeros((*count, space))
    points[...] = world[-space:]
    points[..., space - 3 + plane.up] = up[:, None]
    points[..., space - 3 + plane.across] = across[None, :]
    index = np.round(points @ matrix[:-1, :-1].T + matrix[:-1, -1]).astype(int)
    inside = np.all((index >= 0) & (index < np.array(data.shape[:space])), axis=-1)
    index[~inside] = 0
    voxels = np.asarray(data)[tuple(np.moveaxis(index, -1, 0))]
    voxels[~inside] = 0
    half = (high - low) / np.maximum(count - 1, 1) / 2
    return voxels, low - half, high + half


def _to_world(layer: Layer) -> NDArray[np.float64]:
    """Return (n + 1, n + 1) from voxels to the world, asked of the layer at its corners."""
    n = layer.ndim
    corners = np.vstack([np.zeros(n), np.eye(n)])
    there = np.array([layer.data_to_world(corner) for corner in corners])
    matrix = np.eye(n + 1)
    matrix[:n, :n] = (there[1:] - there[0]).T
    matrix[:n, n] = there[0]
    return matrix


# -------------------------------------------------------------------------------------- colours


def packed(colours: NDArray[Any]) -> NDArray[np.uint32]:
    """Turn colours (..., 4) of 0 to 1 into Qt's 0xAARRGGBB, the colours multiplied by alpha."""
    rgba = np.clip(np.asarray(colours, dtype=np.float32), 0, 1)
    rgba = np.concatenate([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], axis=-1)
    red, green, blue, alpha = np.moveaxis(np.round(rgba * 255).astype(np.uint32), -1, 0)
    return np.asarray(alpha << 24 | red << 16 | green << 8 | blue, dtype=np.uint32)


def grey_table(layer: Image) -> NDArray[np.uint32]:
    """Return (256,) colours from the low to the high contrast limit."""
    steps = np.linspace(0, 1, 256) ** layer.gamma
    return packed(layer.colormap.map(steps))


def label_table(layer: LabelsLayer, dtype: Any) -> NDArray[np.uint32]:
    """Return the colours of the labels from 0 on, as many as a table should hold."""
    top = min(np.iinfo(dtype).max + 1, SMALL)
    return packed(layer.colormap.map(np.arange(top, dtype=dtype)))


def grey_picture(voxels: NDArray[Any], layer: Image, table: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Colour grey values between the contrast limits of their layer."""
    low, high = layer.contrast_limits
    scaled = voxels.astype(np.float32)
    scaled -= np.float32(low)
    scaled *= np.float32(255.0 / ((high - low) or 1.0))
    np.clip(scaled, 0, 255, out=scaled)
    if voxels.dtype.kind == "f":
        np.nan_to_num(scaled, copy=False)
    return np.asarray(table[scaled.astype(np.uint8)])


def label_picture(voxels: NDArray[Any], layer: LabelsLayer, table: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Colour labels; only their borders if the layer is shown so."""
    if layer.contour > 0:
        voxels = np.where(_border(voxels, int(layer.contour)), voxels, 0)
    if voxels.dtype == np.uint8 or (voxels.size and voxels.min() >= 0 and voxels.max() < len(table)):
        return np.asarray(table[voxels])
    return packed(layer.colormap.map(voxels))


def _border(voxels: NDArray[Any], thick: int) -> NDArray[np.bool_]:
    """Tell which labelled pixels have another label within some pixels up, down, left or right."""
    edge = np.zeros(voxels.shape, bool)
    for axis in (0, 1):
        for n in range(1, min(thick, voxels.shape[axis] - 1) + 1):
            low = (slice(None),) * axis + (slice(None, -n),)
            high = (slice(None),) * axis + (slice(n, None),)
            differs = voxels[low] != voxels[high]
            edge[low] |= differs
            edge[high] |= differs
    return edge


def picture(
    voxels: NDArray[Any], layer: Layer, table: NDArray[np.uint32], mirrored: bool
) -> tuple[QImage, NDArray[np.uint32]]:
    """Return a cut as it lies on the screen, and the memory it uses (see `Cut`)."""
    screen = voxels[::-1, :: -1 if mirrored else 1]
    if getattr(layer, "rgb", False):
        whole = screen / np.float32(255) if screen.dtype.kind in "iu" else screen
        ones = np.ones((*screen.shape[:2], 4), np.float32)
        ones[..., : screen.shape[2]] = whole
        pixels = packed(ones)
    elif isinstance(layer, LabelsLayer):
        pixels = label_picture(screen, layer, table)
    else:
        pixels = grey_picture(screen, layer, table)
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape
    # Qt does not own the memory: whoever keeps the picture keeps the array.
    return QImage(pixels.data, width, height, 4 * width, QImage.Format.Format_ARGB32_Premultiplied), pixels
