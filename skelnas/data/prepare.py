"""``skelnas prepare``: raw recordings to a skeleton cache.

Worker processes read and check the files; this process writes them in the order of the catalogue,
so that the cache is the same, byte for byte, for any number of workers.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Generator, Iterable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas._version import __version__
from skelnas.data.cache import CacheWriter, Journal, Storage
from skelnas.data.cache.journal import side_file_stamps
from skelnas.data.readers.base import BrokenFile, Catalogue, Recording, Source, Test, Train
from skelnas.data.readers.files import find_extent_outside
from skelnas.data.readers.reading import CHUNK_FILES, read_all
from skelnas.data.splits import find_missing_clips
from skelnas.errors import InputError, SkelnasError, UsageError
from skelnas.runtime import console
from skelnas.runtime.files import atomic_write, check_output

MIN_FILES_FOR_POOL = 256
"""With fewer files, starting worker processes takes longer than it saves."""


@dataclass(frozen=True)
class PrepareReport:
    """The outcome of `prepare`, written as JSON under these field names.

    Attributes:
        out: path of the cache.
        source: name of the source.
        clips: clips in the cache.
        classes: class names in the cache.
        frames: frames of all clips.
        two_person_share: fraction of the clips in which two persons or more are seen.
        splits: protocol to (train clips, test clips).
        outside_picture: clip to the extent of its joints in fractions of the picture, for those
            clips that do not fit it.
        missing_clips: what cannot be learned or scored for lack of clips, a line each.
        skipped: (file, reason) of files left out on purpose.
        failed: broken files, which were left out.
        storage: precision and compression of the poses.
        workers: processes that read files.
        resumed: clips that an earlier run had already read.
        seconds: elapsed time.
        files_per_second: files read per second, broken ones included.
    """

    out: str
    source: str
    clips: int
    classes: int
    frames: int
    two_person_share: float
    splits: dict[str, tuple[int, int]]
    outside_picture: dict[str, str]
    missing_clips: list[str]
    skipped: list[tuple[str, str]]
    failed: list[BrokenFile]
    storage: Storage
    workers: int
    resumed: int
    seconds: float
    files_per_second: float

    def __repr__(self) -> str:
        return (
            f"PrepareReport({self.out!r}, {self.clips:,} clips of {self.classes:,} classes, "
            f"{len(self.failed):,} broken files)"
        )

    def to_json(self) -> str:
        """Format the report as JSON, with an object for each file."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain containers, with an object for each file."""
        report = asdict(self)
        report["splits"] = {
            protocol: {"train": train, "test": test}
            for protocol, (train, test) in self.splits.items()
        }
        for name in ("outside_picture", "missing_clips"):
            if not report[name]:
                del report[name]
        for kind in ("skipped", "failed"):
            report[kind] = [{"file": file, "reason": reason} for file, reason in report[kind]]
        return report


def report_path(out: Path) -> Path:
    """Return the path of the report of a cache."""
    return out.with_name(out.name + ".report.json")


def prepare(
    source: Source,
    out: Path | str,
    *,
    workers: int | None = None,
    force: bool = False,
    strict: bool = False,
    max_failed: int | None = None,
    resume: bool = False,
    storage: Storage | None = None,
) -> PrepareReport:
    """Read every clip of `source` and write the skeleton cache `out`.

    Broken files are left out and listed in the cache, in the returned report and in
    ``OUT.report.json`` next to the cache. If this raises, no cache is left behind.

    Args:
        source: the raw data.
        out: path of the cache to write.
        workers: processes that read files; by default one per core, or one for a few files.
        force: replace an existing `out`.
        strict: stop at the first broken file.
        max_failed: stop at more broken files than this; by default there is no limit.
        resume: save what is read in ``OUT.parts`` until the cache is finished, and continue from
            what an earlier run with `resume` saved there. The cache is the same, byte for byte.
        storage: precision and compression of the poses; by default uncompressed float32.

    Raises:
        UsageError: `out` exists (without `force`), is a folder or cannot be written; `workers`
            or `max_failed` is out of range; or ``OUT.parts`` is from a different run.
        InputError: there are no clips, every file is broken, or too many are.
        DeviceError: a worker died.
        SkelnasError: the cache cannot be written.
    """
    start, out = time.perf_counter(), Path(out)
    _check_arguments(out, workers, force, max_failed, resume)
    storage = storage or Storage()
    catalogue = source.catalogue()
    items = catalogue.items
    _make_folder(out)
    with (
        _create_writer(source, out, storage) as writer,
        _open_journal(source, catalogue, out, force) if resume else nullcontext() as journal,
    ):
        resumable = journal.find_resumable(items) if journal else [False] * len(items)
        num_workers = _choose_num_workers(workers, resumable.count(False))
        with closing(_read_items(source, items, num_workers, journal, resumable)) as outcomes:
            totals = _write_clips(source, items, outcomes, writer, 0 if strict else max_failed)
        clips = writer.table()
        if not clips.names:
            raise _no_clips_error(source, totals.failed)
        classes, splits = source.classes(clips.labels), source.splits(clips)
        writer.finish(
            classes=classes, splits=splits, skipped=catalogue.skipped, failed=totals.failed
        )
        if journal:
            journal.remove()
    seconds = time.perf_counter() - start
    report = PrepareReport(
        out=str(out),
        source=source.name,
        clips=len(clips.names),
        classes=len(classes),
        frames=totals.frames,
        two_person_share=totals.two_person_clips / len(clips.names),
        splits={protocol: _part_sizes(parts) for protocol, parts in splits.items()},
        outside_picture=totals.outside_picture,
        missing_clips=[
            line
            for protocol, parts in splits.items()
            for line in find_missing_clips(
                protocol, classes, clips.labels[parts == Train], clips.labels[parts == Test]
            )
        ],
        skipped=catalogue.skipped,
        failed=totals.failed,
        storage=storage,
        workers=num_workers,
        resumed=resumable.count(True),
        seconds=round(seconds, 3),
        files_per_second=round(len(items) / seconds, 1),
    )
    atomic_write(report_path(out), report.to_json())
    return report


def _check_arguments(
    out: Path, workers: int | None, force: bool, max_failed: int | None, resume: bool
) -> None:
    if max_failed is not None and max_failed < 0:
        raise UsageError(f"at most {max_failed} broken files, expected 0 or more")
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers, expected 1 or more")
    if out.is_dir():
        raise UsageError(f"{out} is a folder", hint="name a file in it, such as cache.h5")
    check_output(out)
    if out.exists() and resume and not force:
        raise UsageError(
            f"{out} is finished, so there is nothing to resume",
            hint="`skelnas inspect` shows what is in it; --force makes it again",
        )
    if out.exists() and not force:
        raise UsageError(f"{out} already exists", hint="choose another name, or --force")


def _make_folder(out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SkelnasError(f"{out.parent}: cannot be created ({error.strerror})") from None


def _create_writer(source: Source, out: Path, storage: Storage) -> CacheWriter:
    return CacheWriter(
        out,
        source=source.name,
        rule=source.rule,
        layout=source.layout,
        max_persons=source.max_persons,
        storage=storage,
    )


def _open_journal(source: Source, catalogue: Catalogue, out: Path, force: bool) -> Journal:
    identity = {
        "skelnas_version": __version__,
        "source": source.name,
        "settings": repr(source),
        "rule": source.rule,
        "layout": source.layout.to_dict(),
        "side_files": side_file_stamps(catalogue.side_files),
    }
    return Journal(out, identity, force=force)


def _choose_num_workers(workers: int | None, num_items: int) -> int:
    if workers is None:
        if num_items < MIN_FILES_FOR_POOL:
            return 1
        affinity = getattr(os, "sched_getaffinity", None)
        workers = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(workers, -(-num_items // CHUNK_FILES)))


def _read_items(
    source: Source,
    items: list[Path],
    workers: int,
    journal: Journal | None,
    resumable: list[bool],
) -> Generator[Recording | BrokenFile, None, None]:
    """Yield the recordings of an earlier run and read the rest, in the order of the items."""
    unread = [item for item, is_resumable in zip(items, resumable, strict=True) if not is_resumable]
    with closing(read_all(source, unread, workers)) as outcomes:
        for item, is_resumable in zip(items, resumable, strict=True):
            if journal and is_resumable:
                yield journal.load(item)
                continue
            outcome = next(outcomes)
            if journal and isinstance(outcome, Recording):
                journal.add(item, outcome)
            yield outcome


@dataclass
class _Totals:
    """Facts about the clips that were written, and the files that were not."""

    frames: int = 0
    two_person_clips: int = 0
    outside_picture: dict[str, str] = field(default_factory=dict)
    failed: list[BrokenFile] = field(default_factory=list)


def _write_clips(
    source: Source,
    items: list[Path],
    outcomes: Iterable[Recording | BrokenFile],
    writer: CacheWriter,
    max_failed: int | None,
) -> _Totals:
    """Write every recording to the cache and collect the broken files.

    Raises:
        InputError: more than `max_failed` files are broken.
    """

    @functools.cache
    def num_classes(label: int) -> int:
        return len(source.classes(np.array([label], dtype=np.int32)))

    def write(item: Path, recording: Recording) -> Recording | BrokenFile:
        label = recording.label
        try:
            if label >= num_classes(label):  # checked here, while the file is still known
                expected = f"expected 0 to {num_classes(label) - 1}"
                raise InputError(f"clip {recording.name}: label {label}, {expected}")
            writer.add(recording)
        except InputError as error:
            return BrokenFile(str(item), str(error))
        return recording

    totals = _Totals()
    in_picture = getattr(source, "in_picture", False)  # sources of others may not say
    with console.progress(f"prepare {source.name}", len(items)) as meter:
        for item, outcome in zip(items, outcomes, strict=True):
            written = write(item, outcome) if isinstance(outcome, Recording) else outcome
            if isinstance(written, Recording):
                totals.frames += written.present.shape[1]
                totals.two_person_clips += int(written.present.any(axis=1).sum() >= 2)
                if in_picture and (extent := find_extent_outside(written.poses)):
                    totals.outside_picture[written.name] = extent
            else:
                totals.failed.append(written)
                if max_failed is not None and len(totals.failed) > max_failed:
                    raise _too_many_failed_error(written, max_failed)
            num_failed = len(totals.failed)
            meter.advance(status=f"{num_failed} broken" if num_failed else "")
    return totals


def _too_many_failed_error(last: BrokenFile, max_failed: int) -> InputError:
    if max_failed == 0:
        return InputError(
            f"{last.file}: {last.reason}",
            hint="repair or remove it; without --strict or --max-failed it is left out and listed",
        )
    return InputError(
        f"more than {max_failed} broken files; the last, {last.file}: {last.reason}",
        hint="check the data, or allow more with --max-failed",
    )


def _no_clips_error(source: Source, failed: list[BrokenFile]) -> InputError:
    if not failed:
        return InputError(f"{source.name}: there are no clips to read")
    return InputError(
        f"none of {len(failed)} files could be read; the first, {failed[0].file}: "
        f"{failed[0].reason}",
        hint=f"check that these are files of the source {source.name}",
    )


def _part_sizes(parts: NDArray[np.int8]) -> tuple[int, int]:
    return int(np.sum(parts == Train)), int(np.sum(parts == Test))
