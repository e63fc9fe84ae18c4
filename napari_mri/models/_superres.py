"""What all super-resolution models share: the finer grid, the start by cubic spline, agreement with the scan, limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_mri.core.errors import BadOption
from napari_mri.core.grid import Grid
from napari_mri.core.model import Runtime, knob
from napari_mri.core.volume import Volume
from napari_mri.measure.consistency import (
    PROFILES,
    Consistency,
    Matrix,
    Slicing,
    along_axes,
    compared,
    filled_spectrum,
    slicing,
)

if TYPE_CHECKING:
    import torch

    from napari_mri.nets.slices import Lines

Array = NDArray[np.float32]
Some = TypeVar("Some")
"""What a frame is held in: an ndarray, or a tensor on a device."""

MOST_FACTOR = 8.0
"""Between slices further apart than this there is nothing left to connect."""
MOST_VOXELS = 1.5e9
"""6 GB of float32 a volume: beyond it a wish for a spacing is more likely a slip."""
INTERPOLATED = 0.8
"""An axis with signal up to less than this share of its highest frequency was interpolated before."""
MOST_THICK = 3.0
"""Slices are at most so much thicker than their distance; more is a slip."""
NAMES = {"LR": "left-right", "PA": "front-back", "IS": "top-bottom"}
"""What a person calls the axes."""
CLEARLY, OVERLAPPING = 1.2, 1.55
"""So much larger than the next spacing that of slices is, for sure; and slices so much thicker than their distance overlap far."""
SAME = 1e-3
"""Relative difference below which two spacings are one."""


@dataclass(frozen=True)
class Wish:
    """The options of every super-resolution model: what is wished, and how the scan was sliced."""

    spacing: float = knob(
        0.0, "Wished spacing along all axes; 0 takes the finest spacing of the scan.", low=0.0, high=20.0, unit="mm"
    )
    thickness: float = knob(
        0.0,
        "Slice thickness of the scan, if it is not the distance between slices; 0 takes that distance.",
        low=0.0,
        high=40.0,
        unit="mm",
    )
    profile: str = knob("box", "Sensitivity across a slice: even (box) or Gaussian.", choices=PROFILES)


@dataclass(frozen=True, eq=False)
class Way:
    """From a scan to its finer grid: average where it is finer than wished, then refine, then correct.

    Parameters
    ----------
    average : Slicing or None
        From the scan to the middle grid; None where the scan is nowhere finer than wished.
    middle, fine : Grid
        The (averaged) scan's and the result's.
    refine : tuple of (fine, middle) ndarray or None
        Cubic B-spline along each axis.
    measure : Slicing
        How the middle grid samples the fine one.
    """

    average: Slicing | None
    middle: Grid
    fine: Grid
    refine: tuple[Matrix | None, ...]
    measure: Slicing

    def start(self, data: NDArray[np.generic]) -> Array:
        """Return one frame of the scan on the middle grid."""
        return np.asarray(data, dtype=np.float32) if self.average is None else self.average.sampled(data)

    def spline(self, start: Array) -> Array:
        """Return the cubic spline through a frame on the middle grid, on the fine grid; never the frame itself."""
        result = along_axes(start, self.refine)
        return result.copy() if np.shares_memory(result, start) else result

    def agreed(self, result: Array, start: Array, consistent: bool = True) -> Array:
        """Return the nearest fine voxels that the frame could have been measured from; never below 0 if it is not.

        Parameters
        ----------
        result : ndarray, `fine.shape`
            Changed in place or left as garbage.
        start : ndarray, `middle.shape`
        consistent : bool
            False only cuts off what is below 0.
        """
        if consistent:
            result = self.measure.corrected(result, start)
        if start.min() >= 0:  # a magnitude has no undershoot
            np.maximum(result, 0, out=result)
            if consistent:
                result = self.measure.scaled(result, start)
        return result

    def sampled(self, result: Array) -> Array:
        """Return what the scanner would have measured of a result, on the middle grid."""
        return self.measure.sampled(result)

    def home(self, frame: Array) -> Array:
        """Return a frame as an ndarray: it is one already."""
        return frame

    def on(self, device: str) -> TensorWay:
        """Return the same way on a device of torch."""
        from napari_mri.nets.slices import lines_on

        return TensorWay(
            self,
            device,
            lines_on(device, (None, None, None) if self.average is None else self.average.matrices),
            lines_on(device, self.refine),
            lines_on(device, self.measure.matrices),
            lines_on(device, self.measure.spread()),
        )

    @property
    def factors(self) -> tuple[float, float, float]:
        """How many fine voxels a voxel of the middle grid is split into along each axis."""
        i, j, k = (a / b for a, b in zip(self.middle.spacing, self.fine.spacing, strict=True))
        return i, j, k


@dataclass(frozen=True, eq=False)
class TensorWay:
    """A `Way` on a GPU: the same answers to rounding, a frame goes there once and its result comes home once.

    Parameters
    ----------
    way : Way
    device : str
    average, refine, sample, spread : Lines
        The matrices of the steps, on the device.
    """

    way: Way
    device: str
    average: Lines
    refine: Lines
    sample: Lines
    spread: Lines

    @property
    def middle(self) -> Grid:
        """The (averaged) scan's grid."""
        return self.way.middle

    @property
    def fine(self) -> Grid:
        """The result's grid."""
        return self.way.fine

    def start(self, data: NDArray[np.generic]) -> torch.Tensor:
        """Bring one frame of the scan to the device, on the middle grid."""
        import torch

        from napari_mri.nets.slices import along_axes

        # A copy: torch refuses a memory map that is read-only.
        return along_axes(torch.from_numpy(np.array(data, dtype=np.float32, order="C")).to(self.device), self.average)

    def spline(self, start: torch.Tensor) -> torch.Tensor:
        """Return the cubic spline through a frame on the middle grid, on the fine grid; never the frame itself."""
        from napari_mri.nets.slices import along_axes

        result = along_axes(start, self.refine)
        return result.clone() if result is start else result

    def agreed(self, result: torch.Tensor, start: torch.Tensor, consistent: bool = True) -> torch.Tensor:
        """Return the nearest fine voxels that the frame could have been measured from (see `Way.agreed`)."""
        from napari_mri.nets.slices import corrected, scaled

        if consistent:
            result = corrected(result, start, self.sample, self.spread)
        if bool(start.min() >= 0):
            result = result.clamp(min=0)
            if consistent:
                result = scaled(result, start, self.sample)
        return result

    def sampled(self, result: torch.Tensor) -> torch.Tensor:
        """Return what the scanner would have measured of a result, on the middle grid."""
        from napari_mri.nets.slices import along_axes

        return along_axes(result, self.sample)

    def home(self, frame: torch.Tensor) -> Array:
        """Bring a frame to main memory."""
        return np.asarray(frame.contiguous().cpu().numpy(), dtype=np.float32)


class Steps(Protocol[Some]):
    """What `refined` asks of a `Way` and of a `TensorWay`."""

    @property
    def middle(self) -> Grid:
        """The (averaged) scan's grid."""

    @property
    def fine(self) -> Grid:
        """The result's grid."""

    def start(self, data: NDArray[np.generic]) -> Some:
        """Return one frame of the scan on the middle grid."""

    def sampled(self, result: Some) -> Some:
        """Return what the scanner would have measured of a result."""

    def home(self, frame: Some) -> Array:
        """Return a frame as an ndarray."""


def way_of(grid: Grid, wish: Wish) -> Way:
    """Return the way from a scan's grid to the wished one.

    The new grid has the first outer corner of the old one and, where the spacing divides the field of
    view, all eight.

    Raises
    ------
    BadOption
        If the result would be too large, or slices cannot be as thick as they are said to be.
    """
    return way_to(grid, np.full(3, wish.spacing or min(grid.spacing)), wish)


def way_to(grid: Grid, spacing: ArrayLike, wish: Wish) -> Way:
    """Return the way from a scan's grid to one of a spacing (3 float, mm) of its own along each axis (see `way_of`)."""
    own, step = np.asarray(grid.spacing), np.asarray(spacing, dtype=np.float64)
    step = np.where(np.abs(step / own - 1) < SAME, own, step)
    if np.prod(np.asarray(grid.size_mm) / step) > MOST_VOXELS:
        raise BadOption(
            f"A spacing of {step.min():.3g} mm makes too many voxels of this scan.", hint="Wish for a coarser spacing."
        )
    middle = grid.respaced(np.maximum(own, step)) if (step > own).any() else grid
    fine = middle.respaced(step) if (step < own).any() else middle
    widths = np.asarray(middle.spacing)
    if wish.thickness > MOST_THICK * own.max():
        raise BadOption(
            f"Slices {own.max():.3g} mm apart cannot be {wish.thickness:.3g} mm thick.", hint="Look for the slice thickness in the scan's header."
        )
    if wish.thickness > 0 and slice_axis(grid) is not None:
        axis = int(np.argmax(own))
        widths[axis] = max(wish.thickness, widths[axis]) if step[axis] > own[axis] else wish.thickness
    # Along an axis that is not refined the thickness cannot be undone, so it is not asked about either.
    widths = np.where(step < own, widths, middle.spacing)
    return Way(
        slicing(middle, grid) if middle is not grid else None,
        middle,
        fine,
        splines(middle, fine),
        slicing(middle, fine, widths, wish.profile),
    )


def refined(scan: Volume, way: Steps[Some], make: Callable[[Some, int], Some], rt: Runtime) -> Volume:
    """Make every frame of the result, compare it with the scan, tell the difference and offer it.

    Parameters
    ----------
    scan : Volume, (I, J, K) or (I, J, K, C)
    way : Way or TensorWay
    make : callable
        ``make(start, number) -> result``: a frame on the middle grid, and its number, to the fine grid.
    rt : Runtime
        Is offered ``"residual"``: scan minus re-sampled result, on the middle grid.

    Returns
    -------
    Volume
        On the fine grid; frames as in the scan.
    """
    results: list[Array] = []
    judged: list[Consistency] = []
    for number in range(scan.n_frames):
        start = way.start(scan.frame(number).data)
        result = make(start, number)
        judged.append(compared(Volume(way.home(start), way.middle), way.home(way.sampled(result))))
        results.append(way.home(result))
    worst = max(judged, key=lambda one: one.percent)
    rt.warn(f"Data consistency{' of the worst frame' if len(judged) > 1 else ''}: {worst}.")
    residual = [one.residual.data for one in judged]
    rt.offer("residual", replace(scan, data=_joined(residual, scan), grid=way.middle))
    return replace(scan, data=_joined(results, scan), grid=way.fine)


def _joined(frames: list[Array], scan: Volume) -> Array:
    return frames[0] if scan.data.ndim == 3 else np.stack(frames, axis=-1)


def slice_axis(grid: Grid) -> int | None:
    """Return the axis of the thick slices; None for a scan of equal spacings."""
    step = grid.spacing
    return int(np.argmax(step)) if max(step) > min(step) * 1.01 else None


def splines(middle: Grid, fine: Grid) -> tuple[Matrix | None, ...]:
    """Return, for each axis, the (fine, middle) matrix of cubic B-spline interpolation; None where spacings are one."""
    return tuple(_spline(middle, fine, axis) for axis in range(3))


def _spline(middle: Grid, fine: Grid, axis: int) -> Matrix | None:
    """Return the (fine, middle) matrix of cubic B-spline interpolation along an axis; borders go on outside."""
    from scipy.ndimage import map_coordinates

    count, wanted = middle.shape[axis], fine.shape[axis]
    if abs(middle.spacing[axis] / fine.spacing[axis] - 1) < SAME:
        return None
    ratio = fine.spacing[axis] / middle.spacing[axis]
    place = np.clip((np.arange(wanted) + 0.5) * ratio - 0.5, 0, count - 1)
    # Interpolating unit vectors gives the matrix; along the second axis the points lie on the samples.
    points = np.meshgrid(place, np.arange(count), indexing="ij")
    matrix: Matrix = map_coordinates(np.eye(count), points, order=3, mode="mirror")
    return matrix


def tell_limits(scan: Volume, way: Way, p: Wish, rt: Runtime) -> None:
    """Say what the scan cannot hold."""
    own, wish = np.asarray(scan.spacing), np.asarray(way.fine.spacing)
    factor = own / wish
    axis = int(np.argmax(factor))
    if factor.max() < 1 + SAME:
        rt.warn(f"Nothing to refine: the scan's spacing is {own.min():.3g} mm already.")
    if factor.max() > MOST_FACTOR:
        rt.warn(
            f"Factor {factor.max():.1f}: slices {own[axis]:.3g} mm apart do not hold what {wish[axis]:.3g} mm would show."
        )
    if (factor < 1 - SAME).any():
        rt.warn(f"The scan is finer than {wish.max():.3g} mm along some axes and was averaged there.")
    thick = slice_axis(scan.grid)
    if p.thickness > 0 and thick is None:
        rt.warn("The spacings are all equal, so it cannot be told which axis has the slices: their thickness was not used.")
    elif p.thickness > 0 and own[thick] < CLEARLY * np.sort(own)[1]:
        name = next(name for letters, name in NAMES.items() if scan.grid.axes[thick] in letters)
        rt.warn(f"The thickness was taken for slices along the {name} axis, which has the largest spacing.")
    if p.thickness > OVERLAPPING * own[axis] and axis == thick:
        rt.warn(
            f"Slices {p.thickness:.3g} mm thick every {own[axis]:.3g} mm overlap by more than half: what they have in common "
            "hides fine detail, so the result agrees less with the scan."
        )
    if 0 < p.thickness < own[axis] * 0.98 and axis == thick:
        rt.warn(f"{own[axis] - p.thickness:.3g} mm between slices were not measured: they are guessed from both sides.")
    filled = filled_spectrum(scan.frame(scan.n_frames // 2).data)
    # Only the axes that are refined: a detail that is not there cannot be sharpened.
    empty = [(share, n) for n, share in enumerate(filled) if share < INTERPOLATED and factor[n] > 1 + SAME]
    if empty:
        share, n = min(empty)
        rt.warn(
            f"The scan seems interpolated already: along its {own[n]:.3g} mm axis nothing is finer than "
            f"about {own[n] / share:.2g} mm."
        )
