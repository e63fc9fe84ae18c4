"""Convolutions of three axes that are quick on a CPU, and quick and right on a GPU, whichever torch is installed."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch, "mkldnn_convolution")

AT_ONCE = 1 << 27
"""Numbers that the neighbours of some planes take beside the volume."""


class Conv3d(nn.Conv3d):
    """As torch's own, but for answers (without gradients) by the quickest way there is; not for dilation and groups.

    On a CPU by oneDNN: torch hands what has fewer than 20,480 numbers in its first four axes, that is nearly every
    level of a small network, to a kernel that takes five times as long. On a GPU by planes: some versions of torch
    and cuDNN get half precision wrong in three dimensions (pytorch issue 163539), others make a detour that takes
    four times as long (issue 166122); kernels for pictures are those that everybody uses.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, ins, I, J, K) to (B, outs, …)."""
        if torch.is_grad_enabled():
            return super().forward(x)
        if x.is_cuda:
            return by_planes(x, self.weight, self.bias, (self.stride[0], int(self.padding[0])))
        single = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if not single or not ONEDNN:
            return super().forward(x)
        return torch.mkldnn_convolution(x, self.weight, self.bias, self.padding, self.stride, self.dilation, self.groups)


def by_planes(
    x: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor | None = None, steps: tuple[int, int] = (1, 1)
) -> torch.Tensor:
    """Convolve pictures that are the planes of a volume: as many neighbours as the kernel is deep are the channels of one.

    Parameters
    ----------
    x : torch.Tensor
        (B, ins, I, J, K).
    kernel : torch.Tensor
        (outs, ins, n, n, n).
    bias : torch.Tensor, optional
        (outs,).
    steps : (int, int)
        Stride, and how far zeros go on around the volume.

    Returns
    -------
    torch.Tensor
        (B, outs, …), in memory as two-dimensional convolution leaves it.
    """
    stride, rim = steps
    outs, ins, deep = kernel.shape[:3]
    flat = kernel.transpose(1, 2).flatten(1, 2).contiguous(memory_format=torch.channels_last)
    wide = F.pad(x, (0, 0, 0, 0, rim, rim)) if rim else x
    count = (wide.shape[2] - deep) // stride + 1
    many = max(1, AT_ONCE // (len(x) * deep * ins * wide.shape[3] * wide.shape[4]))
    found = []
    for start in range(0, count, many):
        some = min(many, count - start)
        near = [wide[:, :, n : n + stride * (some - 1) + 1 : stride] for n in range(start * stride, start * stride + deep)]
        full = torch.cat(near, dim=1).contiguous(memory_format=torch.channels_last_3d)
        pictures = full.transpose(1, 2).flatten(0, 1)  # (B * I, n * ins, J, K)
        answer = F.conv2d(pictures, flat, bias, stride, rim)
        found.append(answer.reshape(len(x), some, outs, *answer.shape[2:]).transpose(1, 2))
    return found[0] if len(found) == 1 else torch.cat(found, dim=2)
