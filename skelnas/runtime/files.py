"""Atomic writes: a kill at any moment leaves the last complete file."""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from skelnas._version import __version__
from skelnas.errors import SkelnasError


def atomic_write(path: Path, data: bytes | str) -> None:
    """Write a file so that readers see either the old content or the new, never a part.

    Links are followed. A pipe or a device, which cannot be replaced, is written to directly.

    Raises:
        SkelnasError: the file cannot be written; the old content, if any, is intact.
    """
    target = path.resolve()
    content = data.encode() if isinstance(data, str) else data
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


def to_json(value: object) -> str:
    """Format plain containers as JSON: sorted, indented, with a final newline."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def versions() -> dict[str, str]:
    """Return the versions of the software that results depend on."""
    packages = {name: metadata.version(name) for name in ("torch", "numpy")}
    return {"skelnas": __version__, "python": platform.python_version(), **packages}
