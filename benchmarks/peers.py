"""Other people's networks that the benchmarks compare with and the product does not offer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F


class DeepBrain(nn.Module):
    """deepbrain's extractor v2, a small 3-D U-Net for T1 (github.com/iitzco/deepbrain, MIT).

    Parameter names are those of the converted file.
    """

    @classmethod
    def from_file(cls, file: Path) -> DeepBrain:
        """Build the network in the shapes that the file tells."""
        from safetensors.torch import load_file

        state = load_file(file)
        net = cls()
        for name in sorted({key.rsplit(".", 1)[0] for key in state}):
            kernel = state[f"{name}.weight"]
            size = kernel.shape[-1]
            if "transpose" in name:
                layer: nn.Module = nn.ConvTranspose3d(kernel.shape[0], kernel.shape[1], size, stride=2, bias=False)
            else:
                layer = nn.Conv3d(kernel.shape[1], kernel.shape[0], size, padding=size // 2)
            setattr(net, name, layer)
        net.load_state_dict(state)
        return net.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, 128, 128, 128) divided by its maximum, to (B, 1, 128, 128, 128) probability."""
        skips = []
        for first, second in (("", "_1"), ("_2", "_3"), ("_4", "_5")):
            x = F.relu(getattr(self, "conv3d" + first)(x))
            x = F.relu(getattr(self, "conv3d" + second)(x))
            skips.append(x)
            x = F.max_pool3d(x, 2)
        for up, conv in (("", "_6"), ("_1", "_7"), ("_2", "_8")):
            x = getattr(self, "conv3d_transpose" + up)(x)[:, :, :-1, :-1, :-1]
            x = F.relu(getattr(self, "conv3d" + conv)(torch.cat([x, skips.pop()], 1)))
        return torch.sigmoid(self.conv3d_9(x))

    def mask(self, data: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Brain mask of a scan (I, J, K) on its own grid."""
        with torch.inference_mode():
            x = torch.from_numpy(np.ascontiguousarray(data, dtype=np.float32))[None, None]
            small = F.interpolate(x, size=(128, 128, 128), mode="trilinear")
            found = F.interpolate(self(small / small.max()), size=data.shape, mode="trilinear")
        return (found[0, 0] > 0.5).numpy()
