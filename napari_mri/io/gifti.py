"""Reads and writes GIFTI surfaces, without what makes XML dangerous: entities and files outside."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, UnsupportedImage
from napari_mri.io.surfaces import Surface

_AGAIN = "Copy or export the file again."
_TYPES = {
    "NIFTI_TYPE_UINT8": "u1", "NIFTI_TYPE_INT32": "i4", "NIFTI_TYPE_FLOAT32": "f4", "NIFTI_TYPE_FLOAT64": "f8",
    "NIFTI_TYPE_UINT32": "u4", "NIFTI_TYPE_INT64": "i8",
}  # fmt: skip
_MOST_BYTES = 2_000_000_000


def is_gifti(head: bytes) -> bool:
    """Tell by the name of the outermost element."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<GIFTI" in head


def read_gifti(content: bytes, name: str) -> Surface:
    """Read the points and triangles of a GIFTI file.

    Raises
    ------
    BrokenFile, UnsupportedImage
    """
    if b"<!ENTITY" in content:
        raise UnsupportedImage(f"{name} defines XML entities, which no GIFTI needs and which are not read.")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise BrokenFile(f"{name} is damaged: its XML cannot be read.", hint=_AGAIN) from error
    points: NDArray[np.float64] | None = None
    faces: NDArray[Any] | None = None
    for element in root.iter("DataArray"):
        intent = element.get("Intent", "")
        if intent == "NIFTI_INTENT_POINTSET" and points is None:
            points = _array(element, name).astype(np.float64)
            points = _moved(points, element, name)
        elif intent == "NIFTI_INTENT_TRIANGLE" and faces is None:
            faces = _array(element, name)
    if points is None or faces is None:
        raise UnsupportedImage(
            f"{name} holds no surface: it has no points or no triangles.", hint="Open a .surf.gii."
        )
    return Surface(points, faces.astype(np.intp), name)


def _array(element: ElementTree.Element, name: str) -> NDArray[Any]:
    if element.get("ExternalFileName") or element.get("Encoding") == "ExternalFileBinary":
        raise UnsupportedImage(
            f"{name} keeps its data in another file, which is not followed.",
            hint="Save it with its data inside.",
        )
    try:
        shape = int(element.get("Dim0", "0")), int(element.get("Dim1", "1"))
        kind = np.dtype(_TYPES[element.get("DataType", "")])
    except (KeyError, ValueError) as error:
        raise BrokenFile(
            f"{name} is damaged: it does not tell the shape or type of its data.", hint=_AGAIN
        ) from error
    n_bytes = shape[0] * shape[1] * kind.itemsize
    if shape[0] < 1 or shape[1] != 3 or n_bytes > _MOST_BYTES:
        raise BrokenFile(f"{name} is damaged: an array of {shape[0]}×{shape[1]} is no surface.", hint=_AGAIN)
    text = element.findtext("Data") or ""
    encoding = element.get("Encoding", "")
    try:
        if encoding == "ASCII":
            flat: NDArray[Any] = np.array(text.split()[: shape[0] * shape[1]], dtype=np.float64)
        elif encoding in ("Base64Binary", "GZipBase64Binary"):
            raw = base64.b64decode(text.encode("ascii", "ignore"))
            raw = zlib.decompressobj(47).decompress(raw, n_bytes) if encoding.startswith("GZip") else raw
            stored = kind.newbyteorder(">" if element.get("Endian") == "BigEndian" else "<")
            flat = np.frombuffer(raw[:n_bytes], stored)
        else:
            raise UnsupportedImage(f"{name} packs its data as '{encoding[:40]}', which is not read.")
        if element.get("ArrayIndexingOrder") == "ColumnMajorOrder":
            return np.asarray(flat).reshape(shape[::-1]).T
        return np.asarray(flat).reshape(shape)
    except (ValueError, zlib.error, binascii.Error) as error:
        raise BrokenFile(f"{name} is damaged: its data cannot be unpacked.", hint=_AGAIN) from error


def _moved(points: NDArray[np.float64], element: ElementTree.Element, name: str) -> NDArray[np.float64]:
    """Apply the transform to scanner space, where the file has one."""
    for system in element.iter("CoordinateSystemTransformMatrix"):
        if "SCANNER_ANAT" not in (system.findtext("TransformedSpace") or ""):
            continue
        try:
            matrix = np.array((system.findtext("MatrixData") or "").split(), dtype=np.float64).reshape(4, 4)
        except ValueError as error:
            raise BrokenFile(f"{name} is damaged: its transform is not a matrix.", hint=_AGAIN) from error
        return np.asarray(points @ matrix[:3, :3].T + matrix[:3, 3])
    return points


def gifti_bytes(surface: Surface) -> bytes:
    """Return a surface as GIFTI, in scanner space."""
    where = "NIFTI_XFORM_SCANNER_ANAT"
    identity = " ".join(map(str, np.eye(4).ravel()))
    space = (
        f"<CoordinateSystemTransformMatrix><DataSpace>{where}</DataSpace><TransformedSpace>{where}</TransformedSpace>"
        f"<MatrixData>{identity}</MatrixData></CoordinateSystemTransformMatrix>"
    )
    meta = f"<MetaData><MD><Name>Name</Name><Value>{_text(surface.name)}</Value></MD></MetaData>"
    arrays = [
        _element(surface.points.astype("<f4"), "NIFTI_INTENT_POINTSET", "NIFTI_TYPE_FLOAT32", meta + space),
        _element(surface.faces.astype("<i4"), "NIFTI_INTENT_TRIANGLE", "NIFTI_TYPE_INT32", meta),
    ]
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<GIFTI Version="1.0" NumberOfDataArrays="2">\n<MetaData/>\n<LabelTable/>\n'
        + "\n".join(arrays)
        + "\n</GIFTI>\n"
    )
    return text.encode()


def _element(data: NDArray[Any], intent: str, kind: str, inner: str) -> str:
    packed = base64.b64encode(zlib.compress(data.tobytes(), 6)).decode()
    told = {
        "Intent": intent, "DataType": kind, "ArrayIndexingOrder": "RowMajorOrder", "Dimensionality": "2",
        "Dim0": str(data.shape[0]), "Dim1": str(data.shape[1]), "Encoding": "GZipBase64Binary",
        "Endian": "LittleEndian", "ExternalFileName": "", "ExternalFileOffset": "",
    }  # fmt: skip
    words = " ".join(f"{key}={quoteattr(value)}" for key, value in told.items())
    return f"<DataArray {words}>{inner}<Data>{packed}</Data></DataArray>"


def _text(words: str) -> str:
    clean = "".join(letter for letter in words if letter.isprintable())
    return clean.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
