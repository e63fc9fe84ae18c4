"""Non-local PCA on a volume whose noise is known: the part that denoising and refining share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.model import Runtime
from napari_mri.engine import device as devices
from napari_mri.measure import rician

if TYPE_CHECKING:
    import torch

MOST = 20 << 30
"""Memory taken on a GPU at most, bytes: more makes nothing quicker."""


def denoised(data: NDArray[np.float32], sigma: NDArray[np.float32], is_rician: bool, rt: Runtime) -> NDArray[np.float32]:
    """Clean a volume whose noise is known.

    Parameters
    ----------
    data : ndarray, (I, J, K)
    sigma : ndarray, (I, J, K)
        Noise level, same units, above 0.
    is_rician : bool
        Whether `data` are magnitudes; the answer then is the noise-free signal.
    rt : Runtime
    """
    import torch

    from napari_mri.nets.lines import along
    from napari_mri.nets.nonlocal_pca import FOR_CORES, cleaned, for_gpu

    scan, level = (torch.from_numpy(np.require(part, np.float32, "CW")).to(rt.device) for part in (data, sigma))
    even = along(scan.clamp(min=0) / level, *rician.stable_line()) if is_rician else scan / level
    floor = rician.stable_floor() if is_rician else None
    cut = FOR_CORES if rt.device == "cpu" else for_gpu(data.shape, _room(rt.device))
    clean = cleaned(even, floor, lambda f: rt.report(0.05 + 0.9 * f, "cleaning what looks alike"), cut)
    if is_rician:
        clean = along(_settled(clean, rician.stable_floor()), *rician.signal_line())
    return np.asarray(clean.mul_(level).cpu().numpy(), dtype=np.float32)


def _settled(clean: torch.Tensor, floor: float) -> torch.Tensor:
    """Lay what is within reach of the noise floor onto it: the way back turns the least excess into signal."""
    above = clean - floor
    return floor + above.where(above >= 3 * rician.SETTLED, (above - rician.SETTLED).clamp_(min=0).mul_(1.5))


def _room(device: str) -> int:
    """Bytes that may be taken on a device: most of what is free, and what torch keeps there for later use."""
    import torch

    kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated() if device == "cuda" else 0
    return min(MOST, (devices.free_bytes(device) + kept) // 5 * 3)
