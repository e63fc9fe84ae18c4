"""The header layout and its affine, against nibabel's."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti1 import header_dtype as first
from nibabel.nifti2 import Nifti2Header
from nibabel.nifti2 import header_dtype as second
from nibabel.quaternions import quat2mat
from nibabel.spatialimages import HeaderDataError

from napari_mri.io.nifti_fields import FIRST, SECOND, best_affine, blank, set_qform


def test_the_layout_is_the_standards():
    assert newest(first) == FIRST
    assert newest(second) == SECOND
    assert (FIRST.itemsize, SECOND.itemsize) == (348, 540)


def newest(dtype):
    return dtype.newbyteorder("<")


@pytest.mark.parametrize(("kind", "record"), [(Nifti1Header, FIRST), (Nifti2Header, SECOND)])
def test_affines_are_nibabels(kind, record):
    rng = np.random.default_rng(0)
    agreed = refused = 0
    for n in range(400):
        header = kind(endianness="<")
        header.set_data_shape(tuple(rng.integers(1, 9, rng.integers(1, 5))))
        header["pixdim"][1:4] = rng.uniform(0.1, 3, 3)
        header["pixdim"][0] = rng.choice([-1, 1])
        header["sform_code"], header["qform_code"] = rng.integers(0, 2, 2)
        turn = rng.normal(size=4) * (0 if n % 3 == 0 else 1, 1, 1, 1)  # every third is half a turn
        turn /= np.linalg.norm(turn) * (0.9 if n % 11 == 0 else 1)  # some are too long
        for axis, value in zip("bcd", turn[1:], strict=True):
            header[f"quatern_{axis}"] = value
        for axis in "xyz":
            header[f"qoffset_{axis}"], header[f"srow_{axis}"] = rng.normal(), rng.normal(size=4)
        raw = np.frombuffer(header.binaryblock, record)[0]
        try:
            want = header.get_best_affine()
        except (HeaderDataError, ValueError):
            refused += 1
            with pytest.raises(ValueError, match=r"quaternion|spacing"):
                best_affine(raw)
            continue
        np.testing.assert_allclose(best_affine(raw), want, atol=1e-4 if record is FIRST else 1e-7)
        agreed += 1
    assert agreed > 250
    assert refused > 2


@pytest.mark.parametrize(("kind", "record"), [(Nifti1Header, FIRST), (Nifti2Header, SECOND)])
@given(
    turn=st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1),
    steps=st.lists(st.floats(0.1, 8), min_size=3, max_size=3),
    offset=st.lists(st.floats(-500, 500), min_size=3, max_size=3),
    mirrored=st.booleans(),
    shear=st.floats(-0.4, 0.4),
)
@example([0.0, 0.125, 1.0, 0.8511458354466925], [1.25, 1.0, 3.5], [0.0, 0.0, 0.0], False, 0.0)
def test_a_qform_is_written_as_nibabel_writes_it(kind, record, turn, steps, offset, mirrored, shear):
    affine = np.eye(4)
    affine[:3, :3] = quat2mat(turn) @ np.diag(steps) @ np.array([[1, shear, 0], [0, 1, 0], [0, 0, -1 if mirrored else 1]])
    affine[:3, 3] = offset
    shape = (3, 4, 5, 6)
    theirs = kind(endianness="<")
    theirs.set_data_shape(shape)
    theirs.set_qform(affine, code=1, strip_shears=True)
    ours = blank(record is SECOND, shape)
    set_qform(ours, affine)
    ours["qform_code"] = 1
    ours["datatype"], ours["bitpix"] = theirs["datatype"], theirs["bitpix"]
    back = kind(ours.tobytes())
    for field in record.names:
        if not field.startswith("quatern"):
            np.testing.assert_array_equal(np.asarray(back[field]), np.asarray(theirs[field]), err_msg=field)
    # Half a turn has two quaternions of opposite sign: what they mean is compared.
    try:
        want = theirs.get_qform()
    except ValueError:  # nibabel cannot read what it wrote itself: rounding made its quaternion longer than one
        back.get_qform()
        return
    np.testing.assert_allclose(back.get_qform(), want, atol=2e-3 if record is FIRST else 1e-6)
