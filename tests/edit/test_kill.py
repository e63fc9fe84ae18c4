"""A kill -9 in the middle of painting, tools and saving costs at most one stroke."""

from __future__ import annotations

import sys

import pytest

from tests.edit.killing import kill_once


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a POSIX signal")
@pytest.mark.parametrize("seed", range(20))
def test_at_most_one_stroke_is_lost(seed: int) -> None:
    wreck = kill_once(seed)
    assert wreck.did >= 1
    assert wreck.sound, wreck
