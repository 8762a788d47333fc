"""The report of `prepare`: what was written, what was left out and why."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from skelnas.cache import Storage
from skelnas.errors import SkelnasError


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
    failed: list[tuple[str, str]]
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
