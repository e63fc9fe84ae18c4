"""Which frames of a series belong together, and which are nearest to which."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.model import Runtime
from napari_mri.core.volume import Frames, Volume
from napari_mri.measure import noise as measure
from napari_mri.measure.removal import noise_of

B0 = 50.0
"""Below this b-value, s/mm², a frame has no diffusion weighting to speak of."""


def groups(scan: Volume) -> list[list[int]]:
    """Return the frames that may learn from one another: b0 apart, each shell apart; all frames of other series.

    Parameters
    ----------
    scan : Volume, (I, J, K, C)

    Returns
    -------
    list of lists of frame numbers, each ascending
    """
    count = scan.n_frames
    bvals = () if scan.frames is None else scan.frames.bvals
    if len(bvals) != count:
        return [list(range(count))]
    order = np.argsort(bvals, kind="stable")
    found: list[list[int]] = []
    middle = 0.0
    for number in (int(n) for n in order):
        b = bvals[number]
        # Scanners write 995 and 1005 for one shell of 1000; shells are further apart than that.
        same = found and (b < B0 if middle < B0 else b - middle < max(60.0, 0.08 * middle))
        if same:
            found[-1].append(number)
        else:
            found.append([number])
            middle = b
    return [sorted(group) for group in found]


def tell_left(scan: Volume, groups: list[list[int]], rt: Runtime) -> None:
    """Warn of frames that are in no group and so are left alone."""
    left = sorted(set(range(scan.n_frames)).difference(*groups))
    if left:
        names = ", ".join(str(number + 1) for number in left)
        says = f"Frame {names} has" if len(left) == 1 else f"Frames {names} have"
        rt.warn(f"{says} too few others of the same b-value and {'stays as it is' if len(left) == 1 else 'stay as they are'}.")


def nearest(group: list[int], frames: Frames | None, count: int) -> dict[int, list[int]]:
    """For each frame of a group, the `count` others nearest to it, the nearest first.

    Nearest by the angle between gradient directions (a direction and its opposite measure the same), else in
    the order of the frames, with the ends meeting as little as possible.
    """
    vectors: NDArray[np.float64] | None = None
    if frames is not None and len(frames.bvecs) > max(group):
        vectors = np.asarray(frames.bvecs, dtype=float)[group]
        lengths = np.linalg.norm(vectors, axis=1)
        vectors = None if (lengths < 0.5).any() else vectors / lengths[:, None]
    out = {}
    for place, number in enumerate(group):
        if vectors is not None:
            far = -np.abs(vectors @ vectors[place])
        else:
            far = np.abs(np.arange(len(group)) - place).astype(float)
        far[place] = np.inf
        out[number] = [group[n] for n in np.argsort(far, kind="stable")[: min(count, len(group) - 1)]]
    return out


def angular(group: list[int], frames: Frames | None) -> NDArray[np.float32] | None:
    """Return the matrix that predicts each frame of a shell from the others by smooth interpolation on the sphere.

    Even spherical harmonics are fitted to all directions but one (with the Laplace-Beltrami penalty of Descoteaux
    et al., Magn Reson Med 2007;58:497) and read at that one, so the diagonal is 0 and no frame predicts its own noise.

    Returns
    -------
    ndarray, (C, C), rows targets; None where directions are unknown or too few (fewer than 10).
    """
    from scipy.special import sph_harm_y

    if frames is None or len(frames.bvecs) <= max(group) or len(group) < 10:
        return None
    v = np.asarray(frames.bvecs, dtype=float)[group]
    lengths = np.linalg.norm(v, axis=1)
    if (lengths < 0.5).any():
        return None
    v /= lengths[:, None]
    polar, azimuth = np.arccos(np.clip(v[:, 2], -1, 1)), np.arctan2(v[:, 1], v[:, 0])
    columns, penalties = [], []
    for order in range(0, 5 if len(group) >= 20 else 3, 2):
        for degree in range(-order, order + 1):
            value = sph_harm_y(order, abs(degree), polar, azimuth)
            columns.append(value.real if degree >= 0 else value.imag)
            penalties.append((order * (order + 1)) ** 2)
    basis, penalty = np.stack(columns, 1), 0.006 * np.diag(np.asarray(penalties, dtype=float))
    matrix = np.zeros((len(group), len(group)))
    for place in range(len(group)):
        others = np.arange(len(group)) != place
        b = basis[others]
        matrix[place, others] = basis[place] @ np.linalg.solve(b.T @ b + penalty, b.T)
    return matrix.astype(np.float32)


def series_noise(scan: Volume, sigma: float, kind: str, rt: Runtime) -> tuple[float, bool]:
    """Return sigma and whether it is Rician, for a whole series.

    The law of Marchenko and Pastur needs many frames; otherwise the first frame is looked at alone.
    """
    found = noise_of(scan, sigma, kind, rt)
    is_rician = found.kind == "rician"
    if sigma <= 0 and scan.n_frames >= 16 and min(scan.grid.shape) >= 5 and not (found.trusted and found.how == "background"):
        field = measure.series_sigma_map(scan)
        body = np.asarray(scan.data[..., 0]) > 0.2 * measure.brightness(np.asarray(scan.data[..., 0]))
        middle = float(np.median(field[body & (field > 0)])) if (body & (field > 0)).any() else found.sigma
        return middle, is_rician
    return found.sigma, is_rician
