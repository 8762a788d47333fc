"""What errors say of values that they were given."""

from __future__ import annotations

import pytest

from skelnas.errors import shown


@pytest.mark.parametrize(("value", "text"), [(3, "3"), ("yoga", "'yoga'"), (None, "None")])
def test_short_values_are_quoted_whole(value: object, text: str) -> None:
    assert shown(value) == text


def test_long_values_are_cut() -> None:
    text = shown("9" * 1000)
    assert len(text) == 60
    assert text.endswith("999...")
