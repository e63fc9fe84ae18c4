"""Rigid registration of two scans of one patient, as a motion in patient millimetres."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import Cancelled, MriError
from napari_mri.core.grid import Grid
from napari_mri.core.model import Runtime
from napari_mri.core.volume import Volume

STEP = 3.0
"""mm: finer voxels tell a rigid motion no better, and cost time."""


def motion(fixed: Volume, moving: Volume, rt: Runtime) -> NDArray[np.float64]:
    """Return the (4, 4) motion that takes places in `moving` to the same anatomy in `fixed`.

    Mutual information, six parameters, three levels. Needs SimpleITK.

    Parameters
    ----------
    fixed, moving : Volume, (I, J, K)
        Grey values of any range.
    rt : Runtime

    Raises
    ------
    MriError
        If a scan has but one value, or nothing to compare is found.
    """
    import SimpleITK as sitk

    # SimpleITK is told RAS as if it were its own frame: a rigid motion is the same in both, turned by the mirror.
    pictures = [_picture(scan) for scan in (fixed, moving)]
    search = sitk.ImageRegistrationMethod()
    search.SetMetricAsMattesMutualInformation(32)
    search.SetMetricSamplingStrategy(search.REGULAR)
    search.SetMetricSamplingPercentage(0.2, rt.seed + 1)  # 0 stands for the clock
    search.SetInterpolator(sitk.sitkLinear)
    search.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, 120, 0.5, 1e-5)
    search.SetOptimizerScalesFromPhysicalShift()
    search.SetShrinkFactorsPerLevel([3, 2, 1])
    search.SetSmoothingSigmasPerLevel([2, 1, 0])
    start = sitk.Euler3DTransform()
    start.SetCenter([float(x) for x in fixed.grid.centre])
    search.SetInitialTransform(start, inPlace=True)
    search.AddCommand(sitk.sitkIterationEvent, lambda: _heard(search, rt))
    threads = search.GetGlobalDefaultNumberOfThreads()
    try:
        # Several threads add up in an order of their own: no two runs would be the same. The metric asks for its own ones.
        search.SetGlobalDefaultNumberOfThreads(1)
        search.Execute(*pictures)
    except RuntimeError as error:
        raise MriError("The places of the scans could not be compared.", hint="Do they show the same part of the body?") from error
    finally:
        search.SetGlobalDefaultNumberOfThreads(threads)
    found = np.eye(4)
    found[:3, :3] = np.asarray(start.GetMatrix()).reshape(3, 3)
    centre = np.asarray(start.GetCenter())
    found[:3, 3] = np.asarray(start.GetTranslation()) + centre - found[:3, :3] @ centre
    # It takes places of the fixed scan to the moving one; the other way is asked for.
    return np.asarray(np.linalg.inv(found))


def _heard(search, rt: Runtime) -> None:  # type: ignore[no-untyped-def]
    """Hear a stop: an error must not pass through SimpleITK, so the search is ended and the next report raises."""
    try:
        rt.report(0.02, "comparing the places of the scans")
    except Cancelled:
        search.StopRegistration()


def _picture(scan: Volume):  # type: ignore[no-untyped-def]
    import SimpleITK as sitk

    from napari_mri.measure.consistency import slicing

    grid = scan.grid
    coarse = np.maximum(grid.spacing, STEP)
    data = np.asarray(scan.data, dtype=np.float32)
    if (coarse > np.asarray(grid.spacing) * 1.01).any():
        way = slicing(grid.respaced(coarse), grid)
        data, grid = way.sampled(data), way.scan
    low, top = (float(x) for x in np.percentile(data, [0.5, 99.5]))
    if not top > low:
        raise MriError("The places of the scans could not be compared: one of them has nearly everywhere the same value.")
    picture = sitk.GetImageFromArray(np.ascontiguousarray(np.clip((data - low) / (top - low), 0, 1).transpose(2, 1, 0)))
    picture.SetSpacing(grid.spacing)
    picture.SetOrigin([float(x) for x in grid.affine[:3, 3]])
    picture.SetDirection([float(x) for x in grid.upright.ravel()])
    return picture


def moved(scan: Volume, by: NDArray[np.float64]) -> Volume:
    """Return a scan with its voxels elsewhere in the patient; no voxel is interpolated."""
    from dataclasses import replace

    return replace(scan, grid=Grid(scan.grid.shape, by @ scan.grid.affine))


def distance(by: NDArray[np.float64], grid: Grid) -> float:
    """Return how far a motion takes the corners of the middle half of a grid, mm, on average."""
    corners = grid.centre + 0.5 * (grid.corners() - grid.centre)
    there = corners @ by[:3, :3].T + by[:3, 3]
    return float(np.linalg.norm(there - corners, axis=1).mean())


def overlap(one: Grid, other: Grid) -> float:
    """Return which share of the smaller box lies in the other, 0 to 1, by a lattice of points."""
    small, large = sorted((one, other), key=lambda grid: float(np.prod(grid.size_mm)))
    lattice = np.stack(np.meshgrid(*[(np.arange(12) + 0.5) / 12 * n - 0.5 for n in small.shape], indexing="ij"), -1)
    voxel = large.to_voxels(small.to_patient(lattice.reshape(-1, 3)))
    return float(((voxel >= -0.5) & (voxel <= np.asarray(large.shape) - 0.5)).all(axis=1).mean())
