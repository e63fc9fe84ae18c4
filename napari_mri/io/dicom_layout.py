"""Leaps over the header of a DICOM file whose elements lie as in the file before it.

The files of a series have the same elements in the same order; a handful differ in length. So where
each element begins is learned once, and for the next file all these places are compared at one
stroke: an element is taken only if its tag, type and length stand where they must, which is the very
chain that a walk would follow.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_DIFFERENT = 40
_RELEARN = 8
_LONG_HEAD = 12
_MOST_CUTS = 256
Cut = tuple[tuple[int, ...], Callable[[bytes, int], tuple[bytes, ...]], int]


@dataclass
class Layout:
    """Where the elements of the last learned header begin.

    Parameters
    ----------
    key : tuple
        What must be equal for it to apply: transfer syntax, and where the data set begins is free.
    at : (n,) int64
        Place of each element, from the first.
    ends : (n,) int64
        Place after each.
    heads : (n,) uint64
        Its first eight bytes.
    long : list of int
        Which elements have a head of twelve bytes, in order.
    tails_at : (len(long),) int64
        The place of the last four bytes of these heads, from the first element.
    tails : (len(long),) uint32
        These bytes.
    wanted : list of (index, tag, place of the value, value length)
    cuts : dict
        What copies a run of wanted values at one stroke: their tags, the unpacking, where it begins.
    end : int
        Place after the last element.
    tries : int
        Files seen since it was learned that it did not fit.
    room : int
        Bytes of small files that may still be kept whole.
    """

    key: tuple[Any, ...] = ()
    at: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    ends: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    heads: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    long: list[int] = field(default_factory=list)
    tails_at: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    tails: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    wanted: list[tuple[int, int, int, int]] = field(default_factory=list)
    cuts: dict[tuple[int, int], Cut] = field(default_factory=dict)
    end: int = 0
    tries: int = 0
    room: int = 32_000_000

    def keeps(self, n_bytes: int) -> bool:
        """Whether there is room to keep a small file of so many bytes; if so, it is taken."""
        if n_bytes > self.room:
            return False
        self.room -= n_bytes
        return True

    def leap(self, window: bytes, start: int, key: tuple[Any, ...], values: dict[int, bytes]) -> int:
        """Take every element that lies as learned; return where a walk has to go on.

        Parameters
        ----------
        window : bytes
            From the beginning of the file.
        start : int
            Where its data set begins.
        key : tuple
        values : dict
            Filled with the wanted values.
        """
        count = len(self.at)
        if key != self.key or not count or len(window) < start + _LONG_HEAD:
            return start
        eights: NDArray[np.uint64] = np.ndarray((len(window) - 7,), "<u8", window, 0, (1,))
        shift, index, next_wanted = start, 0, 0
        for _ in range(_MOST_DIFFERENT):
            # Only what lies in the window with its value: the rest, and a cut-off end, is the walk's.
            inside = count - index
            places = self.at[index:] + shift
            if self.end + shift + _LONG_HEAD > len(window):
                inside = int(self.ends[index:].searchsorted(len(window) - shift, "right"))
                inside = min(inside, int(places.searchsorted(len(window) - _LONG_HEAD, "right")))
                places = places[:inside]
            good = _equal(eights[places], self.heads[index : index + inside])
            good = self._tails_equal(window, shift, index, index + good) - index
            next_wanted = self._take(window, shift, index + good, next_wanted, values)
            index += good
            if index == count or good == inside:
                break
            changed = self._changed(window, index, shift, next_wanted, values)
            if changed is None:
                break
            longer, next_wanted = changed
            index += 1
            shift += longer
            if index == count:
                break
        return (self.end if index == count else int(self.at[index])) + shift

    def _tails_equal(self, window: bytes, shift: int, index: int, stop: int) -> int:
        """Return the first element from `index` to `stop` whose long head ends otherwise than learned, or `stop`."""
        first, last = bisect_left(self.long, index), bisect_left(self.long, stop)
        if first == last:
            return stop
        fours: NDArray[np.uint32] = np.ndarray((len(window) - 3,), "<u4", window, 0, (1,))
        good = first + _equal(fours[self.tails_at[first:last] + shift], self.tails[first:last])
        return stop if good == last else self.long[good]

    def _take(self, window: bytes, shift: int, stop: int, wanted: int, values: dict[int, bytes]) -> int:
        """Copy the wanted values among the elements before `stop`; return the next wanted one."""
        last = bisect_left(self.wanted, (stop,), wanted)
        if last > wanted:
            tags, unpack, begin = self.cuts.get((wanted, last)) or self._cut(wanted, last)
            values.update(zip(tags, unpack(window, begin + shift), strict=True))
        return last

    def _cut(self, wanted: int, last: int) -> Cut:
        """Make what copies the wanted values from `wanted` to `last`."""
        run = self.wanted[wanted:last]
        begin = reached = run[0][2]
        pattern = ""
        for _, _, place, length in run:
            pattern += f"{place - reached}x{length}s"
            reached = place + length
        if len(self.cuts) >= _MOST_CUTS:
            self.cuts.clear()
        made = self.cuts[wanted, last] = (tuple(one[1] for one in run), struct.Struct(pattern).unpack_from, begin)
        return made

    def _changed(
        self, window: bytes, index: int, shift: int, wanted: int, values: dict[int, bytes]
    ) -> tuple[int, int] | None:
        """Read one element of the same tag and type but another length; None if it is another one."""
        at = int(self.at[index]) + shift
        old = self.heads[index : index + 1].tobytes()
        if window[at : at + 4] != old[:4] or (not self.key[1] and window[at + 4 : at + 6] != old[4:6]):
            return None
        end = int(self.at[index + 1]) if index + 1 < len(self.at) else self.end
        if index in self.long:
            head, (length,) = 12, struct.unpack_from("<I", window, at + 8)
        elif self.key[1]:
            head, (length,) = 8, struct.unpack_from("<I", window, at + 4)
        else:
            head, (length,) = 8, struct.unpack_from("<H", window, at + 6)
        if length > len(window) - at - head:
            return None
        if wanted < len(self.wanted) and self.wanted[wanted][0] == index:
            values[self.wanted[wanted][1]] = window[at + head : at + head + length]
            wanted += 1
        return length - (end - int(self.at[index]) - head), wanted

    def missed(self, reached: int, end: int) -> bool:
        """Tell whether it is time to learn anew, a header having been walked from `reached` to `end`."""
        if len(self.at) and reached > end // 2:
            self.tries = 0
            return False
        self.tries += 1
        return not len(self.at) or self.tries % _RELEARN == 1

    def learn(
        self, found: list[tuple[int, int, int, int]], window: bytes, key: tuple[Any, ...], keep: frozenset[int]
    ) -> None:
        """Remember a header.

        Parameters
        ----------
        found : list of (place, tag, head length, value length)
            In order, without gaps, all heads and wanted values within `window`.
        window : bytes
        key : tuple
        keep : set of int
            The wanted tags.
        """
        if not found:
            return
        first = found[0][0]
        place = np.array([one[0] for one in found], np.int64)
        eights: NDArray[np.uint64] = np.ndarray((len(window) - 7,), "<u8", window, 0, (1,))
        fours: NDArray[np.uint32] = np.ndarray((len(window) - 3,), "<u4", window, 0, (1,))
        self.key, self.at = key, place - first
        self.ends = np.array([one[0] + one[2] + one[3] for one in found], np.int64) - first
        self.heads = eights[place]
        self.long = [n for n, one in enumerate(found) if one[2] == _LONG_HEAD]
        tails = place[self.long] + 8
        self.tails_at, self.tails = tails - first, fours[tails]
        self.wanted = [
            (n, tag, at + head - first, length) for n, (at, tag, head, length) in enumerate(found) if tag in keep
        ]
        self.cuts = {}
        self.end = int(self.ends[-1])


def _equal(these: NDArray[Any], those: NDArray[Any]) -> int:
    """Return how many of the first entries are equal."""
    same = these == those
    if not len(same):
        return 0
    first = int(same.argmin())  # quicker than all()
    return len(same) if same[first] else first
