"""Noise-free volumes to learn denoising from: painted heads and piled-up random shapes, as a scanner resolves them.

A denoiser learns what a tissue looks like, so the paint has texture of every size, thin vessels and true partial
volume, and no white grain, which nobody could tell from noise. Half a bank of heads alone would teach heads; the
piled-up shapes ("dead leaves", after Achddou et al., SSVM 2021) teach edges of every form, thickness and contrast.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from training.synth.degrade import bias_field
from training.synth.geometry import Pose, chance, coordinates, look_up, sample_pose, uniform
from training.synth.heads import Head
from training.synth.paint import look_by_chance, look_by_physics

Shape = tuple[int, int, int]


def natural_noise(shape: Shape, gen: torch.Generator, slope: float, spacing: Shape | tuple[float, ...]) -> torch.Tensor:
    """Gaussian field (I, J, K) of unit variance whose power falls as frequency^-slope: texture of every size."""
    spectrum = torch.fft.rfftn(torch.randn(shape, generator=gen))
    f2 = torch.zeros(())
    for axis, (n, mm) in enumerate(zip(shape, spacing, strict=True)):
        f = torch.fft.rfftfreq(n, mm) if axis == 2 else torch.fft.fftfreq(n, mm)
        f2 = f2 + (f**2).reshape([-1 if a == axis else 1 for a in range(3)])
    f2[0, 0, 0] = 1.0
    spectrum *= f2 ** (-slope / 4)
    spectrum[0, 0, 0] = 0
    field = torch.fft.irfftn(spectrum, s=shape)
    return field / field.std().clamp(min=1e-9)


def _blurred(field: torch.Tensor, sigma: tuple[float, float, float]) -> torch.Tensor:
    """Gaussian blur by standard deviations in voxels."""
    for axis, s in enumerate(sigma):
        if s <= 0.05:
            continue
        reach = max(1, math.ceil(3 * s))
        taps = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / s) ** 2)
        taps = (taps / taps.sum()).reshape(1, 1, -1)
        moved = field.movedim(axis, -1)
        flat = torch.nn.functional.pad(moved.reshape(-1, 1, moved.shape[-1]), (reach, reach), mode="replicate")
        field = torch.nn.functional.conv1d(flat, taps).reshape(moved.shape).movedim(-1, axis)
    return field


def vessels(shape: Shape, spacing: tuple[float, float, float], gen: torch.Generator) -> torch.Tensor:
    """Share of each voxel (I, J, K) that thin curved tubes of one calibre fill, 0..1."""
    count, steps = int(uniform(gen, 15, 90)), 400
    box = torch.tensor([n * s for n, s in zip(shape, spacing, strict=True)])
    start = torch.rand(count, 1, 3, generator=gen) * box
    turn = torch.randn(count, steps, 3, generator=gen).cumsum(1) * uniform(gen, 0.02, 0.15)
    way = torch.nn.functional.normalize(torch.randn(count, 1, 3, generator=gen) + turn, dim=-1)
    points = (start + (way * 0.35).cumsum(1)).reshape(-1, 3)
    at = (points / torch.tensor(spacing)).round().long()
    size = torch.tensor(shape)
    at = at[((at >= 0) & (at < size)).all(1)]
    count_map = torch.zeros(shape)
    flat = (at[:, 0] * shape[1] + at[:, 1]) * shape[2] + at[:, 2]
    count_map.reshape(-1).index_add_(0, flat, torch.ones(len(flat)))
    radius = uniform(gen, 0.25, 1.2)
    wide = _blurred(count_map, tuple(radius / s for s in spacing))  # type: ignore[arg-type]
    # Where a line of points with this spread passes, the blurred count is about this much on its axis.
    voxel = spacing[0] * spacing[1] * spacing[2]
    axis_value = voxel / 0.35 / (2 * math.pi * radius**2)
    return (1 - torch.exp(-1.5 * wide / min(axis_value, 2.0))).clamp(0, 1)


def _layers(head: Head, pose: Pose, gen: torch.Generator, corners: int) -> list[torch.Tensor]:
    """Read a head's labels (I, J, K) near so many corners of each voxel: nobody asks where exactly a clean image lies."""
    flat = coordinates(pose).reshape(3, -1)
    found = []
    for corner in range(corners):
        offset = torch.tensor([((corner >> a) & 1) * 0.5 - 0.25 + uniform(gen, -0.2, 0.2) for a in range(3)])
        step = pose.matrix @ (offset * torch.tensor(pose.spacing))
        found.append(look_up(head, flat + step[:, None], pose.neck).reshape(pose.shape))
    return found


def _painted(layers: list[torch.Tensor], head: Head, spacing: tuple[float, float, float], gen: torch.Generator) -> torch.Tensor:
    look = look_by_physics(head, gen) if chance(gen, 0.65) else look_by_chance(head, gen)
    shape: Shape = tuple(layers[0].shape)  # type: ignore[assignment]
    mean, other = look.mean, look.other
    grain = look.grain * uniform(gen, 0.2, 1.4)
    # The share of the second value is one field for all sub-voxel layers; it has soft or sharp outlines.
    islands = natural_noise(shape, gen, uniform(gen, 2.5, 4.5), spacing)
    islands = torch.sigmoid((islands - uniform(gen, 0.0, 1.5)) * uniform(gen, 2, 20))
    coarse = natural_noise(shape, gen, uniform(gen, 2.0, 4.0), spacing)
    fine = natural_noise(shape, gen, uniform(gen, 1.0, 2.5), spacing) * uniform(gen, 0.0, 0.6)
    texture = coarse + fine
    image = torch.zeros(shape)
    for layer in layers:
        index = layer.int().reshape(-1)
        image += mean.index_select(0, index).reshape(shape)
    image /= len(layers)
    first = layers[0].int().reshape(-1)
    # Weighting the patches by the layer's own class keeps air without texture.
    image += (other - mean).index_select(0, first).reshape(shape) * islands * (0.0 if chance(gen, 0.3) else 1.0)
    image += grain.index_select(0, first).reshape(shape) * texture
    body = (first > 0).reshape(shape)
    for _ in range(int(torch.randint(0, 4, (), generator=gen))):
        share = vessels(shape, spacing, gen) * body
        level = uniform(gen, 0.0, 1.5) * float(mean.max())
        image += share * (level - image)
    if chance(gen, 0.3):
        blobs = natural_noise(shape, gen, 4.5, spacing)
        soft = torch.sigmoid((blobs - uniform(gen, 1.2, 2.2)) * uniform(gen, 4, 20)) * body
        image += soft * uniform(gen, 0.3, 1.0) * (uniform(gen, 0.0, 1.4) * float(mean.max()) - image)
    return image.clamp_(min=0)


def leaves(shape: Shape, gen: torch.Generator) -> torch.Tensor:
    """Random ellipsoids, boxes, plates and rods laid over one another, each with its own value, slope and texture.

    Parameters
    ----------
    shape : tuple of int
        (I, J, K).
    gen : torch.Generator

    Returns
    -------
    torch.Tensor
        (I, J, K) float32, 0 to about 1.2.
    """
    plain = uniform(gen, 0, 0.12)
    image = torch.full(shape, plain if chance(gen, 0.7) else uniform(gen, 0.2, 1.0))
    texture = natural_noise(shape, gen, uniform(gen, 1.0, 3.5), (1.0, 1.0, 1.0))
    small, power = uniform(gen, 1.5, 4.5), uniform(gen, 1.4, 3.0)
    amount = uniform(gen, 0.0, 0.06)
    size = torch.tensor(shape, dtype=torch.float32)
    for _ in range(int(uniform(gen, 400, 2200))):
        u = float(torch.rand((), generator=gen))
        radius = min(small * (1 - u + 1e-4) ** (-1 / power), 0.25 * min(shape))
        radii = radius * torch.exp(0.5 * torch.randn(3, generator=gen))
        centre = torch.rand(3, generator=gen) * size
        q, _ = torch.linalg.qr(torch.randn(3, 3, generator=gen))
        reach = (q.abs() @ radii) if chance(gen, 0.5) else radii.max().expand(3)
        low = (centre - reach - 1).floor().clamp(min=0).long()
        high = torch.minimum((centre + reach + 2).ceil(), size).long()
        if (high <= low).any():
            continue
        box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        axes = [torch.arange(int(a), int(b)) - float(c) for a, b, c in zip(low, high, centre, strict=True)]
        turned = [
            axes[0].reshape(-1, 1, 1) * q[0, n] + axes[1].reshape(1, -1, 1) * q[1, n] + axes[2].reshape(1, 1, -1) * q[2, n]
            for n in range(3)
        ]
        if chance(gen, 0.6):
            far = (sum((t / r) ** 2 for t, r in zip(turned, radii, strict=True))).sqrt()
            outside = (far - 1) * float(radii.min())
        else:
            outside = torch.stack([t.abs() - r for t, r in zip(turned, radii, strict=True)]).amax(0)
        share = (0.5 - outside).clamp(0, 1)
        value = uniform(gen, 0, 1) if not chance(gen, 0.15) else plain
        fill = value + 0.1 * uniform(gen, -1, 1) * turned[0] / radii[0].clamp(min=1) + value * amount * texture[box]
        image[box] += share * (fill - image[box])
    return image.clamp_(0, 1.3)


def resolve(image: torch.Tensor, gen: torch.Generator) -> torch.Tensor:
    """See the ideal image as a scanner does: k-space cut off (with ringing), apodised, blurred, or as it is.

    Returns
    -------
    torch.Tensor
        (I, J, K), sides a little smaller where k-space was cropped and not filled up with zeros again.
    """
    kind = float(torch.rand((), generator=gen))
    if kind < 0.25:
        return image
    if kind < 0.5:
        s = uniform(gen, 0.3, 0.7)
        return _blurred(image, (s, s, s))
    shape = image.shape
    spectrum = torch.fft.fftshift(torch.fft.fftn(image))
    keep = [max(16, 2 * int(n * uniform(gen, 0.65, 0.98) / 2)) for n in shape]
    cut = tuple(slice((n - k) // 2, (n - k) // 2 + k) for n, k in zip(shape, keep, strict=True))
    window = spectrum[cut]
    if chance(gen, 0.6):
        soft = uniform(gen, 0.1, 0.9)
        for axis, k in enumerate(keep):
            f = (torch.arange(k) - k / 2).abs() / (k / 2)
            taper = torch.where(f < 1 - soft, 1.0, 0.5 * (1 + torch.cos(math.pi * (f - 1 + soft) / soft)))
            window = window * taper.reshape([-1 if a == axis else 1 for a in range(3)])
    if kind > 0.9:  # zero-filled: finer voxels than were measured
        full = torch.zeros_like(spectrum)
        full[cut] = window
        return torch.fft.ifftn(torch.fft.ifftshift(full)).abs()
    scale = math.prod(keep) / math.prod(shape)
    return torch.fft.ifftn(torch.fft.ifftshift(window)).abs() * scale


def clean_volume(heads: list[Head], seed: int, side: int = 128) -> torch.Tensor:
    """Make one noise-free volume; the same seed gives the same volume.

    Parameters
    ----------
    heads : list of Head
        On the CPU.
    seed : int
    side : int
        Rough number of voxels along each axis.

    Returns
    -------
    torch.Tensor
        (I, J, K) float32, not negative, 99th percentile of the body 1; voxels of any shape (their size is
        not told, as no network trained on these is told it).
    """
    gen = torch.Generator().manual_seed(seed)
    thick = int(torch.randint(2, 6, (), generator=gen)) if chance(gen, 0.35) else 1
    axis = 2 if chance(gen, 0.6) else int(torch.randint(3, (), generator=gen))
    shape = [side] * 3
    if thick > 1:
        shape[axis] = side + 64 - (side + 64) % thick
    if chance(gen, 0.3):
        image = leaves((shape[0], shape[1], shape[2]), gen)
    else:
        mm = uniform(gen, 0.65, 1.35)
        spacing = [mm] * 3
        spacing[axis] = mm if thick == 1 else uniform(gen, 0.9, 1.2)
        head = heads[int(torch.randint(len(heads), (), generator=gen))]
        size = (spacing[0], spacing[1], spacing[2])
        pose = sample_pose(head, (shape[0], shape[1], shape[2]), size, gen, 0.8)
        roam = torch.tensor([uniform(gen, -1, 1) for _ in range(3)]) * torch.tensor([45.0, 55.0, 45.0])
        pose = replace(pose, middle=pose.middle + roam)
        image = _painted(_layers(head, pose, gen, 8 if thick == 1 else 4), head, size, gen)
    image = resolve(image, gen)
    if thick > 1:
        n = image.shape[axis] // thick
        image = image.narrow(axis, 0, n * thick).unflatten(axis, (n, thick))
        used = max(1, thick - int(torch.randint(0, 2, (), generator=gen)))  # a gap between slices, sometimes
        image = image.narrow(axis + 1, 0, used).mean(axis + 1)
    if chance(gen, 0.8):
        image = image * bias_field(tuple(image.shape), gen, uniform(gen, 0.05, 0.45))  # type: ignore[arg-type]
    body = image[image > 0.05 * image.max()]
    top = torch.quantile(body.flatten()[:: max(1, body.numel() // 100_000)], 0.99) if body.numel() > 10 else image.max()
    return image / top.clamp(min=1e-6)
