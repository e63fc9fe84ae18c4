"""Denoise one volume by learning from that volume alone: no weights, no other scans.

The scan is first brought to a scale in which its noise is Gaussian of unit variance. Two lessons are offered.
``sure`` begins with what non-local PCA makes of the scan and learns to correct it by minimising Stein's unbiased
estimate of the true error, which needs sigma and no clean image. How non-local PCA answers to a little more noise is
tried out twice beforehand, so that the estimate holds for both together. ``masked`` hides voxels and asks for them
from their neighbours, then mixes the guess with the hidden voxel by how good guesses are around it. The noise floor is
taken away by the exact inverse.

References
----------
Krull et al., Noise2Void, CVPR 2019; Batson & Royer, Noise2Self, ICML 2019 (masked voxels).
Metzler et al., arXiv:1805.10531; Soltanayev & Chun, NeurIPS 2018 (Stein's estimate as a loss).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.model import DENOISE, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Volume
from napari_mri.engine.lesson import Plan, learn
from napari_mri.engine.tiles import Tiling, run_net
from napari_mri.measure import removal as shared
from napari_mri.measure import rician
from napari_mri.models._nonlocal import cut_for

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float32]

CARD = Card(
    name="selfscan",
    task=DENOISE,
    title="Learn from this scan",
    says=(
        "Betters non-local PCA by a small network trained on this very volume, without weights or other scans: for "
        "anatomy and contrasts no trained network has seen. Needs white noise; takes minutes."
    ),
    wants=Wants(axes="RAS", min_slices=8),
    needs=("torch", "scipy"),
    cite="Noise2Void, CVPR 2019; Noise2Self, ICML 2019; SURE training, NeurIPS 2018",
    rank=3,
)


@dataclass(frozen=True)
class Params:
    """Options of the denoiser that learns from the scan itself."""

    lesson: str = knob(
        "sure",
        "What it learns by: 'sure' corrects non-local PCA and needs a good noise estimate; 'masked' hides voxels and "
        "guesses them, and forgives a wrong estimate.",
        choices=("sure", "masked"),
    )
    minutes: float = knob(4.0, "Longest time to learn; it ends earlier when nothing more is gained.", low=0.02, high=600.0, unit="min")
    steps: int = knob(600, "Most learning steps.", low=1, high=100_000)
    sigma: float = knob(0.0, shared.SIGMA_SAYS, low=0.0, high=1e9)
    kind: str = knob("auto", shared.KIND_SAYS, choices=shared.KINDS)


def run(scan: Volume, p: Params, rt: Runtime) -> Volume:
    """Return the denoised scan; offers the residual and the noise level. A stop while learning keeps the best so far.

    Parameters
    ----------
    scan : Volume, (I, J, K)
    p : Params
    rt : Runtime
    """
    rt.report(0.0, "measuring the noise")
    data = np.asarray(scan.data, dtype=np.float32)
    if not float(data.max()) > float(data.min()):
        rt.warn("Every voxel has the same value, so there is no noise to remove.")
        return scan.with_data(data)
    found = shared.noise_of(scan, p.sigma, p.kind, rt)
    if found.sigma <= 0:
        return shared.left_alone(scan, data, 1.0, rt)
    is_rician = found.kind == "rician"
    even = rician.stabilised(np.maximum(data, 0), found.sigma) if is_rician else data / np.float32(found.sigma)
    if p.lesson == "sure":
        clean = _corrected(even, rician.stable_floor() if is_rician else None, p, rt)
        clean = _settled(clean, even) if is_rician else clean
    else:
        top = np.float32(max(float(np.percentile(even, 99.5)), 1.0))
        clean = _guessed(even / top, 1.0 / float(top), p, rt) * top
    answer = rician.back_from_stabilised(clean, found.sigma) if is_rician else clean * np.float32(found.sigma)
    return shared.handed_over(scan, answer, found.sigma, rt)


class Pieces:
    """Random cubes of volumes on one grid, the same cube of each.

    Parameters
    ----------
    volumes : torch.Tensor
        (C, I, J, K) on the device; the first is the scan.
    side : int
        A multiple of 8; smaller along short axes.
    seed : int
    """

    def __init__(self, volumes: torch.Tensor, side: int, seed: int) -> None:
        import torch

        self.volumes = volumes
        self.size = [min(side, n // 4 * 4) for n in volumes.shape[1:]]
        self.gen = torch.Generator().manual_seed(seed)
        self.floor = float(volumes[0].mean())

    def draw(self, count: int) -> torch.Tensor:
        """(B, C, i, j, k); pieces of plain background are passed over."""
        import torch

        drawn = []
        for _ in range(count):
            for _ in range(5):
                at = [int(torch.randint(n - s + 1, (), generator=self.gen)) for n, s in zip(self.volumes.shape[1:], self.size, strict=True)]
                piece = self.volumes[(slice(None), *(slice(a, a + s) for a, s in zip(at, self.size, strict=True)))]
                if float(piece[0].mean()) > 0.5 * self.floor:
                    break
            turns = [1 + axis for axis in range(3) if float(torch.rand((), generator=self.gen)) < 0.5]
            drawn.append(piece.flip(turns))
        return torch.stack(drawn)


def _settled(clean: Array, even: Array) -> Array:
    """Lay air onto the noise floor as `nlpca` does."""
    import torch

    from napari_mri.nets.background import settled

    answer = settled(torch.from_numpy(clean), torch.from_numpy(even), rician.stable_floor())
    return np.asarray(answer.numpy(), dtype=np.float32)


PROBE = 0.1
"""Standard deviation of the noise added on trial, in that of the scan's own."""
PROBES = 2


def _corrected(even: Array, floor: float | None, p: Params, rt: Runtime) -> Array:
    """Clean a volume of unit noise by non-local PCA, and correct the answer by what Stein's estimate teaches."""
    import torch

    from napari_mri.nets.corrected import Corrected
    from napari_mri.nets.nonlocal_pca import cleaned

    device = rt.device
    noisy = torch.from_numpy(even).to(device)
    gen = torch.Generator().manual_seed(rt.seed)

    cut = cut_for(device, even.shape)

    def pilot(volume: torch.Tensor, number: int) -> torch.Tensor:
        def tell(share: float) -> None:
            rt.report(0.4 * (number + share) / (PROBES + 1), "cleaning what looks alike, the scan and on trial")

        return cleaned(volume, floor, tell, cut)

    probes = torch.randn((PROBES, *noisy.shape), generator=gen).to(device)
    clean = pilot(noisy, 0)
    bent = [pilot(noisy + PROBE * probe, 1 + n) for n, probe in enumerate(probes)]
    # The net sees beyond the border; the pilot does not, so that what is not corrected is the answer of `nlpca`.
    sides = [(0, 0), *((4, 4 + max(0, 8 - n)) for n in even.shape)]
    around = np.pad(torch.stack([noisy, clean, *probes, *bent]).cpu().numpy(), sides, mode="symmetric")
    volumes = torch.from_numpy(around).to(device)
    pieces, fixed = Pieces(volumes, 32, rt.seed), Pieces(volumes, 32, rt.seed + 1)
    exam = [(fixed.draw(2), n % PROBES) for n in range(8)]
    net = rt.drawn(lambda: Corrected(floor=floor)).to(device).to(memory_format=torch.channels_last_3d)

    def judge(module: torch.nn.Module) -> float:
        return sum(float(_sure(module, x, n)) for x, n in exam) / len(exam)

    def loss(module: torch.nn.Module) -> torch.Tensor:
        number = int(torch.randint(PROBES, (), generator=pieces.gen))
        return _sure(module, pieces.draw(3), number)

    with torch.no_grad():
        before = judge(net)
    best = learn(net, loss, judge, Plan(minutes=p.minutes, steps=p.steps, rate=1e-3, share=(0.4, 0.95)), rt)
    with torch.no_grad():
        if judge(best) > before:  # nothing was won: the answer of non-local PCA stays
            best = Corrected(floor=floor).to(device)
    size = tuple(min(n, 160) for n in around.shape[1:])
    tiling = Tiling((size[0], size[1], size[2]), overlap=0.1, multiple=1)
    answer = run_net(best, around[:2], tiling, rt).mean[0]
    return np.asarray(answer[tuple(slice(4, 4 + n) for n in even.shape)], dtype=np.float32)


def _sure(module: Any, x: torch.Tensor, number: int) -> torch.Tensor:
    """Stein's unbiased estimate of the squared error, in noise variances; the divergence by one probe.

    Parameters
    ----------
    module : Corrected
    x : torch.Tensor
        (B, 2 + 2 PROBES, i, j, k): noisy, cleaned, the probes, and what was cleaned with each of them added.
    number : int
        Of the probe.
    """
    import torch

    noisy, probe = x[:, :1], x[:, 2 + number, None]
    answer = module(x[:, :2])
    other = module(torch.cat([noisy + PROBE * probe, x[:, 2 + PROBES + number, None]], 1))
    counts = module.share(x[:, 1:2]) > 0
    error = (answer - noisy) ** 2 - 1 + 2 * probe * (other - answer) / PROBE
    return (error * counts).sum() / counts.sum().clamp(min=1)


def _guessed(even: Array, tau: float, p: Params, rt: Runtime) -> Array:
    """Learn to guess hidden voxels of a volume with Gaussian noise of standard deviation tau, and guess all."""
    import torch

    from napari_mri.nets.denoiser import Denoiser

    device = rt.device
    net = rt.drawn(lambda: Denoiser((16, 32), (1, 2))).to(device).to(memory_format=torch.channels_last_3d)
    multiple = net.multiple * 2
    sides = [(2, -(n + 4) % multiple + 2) for n in even.shape]
    volume = torch.from_numpy(np.pad(even, sides, mode="symmetric")).to(device)
    pieces, fixed = Pieces(volume[None], 40, rt.seed), Pieces(volume[None], 40, rt.seed + 1)
    zero = torch.zeros(1, 1, 1, 1, 1, device=device)

    def apply(module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
        return module(x, torch.full_like(x, tau), zero.expand(len(x), 1, 1, 1, 1))

    exam = [fixed.draw(2) for _ in range(4)]

    def judge(module: torch.nn.Module) -> float:
        fixed.gen.manual_seed(rt.seed + 2)
        return sum(float(_masked(module, x, tau, apply, fixed)) for x in exam) / len(exam)

    def loss(module: torch.nn.Module) -> torch.Tensor:
        return _masked(module, pieces.draw(2), tau, apply, pieces)

    best = learn(net, loss, judge, Plan(minutes=p.minutes, steps=p.steps), rt)
    answer = _mixed(best, volume, tau, apply)
    return np.asarray(answer[tuple(slice(2, 2 + n) for n in even.shape)], dtype=np.float32)


def _around(x: torch.Tensor) -> torch.Tensor:
    """Mean of the 26 neighbours of every voxel (B, 1, I, J, K)."""
    import torch

    wide = torch.nn.functional.pad(x, [1] * 6, mode="replicate")
    return (torch.nn.functional.avg_pool3d(wide, 3, 1) * 27 - x) / 26


def _hidden(x: torch.Tensor, pieces: Pieces, share: float = 0.06) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace a random share of voxels by the mean of their neighbours; return the changed scan and where."""
    import torch

    where = (torch.rand(x.shape, generator=pieces.gen) < share).to(x.device)
    return torch.where(where, _around(x), x), where


def _masked(module: torch.nn.Module, x: torch.Tensor, tau: float, apply, pieces: Pieces) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """Squared error of guessed hidden voxels, in tau squared."""
    changed, where = _hidden(x, pieces)
    answer = apply(module, changed)
    return ((answer - x)[where] ** 2).mean() / tau**2


def _mixed(module: torch.nn.Module, volume: torch.Tensor, tau: float, apply) -> Array:  # type: ignore[no-untyped-def]
    """Guess every voxel from the others (one of 27 interleaved sets hidden at a time), then mix in the voxel itself.

    The weight is that of the best linear estimate: the error of guesses around, beyond the noise, against the noise.
    """
    import torch
    from scipy.ndimage import uniform_filter

    x = volume[None, None]
    guess = torch.zeros_like(x)
    axes = [torch.arange(n, device=x.device) % 3 for n in volume.shape]
    with torch.inference_mode():
        around = _around(x)
        for number in range(27):
            a, b, c = number // 9, number // 3 % 3, number % 3
            where = ((axes[0] == a)[:, None, None] & (axes[1] == b)[:, None] & (axes[2] == c))[None, None]
            guess = torch.where(where, apply(module, torch.where(where, around, x)), guess)
    f, y = guess[0, 0].cpu().numpy(), volume.cpu().numpy()
    error = np.maximum(uniform_filter((y - f) ** 2, 5) - tau**2, 0)
    return np.asarray(f + error / (error + tau**2) * (y - f), dtype=np.float32)


MODELS = (Model(CARD, Params, run),)
