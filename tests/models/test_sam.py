"""SAM's whole road on a tiny twin with random weights, and its slice-to-slice rules on a stub that sees brightness."""

import subprocess
import sys
import threading

import numpy as np
import pytest

import napari_mri as mri
from napari_mri.core.errors import BadPrompt, WeightsProblem
from napari_mri.core.grid import Grid
from napari_mri.core.model import Session
from napari_mri.core.volume import Volume
from napari_mri.engine.embeddings import Embeddings, key_of
from napari_mri.engine.runtime import LocalRuntime
from napari_mri.models._sam_asked import Asked
from napari_mri.models._sam_predict import Found
from napari_mri.models._sam_slices import PLANES, Plane, window_of
from napari_mri.models.sam import FileParams, Slicing
from tests.scans import GRIDS, blob, dice, grid_of, head

pytest.importorskip("torch")
pytest.importorskip("segment_anything")


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory):
    from safetensors.torch import save_file

    from napari_mri.nets.sam import tiny

    path = tmp_path_factory.mktemp("sam") / "tiny.safetensors"
    save_file({k: v.contiguous() for k, v in tiny(3).state_dict().items()}, path)
    return path


class Bright:
    """Stands in for the network: the bright piece under the first point or in the box."""

    side = 64

    class sam:
        sha256, profile = "bright", "sam"

    def __init__(self):
        self.lock = threading.Lock()
        self.seen = 0

    def encode(self, picture):
        with self.lock:
            self.seen += 1
        return picture[..., 0].astype(np.float16)

    def _sizes(self, size):
        return size

    def ask(self, embedding, size, asked):
        from scipy.ndimage import label

        pieces, _ = label(embedding > 128)
        if asked.box is not None:
            x1, y1, x2, y2 = np.rint(asked.box).astype(int)
            window = np.zeros(pieces.shape, bool)
            window[max(0, y1) : y2 + 1, max(0, x1) : x2 + 1] = True
            mask = (pieces > 0) & window
        else:
            x, y = np.rint(asked.points[asked.positive][0]).astype(int)
            mask = (pieces == pieces[y, x]) & (pieces > 0)
        for x, y in np.rint(asked.points[~asked.positive]).astype(int):
            mask &= pieces != pieces[y, x]
        return Found(mask, 0.9, np.where(mask, 10.0, -10.0)[None].astype(np.float32))


def session(scan, **params):
    there = scan.turned("RAS")
    return Slicing(there, FileParams(**params), LocalRuntime("cpu"), Bright())


def ball(grid, centre=(4, -7, 11), radius=24.0):
    truth = blob(grid, centre, (radius,) * 3)
    return Volume((truth * 200 + 20).astype(np.float32), grid), truth


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("name", GRIDS)
def test_one_click_carries_through_a_ball_in_each_plane(name, plane):
    scan, truth = ball(GRIDS[name], radius=34.0)
    mask = session(scan, plane=plane, reach=60.0).answer(mri.Prompts((mri.Point((4, -7, 11)),)))
    expected = truth if name == "plain" else scan.with_labels(truth).turned("RAS").data
    assert dice(mask.data, expected) > 0.95


def test_a_click_lands_on_the_voxel_it_was_meant_for():
    grid = grid_of((21, 25, 17), (1.0, 2.0, 3.5), "RAS", (8, 0, 5))
    for axis in range(3):
        plane = Plane(grid, axis)
        data = np.zeros(grid.shape, np.float32)
        voxel = (13, 4, 9)
        data[voxel] = 1000
        picture = plane.picture(data, voxel[axis], window_of(np.array([0.0, 1000.0])))
        x, y = np.rint(plane.to_picture(np.array(voxel))[0]).astype(int)
        assert picture[y, x, 0] > 0.7 * picture.max() > 0
        rows, columns = plane.size
        assert abs(rows * plane.pixel - grid.size_mm[plane.across[0]]) <= plane.pixel
        assert abs(columns * plane.pixel - grid.size_mm[plane.across[1]]) <= plane.pixel


def test_masks_come_home_as_they_went():
    grid = grid_of((21, 25, 17), (1.0, 2.0, 3.5))
    for axis in range(3):
        plane = Plane(grid, axis)
        mask = np.take(blob(grid, (4, -7, 11), (6, 12, 14)), grid.shape[axis] // 2, axis=axis)
        assert mask.any()
        np.testing.assert_array_equal(plane.home(plane.away(mask)), mask)


def test_reach_and_box_bound_what_is_carried():
    scan, _ = ball(Grid.plain((40, 40, 40), (2, 2, 2)), (40, 40, 40), 30.0)
    middle = mri.Point((40, 40, 40))
    there = session(scan, reach=8.0).answer(mri.Prompts((middle,)))
    slices = np.flatnonzero(there.data.any(axis=(0, 1)))
    assert (slices[0], slices[-1]) == (16, 24)
    alone = session(scan, reach=0.0).answer(mri.Prompts((middle,)))
    assert np.flatnonzero(alone.data.any(axis=(0, 1))).tolist() == [20]
    box = mri.Box((5, 5, 30), (75, 75, 46))
    boxed = session(scan, reach=100.0).answer(mri.Prompts((box,)))
    slices = np.flatnonzero(boxed.data.any(axis=(0, 1)))
    assert (slices[0], slices[-1]) == (15, 23)


def test_two_boxes_on_one_slice_are_two_parts():
    data = np.full((40, 40, 20), 20, np.float32)
    data[5:12, 15:25, 6:14] = data[28:35, 15:25, 6:14] = 220
    scan = Volume(data, Grid.plain(data.shape, (2, 2, 2)))
    left, right = mri.Box((8, 28, 12), (24, 50, 28)), mri.Box((54, 28, 12), (70, 50, 28))
    each = [session(scan, plane="axial", reach=0.0).answer(mri.Prompts(boxes)).data for boxes in ((left,), (right,), (left, right), (right, left))]
    assert each[0].any()
    assert each[1].any()
    assert not (each[0] & each[1]).any()
    assert np.array_equal(each[2], each[0] | each[1])
    assert np.array_equal(each[3], each[2])


def test_points_go_with_the_box_they_lie_in():
    boxes = (np.array([0.0, 0, 10, 10]), np.array([20.0, 0, 30, 10]))
    points = np.array([[5.0, 5], [25, 5], [15, 5], [26, 6]])
    asked = Asked(points, np.array([True, True, True, False]), np.array([0.0, 0, 30, 10]), boxes=boxes)
    first, second = asked.parts()
    assert first.points.tolist() == [[5, 5], [15, 5], [26, 6]]
    assert second.points.tolist() == [[25, 5], [15, 5], [26, 6]]
    assert Asked(points, asked.positive, boxes[0]).parts()[0].points is points


def test_a_range_of_slices_bounds_what_is_carried_and_saves_the_work_beyond():
    scan, _ = ball(Grid.plain((40, 40, 40), (2, 2, 2)), (40, 40, 40), 30.0)
    one = session(scan, plane="axial", reach=100.0, cache=0)
    one.bounds = (mri.Slab((0, 0, -1), -45.0, -35.0),)
    mask = one.answer(mri.Prompts((mri.Point((40, 40, 40)),)))
    assert np.flatnonzero(mask.data.any(axis=(0, 1))).tolist() == [18, 19, 20, 21, 22]
    assert one.encoded == 5
    across = session(scan, plane="axial", reach=4.0)
    across.bounds = (mri.Slab((1, 0, 0), 30.0, 45.0),)  # along another axis: tasks cuts it
    assert across.answer(mri.Prompts((mri.Point((40, 40, 40)),))).data.any(axis=(0, 1)).sum() == 5


def test_carrying_stops_where_the_object_jumps_in_size():
    data = np.full((40, 40, 20), 20, np.float32)
    data[15:25, 15:25, 5:10] = 220
    data[2:38, 2:38, 10:] = 220
    scan = Volume(data, Grid.plain(data.shape, (1, 1, 1)))

    class Whole(Bright):
        def ask(self, embedding, size, asked):
            mask = embedding > 128
            return Found(mask, 0.9, np.zeros((1, 16, 16), np.float32))

    one = Slicing(scan, FileParams(reach=50.0), LocalRuntime("cpu"), Whole())
    mask = one.answer(mri.Prompts((mri.Point((20, 20, 7)),)))
    assert np.flatnonzero(mask.data.any(axis=(0, 1))).tolist() == [5, 6, 7, 8, 9]


def test_a_low_expected_overlap_stops_at_once():
    class Unsure(Bright):
        def ask(self, embedding, size, asked):
            found = super().ask(embedding, size, asked)
            return Found(found.mask, 0.3, found.logits)

    scan, _ = ball(Grid.plain((40, 40, 40), (2, 2, 2)), (40, 40, 40), 30.0)
    one = Slicing(scan, FileParams(reach=50.0), LocalRuntime("cpu"), Unsure())
    mask = one.answer(mri.Prompts((mri.Point((40, 40, 40)),)))
    assert mask.data.any(axis=(0, 1)).sum() == 1


def test_two_prompted_slices_are_joined():
    data = np.full((30, 30, 30), 20, np.float32)
    data[10:20, 10:20, 5:25] = 220
    data[12:14, 10:20, 15] = 20
    scan = Volume(data, Grid.plain(data.shape, (1, 1, 1)))
    prompts = mri.Prompts((mri.Point((17, 15, 8)), mri.Point((17, 15, 22))))
    mask = session(scan, plane="axial", reach=10.0).answer(prompts)
    assert np.flatnonzero(mask.data.any(axis=(0, 1))).tolist() == list(range(5, 25))


def test_a_negative_click_on_another_slice_holds_there():
    data = np.full((40, 40, 12), 20, np.float32)
    data[5:15, 10:30, 2:10] = 220
    data[22:35, 10:30, 2:10] = 220
    scan = Volume(data, Grid.plain(data.shape, (1, 1, 1)))

    class Both(Bright):
        def ask(self, embedding, size, asked):
            wide = type(asked)(asked.points, asked.positive, np.array([0, 0, 40, 40]), asked.before)
            return super().ask(embedding, size, wide)

    one = Slicing(scan, FileParams(reach=50.0, overlap=0.0), LocalRuntime("cpu"), Both())
    mask = one.answer(mri.Prompts((mri.Point((10, 20, 4)), mri.Point((28, 20, 7), False))))
    assert mask.data[28, 20, 4] == 1
    assert mask.data[28, 20, 7] == 0
    assert mask.data[10, 20, 7] == 1


def test_the_twin_answers_as_the_packages_own_predictor(tiny_file):
    from segment_anything import SamPredictor

    from napari_mri.engine import weights
    from napari_mri.nets.sam import build, shape_of

    state = weights.load(tiny_file)
    net = build(shape_of(state))
    net.load_state_dict(state)
    scan = head(grid_of((61, 67, 59), (2.0, 2.0, 2.0)))
    bare = SamPredictor(net)
    # The package looks the side up in a fixed table only for its official sizes.
    bare.transform.target_length = net.image_encoder.img_size
    for name, axis in PLANES.items():
        plane = Plane(scan.grid, axis)
        voxel = np.array([30, 33, 29])
        point = plane.to_picture(voxel)
        bare.set_image(plane.picture(scan.data, int(voxel[axis]), window_of(scan.data)))
        mask, _, _ = bare.predict(point, np.array([1]), multimask_output=False)
        xyz = tuple(scan.grid.to_patient(voxel))
        params = {"checkpoint": str(tiny_file), "profile": "sam", "plane": name, "reach": 0.0}
        with mri.open_session(scan, model="sam", device="cpu", **params) as s:
            ours = s.answer(mri.Prompts((mri.Point(xyz),)))
        theirs = plane.home(mask[0])
        mine = np.take(ours.data, voxel[axis], axis=axis) > 0
        both, either = (mine & theirs).sum(), (mine | theirs).sum()
        assert either > 0
        assert both / either >= 0.99


def test_a_slice_seen_before_is_not_encoded_again(tiny_file):
    scan = head(GRIDS["anisotropic"])
    params = {"checkpoint": str(tiny_file), "profile": "sam", "reach": 0.0}
    first, second = mri.Prompts((mri.Point((4, -7, 11)),)), mri.Prompts((mri.Point((10, -7, 11)),))
    with mri.open_session(scan, model="sam", device="cpu", **params) as s:
        s.answer(first)
        s.answer(second)
        assert s._inner.encoded == 1
    with mri.open_session(scan, model="sam", device="cpu", **params) as s:
        s.answer(first)
        assert s._inner.encoded == 0
    with mri.open_session(scan, model="sam", device="cpu", **{**params, "profile": "medsam"}) as s:
        s.answer(first)
        assert s._inner.encoded == 1


def test_profiles_are_recognised_or_refused(tiny_file, tmp_path):
    import torch

    from napari_mri.engine import weights
    from napari_mri.models._sam_files import opened

    with pytest.raises(WeightsProblem, match="told apart"):
        opened(tiny_file, None, "auto", "cpu")
    with pytest.raises(WeightsProblem, match="position embedding"):
        opened(tiny_file, None, "lvm-med", "cpu")
    state = weights.load(tiny_file)
    bare = {k.removeprefix("image_encoder."): v for k, v in state.items() if k.startswith("image_encoder.")}
    del bare["pos_embed"]
    encoder = tmp_path / "encoder.pth"
    torch.save({k: v + 0.01 for k, v in bare.items()}, encoder)
    laid = opened(tiny_file, encoder, "auto", "cpu")
    assert laid.profile == "lvm-med"
    assert laid.net.image_encoder.pos_embed is None
    with pytest.raises(WeightsProblem, match="encoder only"):
        opened(encoder, None, "auto", "cpu")
    with pytest.raises(WeightsProblem, match="is no sam"):
        opened(tiny_file, encoder, "sam", "cpu")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsProblem, match="no SAM"):
        opened(tmp_path / "other.pth", None, "auto", "cpu")
    torch.save({**bare, "blocks.0.attn.rel_pos_h": torch.zeros(3, 3)}, encoder)
    with pytest.raises(WeightsProblem, match="does not fit"):
        opened(tiny_file, encoder, "auto", "cpu")


def test_no_file_or_a_missing_one_is_told(tmp_path):
    scan = head(GRIDS["plain"])
    with pytest.raises(WeightsProblem, match="No SAM file"):
        mri.open_session(scan, model="sam")
    with pytest.raises(WeightsProblem, match="There is no file"):
        mri.open_session(scan, model="sam", checkpoint=str(tmp_path / "x.pth"))
    with pytest.raises(WeightsProblem, match="fetch sam-b"):
        mri.open_session(scan, model="sam-b")


def test_a_mask_prompt_reaches_the_largest_slice():
    scan, truth = ball(Grid.plain((40, 40, 40), (2, 2, 2)), (40, 40, 40), 24.0)
    mask = session(scan, reach=60.0).answer(mri.Prompts((mri.Mask.of(truth, scan.grid),)))
    assert dice(mask.data, truth) > 0.95


def test_marks_beside_the_scan_are_refused():
    scan, _ = ball(GRIDS["plain"])
    with pytest.raises(BadPrompt, match="lies in the scan"):
        session(scan).answer(mri.Prompts((mri.Point((500, 0, 0)),)))


def test_embeddings_keep_the_latest_in_memory_and_on_disk(tmp_path):
    cache = Embeddings(memory_mb=0.005, disk_mb=0.012, place=tmp_path)
    arrays = {key_of("scan", n): np.full((1000,), n, np.float32) for n in range(8)}
    for key, array in arrays.items():
        cache.put(key, array)
    keys = list(arrays)
    assert cache._bytes <= 5000
    assert cache.get(keys[0]) is None
    np.testing.assert_array_equal(cache.get(keys[-1]), arrays[keys[-1]].astype(np.float16))
    assert sum(f.stat().st_size for f in tmp_path.glob("*.npy")) <= 12_000
    again = Embeddings(memory_mb=1, disk_mb=1, place=tmp_path)
    assert again.get(keys[-1]) is not None
    next(tmp_path.glob(f"{keys[-1]}.npy")).write_bytes(b"cut off")
    assert Embeddings(place=tmp_path).get(keys[-1]) is None
    assert not (tmp_path / f"{keys[-1]}.npy").exists()


HAMMER = """
import sys
from pathlib import Path
import numpy as np
from napari_mri.engine.embeddings import Embeddings, key_of
cache = Embeddings(memory_mb=0, disk_mb=0.05, place=Path(sys.argv[1]))
rng = np.random.default_rng(int(sys.argv[2]))
for _ in range(60):
    n = int(rng.integers(20))
    found = cache.get(key_of(n))
    assert found is None or (found == n).all()
    cache.put(key_of(n), np.full(2000, n, np.float16))
"""


def test_two_processes_share_a_folder(tmp_path):
    others = [subprocess.Popen([sys.executable, "-c", HAMMER, str(tmp_path), str(n)]) for n in range(2)]
    assert [other.wait(200) for other in others] == [0, 0]
    assert not list(tmp_path.glob("*.part"))
    assert list(tmp_path.glob("*.npy"))


def test_a_session_has_no_score_before_its_first_answer():
    assert Session.score is None
