"""``skelnas prepare``: raw recordings to a skeleton cache.

Workers read and check the files; this process writes them in the order of the catalogue, so
that the cache is the same, byte for byte, whatever the number of workers.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skelnas import console
from skelnas.cache import CacheWriter
from skelnas.errors import InputError, SkelnasError, UsageError
from skelnas.sources.base import Recording, Source, Test, Train
from skelnas.sources.reading import CHUNK_FILES, read_all

FILES_FOR_A_POOL = 256
"""With fewer files than this, starting processes takes longer than it saves."""


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
        failed: (file, reason) of what was left out because it is broken.
        workers: processes that read files.
        seconds: time that it took.
        files_per_second: files read, broken ones too, by second.
    """

    out: str
    source: str
    clips: int
    classes: int
    frames: int
    two_person_share: float
    splits: dict[str, tuple[int, int]]
    skipped: list[tuple[str, str]]
    failed: list[tuple[str, str]]
    workers: int
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


def prepare(
    source: Source,
    out: Path,
    *,
    workers: int | None = None,
    force: bool = False,
    strict: bool = False,
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

    Raises:
        UsageError: `out` is there and `force` is not given, is a folder or has none; no workers.
        InputError: there are no clips, every file is broken, or one is under `strict`.
        DeviceError: a worker died.
        SkelnasError: the cache cannot be written.
    """
    began = time.perf_counter()
    _check_request(out, workers, force)
    catalogue = source.catalogue()
    items = catalogue.items
    num_workers = _num_workers(workers, len(items))
    failed: list[tuple[str, str]] = []
    frames = two_persons = 0
    labels = _Labels(source)
    with (
        closing(read_all(source, items, num_workers)) as outcomes,
        console.progress(f"prepare {source.name}", len(items)) as meter,
        _writer(source, out) as writer,
    ):
        for item, outcome in zip(items, outcomes, strict=True):
            try:
                recording = _keep(outcome, labels, writer)
            except InputError as error:
                if strict:
                    raise InputError(
                        f"{item}: {error}",
                        hint="mend or remove it; without --strict it is left out and listed",
                    ) from error
                failed.append((str(item), str(error)))
            else:
                frames += recording.present.shape[1]
                two_persons += int(recording.present.any(axis=1).sum() >= 2)
            meter.advance(status=f"{len(failed)} broken" if failed else "")
        clips = writer.table()
        if not clips.names:
            raise _nothing_left(source, failed)
        classes, splits = source.classes(clips.labels), source.splits(clips)
        writer.finish(classes=classes, splits=splits, skipped=catalogue.skipped, failed=failed)
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
        workers=num_workers,
        seconds=round(seconds, 3),
        files_per_second=round(len(items) / seconds, 1),
    )
    _write_report(report, report_path(out))
    return report


def report_path(out: Path) -> Path:
    """Return where the report of a cache lies."""
    return out.with_name(out.name + ".report.json")


def _check_request(out: Path, workers: int | None, force: bool) -> None:
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


def _writer(source: Source, out: Path) -> CacheWriter:
    return CacheWriter(
        out,
        source=source.name,
        rule=source.rule,
        layout=source.layout,
        max_persons=source.max_persons,
    )


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


def _keep(outcome: Recording | str, labels: _Labels, writer: CacheWriter) -> Recording:
    """Write a recording. Raises InputError with the reason where there is none to keep."""
    if isinstance(outcome, str):
        raise InputError(outcome)
    labels.check(outcome)
    writer.add(outcome)
    return outcome


def _nothing_left(source: Source, failed: list[tuple[str, str]]) -> InputError:
    if not failed:
        return InputError(f"{source.name}: there are no clips to read")
    file, reason = failed[0]
    return InputError(
        f"none of {len(failed)} files could be read; the first, {file}: {reason}",
        hint=f"check that these are files of the source {source.name}",
    )


def _part_sizes(parts: NDArray[np.int8]) -> tuple[int, int]:
    return int(np.sum(parts == Train)), int(np.sum(parts == Test))


def _write_report(report: PrepareReport, path: Path) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.write_text(report.to_json(), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise SkelnasError(f"cannot write {path}: {error.strerror}") from error
