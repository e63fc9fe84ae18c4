"""A head made by formula: a scan whose every voxel is known, on any grid, in any of four contrasts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_mri import phantom_anatomy as anatomy
from napari_mri.core.errors import BadOption
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Labels, Origin, Volume
from napari_mri.phantom_canvas import Canvas, Waves, places

CONTRASTS = ("T1", "T2", "FLAIR", "PD")
WHITE_SIGNAL = 600.0
"""Intensity of white matter in every contrast: noise is told as a fraction of it."""


@dataclass(frozen=True)
class Tissue:
    """Relaxation of a tissue.

    Parameters
    ----------
    t1, t2 : float
        ms, about 1.5 T.
    density : float
        Protons per volume against water.
    """

    t1: float
    t2: float
    density: float


TISSUES = {
    "air": Tissue(1000.0, 10.0, 0.0),
    "skin": Tissue(650.0, 45.0, 0.62),
    "fat": Tissue(330.0, 95.0, 0.82),
    "muscle": Tissue(1000.0, 42.0, 0.72),
    "bone": Tissue(900.0, 20.0, 0.05),
    "marrow": Tissue(460.0, 70.0, 0.32),
    "fluid": Tissue(4100.0, 1700.0, 1.0),
    "vitreous": Tissue(3700.0, 1200.0, 1.0),
    "lens": Tissue(1100.0, 35.0, 0.6),
    "white": Tissue(780.0, 76.0, 0.71),
    "grey": Tissue(1250.0, 96.0, 0.82),
    "deep": Tissue(1080.0, 84.0, 0.80),
    "pale": Tissue(880.0, 66.0, 0.74),
    "stem": Tissue(880.0, 80.0, 0.74),
    "lesion": Tissue(1450.0, 190.0, 0.90),
    "blood": Tissue(1400.0, 50.0, 0.16),
}
"""Round figures from the 1.5 T literature; flowing blood is nearly a void."""


def signal(tissue: Tissue, contrast: str) -> float:
    """Return the signal of a tissue by the equation of the sequence, in arbitrary units.

    T1: inversion recovery, TR 2.3 s, TI 1.1 s. T2: spin echo train, TR 5 s, TE 95 ms. FLAIR: TR 9 s,
    TI 2.5 s, TE 110 ms. PD: TR 3 s, TE 15 ms.
    """
    t1, t2, density = tissue.t1, tissue.t2, tissue.density
    if contrast == "T1":
        weight = abs(1 - 2 * np.exp(-1100.0 / t1) + np.exp(-2300.0 / t1))
    elif contrast == "T2":
        weight = (1 - np.exp(-5000.0 / t1)) * np.exp(-95.0 / t2)
    elif contrast == "FLAIR":
        weight = abs(1 - 2 * np.exp(-2500.0 / t1) + np.exp(-9000.0 / t1)) * np.exp(-110.0 / t2)
    elif contrast == "PD":
        weight = (1 - np.exp(-3000.0 / t1)) * np.exp(-15.0 / t2)
    else:
        raise BadOption(f"There is no contrast '{contrast}'.", hint=f"Choose one of {', '.join(CONTRASTS)}.")
    return float(density * weight)


def default_grid(spacing: float = 1.0) -> Grid:
    """Return an RAS+ grid that holds the whole head, of cubic voxels of some mm."""
    low, high = np.array([-96.0, -112.0, -122.0]), np.array([96.0, 120.0, 92.0])
    shape = np.ceil((high - low) / spacing).astype(int)
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = low + spacing / 2
    return Grid((int(shape[0]), int(shape[1]), int(shape[2])), affine)


def head(
    grid: Grid | None = None,
    contrast: str = "T1",
    noise: float = 0.03,
    bias: float = 0.2,
    seed: int = 0,
    lesion: bool = True,
) -> tuple[Volume, Labels]:
    """Make a scan of a head, and what stands in each of its voxels.

    Parameters
    ----------
    grid : Grid, optional
        Any orientation, spacing and obliquity; by default 1 mm over the whole head (`default_grid`).
    contrast : str
        ``"T1"``, ``"T2"``, ``"FLAIR"`` or ``"PD"``.
    noise : float
        Standard deviation of the noise in each of the two channels (Rician magnitude), as a
        fraction of white matter's signal.
    bias : float
        Largest shading by the coil, as a fraction.
    seed : int
        Draws the folds, the shading and the noise; the same numbers give the same voxels.
    lesion : bool
        Whether the right hemisphere holds a lesion.

    Returns
    -------
    scan : Volume, int16
    labels : Labels, uint8
        Names in `labels.names`; `brain_mask` gives the brain. A voxel has the label of the tissue at
        its centre, while its signal is mixed where an outline runs through it.
    """
    where = default_grid() if grid is None else grid
    strength = {name: signal(tissue, contrast) for name, tissue in TISSUES.items()}
    unit = WHITE_SIGNAL / strength["white"]
    canvas = Canvas(where, {name: value * unit for name, value in strength.items()}, anatomy.numbers())
    anatomy.draw(canvas, np.random.default_rng([seed, 1]), lesion)
    image = _shaded(canvas.image, where, bias, np.random.default_rng([seed, 2]))
    image = _noisy(image, noise * WHITE_SIGNAL, np.random.default_rng([seed, 3]))
    names = dict(enumerate(anatomy.PARTS, start=1))
    origin = Origin(title=f"phantom {contrast}")
    scan = Volume(np.clip(np.rint(image), 0, 32767).astype(np.int16), where, origin=origin)
    return scan, Labels(canvas.labels, where, origin=Origin(title="phantom labels"), names=names)


def brain_mask(labels: Labels) -> Labels:
    """Return the brain (1) of a phantom's labels: tissue, ventricles and lesion, no outer fluid."""
    return Labels(anatomy.in_brain(labels.data).astype(np.uint8), labels.grid, origin=labels.origin, names={1: "brain"})


def _shaded(image: NDArray[np.float32], grid: Grid, bias: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Multiply by a slow field between 1 - bias and 1 + bias, and a little tissue texture."""
    if bias == 0:
        return image
    slow = Waves.drawn(rng, 3, 330.0, 0.2)
    for start in range(0, grid.shape[0], 8):
        box = (slice(start, start + 8 if start + 8 < grid.shape[0] else grid.shape[0]), slice(0, grid.shape[1]), slice(0, grid.shape[2]))
        at = places(grid, box)
        image[box] *= 1 + np.float32(bias) * np.tanh(slow.at(at.x, at.y, at.z))
    return image


def _noisy(image: NDArray[np.float32], sigma: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the magnitude of the signal plus Gaussian noise in two channels."""
    if sigma == 0:
        return image
    for start in range(0, image.shape[0], 8):
        slab = image[start : start + 8]
        real = rng.standard_normal(slab.shape, dtype=np.float32)
        real *= np.float32(sigma)
        real += slab
        other = rng.standard_normal(slab.shape, dtype=np.float32)
        other *= np.float32(sigma)
        np.hypot(real, other, out=slab)
    return image
