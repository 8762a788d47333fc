"""JSON that is damaged or hostile is refused with one kind of error, in one line."""

from __future__ import annotations

import json

import pytest

from skelnas.json_text import MAX_ITEMS, MAX_LEVELS, parse


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1, column 1: Expecting value"),
        ('{"a": 1,\n b}', "line 2, column 2: "),
        (b'{"a":\n"\xff"}', "line 2: not UTF-8, found the byte 0xff"),
        ("9" * 5000, "Exceeds the limit"),
        ('{"a": {"b": 1, "c": 2, "b": 1}}', "the key 'b' occurs twice in an object"),
        ("[" + "[]," * MAX_ITEMS + "0]", "4,194,305 lists and objects with 0 keys"),
        (nested(MAX_LEVELS + 1), "brackets nested too deeply"),
        (nested(100_000), "brackets nested too deeply"),
        ('{"a":' * 1000 + "0" + "}" * 1000, "brackets nested too deeply"),
    ],
)
def test_what_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}") as caught:
        parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "value", [None, {"a": [1.5, "é"], "b": {}}, json.loads(nested(MAX_LEVELS))]
)
def test_what_is_read(value: object) -> None:
    text = json.dumps(value)
    assert parse(text) == parse(text.encode()) == value
    assert parse(nested(MAX_LEVELS)) == json.loads(nested(MAX_LEVELS))


def test_without_strictness_a_later_key_counts() -> None:
    assert parse('{"a": 1, "a": 2}', is_strict=False) == {"a": 2}
    assert parse(nested(MAX_LEVELS + 1), is_strict=False) == json.loads(nested(MAX_LEVELS + 1))
