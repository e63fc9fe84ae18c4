"""The anatomy of the phantom: which shape of which tissue stands where in a head, in mm.

Patient coordinates: x to the right, y to the front, z up; the origin lies near the middle of the brain.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_mri.phantom_canvas import Array, Canvas, Point3, Waves, Where, ellipsoid, path, places, tube, union

PARTS = (
    "white matter", "cortex", "cerebrospinal fluid", "ventricles", "caudate", "putamen", "pallidum",
    "thalamus", "hippocampus", "amygdala", "cerebellar cortex", "cerebellar white matter", "brain stem",
    "lesion", "eyes", "optic nerves", "skull", "scalp", "fat", "muscle", "air spaces", "vessels",
    "spinal cord",
)  # fmt: skip
"""What the labels 1, 2, 3 … mean."""
BRAIN = (
    "white matter", "cortex", "ventricles", "caudate", "putamen", "pallidum", "thalamus", "hippocampus",
    "amygdala", "cerebellar cortex", "cerebellar white matter", "brain stem", "lesion",
)  # fmt: skip
"""The parts that make up a brain mask."""

_SLAB = 6
_FORAMEN = -62.0


def _cerebrum(at: Where) -> Array:
    """Signed distance to the smooth envelope of both hemispheres; `at` is mirrored."""
    # Egg-shaped from above, domed on top, flat below.
    x = at.x * (1 + np.float32(0.0009) * (at.y + 10))
    z = np.where(at.z > 4, at.z - 4, (at.z - 4) * np.float32(2.9)) + np.float32(0.0004) * (at.y + 10) ** 2
    dome = ellipsoid(Where(x, at.y, z), (0, -3, 0), (68, 86, 67))
    temporal = ellipsoid(Where(at.x + np.float32(0.12) * at.y, at.y, at.z - np.float32(0.1) * at.y), (42, 0, -18), (22, 42, 20))
    return union(dome, temporal, 10.0)


def _cerebellum(at: Where) -> Array:
    lobes = ellipsoid(at, (21, -54, -37), (31, 29, 23))
    return union(lobes, ellipsoid(at, (0, -56, -38), (14, 26, 20)), 8.0)


_STEM: tuple[Point3, ...] = ((0, -14, -2), (0, -16, -14), (0, -18, -30), (0, -26, -50), (0, -32, -66), (0, -38, -140))
_STEM_RADII = (12.0, 13.0, 15.0, 10.5, 6.5, 5.5)


def _stem(at: Where) -> Array:
    return path(at, _STEM, _STEM_RADII, 4.0)


def _head(at: Where, hull: Array) -> Array:
    """Signed distance to the skin; `at` is mirrored."""
    face = ellipsoid(at, (0, 44, -52), (57, 50, 74))
    cheek = ellipsoid(at, (34, 56, -48), (26, 32, 30))
    jaw = path(at, ((52, 8, -72), (38, 50, -104), (0, 78, -112)), (16, 15, 15), 8)
    neck = tube(Where(at.x, at.y, at.z), ((0, -22, -50), (0, -30, -170)), (58, 58))
    nose = path(at, ((0, 88, -14), (0, 106, -46)), (8, 12), 4)
    nose = union(nose, ellipsoid(at, (10, 98, -48), (9, 10, 8)), 6)
    ear = ellipsoid(Where(at.x, at.y + np.float32(0.5) * (at.x - 80), at.z), (79, -22, -26), (8, 14, 30))
    head = union(hull - 13.6, union(face, cheek, 14), 26)
    head = union(head, union(jaw, neck, 22), 20)
    return union(union(head, nose, 10), ear, 5)


def draw(canvas: Canvas, rng: np.random.Generator, lesion: bool) -> None:
    """Paint a whole head, from the skin inward."""
    rough = Waves.drawn(rng, 5, 34.0)
    streak = Waves.drawn(rng, 5, 30.0)
    folds = Waves.drawn(rng, 14, 17.5, 0.2)
    depth = Waves.drawn(rng, 6, 46.0)
    bend = Waves.drawn(rng, 6, 30.0)
    _outside(canvas, rough, streak)
    _face(canvas, rough)
    _cortex(canvas, folds, depth, bend)
    _hindbrain(canvas)
    _deep(canvas)
    _ventricles(canvas)
    if lesion:
        _lesion(canvas, streak)


def _outside(canvas: Canvas, rough: Waves, streak: Waves) -> None:
    """Skin, fat, muscle, skull with its marrow, and the fluid around the brain, slab by slab."""
    for start in range(0, canvas.grid.shape[0], _SLAB):
        stop = min(start + _SLAB, canvas.grid.shape[0])
        box = (slice(start, stop), slice(0, canvas.grid.shape[1]), slice(0, canvas.grid.shape[2]))
        at = places(canvas.grid, box)
        half = at.mirrored()
        hull = union(union(_cerebrum(half), _cerebellum(half), 8.0), _stem(half), 8.0)
        head = _head(half, hull)
        if float(head.min()) > canvas.edge:
            continue
        bump = rough.at(at.x, at.y, at.z)
        # Above the skull base the scalp is thin; below it fat lies over muscle.
        low = np.clip((-34 - at.z + np.float32(0.35) * at.y) / 20, 0, 1)
        canvas.paint(box, "scalp", "skin", head)
        canvas.paint(box, "fat", "fat", head + 2.4 + 0.3 * bump)
        canvas.paint(box, "muscle", "muscle", head + (5.2 + 3.5 * low + 1.2 * bump * low))
        texture = streak.at(at.x, at.y, at.z * np.float32(0.4))
        canvas.paint(box, "fat", "fat", np.maximum(head + 8, (np.abs(texture) - 0.13) * 5))
        bone = hull - (7.6 + 0.7 * bump)
        canvas.paint(box, "skull", "bone", bone)
        marrow = np.abs(hull - (4.9 + 0.35 * bump)) - (0.9 + 0.6 * bump)
        canvas.paint(box, "skull", "marrow", marrow)
        canvas.paint(box, "cerebrospinal fluid", "fluid", hull - 2.2)
        sinus = np.maximum(np.hypot(half.x, np.float32(1.3) * (hull - 0.5)) - 3.6, -6 - at.z + 0.2 * at.y)
        canvas.paint(box, "vessels", "blood", sinus)


def _blob(canvas: Canvas, part: str, tissue: str, centre: Point3, radii: Point3, sides: bool = True) -> None:
    """Paint an ellipsoid, on both sides if asked."""
    for sign in (1, -1) if sides else (1,):
        middle = (sign * centre[0], centre[1], centre[2])
        reach = [r + 3 for r in radii]
        low = tuple(m - r for m, r in zip(middle, reach, strict=True))
        high = tuple(m + r for m, r in zip(middle, reach, strict=True))
        box = canvas.box(low, high)  # type: ignore[arg-type]
        if box is not None:
            canvas.paint(box, part, tissue, ellipsoid(places(canvas.grid, box), middle, radii))


def _tube(canvas: Canvas, part: str, tissue: str, points: tuple[Point3, ...], radii: tuple[float, ...], soft: float = 2.0) -> None:
    """Paint a bent tube on both sides."""
    spots = np.asarray(points)
    for sign in (1.0, -1.0):
        turned = spots * (sign, 1, 1)
        reach = max(radii) + 3
        box = canvas.box(tuple(turned.min(axis=0) - reach), tuple(turned.max(axis=0) + reach))
        if box is not None:
            way = [(float(a), float(b), float(c)) for a, b, c in turned]
            canvas.paint(box, part, tissue, path(places(canvas.grid, box), way, radii, soft))


def _face(canvas: Canvas, rough: Waves) -> None:
    """Orbits with eyes and nerves, air spaces, tongue, jaw and the front of the spine."""
    _tube(canvas, "skull", "bone", ((50, 2, -50), (50, 6, -88), (36, 52, -106), (0, 76, -112)), (6, 7, 7, 7))
    _tube(canvas, "skull", "marrow", ((50, 4, -60), (50, 6, -88), (36, 52, -106), (0, 76, -112)), (3, 4, 4, 4))
    _blob(canvas, "skull", "bone", (0, 62, -82), (30, 30, 8), sides=False)
    for z, radius in ((-92, 9.5), (-111, 10), (-130, 10)):
        _blob(canvas, "skull", "bone", (0, -12, z), (radius + 3, radius + 1, 9.0), sides=False)
        _blob(canvas, "skull", "marrow", (0, -12, z), (radius + 1, radius - 1, 7.4), sides=False)
    _blob(canvas, "muscle", "muscle", (0, 42, -97), (22, 30, 17), sides=False)
    _blob(canvas, "skull", "bone", (31, 64, -48), (18, 22, 20))
    _blob(canvas, "air spaces", "air", (31, 62, -49), (13.5, 16, 15.5))
    _blob(canvas, "skull", "bone", (0, 28, -27), (19, 24, 14), sides=False)
    _blob(canvas, "skull", "bone", (0, 8, -35), (15, 12, 17), sides=False)
    _blob(canvas, "skull", "marrow", (0, 8, -37), (8, 5.5, 10), sides=False)
    _blob(canvas, "air spaces", "air", (8, 32, -27), (7, 11, 8))
    _blob(canvas, "air spaces", "air", (9, 86, 1), (7, 4.5, 9))
    _blob(canvas, "skull", "bone", (50, -24, -42), (12, 15, 13))
    for n, (dy, dz) in enumerate(((0, 0), (-7, 3), (5, -4), (-4, -8), (-9, -5), (3, 5))):
        _blob(canvas, "air spaces", "air", (50 + (n % 3 - 1) * 3.0, -26 + dy, -43 + dz), (3.4, 3.2, 3.0))
    _tube(canvas, "air spaces", "air", ((52, -12, -36), (76, -16, -30)), (3, 3.5))
    _tube(canvas, "air spaces", "air", ((0, 40, -48), (0, 18, -58), (0, 14, -84), (0, 6, -145)), (8, 9, 7, 8))
    _nose(canvas)
    _orbits(canvas)
    _tube(canvas, "vessels", "blood", ((27, -4, -150), (26, -2, -66), (18, 6, -42), (12, 8, -30)), (3.2, 3.0, 2.4, 2.2))
    _tube(canvas, "vessels", "blood", ((34, -12, -150), (32, -16, -62)), (5.5, 4.5))


def _nose(canvas: Canvas) -> None:
    """Nasal cavity: air between a septum and folded turbinates."""
    box = canvas.box((-17, 30, -76), (17, 104, -12))
    if box is None:
        return
    at = places(canvas.grid, box).mirrored()
    cavity = union(ellipsoid(at, (0, 66, -46), (14, 34, 25)), ellipsoid(at, (6, 96, -56), (5, 9, 6)), 5)
    canvas.paint(box, "scalp", "skin", cavity)
    septum = 1.6 - at.x
    canvas.paint(box, "air spaces", "air", np.maximum(cavity + 1.5, septum))
    for z, radius in ((-58, 5.5), (-45, 4.5), (-34, 3.5)):
        shelf = np.hypot((at.x - 7.5) * np.float32(1.5), at.z - z) - radius
        canvas.paint(box, "scalp", "skin", np.maximum(np.maximum(shelf, np.abs(at.y - 64) - 24), cavity + 1.5))


def _orbits(canvas: Canvas) -> None:
    for sign in (1, -1):
        box = canvas.box((min(sign * 4, sign * 54), 18, -48), (max(sign * 4, sign * 54), 100, 2))
        if box is None:
            continue
        at = places(canvas.grid, box).mirrored()
        cone = tube(at, ((32, 68, -23), (13, 30, -21)), (17.5, 3))
        canvas.paint(box, "skull", "bone", np.maximum(cone - 2.2, at.y - 84))
        canvas.paint(box, "fat", "fat", np.maximum(cone, at.y - 84))
        for dx, dz in ((0, 11.5), (0, -11.5), (10.5, 0), (-10.5, 0)):
            muscle = tube(at, ((32 + dx, 66, -23 + dz), (14, 32, -21)), (2.1, 1.6))
            canvas.paint(box, "muscle", "muscle", muscle)
        canvas.paint(box, "cerebrospinal fluid", "fluid", tube(at, ((32, 63, -23), (13, 30, -20)), (2.9, 2.6)))
        ball = ellipsoid(at, (32, 74, -23), (12.2, 12.4, 12.2))
        canvas.paint(box, "scalp", "skin", ball - 0.8)
        canvas.paint(box, "eyes", "vitreous", ball)
        canvas.paint(box, "eyes", "lens", ellipsoid(at, (32, 82, -23), (4.8, 2.2, 4.8)))
    nerve = ((32, 62.0, -23), (13, 30, -20), (4, 16, -15), (0, 11, -14))
    _tube(canvas, "optic nerves", "white", nerve, (1.8, 1.8, 2.2, 2.6))


def _cortex(canvas: Canvas, *waves: Waves) -> None:
    """White matter under a folded ribbon of grey, both hemispheres, with the deep fissures."""
    box = canvas.box((-80, -100, -52), (80, 100, 84))
    if box is None:
        return
    for start in range(box[0].start, box[0].stop, 24):
        part = (slice(start, min(start + 24, box[0].stop)), box[1], box[2])
        at = places(canvas.grid, part).mirrored()
        hull = np.ascontiguousarray(np.broadcast_to(_cerebrum(at), canvas.image[part].shape))
        inside = hull < canvas.edge
        if not inside.any():
            continue
        x, y, z = (np.broadcast_to(axis, inside.shape)[inside] for axis in (places(canvas.grid, part).x, at.y, at.z))
        grey, fluid = _ribbon(Where(x, y, z), hull[inside], *waves)
        for name, tissue, distance in (
            ("white matter", "white", hull[inside]),
            ("cortex", "grey", grey),
            ("cerebrospinal fluid", "fluid", fluid),
        ):
            full = np.full(inside.shape, np.float32(99))
            full[inside] = distance
            canvas.paint(part, name, tissue, full)


def _ribbon(at: Where, hull: Array, folds: Waves, depth: Waves, bend: Waves) -> tuple[Array, Array]:
    """Return signed distances to the grey ribbon and to the fluid outside and between the folds.

    A sulcus is a sheet that runs inward from the surface: the zero set of a random wave pattern
    laid over the envelope. Its floor is rounded, so the ribbon keeps its thickness around it.
    """
    x = np.abs(at.x)
    side = np.where(at.x > 0, np.float32(3.0), np.float32(-3.0))
    size = np.sqrt((x / 66) ** 2 + ((at.y + 3) / 85) ** 2 + ((at.z - 2) / 60) ** 2)
    onto = 1 / np.maximum(size, np.float32(0.25))
    # On the medial wall the pattern lies as it is; elsewhere it is carried inward along the radius.
    flat = np.clip((30 - x) / 25, 0, 1)
    onto = onto + (1 - onto) * flat
    sway = 2.2 * bend.at(x, at.y, at.z)
    sx, sy, sz = x * onto + sway, (at.y + 3) * onto + side - sway, (at.z - 2) * onto + 0.6 * sway
    value, slope = folds.with_slope(sx, sy, sz)
    sheet = np.abs(value) / np.maximum(slope * onto, np.float32(0.06))
    reach = 14 + 4.0 * depth.at(sx, sy, sz)
    # The medial wall is surface too, except where the hemispheres are joined.
    joined = ellipsoid(Where(x, at.y, at.z), (0, -3, 6), (30, 38, 22))
    medial = np.where(joined > 0, np.float32(0.6) - x, np.float32(-30)) + np.clip(-joined, 0, 3)
    outer = np.maximum(hull, medial)
    fold = np.hypot(sheet, np.maximum(-outer - reach, 0))
    # The Sylvian fissure: one deep sheet above the temporal lobe, down to the insula.
    level = at.z - (-6 + 0.22 * (at.y + 10))
    span = np.maximum(np.abs(at.y - 0) - 36, 0)
    sylvian = np.sqrt(level**2 + np.maximum(39 - x, 0) ** 2 + span**2)
    core = ellipsoid(Where(x, at.y, at.z), (14, -2, 6), (24, 38, 24))
    fold = np.where(core < 0, fold - core, fold)
    near = np.minimum(fold, sylvian - 0.6)
    width = np.clip(0.3 + 0.03 * (outer + 14), 0.1, 0.7)
    pial = np.maximum(outer, width - near)
    thick = np.float32(2.9)
    return -(np.minimum(-outer, near - width) - thick) * -1, -pial


def _hindbrain(canvas: Canvas) -> None:
    """Cerebellum with its leaves, brain stem, cord, and the fluid between."""
    box = canvas.box((-58, -90, -66), (58, -8, -6))
    if box is not None:
        at = places(canvas.grid, box).mirrored()
        lobes = np.maximum(_cerebellum(at), 2.6 - _cerebrum(at))
        canvas.paint(box, "cerebrospinal fluid", "fluid", lobes - 1.5)
        canvas.paint(box, "cerebellar cortex", "grey", lobes)
        turn = np.arctan2(at.z + 36, -28 - at.y) + np.float32(0.0007) * at.x**2
        reach = np.hypot(at.z + 36, at.y + 28)
        turn = turn + 0.07 * np.sin(reach * 0.3)
        blade = (np.abs(np.sin(turn * 5.5)) * np.maximum(reach, 8) / 5.5 - 1.5) * 0.8
        twig = (np.abs(np.sin(reach * 0.42 + 2.5 * np.abs(np.sin(turn * 5.5)))) / 0.42 - 0.7) * 0.8
        trunk = np.minimum(lobes + 16, np.maximum(np.minimum(blade, np.maximum(twig, lobes + 8)), lobes + 3.2))
        canvas.paint(box, "cerebellar white matter", "white", trunk)
        gap = (np.abs(np.cos(turn * 5.5)) * np.maximum(reach, 8) / 5.5 - 0.55) * 0.8
        slit = (np.abs(np.cos(reach * 0.42 + 2.5 * np.abs(np.sin(turn * 5.5)))) / 0.42 - 0.35) * 0.8
        fissure = np.maximum(np.minimum(gap, np.maximum(slit, -(lobes + 5))), -(lobes + 12))
        canvas.paint(box, "cerebrospinal fluid", "fluid", np.maximum(fissure, lobes))
    box = canvas.box((-22, -60, -150), (22, 8, 6))
    if box is None:
        return
    at = places(canvas.grid, box)
    stem = _stem(at.mirrored())
    stem = np.maximum(stem, at.z + 8)
    canvas.paint(box, "cerebrospinal fluid", "fluid", np.maximum(stem - 3, np.maximum(at.z + 14, -18 - at.z + at.y)))
    canvas.paint(box, "brain stem", "stem", np.maximum(stem, _FORAMEN - at.z))
    canvas.paint(box, "spinal cord", "stem", np.maximum(stem, at.z - _FORAMEN))
    _tube(canvas, "cerebellar white matter", "white", ((10, -22, -30), (21, -36, -34), (24, -52, -36)), (6.5, 7.5, 8), 4)
    _tube(canvas, "white matter", "white", ((7, -14, -13), (11, -10, 0)), (7.5, 7.5))


def _deep(canvas: Canvas) -> None:
    _tube(canvas, "caudate", "deep", ((12, 26, 8), (15, 14, 16), (18, -6, 22), (21, -24, 18)), (6.5, 5.5, 3.6, 2.2))
    _blob(canvas, "putamen", "deep", (27, 3, 3), (6.0, 17, 10))
    _blob(canvas, "pallidum", "pale", (20, 1, 1), (4.4, 9.5, 6.5))
    _blob(canvas, "thalamus", "deep", (10.5, -15, 8), (8.5, 14.5, 9.5))
    _tube(canvas, "hippocampus", "deep", ((25, -8, -17), (28, -20, -14), (25, -34, -4)), (6, 5, 3.5))
    _blob(canvas, "amygdala", "deep", (23, 2, -17), (7, 7.5, 6.5))


def _ventricles(canvas: Canvas) -> None:
    horn = ((12, 33, 7), (6.2, 21, 13), (6.2, 2, 18), (13, -24, 18), (24, -38, 12))
    _tube(canvas, "ventricles", "fluid", horn, (2.6, 5.0, 4.4, 5.2, 7.0), 4)
    _tube(canvas, "ventricles", "fluid", ((24, -38, 12), (20, -60, 8)), (6.6, 2.6), 3)
    _tube(canvas, "ventricles", "fluid", ((25, -37, 10), (31, -24, -6), (32, -6, -15)), (6.0, 3.2, 2.2), 3)
    _blob(canvas, "ventricles", "fluid", (0, -8, 5), (2.0, 14, 9), sides=False)
    _tube(canvas, "ventricles", "fluid", ((0, -22, -2), (0, -29, -22)), (1.1, 1.2))
    _blob(canvas, "ventricles", "fluid", (0, -34.5, -36), (8, 5.0, 10), sides=False)


def _lesion(canvas: Canvas, streak: Waves) -> None:
    """Paint a bright spot of demyelination beside the right ventricle, with an uneven outline."""
    box = canvas.box((17, -42, 17), (43, -8, 43))
    if box is None:
        return
    at = places(canvas.grid, box)
    spot = ellipsoid(at, (29, -25, 29), (6.5, 9.0, 6.0)) + 0.9 * streak.at(at.x, at.y, at.z)
    canvas.paint(box, "lesion", "lesion", spot)


def numbers() -> dict[str, int]:
    """Return the label of each part."""
    return {part: n for n, part in enumerate(PARTS, start=1)}


def in_brain(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Tell which voxels of a phantom's label array belong to the brain mask."""
    table = np.zeros(256, dtype=bool)
    table[[numbers()[part] for part in BRAIN]] = True
    return table[labels]
