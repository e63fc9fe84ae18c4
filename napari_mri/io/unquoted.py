"""Keeps pydicom from quoting values, which may tell who the patient is, in warnings and in the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unquoted() -> Iterator[None]:
    """Let pydicom take values of a wrong form as they are.

    Otherwise it warns of each and puts it into the message ("Invalid value for VR DA: '1943-…'"), which
    then stands on the screen and in whatever log the user keeps. Also a decorator: ``@unquoted()``.
    """
    from pydicom.config import disable_value_validation

    with disable_value_validation():
        yield
