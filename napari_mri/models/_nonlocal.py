"""Non-local PCA on a volume whose noise is known: the part that denoising and refining share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.model import Runtime
from napari_mri.measure import rician


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

    from napari_mri.nets.nonlocal_pca import cleaned

    even = rician.stabilised(np.maximum(data, 0), sigma) if is_rician else data / sigma
    floor = rician.stable_floor() if is_rician else None
    image = torch.from_numpy(np.ascontiguousarray(even, dtype=np.float32)).to(rt.device)
    clean = cleaned(image, floor, lambda f: rt.report(0.05 + 0.9 * f, "cleaning what looks alike")).cpu().numpy()
    if is_rician:
        return rician.back_from_stabilised(rician.settled(clean), sigma)
    return np.asarray(clean * sigma, dtype=np.float32)
