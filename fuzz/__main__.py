"""Runs the readers on damaged files in a worker process, and keeps what breaks them.

``python -m fuzz --inputs 20000`` ends with exit code 1 if one input crashed, took more than 10 s of
processor time or 1.5 GB, or raised anything but a `MriError`. Processor time, because on a busy
machine the clock on the wall tells nothing about the reader.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from fuzz.mutate import damaged
from fuzz.seeds import made, real
from fuzz.worker import SECONDS, serve

GIGABYTES = 1.5
_PATIENCE = 300.0  # s on the wall: only a reader that waits and does not work takes that long


class Worker:
    """A process that opens one file after another; a fresh one takes its place when it dies."""

    def __init__(self) -> None:
        self.pipe: Any = None
        self.process: Any = None
        self.start()

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other,), daemon=True)
        self.process.start()
        other.close()
        self.pipe.recv()

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()

    def open(self, name: str, content: bytes) -> tuple[str, str]:
        """Return how an input ended: a word, and details where it is a failure."""
        try:
            self.pipe.send((name, content))
            if not self.pipe.poll(_PATIENCE):
                self.stop()
                self.start()
                return "hang", f"longer than {_PATIENCE:.0f} s"
            word, details, gigabytes = self.pipe.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self.process.join(5)
            code = self.process.exitcode
            self.stop()
            self.start()
            if code == -signal.SIGPROF:
                return "hang", f"longer than {SECONDS:.0f} s of processor time"
            return "crash", f"the process died (exit code {code})"
        if gigabytes > GIGABYTES:
            self.stop()
            self.start()
            return "memory", f"{gigabytes:.2f} GB"
        return word, details


def main() -> int:
    """Run, tell the counts, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m fuzz")
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only seeds whose name holds this")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz/found"), help="folder for inputs that broke something"
    )
    wish = parser.parse_args()
    seeds = {name: content for name, content in {**made(), **real()}.items() if wish.only in name}
    names = sorted(seeds)
    print(f"{len(names)} seeds, {wish.inputs} inputs", flush=True)
    rng = random.Random(wish.seed)
    worker = Worker()
    ends: Counter[str] = Counter()
    began = time.monotonic()
    for number in range(wish.inputs):
        name = names[number % len(names)]
        content = damaged(seeds[name], [seeds[rng.choice(names)]], rng)
        word, details = worker.open(name, content)
        ends[word] += 1
        if word not in ("volume", "refused"):
            wish.keep.mkdir(parents=True, exist_ok=True)
            place = wish.keep / f"{word}-{number}-{name}"
            place.write_bytes(content)
            print(f"{place}: {details}", flush=True)
        if number % 2000 == 1999:
            print(f"{number + 1}: {dict(ends)}, {time.monotonic() - began:.0f} s", flush=True)
    worker.stop()
    print(f"{dict(ends)}; {time.monotonic() - began:.0f} s in all")
    return int(any(word not in ("volume", "refused") for word in ends))


if __name__ == "__main__":
    sys.exit(main())
