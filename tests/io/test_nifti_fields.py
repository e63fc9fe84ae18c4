"""The header layout and its affine, against nibabel's."""

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti1 import header_dtype as first
from nibabel.nifti2 import Nifti2Header
from nibabel.nifti2 import header_dtype as second
from nibabel.spatialimages import HeaderDataError

from napari_mri.io.nifti_fields import FIRST, SECOND, best_affine


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
