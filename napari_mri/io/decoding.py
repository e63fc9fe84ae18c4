"""Makes decoders of compressed pixels fail as Python code does, whatever language they are written in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from napari_mri.io.dicom_bytes import Elements
from napari_mri.io.jpeg import sound

JPEG_LS = frozenset(("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"))
JPEG_LOSSLESS = frozenset(("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"))


@contextmanager
def tamed() -> Iterator[None]:
    """Turn what neither Python nor its users expect of a decoder into a RuntimeError.

    That is the panic of one written in Rust, which no ``except Exception`` catches, and pydicom's own errors about
    a damaged header, which are of no common kind and quote what they found there.
    """
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        yield
    except (BytesLengthException, InvalidDicomError):
        raise RuntimeError("The decoder gave up: the header is damaged.") from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"The decoder gave up: {error}") from error


@cache
def plugin_for(syntax: str) -> str:
    """Return the decoder that pydicom should use for a transfer syntax; empty for its own choice.

    Left to itself pydicom tries one after another, and gdcm, which ends the whole process on some
    damaged streams, gets every stream that the others refuse. So it is used only where it is alone, and on streams
    whose head is whole (see `pages`).

    Parameters
    ----------
    syntax : str
        Transfer syntax UID.
    """
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    try:
        available = get_decoder(UID(syntax)).available_plugins
    except NotImplementedError:
        return ""
    return next((name for name in available if name != "gdcm"), "")


def pages(
    path: Path, elements: Elements, size: tuple[int, int, int, int], wanted: list[int] | None = None
) -> Iterator[NDArray[Any]]:
    """Yield the frames of a compressed DICOM file as they are stored, by pydicom and its plugins.

    Parameters
    ----------
    path : Path
    elements : Elements
        Of that file.
    size : tuple of int
        How many frames it tells of, their rows and columns, and the bits of a stored value.
    wanted : list of int, optional
        Which of them; all by default.

    Raises
    ------
    RuntimeError, ValueError and others of the decoders
        If a frame cannot be unpacked.
    """
    from pydicom.pixels import iter_pixels

    if elements.syntax in JPEG_LS:  # CharLS goes on for seconds to hours behind the end of such a stream
        _check(path, elements, size[0], wanted, lambda frame: b"\xff\xd9" in frame, "The JPEG-LS stream has no end.")
    if elements.syntax in JPEG_LOSSLESS:  # gdcm, alone here, ends the process on a head that does not hold together
        _check(path, elements, size[0], wanted, lambda frame: sound(frame, *size[1:]), "The JPEG stream's head is damaged.")
    with tamed():
        yield from iter_pixels(path, raw=True, indices=wanted, decoding_plugin=plugin_for(elements.syntax))


def _check(
    path: Path, elements: Elements, count: int, wanted: list[int] | None, good: Callable[[bytes], bool], otherwise: str
) -> None:
    """Refuse a file with a compressed frame, among those wanted, that its decoder must not see."""
    from pydicom.encaps import generate_frames

    asked = range(count) if wanted is None else wanted
    with open(path, "rb") as file:
        file.seek(elements.pixels_at)
        frames = islice(generate_frames(file, number_of_frames=count), max(asked, default=-1) + 1)
        if not all(good(frame) for number, frame in enumerate(frames) if number in asked):
            raise ValueError(otherwise)
