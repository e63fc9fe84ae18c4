"""What `measure.noise` asks of arrays, of tensors: the noise of a scan is then found on a GPU."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_mri.nets.slices import along_axes, lines_on


class TensorSums:
    """`measure.noise.ArraySums` of tensors (I, J, K) and (V,)."""

    def blurred(self, image: Tensor, matrices: tuple[NDArray[np.float64], ...]) -> Tensor:
        """Apply one matrix along each axis."""
        return along_axes(image, lines_on(str(image.device), matrices))

    def percentile(self, values: Tensor, share: float) -> float:
        """Return what `share` % of the values are below."""
        at = share / 100 * (len(values) - 1)
        ordered = values.sort().values[int(at) : int(at) + 2].double().cpu()
        return float(torch.lerp(ordered[0], ordered[-1], at - int(at)))

    def counts(self, values: Tensor, bins: int, top: float) -> NDArray[np.int_]:
        """Count the values from 0 to `top` in bins."""
        return np.asarray(values.histc(bins, 0.0, top).cpu().numpy().astype(np.int_))

    def steepness(self, image: Tensor, axis: int) -> Tensor:
        """Return the difference per voxel along an axis."""
        return torch.gradient(image, dim=axis)[0]

    def precise(self, values: Tensor) -> Tensor:
        """Return the values in double precision."""
        return values.double()

    def home(self, values: Tensor) -> NDArray[np.float32]:
        """Return the values as an array."""
        return np.asarray(values.cpu().numpy(), dtype=np.float32)
