"""Denoise a 4D series by frames that neighbour one another, learned on that very series; no weights.

Two ways. ``alike`` gathers places that look alike over all frames and takes out of each group of frames what noise
alone explains there (`nets/alike_frames.py`). ``net`` is the first stage of DDM², made quick: the noise of a frame is
independent of that in the others, so a net that never sees the frame it guesses cannot learn its noise. Frames are
neighbours by gradient direction within one shell, or by time; with ten directions or more a smooth function on the
sphere, fitted to the others, is the first of its inputs. The guess and the frame itself are then mixed by how good
guesses are at each place, so what only one direction shows is not lost.

Both keep b0 frames and shells apart, and work in a scale in which Rician noise is Gaussian; the way back takes the
noise floor away.

Reference: Xiang et al., DDM², ICLR 2023 (stage I). Lehtinen et al., Noise2Noise, ICML 2018.
Veraart et al., NeuroImage 2016;142:394. Chen et al., XQ-NLM, MICCAI 2016.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import Cancelled, UnsupportedImage
from napari_mri.core.model import DENOISE, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Volume
from napari_mri.engine.lesson import Plan, finish_early, learn
from napari_mri.measure import removal as shared
from napari_mri.measure import rician, shells
from napari_mri.models._nonlocal import cut_for

if TYPE_CHECKING:
    import torch

    from napari_mri.nets.neighbour import Neighbours

Array = NDArray[np.float32]

CARD = Card(
    name="neighbours",
    task=DENOISE,
    title="Learn from neighbouring frames",
    says=(
        "For diffusion, functional and dynamic series: frames that neighbour one another are cleaned together, learned "
        "on this very series without weights. Shells are kept apart. Motion between frames becomes blur."
    ),
    wants=Wants(axes="", min_slices=1, frames=True, min_frames=3),
    needs=("torch", "scipy"),
    cite="After Veraart et al., NeuroImage 2016;142:394; XQ-NLM, MICCAI 2016; DDM², ICLR 2023, stage I",
    rank=2,
)


MUCH = 0.3
"""Share of the noise's variance left in the frames of a group, from which on each is cleaned by itself as well."""
DOUBT = 0.2
"""Standard deviation that the cleaned frames still have about, in that of the noise."""


@dataclass(frozen=True)
class Params:
    """Options of the neighbour-frame denoiser."""

    way: str = knob(
        "alike",
        "'alike': places that look alike in all frames are cleaned together, one shell at a time. 'net': a small network "
        "learns to guess each frame from the frames nearest to it, and never sees the frame it guesses.",
        choices=("alike", "net"),
    )
    strength: float = knob(
        1.0,
        "How strong the noise is taken to be, as a multiple of what was found: 0 gives the series back; for 'net', "
        "large values the bare guess.",
        low=0.0,
        high=4.0,
    )
    neighbours: int = knob(6, "How many of the nearest frames 'net' guesses a frame from.", low=2, high=16)
    minutes: float = knob(4.0, "Longest time 'net' learns.", low=0.02, high=600.0, unit="min")
    steps: int = knob(500, "Most learning steps of 'net'.", low=1, high=100_000)
    sigma: float = knob(0.0, shared.SIGMA_SAYS, low=0.0, high=1e9)
    kind: str = knob("auto", shared.KIND_SAYS, choices=shared.KINDS)


def run(scan: Volume, p: Params, rt: Runtime) -> Volume:
    """Return the denoised series, its frames, b-values and directions untouched; offers the residual.

    Parameters
    ----------
    scan : Volume, (I, J, K, C)
    p : Params
    rt : Runtime

    Raises
    ------
    UnsupportedImage
        If the scan is no series; for 'net', if no group of frames has three members to learn from one another.
    """
    rt.report(0.0, "measuring the noise")
    if scan.data.ndim != 4:
        raise UnsupportedImage("This model needs a series of frames.", hint="Use the model nlpca for a single volume.")
    sigma, is_rician = shells.series_noise(scan, p.sigma, p.kind, rt)
    data = np.asarray(scan.data, dtype=np.float32)
    if sigma * p.strength <= 0:
        return shared.left_alone(scan, data, p.strength, rt)
    if p.way == "alike":
        return shared.handed_over(scan, _alike(data, sigma * p.strength, is_rician, scan, rt), sigma, rt)
    return shared.handed_over(scan, _by_net(data, sigma, is_rician, scan, p, rt), sigma, rt)


def _alike(data: Array, sigma: float, is_rician: bool, scan: Volume, rt: Runtime) -> Array:
    """Clean alike places together, twice: the second time they are compared in the first result."""
    import torch

    from napari_mri.nets import alike_frames

    even = rician.stabilised(np.maximum(data, 0), sigma) if is_rician else data / np.float32(sigma)
    series = torch.from_numpy(np.ascontiguousarray(even, dtype=np.float32)).to(rt.device)
    groups = shells.groups(scan)
    layout = alike_frames.Layout.of(scan.grid.shape, scan.grid.spacing)
    floor = float(rician.tables().stable_mean[0])
    air = alike_frames.background(series, groups, floor) if is_rician else None

    def clean(guide: torch.Tensor, low: float, high: float) -> torch.Tensor:
        def tell(fraction: float) -> None:
            rt.report(low + (high - low) * fraction, "cleaning places that look alike")

        with torch.inference_mode():
            return alike_frames.cleaned(series, guide, groups, layout, air, tell)

    answer = clean(series, 0.05, 0.5)
    try:
        answer = clean(answer, 0.5, 0.8)
        answer = _singly(series, answer, [g for g in groups if _kept(series, answer, g, air) > MUCH], is_rician, rt)
    except Cancelled:
        if not finish_early(rt):
            raise
        rt.warn("Stopped before the last pass: the result is that of the one before, the best so far.")
    if not is_rician or air is None:
        return np.asarray(answer.cpu().numpy() * np.float32(sigma))
    # In air the exact inverse: there is no weak signal to save.
    plain, bare = answer.cpu().numpy(), air.cpu().numpy()
    result = rician.back_from_stabilised(plain, sigma, DOUBT)
    result[bare] = rician.back_from_stabilised(plain[bare], sigma)
    return result


def _kept(series: torch.Tensor, answer: torch.Tensor, group: list[int], air: torch.Tensor | None) -> float:
    """Return how much of the noise's variance the frames of a group still hold, 0 to 1, outside of the air."""
    taken = (series[..., group] - answer[..., group]).square().mean(-1)
    body = taken if air is None or bool(air.all()) else taken[~air]
    return 1 - float(body.mean())


def _singly(series: torch.Tensor, answer: torch.Tensor, groups: list[list[int]], is_rician: bool, rt: Runtime) -> torch.Tensor:
    """Clean the frames of these groups one by one, each led by what all frames made of it.

    Frames that differ much, as those of a moving head, help one another little; what looks alike within each does more.
    """
    from napari_mri.nets.nonlocal_pca import cleaned

    out = answer.clone()
    frames = [number for group in groups for number in group]
    floor = rician.stable_floor() if is_rician else None
    for n, frame in enumerate(frames):
        rt.report(0.8 + 0.15 * n / len(frames), "cleaning frames one by one")
        image, guide = series[..., frame].contiguous(), answer[..., frame].clone()
        out[..., frame] = cleaned(image, floor, cut=cut_for(rt.device, tuple(image.shape)), guide=guide)
    return out


def _by_net(data: Array, sigma: float, is_rician: bool, scan: Volume, p: Params, rt: Runtime) -> Array:
    """Guess each frame from those nearest to it; groups of fewer than three frames stay as they were."""
    groups = [g for g in shells.groups(scan) if len(g) >= 3]
    if not groups:
        raise UnsupportedImage(
            "No three frames have the same b-value, so none can be guessed from the others.",
            hint="Use the way 'alike', or the model nlpca.",
        )
    even = rician.stabilised(data, sigma) if is_rician else data / np.float32(sigma)
    result = data.copy()
    for number, group in enumerate(groups):
        share = (number / len(groups), (number + 1) / len(groups))
        clean = _group(even, group, scan, p, rt, share)
        result[..., group] = rician.back_from_stabilised(clean, sigma) if is_rician else clean * np.float32(sigma)
    shells.tell_left(scan, groups, rt)
    return result


def _group(even: Array, group: list[int], scan: Volume, p: Params, rt: Runtime, share: tuple[float, float]) -> Array:
    """Denoise the frames of one group; unit noise in and out, (I, J, K, len(group))."""
    import torch

    from napari_mri.nets.neighbour import Neighbours

    near = shells.nearest(group, scan.frames, p.neighbours)
    part = even[..., group]
    top = max(float(np.percentile(part, 99.5)), 1.0)
    series = torch.from_numpy(np.ascontiguousarray(np.moveaxis(part, -1, 0)) / np.float32(top)).to(rt.device)
    place = {number: n for n, number in enumerate(group)}
    table = [[place[m] for m in near[number]] for number in group]
    matrix = shells.angular(group, scan.frames)
    if matrix is not None:  # the smooth guess over directions comes first among the neighbours
        smooth = torch.tensordot(torch.from_numpy(matrix).to(rt.device), series, 1)
        table = [[len(series) + n, *row] for n, row in enumerate(table)]
        series = torch.cat([series, smooth])
    net = rt.drawn(lambda: Neighbours(len(table[0]))).to(rt.device)
    if matrix is not None:
        net.mean.data[0] = 4.0
    width = share[1] - share[0]
    plan = Plan(p.minutes * width, p.steps, share=(share[0] + 0.02 * width, share[0] + 0.8 * width))
    draw = _Draw(series, table, rt.seed)
    exam_draw = _Draw(series, table, rt.seed + 1)
    exam = [exam_draw() for _ in range(4)]

    def loss(module: torch.nn.Module) -> torch.Tensor:
        inputs, target = draw()
        return ((module(inputs) - target) ** 2).mean() * top**2

    def judge(module: torch.nn.Module) -> float:
        return sum(float(((module(x) - y) ** 2).mean()) * top**2 for x, y in exam) / len(exam)

    best = learn(net, loss, judge, plan, rt)
    guesses = _guessed(best, series, table, rt, (share[0] + 0.8 * width, share[1])) * np.float32(top)
    return mixed(part, guesses, p.strength)


class _Draw:
    """Random pieces of random frames with their neighbours."""

    def __init__(self, series: torch.Tensor, table: list[list[int]], seed: int) -> None:
        import torch

        self.series, self.table = series, table
        self.gen = torch.Generator().manual_seed(seed)
        self.size = [min(32, n) for n in series.shape[1:]]

    def __call__(self, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, neighbours, i, j, k) and the frame itself (B, 1, i, j, k)."""
        import torch

        inputs, targets = [], []
        for _ in range(count):
            frame = int(torch.randint(len(self.table), (), generator=self.gen))
            at = [
                int(torch.randint(n - s + 1, (), generator=self.gen))
                for n, s in zip(self.series.shape[1:], self.size, strict=True)
            ]
            box = tuple(slice(a, a + s) for a, s in zip(at, self.size, strict=True))
            turns = [axis for axis in (1, 2, 3) if float(torch.rand((), generator=self.gen)) < 0.5]
            inputs.append(self.series[(self.table[frame], *box)].flip(turns))
            targets.append(self.series[([frame], *box)].flip(turns))
        return torch.stack(inputs), torch.stack(targets)


def _guessed(
    net: Neighbours | torch.nn.Module,
    series: torch.Tensor,
    table: list[list[int]],
    rt: Runtime,
    share: tuple[float, float],
) -> Array:
    """Guess every frame; slabs along the first axis keep memory low."""
    import torch

    count, length = len(table), series.shape[1]
    out = np.empty((*series.shape[1:], count), dtype=np.float32)
    reach, slab = 5, max(8, int(4e6 // max(1, series[0, 0].numel())))
    with torch.inference_mode():
        for frame, near in enumerate(table):
            rt.report(share[0] + (share[1] - share[0]) * frame / count, f"frame {frame + 1} of {count}")
            for start in range(0, length, slab):
                low, high = max(0, start - reach), min(length, start + slab + reach)
                answer = net(series[near, low:high][None])[0, 0]
                stop = min(length, start + slab)
                out[start:stop, ..., frame] = answer[start - low : stop - low].cpu().numpy()
    return out


def mixed(frames: Array, guesses: Array, strength: float = 1.0) -> Array:
    """Mix guesses that never saw a frame with that frame, by the error of guesses around each voxel.

    Parameters
    ----------
    frames, guesses : ndarray, (I, J, K, C)
        Unit noise; errors of the guesses are independent of the noise of the frame.
    strength : float
        Multiplies the noise level in the weight.

    Returns
    -------
    ndarray, (I, J, K, C) float32
    """
    from scipy.ndimage import gaussian_filter

    if strength <= 0:
        return frames.astype(np.float32)
    # What guesses miss is much the same for every direction, so all frames vote on the error at a place.
    size = [1.0 if n > 4 else 0.0 for n in frames.shape[:3]]
    squares = (frames - guesses) ** 2
    common = gaussian_filter(squares.mean(-1), size)
    out = np.empty_like(guesses)
    for number in range(frames.shape[-1]):
        own = gaussian_filter(squares[..., number], size)
        error = np.maximum(0.5 * (own + common) - 1.0, 0.0)
        weight = error / (error + strength**2)
        out[..., number] = guesses[..., number] + weight * (frames[..., number] - guesses[..., number])
    return out


MODELS = (Model(CARD, Params, run),)
