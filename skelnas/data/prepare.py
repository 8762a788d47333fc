"""``skelnas prepare``: raw recordings to a skeleton cache.

Workers read and check the files; this process writes them in the order of the catalogue, so
that the cache is the same, byte for byte, whatever the number of workers.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skelnas._version import __version__
from skelnas.data.cache import CacheWriter, Journal, Storage
from skelnas.data.cache.journal import side_file_stamps
from skelnas.data.readers.base import BrokenFile, Catalogue, Recording, Source, Test, Train
from skelnas.data.readers.reading import CHUNK_FILES, read_all
from skelnas.errors import InputError, SkelnasError, UsageError
from skelnas.runtime import console


@dataclass(frozen=True)
class PrepareReport:
    """What `prepare` has done.

    Attributes:
        out: the cache.
        source: name of the source.
        clips: clips in the cache.
        classes: class names in the cache.
        frames: frames of all clips.
        two_person_share: share of the clips in which two persons or more are seen.
        splits: protocol to (train clips, test clips).
        skipped: (file, reason) of what was left out on purpose.
        failed: the broken files, which were left out.
        storage: precision and compression of the poses.
        workers: processes that read files.
        resumed: clips that an earlier run had read already.
        seconds: time that it took.
        files_per_second: files, broken ones too, by second.
    """

    out: str
    source: str
    clips: int
    classes: int
    frames: int
    two_person_share: float
    splits: dict[str, tuple[int, int]]
    skipped: list[tuple[str, str]]
    failed: list[BrokenFile]
    storage: Storage
    workers: int
    resumed: int
    seconds: float
    files_per_second: float

    def to_json(self) -> str:
        """Write the report as JSON, the lists of files as objects."""
        report = asdict(self)
        report["splits"] = {
            protocol: {"train": train, "test": test}
            for protocol, (train, test) in self.splits.items()
        }
        for kind in ("skipped", "failed"):
            report[kind] = [{"file": file, "reason": reason} for file, reason in report[kind]]
        return json.dumps(report, indent=2) + "\n"


def report_path(out: Path) -> Path:
    """Return where the report of a cache lies."""
    return out.with_name(out.name + ".report.json")


def write_report(report: PrepareReport, path: Path) -> None:
    """Write a report. Raises SkelnasError where that fails."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(report.to_json(), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise SkelnasError(f"cannot write {path}: {error.strerror}") from error


__all__ = ["PrepareReport", "prepare", "report_path"]

FILES_FOR_A_POOL = 256
"""With fewer files than this, starting processes takes longer than it saves."""


def prepare(
    source: Source,
    out: Path,
    *,
    workers: int | None = None,
    force: bool = False,
    strict: bool = False,
    max_failed: int | None = None,
    resume: bool = False,
    storage: Storage | None = None,
) -> PrepareReport:
    """Read every clip of `source` and write the skeleton cache `out`.

    A broken file is left out and listed, in the cache, in the report that is returned and in
    ``OUT.report.json`` beside the cache. No cache is left where this raises.

    Args:
        source: the raw data.
        out: the cache to write.
        workers: processes that read files; by default one a core, and none for a few files.
        force: replace `out` if it is there.
        strict: stop at the first broken file.
        max_failed: stop when more files than this are broken; by default any number is left out.
        resume: keep what is read in ``OUT.parts`` until the cache is finished, and go on from
            what an earlier run with `resume` has left there. The cache is the same, byte for byte.
        storage: precision and compression of the poses; by default float32 as it is.

    Raises:
        UsageError: `out` is there and `force` is not given, is a folder or has none; no workers;
            what there is to resume was another run.
        InputError: there are no clips, every file is broken, one is under `strict`, or more are
            than `max_failed`.
        DeviceError: a worker died.
        SkelnasError: the cache cannot be written.
    """
    began = time.perf_counter()
    _check_request(out, workers, force, max_failed)
    storage = storage or Storage()
    catalogue = source.catalogue()
    items = catalogue.items
    most_failed = 0 if strict else max_failed
    failed: list[BrokenFile] = []
    frames = two_persons = 0
    labels = _Labels(source)
    with _writer(source, out, storage) as writer, ExitStack() as stack:
        journal = stack.enter_context(_journal(source, catalogue, out, force)) if resume else None
        known = journal.known(items) if journal else [False] * len(items)
        num_workers = _num_workers(workers, known.count(False))
        outcomes = stack.enter_context(
            closing(_outcomes(source, items, num_workers, journal, known))
        )
        meter = stack.enter_context(console.progress(f"prepare {source.name}", len(items)))
        for item, outcome in zip(items, outcomes, strict=True):
            if isinstance(outcome, Recording):
                outcome = _write(item, outcome, labels, writer)
            if isinstance(outcome, Recording):
                frames += outcome.present.shape[1]
                two_persons += int(outcome.present.any(axis=1).sum() >= 2)
            else:
                failed.append(outcome)
                if most_failed is not None and len(failed) > most_failed:
                    raise _too_many(failed, most_failed)
            meter.advance(status=f"{len(failed)} broken" if failed else "")
        clips = writer.table()
        if not clips.names:
            raise _nothing_left(source, failed)
        classes, splits = source.classes(clips.labels), source.splits(clips)
        writer.finish(classes=classes, splits=splits, skipped=catalogue.skipped, failed=failed)
        if journal:
            journal.remove()
    seconds = time.perf_counter() - began
    report = PrepareReport(
        out=str(out),
        source=source.name,
        clips=len(clips.names),
        classes=len(classes),
        frames=frames,
        two_person_share=two_persons / len(clips.names),
        splits={protocol: _part_sizes(parts) for protocol, parts in splits.items()},
        skipped=catalogue.skipped,
        failed=failed,
        storage=storage,
        workers=num_workers,
        resumed=known.count(True),
        seconds=round(seconds, 3),
        files_per_second=round(len(items) / seconds, 1),
    )
    write_report(report, report_path(out))
    return report


def _check_request(out: Path, workers: int | None, force: bool, max_failed: int | None) -> None:
    if max_failed is not None and max_failed < 0:
        raise UsageError(f"at most {max_failed} broken files, expected 0 or more")
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers, expected 1 or more")
    if out.is_dir():
        raise UsageError(f"{out} is a folder", hint="name a file in it, such as cache.h5")
    if not out.parent.is_dir():
        raise UsageError(f"there is no folder {out.parent}", hint="make it first")
    if out.exists() and not force:
        raise UsageError(f"{out} is there already", hint="choose another name, or --force")


def _num_workers(workers: int | None, num_items: int) -> int:
    if workers is None:
        if num_items < FILES_FOR_A_POOL:
            return 1
        affinity = getattr(os, "sched_getaffinity", None)
        workers = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, min(workers, -(-num_items // CHUNK_FILES)))


def _writer(source: Source, out: Path, storage: Storage) -> CacheWriter:
    return CacheWriter(
        out,
        source=source.name,
        rule=source.rule,
        layout=source.layout,
        max_persons=source.max_persons,
        storage=storage,
    )


def _journal(source: Source, catalogue: Catalogue, out: Path, force: bool) -> Journal:
    identity = {
        "skelnas_version": __version__,
        "source": source.name,
        "settings": repr(source),
        "rule": source.rule,
        "layout": asdict(source.layout),
        "side_files": side_file_stamps(catalogue.side_files),
    }
    return Journal(out, identity, anew=force)


def _outcomes(
    source: Source,
    items: list[Path],
    workers: int,
    journal: Journal | None,
    known: list[bool],
) -> Generator[Recording | BrokenFile, None, None]:
    """Yield what is known from an earlier run and read the rest, in the order of the items."""
    unknown = [item for item, is_known in zip(items, known, strict=True) if not is_known]
    with closing(read_all(source, unknown, workers)) as outcomes:
        for item, is_known in zip(items, known, strict=True):
            if journal and is_known:
                yield journal.recording(item)
                continue
            outcome = next(outcomes)
            if journal and isinstance(outcome, Recording):
                journal.add(item, outcome)
            yield outcome


class _Labels:
    """Checks that every label has a class name, while its file is still known."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._good: set[int] = set()

    def check(self, recording: Recording) -> None:
        label = recording.label
        if label in self._good:
            return
        count = len(self._source.classes(np.array([label], dtype=np.int32)))
        if label >= count:
            raise InputError(f"clip {recording.name}: label {label}, expected 0 to {count - 1}")
        self._good.add(label)


def _write(
    item: Path, recording: Recording, labels: _Labels, writer: CacheWriter
) -> Recording | BrokenFile:
    """Write a recording, unless the cache refuses it."""
    try:
        labels.check(recording)
        writer.add(recording)
    except InputError as error:
        return BrokenFile(str(item), str(error))
    return recording


def _too_many(failed: list[BrokenFile], most: int) -> InputError:
    file, reason = failed[-1]
    if most == 0:
        hint = "mend or remove it; without --strict or --max-failed it is left out and listed"
        return InputError(f"{file}: {reason}", hint=hint)
    return InputError(
        f"more than {most} broken files; the last, {file}: {reason}",
        hint="check the data, or allow more with --max-failed",
    )


def _nothing_left(source: Source, failed: list[BrokenFile]) -> InputError:
    if not failed:
        return InputError(f"{source.name}: there are no clips to read")
    file, reason = failed[0]
    return InputError(
        f"none of {len(failed)} files could be read; the first, {file}: {reason}",
        hint=f"check that these are files of the source {source.name}",
    )


def _part_sizes(parts: NDArray[np.int8]) -> tuple[int, int]:
    return int(np.sum(parts == Train)), int(np.sum(parts == Test))
