"""Files: atomic writes, so that a kill leaves the last complete file; reading; checksums; locks."""

from __future__ import annotations

import errno
import glob
import json
import os
import platform
import re
import stat
import tomllib
import zlib
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

from skelnas import json_text
from skelnas._version import __version__
from skelnas.errors import InputError, SkelnasError, UsageError
from skelnas.runtime.console import note

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

MAX_TEXT_BYTES = 64 << 20
"""Of JSON that is read as a whole. No file of ours is nearly as large."""

MAX_TOML_LENGTH, MAX_TOML_DOTS, MAX_TOML_DOTS_IN_LINE = 2 << 20, 50_000, 200
"""Dotted keys take a thousand times as much memory as text and, in one line, quadratic time."""

HUB_PREFIX = "hf://"
"""Where a path to a model is expected, begins its name on the Hugging Face Hub instead."""

CHECKSUM = "checksum"
"""Key of the checksum in the JSON objects that we write."""

IN_USE = (errno.EACCES, errno.EAGAIN)
"""Errors that mean that another process holds a lock."""


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a file so that readers see either the old content or the new, never a part.

    Folders are made as needed, and links followed. A pipe or a device, which cannot be replaced,
    is written to directly.

    Raises:
        SkelnasError: the file cannot be written; the old content, if any, is intact.
    """
    target = real_path(path)
    content = data.encode(errors="backslashreplace") if isinstance(data, str) else data
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
            return
        if not target.parent.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
        remove_parts(target.parent, target.name)
        _write_and_rename(part, target, content)
    except OSError as error:
        raise SkelnasError(
            f"{path}: cannot be written ({error.strerror})",
            hint="the old content is intact; free some space or write elsewhere",
        ) from error
    finally:
        with suppress(OSError):  # it does not exist, or its folder is a file
            part.unlink()


def check_output(path: Path) -> None:
    """Check, before any work and without a trace, that a file can be written.

    Raises:
        UsageError: it is a folder, or can be neither replaced nor made.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder, expected a file", hint="name a file in it")
    if os.access(path, os.F_OK) and not path.is_file():  # a pipe or a device
        if not os.access(path, os.W_OK):
            raise UsageError(f"{path}: cannot be written", hint="choose another name")
        return
    check_can_create(real_path(path) if path.is_symlink() else path)


def check_can_create(path: Path) -> None:
    """Check that a file or a folder can be made, with the folders above it that are missing.

    Raises:
        UsageError: a folder above it is a file, or cannot be written to.
    """
    above = next(folder for folder in path.parents if os.access(folder, os.F_OK))
    if not above.is_dir():
        raise UsageError(f"{path}: {above} is a file, expected a folder", hint="write elsewhere")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UsageError(f"{path}: cannot be made: {above} is read-only", hint="write elsewhere")


def _write_and_rename(part: Path, target: Path, content: bytes) -> None:
    with part.open("wb") as file:
        with suppress(OSError):  # no locks here
            _lock_open_file(file)  # see `remove_parts`
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        if fcntl is not None:
            part.replace(target)
            return
    part.replace(target)  # Windows does not rename an open file


def remove_parts(folder: Path, name: str | None = None) -> None:
    """Remove temporary files of `atomic_write` that a kill left, but none that is being written.

    Args:
        folder: where they are.
        name: of the file that was written; None for all.
    """
    for part in list_parts(folder, name):
        with suppress(OSError):  # it is gone, or in use
            if fcntl is None:  # Windows does not remove an open file
                part.unlink()
                continue
            with part.open("rb") as file:
                _lock_open_file(file)
                part.unlink()


def list_parts(folder: Path, name: str | None = None) -> list[Path]:
    """List the temporary files of `atomic_write` in a folder, see `remove_parts`."""
    pattern = f".{'*' if name is None else glob.escape(name)}.*.part"
    is_ours = re.compile(r"\..+\.\d+\.part", re.DOTALL).fullmatch
    return [path for path in folder.glob(pattern) if is_ours(path.name) and path.is_file()]


def real_path(path: Path) -> Path:
    """Follow all links; unlike `Path.resolve`, take one that leads to itself as it is."""
    return Path(os.path.realpath(path))


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


def read_text(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> str:
    """Read a whole text file.

    Raises:
        OSError: it cannot be read.
        InputError: it is a pipe or a device.
        ValueError: it is larger than `max_bytes`, or not UTF-8.
    """
    check_is_regular(path)
    size = path.stat().st_size
    if size > max_bytes:
        raise ValueError(f"{size:,} bytes, expected at most {max_bytes:,}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:  # which quotes all of the file
        raise ValueError("it is not text in UTF-8") from None


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        OSError: the file cannot be read.
        InputError: it is a pipe or a device.
        ValueError: it is not a JSON object, or too large.
    """
    document = json_text.parse(read_text(path))
    if not isinstance(document, dict):
        raise ValueError("expected a JSON object")
    return document


def parse_toml(text: str) -> dict[str, Any]:
    """Parse TOML. Raises ValueError if it is not TOML, or too large."""
    if len(text) > MAX_TOML_LENGTH:
        raise ValueError(f"{len(text):,} characters, expected at most {MAX_TOML_LENGTH:,}")
    if text.count(".") > MAX_TOML_DOTS:
        raise ValueError(f"more than {MAX_TOML_DOTS:,} dots")
    for number, line in enumerate(text.splitlines(), start=1):
        if line.count(".") > MAX_TOML_DOTS_IN_LINE:
            raise ValueError(f"line {number} has more than {MAX_TOML_DOTS_IN_LINE:,} dots")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("brackets nested too deeply") from None


def seal(document: Mapping[str, Any], more: int = 0) -> dict[str, Any]:
    """Add the checksum of everything else, and of `more`, to a JSON object."""
    return {**document, CHECKSUM: _checksum(document, more)}


def unseal(document: object, more: int = 0) -> dict[str, Any]:
    """Return a JSON object without its checksum.

    Files of 0.1.0, and what a user wrote, have none.

    Raises:
        ValueError: the checksum is wrong, or the document is not an object.
    """
    if not isinstance(document, dict):
        raise ValueError("expected a JSON object")
    rest = {key: value for key, value in document.items() if key != CHECKSUM}
    if CHECKSUM in document and document[CHECKSUM] != _checksum(rest, more):
        raise ValueError(
            f"its {CHECKSUM} is wrong: the file is damaged, or was changed by hand without "
            f"removing the {CHECKSUM}"
        )
    return rest


def _checksum(document: Mapping[str, Any], more: int) -> str:
    return f"{zlib.crc32(json.dumps(document, sort_keys=True).encode(), more):08x}"


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


def to_json_lines(document: Mapping[str, object]) -> str:
    """Format a JSON object, one key a line and, of lists of objects, one object a line."""

    def format_value(value: object) -> str:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return "[\n  " + ",\n  ".join(map(json.dumps, value)) + "\n ]"
        return json.dumps(value)

    lines = [f" {json.dumps(key)}: {format_value(value)}" for key, value in document.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def versions() -> dict[str, str]:
    """Return the versions of the software that results depend on."""
    packages = {name: metadata.version(name) for name in ("torch", "numpy")}
    return {"skelnas": __version__, "python": platform.python_version(), **packages}
