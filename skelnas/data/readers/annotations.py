"""The annotations in pickles of PYSKL and MMAction2, read without running them.

A file holds ``{"split": {name: [clip, ...]}, "annotations": [...]}``, a bare list of annotations or
a single one. Lists have no splits: then a second file has the clips for testing.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from skelnas.data.readers.base import Test, Train
from skelnas.data.readers.pickles import Array, PickleError, load
from skelnas.errors import InputError
from skelnas.runtime.files import check_is_regular

MAX_SHARING = 4
"""Size of all clips' arrays relative to the file: clips may have the same array of scores."""
FREE_BYTES = 64 << 20
"""Arrays may have this size in any file."""
SPLITS = {"train": Train, "val": Test, "test": Test}
OFFICIAL = "official"
"""The protocol of splits called train and val or test, and of two files."""
POSE_KEYS = frozenset(("keypoint", "frame_inds"))
"""A dictionary with one of them is an annotation."""
_SPLIT_NAME = re.compile(r"(?:^|[_-])(train|val|test)(?=$|[_\-\d])")


@dataclass(frozen=True)
class Annotations:
    """The content of one or two pickles, without the numbers of their arrays.

    Attributes:
        clips: item to annotation, in the order of the files.
        protocols: protocol to clip name to the part that the clip belongs to.
        skipped: (what, reason) of everything unusable.
        splits: names of all splits; None if there are none at all.
    """

    clips: dict[Path, dict[str, Any]]
    protocols: dict[str, dict[str, int]]
    skipped: list[tuple[str, str]]
    splits: tuple[str, ...] | None = None


@cache
def read_annotations(path: Path, test: Path | None = None) -> Annotations:
    """Map the files into memory and read all of them but the arrays, once.

    Args:
        path: the file.
        test: a second file, with the clips for testing; those of the first are for training.

    Raises:
        InputError: a file is not a pickle, asks for more than data, or has another structure.
    """
    skipped: list[tuple[str, str]] = []
    clips, split = _read_file(path, skipped)
    if test is None:
        names = {annotation["frame_dir"] for annotation in clips.values()}
        if split is None:
            return Annotations(clips, {}, skipped)
        protocols = _read_protocols(path, split, names, skipped)
        return Annotations(clips, protocols, skipped, tuple(map(str, split)))
    if pairs := [name for name, parts in _pair_splits(split or {}, []).items() if len(parts) > 1]:
        raise InputError(
            f"{path}: it says itself which clips are for testing, in the split {pairs[0]!r:.80}",
            hint="leave out --test",
        )
    skipped = [(f"{path.name}: {what}", reason) for what, reason in skipped]
    skipped_test: list[tuple[str, str]] = []
    test_clips, _ = _read_file(test, skipped_test)
    parts = {annotation["frame_dir"]: Train for annotation in clips.values()}
    for annotation in test_clips.values():
        if parts.setdefault(annotation["frame_dir"], Test) == Train:
            raise InputError(f"{test}: clip {annotation['frame_dir']!r:.80} is also in {path}")
    skipped += [(f"{test.name}: {what}", reason) for what, reason in skipped_test]
    return Annotations({**clips, **test_clips}, {OFFICIAL: parts}, skipped)


def _read_file(
    path: Path, skipped: list[tuple[str, str]]
) -> tuple[dict[Path, dict[str, Any]], dict[Any, Any] | None]:
    """Return the annotations of one file and its splits, if it has any."""
    annotations, split = _find_annotations(path, load_pickle(path))
    clips: dict[Path, dict[str, Any]] = {}
    for number, annotation in enumerate(annotations, start=1):
        name = annotation.get("frame_dir") if isinstance(annotation, dict) else None
        if not isinstance(name, str) or not name or not name.isprintable():
            skipped.append((f"annotation {number}", "it has no name under 'frame_dir'"))
        elif (item := path / name.lstrip("/")) in clips:
            skipped.append((f"annotation {number}", f"a second one named {name}"))
        else:
            clips[item] = annotation
    if not clips:
        raise InputError(f"{path}: expected annotations with a 'frame_dir', found none")
    _check_size(path, clips.values())
    return clips, split


def _check_size(path: Path, annotations: Iterable[dict[str, Any]]) -> None:
    """Refuse clips that share arrays, by which a small file could make a cache of any size."""
    arrays = (one.get(key) for one in annotations for key in ("keypoint", "keypoint_score"))
    num_bytes = sum(array.num_bytes for array in arrays if isinstance(array, Array))
    file_bytes = path.stat().st_size
    if num_bytes > max(FREE_BYTES, MAX_SHARING * file_bytes):
        raise InputError(
            f"{path}: clips of {num_bytes:,} bytes in a file of {file_bytes:,}: too many have the "
            "same array"
        )


def _find_annotations(path: Path, content: Any) -> tuple[list[Any], dict[Any, Any] | None]:
    """Return the annotations and the splits, if there are any."""
    if isinstance(content, list):
        return content, None
    if not isinstance(content, dict) or not content.keys() & {"annotations", *POSE_KEYS}:
        keys = list(content)[:6] if isinstance(content, dict) else None
        found = f"a dictionary with the keys {keys!r:.80}" if keys else type(content).__name__
        raise InputError(
            f"{path}: expected a dictionary with the keys 'split' and 'annotations', a list of "
            f"annotations or one with a 'keypoint', found {found}"
        )
    if "annotations" not in content:
        return [{"frame_dir": path.stem, **content}], None
    annotations, split = content["annotations"], content.get("split")
    if not isinstance(annotations, list) or not isinstance(split, dict | None):
        raise InputError(f"{path}: expected a list of 'annotations' and a dictionary 'split'")
    return annotations, split


def load_pickle(path: Path) -> Any:
    """Map a pickle into memory and read all of it but the arrays.

    Raises:
        InputError: it cannot be read, is not a pickle, or asks for more than data.
    """
    check_is_regular(path)
    try:
        with path.open("rb") as file:
            return load(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # an empty file cannot be mapped
        reason = str(error) if isinstance(error, PickleError) else "it is empty"
        raise InputError(
            f"{path}: expected a pickle of PYSKL: {reason}",
            hint="a pickle can run code when Python loads it; this one was not loaded",
        ) from None


def _read_protocols(
    path: Path, split: Mapping[Any, Any], names: set[str], skipped: list[tuple[str, str]]
) -> dict[str, dict[str, int]]:
    """Return the part of every clip in each protocol; append what is unusable to `skipped`."""
    protocols: dict[str, dict[str, int]] = {}
    for protocol, split_names in _pair_splits(split, skipped).items():
        if "test" in split_names and "val" in split_names:
            skipped.append((f"split {split_names.pop('val')}", f"{protocol} has a test part"))
        if "train" not in split_names or len(split_names) != 2:
            skipped.append(
                (f"split {', '.join(split_names.values())}", "its other half is missing")
            )
            continue
        parts: dict[str, int] = {}
        for kind, name in split_names.items():
            members = split[name]
            is_sequence = isinstance(members, list | tuple)
            if not is_sequence or not all(isinstance(member, str) for member in members):
                raise InputError(f"{path}: expected split {name!r:.80} to be a list of names")
            if num_repeated := len(members) - len(set(members)):
                skipped.append((f"split {name}", f"{num_repeated} of its entries are repeated"))
            for member in members:
                if parts.setdefault(member, SPLITS[kind]) != SPLITS[kind]:
                    raise InputError(
                        f"{path}: clip {member!r:.80} is in both parts of {protocol!r:.80}"
                    )
        if num_unknown := len(parts.keys() - names):
            skipped.append((f"split {protocol}", f"{num_unknown} of its clips have no annotation"))
        protocols[protocol] = parts
    return protocols


def _pair_splits(
    split: Mapping[Any, Any], skipped: list[tuple[str, str]]
) -> dict[str, dict[str, str]]:
    """Group splits by protocol: xsub_train and xsub_val make xsub, train and test make official."""
    pairs: dict[str, dict[str, str]] = {}
    for name in split:
        match = _SPLIT_NAME.search(name) if isinstance(name, str) else None
        if match is None:
            skipped.append((f"split {name}", "its name has no train, val or test"))
            continue
        rest = (name[: match.start()] + name[match.end() :]).strip("_-").replace("/", "_")
        protocol = f"split{rest}" if rest.isdigit() else rest or OFFICIAL
        first = pairs.setdefault(protocol, {}).setdefault(match[1], name)
        if first != name:
            skipped.append((f"split {name}", f"{first} is that part of {protocol}, too"))
    return pairs
