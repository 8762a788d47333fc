"""Find the installed packages without importing any."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from skelnas._version import __version__

DEVELOPER_EXTRAS = ("test", "dev", "docs")
"""Extras needed only to work on skelnas."""


@dataclass(frozen=True)
class Package:
    """A package that skelnas can use; `version` is None if it is not installed."""

    name: str
    version: str | None


def find_versions() -> dict[str, str]:
    """Return the versions of skelnas, Python and the installed packages that affect results."""
    names = ("torch", "numpy", "h5py")
    installed = {name: version for name in names if (version := find_version(name))}
    return {"skelnas": __version__, "python": platform.python_version(), **installed}


def find_required() -> list[Package]:
    """Return the packages that skelnas requires."""
    return [Package(name, find_version(name)) for name, extra in _requirements() if not extra]


def find_extras() -> dict[str, list[Package]]:
    """Return the packages of each extra, ``pip install 'skelnas[EXTRA]'``."""
    extras: dict[str, list[Package]] = {}
    for name, extra in _requirements():
        if extra and extra not in DEVELOPER_EXTRAS:
            extras.setdefault(extra, []).append(Package(name, find_version(name)))
    return extras


def find_version(name: str) -> str | None:
    """Return the version of a package, or None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirements() -> Iterator[tuple[str, str]]:
    """Yield the name of each dependency and its extra, empty for required packages."""
    for text in metadata.requires("skelnas") or ():
        name = re.match(r"[\w.-]+", text)
        extra = re.search(r"""extra == ["']([\w-]+)""", text)
        if name:
            yield name[0], extra[1] if extra else ""
