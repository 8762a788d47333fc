"""Writes a skeleton cache, clip by clip.

Shapes: N clips, R rows (one person in one frame), M persons, T frames, V joints, C channels of a
joint.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from zlib import crc32

import h5py
import numpy as np
from numpy.typing import NDArray

from skelnas._version import __version__
from skelnas.data.cache.hdf5 import Hdf5Reader
from skelnas.data.cache.head import read_head
from skelnas.data.cache.storage import (
    CHECKSUM,
    FORMAT,
    INTEGERS,
    SCHEMA_VERSION,
    Storage,
    clip_checksum,
    escape_text,
    write_strings,
    write_table,
)
from skelnas.data.readers.base import (
    ClipTable,
    Layout,
    Recording,
    Test,
    Train,
    Unused,
    check_recording,
    find_layout_problem,
)
from skelnas.errors import InputError, SkelnasError, UsageError
from skelnas.runtime.files import lock

FLUSH_BYTES = 8 * 1024 * 1024
"""Poses buffered in memory before they are written."""

RESERVED_BYTES = 16 * 1024 * 1024
"""Free disk space that is never used, so that a full disk is noticed here and not in HDF5."""


class CacheWriter:
    """Writes a cache to ``OUT.tmp`` and renames it to OUT in `finish`.

    Leaving the ``with`` block without `finish` removes the temporary file and leaves an existing
    OUT unchanged. Poses are written in small batches, in constant memory.

    Args:
        out: path of the cache; an existing file is replaced.
        source: name of the source.
        rule: how persons were chosen and coordinates changed: plain JSON.
        layout: joints, bones and channels of every clip.
        max_persons: upper bound of the persons in a clip.
        storage: precision and compression of the poses.

    Raises:
        InputError: bones form a circle, or another part of the layout is wrong.
        UsageError: another run is writing the same cache.
        SkelnasError: the file cannot be written (here, in `add` and in `finish`).
    """

    def __init__(
        self,
        out: Path,
        *,
        source: str,
        rule: Mapping[str, Any],
        layout: Layout,
        max_persons: int,
        storage: Storage | None = None,
    ) -> None:
        if problem := find_layout_problem(layout):
            raise InputError(f"{source}: {problem}")
        self.out = out
        self.layout = layout
        self.max_persons = max_persons
        self._storage = storage or Storage()
        self._names: list[str] = []
        self._unique_names: set[str] = set()
        self._integers = array("q")
        self._checksums = array("L")
        self._num_rows = 0
        self._present_checksum = 0
        self._pending: list[tuple[NDArray[Any], NDArray[np.bool_]]] = []
        self._pending_bytes = 0
        self._part = PartFile(out)
        self._file: Any = None
        try:
            self._file = self._part.open_hdf5()
            with self._part.wrap_errors():
                self._write_head(source, rule)
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def add(self, recording: Recording) -> None:
        """Append one clip.

        Raises:
            InputError: the recording does not fit the layout, its name is a duplicate, or a
                number is too large for float16. Nothing has been added then.
        """
        check_recording(recording, self.layout, self.max_persons)
        if recording.name in self._unique_names:
            raise InputError(f"clip {recording.name}: an earlier file gave a clip of the same name")
        poses, present = self._storage.to_rows(recording)
        num_persons, num_frames = recording.present.shape
        metadata = (recording.label, recording.subject, recording.camera, recording.setup)
        self._integers.extend((*metadata, self._num_rows, num_persons, num_frames))
        self._checksums.append(clip_checksum(poses, present))
        self._names.append(recording.name)
        self._unique_names.add(recording.name)
        self._num_rows += num_persons * num_frames
        self._pending.append((poses, present))
        self._pending_bytes += poses.nbytes
        if self._pending_bytes >= FLUSH_BYTES:
            self._flush()

    def table(self) -> ClipTable:
        """Return the table of the clips added until now."""
        columns = self._columns()
        return ClipTable(
            names=list(self._names),
            labels=columns["label"],
            subjects=columns["subject"],
            cameras=columns["camera"],
            setups=columns["setup"],
        )

    def finish(
        self,
        *,
        classes: Sequence[str],
        splits: Mapping[str, NDArray[np.int8]],
        skipped: Sequence[tuple[str, str]] = (),
        failed: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Write the tables and rename the file to OUT.

        Args:
            classes: class names in order of the label.
            splits: protocol to [N] of Train, Test or Unused.
            skipped, failed: (file, reason) of files left out, on purpose or because they are
                broken.

        Raises:
            InputError: there are no clips, a label has no class name, two classes have the same,
                or a split does not fit.
        """
        _check_tables(self.table(), classes, splits)
        self._flush()
        with self._part.wrap_errors():
            write_strings(self._file, "classes", classes)
            write_strings(self._file, "clips/name", self._names)
            for name, column in self._columns().items():
                write_table(self._file, f"clips/{name}", column)
            write_table(self._file, f"clips/{CHECKSUM}", np.array(self._checksums, np.uint32))
            self._file.create_group("splits")
            for protocol, parts in splits.items():
                write_table(self._file, f"splits/{protocol}", np.asarray(parts, np.int8))
            for kind, pairs in (("skipped", skipped), ("failed", failed)):
                write_strings(self._file, f"{kind}/file", [file for file, _ in pairs])
                write_strings(self._file, f"{kind}/reason", [reason for _, reason in pairs])
            self._present.attrs[CHECKSUM] = np.uint32(self._present_checksum)
            self._file.flush()
            self._file.attrs[CHECKSUM] = np.uint32(self._part.read_checksum(self._file))
            # Last, so that a half-written file is never mistaken for a cache.
            self._file.attrs["format"] = FORMAT
            self._file.flush()  # if this fails, the file can still be abandoned
            self._file.close()
        self._part.commit()

    def _write_head(self, source: str, rule: Mapping[str, Any]) -> None:
        file, layout = self._file, self.layout
        file.attrs["schema_version"] = SCHEMA_VERSION
        file.attrs["skelnas_version"] = __version__
        file.attrs["source"] = source
        file.attrs["rule"] = json.dumps(rule, sort_keys=True, allow_nan=False)
        file.attrs["max_persons"] = self.max_persons
        write_strings(file, "layout/joints", layout.joints)
        write_strings(file, "layout/channels", layout.channels)
        bones = np.array(layout.bones, dtype=np.int32).reshape(-1, 2)
        write_table(file, "layout/bones", bones)
        center = -1 if layout.center_joint is None else layout.center_joint
        file["layout"].attrs["center_joint"] = center
        fields = layout.to_dict()
        if "y_down" in fields:
            file["layout"].attrs["y_down"] = layout.y_down
        if "frame_rate" in fields:
            file["layout"].attrs["frame_rate"] = float(fields["frame_rate"])
        self._poses, self._present = self._storage.create_datasets(file, layout)

    def _flush(self) -> None:
        if not self._pending:
            return
        poses = np.concatenate([poses for poses, _ in self._pending])
        present = np.concatenate([present for _, present in self._pending])
        first = self._num_rows - len(poses)
        self._part.check_free_space(poses.nbytes + present.nbytes)
        with self._part.wrap_errors():
            self._present_checksum = crc32(present.data, self._present_checksum)
            for dataset, rows in ((self._poses, poses), (self._present, present)):
                dataset.resize(self._num_rows, axis=0)
                dataset[first:] = rows
        self._pending.clear()
        self._pending_bytes = 0

    def _columns(self) -> dict[str, NDArray[Any]]:
        table = np.array(self._integers, dtype=np.int64).reshape(-1, len(INTEGERS))
        return {
            name: table[:, column].astype(np.int64 if name == "start" else np.int32)
            for column, name in enumerate(INTEGERS)
        }

    def _close(self) -> None:
        if self._file is not None:
            self._part.abandon(self._file)
        self._part.close()


def _check_tables(
    clips: ClipTable, classes: Sequence[str], splits: Mapping[str, NDArray[np.int8]]
) -> None:
    """Check that classes and splits fit the clips.

    Raises:
        InputError: they do not, or there are no clips.
    """
    if not clips.names:
        raise InputError("there are no clips to write")
    if clips.labels.max() >= len(classes):
        name = clips.names[int(clips.labels.argmax())]
        raise InputError(
            f"clip {name}: label {clips.labels.max()}, but there are {len(classes)} class names"
        )
    for protocol, parts in splits.items():
        is_name = protocol not in ("", ".", "..") and protocol == escape_text(protocol)
        if not is_name or "/" in protocol:
            raise InputError(f"protocol {protocol!r}: expected a name without a slash")
        is_part = np.isin(parts, (Train, Test, Unused))
        if is_part.shape != clips.labels.shape or not is_part.all():
            raise InputError(
                f"protocol {protocol}: expected {Train}, {Test} or {Unused} "
                f"for each of {len(clips.names)} clips"
            )


class PartFile:
    """``OUT.tmp``: locked against other runs, renamed to OUT when complete, removed otherwise.

    Args:
        out: the final path.

    Attributes:
        path: the temporary path.

    Raises:
        UsageError: another run is writing to the same file.
        SkelnasError: the file cannot be written.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.path = out.with_name(out.name + ".tmp")
        self._committed = False
        with self.wrap_errors():
            handle = lock(self.path)
        if handle is None:
            raise UsageError(
                f"another run is writing {self.path}",
                hint="wait for it to end, or choose another name",
            )
        self._handle = handle
        if os.name == "nt":
            handle.close()  # Windows cannot rename an open file, nor write to a locked one

    def read_checksum(self, file: h5py.File) -> int:
        """Read the head of a file without buffered changes, as a check; return its checksum.

        Raises:
            InputError: no cache like this could be opened.
        """
        try:
            with closing(Hdf5Reader(self.path, file)) as opened:
                return read_head(opened).checksum
        except ValueError as error:
            raise InputError(f"cannot write {self.out}: {error}") from None

    def open_hdf5(self) -> h5py.File:
        """Open an empty HDF5 file for writing."""
        with self.wrap_errors():
            # The oldest file layout stores no times, so equal clips give equal bytes. The lock is
            # ours: HDF5 would truncate a file before finding that it is in use.
            return h5py.File(self.path, "w", libver=("earliest", "v110"), locking=False)

    def abandon(self, file: h5py.File) -> None:
        """Close an HDF5 file without writing what it still buffers.

        On closing, HDF5 writes its buffers, and crashes the process if that fails, on a full disk
        or over quota. So they are redirected to memory.
        """
        with suppress(OSError, RuntimeError, ValueError):  # it may be closed already
            descriptor = file.id.get_vfd_handle()
            with _open_sink() as sink:
                os.dup2(sink, descriptor)
        with suppress(OSError, RuntimeError):
            file.close()

    def check_free_space(self, num_bytes: int) -> None:
        """Raise SkelnasError if the disk lacks the space for `num_bytes` more."""
        free = shutil.disk_usage(self.path.parent).free
        if free < num_bytes + RESERVED_BYTES:
            raise SkelnasError(
                f"cannot write {self.out}: only {free / 1e6:.0f} MB are left on the disk",
                hint="make room, or write to another disk",
            )

    def commit(self) -> None:
        """Rename the finished file to OUT. Raises SkelnasError if that fails."""
        with self.wrap_errors():
            with self.path.open("rb+") as file:
                os.fsync(file.fileno())
            self.path.replace(self.out)
        self._committed = True

    def close(self) -> None:
        """Release the lock, and remove the file unless it was committed."""
        if not self._committed:
            self.path.unlink(missing_ok=True)
        self._handle.close()

    @contextmanager
    def wrap_errors(self) -> Iterator[None]:
        """Turn errors of the disk or HDF5 into a SkelnasError."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            number = getattr(error, "errno", None)
            raise SkelnasError(
                f"cannot write {self.out}: {os.strerror(number) if number else error}",
                hint="check that the folder is writable and the disk is not full",
            ) from error


@contextmanager
def _open_sink() -> Iterator[int]:
    """Open a file in memory or, where the system has none, a temporary one."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("skelnas")
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    else:
        with tempfile.TemporaryFile() as file:
            yield file.fileno()
