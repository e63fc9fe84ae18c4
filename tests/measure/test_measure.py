"""Figures against hand-computed values, brute force and SimpleITK."""

from __future__ import annotations

import csv
import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from napari_mri.core.errors import BadOption, FileProblem, GridMismatch
from napari_mri.core.grid import Grid
from napari_mri.core.midplane import Plane
from napari_mri.core.volume import Labels, Volume
from napari_mri.measure.asymmetry import asymmetry_across, asymmetry_of_pairs
from napari_mri.measure.lesions import DEFINITIONS, MISS_MM, compare_lesions
from napari_mri.measure.overlap import compare, hausdorff, surface
from napari_mri.measure.raters import agreement, two_raters
from napari_mri.measure.table import csv_text, json_text, rows_of, write_text
from napari_mri.measure.volumes import volumes
from tests.scans import GRIDS, blob, head


def _labels(data: np.ndarray, spacing=(1.0, 1.0, 1.0), names=None) -> Labels:
    return Labels(data.astype(np.uint8), Grid.plain(data.shape, spacing), names=names or {})


def _cube(shape, low, size) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, a + size) for a in low)] = True
    return mask


def test_volumes_by_hand() -> None:
    data = np.zeros((10, 10, 10), np.uint8)
    data[0:2, 0:3, 0:4], data[5, 5, 5] = 1, 3
    grey = np.arange(1000, dtype=np.float32).reshape(10, 10, 10)
    grey[0, 0, 0] = np.nan
    labels = _labels(data, (1.0, 2.0, 5.0), {1: "a", 2: "absent"})
    rows = volumes(labels, Volume(grey, labels.grid))
    assert [(r.label, r.name, r.voxels) for r in rows] == [(1, "a", 24), (2, "absent", 0), (3, "", 1)]
    assert rows[0].ml == pytest.approx(0.24)
    assert rows[0].percent == pytest.approx(96.0)
    assert (rows[0].x, rows[0].y, rows[0].z) == pytest.approx((0.5, 2.0, 7.5))
    values = grey[0:2, 0:3, 0:4].ravel()[1:]
    assert (rows[0].mean, rows[0].sd, rows[0].median) == pytest.approx((values.mean(), values.std(), np.median(values)))
    assert (rows[0].minimum, rows[0].maximum) == (1.0, 123.0)
    assert (rows[0].p5, rows[0].p95) == pytest.approx(tuple(np.percentile(values, (5, 95))))
    assert (rows[2].mean, rows[2].sd) == (555.0, 0.0)
    assert np.isnan(rows[1].mean)
    assert np.isnan(rows[1].x)


@pytest.mark.parametrize("name", GRIDS)
def test_volumes_do_not_depend_on_storage(name: str) -> None:
    grid = GRIDS[name]
    (row,) = volumes(Labels(blob(grid).astype(np.uint8), grid), head(grid))
    assert row.ml == pytest.approx(4 / 3 * np.pi * 38 * 45 * 34 / 1000, rel=0.03)
    assert np.linalg.norm(np.array([row.x, row.y, row.z]) - (4, -7, 11)) < 1
    assert 450 < row.median < 500


def test_frames_are_measured_one_by_one() -> None:
    data = np.zeros((5, 5, 5, 2), np.uint8)
    data[0, 0, 0, 0], data[0, 0, :3, 1] = 1, 1
    labels = Labels(data, Grid.plain((5, 5, 5)))
    assert [(r.frame, r.voxels) for r in volumes(labels)] == [(0, 1), (1, 3)]
    assert volumes(Labels(np.zeros((3, 3, 3), np.uint8), Grid.plain((3, 3, 3)))) == ()


def test_overlap_by_hand() -> None:
    a, b = _cube((20, 20, 20), (2, 2, 2), 6), _cube((20, 20, 20), (5, 2, 2), 6)
    (row,) = compare(_labels(a, (2.0, 1.0, 1.0)), _labels(b, (2.0, 1.0, 1.0)), tolerance_mm=2.0)
    assert row.dice == pytest.approx(0.5)
    assert row.jaccard == pytest.approx(1 / 3)
    assert row.hd == pytest.approx(6.0)
    assert row.difference_ml == 0
    assert 0 < row.surface_dice < 1
    (same,) = compare(_labels(a), _labels(a))
    assert (same.dice, same.hd, same.hd95, same.mean_distance, same.surface_dice) == (1, 0, 0, 0, 1)


def test_overlap_of_empty_masks() -> None:
    none, some = np.zeros((5, 5, 5), bool), _cube((5, 5, 5), (1, 1, 1), 2)
    (both,) = compare(_labels(none), _labels(none))
    assert (both.dice, both.hd95, both.surface_dice) == (1.0, 0.0, 1.0)
    (one,) = compare(_labels(none), _labels(some))
    assert (one.dice, one.surface_dice) == (0.0, 0.0)
    assert np.isnan(one.hd95)


def test_overlap_label_by_label() -> None:
    a = np.zeros((9, 9, 9), np.uint8)
    a[1:4, 1:4, 1:4], a[5:8, 5:8, 5:8] = 1, 2
    b = a.copy()
    b[a == 2] = 7
    rows = compare(_labels(a, names={1: "one"}), _labels(b))
    assert [(r.label, r.name, r.dice) for r in rows] == [(0, "all labels", 1), (1, "one", 1), (2, "", 0), (7, "", 0)]
    with pytest.raises(GridMismatch):
        compare(_labels(a), _labels(a, (1, 1, 2)))


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("seed", [0, 1])
def test_distances_equal_brute_force(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    grid = GRIDS[name].cropped((0, 0, 0), (9, 11, 8))
    a, b = rng.random(grid.shape) < 0.05, rng.random(grid.shape) < 0.1
    ours, theirs = (grid.to_patient(np.argwhere(m)) for m in (surface(a), surface(b)))
    apart = np.linalg.norm(ours[:, None] - theirs[None], axis=-1)
    there, back = apart.min(1), apart.min(0)
    (row,) = compare(Labels(a.astype(np.uint8), grid), Labels(b.astype(np.uint8), grid), tolerance_mm=3.0)
    assert row.hd == pytest.approx(max(there.max(), back.max()))
    assert row.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    both = np.concatenate([there, back])
    assert row.mean_distance == pytest.approx(both.mean())
    assert row.surface_dice == pytest.approx((both <= 3.0).mean())


def test_surface_equals_erosion() -> None:
    from scipy.ndimage import binary_erosion

    mask = np.random.default_rng(0).random((11, 12, 13)) < 0.8
    assert np.array_equal(surface(mask), mask & ~binary_erosion(mask))


def test_against_simpleitk() -> None:
    sitk = pytest.importorskip("SimpleITK")
    spacing = (1.0, 0.8, 2.5)
    grid = Grid.plain((41, 45, 19), spacing)
    index = grid.to_patient(np.stack(np.indices(grid.shape), -1))
    a = np.linalg.norm(index - (20, 18, 22), axis=-1) < 11
    b = np.linalg.norm((index - (23, 17, 25)) / (1.2, 1, 1), axis=-1) < 10
    images = []
    for mask in (a, b):
        image = sitk.GetImageFromArray(mask.astype(np.uint8).T)
        image.SetSpacing(spacing)
        images.append(image)
    measured = sitk.LabelOverlapMeasuresImageFilter()
    measured.Execute(*images)
    (row,) = compare(Labels(a.astype(np.uint8), grid), Labels(b.astype(np.uint8), grid))
    assert row.dice == pytest.approx(measured.GetDiceCoefficient())
    assert row.jaccard == pytest.approx(measured.GetJaccardCoefficient())
    contours = [sitk.LabelContour(image, False) for image in images]
    farthest = sitk.HausdorffDistanceImageFilter()
    farthest.Execute(*contours)
    assert row.hd == pytest.approx(farthest.GetHausdorffDistance(), abs=1e-4)


def test_lesions_isles_by_hand() -> None:
    truth = (
        _cube((30, 30, 30), (1, 1, 1), 4) | _cube((30, 30, 30), (10, 10, 10), 3) | _cube((30, 30, 30), (20, 1, 1), 2)
    )
    mask = (
        _cube((30, 30, 30), (4, 4, 4), 1) | _cube((30, 30, 30), (10, 10, 10), 3) | _cube((30, 30, 30), (25, 25, 25), 2)
    )
    found = compare_lesions(_labels(mask, (1, 1, 2)), _labels(truth, (1, 1, 2)))
    assert (found.reference, found.found, found.missed, found.false_alarms) == (3, 2, 1, 1)
    assert found.f1 == pytest.approx(2 / 3)
    assert found.count_difference == 0
    assert found.volume_difference_ml == pytest.approx(abs(1 + 27 + 8 - 64 - 27 - 8) * 2 / 1000)


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_nothing_to_find_and_nothing_found(definition: str) -> None:
    none, some = np.zeros((20, 20, 20), bool), _cube((20, 20, 20), (5, 5, 5), 6)
    assert compare_lesions(_labels(none), _labels(none), definition=definition).f1 == 1.0
    assert compare_lesions(_labels(none), _labels(none), definition=definition).dice == 1.0
    missed = compare_lesions(_labels(none), _labels(some), definition=definition)
    assert (missed.f1, missed.missed, missed.dice) == (0.0, 1, 0.0)
    false = compare_lesions(_labels(some), _labels(none), definition=definition)
    assert (false.f1, false.false_alarms, false.dice) == (0.0, 1, 0.0)
    if definition != "isles":
        assert missed.hd95 == false.hd95 == MISS_MM


def test_lesions_brats_by_hand() -> None:
    shape = (60, 60, 60)
    hit, missed, false = _cube(shape, (2, 2, 2), 10), _cube(shape, (30, 30, 30), 10), _cube(shape, (48, 2, 2), 5)
    found = compare_lesions(_labels(hit | false), _labels(hit | missed), definition="brats-glioma")
    assert found.dice == pytest.approx(1 / 3)
    assert found.hd95 == pytest.approx(2 / 3 * MISS_MM)
    assert (found.reference, found.found, found.missed, found.false_alarms) == (2, 1, 1, 1)
    # two pieces of the truth 5 voxels apart are one lesion for glioma and two for metastases
    pair = _cube(shape, (2, 2, 2), 4) | _cube(shape, (11, 2, 2), 4)
    assert compare_lesions(_labels(pair), _labels(pair), definition="brats-glioma").reference == 1
    assert compare_lesions(_labels(pair), _labels(pair), definition="brats-mets").reference == 2
    # a small one is left out, and finding it is no false alarm
    small = _cube(shape, (40, 40, 40), 3)
    left_out = compare_lesions(_labels(hit | small), _labels(hit | small), definition="brats-glioma")
    assert (left_out.reference, left_out.false_alarms, left_out.dice) == (1, 0, 1.0)
    with pytest.raises(BadOption, match="definition"):
        compare_lesions(_labels(hit), _labels(hit), definition="other")


def test_asymmetry_by_name_and_by_plane() -> None:
    data = np.zeros((11, 9, 9), np.uint8)
    data[8:10, 0, 0], data[1:5, 0, 0], data[5, 5, 5], data[6, 5, 5] = 1, 2, 3, 4
    names = {1: "Right-Hippocampus", 2: "Left-Hippocampus", 3: "rh.cortex", 4: "lh.cortex", 5: "stem"}
    pairs = {row.name: row for row in asymmetry_of_pairs(_labels(data, names=names))}
    assert set(pairs) == {"hippocampus", "cortex"}
    assert (pairs["hippocampus"].left_ml, pairs["hippocampus"].right_ml) == pytest.approx((0.004, 0.002))
    assert pairs["hippocampus"].index == pytest.approx(2 * 2 / 6)
    assert pairs["cortex"].index == 0
    whole = (data > 0).astype(np.uint8)
    (cut,) = asymmetry_across(_labels(whole), Plane((1, 0, 0), 5.0))  # the voxel at x = 5 is on neither side
    assert (cut.right_ml, cut.left_ml) == pytest.approx((0.003, 0.004))
    mirrored = Labels(whole, Grid(whole.shape, np.diag([-1.0, 1, 1, 1])))
    (other,) = asymmetry_across(mirrored, Plane((1, 0, 0), -5.0))
    assert (other.right_ml, other.left_ml) == pytest.approx((0.004, 0.003))
    assert asymmetry_of_pairs(_labels(data, names={1: "left thing", 2: "other"})) == ()


def test_raters() -> None:
    a, b = _cube((10, 10, 10), (2, 2, 2), 4), _cube((10, 10, 10), (3, 2, 2), 4)
    (row,) = two_raters(_labels(a), _labels(b))
    inside = (slice(1, 8), slice(1, 7), slice(1, 7))
    x, y = a[inside], b[inside]
    same, chance = (x == y).mean(), x.mean() * y.mean() + (~x).mean() * (~y).mean()
    assert row.kappa == pytest.approx((same - chance) / (1 - chance))
    assert row.overlap.dice == pytest.approx(0.75)
    # Shrout & Fleiss 1979, table 2, judges 1 and 2
    first, second = [9, 6, 8, 7, 10, 6], [2, 1, 4, 1, 5, 2]
    table = agreement(first, second)
    assert table.bias == pytest.approx(31 / 6)
    d = np.subtract(first, second)
    assert table.high - table.low == pytest.approx(2 * 1.96 * d.std(ddof=1))
    assert table.icc == pytest.approx(_icc_by_anova(first, second))
    assert agreement([1, 2, 3], [1, 2, 3]).icc == pytest.approx(1.0)
    with pytest.raises(BadOption):
        agreement([1.0], [1.0])
    with pytest.raises(BadOption):
        agreement([1.0, 2.0], [1.0])


def _icc_by_anova(first, second) -> float:
    """ICC(2,1) by sums of squares written out loop by loop."""
    cases = list(zip(first, second, strict=True))
    n, k = len(cases), 2
    grand = sum(map(sum, cases)) / (n * k)
    ss_cases = k * sum((sum(c) / k - grand) ** 2 for c in cases)
    ss_raters = n * sum((sum(c[j] for c in cases) / n - grand) ** 2 for j in range(k))
    ss_all = sum((v - grand) ** 2 for v in itertools.chain(*cases))
    bms, jms = ss_cases / (n - 1), ss_raters / (k - 1)
    ems = (ss_all - ss_cases - ss_raters) / ((n - 1) * (k - 1))
    return (bms - ems) / (bms + (k - 1) * ems + k * (jms - ems) / n)


def test_tables(tmp_path: Path) -> None:
    a = _cube((9, 9, 9), (2, 2, 2), 3)
    rows = rows_of(volumes(_labels(a, names={1: 'tumour, "core"'})))
    back = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert back[0]["name"] == 'tumour, "core"'
    assert float(back[0]["ml"]) == pytest.approx(0.027)
    assert back[0]["mean"] == ""
    assert json.loads(json_text({"volumes": rows}))["volumes"][0]["mean"] is None
    flat = rows_of(two_raters(_labels(a), _labels(a)))
    assert flat[0]["dice"] == 1.0
    assert flat[0]["kappa"] == 1.0
    path = tmp_path / "a.csv"
    path.write_text("old")
    write_text(csv_text(rows), path)
    assert path.read_text().startswith("frame,label")
    assert [p.name for p in tmp_path.iterdir()] == ["a.csv"]
    with pytest.raises(FileProblem):
        write_text("x", tmp_path / "none" / "a.csv")


def test_hausdorff_of_empty() -> None:
    grid = Grid.plain((4, 4, 4))
    none, some = np.zeros(grid.shape, bool), np.ones(grid.shape, bool)
    assert hausdorff(none, none, grid) == 0.0
    assert np.isnan(hausdorff(none, some, grid))
