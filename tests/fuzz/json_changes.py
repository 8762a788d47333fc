"""Break JSON: change its structure, or write what JSON can say but nobody means."""

from __future__ import annotations

import json
from random import Random
from typing import Any

HUGE = (2**31, 2**63 - 1, 2**63, -(2**63) - 1, 10**12, 10**18, 10**30, 1e18, 1e308, -1e308)
SMALL = (0, -1, 1, 2, 3, 7, 64, 1000, 0.5, 1.0, -0.0, 1e-320, True, False, None)
TEXTS = ("", " ", "none", "skip_connect", "x", "é\u202e", "\x1b[31m", "a\nb", "../..", "/", "\0")
MARK = "~raw~"
RAW = (
    *("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1E400", "9" * 4000, "9" * 5000, "-0"),
    *('"\\ud800"', '"\\u0000"', "1.0000000000000000000000000000001"),
)
"""Texts of values that `json.dumps` does not write."""


def change_json(document: Any, random: Random) -> str:
    """Return a document as text after one to three changes."""
    holder = [json.loads(json.dumps(document))]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        _CHANGES[random.randrange(len(_CHANGES))](holder, random)
    text = json.dumps(holder[0], ensure_ascii=random.random() < 0.5)
    first, *rest = text.split(f'"{MARK}"')
    text = first + "".join(_raw(random) + part for part in rest)
    return _repeat_key(text, random) if random.random() < 0.05 else text


def _raw(random: Random) -> str:
    if random.random() < 0.4:
        depth = random.choice((3, 50, random.randint(900, 1010), 20_000))
        opening, closing = random.choice((("[", "]"), ("[", "]"), ('{"a":[', "]}")))
        return opening * depth + closing * depth
    return random.choice(RAW)


def _repeat_key(text: str, random: Random) -> str:
    """Write a key twice, with other values."""
    colons = [index for index in range(len(text) - 1) if text[index : index + 2] == '":']
    if not colons:
        return text
    end = random.choice(colons) + 1
    begin = text.rfind('"', 0, end - 1)
    value = random.choice(("1", "null", "[]", '"x"'))
    return f"{text[:begin]}{text[begin:end]}: {value}, {text[begin:]}"


def _pick(holder: list[Any], random: Random) -> tuple[Any, Any]:
    """Return a container and a key of it, on a random way down."""
    owner: Any = holder
    key: Any = 0
    while isinstance(owner[key], list | dict) and owner[key] and random.random() < 0.75:
        owner = owner[key]
        keys = list(owner) if isinstance(owner, dict) else range(len(owner))
        key = random.choice(keys)
    return owner, key


def _value(random: Random) -> Any:
    kind = random.randrange(8)
    if kind == 0:
        return random.choice(HUGE)
    if kind == 1:
        return random.choice(TEXTS)
    if kind == 2:
        return random.choice(([], {}, [[]], {"a": 1}, [None], [0, 1], {"": {}}, "x" * 3000))
    if kind in (3, 4):
        return MARK
    if kind == 5:
        return [random.choice(SMALL)] * random.choice((2, 40, 3000))
    return random.choice(SMALL)


def _replace(holder: list[Any], random: Random) -> None:
    owner, key = _pick(holder, random)
    owner[key] = _value(random)


def _nudge(holder: list[Any], random: Random) -> None:
    """Change a number, or a text, into another of its type."""
    owner, key = _pick(holder, random)
    if isinstance(owner[key], bool):
        owner[key] = not owner[key]
    elif isinstance(owner[key], int | float):
        owner[key] = random.choice((owner[key] + 1, owner[key] - 1, -owner[key], owner[key] * 2))
    elif isinstance(owner[key], str):
        text = owner[key]
        owner[key] = random.choice((text + "x", text[:-1], text.upper(), text * 2, text + "\n"))


def _delete(holder: list[Any], random: Random) -> None:
    owner, key = _pick(holder, random)
    if owner is not holder:
        del owner[key]


def _repeat(holder: list[Any], random: Random) -> None:
    owner, key = _pick(holder, random)
    if isinstance(owner, list) and owner is not holder:
        owner[key:key] = [owner[key]] * random.choice((1, 1, 3, 200))
    elif isinstance(owner, dict):
        owner[f"{key}{random.choice(('', ' ', '2', '_'))}"] = owner[key]


def _swap(holder: list[Any], random: Random) -> None:
    (one, i), (two, j) = _pick(holder, random), _pick(holder, random)
    a, b = json.dumps(one[i]), json.dumps(two[j])
    if len(a) + len(b) < 50_000:  # copies, since one may hold the other
        two[j], one[i] = json.loads(a), json.loads(b)


def _rename(holder: list[Any], random: Random) -> None:
    owner, key = _pick(holder, random)
    if isinstance(owner, dict):
        new = random.choice((key.upper(), key + "s", key[:-1], random.choice(TEXTS)))
        owner[new] = owner.pop(key)


def _wrap(holder: list[Any], random: Random) -> None:
    owner, key = _pick(holder, random)
    owner[key] = [owner[key]] if random.random() < 0.5 else {str(key): owner[key]}


def _unwrap(holder: list[Any], random: Random) -> None:
    owner, key = _pick(holder, random)
    if isinstance(owner[key], list | dict) and owner[key]:
        inner = owner[key]
        owner[key] = inner[0] if isinstance(inner, list) else next(iter(inner.values()))


_CHANGES = (
    *(_replace, _replace, _replace, _nudge, _nudge, _delete, _repeat, _swap, _rename, _wrap),
    _unwrap,
)
