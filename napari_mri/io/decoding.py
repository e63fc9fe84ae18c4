"""Makes decoders of compressed pixels fail as Python code does, whatever language they are written in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def tamed() -> Iterator[None]:
    """Turn the panic of a decoder written in Rust, which no ``except Exception`` catches, into a RuntimeError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"The decoder gave up: {error}") from error
