"""NTU RGB+D 60 and 120: raw `.skeleton` files of a Kinect v2, one per clip."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers import bodies
from skelnas.data.readers.base import Catalogue, ClipTable, Poses, Recording
from skelnas.data.readers.files import find_files, packaged_names, read_bytes, strip_ending
from skelnas.data.readers.ntu_facts import (
    ENDING,
    LAYOUT,
    NUM_CLASSES,
    class_names,
    official_splits,
    parse_name,
)
from skelnas.data.readers.ntu_file import parse
from skelnas.errors import InputError


@dataclass(frozen=True)
class Ntu:
    """A folder of NTU RGB+D clips; the clips in it determine whether it is NTU 60 or 120.

    Attributes:
        root: the folder, searched with its subfolders and links, or a zip archive.
        body_rule: which bodies in a frame are persons; see `bodies.choose_persons`.
        keep_missing: include the 535 clips whose skeletons the authors list as missing or
            incomplete (302 of them in NTU RGB+D 60).
    """

    root: Path
    body_rule: bodies.BodyRule = "denoise"
    keep_missing: bool = False

    name = "ntu"
    layout = LAYOUT
    max_persons = bodies.MAX_PERSONS

    @property
    def rule(self) -> dict[str, Any]:
        """How persons were chosen and coordinates changed."""
        return {
            "body_rule": self.body_rule,
            "keep_missing": self.keep_missing,
            "coordinates": "metres, as recorded; a joint that is not finite is (0, 0, 0)",
        }

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Return the 60 class names of NTU RGB+D 60, or all 120 if a later one occurs."""
        return class_names(labels)

    def catalogue(self) -> Catalogue:
        """List the clips by name.

        Raises:
            InputError: the folder is missing or holds no clips.
        """
        missing = frozenset() if self.keep_missing else frozenset(packaged_names("ntu_missing.txt"))
        found: dict[str, Path] = {}
        skipped: list[tuple[str, str]] = []
        for path in find_files(self.root, ENDING):
            name = strip_ending(path, ENDING)
            numbers = parse_name(name)
            if numbers is None:
                skipped.append((path.name, "the name is not SsssCcccPpppRrrrAaaa"))
            elif not 1 <= numbers.action <= NUM_CLASSES:
                reason = f"the action {numbers.action:03} is not 001 to {NUM_CLASSES}"
                skipped.append((path.name, reason))
            elif name in missing:
                skipped.append((path.name, "its skeletons are missing or incomplete"))
            elif name in found:
                skipped.append((path.name, f"a second file of that name, {path}"))
            else:
                found[name] = path
        if not found:
            others = f"; {len(skipped)} files were skipped: {skipped[0][1]}" if skipped else ""
            raise InputError(
                f"{self.root}: expected files such as S001C001P001R001A001{ENDING}{others}",
                hint="name nturgbd_skeletons_s001_to_s017.zip, or the folder it unpacks to",
            )
        return Catalogue(list(found.values()), skipped)

    def read(self, item: Path) -> Recording:
        """Read one clip and choose its persons.

        Raises:
            InputError: the file is malformed or shows no body.
        """
        name = strip_ending(item, ENDING)
        numbers = parse_name(name)
        if numbers is None:
            raise InputError(f"{item}: expected a name such as S001C001P001R001A001{ENDING}")
        setup, camera, subject, _, action = numbers
        return Recording(name, action - 1, *self.poses(item), subject, camera, setup)

    def poses(self, item: Path) -> Poses:
        """Read a clip of any name and choose its persons; raises as `read` does."""
        detections = parse(read_bytes(item), str(item))
        return bodies.choose_persons(detections, self.body_rule, str(item))

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Return `xsub` and `xview`, and for clips beyond NTU 60 also `xsub120` and `xset`."""
        return official_splits(clips)
