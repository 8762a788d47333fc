"""A recording by itself, without a label, read as the clips were that a model has learned from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from skelnas.data.readers import kinetics, ntu_facts, nw_ucla
from skelnas.data.readers.base import Layout, Poses, Recording, find_problem
from skelnas.data.readers.bodies import BodyRule
from skelnas.data.readers.clip_files import ENDINGS, Picture, read_poses
from skelnas.data.readers.kinetics import Kinetics
from skelnas.data.readers.ntu import Ntu
from skelnas.data.readers.nw_ucla import NwUcla
from skelnas.errors import InputError, shown

LAYOUTS = {
    "ntu": ntu_facts.LAYOUT,
    "synthetic": ntu_facts.LAYOUT,
    "nw-ucla": nw_ucla.LAYOUT,
    "kinetics": kinetics.LAYOUT,
}
"""Of the sources whose clips have the same joints in every cache."""

RAW = {"ntu": ".skeleton", "synthetic": ".skeleton", "nw-ucla": ".json", "kinetics": ".json"}
"""Sources that have a format of their own, and how its files end; others read arrays."""

NOBODY_KNOWS_IT = 0
"""The label that a recording needs and that nothing looks at."""


@dataclass(frozen=True)
class Origin:
    """Where clips come from, and what was done to them on the way.

    Attributes:
        source: name of their source.
        layout: joints, bones and channels.
        max_persons: the most persons of a clip.
        rule: how persons were chosen and coordinates changed, as the source says it.
    """

    source: str
    layout: Layout
    max_persons: int
    rule: dict[str, Any]

    @property
    def picture(self) -> Picture:
        """By what the coordinates of arrays are divided, as of the source ``manifest``."""
        match self.rule.get("picture"):
            case [int() | float() as width, int() | float() as height]:
                return float(width), float(height)
        return None


def read_unlabelled(path: Path, origin: Origin) -> Recording:
    """Read one file as the source of the clips would.

    Args:
        path: a raw file of that source, or an array of joints; see `clip_files`.
        origin: of the clips.

    Raises:
        InputError: names the file and what is wrong with it; its joints are others.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder, expected a recording", hint=f"such as {path}/*")
    recording = Recording(path.name, NOBODY_KNOWS_IT, *_read(path, origin))
    if problem := find_problem(recording, origin.layout, origin.max_persons):
        raise InputError(f"{path}: {problem}")
    return recording


def _read(path: Path, origin: Origin) -> Poses:
    ending = path.suffix.lower()
    own = RAW.get(origin.source)
    if ending == own:
        if ending == ".skeleton":
            body_rule = _choose(origin, "body_rule", get_args(BodyRule))
            return Ntu(path.parent, body_rule=body_rule).poses(path)
        if origin.source == "kinetics":
            person_rule = _choose(origin, "person_rule", ("clip", "frame"))
            return Kinetics(path.parent, person_rule=person_rule).poses(path)
        return NwUcla(path.parent).poses(path)
    if ending not in ENDINGS:
        known = dict.fromkeys([*([own] if own else []), *ENDINGS])
        raise InputError(
            f"{path}: cannot be read for a model that was trained on {origin.source}",
            hint=f"it takes files that end in {', '.join(known)}",
        )
    return read_poses(
        path,
        origin.layout,
        origin.max_persons,
        origin.picture,
        joints_note=f", as in the {origin.source} clips that the model was trained on",
    )


def _choose(origin: Origin, name: str, known: tuple[Any, ...]) -> Any:
    """Return which rule chose the persons; the first of those that are known if nothing says it."""
    rule = origin.rule.get(name, known[0])
    if rule not in known:
        raise InputError(
            f"the model's clips were read by the {name} {shown(rule)}, which this skelnas lacks",
            hint=f"it knows {', '.join(known)}",
        )
    return rule
