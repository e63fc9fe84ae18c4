"""What `nets.click3d.encode` tells of marks, on a graphics processor: steps one by one take longer than a network there."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional as F

from napari_mri.nets import click3d, geodesic
from napari_mri.nets.click3d import Pointed

FLAT = 0.06
"""Cost of a voxel's step where the image is flat, as in `click3d.ways`."""


def encode(image: torch.Tensor, told: Pointed, spacing: float) -> tuple[torch.Tensor, torch.Tensor]:
    """As `click3d.encode`, (FINE, I, J, K) and (COARSE, I / 2, J / 2, K / 2), for an image (I, J, K) on any device."""
    none = told.inside[:0]
    fine, coarse = click3d.encode(image, replace(told, inside=none, outside=none), spacing)
    if len(told.inside):
        fine[2] = likeness(image, told.inside)
        fine[3], fine[4] = ways(image, told)
    for first, marks in ((0, told.inside), (2, told.outside)):
        away = click3d.distance(tuple(image.shape), marks, image.device)
        if away is not None:
            coarse[first] = torch.exp(-0.5 * (away / 2.0) ** 2)
            coarse[first + 1] = torch.exp(-away / 16.0)
    coarse[7] = min(len(told.inside) + len(told.outside), 10) / 10
    if len(told.outside):
        coarse[9] = F.avg_pool3d(likeness(image, told.outside)[None], 2)[0]
    return fine, coarse


def likeness(image: torch.Tensor, marks: torch.Tensor, width: float = 0.3) -> torch.Tensor:
    """As `click3d.likeness`: how like each voxel (I, J, K) is to the intensities under marks (N, 3), N > 0."""
    steps = torch.cartesian_prod(*[torch.arange(-1, 2)] * 3)
    top = torch.tensor(image.shape) - 1
    at = (marks.round().long() + steps[:, None]).clamp(min=0).minimum(top).to(image.device)
    tones = image[at[..., 0], at[..., 1], at[..., 2]].mean(dim=0).sort().values
    if len(tones) > click3d.TONES:
        tones = tones[torch.linspace(0, len(tones) - 1, click3d.TONES).round().long().to(image.device)]
    nearest = (image[..., None] - tones).abs().amin(dim=-1)
    return torch.exp(-0.5 * (nearest / width) ** 2)


def ways(image: torch.Tensor, told: Pointed) -> tuple[torch.Tensor, torch.Tensor]:
    """As `click3d.ways`, with marks inside: a scan is a running minimum of what is left beyond the way so far."""
    kinds = [marks for marks in (told.inside, told.outside) if len(marks)]
    away = torch.full((len(kinds), *image.shape), float(geodesic.FAR), device=image.device)
    top = torch.tensor(image.shape) - 1
    for number, marks in enumerate(kinds):
        at = marks.round().long().clamp(min=0).minimum(top).to(image.device)
        away[number, at[:, 0], at[:, 1], at[:, 2]] = 0
    walked = []
    for axis in range(3):
        costs = image.diff(dim=axis).abs() + FLAT
        walked.append(torch.cat([torch.zeros_like(image.narrow(axis, 0, 1)), costs.cumsum(dim=axis)], dim=axis))
    for _ in range(2):
        for axis, way in enumerate(walked, start=1):
            away = (away - way).cummin(dim=axis).values + way
            away = (away + way).flip(axis).cummin(dim=axis).values.flip(axis) - way
    near = torch.exp(-away[0] / 1.5)
    if not len(told.outside):
        return near, torch.zeros_like(near)
    return near, (away[1] - away[0]) / (away[1] + away[0] + 0.05)
