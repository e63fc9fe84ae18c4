"""What a correction tool is: its name, its options, and one safe way to run it on labels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_mri.core.errors import BadOption, GridMismatch
from napari_mri.core.grid import Grid
from napari_mri.core.history import Order, Step
from napari_mri.core.model import Knob, knob, knobs, settings
from napari_mri.core.volume import Labels, Volume
from napari_mri.edit.guard import Guard

Region = tuple[slice, slice, slice]
PLANES = {"axial": "SI", "coronal": "AP", "sagittal": "LR"}
"""Each plane and the two letters of the patient axis it is stacked along."""


@dataclass(frozen=True)
class OneLabel:
    """The option most tools share."""

    label: int = knob(0, "The label to work on; 0 works on every label, each by itself.", low=0)


@dataclass(frozen=True, eq=False)
class Job:
    """One 3D label array with all that a tool may look at.

    Parameters
    ----------
    data : ndarray of int, (I, J, K)
        Never changed in place.
    grid : Grid
    free : ndarray of bool, (I, J, K), or None
        Where changes are allowed; a tool may plan with it, and is held to it in any case.
    scan : ndarray, (I, J, K), or None
    other : ndarray of int, (I, J, K), or None
    """

    data: NDArray[Any]
    grid: Grid
    free: NDArray[np.bool_] | None = None
    scan: NDArray[Any] | None = None
    other: NDArray[Any] | None = None

    def targets(self, label: int, room: int | tuple[int, int, int] = 1) -> Iterator[tuple[int, Region]]:
        """Yield each label to work on with its bounding box, widened by `room` voxels inside the grid.

        Parameters
        ----------
        label : int
            0 for every label that occurs.
        room : int or 3 int, voxels
        """
        for value, box in boxes(self.data).items():
            if label in (0, value):
                yield value, widened(box, room, self.grid.shape)

    def room(self, mm: float) -> tuple[int, int, int]:
        """Return how many voxels along each axis a length in mm reaches, rounded up, plus one."""
        i, j, k = (int(np.ceil(mm / s)) + 1 for s in self.grid.spacing)
        return i, j, k

    def axis(self, plane: str) -> int:
        """Return the array axis that the slices of a plane are stacked along."""
        return stack_axis(self.grid, plane)


def stack_axis(grid: Grid, plane: str) -> int:
    """Return the array axis along which ``"axial"``, ``"coronal"`` or ``"sagittal"`` slices follow each other."""
    letters = PLANES[plane]
    return next(n for n, letter in enumerate(grid.axes) if letter in letters)


def boxes(data: NDArray[Any]) -> dict[int, Region]:
    """Return the bounding box of each label value that is not 0.

    Parameters
    ----------
    data : ndarray of int, (I, J, K)
    """
    from scipy.ndimage import find_objects

    if data.size == 0 or not data.any():
        return {}
    low, high = int(data.min()), int(data.max())
    if low >= 0 and high <= 65535:
        found = find_objects(data if data.dtype.kind == "u" and data.itemsize <= 2 else data.astype(np.int32))
        return {value: box for value, box in enumerate(found, start=1) if box is not None}
    values, places = np.unique(data, return_inverse=True)
    found = find_objects(places.reshape(data.shape).astype(np.int32) + 1)
    return {int(v): box for v, box in zip(values, found, strict=True) if v != 0 and box is not None}


def widened(box: Region, room: int | tuple[int, int, int], shape: tuple[int, ...]) -> Region:
    """Return a box made wider by `room` voxels on each side, cut off at the edges of `shape`."""
    rooms = (room,) * 3 if isinstance(room, int) else room
    i, j, k = (
        slice(max(0, side.start - more), min(n, side.stop + more))
        for side, more, n in zip(box, rooms, shape, strict=True)
    )
    return i, j, k


def holding(data: NDArray[Any], value: int) -> NDArray[Any]:
    """Return a copy of a label array in an integer type that also holds `value`."""
    fits = np.result_type(data.dtype, np.min_scalar_type(value)) if value > np.iinfo(data.dtype).max else data.dtype
    return data.astype(fits)


@dataclass(frozen=True)
class Tool:
    """A correction tool; call it on `Labels` to get corrected `Labels`.

    Parameters
    ----------
    name : str
        As in the command line and in Python.
    title : str
        As on a button.
    says : str
        One sentence for an annotator.
    params : type
        Frozen dataclass of `knob` fields: flags, form and history grow from it.
    work : callable
        ``work(job, params) -> ndarray of int``, the new label array; guarded afterwards.
    needs : tuple of str
        What must be given beside the labels: ``"scan"`` (grey values) and ``"other"`` (second labels).
    takes : tuple of str
        What may be given beside them.
    """

    name: str
    title: str
    says: str
    params: type
    work: Callable[[Job, Any], NDArray[Any]] = field(repr=False)
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()

    @property
    def knobs(self) -> tuple[Knob, ...]:
        """The options, in order."""
        return knobs(self.params)

    def settings(self, given: Mapping[str, Any]) -> Any:
        """Return a `params` record from plain values.

        Raises
        ------
        BadOption
            For an unknown option, a wrong kind or a value out of range.
        """
        return settings(self.params, given, self.name)

    def __call__(
        self,
        labels: Labels,
        *,
        scan: Volume | None = None,
        other: Labels | None = None,
        guard: Guard | None = None,
        **options: Any,
    ) -> Labels:
        """Return corrected labels; the labels given are not changed.

        Parameters
        ----------
        labels : Labels
            4D labels are worked on frame by frame.
        scan : Volume, optional
            Grey values on the same grid.
        other : Labels, optional
            Second labels on the same grid.
        guard : Guard, optional
            Locked labels and the region to stay inside.
        **options
            The tool's own options by name (see `knobs`).

        Raises
        ------
        BadOption
            For a bad option, a label that does not occur, or if something the tool needs is missing.
        GridMismatch
            If scan or other lie on another grid.
        """
        params, guard = self.settings(options), guard or Guard()
        self._check(labels, scan, other, params)
        frames = [
            self._frame(labels.frame(n), scan and scan.frame(min(n, scan.n_frames - 1)),
                        other and other.frame(min(n, other.n_frames - 1)), params, guard)
            for n in range(labels.n_frames)
        ]  # fmt: skip
        new = np.stack(frames, axis=-1) if labels.data.ndim == 4 else frames[0]
        facts: dict[str, Any] = {"changed_voxels": int(np.count_nonzero(new != labels.data))}
        if guard.locked:
            facts["locked"] = sorted(guard.locked)
        step = Step(self.title, Order("edit", self.name, asdict(params)), facts)
        return replace(labels, data=new).after(step)

    def _frame(
        self, labels: Labels, scan: Volume | None, other: Labels | None, params: Any, guard: Guard
    ) -> NDArray[Any]:
        old, grey = labels.data, None if scan is None else scan.data
        job = Job(old, labels.grid, guard.free(old, grey), grey, None if other is None else other.data)
        return guard.compose(old, self.work(job, params), grey)

    def _check(self, labels: Labels, scan: Volume | None, other: Labels | None, params: Any) -> None:
        for what, given in (("scan", scan), ("other", other)):
            if given is None and what in self.needs:
                name = "the scan" if what == "scan" else "a second set of labels"
                raise BadOption(f"{self.title} needs {name}.", hint=f"Choose {name} on the same grid.")
            if given is not None and not given.grid.same(labels.grid):
                name = "scan" if what == "scan" else "second set of labels"
                raise GridMismatch(f"The {name} lies on another grid than the labels.", hint="Resample one first.")
        label = params.label if isinstance(params, OneLabel) else 0
        if label and not (labels.data == label).any():
            raise BadOption(f"No voxel holds label {label}.", hint="Choose a label that occurs, or 0 for all.")


TOOLS: dict[str, Tool] = {}
"""Every tool by name, in the order a menu shows them; filled when `napari_mri.edit.tools` is imported."""


def tool(
    title: str, says: str, params: type, *, needs: tuple[str, ...] = (), takes: tuple[str, ...] = ()
) -> Callable[[Callable[[Job, Any], NDArray[Any]]], Tool]:
    """Make a `Tool` of a function ``work(job, params)`` and enter it under the function's name."""

    def entered(work: Callable[[Job, Any], NDArray[Any]]) -> Tool:
        made = Tool(work.__name__, title, says, params, work, needs, takes)
        object.__setattr__(made, "__doc__", work.__doc__)
        assert made.name not in TOOLS, f"two tools are called {made.name}"
        TOOLS[made.name] = made
        return made

    return entered
