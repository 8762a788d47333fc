"""A short run of the fuzzer of caches, with the same inputs every time."""

from __future__ import annotations

import os

import pytest

if os.name == "nt":
    pytest.skip("needs fork", allow_module_level=True)

from fuzz_caches import run


def test_broken_caches_are_refused_cleanly() -> None:
    tally = run(count=400)
    assert tally.findings == []
    assert tally.accepted > 40
    assert tally.inputs == 400 == tally.accepted + tally.refused
