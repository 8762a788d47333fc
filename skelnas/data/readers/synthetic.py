"""A synthetic source: labelled recordings of bodies that forward kinematics moves, not people.

Sixteen actions of NTU RGB+D 60 are played by twelve actors before three cameras, and reported by a
sensor with faults like those of the real one. The files have NTU's form and names; the motion in
them is made from the table in `stage.motions` and says nothing about how well a network does on
recordings of people. It serves to try, test and demonstrate every step without a download.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from skelnas.data.readers.base import Catalogue, ClipTable, Recording
from skelnas.data.readers.bodies import MAX_PERSONS, choose_persons
from skelnas.data.readers.ntu_facts import (
    ENDING,
    LAYOUT,
    ClipName,
    class_names,
    official_splits,
    parse_name,
)
from skelnas.data.readers.stage.actors import draw_actor, play
from skelnas.data.readers.stage.motions import ACTIONS
from skelnas.data.readers.stage.sensor import CAMERAS, Footage, film, skeleton_text, view
from skelnas.errors import InputError, UsageError

SUBJECTS = (1, 3, 2, 6, 4, 7, 5, 10, 8, 11, 9, 12)
"""Numbers of the actors, in the order of the clips: by NTU's xsub, training and test alternate."""
FACINGS = {1: 45.0, 2: -45.0}
"""Where a performer looks in each replication [degrees]: at camera 2, then at camera 3."""
FIRST_SETUP = 101
"""NTU has the setups 1 to 32, so that no clip can be taken for a recording of people."""
LAPS_OF_A_SITE = len(CAMERAS) * len(FACINGS)
MAX_CLIPS = (1000 - FIRST_SETUP) // 2 * LAPS_OF_A_SITE * len(SUBJECTS) * len(ACTIONS)
"""Where the three digits of the setup end."""

_ACTIONS = {action.number: action for action in ACTIONS}


def takes(num_clips: int) -> list[ClipName]:
    """List the first clips, in a fixed order of which every beginning is balanced.

    The action changes from clip to clip; the subject, and with it the camera, from one round of all
    actions to the next. So after 2 rounds (32 clips) xsub and xview have training and test clips,
    and after 12 every subject has played. After 72 rounds (1152 clips) every subject has played
    every action in both replications before all cameras, at one of two setups; from then on the
    same is played again at two further setups.
    """
    return [_take(index) for index in range(num_clips)]


def _take(index: int) -> ClipName:
    turn, row = divmod(index, len(ACTIONS))
    lap, place = divmod(turn, len(SUBJECTS))
    return ClipName(
        setup=FIRST_SETUP + place // 2 % 2 + 2 * (lap // LAPS_OF_A_SITE),
        camera=1 + (place + lap) % len(CAMERAS),
        subject=SUBJECTS[place],
        replication=1 + (place // 4 + lap) % len(FACINGS),
        action=ACTIONS[row].number,
    )


def shoot(take: ClipName, seed: int) -> Footage:
    """Make the footage of one clip: a pure function of its name and the seed.

    As in NTU, the cameras see one and the same performance; each has noise and faults of its own.
    """

    def rng(purpose: int, *numbers: int) -> Generator:
        return np.random.default_rng([seed, purpose, *numbers])

    performer = draw_actor(rng(1, take.subject))
    performance = rng(2, take.setup, take.subject, take.replication, take.action)
    people = play(_ACTIONS[take.action], performer, FACINGS[take.replication], performance)
    seen = view(np.stack(people), take.camera, site=rng(3, take.setup))
    return film(list(seen), rng(4, *take))


def write_raw(folder: Path, *, num_clips: int, seed: int = 0) -> list[Path]:
    """Write the clips of `takes` as raw NTU files.

    Args:
        folder: where to; it is made if it does not exist, and files of the same name are replaced.
        num_clips: how many; more clips of the same seed begin with the same ones.
        seed: decides about everything that is drawn.

    Returns:
        The paths of the files, in the order of `takes`.

    Raises:
        UsageError: if `num_clips` or `seed` is out of range.
    """
    _check(num_clips, seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for take in takes(num_clips):
        path = folder / f"{take}{ENDING}"
        path.write_bytes(skeleton_text(shoot(take, seed)).encode("ascii"))
        paths.append(path)
    return paths


@dataclass(frozen=True)
class Synthetic:
    """Clips that are made when they are read, as if `Ntu` read what `write_raw` writes.

    Attributes:
        num_clips: how many.
        seed: decides about everything that is drawn.

    Raises:
        UsageError: if `num_clips` or `seed` is out of range.
    """

    num_clips: int
    seed: int = 0

    name = "synthetic"
    layout = LAYOUT
    max_persons = MAX_PERSONS

    def __post_init__(self) -> None:
        _check(self.num_clips, self.seed)

    @property
    def rule(self) -> dict[str, Any]:
        """How the clips were made and persons chosen."""
        return {
            "body_rule": "denoise",
            "seed": self.seed,
            "coordinates": "metres, synthetic; a joint that is not tracked is (0, 0, 0)",
        }

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Names of the 60 classes of NTU RGB+D 60, most of which have no clip here."""
        return class_names(labels)

    def catalogue(self) -> Catalogue:
        """List the clips; an item is the name of a clip, not of a file that exists."""
        return Catalogue([Path(str(take)) for take in takes(self.num_clips)])

    def read(self, item: Path) -> Recording:
        """Make one clip and choose its persons.

        Raises:
            InputError: if this source has no clip of that name.
        """
        take = _parse(item.name)
        detections = shoot(take, self.seed).detections
        poses, present = choose_persons(detections, "denoise", item.name)
        return Recording(
            item.name, take.action - 1, poses, present, take.subject, take.camera, take.setup
        )

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """NTU RGB+D 60's protocols, `xsub` and `xview`."""
        return official_splits(clips)


def _check(num_clips: int, seed: int) -> None:
    if not 1 <= num_clips <= MAX_CLIPS:
        raise UsageError(f"{num_clips} clips, expected 1 to {MAX_CLIPS}")
    if seed < 0:
        raise UsageError(f"seed {seed}, expected 0 or more")


def _parse(name: str) -> ClipName:
    take = parse_name(name)
    if (
        take is None
        or take.setup < FIRST_SETUP
        or take.camera not in CAMERAS
        or take.subject not in SUBJECTS
        or take.replication not in FACINGS
        or take.action not in _ACTIONS
    ):
        raise InputError(f"{name}: expected the name of a synthetic clip, such as {_take(0)}")
    return take
