"""What a run folder says, read and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from skelnas.errors import InputError
from skelnas.runs.files import ALPHAS, CONFIG, METRICS


def read_config(folder: Path) -> dict[str, Any]:
    """Read a folder's ``config.json``.

    Raises:
        InputError: there is none, or it is not JSON.
    """
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{folder}: is no run or model folder: it has no {CONFIG}",
            hint="`skelnas search --out RUN` and `skelnas train --out MODEL` make them",
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: expected a JSON object")
    return config


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object an epoch; a last line cut off by a kill is left out.

    Raises:
        InputError: the file is missing, or a line other than the last is no JSON, or one is no
            object with an epoch.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not text") from None
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):  # too long a number, too deep a nesting
            if number < len(lines):
                raise InputError(f"{path}, line {number}: is not JSON") from None
            continue
        epoch = record.get("epoch") if isinstance(record, dict) else None
        if isinstance(epoch, bool) or not isinstance(epoch, int):
            raise InputError(f"{path}, line {number}: expected an object with an epoch")
        records.append(record)
    return records


@dataclass(frozen=True)
class SearchRun:
    """What the folder of a search says of it, as far as its cells depend on that.

    Attributes:
        primitives: the operation ids.
        stop_skips: ``--stop-skips``, the most skips that it was to go on with, or None.
        lines: of ``alphas.jsonl``, by epoch.
    """

    primitives: list[str]
    stop_skips: int | None
    lines: dict[int, dict[str, Any]]


def read_search(folder: Path, config: dict[str, Any]) -> SearchRun:
    """Read what the cells of a search follow from; one that has only begun has no lines.

    Args:
        folder: the run folder.
        config: its ``config.json``.

    Raises:
        InputError: a file is broken, or epochs were done and the alphas are gone.
    """
    primitives, settings = config.get("primitives"), config.get("settings")
    if not isinstance(primitives, list) or not all(isinstance(op, str) for op in primitives):
        raise InputError(f"{folder / CONFIG}: expected primitives, a list of operations")
    most = settings.get("stop_skips") if isinstance(settings, dict) else ""
    if most is not None and (isinstance(most, bool) or not isinstance(most, int)):
        raise InputError(f"{folder / CONFIG}: expected settings with a number stop_skips or null")
    path = folder / ALPHAS
    lines = {line["epoch"]: line for line in _lines(path)}
    if not lines and _lines(folder / METRICS):
        raise InputError(
            f"{path}: is missing or empty, though epochs were done",
            hint="put it back; --select perturbation derives from the checkpoint, without it",
        )
    return SearchRun(primitives, most, dict(sorted(lines.items())))


def _lines(path: Path) -> list[dict[str, Any]]:
    return read_lines(path) if path.exists() else []
