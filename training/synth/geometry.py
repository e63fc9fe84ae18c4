"""The geometry step: one pose and one smooth warp, from which labels and target both derive."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from training.synth.heads import Head

Warp = tuple[tuple[float, float], ...]
WARP: Warp = ((60.0, 8.0), (30.0, 3.0), (16.0, 1.2))
WILD: Warp = ((60.0, 12.0), (30.0, 7.0), (16.0, 3.5))
"""Warps (see `sample_pose`): about as heads differ, and beyond, for networks that know few heads and shall not learn them by heart."""


@dataclass(frozen=True)
class Pose:
    """Where an output grid stands in a head.

    Attributes
    ----------
    shape : tuple of int
        (I, J, K) of the output grid, RAS order.
    spacing : tuple of float
        mm along each output axis.
    matrix : torch.Tensor
        (3, 3); output mm, counted from the middle of the grid, to head mm.
    middle : torch.Tensor
        (3,) head voxel coordinates under the middle of the output grid.
    warp : torch.Tensor
        (3, g, g, g) displacement in mm of the output grid, trilinear between its nodes.
    neck : float or None
        None where the field of view ends with the map; else how much wider the neck gets per mm
        below it (the lowest slice goes on).
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    matrix: torch.Tensor
    middle: torch.Tensor
    warp: torch.Tensor
    neck: float | None


def uniform(gen: torch.Generator, low: float, high: float) -> float:
    """Draw one uniform number."""
    return low + (high - low) * float(torch.rand((), generator=gen))


def chance(gen: torch.Generator, p: float) -> bool:
    """Return true with probability p."""
    return float(torch.rand((), generator=gen)) < p


def smooth_noise(
    shape: tuple[int, ...], nodes: tuple[int, int, int], gen: torch.Generator, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Gaussian noise on a coarse lattice, brought to `shape` (C, I, J, K) by trilinear interpolation."""
    coarse = torch.randn((1, shape[0], *nodes), generator=gen).to(device)
    return F.interpolate(coarse, size=shape[1:], mode="trilinear", align_corners=True)[0]


def _rotation(angles: tuple[float, float, float]) -> torch.Tensor:
    a, b, c = (torch.tensor(v) for v in angles)
    one, zero = torch.ones(()), torch.zeros(())
    x = torch.stack([one, zero, zero, zero, a.cos(), -a.sin(), zero, a.sin(), a.cos()]).reshape(3, 3)
    y = torch.stack([b.cos(), zero, b.sin(), zero, one, zero, -b.sin(), zero, b.cos()]).reshape(3, 3)
    z = torch.stack([c.cos(), -c.sin(), zero, c.sin(), c.cos(), zero, zero, zero, one]).reshape(3, 3)
    return x @ y @ z


def _integrate(velocity: torch.Tensor, box: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """Scaling and squaring of a stationary velocity (3, g, g, g) in mm over a box of `box` mm."""
    g = velocity.shape[-1]
    lattice = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, g)] * 3, indexing="ij"), -1)
    half = (box / 2).reshape(1, 1, 1, 3)
    flow = velocity / 2**steps
    for _ in range(steps):
        where = lattice + flow.permute(1, 2, 3, 0) / half
        moved = F.grid_sample(flow[None], where.flip(-1)[None], align_corners=True, padding_mode="border")
        flow = flow + moved[0]
    return flow


def sample_pose(
    head: Head,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
    gen: torch.Generator,
    strength: float = 1.0,
    warp: Warp = WARP,
) -> Pose:
    """Draw a pose: rotation, scale, shear, flip, shift, a smooth diffeomorphic warp, and what the neck does.

    Parameters
    ----------
    head : Head
    shape, spacing : tuple
        Of the output grid.
    gen : torch.Generator
        On the CPU; everything drawn comes from it.
    strength : float
        0 leaves the head as it is (but for the shift of the field of view), 1 exceeds what real heads do.
    warp : tuple of tuple
        Of the warp: how far apart the nodes of each part are, mm, and how far it moves them at most (standard deviation, mm).

    Returns
    -------
    Pose
    """
    box = torch.tensor([n * s for n, s in zip(shape, spacing, strict=True)])
    tilt = 0.28 if chance(gen, 0.8) else 0.7
    angles = tuple(strength * tilt * float(torch.randn((), generator=gen).clamp(-2, 2)) / 1.5 for _ in range(3))
    size = 1 + strength * uniform(gen, -0.22, 0.2)
    scales = torch.tensor([size * (1 + strength * uniform(gen, -0.1, 0.1)) for _ in range(3)])
    shear = torch.eye(3)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        shear[i, j] = strength * uniform(gen, -0.12, 0.12)
    matrix = _rotation((angles[0], angles[1], angles[2])) @ shear @ torch.diag(1 / scales)
    if chance(gen, 0.5):
        matrix = torch.diag(torch.tensor([-1.0, 1.0, 1.0])) @ matrix
    # The brain's middle is brought somewhere into the field of view; what then sticks out is cropped.
    roam = torch.tensor([uniform(gen, -1, 1) for _ in range(3)]) * torch.tensor([20.0, 25.0, 35.0])
    roam[2] -= 12.0  # heads are scanned with some neck below the brain rather than air above it
    middle = torch.tensor(head.centre) + matrix @ roam * max(strength, 0.3)
    moved = torch.zeros(3, 24, 24, 24)
    for step_mm, amount in warp:
        nodes = tuple(max(2, int(b / step_mm) + 1) for b in box.tolist())
        moved += uniform(gen, 0, amount) * strength * smooth_noise((3, 24, 24, 24), (nodes[0], nodes[1], nodes[2]), gen)
    neck = uniform(gen, -0.012, 0.002) if chance(gen, 0.75) else None
    return Pose(shape, spacing, matrix, middle, _integrate(moved, box), neck)


def coordinates(pose: Pose, device: torch.device | str = "cpu") -> torch.Tensor:
    """Head voxel coordinates (3, I, J, K) float32 of every output voxel's middle."""
    axes = [(torch.arange(n, device=device) - (n - 1) / 2) * s for n, s in zip(pose.shape, pose.spacing, strict=True)]
    warp = F.interpolate(pose.warp.to(device)[None], size=pose.shape, mode="trilinear", align_corners=True)[0]
    for axis, values in enumerate(axes):
        warp[axis] += values.reshape([-1 if a == axis else 1 for a in range(3)])
    flat = pose.matrix.to(device) @ warp.reshape(3, -1)
    return (flat + pose.middle.to(device)[:, None]).reshape(3, *pose.shape)


def look_up(head: Head, where: torch.Tensor, neck: float | None) -> torch.Tensor:
    """Nearest labels (uint8, flat) at head voxel coordinates (3, N)."""
    i, j, k = head.labels.shape
    x, y, z = where
    if neck is not None:
        below = z.clamp(max=0)
        # Below the map its lowest slice goes on, wider or narrower with depth: a longer neck, shoulders.
        wide = 1 - neck * below
        x = (x - i / 2) / wide.clamp(0.25, 4) + i / 2
        y = (y - j / 2) / wide.clamp(0.25, 4) + j / 2
        low = 0
    else:
        low = -1
    xi = x.round().clamp_(0, i - 1).long()
    yi = y.round().clamp_(0, j - 1).long()
    zi = z.round().clamp_(low, k - 1).long()
    found = head.labels.reshape(-1)[(xi * j + yi) * k + zi.clamp(min=0)]
    return found if low == 0 else torch.where(zi < 0, torch.zeros_like(found), found)


CORNERS = {
    1: (),
    3: ((-1, -1, -1), (1, 1, 1)),
    5: ((-1, -1, -1), (1, 1, -1), (1, -1, 1), (-1, 1, 1)),
    9: tuple((a, b, c) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)),
}
"""By how many points of each voxel labels are read at: the directions, from its middle, of all but the middle itself. They
cancel out: an image painted of them lies where the labels lie."""
AWAY, ROAM = 0.29, 0.2
"""How far from the middle of a voxel such a point lies along each axis, voxels, and how much farther or less far at random."""


def points(parts: int, gen: torch.Generator) -> torch.Tensor:
    """Draw the points (parts, 3) of a voxel that labels are read at, in voxels from its middle; the middle is the first.

    Raises
    ------
    ValueError
        `parts` is none of 1, 3, 5 and 9.
    """
    if parts not in CORNERS:
        raise ValueError(f"labels are read at 1, 3, 5 or 9 points of each voxel, not at {parts}")
    found = torch.zeros(parts, 3)
    if parts > 1:
        roam = (2 * torch.rand(parts - 1, 3, generator=gen) - 1) * ROAM
        found[1:] = AWAY * torch.tensor(CORNERS[parts]) + roam - roam.mean(0)
    return found


def place(
    head: Head, pose: Pose, gen: torch.Generator, parts: int = 5
) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Bring a head into a pose.

    Parameters
    ----------
    head : Head
    pose : Pose
    gen : torch.Generator
        Places the sub-voxel points.
    parts : int
        Nearest labels are read at this many points of each voxel (see `points`), so that painting them one by one and
        averaging gives partial volume.

    Returns
    -------
    list of torch.Tensor
        `parts` label arrays, (I, J, K) uint8; the first is that of the voxels' middles.
    torch.Tensor
        (2, I, J, K) float32 signed distance in mm, in the output space, to the brain with CSF and without.
    torch.Tensor
        (3, I, J, K) head voxel coordinates, for effects that know anatomy (a removed face).
    """
    device = head.labels.device
    where = coordinates(pose, device)
    flat = where.reshape(3, -1)
    layers = []
    for offset in points(parts, gen):
        step = pose.matrix @ (offset * torch.tensor(pose.spacing))
        layers.append(look_up(head, flat + step.to(device)[:, None], pose.neck).reshape(pose.shape))
    return layers, _distances(head, pose, where), where


def commonest(layers: list[torch.Tensor]) -> torch.Tensor:
    """Return the class that fills most of each voxel, (I, J, K) uint8: the commonest of label arrays, of equals the first."""
    found = layers[0].clone()
    # Nearly everywhere all are alike.
    spots = torch.stack([layer != found for layer in layers]).any(0)
    some = torch.stack([layer[spots] for layer in layers])
    votes = torch.stack([(some == one).sum(0) * len(layers) - n for n, one in enumerate(some)])
    found[spots] = some.gather(0, votes.argmax(0)[None])[0]
    return found


def _distances(head: Head, pose: Pose, where: torch.Tensor) -> torch.Tensor:
    """Carry the head's distances along and measure them in output mm.

    A warped distance is off by the local stretch; dividing by the length of its own gradient puts that
    right to first order, exactly at the surface and closely in the band that is trained.
    """
    size = torch.tensor(head.labels.shape, device=where.device, dtype=torch.float32).reshape(3, 1, 1, 1)
    grid = ((where + 0.5) / size * 2 - 1).permute(1, 2, 3, 0).flip(-1)
    near = F.grid_sample(head.distance[None], grid[None], align_corners=False, padding_mode="border")[0]
    # Outside the map the distance goes on growing with the way to the map's box.
    beyond = where - where.clamp(min=0).minimum(size - 1)
    near = near + (beyond[0] ** 2 + beyond[1] ** 2 + beyond[2] ** 2).sqrt_()
    slopes = torch.gradient(near, spacing=pose.spacing, dim=(1, 2, 3))
    stretch = (slopes[0] ** 2 + slopes[1] ** 2 + slopes[2] ** 2).sqrt_()
    # On the medial axis the gradient vanishes without any stretch: its average over some cm is the stretch.
    coarse = F.avg_pool3d(stretch[None], 4, ceil_mode=True, count_include_pad=False)
    smooth = F.interpolate(coarse, size=near.shape[1:], mode="trilinear")[0]
    return near / smooth.clamp(0.6, 1.8)
