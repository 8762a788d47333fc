"""The skeleton of your own recordings, by name or described in a small JSON or TOML file.

    {"joints": ["hip", "head", "hand"], "bones": [["head", "hip"], ["hand", "head"]],
     "center": "hip", "channels": ["x", "y"], "picture": [1920, 1080], "y_down": true,
     "frame_rate": 30}

Only `joints` is required. A bone is [child, parent], by name or by index from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skelnas.data.readers.base import MAX_JOINTS, Layout, fold_name
from skelnas.data.readers.channels import parse_channels
from skelnas.data.readers.files import read_bytes, read_json
from skelnas.data.readers.layouts import LAYOUTS, find_layout
from skelnas.errors import InputError, shown
from skelnas.runtime.files import parse_toml

KEYS = ("joints", "bones", "center", "channels", "picture", "y_down", "frame_rate")
MAX_BYTES = 2 << 20
MAX_FRAME_RATE = 10_000
MAX_NAME_CHARS = 100


@dataclass(frozen=True)
class Skeleton:
    """The validated content of the file, or what is known of a layout by its name.

    Attributes:
        joints: names in the order of the data.
        bones: (child, parent) pairs of joint indices.
        center: index of the joint that clips are centred on.
        channels: standard names of the numbers of a joint in the order of data without names;
            empty if the file has none.
        picture: width and height in pixels to divide x and y by.
        y_down: whether y grows downwards; None if the file does not say.
        frame_rate: frames per second.
        named: the layout, if it was given by name.
    """

    joints: tuple[str, ...]
    bones: tuple[tuple[int, int], ...] = ()
    center: int | None = None
    channels: tuple[str, ...] = ()
    picture: tuple[float, float] | None = None
    y_down: bool | None = None
    frame_rate: float | None = None
    named: Layout | None = None

    def make_layout(self, channels: tuple[str, ...]) -> Layout:
        """Return the layout of data with these channels, in standard order."""
        y_down = self.y_down
        if self.named and self.named.y_down and "z" in self.named.channels:
            y_down = True
        return Layout(self.joints, self.bones, channels, self.center, y_down, self.frame_rate)


def find_skeleton(name_or_path: Path) -> Skeleton:
    """Find a layout by its name, or read a file. Raises InputError if there is neither."""
    name = str(name_or_path)
    if name.casefold() not in LAYOUTS and (name_or_path.suffix or name_or_path.exists()):
        return read_skeleton(name_or_path)
    layout = find_layout(name)
    return Skeleton(layout.joints, layout.bones, layout.center_joint, named=layout)


def read_skeleton(path: Path) -> Skeleton:
    """Read and validate the file. Raises InputError that names the file, the key and the value."""
    is_toml = path.suffix.lower() == ".toml"
    content = _read_toml(path) if is_toml else read_json(path, MAX_BYTES, unique_keys=True)
    if not isinstance(content, dict) or not content.get("joints"):
        raise InputError(f"{path}: expected an object with a list of names under 'joints'")
    for key in content:
        if key not in KEYS:
            raise InputError(f"{path}: unknown key {key[:40]!r}, expected {', '.join(KEYS)}")
    joints = _names(path, "joints", content["joints"])
    channels = _channels(path, content.get("channels", []))
    bones = content.get("bones", [])
    if not isinstance(bones, list) or any(not _is_pair(bone) for bone in bones):
        raise InputError(f"{path}: expected 'bones' to be a list of pairs, [child, parent]")
    index = {fold_name(joint): number for number, joint in enumerate(joints)}
    pairs = tuple((_joint(path, index, a), _joint(path, index, b)) for a, b in bones)
    _check_tree(path, joints, pairs)
    center = content.get("center")
    picture = content.get("picture")
    if picture is not None and (
        not _is_pair(picture)
        or any(type(side) not in (int, float) or not 0 < side < 1e9 for side in picture)
    ):
        raise InputError(f"{path}: expected 'picture' to be [width, height] in pixels")
    y_down, frame_rate = content.get("y_down"), content.get("frame_rate")
    if y_down is not None and not isinstance(y_down, bool):
        raise InputError(f"{path}: expected 'y_down' to be true or false, found {shown(y_down)}")
    if frame_rate is not None and (
        type(frame_rate) not in (int, float) or not 0 < frame_rate <= MAX_FRAME_RATE
    ):
        raise InputError(
            f"{path}: expected 'frame_rate' to be frames per second, found {shown(frame_rate)}"
        )
    return Skeleton(
        joints,
        pairs,
        None if center is None else _joint(path, index, center),
        channels,
        None if picture is None else (float(picture[0]), float(picture[1])),
        y_down,
        None if frame_rate is None else float(frame_rate),
    )


def _read_toml(path: Path) -> Any:
    data = read_bytes(path, MAX_BYTES)
    try:
        return parse_toml(data.decode("utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{path}: expected TOML: {error}") from None


def _names(path: Path, key: str, names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(map(_is_name, names)):
        raise InputError(
            f"{path}: expected {key!r} to be a list of names of at most {MAX_NAME_CHARS} characters"
        )
    if len(names) > MAX_JOINTS:
        raise InputError(f"{path}: {len(names)} {key}, expected at most {MAX_JOINTS}")
    folded: set[str] = set()
    for name in names:
        if fold_name(name) in folded:
            raise InputError(f"{path}: {key!r} has {name!r} twice")
        folded.add(fold_name(name))
    return tuple(names)


def _channels(path: Path, names: Any) -> tuple[str, ...]:
    """Return the standard names of the channels, in the order of the file."""
    if not (names := _names(path, "channels", names)):
        return ()
    try:
        return parse_channels(names)
    except ValueError as error:
        raise InputError(f"{path}: 'channels' are {', '.join(names)}: {error}") from None


def _check_tree(path: Path, joints: tuple[str, ...], bones: tuple[tuple[int, int], ...]) -> None:
    """Raise InputError if a joint has two parents, or bones go in a circle."""
    parents: dict[int, int] = {}
    for child, parent in bones:
        if child == parent:
            raise InputError(f"{path}: a bone from {joints[child]!r} to itself")
        if child in parents:
            raise InputError(
                f"{path}: two bones of the child {joints[child]!r}, expected one",
                hint="a bone is [child, parent]",
            )
        parents[child] = parent
    done: set[int] = set()
    for child in parents:
        path_up: dict[int, None] = {}
        joint = child
        while joint in parents and joint not in done:
            if joint in path_up:
                raise InputError(f"{path}: the bones of {joints[joint]!r} go in a circle")
            path_up[joint] = None
            joint = parents[joint]
        done.update(path_up)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS and name.isprintable()


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _joint(path: Path, index: dict[str, int], value: Any) -> int:
    """Return the index of a joint, given its name or its index."""
    if isinstance(value, str) and fold_name(value) in index:
        return index[fold_name(value)]
    if type(value) is int and 0 <= value < len(index):
        return value
    raise InputError(
        f"{path}: {str(value)[:40]!r} is not a joint, expected one of {', '.join([*index][:8])}..."
    )
