"""A network that finds the brain in a head and names what stands where: a folded U-Net that answers twice."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch.nn import functional as F

from napari_mri.nets.convolution import Conv3d
from napari_mri.nets.unet import Block, FoldedUNet, unfold
from napari_mri.nets.unet_numpy import structure_of

NAMES = (
    "air", "white matter", "cortex", "lateral ventricle", "inferior lateral ventricle", "cerebellar white matter",
    "cerebellar cortex", "thalamus", "caudate", "putamen", "pallidum", "third ventricle", "fourth ventricle",
    "brain stem", "hippocampus", "amygdala", "fluid around the brain", "lesion", "accumbens", "ventral diencephalon",
    "vessel", "choroid plexus", "other soft tissue", "marrow", "bone", "sinus", "optic nerve", "skin", "mucosa", "palate", "soft tissue",
    "eye", "artery",
)  # fmt: skip
PAIRED = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 14, 15, 17, 18, 19, 20, 21))
"""Structures of which there is one on the left and one on the right."""

BEYOND = "beyond"
"""Beside the network's tensors in its file: how far structures reach beyond their map, `models._anatomy.Key.beyond`."""


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

    @classmethod
    def from_state(cls, state: Mapping[str, torch.Tensor]) -> HeadNet:
        """Return a network that holds some tensors, as wide and as deep as they say.

        Raises
        ------
        KeyError, RuntimeError
            If the tensors are not those of such a network.
        """
        net = cls(*structure_of(state))
        net.load_state_dict(dict(state))
        return net

    def surfaces(self, features: torch.Tensor) -> torch.Tensor:
        """Return distances (B, 2, I, J, K), voxels, to the inner skull and to the brain, from `features`."""
        return unfold(self.head(features))

    def named(self, features: torch.Tensor, part: tuple[slice, ...] = (slice(None),) * 3) -> torch.Tensor:
        """Return logits (B, len(NAMES) + 1, I, J, K): the names, and right (above 0) or left.

        Parameters
        ----------
        features : torch.Tensor
        part : tuple of slice
            The blocks of two voxels a side that are asked for; all of the features are needed for any of them.
        """
        return unfold(self.names(self.tell(features)[(slice(None), slice(None), *part)]))

    def some(self, features: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
        """Return `named` of some (P,) of the eight voxels of each block: (B, len(NAMES) + 1, P, I / 2, J / 2, K / 2)."""
        x = self.tell(features)
        rows = self.names.weight.reshape(self.outs, 8, -1)[:, parts].flatten(0, 1)[..., None, None, None]
        assert self.names.bias is not None
        y = F.conv3d(x, rows, self.names.bias.reshape(self.outs, 8)[:, parts].flatten())
        return y.reshape(x.shape[0], self.outs, len(parts), *y.shape[2:])
