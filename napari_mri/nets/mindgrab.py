"""MindGrab's network: dilated 3-D convolutions at full resolution, each followed by instance norm and GELU.

Architecture after Fani et al., "MindGrab for BrainChop", 2025 (arXiv:2506.11860).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

DILATIONS = (16, 8, 4, 2, 1) * 5
CHANNELS = 15


class MindGrab(nn.Module):
    """25 dilated convolutions without bias and a linear layer to background and brain.

    Parameter names are those of the published file: ``model.<i>.0.weight``, ``model.25.weight``, ``model.25.bias``.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        ins = 1
        for dilation in DILATIONS:
            conv = nn.Conv3d(ins, CHANNELS, 3, padding=dilation, dilation=dilation, bias=False)
            layers.append(nn.Sequential(conv))
            ins = CHANNELS
        layers.append(nn.Conv3d(CHANNELS, 2, 1))
        self.model = nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, I, J, K) in 0..1, LIA order at 1 mm, to (B, 2, I, J, K) logits."""
        for layer in list(self.model)[:-1]:
            # The norm has no weights, so it is absent from the file; without it the answer is noise.
            x = F.gelu(F.instance_norm(layer(x), eps=1e-5))
        return self.model[-1](x)
