"""Denoisers: less error than before, nothing changed where there is no noise, geometry and frames untouched."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_mri import registry, tasks
from napari_mri.core.errors import Cancelled, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order
from napari_mri.core.volume import Frames, Volume
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.measure import removal as shared
from napari_mri.measure import rician, shells
from napari_mri.models import lowrank, neighbours

Array = NDArray[np.float32]
SHAPE = (29, 26, 22)


def phantom(seed: int = 0) -> Array:
    """Smooth tissue with sharp and curved surfaces; bright 1000, air 0."""
    x, y, z = np.meshgrid(*[np.arange(n) - n / 2 for n in SHAPE], indexing="ij")
    image = np.where(x**2 + y**2 + z**2 < 11**2, 1000.0, 0.0)
    image[(np.abs(x) < 4) & (y > -3) & (image > 0)] = 500.0
    return gaussian_filter(image, 0.5).astype(np.float32)


def noisy(clean: Array, sigma: float, seed: int = 0) -> Array:
    return rician.noise_of(np.random.default_rng(seed), clean, sigma)


def error(a: Any, b: Array) -> float:
    return float(np.sqrt(np.mean((np.asarray(a) - b) ** 2)))


def run(name: str, scan: Volume, rt: LocalRuntime | None = None, **options: Any) -> tasks.Outcome:
    entry = next(m for m in registry.list_models("denoise") if m.name == name)
    if not entry.available:
        pytest.skip(entry.reason)
    return tasks.run(Order("denoise", name, options), scan, rt or LocalRuntime("cpu"))


def series(count: int = 12, sigma: float = 60.0) -> tuple[Volume, Array]:
    """Diffusion series: two b0 and one shell whose directions dim one region by its angle."""
    base = phantom()
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(count, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    across = np.where(np.arange(SHAPE[0])[:, None, None] < 14, 0.2, 0.9)
    frames = [base, base] + [base * np.exp(-(0.3 + across * v[0] ** 2)) for v in vectors]
    clean = np.stack(frames, -1).astype(np.float32)
    bvals = (0.0, 5.0, *[1000.0 + 5 * (n % 2) for n in range(count)])
    bvecs = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), *[(float(a), float(b), float(c)) for a, b, c in vectors])
    return Volume(noisy(clean, sigma), Grid.plain(SHAPE), frames=Frames("diffusion", bvals=bvals, bvecs=bvecs)), clean


@pytest.mark.parametrize("name", ["net3d", "nlm", "nlpca"])
def test_error_is_lowered_and_the_floor_taken_away(name: str) -> None:
    clean = phantom()
    scan = Volume(noisy(clean, 60), Grid.plain(SHAPE))
    out = run(name, scan, sigma=60.0)
    assert error(out.result.data, clean) < 0.75 * error(scan.data, clean)
    air = clean == 0
    assert out.result.data[air].mean() < 0.6 * scan.data[air].mean()
    assert {"residual", "noise level"} <= set(out.extras)
    np.testing.assert_allclose(out.extras["residual"].data, scan.data - out.result.data, atol=1e-3)


@pytest.mark.parametrize("name", ["net3d", "nlm", "nlpca"])
def test_strength_is_a_trade_off(name: str) -> None:
    scan = Volume(noisy(phantom(), 60), Grid.plain(SHAPE))
    moved = [error(run(name, scan, sigma=60.0, strength=s).result.data, scan.data) for s in (0.0, 0.5, 1.0)]
    assert moved[0] == 0
    assert moved[0] < moved[1] < moved[2]


def test_a_clean_scan_is_left_alone() -> None:
    clean = phantom()
    out = run("net3d", Volume(clean, Grid.plain(SHAPE)))
    assert np.abs(out.result.data - clean).max() <= 0.002 * np.ptp(clean)


def test_a_flat_scan_is_given_back() -> None:
    out = run("nlm", Volume(np.full(SHAPE, 5, np.int16), Grid.plain(SHAPE)))
    assert (out.result.data == 5).all()
    assert any("same value" in w for w in out.warnings)


@pytest.mark.parametrize("lesson", ["sure", "masked"])
def test_learning_from_the_scan_repeats_with_its_seed(lesson: str) -> None:
    scan = Volume(noisy(phantom(), 60)[8:22, 6:20, 4:18], Grid.plain((14, 14, 14)))
    a, b = (run("selfscan", scan, sigma=60.0, steps=4, lesson=lesson).result.data for _ in range(2))
    np.testing.assert_array_equal(a, b)


def test_what_is_learned_from_the_scan_is_nearer_to_the_truth_than_where_it_begins() -> None:
    clean = phantom()
    scan = Volume(noisy(clean, 60), Grid.plain(SHAPE))
    begun, learned = run("nlpca", scan, sigma=60.0), run("selfscan", scan, sigma=60.0, steps=30)
    assert error(learned.result.data, clean) < error(begun.result.data, clean)
    air = clean < 1
    assert error(learned.result.data[air], clean[air]) < error(begun.result.data[air], clean[air]) + 0.005 * 60


def test_stop_while_learning_hands_over_the_best_so_far() -> None:
    scan = Volume(noisy(phantom(), 60)[8:22, 6:20, 4:18], Grid.plain((14, 14, 14)))
    stop = threading.Event()

    def on_report(_: float, text: str) -> None:
        if "step 26" in text:
            stop.set()

    out = run("selfscan", scan, LocalRuntime("cpu", on_report, stop), sigma=60.0, steps=400)
    assert any("best so far" in w for w in out.warnings)
    assert out.result.grid.same(scan.grid)


def test_stop_before_anything_is_learned_is_a_stop() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Cancelled):
        run("selfscan", Volume(noisy(phantom(), 60), Grid.plain(SHAPE)), LocalRuntime("cpu", None, stop), sigma=60.0)


@pytest.mark.parametrize("name", ["neighbours", "mppca", "lowrank"])
def test_series_have_less_error_and_keep_their_frames(name: str) -> None:
    scan, clean = series()
    out = run(name, scan, **({} if name == "mppca" else {"sigma": 60.0}))
    assert error(out.result.data, clean) < (0.4 if name == "neighbours" else 0.8) * error(scan.data, clean)
    assert out.result.frames == scan.frames
    assert out.result.data.shape == scan.data.shape


def test_a_net_guesses_frames_from_their_neighbours() -> None:
    scan, clean = series()
    out = run("neighbours", scan, sigma=60.0, way="net", steps=40)
    assert error(out.result.data, clean) < 0.8 * error(scan.data, clean)


def test_b0_is_never_touched_by_weighted_frames() -> None:
    scan, _ = series()
    out = run("neighbours", scan, sigma=60.0, way="net", steps=3)
    np.testing.assert_array_equal(out.result.data[..., :2], scan.data[..., :2])
    assert "Frames 1, 2 have too few others of the same b-value and stay as they are." in out.warnings


def test_values_of_one_group_of_frames_never_reach_another() -> None:
    torch = pytest.importorskip("torch")
    from napari_mri.nets import alike_frames

    scan, _ = series(count=6)
    layout = alike_frames.Layout.of(scan.grid.shape, scan.grid.spacing)
    one = torch.from_numpy(scan.data / np.float32(60))
    other = one.clone()
    other[..., 2:] = 3 * other[..., 2:].flip(0) + 7
    answers = [alike_frames.cleaned(x, one, [[0, 1], [2, 3, 4, 5, 6, 7]], layout) for x in (one, other)]
    assert torch.equal(answers[0][..., :2], answers[1][..., :2])
    assert not torch.equal(answers[0][..., 2:], answers[1][..., 2:])


def test_anisotropy_is_not_shrunk_with_the_noise() -> None:
    scan, clean = series(count=30)
    out = run("neighbours", scan, sigma=60.0)
    inside = clean[..., 0] > 500

    def contrast(data: Any) -> float:
        return float(np.asarray(data)[inside][:, 2:].std(axis=1).mean())

    assert 0.97 * contrast(clean) < contrast(out.result.data) < 1.03 * contrast(clean)
    assert contrast(scan.data) > 1.1 * contrast(clean)


def test_few_thick_slices_and_a_single_unweighted_frame_are_cleaned_too() -> None:
    scan, clean = series(count=6)
    part = (slice(None), slice(None), slice(9, 13), slice(1, None))
    bvals = scan.frames.bvals[1:] if scan.frames else ()
    bvecs = scan.frames.bvecs[1:] if scan.frames else ()
    thick = Volume(
        scan.data[part], Grid.plain((*SHAPE[:2], 4), (1, 1, 8)), frames=Frames("diffusion", bvals=bvals, bvecs=bvecs)
    )
    out = run("neighbours", thick, sigma=60.0)
    for number in range(7):
        assert error(out.result.data[..., number], clean[part][..., number]) < 0.75 * error(
            thick.data[..., number], clean[part][..., number]
        )


def test_stop_in_the_second_pass_hands_over_the_first() -> None:
    scan, clean = series(count=6)
    stop = threading.Event()

    def on_report(fraction: float, _: str) -> None:
        if fraction > 0.6:
            stop.set()

    out = run("neighbours", scan, LocalRuntime("cpu", on_report, stop), sigma=60.0)
    assert any("best so far" in w for w in out.warnings)
    assert error(out.result.data, clean) < 0.6 * error(scan.data, clean)


@pytest.mark.parametrize("name", ["ddm2", "difusion"])
def test_diffusion_models_run_and_say_what_they_are(name: str) -> None:
    scan, _ = series(count=4)
    small = Volume(scan.data[8:20, 8:18, 10:12], Grid.plain((12, 10, 2)), frames=scan.frames)
    out = run(name, small, sigma=60.0, steps=2, width=8, flips=False)
    assert np.isfinite(out.result.data).all()
    assert out.result.frames == scan.frames
    assert any("invent" in w for w in out.warnings)
    assert "Frames 1, 2 have too few others of the same b-value and stay as they are." in out.warnings


@pytest.mark.parametrize("count", range(8, 13))
def test_patch2self_predicts_each_frame_from_the_others_and_from_nothing_else(count: int) -> None:
    """As least squares would, frame by frame, whatever their number; in any order and unit."""
    scan, _ = series(count)
    out = run("patch2self", scan, sigma=60.0, floor=False)
    flat = scan.data.reshape(-1, scan.n_frames).astype(float)
    for group in ([0, 1], list(range(2, scan.n_frames))):
        for frame in group:
            others = np.column_stack([flat[:, [n for n in group if n != frame]], np.ones(len(flat))])
            expected = others @ np.linalg.lstsq(others, flat[:, frame], rcond=None)[0]
            np.testing.assert_allclose(out.result.data[..., frame].ravel(), expected, atol=0.02)
    small = run("patch2self", scan.with_data(scan.data * np.float32(1e-9)), sigma=60e-9, floor=False)
    np.testing.assert_allclose(small.result.data * 1e9, out.result.data, atol=0.02)


def test_patch2self_lowers_the_error_and_a_lone_frame_stays() -> None:
    scan, clean = series()
    shown = [5, 6, 0, *range(7, 14)]  # one b0 frame, not the first
    assert scan.frames is not None
    frames = Frames("diffusion", bvals=tuple(scan.frames.bvals[n] for n in shown))
    out = run("patch2self", Volume(scan.data[..., shown], scan.grid, frames=frames), sigma=60.0)
    np.testing.assert_array_equal(out.result.data[..., 2], scan.data[..., 0])
    assert "Frame 3 has too few others of the same b-value and stays as it is." in out.warnings
    others = [n for n in range(len(shown)) if n != 2]
    was = error(scan.data[..., shown][..., others], clean[..., shown][..., others])
    assert error(out.result.data[..., others], clean[..., shown][..., others]) < 0.6 * was


def test_frames_that_are_copies_or_constant_are_predicted() -> None:
    scan, _ = series()
    data = scan.data.copy()
    data[..., 3], data[..., 4] = data[..., 2], 7.0
    out = run("patch2self", scan.with_data(data), sigma=60.0, floor=False)
    np.testing.assert_allclose(out.result.data[..., 2], data[..., 2], atol=0.5)
    np.testing.assert_allclose(out.result.data[..., 4], 7.0, atol=0.5)
    assert np.isfinite(out.result.data).all()


def test_patch2self_needs_b_values() -> None:
    scan, _ = series()
    with pytest.raises(UnsupportedImage):
        run("patch2self", Volume(scan.data, scan.grid))


def test_shells_are_kept_apart() -> None:
    frames = Frames("diffusion", bvals=(0, 995, 1005, 2000, 5, 1990, 1000))
    scan = Volume(np.zeros((2, 2, 2, 7), np.float32), Grid.plain((2, 2, 2)), frames=frames)
    assert shells.groups(scan) == [[0, 4], [1, 2, 6], [3, 5]]
    assert shells.groups(Volume(scan.data, scan.grid)) == [list(range(7))]


def test_opposite_directions_are_neighbours() -> None:
    frames = Frames("diffusion", bvals=(1000,) * 4, bvecs=((1, 0, 0), (0, 1, 0), (-1, 0, 0), (0, 0.8, 0.6)))
    near = shells.nearest([0, 1, 2, 3], frames, 2)
    assert near[0][0] == 2
    assert near[1][0] == 3
    assert all(n not in others for n, others in near.items())


def test_angular_guess_never_uses_the_frame_itself() -> None:
    rng = np.random.default_rng(0)
    v = rng.normal(size=(24, 3))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    frames = Frames("diffusion", bvals=(1000,) * 24, bvecs=tuple((float(a), float(b), float(c)) for a, b, c in v))
    matrix = shells.angular(list(range(24)), frames)
    assert matrix is not None
    assert (np.diag(matrix) == 0).all()
    signal = 5 + 2 * v[:, 0] ** 2 - v[:, 1] * v[:, 2]
    assert np.abs(matrix @ signal - signal).mean() < 0.4 * np.abs(signal - signal.mean()).mean()
    assert (matrix**2).sum(axis=1).mean() < 0.5  # and the noise of the guess is well under a frame's
    assert shells.angular([0, 1, 2], frames) is None
    assert shells.angular(list(range(24)), None) is None


def test_frames_in_time_are_neighbours_in_time() -> None:
    assert set(shells.nearest(list(range(9)), None, 2)[4]) == {3, 5}


def test_singular_values_of_pure_noise_are_taken_out_and_of_signal_kept() -> None:
    rng = np.random.default_rng(0)
    _, rank = lowrank.shrunk(rng.normal(size=(200, 20)).astype(np.float32))
    assert rank <= 1
    course = 10 * np.sin(np.arange(20) / 3)
    truth = rng.normal(size=(200, 1)) * course
    clean, rank = lowrank.shrunk((truth + rng.normal(size=truth.shape)).astype(np.float32))
    assert rank >= 1
    assert error(clean, truth) < 0.5


def test_guess_and_frame_are_mixed_by_the_error_of_the_guess() -> None:
    rng = np.random.default_rng(0)
    truth = np.full((12, 12, 12, 6), 20, np.float32)
    frames = truth + rng.normal(size=truth.shape).astype(np.float32)
    good, bad = neighbours.mixed(frames, truth), neighbours.mixed(frames, truth + 8)
    assert error(good, truth) < 0.4
    assert error(bad, frames) < 0.3
    np.testing.assert_array_equal(neighbours.mixed(frames, truth, 0.0), frames)


def test_structure_in_a_residual_is_noticed() -> None:
    clean = np.pad(phantom(), 4)
    rng = np.random.default_rng(0)
    sigma = np.full(clean.shape, 30, np.float32)
    white = rng.normal(0, 30, clean.shape).astype(np.float32)
    assert shared.structure(white, clean, sigma) < shared.STRUCTURE
    edges = clean - gaussian_filter(clean, 1.2)
    assert shared.structure(white + edges, clean, sigma) > shared.STRUCTURE


def test_non_local_pca_is_the_default_and_beats_non_local_means() -> None:
    if not next(m for m in registry.list_models("denoise") if m.name == "nlpca").available:
        pytest.skip("torch is not installed")
    assert registry.find("denoise").card.name == "nlpca"
    clean = phantom()
    scan = Volume(noisy(clean, 90), Grid.plain(SHAPE))
    ours, theirs = (run(name, scan, sigma=90.0).result.data for name in ("nlpca", "nlm"))
    assert error(ours, clean) < 0.95 * error(theirs, clean)
    air = gaussian_filter(clean, 2) < 1
    assert abs(float(ours[air].mean())) < 20  # 2 % of the signal; the scan has 113


@pytest.mark.parametrize("shape", [(2, 9, 3), (4, 4, 4), (13, 3, 5)])
def test_non_local_pca_of_thin_volumes(shape: tuple[int, int, int]) -> None:
    torch = pytest.importorskip("torch")
    from napari_mri.nets.nonlocal_pca import cleaned

    image = torch.full(shape, 30.0) + torch.randn(shape, generator=torch.Generator().manual_seed(0))
    answer = cleaned(image)
    assert answer.shape == shape
    assert (answer - 30).abs().mean() < 0.9 * (image - 30).abs().mean()


def test_non_local_pca_gives_the_threads_back_when_stopped() -> None:
    torch = pytest.importorskip("torch")
    from napari_mri.nets.nonlocal_pca import cleaned

    before = torch.get_num_threads()

    def stop(fraction: float) -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        cleaned(torch.randn(40, 40, 40), None, stop)
    assert torch.get_num_threads() == before


def test_non_local_pca_keeps_negative_values_of_gaussian_noise() -> None:
    clean = phantom() - 400
    scan = Volume(clean + np.random.default_rng(0).normal(0, 60, SHAPE).astype(np.float32), Grid.plain(SHAPE))
    answer = run("nlpca", scan, sigma=60.0).result.data
    assert error(answer, clean) < 0.5 * error(scan.data, clean)
    assert answer.min() < -380


def test_where_the_memory_of_a_gpu_ends_the_processor_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    from napari_mri.models import _nonlocal

    clean = phantom()
    on, tried = _nonlocal._on, []

    def little(device: str, *rest: Any) -> Array:
        tried.append(device)
        if device != "cpu":
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return on(device, *rest)

    monkeypatch.setattr(_nonlocal, "_on", little)
    rt = LocalRuntime("cpu")
    rt._device = "cuda"
    answer = _nonlocal.denoised(noisy(clean, 60), np.full(SHAPE, 60.0, np.float32), True, rt)
    assert tried == ["cuda", "cpu"]
    assert any("Memory" in warning for warning in rt.warnings)
    assert error(answer, clean) < 0.75 * error(noisy(clean, 60), clean)


def restless(count: int = 10) -> Array:
    """A series that hardly resembles itself: each frame holds spots of its own."""
    rng = np.random.default_rng(5)
    spots = np.stack([gaussian_filter(rng.standard_normal(SHAPE), 1.2) for _ in range(count)], -1)
    return (phantom()[..., None] * (1 + 3 * spots).clip(0.2)).astype(np.float32)


def test_frames_that_do_not_help_one_another_are_cleaned_by_themselves_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clean = restless()
    scan = Volume(noisy(clean, 60), Grid.plain(SHAPE))
    both = run("neighbours", scan, sigma=60.0).result.data
    monkeypatch.setattr(neighbours, "MUCH", 1.1)
    assert error(both, clean) < 0.95 * error(run("neighbours", scan, sigma=60.0).result.data, clean)
