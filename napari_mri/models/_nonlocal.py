"""Non-local PCA on a volume whose noise is known: the part that denoising and refining share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.model import Runtime
from napari_mri.engine import device as devices
from napari_mri.engine.tiles import memory_ended
from napari_mri.measure import rician

if TYPE_CHECKING:
    from napari_mri.nets.nonlocal_pca import Cut

Array = NDArray[np.float32]
MOST = 20 << 30
"""Memory taken on a GPU at most, bytes: more makes nothing quicker."""
COPIES = 14
"""Of the volume, that are held on the device at once."""


def denoised(data: Array, sigma: Array, is_rician: bool, rt: Runtime) -> Array:
    """Clean a volume whose noise is known; by the processor where a GPU's memory ends.

    Parameters
    ----------
    data : ndarray, (I, J, K)
    sigma : ndarray, (I, J, K)
        Noise level, same units, above 0.
    is_rician : bool
        Whether `data` are magnitudes; the answer then is the noise-free signal.
    rt : Runtime
    """
    for device in dict.fromkeys((rt.device, "cpu")):
        try:
            return _on(device, np.require(data, np.float32, "CW"), np.require(sigma, np.float32, "CW"), is_rician, rt)
        except (RuntimeError, MemoryError) as error:
            if device == "cpu" or not memory_ended(error):
                raise
            rt.warn(f"Memory of the {device} ended; the processor did the work.")
    raise AssertionError("the processor answers or raises")


def _on(device: str, data: Array, sigma: Array, is_rician: bool, rt: Runtime) -> Array:
    """Clean on a device."""
    import torch

    from napari_mri.nets.background import settled
    from napari_mri.nets.lines import along
    from napari_mri.nets.nonlocal_pca import cleaned

    scan, level = torch.from_numpy(data).to(device), torch.from_numpy(sigma).to(device)
    even = along(scan.clamp(min=0) / level, *rician.stable_line()) if is_rician else scan / level
    floor = rician.stable_floor() if is_rician else None
    cut = cut_for(device, data.shape)
    clean = cleaned(even, floor, lambda f: rt.report(0.05 + 0.9 * f, "cleaning what looks alike"), cut)
    if floor is not None:
        clean = along(settled(clean, even, floor), *rician.signal_line())
    return np.asarray(clean.mul_(level).cpu().numpy(), dtype=np.float32)


def cut_for(device: str, shape: tuple[int, ...]) -> Cut:
    """Return how the work on a volume of this shape is best cut for a device."""
    from napari_mri.nets.nonlocal_pca import FOR_CORES, for_gpu

    return FOR_CORES if device == "cpu" else for_gpu(shape, _room(device, 4 * math.prod(shape)))


def _room(device: str, volume: int) -> int:
    """Bytes that may be taken on a device beside some copies of the volume, of which one has `volume` bytes."""
    import torch

    kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated() if device == "cuda" else 0
    return max(0, min(MOST, (devices.free_bytes(device) + kept - COPIES * volume) // 4 * 3))
