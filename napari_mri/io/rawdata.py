"""Tells what raw k-space and MATLAB files are, and opens a magnitude image where one lies inside."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, MissingExtra, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Origin, Volume
from napari_mri.io.blocks import check_promise
from napari_mri.io.formats import Format
from napari_mri.io.lps import turned_affine

_HDF5 = b"\x89HDF\r\n\x1a\n"
_IMAGES = (
    "reconstruction_rss",
    "reconstruction_esc",
    "reconstruction",
    "image",
    "magnitude",
    "echo1",
    "echo2",
    "recon",
)
_KSPACE = ("kspace", "k_space", "ksp", "raw")
_WAY_OUT = "Reconstruct it first, with the scanner's or a research program, and open the magnitude image (DICOM or NIfTI)."
_NO_PLACE = "The file tells no position or orientation: left and right are a guess"
_MOST_ITEMS = 2000


def _starts(*marks: bytes) -> Callable[[Path, bytes], bool]:
    return lambda path, head: head.startswith(marks)


def _siemens(path: Path, head: bytes) -> bool:
    """Tell a Siemens twix file: its first words count measurements, or tell the size of a text header."""
    if path.suffix.lower() != ".dat" or len(head) < 64:
        return False
    first, second = (int.from_bytes(head[at : at + 4], "little") for at in (0, 4))
    return (first == 0 and 0 < second <= 64) or (
        64 < first < 10_000_000 and 0 < second < 100 and b"\0" in head[8:64]
    )


def _named(*endings: str) -> Callable[[Path, bytes], bool]:
    return lambda path, head: path.is_file() and path.name.lower().endswith(endings)


def _ge(path: Path, head: bytes) -> bool:
    return re.fullmatch(r"P\d{5}\.7", path.name, re.I) is not None or (
        path.suffix.lower() == ".h5" and head.startswith(b"ScanArchive")
    )


def _refusing(what: str, hint: str = _WAY_OUT) -> Callable[[Path], tuple[Volume, ...]]:
    def read(path: Path) -> tuple[Volume, ...]:
        raise UnsupportedImage(f"{path.name} is {what}.", hint=hint)

    return read


def read_hdf5(path: Path) -> tuple[Volume, ...]:
    """Open the magnitude images in an HDF5 file (fastMRI, ISMRMRD, SKM-TEA), or say what it is.

    Links to other files are not followed.

    Parameters
    ----------
    path : Path

    Returns
    -------
    tuple of Volume
        Their geometry is a guess, but for the spacings that an ISMRMRD header tells.

    Raises
    ------
    UnsupportedImage
        If there is no magnitude image inside: raw k-space, complex images, MATLAB variables.
    MissingExtra
        Without h5py.
    """
    try:
        import h5py  # type: ignore[import-untyped, unused-ignore]
    except ImportError as error:
        raise MissingExtra(
            f"{path.name} is an HDF5 file (often raw k-space); h5py is needed to look inside.",
            hint="pip install h5py",
        ) from error
    try:
        with h5py.File(path, "r") as file:
            names = _datasets(file, h5py)
            found = [_image(file, name, path) for name in names if _is_image(file[name], name)]
            if found:
                return tuple(found)
            raise UnsupportedImage(f"{path.name} is {_what(file, names)}.", hint=_WAY_OUT)
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenFile(f"{path.name} is a damaged HDF5 file.", hint="Copy or download it again.") from error


def _datasets(file: Any, h5py: Any) -> list[str]:
    """Return the paths of all data sets that lie in the file itself."""
    found: list[str] = []
    waiting = [""]
    while waiting and len(found) < _MOST_ITEMS:
        place = waiting.pop()
        group = file[place] if place else file
        for name in list(group)[:_MOST_ITEMS]:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink) or place.count("/") > 8:
                continue
            item = group[name]
            if isinstance(item, h5py.Dataset):
                if item.external is None and not item.is_virtual:
                    found.append(f"{place}/{name}")
            elif len(waiting) < _MOST_ITEMS:
                waiting.append(f"{place}/{name}")
    return sorted(found)


def _is_image(item: Any, name: str) -> bool:
    leaf = name.rsplit("/", 1)[-1].lower()
    known = leaf in _IMAGES or re.search(r"/image_\d+/data$", name) is not None
    sides = [side for side in item.shape if side > 1]
    return known and item.dtype.kind in "iuf" and 2 <= len(sides) <= 4 and min(sides[-2:], default=0) >= 8


def _image(file: Any, name: str, path: Path) -> Volume:
    """Return one image; its last axis runs along a line of the picture, as NumPy writes it."""
    item = file[name]
    check_promise(
        path.name, int(np.prod(item.shape, dtype=object)) * item.dtype.itemsize, os.path.getsize(path) * 1040
    )
    data = np.squeeze(item[()])
    data = data.reshape(-1, *data.shape[-2:]) if data.ndim != 3 else data
    stored: NDArray[Any] = data.astype(data.dtype.newbyteorder("="), copy=False).T
    spacing, told = _spacing(file, stored.shape)
    grid = Grid((stored.shape[0], stored.shape[1], stored.shape[2]), turned_affine(np.diag([*spacing, 1.0])))
    title = f"{path.stem} {name.strip('/').replace('/', ' ')}"
    return Volume(stored, grid, (), None, Origin(title, "hdf5", str(path), {}, (told,)))


def _spacing(file: Any, shape: tuple[int, ...]) -> tuple[tuple[float, float, float], str]:
    """Return the spacings that an ISMRMRD header tells, or 1 mm."""
    for place in ("ismrmrd_header", "dataset/xml"):
        if place not in file:
            continue
        value = file[place][()]
        value = value.ravel()[0] if isinstance(value, np.ndarray) and value.size else value
        text = (value if isinstance(value, bytes) else str(value).encode())[:200_000]
        part = re.search(rb"<reconSpace>(.*?)</reconSpace>", text, re.S)
        if part is None:
            continue
        size, view = (_three(part[1], tag) for tag in (b"matrixSize", b"fieldOfView_mm"))
        if size and view and min(*size, *view) > 0:
            steps = view[0] / size[0], view[1] / size[1], view[2] / size[2]
            return steps, f"{_NO_PLACE}, and only the spacings of the header can be trusted."
    return (1.0, 1.0, 1.0), f"{_NO_PLACE}, and spacings are not told (1 mm was taken)."


def _three(text: bytes, tag: bytes) -> tuple[float, float, float] | None:
    part = re.search(b"<%b>(.*?)</%b>" % (tag, tag), text, re.S)
    found = (
        [re.search(b"<%b>\\s*([0-9.eE+-]+)\\s*<" % axis, part[1]) for axis in (b"x", b"y", b"z")]
        if part
        else []
    )
    try:
        x, y, z = (float(match[1]) if match else 0.0 for match in found)
    except ValueError:
        return None
    return x, y, z


def _what(file: Any, names: list[str]) -> str:
    leaves = {name.rsplit("/", 1)[-1].lower() for name in names}
    if "dataset/xml" in file or "ismrmrd_header" in leaves:
        return "raw k-space (ISMRMRD or fastMRI) without a reconstructed image inside"
    if leaves & set(_KSPACE):
        return "raw k-space without a reconstructed image inside"
    if any(file[name].dtype.kind == "c" or file[name].dtype.names for name in names[:50]):
        return "an HDF5 file of complex numbers, which cannot be shown or segmented as they are"
    return "an HDF5 file without an image that is known here"


def read_npy(path: Path) -> tuple[Volume, ...]:
    """Open a NumPy array as a volume without geometry; `on_scan` puts it on the scan it belongs to.

    Raises
    ------
    UnsupportedImage, BrokenFile
    """
    array = _npy(path)
    told = f"{_NO_PLACE}. Put it on the scan it belongs to."
    data = array[:, :, None] if array.ndim == 2 else array
    grid = Grid.plain(data.shape[:3])
    return (Volume(data, grid, (), None, Origin(path.stem, "npy", str(path), {}, (told,))),)


def on_scan(path: Path, scan: Volume) -> Volume:
    """Return a NumPy array on the grid of the scan whose voxels it was made for.

    Raises
    ------
    UnsupportedImage
        If its shape is another one: axes are not guessed.
    """
    array = _npy(path)
    if array.shape[:3] != scan.grid.shape:
        sides = "×".join(map(str, array.shape)), "×".join(map(str, scan.grid.shape))
        hint = (
            "Its axes seem to be the other way round: save array.T."
            if array.shape[:3] == scan.grid.shape[::-1]
            else ""
        )
        raise UnsupportedImage(f"{path.name} is {sides[0]}, the scan {sides[1]}: they do not fit.", hint=hint)
    if array.dtype.kind in "iu":
        return scan.with_labels(array).titled(path.stem)
    return scan.with_data(array).titled(path.stem)


def _npy(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TypeError, OverflowError) as error:
        raise BrokenFile(
            f"{path.name} is a damaged NumPy file, or holds Python objects, which are not opened.",
            hint="Save it again as a plain array of numbers.",
        ) from error
    if array.dtype == np.bool_:
        array = array.view(np.uint8)
    if array.dtype.kind == "c":
        raise UnsupportedImage(f"{path.name} holds complex numbers.", hint="Save its magnitude (numpy.abs).")
    if array.dtype.kind not in "iuf" or array.ndim not in (2, 3, 4) or not array.size:
        raise UnsupportedImage(
            f"{path.name} holds an array of {array.ndim} axes of {array.dtype}, which is no scan."
        )
    return np.asarray(array, dtype=array.dtype.newbyteorder("=")) if not array.dtype.isnative else array


_MATLAB = "Save the magnitude image and its spacing as NIfTI there (niftiwrite), and open that."
FORMATS = (
    Format("matlab", "MATLAB", (".mat",), _starts(b"MATLAB "), _refusing("a MATLAB file, often of complex k-space", _MATLAB)),
    Format("hdf5", "HDF5", (".h5", ".hdf5"), _starts(_HDF5), read_hdf5),
    Format("npy", "NumPy array", (".npy",), _starts(b"\x93NUMPY"), read_npy),
    Format("twix", "Siemens raw data", (".dat",), _siemens, _refusing("Siemens raw data (twix)")),
    Format("pfile", "GE raw data", (".7",), _ge, _refusing("GE raw data (P-file)")),
    Format(
        "philips-raw", "Philips raw data", (".lab", ".sin"), _named(".lab", ".sin", ".list"),
        _refusing("a part of Philips raw data"),
    ),
    Format(
        "par-rec", "Philips PAR/REC", (".par",), lambda path, head: b"IMAGE INFORMATION" in head and path.suffix.lower() == ".par",
        _refusing("a Philips PAR header, which is not read", "Convert it with dcm2niix or nibabel's parrec2nii."),
    ),
)  # fmt: skip
