"""Find and read files; every failure is one line that names the file."""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterable, Sequence
from importlib import resources
from math import prod
from pathlib import Path
from types import NoneType
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skelnas import json_text
from skelnas.data.readers import archives
from skelnas.data.readers.base import channel_name, num_coordinates
from skelnas.errors import InputError
from skelnas.runtime.files import check_is_regular

MAX_BYTES = 64 << 20
"""No clip is larger: a quarter of an hour of two people takes 40 MB in NTU's text format."""

_NUMBERS = {int, float, NoneType}
MAX_COMPLETED = 1 << 23
"""Numbers of an array in which some lists are null."""
MAX_AXES = 4
MAX_BEYOND_PICTURE = 0.1
"""Joints are estimated a little beyond the edge, but not by more of the width or height."""
MIN_FRACTION = 0.01
"""A clip with all joints this close to the origin was divided by the picture's size twice."""
_FLOAT32_MAX = float(np.finfo(np.float32).max)
"""Numbers beyond it stay finite, and are refused by `base.check_recording`."""


def find_files(root: Path, ending: str) -> list[Path]:
    """List the files below a folder whose name ends in `ending`, in any case, sorted by name.

    Where two names differ only in the case of the ending, a lower one comes first; of the same
    name, files are sorted by path.

    Links are followed; a folder reached twice, as in a loop of links, is listed once. A zip
    archive counts as a folder. Archives inside a folder are searched only if the folder itself
    holds no such file.

    Raises:
        InputError: `root` is not a folder, a folder cannot be listed, or an archive is damaged.
    """
    found = archives.list_archive(root, ending)
    if found is None:
        if not root.is_dir():
            reason = "it is not a folder" if root.exists() else "there is no such folder"
            raise InputError(f"{root}: expected a folder with {ending} files, but {reason}")
        files = _walk(root)
        found = [path for path in files if path.name.lower().endswith(ending)]
        for path in files if not found else []:
            if archives.is_archive(path):
                found += archives.list_archive(path, ending) or []
    return sorted(
        found,
        key=lambda path: (
            strip_ending(path, ending) + ending,
            not path.name.endswith(ending),
            path,
        ),
    )


def strip_ending(path: Path, ending: str) -> str:
    """Return the name of a file without its ending, in any case."""
    name = path.name
    return name[: len(name) - len(ending)] if name.lower().endswith(ending) else name


def _walk(root: Path) -> list[Path]:
    found: list[Path] = []
    visited: set[tuple[int, int]] = set()
    for folder, subfolders, files in os.walk(root, onerror=_raise_unlisted, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in visited:
            subfolders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        subfolders.sort()  # of two paths to a folder, take the same one on every disk
        found += [Path(folder, file) for file in files]
    return found


def _raise_unlisted(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename}: cannot be listed: {error.strerror}") from error


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """Read a whole file, which may be inside a zip archive.

    Raises:
        InputError: the file cannot be read, is larger than `limit`, or is a device or a pipe.
    """
    check_is_regular(path)
    try:
        size = path.stat().st_size
        if size > limit:
            raise InputError(f"{path}: {size:,} bytes, expected at most {limit:,}")
        return path.read_bytes()
    except OSError as error:
        member = archives.find_archive(path)
        if member and member[1]:
            return member[0].read(member[1], limit)
        other = archives.find_spelling(Path(), str(path))
        raise InputError(
            f"{path}: cannot be read: {error.strerror or error}",
            hint=None if other == str(path) else f"there is {other}, spelled with other characters",
        ) from error


def read_json(path: Path, limit: int = MAX_BYTES, *, unique_keys: bool = False) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        limit: maximum size in bytes.
        unique_keys: whether to refuse an object with the same key twice, see `json_text.parse`.

    Raises:
        InputError: names the line with the syntax error, or the key.
    """
    try:
        return json_text.parse(read_bytes(path, limit), is_strict=unique_keys)
    except ValueError as error:
        raise InputError(
            f"{path}: expected JSON: {error}",
            hint="the file may be truncated: copy or unpack it again",
        ) from None


def as_array(lists: Any) -> NDArray[np.float64] | None:
    """Turn nested lists from JSON into an array; null becomes NaN, also in place of a list.

    Returns:
        None if lists differ in length, or hold anything but numbers, such as truth values.
    """
    if not isinstance(lists, list):
        return None
    shape = _find_shape(lists)
    try:
        return _as_equal_lists(lists, len(shape))
    except (TypeError, ValueError):  # lists differ in length, perhaps since some are null
        completed = _complete(lists, shape) if prod(shape) <= MAX_COMPLETED else None
        return None if completed is None else _as_equal_lists(completed, len(shape))


def check_json(array: NDArray[np.float64], where: str) -> None:
    """Raise InputError if there is a number that JSON does not have, though not for NaN."""
    if np.isinf(array).any():
        raise InputError(f"{where}: expected finite numbers or null, found an infinite one")


def _as_equal_lists(lists: list[Any], depth: int) -> NDArray[np.float64] | None:
    numbers: Iterable[Any] = lists
    for _ in range(depth - 1):
        numbers = itertools.chain.from_iterable(numbers)
    try:
        return np.array(lists, np.float64) if set(map(type, numbers)) <= _NUMBERS else None
    except OverflowError:  # an integer of hundreds of digits
        return None


def _find_shape(lists: list[Any]) -> tuple[int, ...]:
    """Return the length of the first list at each level that has some content."""
    shape: list[int] = []
    level: list[Any] | None = lists
    while level is not None and len(shape) <= MAX_AXES:
        shape.append(len(level))
        level = next((item for item in level if isinstance(item, list) and item), None)
    return tuple(shape)


def _complete(value: Any, shape: tuple[int, ...]) -> Any:
    """Replace null and empty lists by lists of null; return None where lengths differ."""
    if value is None or value == []:
        return _unknown(shape)
    if not isinstance(value, list) or len(value) != shape[0]:
        return None
    if len(shape) == 1:
        return value
    items = [_complete(item, shape[1:]) for item in value]
    return None if None in items else items


def _unknown(shape: tuple[int, ...]) -> Any:
    return [_unknown(shape[1:])] * shape[0] if shape else None


def are_found(numbers: ArrayLike, channels: Sequence[str]) -> NDArray[np.bool_]:
    """Return which joints were found, by the one rule for all sources.

    A joint was not found if one of its numbers is unknown (NaN) or infinite, its score is 0 or
    less, all its coordinates are 0 or, in 2-D, both are -1.

    Args:
        numbers: [..., C], as in the file: before they are divided by the picture.
        channels: names of the C numbers: coordinates first, a score by any of its names.

    Returns:
        [...] bool.
    """
    joints = np.asarray(numbers, np.float64)
    # Channel by channel is ten times as fast as reductions over the last axis.
    by_channel = [joints[..., index] for index in range(len(channels))]
    coordinates = by_channel[: num_coordinates(channels)]
    with np.errstate(invalid="ignore"):  # a signalling NaN
        found = functools.reduce(np.logical_or, [axis != 0 for axis in coordinates])
        if len(coordinates) == 2:
            found &= functools.reduce(np.logical_or, [axis != -1 for axis in coordinates])
        for values, channel in zip(by_channel, channels, strict=True):
            if channel_name(channel) == "score":
                found &= values > 0
    finite = np.isfinite(joints)
    if not finite.all():
        found &= finite.all(axis=-1)
    return np.asarray(found)


def as_joints(
    numbers: ArrayLike, channels: Sequence[str] = ("x", "y", "z"), picture: ArrayLike | None = None
) -> NDArray[np.float32]:
    """Convert numbers to joints; those not found become zero.

    Args:
        numbers: [..., C], as in the file.
        channels: names of the C numbers, see `are_found`.
        picture: width and height; x and y become fractions of them, less 0.5. By default
            coordinates stay as they are.

    Returns:
        [..., C].
    """
    with np.errstate(invalid="ignore"):  # a signalling NaN
        joints = np.array(numbers, np.float64)
        found = are_found(joints, channels)
        if picture is not None:
            joints[..., :2] = joints[..., :2] / np.asarray(picture, np.float64) - 0.5
    if not found.all():
        joints[~found] = 0
    return joints.clip(-_FLOAT32_MAX, _FLOAT32_MAX).astype(np.float32)


def find_extent_outside(poses: NDArray[np.float32]) -> str | None:
    """Return the extent of joints in fractions of the picture if they cannot be in it.

    Args:
        poses: [..., C], x and y as fractions of the picture, less 0.5; zero where not found.
    """
    x, y = poses[..., 0], poses[..., 1]
    found = (x != 0) | (y != 0)
    if not found.any():  # all are in the middle
        return None
    x, y = x[found] + 0.5, y[found] + 0.5
    lowest, highest = min(x.min(), y.min()), max(x.max(), y.max())
    if lowest >= -MAX_BEYOND_PICTURE and MIN_FRACTION < highest <= 1 + MAX_BEYOND_PICTURE:
        return None
    return f"x from {x.min():.2f} to {x.max():.2f}, y from {y.min():.2f} to {y.max():.2f}"


@functools.cache
def packaged_names(file: str) -> tuple[str, ...]:
    """Read a list of names that comes with the package, once."""
    text = resources.files("skelnas.data.readers").joinpath("names", file).read_text("utf-8")
    return tuple(text.splitlines())
