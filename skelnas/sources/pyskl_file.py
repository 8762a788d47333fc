"""The pickles of PYSKL and MMAction2: annotations of clips, and splits of them.

A file is ``{"split": {name: [frame_dir, ...]}, "annotations": [annotation, ...]}``. Annotations are
dictionaries with "frame_dir" (the clip's name), "label", "total_frames", "keypoint" [M, T, V, C],
and in 2-D with "keypoint_score" [M, T, V] and "img_shape" (height, width).
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from skelnas.errors import InputError
from skelnas.sources.base import Test, Train
from skelnas.sources.pickled_arrays import Array, PickleError
from skelnas.sources.pickles import load

_PART = re.compile(r"(?:^|[_-])(train|val|test)(?=$|[_\-\d])")
ROLES = {"train": Train, "val": Test, "test": Test}


@dataclass(frozen=True)
class Annotations:
    """A file, with the arrays still in it.

    Attributes:
        clips: annotation of each clip by its item, in the order of the file.
        protocols: part of each clip in it by name, for every protocol.
        skipped: (what, reason) of what cannot be used.
    """

    clips: dict[Path, dict[str, Any]]
    protocols: dict[str, dict[str, int]]
    skipped: list[tuple[str, str]]


@cache
def read_annotations(path: Path) -> Annotations:
    """Map the file into memory and read all but the arrays, once.

    Raises:
        InputError: it is no pickle, asks for more than data, or has another structure.
    """
    try:
        with path.open("rb") as file:
            content = load(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:  # an empty file cannot be mapped
        reason = str(error) if isinstance(error, PickleError) else "it is empty"
        raise InputError(
            f"{path}: expected a pickle of PYSKL: {reason}",
            hint="a pickle can run code when Python loads it; this one was not loaded",
        ) from None
    if not isinstance(content, dict) or not {"split", "annotations"} <= content.keys():
        raise InputError(f"{path}: expected a dictionary with the keys 'split' and 'annotations'")
    annotations, split = content["annotations"], content["split"]
    if not isinstance(annotations, list) or not isinstance(split, dict):
        raise InputError(f"{path}: expected a list of 'annotations' and a dictionary 'split'")
    clips: dict[Path, dict[str, Any]] = {}
    skipped: list[tuple[str, str]] = []
    for number, annotation in enumerate(annotations, start=1):
        name = annotation.get("frame_dir") if isinstance(annotation, dict) else None
        if not isinstance(name, str) or not name or not name.isprintable():
            skipped.append((f"annotation {number}", "it has no name under 'frame_dir'"))
        elif (item := path / name.lstrip("/")) in clips:
            skipped.append((f"annotation {number}", f"a second one of the name {name}"))
        else:
            clips[item] = annotation
    if not clips:
        raise InputError(f"{path}: expected annotations with a 'frame_dir', found none")
    names = {annotation["frame_dir"] for annotation in clips.values()}
    protocols = _protocols(path, split, names, skipped)
    return Annotations(clips, protocols, skipped)


def _protocols(
    path: Path, split: Mapping[Any, Any], names: set[str], skipped: list[tuple[str, str]]
) -> dict[str, dict[str, int]]:
    """Pair the splits to protocols: xsub_train and xsub_val to xsub; train and test to official."""
    pairs: dict[str, dict[str, str]] = {}
    for name in split:
        found = _PART.search(name) if isinstance(name, str) else None
        if found is None:
            skipped.append((f"split {name}", "its name has no train, val or test"))
            continue
        rest = (name[: found.start()] + name[found.end() :]).strip("_-")
        protocol = f"split{rest}" if rest.isdigit() else rest or "official"
        pairs.setdefault(protocol.replace("/", "_"), {})[found[1]] = name
    protocols: dict[str, dict[str, int]] = {}
    for protocol, of_role in pairs.items():
        if "test" in of_role and "val" in of_role:
            skipped.append((f"split {of_role.pop('val')}", f"{protocol} has a test part"))
        if "train" not in of_role or len(of_role) != 2:
            skipped.append((f"split {', '.join(of_role.values())}", "its other half is missing"))
            continue
        parts: dict[str, int] = {}
        protocols[protocol] = parts
        for role, name in of_role.items():
            members = split[name]
            if not isinstance(members, list) or not all(isinstance(m, str) for m in members):
                raise InputError(f"{path}: expected split {name!r:.80} to be a list of names")
            for member in members:
                if parts.setdefault(member, ROLES[role]) != ROLES[role]:
                    raise InputError(
                        f"{path}: clip {member!r:.80} is in both parts of {protocol!r:.80}"
                    )
        if unknown := len(parts.keys() - names):
            skipped.append((f"split {protocol}", f"{unknown} of its clips have no annotation"))
    if not protocols:
        raise InputError(f"{path}: expected splits such as xsub_train and xsub_val, found none")
    return protocols


def take_array(annotation: dict[str, Any], key: str, item: Path) -> Array:
    """Return an array of an annotation. Raises InputError if there is none."""
    array = annotation.get(key)
    if not isinstance(array, Array):
        raise InputError(f"{item}: expected an array under {key!r}")
    return array
