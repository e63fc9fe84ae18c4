"""Segments that may overlap, as labels: one map where they do not, layers along the fourth axis where they do.

A file that keeps each segment apart (DICOM SEG, `.seg.nrrd`, RTSTRUCT) can have a voxel in two of
them; one map of whole numbers cannot. Such labels are (I, J, K, C) with ``Frames(kind="segment")``:
every frame is a map of segments that do not overlap each other, and a value means the same segment
in all frames. Frames hold as many segments as fit, so two overlapping ones make two frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import UnsupportedImage
from napari_mri.core.volume import Frames, Labels

SEGMENTS = Frames("segment")
Box = tuple[slice, slice, slice]
Mask = NDArray[np.bool_]


def is_layered(labels: Labels) -> bool:
    """Tell whether the fourth axis holds layers of overlapping segments (and not time, say)."""
    return labels.data.ndim == 4 and labels.frames is not None and labels.frames.kind == "segment"


def stacked(
    shape: tuple[int, int, int], segments: Iterable[tuple[int, Box, Mask]]
) -> NDArray[np.unsignedinteger[Any]]:
    """Put segments into as few layers as their overlaps allow, first come first served.

    Parameters
    ----------
    shape : 3 int
    segments : iterable of (value, box, mask)
        `mask` is bool and fills `box`, three slices of the whole; one segment may come in several
        pieces, all of which go into one layer.

    Returns
    -------
    ndarray, (I, J, K) or (I, J, K, C)
        Of the smallest unsigned type that holds every value.
    """
    pieces: dict[int, list[tuple[Box, Mask]]] = {}
    for value, box, mask in segments:
        pieces.setdefault(int(value), []).append((box, mask))
    kind = np.min_scalar_type(max(pieces, default=0))
    layers: list[NDArray[np.unsignedinteger[Any]]] = []
    for value, parts in pieces.items():
        home = next((layer for layer in layers if _free(layer, parts)), None)
        if home is None:
            home = np.zeros(shape, kind, order="F")
            layers.append(home)
        for box, mask in parts:
            home[box][mask] = value
    if not layers:
        return np.zeros(shape, kind)
    return layers[0] if len(layers) == 1 else np.stack(layers, axis=-1)


def _free(layer: NDArray[np.unsignedinteger[Any]], parts: list[tuple[Box, Mask]]) -> bool:
    return not any(layer[box][mask].any() for box, mask in parts)


def segments_of(labels: Labels) -> Iterator[tuple[int, Mask]]:
    """Yield every label value that occurs, smallest first, with its (I, J, K) mask.

    Raises
    ------
    UnsupportedImage
        If the labels change over time: then a value is no single segment.
    """
    check_still(labels)
    for value in labels.values:
        mask = labels.data == value
        yield value, (mask.any(axis=3) if mask.ndim == 4 else mask)


def check_still(labels: Labels) -> None:
    """Refuse labels that change over time, where a format holds one moment.

    Raises
    ------
    UnsupportedImage
    """
    if labels.data.ndim == 4 and not is_layered(labels):
        raise UnsupportedImage(
            f"These labels have {labels.n_frames} frames; only one moment can be exported at a time.",
            hint="Choose a frame, or save them all as .nii.gz.",
        )


def flattened(labels: Labels) -> Labels:
    """Return layered labels as one map, if no voxel belongs to two segments; others as they are.

    Raises
    ------
    UnsupportedImage
        If segments overlap: one map cannot hold them.
    """
    if not is_layered(labels):
        return labels
    taken = labels.data != 0
    both = int((taken.sum(axis=3) > 1).sum())
    if both:
        raise UnsupportedImage(
            f"{both:,} voxels belong to more than one segment, and one map holds one label a voxel.",
            hint="Save as .seg.nrrd or DICOM SEG, which keep overlapping segments.",
        )
    return replace(labels, data=labels.data.max(axis=3), frames=None)
