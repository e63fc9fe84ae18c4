"""What scanners do to an image: bias, gamma, resolution and slices, motion, ghosts, wrap, noise, missing parts."""

from __future__ import annotations

import math

import torch

from training.synth.geometry import chance, smooth_noise, uniform

Size = tuple[float, float, float]


def along(image: torch.Tensor, matrix: torch.Tensor, axis: int) -> torch.Tensor:
    """Apply a (M, N) matrix along one axis of (I, J, K)."""
    if axis == 0:
        return (matrix @ image.reshape(image.shape[0], -1)).reshape(-1, *image.shape[1:])
    if axis == 1:
        return torch.matmul(matrix, image)
    return torch.matmul(image, matrix.T)


def sampling(
    count: int, voxel: float, step: float, width: float, shift: float, profile: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Matrices that take a line to coarser samples and back.

    Parameters
    ----------
    count : int
        Voxels of the line.
    voxel : float
        Their size in mm.
    step : float
        Distance of the coarse samples in mm.
    width : float
        Full width of the sample profile in mm; larger or smaller than `step` for overlap or gaps.
    shift : float
        Where between two samples the first one lies, 0..1.
    profile : {"box", "gauss", "sinc"}
        Slice profile. "sinc" is a truncated k-space and rings.

    Returns
    -------
    tuple of torch.Tensor
        Down (M, count) and up (count, M); up is linear interpolation, as a viewer's resampling does.
    """
    fine = (torch.arange(count) + 0.5) * voxel
    number = max(2, int(count * voxel / step))
    coarse = (torch.arange(number) + 0.5 + 0.5 * (shift - 0.5)) * step
    gap = coarse[:, None] - fine[None]
    if profile == "box":
        down = ((width + voxel) / 2 - gap.abs()).clamp(min=0, max=min(voxel, width)) + 1e-9
    elif profile == "gauss":
        down = torch.exp(-0.5 * (gap / (width / 2.355)) ** 2) + 1e-12
    else:
        down = torch.sinc(gap / step) * torch.cos(math.pi * gap / (6 * step)).clamp(min=0) * (gap.abs() < 3 * step)
    down = down / down.sum(1, keepdim=True).clamp(min=1e-6)
    place = ((fine - coarse[0]) / step).clamp(0, number - 1)
    low = place.floor().long().clamp(max=number - 2)
    part = place - low
    up = torch.zeros(count, number)
    up.scatter_(1, low[:, None], (1 - part)[:, None])
    up.scatter_add_(1, low[:, None] + 1, part[:, None])
    return down, up


def sample_resolution(gen: torch.Generator, hardest: float = 8.0) -> Size:
    """Draw a voxel size in mm: isotropic, thick slices along any axis, low field, or coarse."""
    kind = float(torch.rand((), generator=gen))
    if kind < 0.35:
        fine = uniform(gen, 0.7, 1.4)
        return (fine, fine, fine)
    size = [uniform(gen, 0.7, 2.0)] * 3
    if kind < 0.8:
        axis = 2 if chance(gen, 0.6) else int(torch.randint(3, (), generator=gen))
        size[axis] = uniform(gen, 2.5, hardest)
    elif kind < 0.9:
        size = [uniform(gen, 1.3, 2.4)] * 3
        size[2] = uniform(gen, 3.5, min(6.0, hardest))
    else:
        size = [uniform(gen, 2.0, min(4.5, hardest))] * 3
    return (size[0], size[1], size[2])


def bias_field(
    shape: tuple[int, int, int], gen: torch.Generator, strength: float, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Draw a smooth multiplicative field (I, J, K): the exponential of coarse noise, sometimes with a surface coil's fall."""
    nodes = tuple(int(torch.randint(2, 6, (), generator=gen)) for _ in range(3))
    field = strength * smooth_noise((1, *shape), (nodes[0], nodes[1], nodes[2]), gen, device)[0]
    if chance(gen, 0.25):
        fall = torch.zeros(shape, device=device)
        for axis, n in enumerate(shape):
            way = torch.linspace(-1, 1, n, device=device).reshape([-1 if a == axis else 1 for a in range(3)])
            fall = fall + uniform(gen, -1, 1) * way
        field = field + strength * 1.5 * fall
    return field.exp_()


def ghost(image: torch.Tensor, gen: torch.Generator) -> torch.Tensor:
    """Motion as seen along a phase axis: faint shifted copies, and a blur of two places."""
    axis = int(torch.randint(3, (), generator=gen))
    n = image.shape[axis]
    far = n // 2 if chance(gen, 0.5) else int(uniform(gen, 0.05, 0.5) * n)
    out = image + uniform(gen, 0.02, 0.18) * image.roll(far, axis)
    if chance(gen, 0.5):
        near = int(torch.randint(1, 3, (), generator=gen))
        out = out * 0.7 + 0.3 * image.roll(near, axis)
    return out


def wrap(image: torch.Tensor, gen: torch.Generator) -> torch.Tensor:
    """Fold what lies outside a too small phase field of view onto the other side."""
    axis = 1 if chance(gen, 0.6) else int(torch.randint(3, (), generator=gen))
    n = image.shape[axis]
    cut = max(1, int(uniform(gen, 0.03, 0.15) * n))
    high = chance(gen, 0.5)
    folded = image.narrow(axis, n - cut if high else 0, cut)
    out = image.clone()
    out.narrow(axis, 0 if high else n - cut, cut).add_(folded, alpha=uniform(gen, 0.5, 1.0))
    out.narrow(axis, n - cut if high else 0, cut).zero_()
    return out


def rician(image: torch.Tensor, sigma: float, gen: torch.Generator) -> torch.Tensor:
    """Magnitude of the image plus complex Gaussian noise of standard deviation sigma."""
    real = image + sigma * torch.randn(image.shape, generator=gen).to(image.device)
    imaginary = sigma * torch.randn(image.shape, generator=gen).to(image.device)
    return torch.hypot(real, imaginary)


def crop_field(shape: tuple[int, int, int], spacing: Size, gen: torch.Generator) -> torch.Tensor:
    """Draw which part of a grid a scan covers: up to three faces cut off, straight or tilted.

    Returns
    -------
    torch.Tensor
        (I, J, K) bool, true where the scan has data.
    """
    seen = torch.ones(shape, dtype=torch.bool)
    for _ in range(int(torch.randint(1, 4, (), generator=gen))):
        axis = int(torch.randint(3, (), generator=gen))
        normal = 0.03 * torch.randn(3, generator=gen) if chance(gen, 0.6) else 0.25 * torch.randn(3, generator=gen)
        normal[axis] = 1.0 if chance(gen, 0.5) else -1.0
        reach = (0.5 - uniform(gen, 0, 0.2)) * shape[axis] * spacing[axis]
        total = torch.zeros(shape)
        for a, (n, mm) in enumerate(zip(shape, spacing, strict=True)):
            way = (torch.arange(n) - (n - 1) / 2) * mm * float(normal[a])
            total = total + way.reshape([-1 if b == a else 1 for b in range(3)])
        seen &= total < reach
    return seen


def acquire(image: torch.Tensor, spacing: Size, size: Size, sigma: float, gen: torch.Generator) -> torch.Tensor:
    """Measure the image with voxels of `size` mm and noise `sigma`, then bring it back to its own grid."""
    ups = []
    low = image
    for axis in range(3):
        step = size[axis]
        if step <= spacing[axis] * 1.1:
            continue
        kinds = ("box", "gauss") if step > 2.2 else ("box", "gauss", "sinc")
        kind = kinds[int(torch.randint(len(kinds), (), generator=gen))]
        width = step * uniform(gen, 0.7, 1.25)
        down, up = sampling(
            image.shape[axis], spacing[axis], step, max(width, spacing[axis]), uniform(gen, 0, 1), kind
        )
        low = along(low, down.to(image.device), axis)
        ups.append((axis, up.to(image.device)))
    low = rician(low.clamp(min=0), sigma, gen) if sigma > 0 else low.clamp(min=0)
    if ups and chance(gen, 0.15):  # scanners interpolate in slice by nearest or zero filling too
        ups = [(axis, torch.nn.functional.one_hot(up.argmax(1), up.shape[1]).to(up)) for axis, up in ups]
    for axis, up in ups:
        low = along(low, up, axis)
    return low


def degrade(
    image: torch.Tensor, spacing: Size, gen: torch.Generator, strength: float = 1.0, size: Size | None = None
) -> torch.Tensor:
    """Put an ideal image through a random scanner.

    Parameters
    ----------
    image : torch.Tensor
        (I, J, K) float32, not negative, about 0 to 1.
    spacing : tuple of float
        mm.
    gen : torch.Generator
    strength : float
        Scales bias, noise and gamma; 0 leaves resolution effects only.
    size : tuple of float, optional
        Voxel size measured, mm; drawn if None.

    Returns
    -------
    torch.Tensor
        (I, J, K) float32 on the same grid.
    """
    shape = (image.shape[0], image.shape[1], image.shape[2])
    if strength > 0:
        if chance(gen, 0.9):
            image = image * bias_field(shape, gen, strength * uniform(gen, 0.05, 0.45), image.device)
        top = float(image.max()) + 1e-6
        if chance(gen, 0.7):
            gamma = math.exp(strength * 0.3 * float(torch.randn((), generator=gen).clamp(-2, 2)))
            image = (image / top).clamp(min=0) ** gamma * top
        if chance(gen, 0.2 * strength):
            image = ghost(image, gen)
        if chance(gen, 0.1 * strength):
            image = wrap(image, gen)
    if chance(gen, 0.5):
        sigma = strength * uniform(gen, 0.0, 0.03)
    else:
        sigma = strength * uniform(gen, 0.0, 0.12)
    size = sample_resolution(gen) if size is None else size
    return acquire(image, spacing, size, sigma * float(image.max()) * 0.7, gen)


def normalise(image: torch.Tensor) -> torch.Tensor:
    """Scale so that the darkest is 0 and the 99.5th percentile of what is not background is 1, at most 1.5.

    Parameters
    ----------
    image : torch.Tensor
        (I, J, K) any finite values.

    Returns
    -------
    torch.Tensor
        (I, J, K) float32 in 0..1.5.
    """
    step = max(1, image.numel() // 100_000)
    some = image.reshape(-1)[::step].float()
    low = some.min() if step == 1 else torch.quantile(some, 0.001)
    shown = some[some > low + 1e-3 * (some.max() - low)]
    top = torch.quantile(shown, 0.995) if shown.numel() > 10 else some.max()
    return ((image.float() - low) / (top - low).clamp(min=1e-6)).clamp_(0, 1.5)
