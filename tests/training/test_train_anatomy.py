"""The network that knows anatomy: its targets, and the part of the answer it is asked for."""

import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from napari_mri.nets.anatomy import NAMES, PAIRED, Anatomy  # noqa: E402
from napari_mri.nets.unet import fold  # noqa: E402
from training.synth import Head, Recipe, build_head  # noqa: E402
from training.train_anatomy import UNKNOWN, asked, loss_of, tables  # noqa: E402

MAPS = Path(os.environ.get("NAPARI_MRI_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def test_some_voxels_of_each_block_are_answered_as_in_the_whole():
    torch.manual_seed(3)
    net = Anatomy().eval()
    x = torch.randn(1, 1, 32, 16, 16)
    with torch.no_grad():
        whole = fold(net(x)).reshape(1, len(NAMES) + 1, 8, 16, 8, 8)
        parts = torch.tensor([5, 2])
        some = net.some(x, parts)
    assert some.shape == (1, len(NAMES) + 1, 2, 16, 8, 8)
    assert torch.allclose(some, whole[:, :, parts], atol=1e-5)


def test_the_loss_falls_when_the_answer_is_right():
    kinds = torch.randint(0, 20, (1, 2, 6, 6, 6))
    sides = torch.where(torch.rand(kinds.shape) < 0.5, 1, 0)
    right = torch.zeros(1, len(NAMES) + 1, 2, 6, 6, 6)
    right.scatter_(1, kinds[:, None], 8.0)
    right[:, -1] = (sides * 2 - 1) * 8.0
    wrong = right.roll(1, 1)
    assert float(loss_of(right, kinds, sides)) < 0.5 < float(loss_of(wrong, kinds, sides))
    # What is not asked for changes nothing.
    hidden, other = kinds.clone(), right.clone()
    hidden[..., :3] = UNKNOWN
    other[..., :3] = 5.0
    unasked = torch.where(hidden == UNKNOWN, UNKNOWN, sides)
    assert torch.allclose(loss_of(right, hidden, unasked), loss_of(other, hidden, unasked))


def test_every_map_names_the_same_structures_and_a_mirrored_head_keeps_its_sides():
    files = sorted((MAPS / "synthseg_label_maps").glob("*.nii.gz"))
    if not files:
        pytest.skip("the label maps are not here")
    import nibabel
    import numpy as np

    image = nibabel.as_closest_canonical(nibabel.load(files[0]))
    head: Head = build_head(np.asarray(image.dataobj), "one")
    kinds, sides = tables(head)
    assert set(range(1, len(NAMES))) <= set(kinds[: len(head.base)].tolist())
    for number, (tissue, kind) in enumerate(zip(head.tissue, kinds.tolist(), strict=False)):
        assert {"bone": 23, "marrow": 22, "skin": 26, "vitreous": 30}.get(tissue, kind) == kind, (number, tissue)
    assert all(int(sides[n]) in (0, 1) for n in range(len(head.base)) if int(kinds[n]) in PAIRED)
    mirrored = 0
    for seed in range(8):
        _, found, side = asked(head, Recipe(spacing=(4.0, 4.0), stripped=0, cropped=0), seed, None)
        cortex = found == 2
        if cortex.sum() < 500:
            continue
        place = torch.nonzero(cortex & (side == 1))[:, 0].float().mean() - torch.nonzero(cortex & (side == 0))[:, 0].float().mean()
        # The right half stands at higher first coordinates or, in these maps, lower; mirrored or not, always alike.
        mirrored += int(place > 0)
    assert mirrored in (0, 8)
