"""What the two ways of `skullnet` have in common, on a processor and on a graphics processor: options, numbers, doubts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.grid import Grid
from napari_mri.core.model import Runtime, knob
from napari_mri.models._anatomy import INNER

STEP_MM = 2.0
"""Spacing of the network's copy; the one it was trained on last."""
REACH_MM = 12.0
"""Distances are right up to here, and clipped beyond."""
LIKELY_ML = (700.0, 2200.0)
RIM_MM, DARK = (4.0, 20.0), 0.1
"""Where the scalp is, from the inner skull; and what share of the brain's brightness it is never below."""
BAND_MM, MOST_MM, SOFT_MM = 5.0, 3.0, 0.7
"""Brightness is looked at this near to the outline, moves it at most so far, and is smoothed by this."""
EVEN_MM = 0.01
"""What lies on an outline to the voxel counts as so far from it."""
ROOM_MM = 14.0
"""So much around the brain is looked at."""
SLOPES = (0.5, 1.5)
"""Distances grow by so many mm per mm, at least and at most, where they are stretched."""
UNSURE_MM = 0.5
"""How far the outline may be off before brightness is looked at: odds are the distance in these."""
EVERY = 2
"""Only every so many-th of the copy's voxels along each axis is asked how bright structures are and how the scan is shaded."""
SOME_VOXELS = 100_000
"""About so many voxels near to the outline tell once more, in the scan itself, how bright structures are."""

LEAST = 1e-4
"""So likely is every structure everywhere, at least, before the brightness is looked at."""


@dataclass(frozen=True)
class Params:
    """Options of the skull-strip network."""

    csf: bool = knob(
        True, "Count the fluid around the brain, up to the inner skull, as brain; off, the mask follows the brain."
    )
    border: float = knob(
        0.0, "Grow the mask outward by this much, or shrink it if negative.", low=-10.0, high=10.0, unit="mm"
    )
    tones: bool = knob(
        True, "Move the inner skull's outline, by at most 3 mm, to where the brightness of tissues in this scan has it."
    )
    variants: int = knob(
        1,
        "Mirrored and shifted copies to average; 2 or 4 take longer and also tell where they disagree.",
        choices=(1, 2, 4),
    )


@dataclass(frozen=True, eq=False)
class Looked:
    """A box (I, J, K) of the 2 mm copy: the distance to the inner skull, mm, and the copy, scaled; arrays, or tensors."""

    near: Any
    small: Any
    grid: Grid


def inner_structures() -> NDArray[np.bool_]:
    """Return which of 256 structures lie within the inner skull."""
    own = np.zeros(256, dtype=bool)
    own[INNER] = True
    return own


def roomy(
    span: tuple[NDArray[Any], NDArray[Any]] | None, shape: tuple[int, ...], room: float
) -> tuple[slice, ...] | None:
    """Return the box of a copy of some shape that reaches some mm beyond a first and a last voxel (3,); None for None."""
    more = int(np.ceil(room / STEP_MM))
    if span is None:
        return None
    return tuple(slice(max(0, int(a) - more), min(n, int(b) + 1 + more)) for a, b, n in zip(*span, shape, strict=True))


def tell_dropped(sizes: list[int], rt: Runtime) -> None:
    """Warn of a large piece that was dropped, given the voxels of pieces of the copy, the largest first."""
    kept, dropped = (number * STEP_MM**3 / 1000 for number in sizes[:2])
    if dropped > max(20.0, 0.05 * kept):
        rt.warn(f"The mask fell into several pieces; one of {dropped:.0f} ml was dropped. Look at the result.")


def tell(inside: int, bright: float, rt: Runtime) -> None:
    """Warn, given the voxels of the mask on the copy and the share of what lies around it that is not dark."""
    ml = inside * STEP_MM**3 / 1000
    if inside and not LIKELY_ML[0] <= ml <= LIKELY_ML[1]:
        rt.warn(
            f"The mask holds {ml:.0f} ml; adult brains have {LIKELY_ML[0]:.0f} to {LIKELY_ML[1]:.0f} ml. "
            "It may be a child or a part of the head, or the result may be wrong."
        )
    if inside and bright < 0.08:
        rt.warn("There is hardly anything around the brain: the scan may be stripped already.")
