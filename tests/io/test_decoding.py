"""Decoders that give up do so as Python code does; the one that ends the process is asked last."""

import time

import numpy as np
import pytest
from pydicom.uid import JPEGLSLossless, RLELossless

from fuzz.worker import outcome
from napari_mri.io.decoding import plugin_for, tamed
from tests.io.series import header, set_pixels


class PanicException(BaseException):
    """Stands in for what a decoder written in Rust raises."""


def test_a_panic_becomes_an_ordinary_error_and_ctrl_c_stays():
    with pytest.raises(RuntimeError, match="gave up"), tamed():
        raise PanicException("index out of bounds")
    with pytest.raises(KeyboardInterrupt), tamed():
        raise KeyboardInterrupt


def test_gdcm_is_not_asked_where_another_decoder_is_there():
    pytest.importorskip("jpeg_ls")
    assert plugin_for(str(JPEGLSLossless)) not in ("gdcm", "")
    assert plugin_for("1.2.3.4") == ""


def packed(path, syntax, side=20):
    """Write one compressed slice of noise; return its bytes."""
    ds = header()
    set_pixels(ds, np.random.default_rng(0).integers(0, 900, (side, side)).astype(np.int16))
    ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing = [0, 0, 0], [1, 0, 0, 0, 1, 0], [1, 1]
    ds.SeriesInstanceUID = ds.StudyInstanceUID = "1.2.3"
    ds.compress(syntax)
    ds.save_as(path, enforce_file_format=True)
    return path.read_bytes()


def test_a_jpeg_ls_stream_without_its_end_is_refused_at_once(tmp_path):
    pytest.importorskip("jpeg_ls")
    path = tmp_path / "a.dcm"
    raw = packed(path, JPEGLSLossless, 256)
    assert outcome(path)[0] == "volume"
    start = raw.rfind(b"\xff\xd8\xff")
    for keep in (0.01, 0.3, 0.6, 0.99):
        path.write_bytes(raw[: start + int(keep * (len(raw) - start))])
        began = time.process_time()
        assert outcome(path)[0] == "refused"
        assert time.process_time() - began < 2  # CharLS alone takes 5 s


def test_damaged_rle_ends_in_a_sentence(tmp_path):
    raw = packed(tmp_path / "a.dcm", RLELossless)
    assert outcome(tmp_path / "a.dcm")[0] == "volume"
    start = raw.rfind(b"\xe0\x7f\x10\x00")
    rng = np.random.default_rng(1)
    words = set()
    for _ in range(150):
        broken = bytearray(raw)
        for at in rng.integers(start, len(raw), 3):
            broken[at] = rng.integers(256)
        (tmp_path / "a.dcm").write_bytes(broken)
        word, details = outcome(tmp_path / "a.dcm")
        assert word in ("volume", "refused"), details
        words.add(word)
    assert words == {"volume", "refused"}
