"""The outline of a mask as a distance that is 0 on it, worked on where a network left it: maps are torch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def stretched(near: Tensor, step: float) -> Tensor:
    """Stretch distances (I, J, K), mm, so that they grow by 1 mm per mm, as the mean slope over a centimetre tells.

    Parameters
    ----------
    near : Tensor, (I, J, K)
        Negative inside.
    step : float
        Of the voxels, mm.
    """
    import torch
    from scipy.ndimage import uniform_filter1d

    from napari_mri.nets.voxels import spread

    if min(near.shape) < 2:
        return near
    means = [uniform_filter1d(np.eye(n, dtype=np.float32), 5, axis=0) for n in near.shape]
    slope = torch.stack([part * part for part in torch.gradient(near, spacing=step)]).sum(dim=0)
    return near / spread(slope.sqrt(), means).clamp(0.5, 1.5)


def one_piece(near: Tensor, border: float, step: float) -> tuple[Tensor, list[int]]:
    """Push all but the largest piece out of a mask, and fill its holes.

    Parameters
    ----------
    near : Tensor, (I, J, K)
        mm, negative inside.
    border : float
        The mask is what is below.
    step : float
        Of the voxels, mm.

    Returns
    -------
    Tensor, (I, J, K)
    list of int
        Voxels of the largest piece and of the next one.
    """
    import torch

    from napari_mri.nets.voxels import largest, pieces

    mask = near < border
    main = largest(mask)
    two = [*pieces(mask).sizes.sort(descending=True).values[:2].tolist(), 0, 0][:2]
    out = torch.where(mask & ~main, near.clamp(min=border + step), near)
    return torch.where(main & ~mask, out.clamp(max=border - step), out), two


def measured(soft: Tensor, step: float, reach: float) -> Tensor:
    """Return the distance, mm, to where a field (I, J, K) is 0; negative where it is, and right up to `reach`.

    Parameters
    ----------
    soft : Tensor, (I, J, K)
        mm across the outline, clipped a step from it.
    step : float
        Of the voxels, mm.
    reach : float
        mm.
    """
    import torch

    from napari_mri.nets.voxels import away

    inside = soft < 0
    most = int(np.ceil(reach / step)) + 1
    around = torch.where(inside, 0.5 - away(~inside, most), away(inside, most) - 0.5) * step
    slope = torch.stack([part * part for part in torch.gradient(soft, spacing=step)]).sum(dim=0).sqrt()
    near = soft / slope.clamp(min=0.5)
    return torch.where(around.abs() <= step, near.clamp(-step, step), around)
