"""Which packages are there, without importing any."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from skelnas._version import __version__

BESIDES = ("test", "dev", "docs")
"""Extras of those who work on skelnas, not with it."""


@dataclass(frozen=True)
class Package:
    """A package that skelnas can use; `version` is None where it is not installed."""

    name: str
    version: str | None


def find_versions() -> dict[str, str]:
    """Return the versions of what results depend on, as far as it is installed."""
    names = ("torch", "numpy", "h5py")
    installed = {name: version for name in names if (version := find_version(name))}
    return {"skelnas": __version__, "python": platform.python_version(), **installed}


def find_required() -> list[Package]:
    """Return the packages that skelnas does not work without."""
    return [Package(name, find_version(name)) for name, extra in _requirements() if not extra]


def find_extras() -> dict[str, list[Package]]:
    """Return the packages of each extra, ``pip install 'skelnas[EXTRA]'``."""
    extras: dict[str, list[Package]] = {}
    for name, extra in _requirements():
        if extra and extra not in BESIDES:
            extras.setdefault(extra, []).append(Package(name, find_version(name)))
    return extras


def find_version(name: str) -> str | None:
    """Return the version of a package that is installed, else None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirements() -> Iterator[tuple[str, str]]:
    """Yield the name of each required package, and which extra it is for or nothing."""
    for text in metadata.requires("skelnas") or ():
        name = re.match(r"[\w.-]+", text)
        extra = re.search(r"""extra == ["']([\w-]+)""", text)
        if name:
            yield name[0], extra[1] if extra else ""
