"""A short run of the fuzzer, with the same inputs every time."""

from __future__ import annotations

import pytest
from fuzz_parsers import run
from targets import TARGETS


@pytest.mark.parametrize("parser", TARGETS)
def test_broken_files_are_refused_cleanly(parser: str) -> None:
    tally = run(parser, count=3000, seconds=1.5)
    assert tally.findings == []
    assert tally.accepted > 0
    assert tally.refused > tally.accepted / 100
    assert tally.inputs == tally.accepted + tally.refused
