"""How sources find and read files, and names and numbers in them.

Every failure is one line that names the file.
"""

from __future__ import annotations

import json
import os
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skelnas.errors import InputError


def find_files(root: Path, ending: str) -> list[Path]:
    """List the files below a folder whose name ends in `ending`, sorted by name, then by path.

    Links are followed; a folder that is reached twice, as in a loop of links, is listed once.

    Raises:
        InputError: if `root` is not a folder, or the system refuses to list a folder.
    """
    if not root.is_dir():
        reason = "it is not a folder" if root.exists() else "there is no such folder"
        raise InputError(f"{root}: expected a folder with {ending} files, but {reason}")
    found: list[Path] = []
    visited: set[tuple[int, int]] = set()
    for folder, subfolders, files in os.walk(root, onerror=_refused, followlinks=True):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in visited:
            subfolders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        subfolders.sort()  # which of two ways to one folder is taken must not depend on the disk
        found += [Path(folder, file) for file in files if file.endswith(ending)]
    return sorted(found, key=lambda path: (path.name, path))


def _refused(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename}: cannot be listed: {error.strerror}") from error


def read_bytes(path: Path) -> bytes:
    """Read a whole file. Raises InputError where the system refuses."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises InputError with the line at which it is no longer JSON."""
    data = read_bytes(path)
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}, column {error.colno}: expected JSON: {error.msg}"
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        reason = f"line {line}: expected JSON in UTF-8, found the byte {data[error.start]:#04x}"
    except RecursionError:
        reason = "expected JSON of a few levels, found brackets nested without end"
    except ValueError as error:  # an integer with thousands of digits
        reason = f"expected JSON: {error}"
    raise InputError(f"{path}: {reason}", hint="The file may be truncated: copy or unpack it again")


def as_joints(numbers: ArrayLike) -> NDArray[np.float32]:
    """Turn numbers [..., C] into joints; one with a number that is not finite becomes all zero."""
    with np.errstate(over="ignore"):
        joints = np.asarray(numbers, np.float64).astype(np.float32)
    finite = np.isfinite(joints)
    if not finite.all():
        joints[~finite.all(axis=-1)] = 0
    return joints


@cache
def packaged_names(file: str) -> tuple[str, ...]:
    """Lines of a list of names that comes with the package, read once."""
    text = resources.files("skelnas.sources").joinpath("names", file).read_text("utf-8")
    return tuple(text.splitlines())
