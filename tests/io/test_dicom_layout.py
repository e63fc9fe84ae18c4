"""The leap over a header like the one before must find the very same as a walk."""

import numpy as np
import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from napari_mri.core.errors import BrokenFile
from napari_mri.io.dicom_bytes import walk_file
from napari_mri.io.dicom_header import SEQUENCES, WANTED
from napari_mri.io.dicom_layout import Layout
from napari_mri.io.files import load
from tests.io.series import ramp, write_series
from tests.scans import grid_of


def outcome(path, layout=None):
    try:
        found = walk_file(path, WANTED, SEQUENCES, layout)
    except BrokenFile:
        return "broken"
    if found is None:
        return None
    return found.values, found.pixels_tag, found.pixels_at, found.pixels_length, found.syntax


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_lengths_that_differ_and_elements_that_come_and_go(tmp_path, syntax):
    def edit(ds, k):
        ds.file_meta.TransferSyntaxUID = syntax
        ds.ImageComments = "x" * (2 * k)
        ds.SeriesDescription = "y" * k
        if k % 3 == 0:
            ds.EchoTime = str(k)
        if k % 5 == 0:
            ds.ReferencedImageSequence = []

    layout = Layout()
    for path in write_series(tmp_path, ramp((6, 5, 40)), grid_of((6, 5, 40), (1, 1, 1)), edit):
        assert outcome(path, layout) == outcome(path)
    assert len(layout.at) > 20


def test_scrambled_headers_come_out_alike(tmp_path):
    paths = write_series(tmp_path, ramp((6, 5, 3)), grid_of((6, 5, 3), (1, 1, 1)))
    raw = paths[1].read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(150):
        layout = Layout()
        outcome(paths[0], layout)
        broken = bytearray(raw)
        for place in rng.integers(132, len(raw) - 60, rng.integers(1, 4)):
            broken[place] = rng.integers(0, 256)
        paths[1].write_bytes(bytes(broken[: rng.integers(200, len(raw))] if rng.random() < 0.3 else broken))
        assert outcome(paths[1], layout) == outcome(paths[1])


def test_small_files_are_kept_whole_while_there_is_room_and_large_ones_never(tmp_path):
    small = write_series(tmp_path / "small", ramp((6, 5, 4)), grid_of((6, 5, 4), (1, 1, 1)))
    layout = Layout(room=sum(path.stat().st_size for path in small[:3]))
    kept = [walk_file(path, WANTED, SEQUENCES, layout).whole for path in small]
    assert [path.read_bytes() for path in small[:3]] == kept[:3]
    assert kept[3] is None
    large = write_series(tmp_path / "large", ramp((200, 200, 1)), grid_of((200, 200, 1), (1, 1, 1)))
    assert walk_file(large[0], WANTED, SEQUENCES, Layout()).whole is None


def test_voxels_are_the_same_kept_whole_or_read_again(tmp_path, monkeypatch):
    data = ramp((6, 5, 7))
    write_series(tmp_path, data, grid_of((6, 5, 7), (1, 1, 1)))
    kept = load(tmp_path).data
    monkeypatch.setattr(Layout, "keeps", lambda self, n_bytes: False)
    again = load(tmp_path).data
    assert np.array_equal(kept, again)
    assert kept.flags.writeable
