"""Write files so that a kill at any moment leaves the last good content."""

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
    """Write a file so that a reader sees the old content or the new, never a part.

    A link is followed; a pipe or a device, which cannot be replaced, is written to.

    Raises:
        SkelnasError: the file cannot be written; the old content, if any, is still there.
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
            hint="what was there before is untouched; make room or choose another place",
        ) from error
    finally:
        with suppress(OSError):  # such as that its folder is none
            part.unlink()


def to_json(value: object) -> str:
    """Format plain containers for a file: sorted, indented, with a final newline."""
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    packages = {name: metadata.version(name) for name in ("torch", "numpy")}
    return {"skelnas": __version__, "python": platform.python_version(), **packages}
