"""One to three scans of a patient, in any planes and contrasts, as one continuous function of the place.

A small network is fitted to the very scans: from a place it tells the intensity of every contrast, by one trunk
and a head for each, so that an edge seen sharply in one scan helps the others. A thick slice is modelled as what
it is, the mean across its thickness. What the fit misses of the scans is put back by the closed-form correction,
so that the result never strays from what was measured.

References
----------
McGinnis et al., Single-subject multi-contrast MRI super-resolution via implicit neural representations,
MICCAI 2023 (arXiv:2303.15065). Tancik et al., NeurIPS 2020 (Fourier features).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import Cancelled, GridMismatch, MissingExtra, MriError
from napari_mri.core.model import SUPERRES, Card, Model, Runtime, Wants, knob
from napari_mri.core.volume import Volume
from napari_mri.engine.device import free_bytes, half_is_quick
from napari_mri.engine.lesson import Plan, learn
from napari_mri.models import _align as align
from napari_mri.models._superres import Array, Way, Wish, refined, slice_axis, tell_limits, way_of

if TYPE_CHECKING:
    import torch

    from napari_mri.nets.coordinates import FourierField

CARD = Card(
    name="inr",
    task=SUPERRES,
    title="Join scans in one continuous function",
    says=(
        "Fits one continuous function to one to three scans of this patient, of different contrasts or planes, so that "
        "each gains what the others saw; no weights. Needs scans in register; minutes on a GPU, longer without."
    ),
    wants=Wants(axes="RAS", min_slices=3, others=2),
    needs=("torch", "scipy"),
    cite="McGinnis et al., MICCAI 2023 (arXiv:2303.15065)",
    rank=-1,
)

NAMES = ("second", "third")
"""The by-products that hold the further scans' results."""
DRAWS, FEWEST = 80, 300
"""A measured voxel is drawn about so often: on a small scan more steps fit its noise and ring between its slices. At least so
many steps."""
LEAST_OVERLAP = 0.5
"""Scans that share less of their boxes than this have too little to tell one another."""
_ACROSS = 4
"""Points across the thickness of a slice, one in each quarter, drawn anew at each step."""
_BYTES = 48.0
"""Of memory for each fine voxel while the result is drawn."""


@dataclass(frozen=True)
class Preset:
    """How large the function is and how long it is fitted."""

    width: int
    depth: int
    waves: int
    batch: int
    rate: float
    steps: int
    minutes: float


PRESETS = {
    "fast": Preset(128, 3, 96, 4096, 1e-2, 1500, 3.0),
    "best": Preset(256, 4, 192, 8192, 5e-3, 6000, 40.0),
}


@dataclass(frozen=True)
class Params(Wish):
    """Options of the continuous function."""

    preset: str = knob(
        "fast", "Fast fits a smaller function for up to 3 minutes; best a larger one, longer.", choices=("fast", "best")
    )
    register: str = knob(
        "check",
        "Further scans: 'check' measures whether they are in register and says so, 'rigid' moves them there "
        "(SimpleITK), 'off' believes their headers.",
        choices=("check", "rigid", "off"),
    )
    minutes: float = knob(0.0, "Longest time to fit; 0 takes the preset's (3 or 40).", low=0.0, high=600.0, unit="min")
    steps: int = knob(
        0, "Most fitting steps; 0 takes the preset's (1,500 or 6,000; fewer for small scans).", low=0, high=1_000_000
    )


def run(scan: Volume, p: Params, rt: Runtime, others: tuple[Volume, ...] = ()) -> Volume:
    """Return the scan on a finer grid; grid and by-products as of `cubic`, and each further scan's own result.

    Parameters
    ----------
    scan : Volume, (I, J, K)
    p : Params
    rt : Runtime
        Is offered ``"second"`` and ``"third"``: the further scans, refined, on grids of their own axes and
        (if moved) in the place of the first.
    others : tuple of Volume, (I, J, K)
        At most two.

    Raises
    ------
    GridMismatch
        If a further scan shares less than half of its box with the first.
    MissingExtra
        If registration is asked for and SimpleITK is not here.
    BadOption
        If the result would be too large.
    """
    rt.report(0.0, "comparing the scans")
    scans = [scan, *(_in_place(scan, other, name, p.register, rt) for other, name in zip(others, NAMES, strict=False))]
    wish = replace(p, spacing=p.spacing or min(scan.spacing))
    # A thickness is told of the first scan; the others' slices are as thick as they are apart.
    views = [_View.of(one, wish if n == 0 else replace(wish, thickness=0.0)) for n, one in enumerate(scans)]
    tell_limits(scan, views[0].way, p, rt)
    field, places = _fitted(views, p, rt)
    results = []
    for number, view in enumerate(views):
        span = (0.85 + 0.14 * number / len(views), 0.14 / len(views))
        results.append(_drawn(field, places, view, number, span, rt))
    for name, one, view, drawn in zip(NAMES, scans[1:], views[1:], results[1:], strict=False):
        rt.offer(name, replace(one, data=drawn, grid=view.way.fine, frames=None))
    return refined(scan, views[0].way, lambda start, number: results[0], rt)


def _in_place(scan: Volume, other: Volume, name: str, register: str, rt: Runtime) -> Volume:
    """Check that a further scan shows the same place, and move it there if that is wished."""
    if align.overlap(scan.grid, other.grid) < LEAST_OVERLAP:
        raise GridMismatch(
            f"The {name} scan shares less than half of its box with the first one.",
            hint="Give scans of one region and one session, or leave this one out.",
        )
    if register == "off":
        return other
    if find_spec("SimpleITK") is None:
        if register == "rigid":
            raise MissingExtra("Registration needs SimpleITK.", hint="pip install 'napari-mri-workbench[models]'")
        rt.warn("Whether the scans are in register was not checked: SimpleITK is not installed.")
        return other
    rt.report(0.01, "comparing the places of the scans")
    try:
        by = align.motion(scan, other, rt)
    except Cancelled:
        raise
    except MriError as error:
        if register == "rigid":
            raise
        rt.warn(f"Whether the {name} scan is in register is not known. {error.what}")
        return other
    rt.report(0.03, "comparing the places of the scans")
    far = align.distance(by, scan.grid)
    if register == "rigid":
        rt.warn(f"The {name} scan was moved by {far:.1f} mm on average to fit the first.")
        return align.moved(other, by)
    if far > max(1.0, min(scan.spacing)):
        rt.warn(
            f"The {name} scan seems {far:.1f} mm out of register: scans that do not fit are blended, not detected. "
            f"Register them first, or choose register = rigid."
        )
    return other


@dataclass(frozen=True, eq=False)
class _View:
    """One scan as the fit sees it: on the middle grid of its way, 0 to 1."""

    way: Way
    start: Array
    low: float
    range_: float
    across: float
    axis: int | None

    @classmethod
    def of(cls, scan: Volume, wish: Wish) -> _View:
        way = way_of(scan.grid, wish)
        start = way.start(scan.data)
        low, high = (float(x) for x in np.percentile(start[::2, ::2], [0.5, 99.5]))
        wide = high - low or float(np.ptp(start)) or 1.0
        axis = slice_axis(scan.grid)
        if axis is None:
            return cls(way, start, low, wide, 1.0, axis)
        own, fine = way.middle.spacing[axis], way.fine.spacing[axis]
        # The function tells fine voxels, which are means already: so much wider is a slice than one of them.
        thick = max((wish.thickness or own) ** 2 - fine**2, 0.0) ** 0.5
        return cls(way, start, low, wide, thick / own, axis)

    @property
    def unit(self) -> Array:
        return np.asarray(np.clip((self.start - self.low) / self.range_, -0.5, 1.5), dtype=np.float32)

    @property
    def body(self) -> NDArray[np.intp]:
        """Flat indices of voxels that are not background."""
        found = np.flatnonzero(self.start > self.low + 0.06 * self.range_)
        return found if found.size else np.arange(self.start.size)


class _Points:
    """Draw measured voxels of all scans, and the places across their slices.

    A GPU draws for itself, so that no step waits for the processor; its numbers are others than the processor's.

    Parameters
    ----------
    views : list of _View
    gaussian : bool
        Slice profile; otherwise even.
    device : str
    seed : int
    """

    def __init__(self, views: list[_View], gaussian: bool, device: str, seed: int) -> None:
        import torch

        self.gen = torch.Generator(device).manual_seed(seed)
        self.device, self.gaussian = device, gaussian
        corners = np.concatenate([view.way.fine.corners() for view in views])
        self.centre = (corners.max(axis=0) + corners.min(axis=0)) / 2
        self.half = float((corners.max(axis=0) - corners.min(axis=0)).max() / 2)
        self.values = [torch.from_numpy(view.unit.ravel()).to(device) for view in views]
        self.bodies = [torch.from_numpy(view.body).to(device) for view in views]
        self.maps = [self._map(view.way.middle.affine) for view in views]
        self.views = views

    def _map(self, affine: NDArray[np.float64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what turns voxel indices into places from -1 to 1."""
        import torch

        turn, shift = affine[:3, :3] / self.half, (affine[:3, 3] - self.centre) / self.half
        return (
            torch.tensor(turn.T, dtype=torch.float32, device=self.device),
            torch.tensor(shift, dtype=torch.float32, device=self.device),
        )

    @property
    def scale(self) -> float:
        """Spread of the frequencies, by how many of the coarsest slices lie across the box.

        A twenty-fourth, measured on the phantom and on two real contrasts: a sixteenth rings between slices, the
        longer it is fitted.
        """
        across = 2 * self.half / max(max(view.way.middle.spacing) for view in self.views)
        return float(np.clip(across / 24, 0.5, 6.0))

    def draw(self, number: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return places (count * across, 3) and measured values (count,) of one scan; four in five lie in the body."""
        import torch

        body, values, view = self.bodies[number], self.values[number], self.views[number]
        drawn = {"generator": self.gen, "device": self.device}
        inside = body[torch.randint(len(body), (count * 4 // 5,), **drawn)]
        anywhere = torch.randint(len(values), (count - len(inside),), **drawn)
        flat = torch.cat([inside, anywhere])
        _, wide, deep = view.start.shape
        index = torch.stack([flat // (wide * deep), flat // deep % wide, flat % deep], 1).float()
        where = index[:, None].expand(-1, _ACROSS, -1).clone()
        if view.axis is not None:
            part = (torch.arange(_ACROSS, device=self.device) + torch.rand(count, _ACROSS, **drawn)) / _ACROSS
            # A Gaussian's width is told at half of its maximum.
            offset = torch.special.ndtri(part.clamp(0.01, 0.99)) / 2.3548 if self.gaussian else part - 0.5
            where[..., view.axis] += offset * view.across
        turn, shift = self.maps[number]
        return where.reshape(-1, 3) @ turn + shift, values[flat]


def _fitted(views: list[_View], p: Params, rt: Runtime) -> tuple[FourierField, _Points]:
    import torch

    from napari_mri.nets.coordinates import FourierField

    preset, half = PRESETS[p.preset], half_is_quick(rt.device)
    points = _Points(views, p.profile == "gaussian", rt.device, rt.seed)
    sizes = {"width": preset.width, "depth": preset.depth, "waves": preset.waves}
    field = rt.drawn(lambda: FourierField(len(views), points.scale, **sizes, seed=rt.seed)).to(rt.device)
    each = preset.batch // len(views)
    exam = [[points.draw(number, 2048) for _ in range(2)] for number in range(len(views))]
    spread = [max(float(torch.cat([value for _, value in pieces]).var()), 1e-6) for pieces in exam]

    def error(net: torch.nn.Module, number: int, drawn: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        places, values = drawn
        with torch.autocast(rt.device, torch.bfloat16, enabled=half):
            told = net(places, number)
        told = told.float().reshape(-1, _ACROSS).mean(dim=1)
        return ((told - values) ** 2).mean() / spread[number]

    def loss(net: torch.nn.Module) -> torch.Tensor:
        return torch.stack([error(net, n, points.draw(n, each)) for n in range(len(views))]).mean()

    def judge(net: torch.nn.Module) -> float:
        errors = [error(net, n, drawn) for n, pieces in enumerate(exam) for drawn in pieces]
        return float(torch.stack(errors).mean())  # read once: each reading waits for the GPU

    enough = max(FEWEST, DRAWS * sum(len(body) for body in points.bodies) // preset.batch)
    steps = p.steps or min(preset.steps, enough)
    plan = Plan(p.minutes or preset.minutes, steps, preset.rate, every=50, patience=8, tells=True)
    best = learn(field, loss, judge, plan, rt)
    assert isinstance(best, FourierField)
    return best, points


def _drawn(
    field: FourierField, points: _Points, view: _View, number: int, span: tuple[float, float], rt: Runtime
) -> Array:
    """Return one scan on its fine grid: the function in the body, the spline in the air, corrected to the scan."""
    import torch

    # Voxels, their indices and what the correction makes of them; where there is no room, only the function runs there.
    roomy = _BYTES * np.prod(view.way.fine.shape, dtype=np.float64) < free_bytes(points.device)
    way = view.way.on(points.device if roomy else "cpu")
    start = torch.from_numpy(np.array(view.start, order="C")).to(way.device)  # a copy: torch takes no flipped view
    flat = way.spline(start).reshape(-1)
    fine = torch.nonzero(flat > view.low + 0.04 * view.range_)[:, 0]
    turn, shift = points._map(way.fine.affine)
    _, wide, deep = way.fine.shape
    size = 1 << (16 if points.device == "cpu" else 18)
    for at in range(0, len(fine), size):
        rt.report(span[0] + span[1] * at / len(fine), "drawing the finer scan")
        some = fine[at : at + size]
        index = torch.stack([some // (wide * deep), some // deep % wide, some % deep], 1).float().to(points.device)
        with torch.no_grad():
            told = field(index @ turn + shift, number) * view.range_ + view.low
        flat[some] = told.to(flat.device)
    return way.home(way.agreed(flat.reshape(way.fine.shape), start))


MODELS = (Model(CARD, Params, run=run),)
