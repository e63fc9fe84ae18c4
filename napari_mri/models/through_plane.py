"""Thick slices to thin ones by the project's own network: any contrast, distance and thickness of the slices.

The network sees the slices as they were measured and tells what lies within them beyond the cubic spline; the
result is then corrected until the scan can be measured from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.model import SUPERRES, Card, Model, Runtime, Wants, Weights, knob
from napari_mri.core.volume import Volume
from napari_mri.engine import weights as files
from napari_mri.engine.device import half_is_quick
from napari_mri.engine.runtime import part_of
from napari_mri.engine.tiles import Tiling, corners, importance, memory_ended, run_net
from napari_mri.measure.consistency import Matrix, along_axes, between
from napari_mri.models._superres import TensorWay, Way, Wish, refined, slice_axis, tell_limits, way_of

if TYPE_CHECKING:
    import torch

    from napari_mri.nets.superres import SliceNet

Array = NDArray[np.float32]

WEIGHTS = Weights(
    file="superres.safetensors",
    sha256="2ff75991686832a5f8ec35b4f77e1ae8447dce057b3d3161b1de9c37d24a9bc1",
    licence="BSD-3-Clause",
    shipped=True,
    size=2118512,
)

CARD = Card(
    name="through_plane",
    task=SUPERRES,
    title="Thick slices to thin ones, trained network",
    says=(
        "Tells what lies within thick slices, in seconds on a CPU: any contrast, slices 1.5 to 8 times as far apart "
        "as the voxels within them. Trained on synthetic heads only; the result agrees with the measured slices."
    ),
    wants=Wants(axes="RAS", min_slices=3, frames=True),
    needs=("torch", "safetensors", "scipy"),
    weights=(WEIGHTS,),
    cite="Our own; bias-free after Mohan et al., ICLR 2020; slice profiles as in Remedios et al., arXiv:2209.02611",
    rank=100,
)

LEAST_FACTOR = 1.25
"""Slices less far apart than this, in voxels of the plane, hold nothing that the network learned."""
FARTHEST, THICKEST = 8.0, 12.0
"""Voxels of the plane: the network is told no larger distance and thickness than it was trained on."""
LONGEST_PLANE, LONGEST_STACK = 288, 64
"""Tiles are at most about this long, voxels and slices: 2 GB of main memory."""
MARGIN_PLANE, MARGIN_STACK = 32, 8
RIM = 6
"""Voxels that the plane is continued by on all sides: the network is not quite right at a border."""


@dataclass(frozen=True)
class Params(Wish):
    """Options of the trained network."""

    consistent: bool = knob(
        True, "Correct the result until it agrees with the measured slices; off, it is smoother where there is noise."
    )
    variants: int = knob(
        2, "Mirrored and turned copies to average: more are a little better, and take longer.", choices=(1, 2, 4)
    )


def run(scan: Volume, p: Params, rt: Runtime) -> Volume:
    """Return a scan, (I, J, K) or (I, J, K, C), on a finer grid; grid and by-products as of `cubic`.

    The network refines across the slices; along the other axes, where finer voxels are wished there, and where
    the slices are no thicker than the voxels within them, it is the cubic spline.

    Parameters
    ----------
    scan : Volume
    p : Params
    rt : Runtime

    Raises
    ------
    BadOption
        If the result would be too large.
    """
    way = way_of(scan.grid, p)
    tell_limits(scan, way, p, rt)
    axis = int(np.argmax(way.middle.spacing))
    told = known(way, axis, p, scan)
    if told is None:
        rt.warn("The slices are no thicker than the voxels within them, so the network was not asked: this is the cubic spline.")

    asked = None if told is None else _Asked(told, p.variants)
    if rt.device != "cpu":
        try:
            return _refined_there(scan, way.on(rt.device), axis, asked, (p.consistent, rt))
        except (RuntimeError, MemoryError) as error:
            if not memory_ended(error):
                raise
            rt.warn(f"Memory of the {rt.device} ended: the scan was refined in main memory and in smaller tiles.")

    def make(start: Array, number: int) -> Array:
        part = part_of(rt, number / scan.n_frames, (number + 1) / scan.n_frames)
        part.report(0.0, "interpolating")
        result = way.spline(start)
        if asked is not None:
            result += lacking(start, way, axis, asked, part)
        part.report(0.9, "comparing with the scan")
        return way.agreed(result, start, p.consistent)

    return refined(scan, way, make, rt)


def _refined_there(
    scan: Volume, there: TensorWay, axis: int, asked: _Asked | None, how: tuple[bool, Runtime]
) -> Volume:
    """Refine every frame on the device from its first voxel to its last; the same answer to rounding."""
    consistent, rt = how

    def make(start: torch.Tensor, number: int) -> torch.Tensor:
        part = part_of(rt, number / scan.n_frames, (number + 1) / scan.n_frames)
        part.report(0.0, "interpolating")
        result = there.spline(start)
        if asked is not None:
            result = result + lacking_there(start, there, axis, asked, part)
        part.report(0.9, "comparing with the scan")
        return there.agreed(result, start, consistent)

    return refined(scan, there, make, rt)


@dataclass(frozen=True)
class _Asked:
    """What the network is told of the slices, and how often it is asked."""

    told: list[float]
    variants: int


def known(way: Way, axis: int, p: Wish, scan: Volume) -> list[float] | None:
    """Return what the network is told of the slices; None where it has nothing to say.

    Parameters
    ----------
    way : Way
    axis : int
        Of the slices.
    p : Wish
    scan : Volume
    """
    from napari_mri.nets.superres import facts

    plane = float(np.sqrt(np.prod([s for n, s in enumerate(way.middle.spacing) if n != axis])))
    distance = way.middle.spacing[axis] / plane
    if distance < LEAST_FACTOR or way.factors[axis] < LEAST_FACTOR:
        return None
    asked = p.thickness > 0 and slice_axis(scan.grid) == axis
    thickness = (p.thickness if asked else way.middle.spacing[axis]) / plane
    return facts(min(distance, FARTHEST), min(thickness, THICKEST), p.profile == "gaussian")


def lacking(start: Array, way: Way, axis: int, asked: _Asked, rt: Runtime) -> Array:
    """Return what the cubic spline lacks, as the network tells it.

    Parameters
    ----------
    start : ndarray, `way.middle.shape`
    way : Way
    axis : int
        Of the slices.
    asked : _Asked
    rt : Runtime

    Returns
    -------
    ndarray, `way.fine.shape`, float32
    """
    from napari_mri.nets.superres import PARTS, Informed

    net = Informed(rt.keep("through_plane", lambda: load_net(rt)), asked.told, half_is_quick(rt.device))
    unit = np.float32(max(float(np.abs(start).max()), 1e-30))  # half precision overflows at 65504
    stack = np.moveaxis(start, axis, 0) / unit
    total = np.zeros((PARTS, *stack.shape), dtype=np.float32)
    for number in range(asked.variants):
        low, high = (0.9 * n / asked.variants for n in (number, number + 1))
        step = part_of(rt, low, high)
        total += _turned_back(_parts(net, _turned(stack, number), step), number)
    # (parts, slices, i, j) to slices * parts along the axis of the slices.
    lines = np.moveaxis(total, 0, 1).reshape(-1, *stack.shape[1:])
    lines *= unit / np.float32(asked.variants)
    read = list(way.refine)
    read[axis] = reading(way, axis, PARTS)
    return along_axes(np.moveaxis(lines, 0, axis), (read[0], read[1], read[2]))


def lacking_there(start: torch.Tensor, there: TensorWay, axis: int, asked: _Asked, rt: Runtime) -> torch.Tensor:
    """Return what the cubic spline lacks, as `lacking` does, on the device of `start`."""
    import torch

    from napari_mri.nets.slices import along_axes, lines_on
    from napari_mri.nets.superres import PARTS, Informed, turned, turned_back

    net = Informed(rt.keep("through_plane", lambda: load_net(rt)), asked.told, half_is_quick(rt.device)).eval()
    unit = start.abs().max().clamp_min(1e-30)  # half precision overflows at 65504
    stack = start.movedim(axis, 0) / unit
    total = torch.zeros((PARTS, *stack.shape), device=start.device)
    for number in range(asked.variants):
        low, high = (0.9 * n / asked.variants for n in (number, number + 1))
        step = part_of(rt, low, high)
        total += turned_back(_parts_there(net, turned(stack, number), step), number)
    lines = total.movedim(0, 1).reshape(-1, *stack.shape[1:]) * (unit / asked.variants)
    reads = lines_on(there.device, (reading(there.way, axis, PARTS),))
    read = tuple(reads[0] if n == axis else matrix for n, matrix in enumerate(there.refine))
    return along_axes(lines.movedim(0, axis), read)


def _parts_there(net: Any, stack: torch.Tensor, rt: Runtime) -> torch.Tensor:
    """Run the network on (slices, i, j) in tiles; return (parts, slices, i, j)."""
    import torch
    from torch.nn.functional import pad

    from napari_mri.nets.superres import PARTS

    multiple = net.net.multiple
    i, j = stack.shape[1:]
    sides = (RIM, RIM + j % multiple, RIM, RIM + i % multiple, 0, 0)  # the last axis first
    full = pad(stack[None, None], sides, mode="replicate")[0, 0]
    shape = (full.shape[0], full.shape[1], full.shape[2])
    tiling = cut(shape, multiple)
    spots = corners(shape, tiling.size, tiling.overlap)
    weight = torch.from_numpy(importance(tiling.size, tiling.gaussian)).to(stack)
    total, share = torch.zeros((PARTS, *shape), device=stack.device), torch.zeros(shape, device=stack.device)
    for number, corner in enumerate(spots):
        rt.report(number / len(spots), f"tile {number + 1} of {len(spots)}")
        box = tuple(slice(c, c + n) for c, n in zip(corner, tiling.size, strict=True))
        with torch.no_grad():
            total[(slice(None), *box)] += net(full[box][None, None])[0] * weight
        share[box] += weight
    inner = (slice(None), slice(RIM, RIM + i), slice(RIM, RIM + j))
    return total[(slice(None), *inner)] / share[inner].clamp_min(1e-12)


def _turned(stack: Array, number: int) -> Array:
    """Return variant 0 to 3 of (slices, i, j): as it is, all mirrored, i and j exchanged, both."""
    stack = stack[::-1, ::-1, ::-1] if number % 2 else stack
    return stack.transpose(0, 2, 1) if number >= 2 else stack


def _turned_back(parts: Array, number: int) -> Array:
    """Undo `_turned` on (parts, slices, i, j)."""
    parts = parts.transpose(0, 1, 3, 2) if number >= 2 else parts
    return parts[::-1, ::-1, ::-1, ::-1] if number % 2 else parts


def _parts(net: Any, stack: Array, rt: Runtime) -> Array:
    """Run the network on (slices, i, j); return (parts, slices, i, j)."""
    multiple = net.net.multiple
    sides = [(RIM, RIM + (n % multiple)) for n in stack.shape[1:]]
    full = np.pad(stack, [(0, 0), *sides], mode="edge")
    parts = run_net(net, full, cut(full.shape, multiple), rt).mean
    i, j = stack.shape[1:]
    return parts[:, :, RIM : RIM + i, RIM : RIM + j]


def cut(shape: tuple[int, ...], multiple: int) -> Tiling:
    """Return the fewest tiles of (slices, i, j) that are not too long, overlapping by the margins."""
    sides, share = [], 0.0
    for n, longest, margin in zip(
        shape, (LONGEST_STACK, LONGEST_PLANE, LONGEST_PLANE), (MARGIN_STACK, MARGIN_PLANE, MARGIN_PLANE), strict=True
    ):
        count = max(1, -(-(n - margin) // (longest - margin))) if n > longest else 1
        side = n if count == 1 else -(-((n - margin) // count + margin) // multiple) * multiple
        sides.append(side)
        share = max(share, 0.0 if count == 1 else (margin - multiple) / side)
    return Tiling((sides[0], sides[1], sides[2]), overlap=share, gaussian=True, multiple=multiple, least=16)


def reading(way: Way, axis: int, parts: int) -> Matrix:
    """Return how fine voxels are read from the parts that slices are told in.

    Parameters
    ----------
    way : Way
    axis : int
        Of the slices.
    parts : int
        A slice.

    Returns
    -------
    ndarray, (fine voxels, slices * parts)
        The mean over a voxel; where voxels are smaller than parts, linear between the middles of parts.
    """
    count, wanted = way.middle.shape[axis] * parts, way.fine.shape[axis]
    ratio = way.fine.spacing[axis] * parts / way.middle.spacing[axis]
    if ratio < 1:
        return between(count, wanted, ratio)
    low, first = np.arange(wanted)[:, None] * ratio, np.arange(count)
    # A last voxel may reach beyond the last slice: what it has of it counts alone.
    share = np.minimum(low + ratio, first + 1) - np.maximum(low, first)
    share = np.maximum(share, 0)
    return np.asarray(share / share.sum(axis=1, keepdims=True))


def load_net(rt: Runtime) -> SliceNet:
    """Build the network the weights were made for, and fill them in."""
    import torch

    from napari_mri.nets.superres import from_state

    state = {name: tensor.float() for name, tensor in files.load(rt.weights(WEIGHTS)).items()}
    net: SliceNet = from_state(state).to(rt.device).to(memory_format=torch.channels_last_3d).eval()
    return net


MODELS = (Model(CARD, Params, run=run),)
