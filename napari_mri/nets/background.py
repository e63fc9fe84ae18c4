"""What lies at the noise floor of a magnitude image: told by its surroundings, and laid onto the floor.

Everything is in the scale in which noise has unit standard deviation at every signal.
"""

from __future__ import annotations

import torch

from napari_mri.nets.means import mean_of_nine

DARK = 1.75
"""How far above the floor a voxel may be that is asked about its surroundings."""
AIR, WEAK = 0.06, 0.16
"""Up to where the mean of dark surroundings is that of air, and from where on it is that of weak signal."""
SETTLED, SETTLED_IN_AIR = 0.05, 0.4
"""How far above the floor a result counts as the floor: as uncertain as it is, and more where all around is air."""


def settled(clean: torch.Tensor, image: torch.Tensor, floor: float) -> torch.Tensor:
    """Lay what is within reach of the noise floor onto it: the way back turns the least excess into signal.

    Parameters
    ----------
    clean : torch.Tensor, (I, J, K)
        A denoised result.
    image : torch.Tensor, (I, J, K)
        What it was made from. Its mean over many voxels tells air from weak signal where one voxel cannot: no edge
        has been smeared into it.
    floor : float
        What pure noise averages to.
    """
    above = clean - floor
    dark = (above < DARK).to(image.dtype)
    share = mean_of_nine(dark)
    excess = mean_of_nine(dark * (image - floor)) / share.clamp(min=1e-6)
    air = ((WEAK - excess) / (WEAK - AIR)).clamp(0, 1) * (share > 20 / 9**3)
    least = SETTLED + (SETTLED_IN_AIR - SETTLED) * air
    return floor + torch.where(above < 3 * least, (above - least).clamp(min=0) * 1.5, above)
