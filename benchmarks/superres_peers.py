"""Other projects' super-resolution networks, loaded from their weights files and run as their authors describe."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch.nn import functional as F

Array = NDArray[np.float32]


def vdsr(file: Path) -> Callable[[Array], Array]:
    """Return VDSR (Kim et al., CVPR 2016), trained on photographs: on both families of planes across the slices, averaged."""
    state = load_file(file)
    middle = sorted((n for n in state if n.startswith("residual")), key=lambda n: int(n.split(".")[1]))

    def planes(stack: torch.Tensor) -> torch.Tensor:
        y = F.relu(F.conv2d(stack, state["input.weight"], padding=1))
        for name in middle:
            y = F.relu(F.conv2d(y, state[name], padding=1))
        return stack + F.conv2d(y, state["output.weight"], padding=1)

    def apply(spline: Array) -> Array:
        low, extent = float(spline.min()), float(np.ptp(spline))
        x = torch.from_numpy((spline - low) / extent)
        total = torch.zeros_like(x)
        with torch.inference_mode():
            for axis in (0, 1):  # the slices lie along axis 2
                for n in range(0, x.shape[axis], 8):
                    some = x.narrow(axis, n, min(8, x.shape[axis] - n)).movedim(axis, 0)[:, None]
                    total.narrow(axis, n, len(some)).add_(planes(some)[:, 0].movedim(0, axis))
        return np.asarray(total.numpy() / 2 * extent + low, dtype=np.float32)

    return apply


def srrecnn(file: Path) -> Callable[[Array], Array]:
    """Return SRReCNN3D (Pham et al., 2019), trained on real T1 heads for isotropic ×2: on the spline at the fine spacing."""
    state = load_file(file)
    names = sorted({name.rsplit(".", 1)[0] for name in state}, key=lambda n: int("".join(c for c in n if c.isdigit())))

    def apply(spline: Array) -> Array:
        most = float(spline.max())
        x = torch.from_numpy(spline / most)[None, None].contiguous(memory_format=torch.channels_last_3d)
        y = x
        with torch.inference_mode():
            for name in names:
                kernel = state[name + ".weight"].contiguous(memory_format=torch.channels_last_3d)
                y = F.conv3d(y, kernel, state[name + ".bias"], padding=1)
                y = y if name == names[-1] else F.relu(y)
        return np.asarray((x + y)[0, 0].numpy() * most, dtype=np.float32)

    return apply
