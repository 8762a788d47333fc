"""Your own recordings: a table of clips, each an array in a file; any joints, 2-D or 3-D."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.archives import find_time, is_archive, is_file
from skelnas.data.readers.base import (
    Catalogue,
    ClipTable,
    Layout,
    Poses,
    Recording,
)
from skelnas.data.readers.clip_files import read_numbered_poses
from skelnas.data.readers.clip_layout import ClipLayout, find_clip_layout
from skelnas.data.readers.clip_tables import ANY_TEXT, MAX_NUMBERS, TextFormat
from skelnas.data.readers.division import Division, note_shared_frames
from skelnas.data.readers.expected import Expected, Picture
from skelnas.data.readers.manifest_table import (
    Table,
    find_table,
    number_recordings,
    read_manifest,
)
from skelnas.data.readers.numbering import Numbering
from skelnas.data.readers.skeleton_file import Skeleton, find_skeleton
from skelnas.errors import InputError
from skelnas.runtime.console import note

OF_EACH_CLIP = "of each clip"
"""The picture in a `rule`, if the table has the sizes."""
JOINTS = "joints.json"
"""The file of joints in an archive."""


@dataclass(frozen=True)
class Manifest:
    """The clips listed in a table; `clip_files` describes the format of a clip.

    Attributes:
        root: the table, or an archive that holds it, the clips and maybe `JOINTS`.
        joints: name of a layout, or a file that names joints, bones and channels; see
            `skeleton_file`.
        persons: maximum number of persons in a clip.
        test_subjects, test_cameras: the test parts of the protocols `xsub` and `xview`; if empty,
            there is no such protocol.
        channels: standard names of the numbers of a joint in clips without names, in their order;
            by default those of `joints`, or what the numbers show.
        picture: width and height to divide x and y by; by default those of `joints`.
        text_format: what the user says of clips in text.
        frame_rate: frames per second of all clips; by default that of `joints`.
        test_share, folds, split_seed: protocols that are divided at random, see `Division`.
    """

    root: Path
    joints: Path | None = None
    persons: int = 1
    test_subjects: tuple[int, ...] = ()
    test_cameras: tuple[int, ...] = ()
    # Not in the representation, by which runs of version 0.1.0 are resumed; `rule` has them.
    channels: tuple[str, ...] = field(default=(), repr=False)
    picture: Picture = field(default=None, repr=False)
    text_format: TextFormat = field(default=ANY_TEXT, repr=False)
    frame_rate: float | None = field(default=None, repr=False)
    test_share: float = field(default=0.0, repr=False)
    folds: int = field(default=0, repr=False)
    split_seed: int = field(default=0, repr=False)

    name = "manifest"

    @property
    def layout(self) -> Layout:
        """Joints, bones and channels from `joints` and `channels`, or else from the clips."""
        layout = self._found.layout
        return replace(layout, frame_rate=self.frame_rate) if self.frame_rate else layout

    @property
    def max_persons(self) -> int:
        """Maximum number of persons in a clip."""
        return self.persons

    @property
    def rule(self) -> dict[str, Any]:
        """How coordinates were changed; the persons are those of the file."""
        picture, channels = self._picture, self._channels
        changed = f"x / {picture[0]:g} - 0.5, y / {picture[1]:g} - 0.5" if picture else "as given"
        stored: list[float] | str | None = list(picture) if picture else None
        if self._table.has_pictures:
            changed, stored = "x and y in shares of the picture, less 0.5", OF_EACH_CLIP
        # The wording is stored in caches; without score and picture the rule is an old one.
        state = "finite" if self.layout.channels == ("x", "y", "z") else "found"
        return {
            "coordinates": f"{changed}; a joint that is not {state} is zero",
            **({"picture": stored} if stored else {}),
            **({"channels": list(channels)} if channels != self.layout.channels else {}),
            **self.text_format.to_dict(),
            **self._division.rule,
        }

    hint = "add a column split with train and test"
    """What says which clips are for testing."""

    @staticmethod
    def read_table(root: Path) -> Table:
        """Return the clips."""
        return read_manifest(find_table(root))

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Return the class names of the table; ``class 0`` and so on if it has class indices."""
        return list(self._table.classes)

    def catalogue(self) -> Catalogue:
        """List the clips in the order of the table.

        Raises:
            InputError: the table or the file of joints is malformed, there is no protocol, or
                one has nothing to test; or it stays open what the numbers of a joint are.
        """
        table = self._table
        recordings = number_recordings(table.entries.values())
        self._division.check(self.root, table.clips(), table.protocols, self.hint, recordings)
        self._check_units(table)
        for line in self._found.notes:
            note(line)
        if self._joints != self.joints:
            note(f"joints as in {self._joints}")
        return Catalogue(list(table.entries), side_files=[self.root])

    def read(self, item: Path) -> Recording:
        """Read one clip.

        Raises:
            InputError: the file is malformed, or its joints differ from those of the first.
        """
        entry = self._table.entries[item]
        picture = entry.picture or self._picture
        if entry.stretch is None:
            (poses, present), _ = self._read_file(entry.file, picture)
        else:
            long, numbering = _read_long(self, entry.file, picture, find_time(entry.file))
            num_frames, rate = long[1].shape[1], self.layout.frame_rate
            try:
                poses, present = _cut(long, entry.stretch.find_frames(num_frames, rate, numbering))
            except InputError as error:
                raise InputError(f"{item}: {error}") from None
        return Recording(entry.name, entry.label, poses, present, *entry.metadata)

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Return the protocols of the table, and those that were asked for."""
        table = self._table
        by_name = {entry.name: entry for entry in table.entries.values()}
        entries = [by_name[name] for name in clips.names]
        splits = {
            protocol: np.array([entry.parts[column] for entry in entries], np.int8)
            for column, protocol in enumerate(table.protocols)
        }
        recordings = number_recordings(entries)
        splits |= self._division.split(clips, recordings)
        if len(np.unique(recordings)) < len(recordings):
            rate = self.layout.frame_rate
            spans = np.array([entry.find_span(rate) for entry in entries], np.float64)
            note_shared_frames(splits, clips.names, recordings, spans)
        return splits

    @property
    def _division(self) -> Division:
        return Division(
            self.test_subjects, self.test_cameras, self.test_share, self.folds, self.split_seed
        )

    def _read_file(self, file: Path, picture: Picture) -> tuple[Poses, Numbering]:
        expected = Expected(
            self.layout,
            self.persons,
            picture,
            self._channels,
            are_channels_given=bool(self._given_channels),
            joints_note=" as --joints says" if self._joints else " as in the first clip",
            persons_note="; see --persons",
        )
        return read_numbered_poses(file, expected, self.text_format)

    @property
    def _table(self) -> Table:
        return self.read_table(self.root)

    @property
    def _joints(self) -> Path | None:
        """The file of joints: in an archive by default the one beside the table."""
        return self.joints or _find_joints(self.root)

    @property
    def _picture(self) -> Picture:
        skeleton = _find_skeleton(self._joints)
        return self.picture or (skeleton.picture if skeleton else None)

    @property
    def in_picture(self) -> bool:
        """Whether x and y are fractions of the picture, less 0.5."""
        return self._table.has_pictures or self._picture is not None

    @property
    def _channels(self) -> tuple[str, ...]:
        """The channels of clips without names, in their order."""
        return self._given_channels or self._found.channels

    @property
    def _given_channels(self) -> tuple[str, ...]:
        skeleton = _find_skeleton(self._joints)
        return self.channels or (skeleton.channels if skeleton else ())

    @property
    def _found(self) -> ClipLayout:
        return _find_layout(
            self.read_table, self.root, self._joints, self._given_channels, self.text_format
        )

    def _check_units(self, table: Table) -> None:
        """Raise InputError if there are seconds, but nothing says how many frames they have."""
        if self.layout.frame_rate is None:
            for entry in table.entries.values():
                if entry.stretch and entry.stretch.in_seconds:
                    raise InputError(
                        f"{self.root}: line {entry.line}: {entry.stretch} needs frames per second",
                        hint="give --frame-rate 30, or start and end in frames",
                    )


@cache
def _find_joints(root: Path) -> Path | None:
    """Return the file of joints in an archive."""
    file = find_table(root).with_name(JOINTS)
    return file if is_archive(root) and is_file(file) else None


@cache
def _find_layout(
    read: Callable[[Path], Table],
    root: Path,
    joints: Path | None,
    channels: tuple[str, ...],
    text_format: TextFormat,
) -> ClipLayout:
    paths = list(dict.fromkeys(entry.file for entry in read(root).entries.values()))
    return find_clip_layout(root, paths, _find_skeleton(joints), channels, text_format)


@cache
def _find_skeleton(joints: Path | None) -> Skeleton | None:
    return None if joints is None else find_skeleton(joints)


@lru_cache(maxsize=1)
def _read_long(
    source: Manifest, file: Path, picture: Picture, time: int
) -> tuple[Poses, Numbering]:
    """Read a recording, of which the next clip is likely another part."""
    return source._read_file(file, picture)


def _cut(recording: Poses, frames: range) -> Poses:
    """Return frames of a recording; those before its first are without persons."""
    listed = slice(max(0, frames.start), frames.stop)
    poses, present = recording[0][:, listed], recording[1][:, listed]
    num_absent = max(0, -frames.start)
    if not num_absent:
        return poses, present
    size = poses[:, 0].size * len(frames)
    if size > MAX_NUMBERS:
        raise InputError(f"{size:,} numbers, expected at most {MAX_NUMBERS:,}")
    before = ((0, 0), (num_absent, 0))
    return np.pad(poses, (*before, (0, 0), (0, 0))), np.pad(present, before)
