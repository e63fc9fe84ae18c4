"""Reads OME-Zarr 0.4 and 0.5 folders: small ones whole, large ones lazily at their own resolutions."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BrokenFile, MissingExtra, UnsupportedImage
from napari_mri.core.grid import Grid
from napari_mri.core.volume import Frames, Labels, Origin, Volume
from napari_mri.io.formats import Format, Found
from napari_mri.io.inside import is_tame
from napari_mri.io.lazy import BIG_BYTES, LazyArray, lazily

_MOST_JSON = 5_000_000
_MOST_CHUNK = 1_000_000_000
_MOST_LEVELS = 24
_AGAIN = "Copy or export it again."
_MM = {
    "angstrom": 1e-7, "nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0, "centimeter": 10.0, "decimeter": 100.0,
    "meter": 1e3, "inch": 25.4,
}  # fmt: skip
_SECONDS = {"second": 1.0, "millisecond": 1e-3, "microsecond": 1e-6, "minute": 60.0, "hour": 3600.0}
_TOWARDS = {"right": (0, 1), "left": (0, -1), "anterior": (1, 1), "posterior": (1, -1), "superior": (2, 1), "inferior": (2, -1)}
_USUAL = {"x": (0, -1), "y": (1, -1), "z": (2, 1)}  # LPS, as ITK's writers mean it
# A codec may run what the file says (pickle), so only those are opened that cannot.
_CODECS = frozenset((
    "blosc", "zlib", "gzip", "zstd", "lz4", "lz4hc", "bz2", "lzma", "shuffle", "delta", "bytes", "transpose", "crc32c",
    "sharding_indexed", "fixedscaleoffset", "bitround", "packbits",
))  # fmt: skip
_BROKEN = (ValueError, KeyError, TypeError, RuntimeError, OSError, IndexError, AttributeError, EOFError, zlib.error)


@dataclass(frozen=True)
class Axis:
    """One axis of the stored arrays: its name, its factor to mm or s, and where it points in the patient."""

    name: str
    factor: float
    towards: tuple[int, int]
    told: bool
    united: bool


def mine(path: Path, head: bytes) -> bool:
    """Tell by the metadata files of a folder."""
    return path.is_dir() and any((path / name).is_file() for name in (".zgroup", ".zattrs", ".zarray", "zarr.json"))


def survey(path: Path) -> tuple[Found, ...]:
    """List the images and label images of an OME-Zarr folder, without their voxels.

    A channel is a volume of its own; time becomes the fourth axis.

    Raises
    ------
    UnsupportedImage
        If it is Zarr but not OME-Zarr, or a plate.
    BrokenFile, MissingExtra
    """
    attributes = _attributes(path)
    if "plate" in attributes or "well" in attributes:
        raise UnsupportedImage(f"{path.name} is a plate of many images.", hint="Open one field of it, e.g. A/1/0.")
    if "multiscales" in attributes:
        found = list(_images(path, attributes))
    else:
        children = [path / str(n) for n in range(100) if (path / str(n)).is_dir()]
        found = [one for child in children if "multiscales" in (inner := _attributes(child)) for one in _images(child, inner)]
    if not found:
        raise UnsupportedImage(
            f"{path.name} is a Zarr folder without OME metadata, so its axes are not known.",
            hint="Write it as OME-Zarr 0.4 or 0.5.",
        )
    return tuple(found)


def _attributes(folder: Path) -> dict[str, Any]:
    """Return what the folder tells of itself, OME-Zarr 0.4 and 0.5 alike."""
    new = _json(folder / "zarr.json")
    attributes = new.get("attributes", {}) if new else _json(folder / ".zattrs")
    if not isinstance(attributes, dict):
        return {}
    ome = attributes.get("ome")
    return {**attributes, **ome} if isinstance(ome, dict) else attributes


def _json(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            return {}
        if path.stat().st_size > _MOST_JSON:
            raise BrokenFile(f"{path.name} of {path.parent.name} is larger than any metadata.", hint=_AGAIN)
        record = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BrokenFile(f"{path.name} of {path.parent.name} is damaged.", hint=_AGAIN) from error
    return record if isinstance(record, dict) else {}


def _images(folder: Path, attributes: Mapping[str, Any]) -> Iterator[Found]:
    try:
        for n, image in enumerate(attributes["multiscales"]):
            yield from _channels(folder, image, attributes, labels=False, title=image.get("name") or _stem(folder) + (f" {n + 1}" if n else ""))
        inner = folder / "labels"
        for name in _attributes(inner).get("labels", ()) if inner.is_dir() else ():
            if not is_tame(str(name)):
                raise BrokenFile(f"{folder.name} names labels outside its own folder.", hint="Do not trust this file.")
            told = _attributes(inner / str(name))
            for image in told.get("multiscales", ())[:1]:
                yield from _channels(inner / str(name), image, told, labels=True, title=str(name))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise BrokenFile(f"The OME metadata of {folder.name} make no sense.", hint=_AGAIN) from error


def _stem(folder: Path) -> str:
    return folder.name.removesuffix(".zarr").removesuffix(".ome") or folder.name


def _channels(folder: Path, image: Any, attributes: Mapping[str, Any], *, labels: bool, title: str) -> Iterator[Found]:
    axes = [_axis(one) for one in image["axes"]]
    names = [axis.name for axis in axes]
    if len(set(names)) != len(names) or not {"x", "y"} <= set(names) or not set(names) <= set("tczyx"):
        raise UnsupportedImage(f"{folder.name} has the axes {', '.join(names)}, which make no volume.")
    levels = [_level(folder, one, axes, image) for one in image["datasets"][:_MOST_LEVELS]]
    if not levels:
        raise BrokenFile(f"{folder.name} tells of no data.", hint=_AGAIN)
    shape = dict(zip(names, levels[0][0].shape, strict=True))
    listed = attributes.get("omero", {}).get("channels", []) if isinstance(attributes.get("omero"), dict) else []
    grid, told = _grid(axes, levels[0], folder.name)
    sides = (*grid.shape, *((shape["t"],) if shape.get("t", 1) > 1 else ()))
    for channel in range(shape.get("c", 1)):
        known = listed[channel].get("label", "") if channel < len(listed) else ""
        name = title if shape.get("c", 1) == 1 else f"{title} {known or f'channel {channel + 1}'}"

        def read(channel: int = channel, name: str = name) -> Volume:
            data = _data([array for array, _, _ in levels], names, channel)
            origin = Origin(name, "ome-zarr", str(folder), {}, told)
            frames = _frames(axes, levels[0][1]) if data.ndim == 4 else None
            if labels:
                whole = np.asarray(data)
                if whole.dtype.kind not in "iu":
                    raise BrokenFile(f"The labels '{name}' are not whole numbers.", hint=_AGAIN)
                return Labels(whole, grid, (), frames, origin, *_looks(attributes))
            if data.nbytes <= BIG_BYTES:
                return Volume(np.asarray(data), grid, (), frames, origin)
            return Volume(lazily(data), grid, (), frames, origin)

        yield Found(name, read, None, sides, labels=labels, grid=grid)


def _axis(told: Any) -> Axis:
    name = str(told["name"]).lower()
    unit = str(told.get("unit", "")).lower()
    table = _SECONDS if name == "t" else _MM
    towards, known = _USUAL.get(name, (0, 1)), False
    orientation = told.get("orientation")
    value = orientation.get("value", "") if isinstance(orientation, dict) else orientation
    goal = str(value or "").lower().rpartition("-to-")[2]
    if goal in _TOWARDS:
        towards, known = _TOWARDS[goal], True
    return Axis(name, table.get(unit, 1.0), towards, known, unit in table)


def _level(folder: Path, told: Any, axes: list[Axis], image: Any) -> tuple[LazyArray, NDArray[np.float64], NDArray[np.float64]]:
    """Return one resolution: its array, its steps and the place of its first voxel, in file axes and units."""
    place = str(told["path"])
    if not is_tame(place) or not (folder / place).resolve().is_relative_to(folder.resolve()):
        raise BrokenFile(f"{folder.name} points outside its own folder.", hint="Do not trust this file.")
    array = _array(folder / place, len(axes))
    step, start = np.ones(len(axes)), np.zeros(len(axes))
    for change in (*told.get("coordinateTransformations", ()), *image.get("coordinateTransformations", ())):
        if change.get("type") == "scale":
            factor = np.asarray(change["scale"], dtype=np.float64)
            step, start = step * factor, start * factor
        elif change.get("type") == "translation":
            start = start + np.asarray(change["translation"], dtype=np.float64)
        elif change.get("type") != "identity":
            raise UnsupportedImage(f"{folder.name} is placed by a '{change.get('type')}', which is not read.")
    if step.shape != (len(axes),) or not np.isfinite([step, start]).all() or step.min() <= 0:
        raise BrokenFile(f"{folder.name} tells spacings that make no sense.", hint=_AGAIN)
    return array, step, start


def _array(folder: Path, n_axes: int) -> LazyArray:
    """Open one array after its metadata were found harmless."""
    record = _json(folder / "zarr.json") or _json(folder / ".zarray")
    shape = [int(n) for n in record.get("shape", ())]
    new = "chunk_grid" in record
    chunks = record["chunk_grid"]["configuration"]["chunk_shape"] if new else record.get("chunks", ())
    dtype = np.dtype(str(record.get("data_type" if new else "dtype", "O")))
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        raise UnsupportedImage(f"{folder.parent.name} holds {dtype}, not grey values.")
    if len(shape) != n_axes or min(shape, default=0) < 1 or len(chunks) != n_axes:
        raise BrokenFile(f"The array {folder.name} of {folder.parent.name} does not fit its axes.", hint=_AGAIN)
    if np.prod([int(n) for n in chunks], dtype=object) * dtype.itemsize > _MOST_CHUNK or min(chunks) < 1:
        raise BrokenFile(f"{folder.parent.name} promises pieces of more than 1 GB.", hint=_AGAIN)
    strange = set(_codecs(record)) - _CODECS
    if strange:
        raise UnsupportedImage(
            f"{folder.parent.name} is packed with {', '.join(sorted(strange))}, which is not opened.",
            hint="Write it with blosc, zstd, gzip or no compression.",
        )
    try:
        import zarr  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise MissingExtra(f"{folder.parent.name} is OME-Zarr, which needs zarr.", hint="pip install zarr") from error
    try:
        opened: Any = zarr.open_array(str(folder), mode="r")
    except _BROKEN as error:
        raise BrokenFile(f"The array {folder.name} of {folder.parent.name} is damaged.", hint=_AGAIN) from error
    kind = np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")

    def read(slices: tuple[slice, ...]) -> NDArray[Any]:
        try:
            return np.asarray(opened[slices]).astype(kind, copy=False)
        except _BROKEN as error:
            raise BrokenFile(f"A piece of {folder.parent.name} cannot be unpacked.", hint=_AGAIN) from error

    return LazyArray.of(read, kind, shape)


def _codecs(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of everything that would be run to unpack a chunk, nested ones too."""
    waiting: list[Any] = [record.get("compressor"), *(record.get("filters") or ()), *(record.get("codecs") or ())]
    waiting += record.get("storage_transformers") or ()
    while waiting:
        one = waiting.pop()
        if one is None:
            continue
        yield str(one.get("id") or one.get("name")).removeprefix("numcodecs.")
        inside = one.get("configuration")
        if isinstance(inside, dict):
            waiting += [*(inside.get("codecs") or ()), *(inside.get("index_codecs") or ())]


def _grid(
    axes: list[Axis], level: tuple[LazyArray, NDArray[np.float64], NDArray[np.float64]], name: str
) -> tuple[Grid, tuple[str, ...]]:
    array, step, start = level
    found = {axis.name: n for n, axis in enumerate(axes)}
    affine, shape = np.zeros((4, 4)), []
    affine[3, 3] = 1
    rows = [axes[found[letter]].towards[0] if letter in found else _USUAL[letter][0] for letter in "xyz"]
    if sorted(rows) != [0, 1, 2]:
        raise BrokenFile(f"Two axes of {name} point the same way.", hint=_AGAIN)
    for column, letter in enumerate("xyz"):
        n = found.get(letter)
        shape.append(1 if n is None else array.shape[n])
        row, sign = _USUAL[letter] if n is None else axes[n].towards
        factor = 1.0 if n is None else axes[n].factor
        affine[row, column] = sign * factor * (1.0 if n is None else step[n])
        affine[row, 3] = sign * factor * (0.0 if n is None else start[n])
    space = [axis for axis in axes if axis.name in "xyz"]
    told = []
    if not all(axis.told for axis in space):
        told.append("The file does not tell which way its axes point in the patient: left and right are a guess (LPS).")
    if not all(axis.united for axis in space):
        told.append("The file does not tell the unit of its spacings; mm were taken.")
    return Grid((shape[0], shape[1], shape[2]), affine), tuple(told)


def _data(levels: list[LazyArray], names: list[str], channel: int) -> LazyArray:
    """Return one channel as (x, y, z) or (x, y, z, t), with its coarser levels."""
    found = [_one(level, names, channel) for level in levels]
    return LazyArray(found[0].read, found[0].kind, found[0].ranges, found[0].axes, tuple(found[1:]))


def _one(level: LazyArray, names: list[str], channel: int) -> LazyArray:
    single = {"c": channel} | ({"t": 0} if "t" in names and level.shape[names.index("t")] == 1 else {})
    picked = level[tuple(single.get(name, slice(None)) for name in names)]
    left = [name for name in names if name not in single]
    turned: LazyArray = picked.transpose(*(left.index(name) for name in "xyzt" if name in left))
    if "z" in left:
        return turned
    read = turned.read  # a picture is a volume of one slice: its last axis is made here
    n = len(turned.ranges)
    flat = LazyArray(
        lambda slices: read(slices[:n])[..., None], turned.kind, (*turned.ranges, range(1)),
        (*turned.axes[:2], n, *turned.axes[2:]),
    )  # fmt: skip
    return flat


def _frames(axes: list[Axis], step: NDArray[np.float64]) -> Frames:
    n = [axis.name for axis in axes].index("t")
    if not axes[n].united:
        return Frames("time")
    return Frames("time", float(step[n]) * axes[n].factor, "s")


def _looks(attributes: Mapping[str, Any]) -> tuple[dict[int, str], dict[int, tuple[float, float, float]]]:
    """Return names and colours of a label image."""
    told = attributes.get("image-label")
    told = told if isinstance(told, dict) else {}
    names: dict[int, str] = {}
    colors: dict[int, tuple[float, float, float]] = {}
    for one in told.get("properties") or ():
        text = next((one[key] for key in ("name", "class", "label") if isinstance(one.get(key), str)), "")
        if text:
            names[int(one["label-value"])] = text[:200]
    for one in told.get("colors") or ():
        rgba = one.get("rgba")
        if isinstance(rgba, list) and len(rgba) >= 3 and int(one["label-value"]):
            red, green, blue = (min(1.0, max(0.0, float(part) / 255)) for part in rgba[:3])
            colors[int(one["label-value"])] = red, green, blue
    return names, colors


def read(path: Path) -> tuple[Volume, ...]:
    """Open every image of a folder (see `survey`)."""
    return tuple(one.open() for one in survey(path))


FORMATS = (Format("ome-zarr", "OME-Zarr", (".zarr",), mine, read, folders=True, survey=survey),)
