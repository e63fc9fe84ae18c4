"""The training: the loss asks for the right thing, Muon orthogonalises, checkpoints go on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("edt")
torch = pytest.importorskip("torch")
nibabel = pytest.importorskip("nibabel")

from tests.training.test_synth import ball_head  # noqa: E402
from training.muon import Muon, orthogonal  # noqa: E402
from training.train_skullstrip import REACH, loss_of, main, recipe_at  # noqa: E402


def _pair() -> tuple[torch.Tensor, torch.Tensor]:
    i, j, k = torch.meshgrid(*[torch.arange(24.0)] * 3, indexing="ij")
    near = ((i - 12) ** 2 + (j - 12) ** 2 + (k - 12) ** 2).sqrt() - 7
    target = torch.stack([near, near + 1])[None].clamp(-REACH, REACH)
    return target, torch.ones(1, 1, 24, 24, 24, dtype=torch.bool)


def test_loss_is_least_at_the_truth_and_grows_with_the_error() -> None:
    target, seen = _pair()
    right = float(loss_of(target, target, seen))
    assert right < 0.02
    for shift in (0.5, 1.0, -1.0):
        assert float(loss_of(target + shift, target, seen)) > right + 0.1


def test_loss_does_not_mind_far_distances_nor_what_was_not_seen() -> None:
    target, seen = _pair()
    beyond = torch.where(target >= REACH, target + 5, target)
    assert float(loss_of(beyond, target, seen)) == pytest.approx(float(loss_of(target, target, seen)), abs=1e-4)
    seen[..., :12] = False
    wrong = target.clone()
    wrong[..., :12] = 0
    hidden = float(loss_of(wrong, target, seen))
    assert hidden < 0.25 * float(loss_of(wrong, target, torch.ones_like(seen)))


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (16, 16)])
def test_orthogonal_levels_the_singular_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonal(torch.randn(*shape)))
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.4


def test_muon_learns_a_matrix() -> None:
    torch.manual_seed(0)
    truth = torch.randn(4, 6)
    weight = torch.nn.Parameter(torch.zeros(4, 6))
    optimiser = Muon([weight], lr=0.05, decay=0.0)
    for _ in range(150):
        optimiser.zero_grad()
        ((weight - truth) ** 2).sum().backward()
        optimiser.step()
    assert float((weight - truth).abs().max()) < 0.3


def test_schedule_goes_from_coarse_to_fine() -> None:
    assert recipe_at(0.0, 1).spacing[0] > recipe_at(0.99, 1).spacing[0]


@pytest.mark.slow
def test_training_runs_stops_resumes_and_exports(tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.mkdir()
    for name in ("01", "16"):
        image = nibabel.Nifti1Image(ball_head().astype(np.int16), np.eye(4))
        nibabel.save(image, maps / f"training_seg_{name}.nii.gz")
    common = ["--maps", str(maps), "--cache", str(tmp_path / "cache"), "--device", "cpu", "--batch", "1"]
    main([*common, "--steps", "2"])
    first = torch.load(tmp_path / "cache" / "skullnet" / "last.pt", weights_only=True)
    main([*common, "--steps", "3", "--export", str(tmp_path / "out")])
    second = torch.load(tmp_path / "cache" / "skullnet" / "last.pt", weights_only=True)
    assert second["step"] > first["step"], "it went on and did not begin anew"
    card = json.loads((tmp_path / "out" / "skullnet.json").read_text())
    assert card["steps"] == second["step"]
    assert (tmp_path / "out" / "skullnet.safetensors").stat().st_size < 6e6
    from safetensors.torch import load_file

    weights = tmp_path / "out" / "skullnet.safetensors"
    main([*common, "--run", "anew", "--init", str(weights), "--steps", "1", "--lr", "0.0001"])
    begun = torch.load(tmp_path / "cache" / "anew" / "last.pt", weights_only=True)["net"]
    gaps = [float((begun[k] - v.float()).abs().max()) for k, v in load_file(weights).items()]
    assert max(gaps) < 0.01, "one small step from the weights given"
