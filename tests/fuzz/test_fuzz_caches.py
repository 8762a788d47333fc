"""A short run of the fuzzer of caches, with the same inputs every time."""

from __future__ import annotations

import os

import pytest

if os.name == "nt":
    pytest.skip("needs fork", allow_module_level=True)

from fuzz_caches import run


def test_broken_caches_are_refused_cleanly() -> None:
    tally = run(count=250)
    assert tally.findings == []
    assert tally.accepted > 25
    assert tally.inputs == 250 == tally.accepted + tally.refused
