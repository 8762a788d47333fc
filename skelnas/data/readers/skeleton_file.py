"""The skeleton of your own recordings, described in a small JSON or TOML file.

    {"joints": ["hip", "head", "hand"], "bones": [["head", "hip"], ["hand", "head"]],
     "center": "hip", "channels": ["x", "y"], "picture": [1920, 1080]}

Only `joints` is required. A bone is [child, parent], by name or by index from 0.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skelnas.data.readers.files import read_bytes, read_json
from skelnas.errors import InputError

KEYS = ("joints", "bones", "center", "channels", "picture")
MAX_JOINTS = 10_000
MAX_NAME_CHARS = 100


@dataclass(frozen=True)
class Skeleton:
    """The validated content of the file.

    Attributes:
        joints: names in the order of the data.
        bones: (child, parent) pairs of joint indices.
        center: index of the joint that clips are centred on.
        channels: names of the numbers of a joint; empty if the file has none.
        picture: width and height in pixels to divide x and y by.
    """

    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...] = ()
    center: int | None = None
    channels: tuple[str, ...] = ()
    picture: tuple[float, float] | None = None


def read_skeleton(path: Path) -> Skeleton:
    """Read and validate the file. Raises InputError that names the file, the key and the value."""
    content = _read_toml(path) if path.suffix.lower() == ".toml" else read_json(path)
    if not isinstance(content, dict) or not content.get("joints"):
        raise InputError(f"{path}: expected an object with a list of names under 'joints'")
    for key in content:
        if key not in KEYS:
            raise InputError(f"{path}: unknown key {key[:40]!r}, expected {', '.join(KEYS)}")
    joints = _names(path, "joints", content["joints"])
    channels = _names(path, "channels", content.get("channels", []))
    bones = content.get("bones", [])
    if not isinstance(bones, list) or any(not _is_pair(bone) for bone in bones):
        raise InputError(f"{path}: expected 'bones' to be a list of pairs, [child, parent]")
    pairs = tuple((_joint(path, joints, a), _joint(path, joints, b)) for a, b in bones)
    for child, parent in pairs:
        if child == parent:
            raise InputError(f"{path}: a bone from {joints[child]!r} to itself")
    center = content.get("center")
    picture = content.get("picture")
    if picture is not None and (
        not _is_pair(picture)
        or any(type(side) not in (int, float) or not 0 < side < 1e9 for side in picture)
    ):
        raise InputError(f"{path}: expected 'picture' to be [width, height] in pixels")
    return Skeleton(
        joints,
        pairs,
        None if center is None else _joint(path, joints, center),
        channels,
        None if picture is None else (float(picture[0]), float(picture[1])),
    )


def _read_toml(path: Path) -> Any:
    try:
        return tomllib.loads(read_bytes(path).decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: expected TOML: {error}") from None


def _names(path: Path, key: str, names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(map(_is_name, names)):
        raise InputError(
            f"{path}: expected {key!r} to be a list of names of at most {MAX_NAME_CHARS} characters"
        )
    if len(names) > MAX_JOINTS:
        raise InputError(f"{path}: {len(names)} {key}, expected at most {MAX_JOINTS}")
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path}: {key!r} has {name!r} twice")
    return tuple(names)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS and name.isprintable()


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _joint(path: Path, joints: tuple[str, ...], value: Any) -> int:
    """Return the index of a joint, given its name or its index."""
    if isinstance(value, str) and value in joints:
        return joints.index(value)
    if type(value) is int and 0 <= value < len(joints):
        return value
    raise InputError(
        f"{path}: {str(value)[:40]!r} is not a joint, expected one of {', '.join(joints[:8])}..."
    )
