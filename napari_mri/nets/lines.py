"""Functions given by corners with straight lines in between, looked up where the tensors are."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray


def along(values: torch.Tensor, at: NDArray[np.float64], gives: NDArray[np.float64]) -> torch.Tensor:
    """Return what `numpy.interp` returns, to the rounding of single precision.

    Parameters
    ----------
    values : torch.Tensor, float32
        Of any shape.
    at, gives : ndarray, (n,)
        Corners, rising; at least two. Beyond the ends the values there hold.
    """
    corners, starts, slopes = (
        torch.from_numpy(part.astype(np.float32)).to(values.device)
        for part in (at, gives[:-1], np.diff(gives) / np.diff(at))
    )
    inside = values.clamp(float(at[0]), float(at[-1])).contiguous()
    number = torch.bucketize(inside, corners[1:-1], out_int32=True, right=True)
    # By small whole numbers and row by row: so little memory is taken at once on a large volume.
    flat = number.reshape(-1)
    out = inside.reshape(-1) - corners.index_select(0, flat)
    out.mul_(slopes.index_select(0, flat)).add_(starts.index_select(0, flat))
    return out.reshape(values.shape)
