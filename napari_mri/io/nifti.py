"""Reads and writes NIfTI-1 and NIfTI-2, plain or gzipped, 2D to 4D."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, OutOfMemory, UnsupportedImage
from napari_mri.core.volume import Frames, Labels, Origin, Volume
from napari_mri.io.blocks import physical_memory
from napari_mri.io.formats import Format
from napari_mri.io.lazy import BIG_BYTES, LazyArray, lazily
from napari_mri.io.nifti_header import CODES, Facts, made, names_in, understood, with_gradients
from napari_mri.io.unpack import check_room, is_gzipped, opened, read_into

ENDINGS = (".nii.gz", ".nii")
_MAGIC = (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0")
_MOST_EXTENSION = 64_000_000
_TOLD_BYTES = 1_000_000_000


def mine(path: Path, head: bytes) -> bool:
    """Tell by the magic word whether a file is NIfTI; the `.img` of a pair is known by its `.hdr`."""
    if len(head) >= 348 and head[344:348] in _MAGIC and _size_word(head) == 348:
        return True
    if len(head) >= 8 and head[4:8] in _MAGIC and _size_word(head) == 540:
        return True
    header = _header_of_pair(path)
    if header is None:
        return False
    with opened(header) as file:
        start = file.read(352)
    return len(start) >= 348 and start[344:348] in _MAGIC


def _size_word(head: bytes) -> int:
    little = int.from_bytes(head[:4], "little")
    return little if little in (348, 540) else int.from_bytes(head[:4], "big")


def _header_of_pair(path: Path) -> Path | None:
    name = path.name.removesuffix(".gz")
    if not name.endswith(".img"):
        return None
    for ending in (".hdr", ".hdr.gz"):
        header = path.with_name(name[:-4] + ending)
        if header.is_file():
            return header
    return None


def _voxels_of_pair(path: Path) -> Path:
    name = path.name.removesuffix(".gz").removesuffix(".hdr")
    for ending in (".img", ".img.gz"):
        voxels = path.with_name(name + ending)
        if voxels.is_file():
            return voxels
    raise BrokenFile(f"{path.name} is the header of a pair, but {name}.img is not there.", hint="Copy both files.")


def read(path: Path) -> tuple[Volume, ...]:
    """Read one NIfTI file.

    Whole numbers that the header scales by whole numbers stay whole; other scaled values become
    float32 (float64 where the stored numbers have more than 16 bits). An unscaled `.nii` of native
    byte order is memory-mapped.

    Parameters
    ----------
    path : Path
        A `.nii`, `.nii.gz`, or either file of a `.hdr`/`.img` pair.

    Returns
    -------
    tuple of one Volume or Labels
        Labels where the file carries label names of this program.

    Raises
    ------
    BrokenFile, UnsupportedImage, GeometryProblem
    """
    header_path = _header_of_pair(path) or path
    with opened(header_path) as file:
        raw = file.read(348)
        if len(raw) == 348 and raw[4:8] in _MAGIC:
            raw += file.read(192)
        if len(raw) < 348 or (raw[4:8] in _MAGIC and len(raw) < 540):
            raise BrokenFile(f"The header of {path.name} is cut off.", hint="Copy or download the file again.")
        facts = understood(raw, path.name)
        paired = raw[344:348] == b"ni1\0" or raw[4:8] == b"ni2\0"
        at = max(facts.offset, 0 if paired else len(raw))
        room = 0 if paired else at - len(raw)
        if room > _MOST_EXTENSION:
            raise BrokenFile(f"{path.name} is damaged: its voxels begin {room / 1e6:,.0f} MB after the header.")
        extra = file.read(room)
        voxels_path = _voxels_of_pair(header_path) if paired else header_path
        packed = is_gzipped(voxels_path)
        n_bytes = int(np.prod(facts.shape, dtype=object)) * facts.dtype.itemsize
        check_room(voxels_path, packed, at, n_bytes)
        data = _voxels(file if not paired else None, voxels_path, packed, at, facts)
    told = facts.warnings
    if packed and n_bytes > _TOLD_BYTES:
        told = (
            *told,
            f"The file is packed, so all of it ({n_bytes / 1e9:.1f} GB) had to be unpacked into memory before anything "
            "could be shown. A .nii of the same scan opens at once, piece by piece.",
        )
    frames, unfit = _gradients(path, facts)
    origin = Origin(_stem(path), "nifti", str(path), facts.fields, (*told, *unfit))
    named = names_in(extra, big=facts.dtype.str.startswith(">"))
    if named is not None and data.dtype.kind in "iu":
        return (Labels(data, facts.grid, (), frames, origin, *named),)
    return (Volume(data, facts.grid, (), frames, origin),)


def _voxels(file: BinaryIO | None, path: Path, packed: bool, at: int, facts: Facts) -> NDArray[Any]:
    """Return the values, scaled and in native byte order, Fortran-ordered as they lie in the file."""
    native = facts.dtype.newbyteorder("=")
    scaled = (facts.slope, facts.inter) != (1.0, 0.0)
    if not packed:
        stored = np.memmap(path, facts.dtype, "r", at, facts.shape, order="F")
        if not scaled and facts.dtype == native:
            return stored
        if stored.nbytes > BIG_BYTES:
            return _scaled_lazily(stored, facts)
        return _scale(stored, facts) if scaled else np.asfortranarray(stored, dtype=native)
    try:
        if int(np.prod(facts.shape, dtype=object)) * facts.dtype.itemsize > physical_memory():
            raise MemoryError
        buffer = np.empty(facts.shape, facts.dtype, order="F")
    except (MemoryError, ValueError) as error:
        raise OutOfMemory(
            f"{path.name} unpacks to {'×'.join(map(str, facts.shape))} voxels, more than the memory holds.",
            hint="Unpack it to .nii, which is read piece by piece.",
        ) from error
    if file is None:
        with opened(path) as other:
            _skip(other, at)
            read_into(other, buffer, path.name)
            other.read(1)
    else:
        read_into(file, buffer, path.name)
        file.read(1)  # reaching the end makes the decoder compare the checksum
    if scaled:
        return _scale(buffer, facts)
    if facts.dtype != native:
        return buffer.byteswap(inplace=True).view(native)
    return buffer


def _skip(file: BinaryIO, n_bytes: int) -> None:
    while n_bytes > 0:
        got = len(file.read(min(n_bytes, 1 << 20)))
        if not got:
            return
        n_bytes -= got


def _scaled_lazily(stored: NDArray[Any], facts: Facts) -> NDArray[Any]:
    """Return values that are turned into native ones piece by piece, when they are looked at."""
    slope, inter = facts.slope, facts.inter
    native = facts.dtype.newbyteorder("=")
    if (slope, inter) == (1.0, 0.0):
        return lazily(LazyArray.of(lambda at: np.asarray(stored[at], dtype=native), native, stored.shape))
    # Whether scaled whole numbers fit into few bits could only be told by reading all of them.
    kind = np.dtype(np.float64 if stored.dtype.itemsize > 2 and stored.dtype.str[1:] != "f4" else np.float32)
    return lazily(
        LazyArray.of(lambda at: (stored[at] * np.float64(slope) + inter).astype(kind), kind, stored.shape)
    )


def _scale(stored: NDArray[Any], facts: Facts) -> NDArray[Any]:
    """Apply slope and offset, one slab at a time so that no second copy of the volume is made."""
    slope, inter = facts.slope, facts.inter
    kind = scaled_type(stored, slope, inter)
    out = np.empty(stored.shape, kind, order="F")
    for at in range(stored.shape[-1]):
        if kind.kind == "f":
            out[..., at] = stored[..., at] * np.float64(slope) + inter
        else:
            out[..., at] = stored[..., at].astype(np.int64) * int(slope) + int(inter)
    return out


def scaled_type(stored: NDArray[Any], slope: float, inter: float) -> np.dtype[Any]:
    """Return the type that holds ``stored * slope + inter``: whole where all three are, else a float."""
    if stored.dtype.kind in "iu" and slope == int(slope) and inter == int(inter) and stored.dtype.itemsize <= 2:
        ends = [int(stored.min()) * int(slope) + int(inter), int(stored.max()) * int(slope) + int(inter)]
        for kind in (stored.dtype.newbyteorder("="), np.dtype("i2"), np.dtype("u2"), np.dtype("i4")):
            if np.iinfo(kind).min <= min(ends) and max(ends) <= np.iinfo(kind).max:
                return kind
    exact = stored.dtype.itemsize > 2 and stored.dtype.str[1:] != "f4"
    return np.dtype(np.float64 if exact else np.float32)


def _stem(path: Path) -> str:
    name = path.name
    for ending in (*ENDINGS, ".hdr.gz", ".img.gz", ".hdr", ".img"):
        if name.lower().endswith(ending):
            return name[: -len(ending)] or name
    return name


def _gradients(path: Path, facts: Facts) -> tuple[Frames | None, tuple[str, ...]]:
    """Return the frames, with the b-values and directions of FSL's text files where they lie beside and fit; and what does not."""
    if len(facts.shape) < 4:
        return None, ()
    count, stem = facts.shape[3], path.with_name(_stem(path))
    bval, bvec = (stem.with_name(stem.name + ending) for ending in (".bval", ".bvec"))
    values, vectors = _numbers(bval), _numbers(bvec)
    if values is None or values.size != count:
        return facts.frames, _unfit(bval, values, count)
    rows: list[tuple[float, float, float]] = []
    fits = vectors is not None and vectors.size == 3 * count
    if vectors is not None and fits:
        table = vectors.reshape(3, -1).T if vectors.shape[0] == 3 else vectors.reshape(-1, 3)
        rows = [(float(x), float(y), float(z)) for x, y, z in table]
    told = () if fits else _unfit(bvec, vectors, 3 * count)
    return with_gradients(facts.frames, tuple(float(b) for b in values.ravel()), rows), told


def _unfit(path: Path, found: NDArray[np.float64] | None, wanted: int) -> tuple[str, ...]:
    """Return a sentence about a text file that is there and is not used, if it is there."""
    if not path.is_file():
        return ()
    holds = "cannot be read as numbers" if found is None else f"holds {found.size} numbers instead of {wanted}"
    return (f"{path.name} {holds}, so it was left aside.",)


def _numbers(path: Path) -> NDArray[np.float64] | None:
    try:
        table = np.loadtxt(path, ndmin=2, max_rows=100_000)
    except (OSError, ValueError):
        return None
    return table if np.isfinite(table).all() else None


def write(volume: Volume, path: Path) -> None:
    """Write a volume or labels as NIfTI, gzipped where the name ends in `.gz`.

    The type is kept; labels take the smallest whole-number type that holds them. Codes, units,
    intent and description of a NIfTI that was read go back in; so do the names of labels.

    Parameters
    ----------
    volume : Volume
    path : Path
        Ends in ``.nii`` or ``.nii.gz``.

    Raises
    ------
    UnsupportedImage
        If the values are complex or not numbers.
    """
    dtype = stored_type(volume)
    header, extension = made(volume, dtype)
    with open(path, "wb") as disk:
        if not path.name.lower().endswith(".gz"):
            _pour(disk, header + extension, volume.data, dtype)
            return
        with _packer(disk) as packed:
            _pour(packed, header + extension, volume.data, dtype)


def stored_type(volume: Volume) -> np.dtype[Any]:
    """Return the little-endian type that `volume` is written with."""
    kind = volume.data.dtype
    if isinstance(volume, Labels):
        return smallest(volume.data).newbyteorder("<")
    if kind == np.bool_:
        return np.dtype("u1")
    if kind.kind == "f" and kind.itemsize not in (4, 8):
        return np.dtype("<f4" if kind.itemsize < 4 else "<f8")
    if kind.kind not in "iuf" or kind.newbyteorder("=") not in CODES:
        raise UnsupportedImage(
            f"Values of type {kind} cannot be saved as NIfTI.",
            hint="Save the magnitude, or turn the values into integers or floats first.",
        )
    return kind.newbyteorder("<")


def smallest(data: NDArray[Any]) -> np.dtype[Any]:
    """Return the smallest whole-number type that holds every value, unsigned where none is negative."""
    low, high = (int(data.min()), int(data.max())) if data.size else (0, 0)
    for name in ("u1", "u2", "u4", "u8") if low >= 0 else ("i1", "i2", "i4", "i8"):
        if np.iinfo(name).min <= low and high <= np.iinfo(name).max:
            return np.dtype(name)
    return data.dtype


def _packer(disk: BinaryIO) -> Any:
    """Open a gzip stream without name or time in it, so that equal volumes give equal files."""
    try:
        from isal import igzip
    except ImportError:
        import gzip

        return gzip.GzipFile("", "wb", 4, disk, mtime=0)
    return igzip.IGzipFile("", "wb", 3, disk, mtime=0)


def _pour(file: Any, start: bytes, data: NDArray[Any], dtype: np.dtype[Any]) -> None:
    file.write(start)
    for at in range(data.shape[-1]):
        slab = np.asarray(data[..., at]).astype(dtype, copy=False)
        file.write(slab.tobytes(order="F"))


FORMATS = (
    Format(
        "nifti", "NIfTI", ENDINGS, mine, read, write, holds=frozenset({"volume", "labels", "4d", "names"}),
    ),
)  # fmt: skip
