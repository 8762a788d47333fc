"""Own recordings: a table of clips, each an array in a file; any joints, 2-D or 3-D."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.errors import InputError
from skelnas.sources.base import Catalogue, ClipTable, Layout, Recording, Unused
from skelnas.sources.clip_files import read_clip
from skelnas.sources.clip_poses import Picture, read_poses
from skelnas.sources.manifest_table import Table, part_of, read_manifest
from skelnas.sources.skeleton_file import MAX_JOINTS, Skeleton, read_skeleton

CHANNELS = {2: ("x", "y"), 3: ("x", "y", "z")}
"""What the numbers of a joint are taken for, where nothing says it."""
TESTS = {"xsub": "subject", "xview": "camera"}
"""Protocols that can be asked for, and the column that each divides the clips by."""


@dataclass(frozen=True)
class Manifest:
    """The clips that a table lists; see `manifest_table` for it and `clip_files` for the clips.

    Attributes:
        root: the table.
        joints: a file that names joints, bones and channels; see `skeleton_file`.
        persons: the most persons of a clip.
        test_subjects, test_cameras: what the protocols `xsub` and `xview` are tested on; there is
            no such protocol where this is empty.
    """

    root: Path
    joints: Path | None = None
    persons: int = 1
    test_subjects: tuple[int, ...] = ()
    test_cameras: tuple[int, ...] = ()

    name = "manifest"

    @property
    def layout(self) -> Layout:
        """Joints, bones and channels by the file `joints`, or else by the first clip."""
        return _layout(self.root, self.joints)

    @property
    def max_persons(self) -> int:
        """The most persons that a clip may have."""
        return self.persons

    @property
    def rule(self) -> dict[str, Any]:
        """How coordinates were changed; persons are kept as they are."""
        picture = self._picture
        changed = f"x / {picture[0]:g} - 0.5, y / {picture[1]:g} - 0.5" if picture else "as given"
        return {
            "coordinates": f"{changed}; a joint that is not finite is zero",
            **({"picture": list(picture)} if picture else {}),
            "test_subjects": list(self.test_subjects),
            "test_cameras": list(self.test_cameras),
        }

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Class names of the table, or `class 0` and so on where it has class indices."""
        return list(read_manifest(self.root).classes)

    def catalogue(self) -> Catalogue:
        """List the clips in the order of the table.

        Raises:
            InputError: if the table or the file of joints is malformed, there is no protocol, or
                one has nothing to test.
        """
        table = read_manifest(self.root)
        self._check_protocols(table)
        return Catalogue(list(table.entries), side_files=[self.root])

    def read(self, item: Path) -> Recording:
        """Read one clip.

        Raises:
            InputError: if the file is malformed or has other joints than the first.
        """
        entry = read_manifest(self.root).entries[item]
        poses = read_poses(
            item,
            self.layout,
            self.persons,
            self._picture,
            joints_by=" as --joints says" if self.joints else " as in the first clip",
            persons_by="; see --persons",
        )
        return Recording(entry.name, entry.label, *poses, *entry.facts)

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Give the protocols of the table, and `xsub` and `xview` where they were asked for."""
        table = read_manifest(self.root)
        parts_of = {entry.name: entry.parts for entry in table.entries.values()}
        splits = {
            protocol: np.array(
                [parts_of[name][column] if name in parts_of else Unused for name in clips.names],
                np.int8,
            )
            for column, protocol in enumerate(table.protocols)
        }
        for protocol, values in (("xsub", clips.subjects), ("xview", clips.cameras)):
            if test := self._tests()[protocol]:
                splits[protocol] = np.array(part_of(values.tolist(), test), np.int8)
        return splits

    @property
    def _picture(self) -> Picture:
        skeleton = _skeleton(self.joints)
        return skeleton.picture if skeleton else None

    def _tests(self) -> dict[str, tuple[int, ...]]:
        return {"xsub": self.test_subjects, "xview": self.test_cameras}

    def _check_protocols(self, table: Table) -> None:
        facts = [entry.facts for entry in table.entries.values()]
        for place, (protocol, column) in enumerate(TESTS.items()):
            known = {fact[place] for fact in facts}
            test = self._tests()[protocol]
            if test and protocol in table.protocols:
                raise InputError(f"{self.root}: the column split_{protocol} is there already")
            for number in test:
                if number not in known:
                    raise InputError(f"{self.root}: no clip has the {column} {number} to test on")
        if not table.protocols and not any(self._tests().values()):
            raise InputError(
                f"{self.root}: nothing says which clips are for training and which for testing",
                hint="add a column split with train and test, or give --test-subjects 3,5",
            )


@cache
def _skeleton(file: Path | None) -> Skeleton | None:
    return None if file is None else read_skeleton(file)


@cache
def _layout(root: Path, file: Path | None) -> Layout:
    """Find the joints, by the file or by the first clip that can be read."""
    skeleton = _skeleton(file)
    joints, channels = (skeleton.joints, skeleton.channels) if skeleton else ((), ())
    failure = InputError(f"{root}: expected clips with frames and joints, found none")
    for number, path in enumerate(read_manifest(root).entries):
        if joints and channels:
            break
        try:
            clip = read_clip(path, len(joints) or None)
        except InputError as error:
            failure = error if number == 0 else failure
            continue
        num_joints, num_channels = clip.poses.shape[2:]
        if not clip.poses.size or num_joints > MAX_JOINTS:
            continue
        joints = joints or clip.joints or tuple(f"joint_{i}" for i in range(num_joints))
        channels = channels or clip.channels or CHANNELS.get(num_channels, ())
        if not channels:
            raise InputError(
                f"{path}: {num_channels} numbers a joint, expected 2 or 3",
                hint="name them by --joints joints.json: "
                '{"joints": [...], "channels": ["x", "y", ...]}',
            )
    if not joints or not channels:
        raise failure
    bones = skeleton.bones if skeleton else ()
    return Layout(joints, bones, channels, skeleton.center if skeleton else None)
