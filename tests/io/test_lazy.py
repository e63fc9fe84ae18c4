"""Arrays that are read when they are looked at: the same values as numpy gives, and hardly any memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_mri.core.errors import BrokenFile, OutOfMemory
from napari_mri.core.grid import turn_array
from napari_mri.io import lazy, nifti
from napari_mri.io.files import load, save
from napari_mri.io.lazy import LazyArray, is_lazy, pyramid, sample_of

DATA = np.arange(5 * 7 * 6 * 4, dtype=np.int16).reshape(5, 7, 6, 4)


def watched(data=DATA):
    reads = []

    def read(slices):
        assert all(s.step > 0 for s in slices)
        reads.append(slices)
        return data[slices]

    return LazyArray.of(read, data.dtype, data.shape), reads


parts = st.one_of(
    st.integers(-4, 3), st.builds(slice, *[st.one_of(st.none(), st.integers(-5, 5))] * 2, st.sampled_from([None, 1, 2, -1, -2]))
)


@settings(max_examples=200, deadline=None)
@given(st.lists(parts, max_size=4), st.permutations(range(4)), st.lists(parts, max_size=3))
def test_cuts_and_turns_give_what_numpy_gives(first, order, second):
    array, _ = watched()
    want = DATA.transpose(order)[tuple(first)]
    have = array.transpose(*order)[tuple(first)]
    try:
        deeper = want[(*second, ...)]
    except IndexError:
        if np.ndim(want):
            with pytest.raises(IndexError):
                np.asarray(have[(*second, ...)])
    else:
        want, have = deeper, have[(*second, ...)]
    assert np.shape(have) == np.shape(want)
    np.testing.assert_array_equal(np.asarray(have), want)


def test_nothing_is_read_before_it_is_looked_at():
    array, reads = watched()
    turned = turn_array(array, (2, 0, 1), (True, False, True))
    plane = np.moveaxis(turned, 3, 0)[1, 2]
    assert reads == []
    np.testing.assert_array_equal(np.asarray(plane), np.moveaxis(turn_array(DATA, (2, 0, 1), (True, False, True)), 3, 0)[1, 2])
    assert len(reads) == 1
    assert np.prod([len(range(s.start, s.stop, s.step)) for s in reads[0]]) == plane.size


def test_arithmetic_and_sums_read_it():
    array, _ = watched()
    np.testing.assert_array_equal(array + 1, DATA + 1)
    np.testing.assert_array_equal(np.sqrt(array), np.sqrt(DATA))
    assert array.max() == DATA.max()
    assert array.sum() == DATA.sum()
    np.testing.assert_array_equal(array[DATA > 30], DATA[DATA > 30])
    assert array[0, 1, 2, 3] == DATA[0, 1, 2, 3]
    assert len(array) == 5
    with pytest.raises(IndexError):
        array[9]


def test_more_than_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(lazy, "physical_memory", lambda: 100)
    array, reads = watched()
    with pytest.raises(OutOfMemory):
        np.asarray(array)
    assert reads == []
    assert np.asarray(array[0, 0]).shape == (6, 4)


def test_big_fields_come_at_several_resolutions(tmp_path, monkeypatch):
    assert len(pyramid(DATA)) == 1
    monkeypatch.setattr(lazy, "BIG_BYTES", 1000)
    data = np.memmap(tmp_path / "x", np.int16, "w+", shape=(2, 600, 300, 40))
    data[...] = np.arange(600)[:, None, None]
    levels = pyramid(data)
    assert [level.shape for level in levels] == [(2, 600, 300, 40), (2, 300, 150, 20), (2, 150, 75, 10)]
    assert all(np.shares_memory(level, data) for level in levels)
    assert abs(float(levels[2][0, 10, 0, 0]) - 41.5) <= 0.5  # the middle of the four that it stands for


def test_a_sample_touches_little_of_a_file(monkeypatch):
    monkeypatch.setattr(lazy, "_SAMPLE_BYTES", 100)
    big = np.random.default_rng(0).normal(size=(64, 64, 64, 50)).astype(np.float32)
    array, reads = watched(big)
    some = sample_of(array)
    assert some.size > 1000
    touched = sum(np.prod([s.stop - s.start for s in slices]) for slices in reads)
    assert touched < big.size / 100
    np.testing.assert_allclose(np.percentile(some, (5, 95)), np.percentile(big, (5, 95)), atol=0.1)


def nii(tmp_path, dtype, slope=1.0, inter=0.0):
    import nibabel

    header = nibabel.Nifti1Header(endianness=">" if dtype.startswith(">") else "<")
    image = nibabel.Nifti1Image(DATA.astype(dtype), np.eye(4), header, dtype=np.dtype(dtype))
    image.header.set_slope_inter(slope, inter)
    raw = bytearray(image.to_bytes())
    raw[112:120] = np.array([slope, inter], (">" if dtype.startswith(">") else "<") + "f4").tobytes()
    (tmp_path / "a.nii").write_bytes(bytes(raw))
    return tmp_path / "a.nii"


@pytest.mark.parametrize(("dtype", "slope", "inter"), [("<i2", 0.5, 3.0), (">i2", 1.0, 0.0), (">i2", 2.0, -1.0)])
def test_scaled_and_swapped_niftis_are_lazy_where_they_are_big(tmp_path, monkeypatch, dtype, slope, inter):
    path = nii(tmp_path, dtype, slope, inter)
    whole = load(path)
    assert not is_lazy(whole.data)
    monkeypatch.setattr(nifti, "BIG_BYTES", 1000)
    piecewise = load(path)
    assert isinstance(piecewise.data, LazyArray)
    np.testing.assert_allclose(np.asarray(piecewise.data), whole.data)
    np.testing.assert_allclose(np.asarray(piecewise.turned("PIR").data), whole.turned("PIR").data)
    assert piecewise.data.dtype.isnative


def test_a_packed_file_that_is_big_says_what_it_costs(tmp_path, monkeypatch):
    import gzip

    path = nii(tmp_path, "<i2")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert load(tmp_path / "b.nii.gz").origin.warnings == ()
    monkeypatch.setattr(nifti, "_TOLD_BYTES", 1000)
    assert "unpacked into memory" in load(tmp_path / "b.nii.gz").origin.warnings[0]
    assert load(path).origin.warnings == ()
    monkeypatch.setattr(nifti, "physical_memory", lambda: 1000)
    with pytest.raises(OutOfMemory, match="Unpack it"):
        load(tmp_path / "b.nii.gz")
    load(path)


def test_a_lazy_file_that_is_cut_off_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "BIG_BYTES", 1000)
    path = nii(tmp_path, ">i2")
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BrokenFile):
        load(path)


def test_a_lazy_volume_is_a_volume_like_any_other(tmp_path, monkeypatch):
    path = nii(tmp_path, ">i2")
    whole = load(path)
    monkeypatch.setattr(nifti, "BIG_BYTES", 1000)
    piecewise = load(path)
    assert piecewise.fingerprint() == whole.fingerprint()
    assert piecewise.frame(2).fingerprint() == whole.frame(2).fingerprint()
    for ending in (".nii.gz", ".nrrd", ".mha", ".mgz"):
        save(piecewise, tmp_path / f"b{ending}")
        np.testing.assert_array_equal(load(tmp_path / f"b{ending}").data, whole.data)
    assert piecewise.with_labels(piecewise.data > 30).data.sum() == (whole.data > 30).sum()
