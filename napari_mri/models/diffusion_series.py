"""Diffusion models for 4D series that learn on the series itself: DDM² (stages two and three) and Di-Fusion.

Both are slow and meant for a GPU. They work slice by slice in a scale in which Rician noise is Gaussian of unit
variance; the exact inverse takes the noise floor away afterwards. Written from the papers' descriptions:

DDM²: a first guess of each frame from its neighbours (the model "neighbours"); each slice is matched to the step of
the noise schedule whose noise equals its residual; a network is trained to lead a guess with shuffled residual noise
to the noisy slice; the result starts from the slice at its matched step.
Di-Fusion: one training; the input is a neighbouring frame with shuffled differences as noise, the target the frame;
sampling takes ten steps at once, then single ones, without randomness, and stops where the answer leaves the scan.

References
----------
Xiang et al., DDM²: Self-Supervised Diffusion MRI Denoising with Generative Diffusion Models, ICLR 2023.
Wu et al., Self-Supervised Diffusion MRI Denoising via Iterative and Stable Refinement, ICLR 2025 (Di-Fusion).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import UnsupportedImage
from napari_mri.core.model import DENOISE, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Volume
from napari_mri.engine.lesson import Plan, learn
from napari_mri.measure import removal as shared
from napari_mri.measure import rician, shells

if TYPE_CHECKING:
    import torch

Array = NDArray[np.float32]
LAST = 299
"""Last step of the calm part of the schedule, where training and Di-Fusion's sampling begin."""

_WANTS = Wants(axes="", min_slices=1, frames=True, min_frames=4)

DDM2 = Card(
    name="ddm2",
    task=DENOISE,
    title="DDM² (slow, GPU)",
    says="Diffusion model trained on this very diffusion series, starting from its neighbouring directions. Hours on a CPU.",
    wants=_WANTS,
    needs=("torch", "scipy"),
    cite="Xiang et al., ICLR 2023",
    rank=-1,
    invents=True,
)
DIFUSION = Card(
    name="difusion",
    task=DENOISE,
    title="Di-Fusion (slow, GPU)",
    says="Diffusion model trained on this very diffusion series in one stage, with controlled stopping. Hours on a CPU.",
    wants=_WANTS,
    needs=("torch", "scipy"),
    cite="Wu et al., ICLR 2025",
    rank=-1,
    invents=True,
)


@dataclass(frozen=True)
class Params:
    """Options of the diffusion models."""

    minutes: float = knob(60.0, "Longest time to learn.", low=0.02, high=6000.0, unit="min")
    steps: int = knob(20_000, "Most learning steps.", low=1, high=1_000_000)
    width: int = knob(32, "Channels of the network's finest level; 32 is the papers'.", low=8, high=64)
    strength: float = knob(
        1.0,
        "How far from the scan the answer may go before sampling stops, in standard deviations of the noise "
        "(Di-Fusion), or how far up the schedule it starts (DDM²).",
        low=0.1,
        high=3.0,
    )
    flips: bool = knob(True, "Average the answers of four mirrored copies.")
    sigma: float = knob(0.0, shared.SIGMA_SAYS, low=0.0, high=1e9)
    kind: str = knob("auto", shared.KIND_SAYS, choices=shared.KINDS)


def run_ddm2(scan: Volume, p: Params, rt: Runtime) -> Volume:
    """Return the series denoised by DDM²; offers the residual."""
    return _run(scan, p, rt, _ddm2)


def run_difusion(scan: Volume, p: Params, rt: Runtime) -> Volume:
    """Return the series denoised by Di-Fusion; offers the residual."""
    return _run(scan, p, rt, _difusion)


def _run(scan: Volume, p: Params, rt: Runtime, method) -> Volume:  # type: ignore[no-untyped-def]
    """Shells one by one, in the stabilised scale, divided by the brightest voxel of each frame."""
    rt.report(0.0, "measuring the noise")
    if scan.data.ndim != 4:
        raise UnsupportedImage("This model needs a series of frames.", hint="Use the model nlpca for a single volume.")
    sigma, is_rician = shells.series_noise(scan, p.sigma, p.kind, rt)
    data = np.asarray(scan.data, dtype=np.float32)
    groups = [g for g in shells.groups(scan) if len(g) >= 4]
    if sigma <= 0 or not groups:
        raise UnsupportedImage(
            "No noise was found, or no four frames share a b-value.", hint="Use the model neighbours or nlpca."
        )
    if rt.device == "cpu":
        rt.warn("This model is meant for a GPU: on a processor it learns little in the time given.")
    shells.tell_left(scan, groups, rt)
    even = rician.stabilised(data, sigma) if is_rician else data / np.float32(sigma)
    result = data.copy()
    for number, group in enumerate(groups):
        shell = _Shell(even[..., group], shells.nearest(group, scan.frames, 4), group, rt)
        share = (number / len(groups), (number + 1) / len(groups))
        clean = method(shell, p, rt, share)
        result[..., group] = rician.back_from_stabilised(clean, sigma) if is_rician else clean * np.float32(sigma)
    return shared.handed_over(scan, result, sigma, rt)


class _Shell:
    """The frames of one shell as slices, scaled to at most 1, with unit noise becoming `tau`."""

    def __init__(self, part: Array, near: dict[int, list[int]], group: list[int], rt: Runtime) -> None:
        import torch

        self.top = np.float32(max(float(part.max()), 1.0))
        place = {number: n for n, number in enumerate(group)}
        self.near = [[place[m] for m in near[number]] for number in group]
        shape = part.shape
        # Slices along the third axis, padded for the network's three levels.
        pads = [(0, -shape[0] % 4), (0, -shape[1] % 4), (0, 0), (0, 0)]
        wide = np.pad(part / self.top, pads, mode="symmetric" if min(shape[:2]) > 3 else "edge")
        self.slices = torch.from_numpy(np.ascontiguousarray(wide.transpose(3, 2, 0, 1))).to(rt.device)  # (C, K, I, J)
        self.tau = 1.0 / float(self.top)
        self.shape = shape
        self.gen = torch.Generator().manual_seed(rt.seed)

    def home(self, slices: torch.Tensor) -> Array:
        """(C, K, I', J') back to (I, J, K, C) with unit noise."""
        i, j = self.shape[:2]
        out = slices.cpu().numpy().transpose(2, 3, 1, 0)[:i, :j] * self.top
        return np.asarray(out, dtype=np.float32)

    def pick(self) -> tuple[int, int]:
        """Draw a frame and a slice."""
        import torch

        frame = int(torch.randint(self.slices.shape[0], (), generator=self.gen))
        return frame, int(torch.randint(self.slices.shape[1], (), generator=self.gen))

    def shuffled(self, noise: torch.Tensor) -> torch.Tensor:
        """Return the pixels of a slice of noise in random order, without their mean, at unit variance."""
        import torch

        flat = (noise - noise.mean()).reshape(-1)
        order = torch.randperm(len(flat), generator=self.gen).to(flat.device)
        return flat[order].reshape(noise.shape) / flat.std().clamp(min=1e-6)


def _trained(shell: _Shell, clean: torch.Tensor | None, p: Params, rt: Runtime, share: tuple[float, float]) -> torch.nn.Module:
    """Train the network; `clean` is DDM²'s first guess, or None for Di-Fusion, which uses a neighbouring frame."""
    import torch

    from napari_mri.nets.diffusion import LevelUNet, schedule

    alpha = schedule().to(torch.float32)
    net = rt.drawn(lambda: LevelUNet((p.width, 2 * p.width, 4 * p.width))).to(rt.device)

    def batch(count: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        inputs, levels, targets = [], [], []
        for _ in range(count):
            frame, number = shell.pick()
            target = shell.slices[frame, number]
            if clean is None:
                near = shell.near[frame]
                start = shell.slices[near[int(torch.randint(min(2, len(near)), (), generator=shell.gen))], number]
            else:
                start = clean[frame, number]
            noise = shell.shuffled(target - start)
            step = int(torch.randint(1, LAST + 1, (), generator=shell.gen))
            # The level is drawn between neighbouring steps, so that any level can be asked for later.
            low, high = alpha[step].sqrt(), alpha[step - 1].sqrt()
            level = low + (high - low) * torch.rand((), generator=shell.gen)
            inputs.append(level * start + (1 - level**2).clamp(min=0).sqrt() * noise)
            levels.append(level)
            targets.append(target)
        return torch.stack(inputs)[:, None], torch.stack(levels).to(rt.device), torch.stack(targets)[:, None]

    exam = [batch() for _ in range(3)]

    def loss(module: torch.nn.Module) -> torch.Tensor:
        x, level, y = batch()
        return ((module(x, level) - y) ** 2).mean() / shell.tau**2

    def judge(module: torch.nn.Module) -> float:
        return sum(float(((module(x, level) - y) ** 2).mean()) / shell.tau**2 for x, level, y in exam) / len(exam)

    return learn(net, loss, judge, Plan(p.minutes * (share[1] - share[0]), p.steps, rate=1e-4 * 5, every=50, share=share), rt)


def _answer(net: torch.nn.Module, x: torch.Tensor, level: float, flips: bool) -> torch.Tensor:
    """(I, J) to (I, J): one look at a slice, or the mean of four mirrored ones."""
    import torch

    ways: list[list[int]] = [[], [0], [1], [0, 1]] if flips else [[]]
    batch = torch.stack([x.flip(way) for way in ways])[:, None]
    answer = net(batch, torch.full((len(ways),), level, device=x.device))[:, 0]
    return torch.stack([one.flip(way) for one, way in zip(answer, ways, strict=True)]).mean(0)


def _ddm2(shell: _Shell, p: Params, rt: Runtime, share: tuple[float, float]) -> Array:
    import torch

    from napari_mri.nets.diffusion import schedule

    low, high = share
    part = (high - low) / 10
    clean = _first_guess(shell, p, rt, (low, low + 2 * part))
    net = _trained(shell, clean, p, rt, (low + 2 * part, low + 7 * part))
    alpha = schedule()
    out = torch.empty_like(shell.slices)
    with torch.inference_mode():
        for frame in range(out.shape[0]):
            rt.report(low + (7 + 3 * frame / out.shape[0]) * part, f"sampling frame {frame + 1}")
            for number in range(out.shape[1]):
                x = shell.slices[frame, number]
                start = matched(x, clean[frame, number], alpha, p.strength)
                out[frame, number] = _down(net, x * float(alpha[start].sqrt()), list(range(start, -1, -1)), alpha, p.flips)
    return shell.home(out)


def matched(x: torch.Tensor, guess: torch.Tensor, alpha: torch.Tensor, strength: float = 1.0) -> int:
    """Return the step of the schedule whose noise is nearest to the residual of a slice (stage two of DDM²).

    Parameters
    ----------
    x, guess : torch.Tensor
        (I, J), the slice and its first guess.
    alpha : torch.Tensor
        Cumulative products, step 0 first.
    strength : float
        Multiplies the residual's standard deviation.
    """
    import torch

    roots = alpha.sqrt().to(torch.float32)
    spreads = torch.stack([(x - float(root) * guess).std() for root in roots[: LAST + 1]]).cpu() * strength
    gap = (spreads - (1 - alpha[: LAST + 1]).sqrt().to(torch.float32)).abs()
    return max(1, int(gap.argmin()))


def _down(net: torch.nn.Module, x: torch.Tensor, steps: list[int], alpha: torch.Tensor, flips: bool) -> torch.Tensor:
    """Walk down the schedule without adding noise (the DDIM update, right for any stride)."""
    guess = x
    for now, then in pairwise(steps):
        a, b = float(alpha[now]), float(alpha[then])
        guess = _answer(net, x, a**0.5, flips)
        noise = (x - a**0.5 * guess) / max(1 - a, 1e-12) ** 0.5
        x = b**0.5 * guess + max(1 - b, 0.0) ** 0.5 * noise
    return guess


def _first_guess(shell: _Shell, p: Params, rt: Runtime, share: tuple[float, float]) -> torch.Tensor:
    """Stage one: every frame guessed from its neighbours, (C, K, I, J)."""
    import torch

    from napari_mri.nets.neighbour import Neighbours

    volume = shell.slices.permute(0, 2, 3, 1)  # (C, I, J, K)
    net = rt.drawn(lambda: Neighbours(len(shell.near[0]))).to(rt.device)
    size = [min(32, n) for n in volume.shape[1:]]

    def batch() -> tuple[torch.Tensor, torch.Tensor]:
        frame, _ = shell.pick()
        at = [int(torch.randint(n - s + 1, (), generator=shell.gen)) for n, s in zip(volume.shape[1:], size, strict=True)]
        box = tuple(slice(a, a + s) for a, s in zip(at, size, strict=True))
        return volume[(shell.near[frame], *box)][None], volume[([frame], *box)][None]

    exam = [batch() for _ in range(4)]

    def error(module: torch.nn.Module, pair: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return ((module(pair[0]) - pair[1]) ** 2).mean() / shell.tau**2

    plan = Plan(p.minutes * (share[1] - share[0]), min(p.steps, 800), share=share)
    best = learn(net, lambda m: error(m, batch()), lambda m: sum(float(error(m, e)) for e in exam), plan, rt)
    with torch.inference_mode():
        guesses = torch.stack([best(volume[near][None])[0, 0] for near in shell.near])
    return guesses.permute(0, 3, 1, 2).clone()


def _difusion(shell: _Shell, p: Params, rt: Runtime, share: tuple[float, float]) -> Array:
    import torch

    from napari_mri.nets.diffusion import schedule

    low, high = share
    middle = low + 0.7 * (high - low)
    net = _trained(shell, None, p, rt, (low, middle))
    alpha = schedule()
    steps = [*range(LAST + 1, 50, -10), *range(50, -1, -1)]
    out = torch.empty_like(shell.slices)
    with torch.inference_mode():
        for frame in range(out.shape[0]):
            rt.report(middle + (high - middle) * frame / out.shape[0], f"sampling frame {frame + 1}")
            for number in range(out.shape[1]):
                x = shell.slices[frame, number]
                near = shell.slices[shell.near[frame][0], number]
                out[frame, number] = _refined(net, x, near, steps, alpha, p, shell.tau)
    return shell.home(out)


def _refined(net, x, near, steps, alpha, p: Params, tau: float):  # type: ignore[no-untyped-def]
    """Sample one slice: the scan and its neighbour fused at each step, stopped where the answer leaves the scan."""
    body = x > 0.1
    first = float(alpha[steps[0]])
    state = first**0.5 * 0.5 * (x + near)
    guess = x
    for now, then in pairwise(steps):
        a, b = float(alpha[now]), float(alpha[then])
        new = _answer(net, state, a**0.5, p.flips)
        error = float(((new - x)[body] ** 2).mean().sqrt()) if bool(body.any()) else 0.0
        if now < steps[0] and error > p.strength * tau * 1.02:
            break
        guess = new
        # Early steps lean on the neighbour, late ones on the scan itself, by the posterior's weights.
        share = (1 - b) / max(1 - first, 1e-12)
        noise = (state - a**0.5 * guess) / max(1 - a, 1e-12) ** 0.5
        fused = share * guess + (1 - share) * (0.5 * guess + 0.5 * x) if then > 0 else guess
        state = b**0.5 * fused + max(1 - b, 0.0) ** 0.5 * noise * 0.5
    return guess


MODELS = (Model(DDM2, Params, run_ddm2), Model(DIFUSION, Params, run_difusion))
