"""The file that a cache grows in until it is finished."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import h5py

from skelnas.errors import SkelnasError, UsageError

try:
    import fcntl
except ImportError:  # where there are no such locks, two runs have to keep apart by themselves
    fcntl = None  # type: ignore[assignment]

SPARE_BYTES = 16 * 1024 * 1024
"""Room on the disk that is never used up, so that a full disk is met before HDF5 meets it."""


class PartFile:
    """``OUT.tmp``: locked against other runs, renamed when it is finished, removed otherwise.

    Args:
        out: the name that the file gets in the end.

    Attributes:
        path: the name that it has until then.

    Raises:
        UsageError: another run is writing to the same file.
        SkelnasError: the file cannot be written.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = out.with_name(out.name + ".tmp")
        self._kept = False
        with self.trouble_is_known():
            self._handle = self.path.open("ab")
        if not self._lock():
            self._handle.close()
            raise UsageError(
                f"another run is writing {self.path}",
                hint="wait for it to end, or choose another name",
            )

    def open_hdf5(self) -> h5py.File:
        """Open it as an empty HDF5 file to write."""
        with self.trouble_is_known():
            # The oldest file layout has no times in it, so equal clips give equal bytes. The
            # lock is ours: HDF5 would empty a file first and then find that it is in use.
            return h5py.File(self.path, "w", libver=("earliest", "v110"), locking=False)

    def abandon(self, file: h5py.File) -> None:
        """Close an HDF5 file that is not to be kept.

        HDF5 writes what it still holds when it closes a file, and crashes with the process where
        it cannot: on a full disk, or beyond a quota. So it writes to memory here.
        """
        with suppress(OSError, RuntimeError, ValueError):  # it may be closed already
            descriptor = file.id.get_vfd_handle()
            with _nowhere() as nowhere:
                os.dup2(nowhere, descriptor)
        with suppress(OSError, RuntimeError):
            file.close()

    def check_room(self, num_bytes: int) -> None:
        """Raise SkelnasError where the disk has no room for so many bytes more."""
        free = shutil.disk_usage(self.path.parent).free
        if free < num_bytes + SPARE_BYTES:
            raise SkelnasError(
                f"cannot write {self.out}: {free / 1e6:.0f} MB are left on the disk",
                hint="make room, or write to another disk",
            )

    def keep(self) -> None:
        """Give the finished file its name. Raises SkelnasError where that fails."""
        with self.trouble_is_known():
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
            self.path.replace(self.out)
        self._kept = True

    def close(self) -> None:
        """Let go of the file, and remove it if it was not kept."""
        if not self._kept:
            self.path.unlink(missing_ok=True)
        self._handle.close()

    @contextmanager
    def trouble_is_known(self) -> Iterator[None]:
        """Turn what the disk or HDF5 say into a SkelnasError."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            number = getattr(error, "errno", None)
            raise SkelnasError(
                f"cannot write {self.out}: {os.strerror(number) if number else error}",
                hint="check that the folder may be written to and has room left",
            ) from error

    def _lock(self) -> bool:
        if fcntl is None:
            self._handle.close()  # Windows cannot rename a file that is open
            return True
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The run that had the lock may have renamed or removed the file just now.
            return os.path.samestat(os.fstat(self._handle.fileno()), self.path.stat())
        except (BlockingIOError, FileNotFoundError):
            return False
        except OSError:
            return True  # a disk that has no locks


@contextmanager
def _nowhere() -> Iterator[int]:
    """Open a file in memory or, where the system has none, among the temporary ones."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("skelnas")
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryFile() as file:
            yield file.fileno()
