"""Makes decoders of compressed pixels fail as Python code does, whatever language they are written in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def tamed() -> Iterator[None]:
    """Turn the panic of a decoder written in Rust, which no ``except Exception`` catches, into a RuntimeError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"The decoder gave up: {error}") from error


@cache
def plugin_for(syntax: str) -> str:
    """Return the decoder that pydicom should use for a transfer syntax; empty for its own choice.

    Left to itself pydicom tries one after another, and gdcm, which ends the whole process on some
    damaged streams, gets every stream that the others refuse. So it is used only where it is alone.

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
