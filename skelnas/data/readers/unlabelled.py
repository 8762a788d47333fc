"""Read a recording without a label, in the same way as the clips that a model was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

from numpy.typing import NDArray

from skelnas.data.readers import kinetics, msrc12, ntu_facts, nw_ucla, penn_action, utd_mhad
from skelnas.data.readers.base import Layout, Poses, Recording, find_problem
from skelnas.data.readers.bodies import BodyRule
from skelnas.data.readers.clip_files import ENDINGS, as_clip, read_poses
from skelnas.data.readers.clip_tables import TextFormat
from skelnas.data.readers.expected import Expected, Picture, fit_poses
from skelnas.data.readers.kinetics import Kinetics
from skelnas.data.readers.manifest import OF_EACH_CLIP
from skelnas.data.readers.ntu import Ntu
from skelnas.data.readers.nw_ucla import NwUcla
from skelnas.data.readers.pyskl import Pyskl, find_single
from skelnas.data.readers.tables import DELIMITERS
from skelnas.errors import InputError, shown

LAYOUTS = {
    "ntu": ntu_facts.LAYOUT,
    "synthetic": ntu_facts.LAYOUT,
    "nw-ucla": nw_ucla.LAYOUT,
    "kinetics": kinetics.LAYOUT,
    "msrc12": msrc12.LAYOUT,
    "utd-mhad": utd_mhad.LAYOUT,
    "penn-action": penn_action.LAYOUT,
}
"""The layout of each source whose clips always have the same joints."""

RAW = {
    "ntu": ".skeleton",
    "synthetic": ".skeleton",
    "nw-ucla": ".json",
    "kinetics": ".json",
    "pyskl": ".pkl",
    "msrc12": ".csv",
    "utd-mhad": ".mat",
    "penn-action": ".mat",
}
"""Sources with raw files, and their extension; the other sources read arrays."""


class _Reader(Protocol):
    def poses(self, item: Path) -> Poses: ...


ONE_RULE: dict[str, Callable[[Path], _Reader]] = {
    "nw-ucla": NwUcla,
    "msrc12": msrc12.Msrc12,
    "utd-mhad": utd_mhad.UtdMhad,
    "penn-action": penn_action.PennAction,
}
"""Sources of raw files that are always read in the same way."""

NO_LABEL = 0
"""Placeholder for the label that a `Recording` must have."""


@dataclass(frozen=True)
class Origin:
    """Where clips come from and how they were processed.

    Attributes:
        source: name of their source.
        layout: joints, bones and channels.
        max_persons: maximum number of persons in a clip.
        rule: the source's `rule`: how persons were chosen and coordinates changed.
        given_channels: those of arrays without names, if the user named them.
        given_picture: width and height to divide by, if the user gave them.
        given_delimiter, given_skip_columns: of text, see `TextFormat`, if the user gave them.
    """

    source: str
    layout: Layout
    max_persons: int
    rule: dict[str, Any]
    given_channels: tuple[str, ...] = ()
    given_picture: Picture = None
    given_delimiter: str = ""
    given_skip_columns: int | None = None

    @property
    def picture(self) -> Picture:
        """Width and height to divide coordinates by, in clips of the source ``manifest``."""
        match self.rule.get("picture"):
            case [int() | float() as width, int() | float() as height]:
                return float(width), float(height)
        return None

    @property
    def in_picture(self) -> bool:
        """Whether x and y are fractions of the picture, less 0.5."""
        return self.picture is not None or "of the picture" in str(self.rule.get("coordinates"))

    @property
    def picture_of_files(self) -> Picture:
        """The same for files to read. Raises InputError if each has its own, and none is given."""
        if not self.given_picture and self.rule.get("picture") == OF_EACH_CLIP:
            raise InputError(
                "the model takes fractions of the picture, whose size differed between its clips",
                hint="give the size of this one: --picture 1920x1080",
            )
        return self.given_picture or self.picture

    @property
    def channels(self) -> tuple[str, ...]:
        """The channels of arrays without names, in their order."""
        if self.given_channels:
            return self.given_channels
        match self.rule.get("channels"):
            case [*names] if all(isinstance(name, str) for name in names):
                return tuple(names)
        return self.layout.channels

    @property
    def expected(self) -> Expected:
        """What is expected of a clip that is not one of the source's raw files."""
        return Expected(
            self.layout,
            self.max_persons,
            self.picture_of_files,
            self.channels,
            are_channels_given=bool(self.given_channels),
            joints_note=f", as in the {self.source} clips that the model was trained on",
        )

    @property
    def text_format(self) -> TextFormat:
        """How text is written: as the user says, or else as in the clips of the model."""
        delimiter, skip = self.given_delimiter, self.given_skip_columns
        stored = self.rule.get("delimiter"), self.rule.get("skip_columns")
        if not delimiter and isinstance(stored[0], str) and stored[0] in DELIMITERS:
            delimiter = stored[0]
        if skip is None:
            skip = stored[1] if type(stored[1]) is int and stored[1] > 0 else 0
        return TextFormat(delimiter, skip)


def read_unlabelled(path: Path, origin: Origin) -> Recording:
    """Read one recording in the way of the source.

    Args:
        path: a raw file of the source, or joints in a file or in a folder of frames; see
            `clip_files`.
        origin: the origin of the model's clips.

    Raises:
        InputError: names the file and what is wrong with it, such as other joints.
    """
    return _check(Recording(path.name, NO_LABEL, *_read(path, origin)), str(path), origin)


def as_unlabelled(array: NDArray[Any], name: str, origin: Origin) -> Recording:
    """Return an array as a recording, as if it had been read from a file.

    Args:
        array: [T, V, C] or [M, T, V, C], in the joints and units of the source.
        name: of the array, for error messages.
        origin: the origin of the model's clips.

    Raises:
        InputError: names the array and what is wrong with it, such as other joints.
    """
    poses = fit_poses(as_clip(array, name), name, origin.expected)
    return _check(Recording(name, NO_LABEL, *poses), name, origin)


def _check(recording: Recording, where: str, origin: Origin) -> Recording:
    if problem := find_problem(recording, origin.layout, origin.max_persons):
        raise InputError(f"{where}: {problem}")
    return recording


def _read(path: Path, origin: Origin) -> Poses:
    ending = path.suffix.lower()
    raw_ending = RAW.get(origin.source)
    if origin.source == "pyskl" and any(
        outer.suffix.lower() == ".pkl" for outer in (path, *path.parents)
    ):
        file, item = find_single(path)
        return Pyskl(file).poses(item)
    is_frames = path.is_dir()
    if ending == raw_ending and not is_frames:
        if ending == ".skeleton":
            body_rule = _choose_rule(origin, "body_rule", get_args(BodyRule))
            return Ntu(path.parent, body_rule=body_rule).poses(path)
        if origin.source == "kinetics":
            person_rule = _choose_rule(origin, "person_rule", ("clip", "frame"))
            return Kinetics(path.parent, person_rule=person_rule).poses(path)
        return ONE_RULE[origin.source](path.parent).poses(path)
    if ending not in ENDINGS and not is_frames:
        endings = dict.fromkeys([*([raw_ending] if raw_ending else []), *ENDINGS])
        raise InputError(
            f"{path}: cannot be read for a model that was trained on {origin.source}",
            hint=f"it takes files that end in {', '.join(endings)}",
        )
    return read_poses(path, origin.expected, origin.text_format)


def _choose_rule(origin: Origin, name: str, choices: tuple[Any, ...]) -> Any:
    """Return the rule that chose the persons of the clips; the first choice if none is stored."""
    rule = origin.rule.get(name, choices[0])
    if rule not in choices:
        raise InputError(
            f"the model's clips were read by the {name} {shown(rule)}, which this skelnas lacks",
            hint=f"it has {', '.join(choices)}",
        )
    return rule
