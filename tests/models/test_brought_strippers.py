"""MindGrab and SynthStrip: the published shapes, the cube they want, and a clear word when the file is missing."""

from __future__ import annotations

import os

import numpy as np
import pytest

import napari_mri as mri
from napari_mri.core.errors import MriError, WeightsProblem
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.models import mindgrab, synthstrip

torch = pytest.importorskip("torch")


def noise(shape: tuple[int, int, int] = (20, 22, 18), spacing: tuple[float, float, float] = (4.0, 3.0, 5.0)) -> Volume:
    data = np.random.default_rng(0).integers(0, 900, shape).astype(np.int16)
    return Volume(data, Grid.plain(shape, spacing)).turned("LIA")


def test_synthstrip_has_the_published_parameters() -> None:
    from napari_mri.nets.synthstrip import SynthStrip

    net = SynthStrip().eval()
    assert sum(p.numel() for p in net.parameters()) == 2_566_561
    names = list(net.state_dict())
    assert names[0] == "encoder.0.0.conv.weight"
    assert "remaining.2.conv.bias" in names
    with torch.inference_mode():
        assert net(torch.zeros(1, 1, 64, 64, 64)).shape == (1, 1, 64, 64, 64)


def test_mindgrab_has_the_published_parameters() -> None:
    from napari_mri.nets.mindgrab import MindGrab

    net = MindGrab().eval()
    assert sum(p.numel() for p in net.parameters()) == 146_237
    assert "model.24.0.weight" in net.state_dict()
    with torch.inference_mode():
        one = net(torch.rand(1, 1, 20, 21, 22, generator=torch.Generator().manual_seed(0)))
        two = net(5 * torch.rand(1, 1, 20, 21, 22, generator=torch.Generator().manual_seed(0)))
    assert one.shape == (1, 2, 20, 21, 22)
    assert torch.allclose(one, two, atol=2e-2), "the norm, absent from the file, makes brightness irrelevant"


def test_mindgrab_cube_is_centred_on_the_scan() -> None:
    scan = noise((40, 30, 50), (2.0, 3.0, 1.0))
    cube = mindgrab.conformed(scan.grid)
    assert cube.shape == (256, 256, 256)
    assert np.allclose(cube.spacing, 1.0)
    assert cube.axes == "LIA"
    assert np.allclose(cube.centre, scan.grid.centre, atol=1.0)


def test_synthstrip_field_holds_the_head_in_multiples_of_64() -> None:
    scan = noise((60, 70, 50), (4.0, 4.0, 4.0))
    field = synthstrip.field_of(scan.grid, scan.data)
    assert all(n % 64 == 0 and 192 <= n <= 320 for n in field.shape)
    assert np.allclose(field.centre, scan.grid.centre, atol=2.0)


@pytest.mark.parametrize("name", ["mindgrab", "synthstrip"])
def test_a_missing_file_is_told_with_the_way_to_get_it(name: str, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("NAPARI_MRI_WEIGHTS", str(tmp_path))
    with pytest.raises(MriError) as caught:
        mri.skullstrip(noise(), model=name)
    assert caught.value.hint


def test_a_wrong_file_is_refused(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("NAPARI_MRI_WEIGHTS", str(tmp_path))
    (tmp_path / "mindgrab.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsProblem, match="expected"):
        mri.skullstrip(noise(), model="mindgrab")


def test_synthstrip_runs_with_a_file_of_its_shape(tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from dataclasses import replace

    from napari_mri.engine.runtime import LocalRuntime, forget_kept
    from napari_mri.nets.synthstrip import SynthStrip

    monkeypatch.setenv("NAPARI_MRI_WEIGHTS", str(tmp_path))
    monkeypatch.setattr(synthstrip, "WEIGHTS", replace(synthstrip.WEIGHTS, sha256=""))
    monkeypatch.setattr(synthstrip, "LEAST", 64)
    forget_kept()
    torch.manual_seed(0)
    net = SynthStrip()
    torch.save({"model_state_dict": net.state_dict(), "epoch": 3}, tmp_path / "synthstrip.1.pt")
    rt = LocalRuntime("cpu")
    scan = noise((20, 22, 18), (3.0, 2.5, 3.0))
    mask = synthstrip.run(scan, synthstrip.Params(), rt)
    assert mask.grid.same(scan.grid)
    assert rt.extras["distance"].data.shape == scan.data.shape
    forget_kept()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_mindgrab_on_a_real_head(data_dir, weights_dir, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    if not os.environ.get("NAPARI_MRI_SLOW_TESTS"):
        pytest.skip("takes minutes: set NAPARI_MRI_SLOW_TESTS=1")
    if not (weights_dir / "skullstrip_mindgrab" / "mindgrab.safetensors").is_file():
        pytest.skip("no MindGrab weights here")
    monkeypatch.setenv("NAPARI_MRI_WEIGHTS", str(weights_dir / "skullstrip_mindgrab"))
    folder = data_dir / "head_ms_multicontrast" / "patient01"
    truth = mri.load(folder / "FLAIR_brainmask.nii.gz").data > 0
    mask = mri.skullstrip(mri.load(folder / "FLAIR.nii.gz"), model="mindgrab").data > 0
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.92
