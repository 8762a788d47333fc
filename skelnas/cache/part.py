"""The file that a cache grows in until it is finished."""

from __future__ import annotations

import contextlib
import os
from io import FileIO
from pathlib import Path
from typing import Any

from skelnas.errors import SkelnasError, UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class PartFile(FileIO):
    """``OUT.tmp``: what HDF5 writes to, locked against other runs, renamed or removed at the end.

    HDF5 may crash where a write fails and closing the file fails again, as on a full disk. It
    is therefore told that all is well; the failure is kept for `check`.

    Args:
        out: the name that the file gets in the end.

    Raises:
        UsageError: another run is writing to the same file.
        SkelnasError: the file cannot be written.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = out.with_name(out.name + ".tmp")
        self._failure: OSError | None = None
        try:
            super().__init__(os.open(self.path, os.O_RDWR | os.O_CREAT | _O_BINARY, 0o666), "r+")
            self._lock()
            super().truncate(0)
        except OSError as error:
            raise self._trouble(error) from error

    def write(self, data: Any) -> int:
        """Write all of `data`, or keep the failure."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self._failure = self._failure or error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Cut or stretch the file, or keep the failure."""
        try:
            return super().truncate(size)
        except OSError as error:
            self._failure = self._failure or error
            return size or 0

    def check(self) -> None:
        """Raise SkelnasError where something could not be written since the file was opened."""
        if self._failure is not None:
            raise self._trouble(self._failure) from self._failure

    def keep(self) -> None:
        """Give the file its name. Raises SkelnasError where anything could not be written."""
        self.check()
        try:
            os.fsync(self.fileno())
            self.close()
            self.path.replace(self.out)
        except OSError as error:
            raise self._trouble(error) from error

    def discard(self) -> None:
        """Remove the file, if it still has its first name."""
        if not self.closed:
            self.path.unlink(missing_ok=True)
            self.close()

    def _lock(self) -> None:
        if fcntl is None:
            return
        with contextlib.suppress(OSError)
