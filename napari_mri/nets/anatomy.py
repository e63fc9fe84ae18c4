"""A network that names what stands where in a head: a folded U-Net with a probability for every structure and side."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from napari_mri.nets.unet import Block, Conv3d, FoldedUNet, unfold

NAMES = (
    "air", "white matter", "cortex", "lateral ventricle", "inferior lateral ventricle", "cerebellar white matter",
    "cerebellar cortex", "thalamus", "caudate", "putamen", "pallidum", "third ventricle", "fourth ventricle",
    "brain stem", "hippocampus", "amygdala", "fluid around the brain", "lesion", "accumbens", "ventral diencephalon",
    "vessel", "other soft tissue", "marrow", "bone", "sinus", "optic nerve", "skin", "mucosa", "palate", "soft tissue",
    "eye", "artery",
)  # fmt: skip
PAIRED = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 17, 18, 19, 20))
"""Structures of which there is one on the left and one on the right."""

BEYOND = "beyond"
"""Beside the network's tensors in its file: how far structures reach beyond their map, `models._anatomy.Key.beyond`."""


class Anatomy(FoldedUNet):
    """`FoldedUNet` that answers with `NAMES` and a side instead of distances.

    Notes
    -----
    The trunk has the tensors of the skull-strip network and can begin from them.
    """

    def __init__(self, wide: int = 32) -> None:
        super().__init__()
        first = self.head.weight.shape[1]
        del self.head
        self.outs = len(NAMES) + 1
        self.tell = Block(first, wide)
        self.names = Conv3d(wide, 8 * self.outs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, 1, I, J, K) to logits (B, len(NAMES) + 1, I, J, K): the names, and right (above 0) or left."""
        return unfold(self.names(self.tell(self.features(x))))

    def some(self, x: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
        """Return logits (B, len(NAMES) + 1, P, I / 2, J / 2, K / 2) of some (P,) of the eight voxels of each block."""
        x = self.tell(self.features(x))
        rows = self.names.weight.reshape(self.outs, 8, -1)[:, parts].flatten(0, 1)[..., None, None, None]
        assert self.names.bias is not None
        y = F.conv3d(x, rows, self.names.bias.reshape(self.outs, 8)[:, parts].flatten())
        return y.reshape(x.shape[0], self.outs, len(parts), *y.shape[2:])


class HeadNet(FoldedUNet):
    """`FoldedUNet` that answers twice: distances to two surfaces, and what stands where.

    Parameters
    ----------
    widths, depths : tuple of int
        As of `FoldedUNet`.
    wide : int
        Channels from which the names are told.
    """

    def __init__(
        self,
        widths: tuple[int, ...] = (32, 64, 112, 128),
        depths: tuple[int, ...] = (1, 1, 2, 2),
        wide: int = 40,
    ) -> None:
        super().__init__(1, 2, widths, depths)
        self.outs = len(NAMES) + 1
        self.tell = Block(widths[0], wide)
        self.names = Conv3d(wide, 8 * self.outs, 1)

    def surfaces(self, features: torch.Tensor) -> torch.Tensor:
        """Return distances (B, 2, I, J, K), voxels, to the inner skull and to the brain, from `features`."""
        return unfold(self.head(features))

    def named(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (B, len(NAMES) + 1, I, J, K): the names, and right (above 0) or left, from `features`."""
        return unfold(self.names(self.tell(features)))

    def some(self, features: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
        """Return `named` of some (P,) of the eight voxels of each block: (B, len(NAMES) + 1, P, I / 2, J / 2, K / 2)."""
        x = self.tell(features)
        rows = self.names.weight.reshape(self.outs, 8, -1)[:, parts].flatten(0, 1)[..., None, None, None]
        assert self.names.bias is not None
        y = F.conv3d(x, rows, self.names.bias.reshape(self.outs, 8)[:, parts].flatten())
        return y.reshape(x.shape[0], self.outs, len(parts), *y.shape[2:])
