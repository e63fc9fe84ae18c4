"""Kill a painting program 200 times at random moments and count what was lost.

``python benchmarks/kill.py [TIMES [WINDOWS]]``: WINDOWS of the TIMES (default 20) it is a real napari window with the
Labels widget that dies while it paints and saves; that needs a display. A sound end: the log gives back a state of at most one stroke before the
kill, and the saved mask is whole and no older than the last save that was reported done.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.edit.killing import kill_once, kill_window_once


def main(times: int, windows: int) -> int:
    wrecks = []
    for seed in range(times):
        wrecks.append(kill_window_once(1000 + seed) if seed < windows else kill_once(1000 + seed))
        if (seed + 1) % 20 == 0:
            print(f"{seed + 1} kills, {sum(w.sound for w in wrecks)} sound", flush=True)
    lost = Counter(w.did - w.recovered for w in wrecks)
    print("strokes lost -> kills (below 0: recorded, not yet reported):", dict(sorted(lost.items())))
    print("torn tails cut off:", sum(w.torn for w in wrecks), "| damaged masks:", sum(w.mask < 0 for w in wrecks))
    print("of them in a real window:", windows)
    print("steps painted:", sum(w.did for w in wrecks), "| unsound:", [w for w in wrecks if not w.sound])
    return int(any(not w.sound for w in wrecks))


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:]]
    raise SystemExit(main(given[0] if given else 200, given[1] if len(given) > 1 else min(20, given[0] if given else 20)))
