"""Left against right: pairs of labels with left and right in their names, or one label cut by the mid-plane."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from napari_mri.core.midplane import Plane
from napari_mri.core.volume import Labels

_SIDES = (("left", "right"), ("lh", "rh"), ("l", "r"))
DEFINITION = "Asymmetry index = 2 (L - R) / (L + R) of volumes: 0 is even, +2 all left, -2 all right."


@dataclass(frozen=True)
class Asymmetry:
    """One structure on both sides.

    Parameters
    ----------
    name : str
    left_ml, right_ml : float
        The patient's left and right.
    index : float
        2 (L - R) / (L + R); NaN if both are empty.
    """

    name: str
    left_ml: float
    right_ml: float
    index: float


def asymmetry_of_pairs(labels: Labels) -> tuple[Asymmetry, ...]:
    """Compare labels whose names differ only in left and right (``Left-Hippocampus``, ``hippocampus_R``, ``lh.…``)."""
    pairs: dict[str, dict[int, list[int]]] = {}
    for value, name in labels.names.items():
        side, rest = _side(name)
        if side is not None:
            pairs.setdefault(rest, {}).setdefault(side, []).append(value)
    rows = []
    for name, sides in pairs.items():
        if len(sides) == 2:
            left, right = (sum(labels.volume_ml(value) for value in sides[side]) for side in (0, 1))
            rows.append(Asymmetry(name, left, right, _index(left, right)))
    return tuple(rows)


def asymmetry_across(labels: Labels, plane: Plane) -> tuple[Asymmetry, ...]:
    """Cut each label by a plane and compare the patient's left with the right.

    Parameters
    ----------
    labels : Labels, (I, J, K)
        Of 4D labels the first frame.
    plane : Plane
        E.g. from `core.midplane.find_midplane`. A voxel belongs to the side its centre is on.
    """
    data = np.asarray(labels.frame(0).data)
    rows = []
    for value in labels.frame(0).values:
        side = plane.side(labels.grid.to_patient(np.argwhere(data == value)))
        right = int((side > 0).sum()) * labels.grid.voxel_ml
        left = int((side < 0).sum()) * labels.grid.voxel_ml
        rows.append(Asymmetry(labels.names.get(value, f"label {value}"), left, right, _index(left, right)))
    return tuple(rows)


def _index(left: float, right: float) -> float:
    return 2 * (left - right) / (left + right) if left + right > 0 else float("nan")


def _side(name: str) -> tuple[int | None, str]:
    """Return 0 for a left name, 1 for a right one, None for neither, and the name without its side."""
    words = re.split(r"([^0-9A-Za-z]+)", name)
    for pair in _SIDES:
        for place, word in enumerate(words):
            if word.lower() in pair:
                rest = "".join(words[:place] + words[place + 1 :])
                return pair.index(word.lower()), re.sub(r"[^0-9A-Za-z]+", " ", rest).strip().lower()
    return None, name
