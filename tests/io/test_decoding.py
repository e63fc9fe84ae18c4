"""Decoders that give up do so as Python code does; the one that ends the process is asked last."""

import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.errors import BytesLengthException
from pydicom.uid import JPEGLosslessSV1, JPEGLSLossless, RLELossless

from fuzz.worker import outcome
from napari_mri.io.decoding import _check, plugin_for, tamed
from napari_mri.io.jpeg import segments, sound
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


def test_only_the_frames_that_are_wanted_are_checked(monkeypatch, tmp_path):
    path = tmp_path / "a.dcm"
    path.write_bytes(b"")
    frames = [b"good", b"bad", b"good", b"unseen"]
    met = []
    monkeypatch.setattr("pydicom.encaps.generate_frames", lambda file, number_of_frames: iter(frames[:number_of_frames]))

    def good(frame):
        met.append(frame)
        return frame != b"bad"

    elements = SimpleNamespace(pixels_at=0)
    _check(path, elements, 4, [2], good, "damaged")
    assert met == [b"good"]
    _check(path, elements, 4, [], good, "damaged")
    for wanted in (None, [1], [0, 1, 2]):
        with pytest.raises(ValueError, match="damaged"):
            _check(path, elements, 4, wanted, good, "damaged")
    assert b"unseen" not in met


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


def test_a_file_header_without_its_length_ends_in_a_sentence_that_quotes_nothing(tmp_path):
    raw = packed(tmp_path / "a.dcm", RLELossless)
    assert raw[132:140] == b"\x02\x00\x00\x00UL\x04\x00"
    (tmp_path / "a.dcm").write_bytes(raw[:136] + b"UN\x00\x00" + raw[140:])  # swallows the header up to its end
    word, details = outcome(tmp_path / "a.dcm")
    assert word in ("refused", "volume"), details
    with pytest.raises(RuntimeError, match=r"the header is damaged\.$"), tamed():
        raise BytesLengthException("Doe^Jane")


def lossless(path, stream):
    """Write a slice whose pixels are said to be lossless JPEG."""
    from pydicom.encaps import encapsulate

    packed(path, RLELossless, 16)
    ds = dcmread(path)
    ds.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    ds.PixelData = encapsulate([stream])
    ds["PixelData"].VR = "OB"
    ds.save_as(path, enforce_file_format=True)


def test_lossless_jpeg_that_leads_to_no_scan_never_reaches_the_decoder_that_would_end_the_process(tmp_path):
    head = b"\xff\xd8\xff\xc3\x00\x0b\x10\x00\x10\x00\x10\x01\x01\x11\x00"
    table = b"\xff\xc4\x00\x14\x00\x01" + b"\x00" * 15 + b"\x06"
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00"
    whole = head + table + scan
    assert [mark for mark, _ in segments(whole)] == [0xC3, 0xC4, 0xDA]
    assert sound(whole, 16, 16, 16)
    assert sound(b"\xff\xd8\xff" + whole[2:], 16, 16, 16)  # marks may be led in
    assert not sound(whole, 16, 17, 16)
    assert not sound(whole, 16, 16, 8)
    # Whatever byte of the head is changed, what still passes agrees with itself.
    passed = [n for n in range(2, len(whole)) if sound(whole[:n] + bytes([whole[n] ^ 0x40]) + whole[n + 1 :], 16, 16, 16)]
    assert len(passed) <= 4, passed
    deep = whole.replace(b"\xff\xc3\x00\x0b\x10", b"\xff\xc3\x00\x0b\x55")  # 85 bits: gdcm writes past its memory
    for stream in (deep, head + b"\xab" * 60, head, b"\xff\xd8" + scan, head + head[2:] + scan, b"\x00\x00", head + table[:9]):
        lossless(tmp_path / "a.dcm", stream)
        ended = subprocess.run(
            [sys.executable, "-c", "import sys\nfrom pathlib import Path\nfrom fuzz.worker import outcome\n"
             "print(outcome(Path(sys.argv[1]))[0])", str(tmp_path / "a.dcm")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.stdout.strip() == "refused", ended.stderr
