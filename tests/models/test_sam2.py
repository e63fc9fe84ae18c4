"""SAM 2 on a tiny twin with random weights: the volume is its film, the answer that of the package, nothing is lossy."""

import json

import numpy as np
import pytest

import napari_mri as mri
from napari_mri import registry
from napari_mri.core.errors import MissingExtra, WeightsProblem
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Volume
from napari_mri.models._sam_slices import PLANES, Plane, window_of
from tests.scans import GRIDS, dice, head

pytest.importorskip("torch")


def no_transformers(name, find=registry.find_spec):
    return None if name == "transformers" else find(name)


def test_without_the_package_one_sentence_tells_what_to_install(monkeypatch):
    monkeypatch.setattr(registry, "find_spec", no_transformers)
    with pytest.raises(MissingExtra, match="cannot run here") as told:
        mri.open_session(head(GRIDS["plain"]), model="sam2", checkpoint="x")
    assert "pip install 'napari-mri-workbench[sam2]'" in str(told.value)


transformers = pytest.importorskip("transformers", reason="transformers is not installed (extra 'sam2')")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from napari_mri.nets.sam2 import tiny

    place = tmp_path_factory.mktemp("sam2")
    tiny(5).save_pretrained(place)
    return place


def opened(scan, folder, **params):
    params = {"least": 0.0, "overlap": 0.0, "reach": 8.0, **params}
    return mri.open_session(scan, model="sam2", device="cpu", checkpoint=str(folder), **params)




def test_the_answer_is_that_of_the_package_on_the_same_film(folder):
    import torch
    from transformers import Sam2VideoModel
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

    from napari_mri.nets.sam2 import DEVIATION, MEAN

    scan = head(Grid.plain((48, 48, 48), (3, 3, 3)))
    net = Sam2VideoModel.from_pretrained(folder, local_files_only=True).eval()
    net.config.multimask_max_pt_num = 0
    voxel, reach = np.array([24, 22, 25]), 2
    for name, axis in PLANES.items():
        plane = Plane(scan.grid, axis)
        numbers = range(voxel[axis] - reach, voxel[axis] + reach + 1)
        pictures = np.stack([plane.picture(scan.data, n, window_of(scan.data)) for n in range(plane.count)])
        film = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
        film = torch.nn.functional.interpolate(film, (128, 128), mode="bilinear", align_corners=False)
        film = (film - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(DEVIATION).view(1, 3, 1, 1)
        state = Sam2VideoInferenceSession(film, *plane.size, dtype=torch.float32)
        state.obj_id_to_idx(1)
        spot = torch.from_numpy(plane.to_picture(voxel) * 128 / 48).float()[None, None]
        state.add_point_inputs(0, int(voxel[axis]), {"point_coords": spot, "point_labels": torch.ones(1, 1, 1).int()})
        state.obj_with_new_inputs = [1]
        masks = {}
        with torch.inference_mode():
            for back in (False, True):
                start = int(voxel[axis])
                for found in net.propagate_in_video_iterator(state, start, reach, reverse=back):
                    low = torch.nn.functional.interpolate(found.pred_masks, (128, 128), mode="bilinear")
                    masks[found.frame_idx] = torch.nn.functional.interpolate(low, plane.size, mode="bilinear")[0, 0] > 0
        with opened(scan, folder, plane=name, reach=3.0 * reach) as session:
            ours = session.answer(mri.Prompts((mri.Point(tuple(scan.grid.to_patient(voxel))),)))
        assert sorted(masks) == list(numbers)
        for number in numbers:
            mine = np.take(ours.data, number, axis=axis) > 0
            theirs = plane.home(masks[number].numpy())
            assert dice(mine, theirs) >= 0.98, (name, number)  # half precision keeps the features
        assert np.flatnonzero(ours.data.any(axis=tuple(a for a in range(3) if a != axis))).tolist() == list(numbers)


def test_nothing_of_a_slice_is_lost_on_the_way_in():
    from napari_mri.nets.sam2 import DEVIATION, MEAN, Pictures

    rng = np.random.default_rng(2)
    picture = rng.integers(0, 256, (40, 64, 3), dtype=np.uint8)
    frame = Pictures(lambda n: picture, 3, 64)[1].numpy()
    back = frame * np.array(DEVIATION)[:, None, None] + np.array(MEAN)[:, None, None]
    np.testing.assert_array_equal(np.rint(back[:, :40] * 255).transpose(1, 2, 0), picture)
    assert (frame[:, 40:] == 0).all()
    with pytest.raises(KeyError):
        Pictures(lambda n: picture, 3, 64)[3]


def test_a_slice_seen_before_is_not_encoded_again_and_undo_gives_the_same_voxels(folder):
    scan = head(GRIDS["anisotropic"])
    first = mri.Prompts((mri.Point((4, -7, 11)),))
    with opened(scan, folder) as session:
        one = session.answer(first)
        count = session._inner.features.encoded
        two = session.answer(first.plus(mri.Point((10, -7, 11), False)))
        assert session._inner.features.encoded == count
        three = session.answer(first)
        assert session._inner.features.encoded == count
        assert 0 <= session.score <= 1
    np.testing.assert_array_equal(one.data, three.data)
    assert not np.array_equal(one.data, two.data)


def test_ranges_boxes_and_reach_bound_what_is_followed(folder):
    scan = head(Grid.plain((40, 40, 40), (2, 2, 2)))
    middle = mri.Point(tuple(scan.grid.to_patient((20, 20, 20))))
    with opened(scan, folder, plane="axial") as session:
        whole = session.answer(mri.Prompts((middle,)))
        low = float(scan.grid.to_patient((0, 0, 19))[2])
        part = session.answer(mri.Prompts((mri.Slab((0, 0, 1), low - 1, low + 5), middle)))
    assert np.flatnonzero(whole.data.any(axis=(0, 1))).tolist() == list(range(16, 25))
    assert np.flatnonzero(part.data.any(axis=(0, 1))).tolist() == [19, 20, 21]
    with opened(scan, folder, plane="axial", reach=0.0) as session:
        one = session.answer(mri.Prompts((middle,)))
    assert np.flatnonzero(one.data.any(axis=(0, 1))).tolist() == [20]


def test_following_stops_where_the_object_is_gone_or_another(folder, monkeypatch):
    from napari_mri.nets import sam2 as nets

    scan = head(Grid.plain((40, 40, 40), (2, 2, 2)))
    start = {20: 10, 21: 10, 22: 9, 23: 30, 24: 30, 19: 10, 18: 0, 17: 10}

    def follow(self, number, *, back=False):
        mask = np.zeros(self.size, bool)
        side = start.get(number, 10)
        mask[:side, :side] = True
        return mask, 0.2 if number == 22 and unsure else 0.9

    monkeypatch.setattr(nets.Following, "follow", follow)
    prompts = mri.Prompts((mri.Point(tuple(scan.grid.to_patient((20, 20, 20)))),))
    for unsure, last in ((False, 22), (True, 21)):  # noqa: B007  (`follow` reads it)
        with opened(scan, folder, plane="axial", least=0.5, overlap=0.5, reach=30.0) as session:
            mask = session.answer(prompts)
        assert np.flatnonzero(mask.data.any(axis=(0, 1))).tolist() == list(range(19, last + 1))


def test_two_prompted_slices_are_joined_and_a_mask_is_taken(folder):
    scan = head(Grid.plain((40, 40, 40), (2, 2, 2)))
    ends = [mri.Point(tuple(scan.grid.to_patient((20, 20, n)))) for n in (14, 26)]
    with opened(scan, folder, plane="axial", reach=12.0) as session:
        joined = session.answer(mri.Prompts(tuple(ends)))
        drawn = np.zeros(scan.grid.shape, bool)
        drawn[10:25, 12:30, 20] = True
        given = session.answer(mri.Prompts((mri.Mask.of(drawn, scan.grid),)))
    slices = np.flatnonzero(joined.data.any(axis=(0, 1)))
    assert slices.min() == 8
    assert slices.max() == 32
    assert dice(given.data[..., 20], drawn[..., 20]) > 0.85


@pytest.mark.parametrize("name", GRIDS)
def test_answers_come_home_and_can_be_made_again(name, folder):
    scan = head(GRIDS[name])
    with opened(scan, folder, reach=6.0) as session:
        mask = session.answer(mri.Prompts((mri.Point((4, -7, 11)),)))
    assert mask.grid.same(scan.grid)
    assert mask.data.any()
    from napari_mri import tasks

    np.testing.assert_array_equal(tasks.replay(mask.history[-1], scan).result.data, mask.data)


def test_wrong_folders_are_told(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    scan = head(GRIDS["plain"])
    with pytest.raises(WeightsProblem, match="No SAM 2 folder"):
        mri.open_session(scan, model="sam2")
    with pytest.raises(WeightsProblem, match="does not hold"):
        opened(scan, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    save_file({}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsProblem, match="'bert'"):
        opened(scan, tmp_path)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    del tensors[next(iter(tensors))]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsProblem, match="1 tensors are missing"):
        opened(scan, tmp_path)


def test_a_volume_is_not_copied_for_the_network(folder):
    scan = Volume(np.zeros((16, 16, 300), np.float32), Grid.plain((16, 16, 300)))
    with opened(scan, folder, plane="axial", reach=0.0) as session:
        session.answer(mri.Prompts((mri.Point((8, 8, 150)),)))
        assert session._inner.features.encoded == 1
