"""A short run of the fuzzer of folders, with the same inputs every time."""

from __future__ import annotations

import os

import pytest

if os.name == "nt":
    pytest.skip("needs fork", allow_module_level=True)

from fuzz_folders import TARGETS, run

CHEAP = ("genotype", "settings", "joints", "table", "search", "repeats", "resumed-alone")


@pytest.mark.parametrize("target", TARGETS)
def test_broken_folders_are_refused_cleanly(target: str) -> None:
    tally = run(target, count=300 if target in CHEAP else 40)
    assert tally.findings == []
    assert tally.accepted > 0 < tally.refused
    assert tally.inputs == tally.accepted + tally.refused
