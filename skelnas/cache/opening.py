"""Opens a file that should be a cache, and says clearly what is wrong with it if it is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from skelnas import __version__
from skelnas.cache.schema import FORMAT, SCHEMA_VERSION
from skelnas.errors import InputError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def open_file(path: Path) -> h5py.File:
    """Open an HDF5 file to read. Raises InputError where it is missing, none, or damaged."""
    try:
        with path.open("rb") as file:
            signature = file.read(len(_SIGNATURE))
    except OSError as error:
        raise InputError(
            f"cannot read the cache {path}: {error.strerror}",
            hint="`skelnas prepare` makes a cache",
        ) from error
    if signature != _SIGNATURE:
        raise InputError(f"{path} is no HDF5 file", hint="`skelnas prepare` makes a cache")
    with damage_is_bad_input(path):
        # A finished cache never changes, so no lock is needed; some network disks have none.
        return h5py.File(path, "r", locking=False)


def check_kind(path: Path, file: h5py.File) -> None:
    """Check that the file is a finished cache of our schema. Raises InputError where not."""
    with damage_is_bad_input(path):
        kind, version = file.attrs.get("format"), file.attrs.get("schema_version")
        if not isinstance(kind, str) or kind != FORMAT:
            raise InputError(
                f"{path} is an HDF5 file, but no finished skeleton cache",
                hint="`skelnas prepare` makes a cache",
            )
        if int(version) != SCHEMA_VERSION:
            raise InputError(
                f"{path} has cache schema {version} (skelnas {file.attrs['skelnas_version']}); "
                f"skelnas {__version__} reads schema {SCHEMA_VERSION}",
                hint="run `skelnas prepare` again with this version",
            )


@contextmanager
def damage_is_bad_input(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file makes HDF5 or us trip over into an InputError."""
    try:
        yield
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"the cache {path} is damaged or cut short: {error}",
            hint="copy it again, or run `skelnas prepare` again",
        ) from error
