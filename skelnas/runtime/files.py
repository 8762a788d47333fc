"""Files: atomic writes, so that a kill at any moment leaves the last complete file; and locks."""

from __future__ import annotations

import errno
import json
import os
import platform
import stat
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import BinaryIO

from skelnas._version import __version__
from skelnas.errors import InputError, SkelnasError
from skelnas.runtime.console import note

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

IN_USE = (errno.EACCES, errno.EAGAIN)
"""Errors that mean that another process holds a lock."""


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a file so that readers see either the old content or the new, never a part.

    Links are followed. A pipe or a device, which cannot be replaced, is written to directly.

    Raises:
        SkelnasError: the file cannot be written; the old content, if any, is intact.
    """
    target = path.resolve()
    content = data.encode(errors="backslashreplace") if isinstance(data, str) else data
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        raise SkelnasError(
            f"{path}: cannot be written ({error.strerror})",
            hint="the old content is intact; free some space or write elsewhere",
        ) from error
    finally:
        with suppress(OSError):  # it does not exist, or its folder is a file
            part.unlink()


def check_is_regular(path: Path) -> None:
    """Refuse a pipe or a device, which may have no end, before it is opened.

    Anything else passes, since to open it shows what is wrong.

    Raises:
        InputError: names the file.
    """
    with suppress(OSError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise InputError(f"{path}: expected a file, found a device or a pipe")


def lock(path: Path) -> BinaryIO | None:
    """Open a file, creating it if needed, and lock it until it is closed or this process ends.

    A file system without locks is worked on all the same, with a note.

    Returns:
        The open file; None if another process, or this one, holds the lock.

    Raises:
        OSError: the file cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    file = os.fdopen(descriptor, "r+b", buffering=0)
    try:
        _lock_open_file(file)
        # The one that held the lock may just have renamed or removed the file.
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except OSError as error:
        if error.errno not in (*IN_USE, errno.ENOENT):
            _note_without_locks(path, error.strerror)
            return file
    file.close()
    return None


def _lock_open_file(file: BinaryIO) -> None:
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)


@cache  # once
def _note_without_locks(path: Path, reason: str) -> None:
    note(f"{path}: cannot be locked ({reason}); do not start a second run there meanwhile")


def to_json(value: object) -> str:
    """Format plain containers as JSON: sorted, indented, with a final newline."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def versions() -> dict[str, str]:
    """Return the versions of the software that results depend on."""
    packages = {name: metadata.version(name) for name in ("torch", "numpy")}
    return {"skelnas": __version__, "python": platform.python_version(), **packages}
