"""Tables of label names, and the label conventions of data sets."""

from dataclasses import replace

import numpy as np
import pytest

from napari_mri.core.errors import BadOption, BrokenFile, FileProblem
from napari_mri.core.volume import Labels
from napari_mri.io.conventions import ALL, dressed, find, named, suggested
from napari_mri.io.files import load_labels, save
from napari_mri.io.label_tables import LabelTable, read_table, with_table, write_table
from tests.scans import GRIDS

TABLE = LabelTable(
    {1: "grey matter", 4: "tumour core", 1035: "insula"}, {1: (1.0, 0.0, 0.0), 4: (0.0, 0.5, 1.0)}
)


def labels_of(*values):
    data = np.zeros(GRIDS["plain"].shape, np.uint16)
    data.ravel()[: len(values)] = values
    return Labels(data, GRIDS["plain"])


@pytest.mark.parametrize(
    ("kind", "blank"), [("itksnap", " "), ("slicer", "_"), ("freesurfer", "-"), ("bids", " ")]
)
def test_tables_come_back(tmp_path, kind, blank):
    write_table(TABLE, tmp_path / "t.txt", kind)
    back = read_table(tmp_path / "t.txt")
    assert {v: n for v, n in back.names.items() if v} == {
        v: n.replace(" ", blank) for v, n in TABLE.names.items()
    }
    assert back.colors[4] == pytest.approx(TABLE.colors[4], abs=1 / 255)


FOREIGN = {
    "itksnap": '# ITK-SnAP\n    0     0    0    0        0  0  0    "Clear Label"\n    7   255  128    0      0.5  1  1    "Label, 7"\n',
    "slicer": "# Color table file /tmp/x.txt\n0 Background 0 0 0 0\n7 Label,_7 255 128 0 255\n",
    "freesurfer": "#$Id: x $\n\n#No. Label Name:   R   G   B   A\n7   Label,-7    255 128 0   0\n",
    "freesurfer with a tissue column": "7   Label,-7    255 128 0   0   3\n",
    "bids": "index\tname\tabbreviation\tcolor\n7\tLabel, 7\tL7\t#ff8000\n",
    "bids in another order": "name\tmapping\tcolor\tindex\nLabel, 7\t1\t#ff8000\t7\n",
}


@pytest.mark.parametrize("who", FOREIGN)
def test_tables_of_other_programs(tmp_path, who):
    (tmp_path / "t").write_text(FOREIGN[who])
    table = read_table(tmp_path / "t")
    assert table.names[7].replace("_", " ").replace("-", " ") == "Label, 7"
    assert table.colors[7] == pytest.approx((1.0, 128 / 255, 0.0), abs=1e-6)


@pytest.mark.parametrize("text", ["", "hello\nworld\n", "\0\1\2", "1 2 3\n"])
def test_what_is_no_table_is_refused(tmp_path, text):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(BrokenFile, match="not a table"):
        read_table(tmp_path / "t.txt")
    with pytest.raises(FileProblem):
        read_table(tmp_path / "nowhere.txt")
    with pytest.raises(FileProblem, match="kind"):
        write_table(TABLE, tmp_path / "t.txt", "excel")


def test_a_table_changes_no_value():
    labels = labels_of(1, 4)
    after = with_table(labels, TABLE)
    assert after.data is labels.data
    assert after.names[4] == "tumour core"


def test_the_names_of_data_sets():
    assert find("brats").names[4] == find("brats2023").names[3] == "enhancing tumour"
    spider = find("spider").names
    assert (spider[100], spider[201]) == ("spinal canal", "disc below vertebra 1")
    assert find("amos").names[6] == "liver"
    assert find("total-mr").names[50] == find("total").names[90] == "brain"
    assert len(find("total").names) == 117
    surfer = find("freesurfer").names
    assert (surfer[17], surfer[53], surfer[1035]) == (
        "Left-Hippocampus",
        "Right-Hippocampus",
        "ctx-lh-insula",
    )
    assert find("acdc").names[2] == "left ventricular myocardium"
    assert len({one.name for one in ALL}) == len(ALL)
    with pytest.raises(BadOption, match="brats2023"):
        find("nonsense")


@pytest.mark.parametrize(
    ("values", "path", "name"),
    [
        ((1, 2, 4), "BraTS2021_00000/BraTS2021_00000_seg.nii.gz", "brats"),
        ((1, 2, 3), "BraTS-GLI-00001-000/BraTS-GLI-00001-000-seg.nii.gz", "brats2023"),
        ((1, 2, 3), "training/patient001/patient001_frame01_gt.nii.gz", "acdc"),
        ((2, 41, 17), "mri/aseg.mgz", "freesurfer"),
        ((1, 100, 203), "spider/masks/1_t1.mha", "spider"),
        ((1, 2, 4), "home/me/mask.nii.gz", None),
        ((1, 2, 99), "BraTS2021_00000_seg.nii.gz", None),
        ((0,), "BraTS2021_00000_seg.nii.gz", None),
    ],
)
def test_a_convention_needs_the_path_and_the_values(values, path, name):
    found = suggested(values, path)
    assert (found.name if found else None) == name


def test_4_stays_4(tmp_path):
    (tmp_path / "BraTS2021_1").mkdir()
    path = tmp_path / "BraTS2021_1" / "BraTS2021_1_seg.nii.gz"
    save(labels_of(1, 2, 4), path, sidecar=False)
    labels = load_labels(path)
    assert labels.names[4] == "enhancing tumour"
    assert "guessed" in " ".join(labels.origin.warnings)
    save(labels, path)
    assert load_labels(path).values == (1, 2, 4)


def test_a_table_beside_the_file_comes_first(tmp_path):
    path = save(labels_of(1, 2, 4), tmp_path / "BraTS2021_seg.nii.gz", sidecar=False)
    write_table(LabelTable({4: "mine"}), tmp_path / "BraTS2021_seg.label", "itksnap")
    assert load_labels(path).names[4] == "mine"


def test_own_names_stay(tmp_path):
    labels = replace(labels_of(1, 2, 4), names={4: "own"})
    assert dressed(labels, tmp_path / "BraTS2021" / "a.nii.gz").names == {4: "own"}
    assert named(labels, find("brats")).names[4] == "own"
