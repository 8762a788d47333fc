"""A synthetic source, to try, test and demonstrate every step without a download.

Twelve simulated actors perform sixteen actions of NTU RGB+D 60 in front of three cameras, and a
simulated sensor with realistic faults records them. The files have NTU's format and names. The
motions come from the table in `simulation.motions`; accuracy on them says nothing about accuracy on
recordings of people.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from skelnas.data.readers.simulation.actors import draw_actor, perform
from skelnas.data.readers.simulation.motions import ACTIONS
from skelnas.data.readers.simulation.sensor import (
    CAMERAS,
    SensorData,
    format_skeleton,
    join,
    record,
    to_camera,
)
from skelnas.errors import InputError, UsageError

SUBJECTS = (1, 3, 2, 6, 4, 7, 5, 10, 8, 11, 9, 12)
"""Numbers of the actors in the order of the clips; training and test subjects of xsub alternate."""
FACINGS_DEGREES = {1: 45.0, 2: -45.0}
"""Where the performer looks in each replication: at camera 2, then at camera 3."""
FIRST_SETUP = 101
"""NTU has the setups 1 to 32, so no clip can be mistaken for a recording of people."""
LAST_SETUP = 999
"""The number has three digits."""
LAPS_PER_SITE = len(CAMERAS) * len(FACINGS_DEGREES)
MAX_CLIPS = (LAST_SETUP - FIRST_SETUP) // 2 * LAPS_PER_SITE * len(SUBJECTS) * len(ACTIONS)

_ACTIONS = {action.number: action for action in ACTIONS}


@dataclass(frozen=True)
class Synthetic:
    """Clips that are generated when read, identical to what `Ntu` reads after `write_raw`.

    Attributes:
        num_clips: number of clips.
        seed: seed of all random numbers.

    Raises:
        UsageError: `num_clips` or `seed` is out of range.
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
        """How the clips were generated and persons chosen."""
        return {
            "body_rule": "denoise",
            "seed": self.seed,
            "coordinates": "metres, synthetic; a joint that is not tracked is (0, 0, 0)",
        }

    def classes(self, labels: NDArray[np.int32]) -> list[str]:
        """Return all 60 class names of NTU RGB+D 60; only 16 classes have clips."""
        return class_names(labels)

    def catalogue(self) -> Catalogue:
        """List the clips; an item is the name of a clip, not an existing file."""
        return Catalogue([Path(str(name)) for name in clip_names(self.num_clips)])

    def read(self, item: Path) -> Recording:
        """Generate one clip and choose its persons.

        Raises:
            InputError: this source has no clip of that name.
        """
        name = _parse(item.name)
        detections = simulate(name, self.seed).detections
        poses, present = choose_persons(detections, "denoise", item.name)
        return Recording(
            item.name, name.action - 1, poses, present, name.subject, name.camera, name.setup
        )

    def splits(self, clips: ClipTable) -> dict[str, NDArray[np.int8]]:
        """Return `xsub` and `xview`, as in NTU RGB+D 60."""
        return official_splits(clips)


def write_raw(folder: Path, *, num_clips: int, seed: int = 0) -> list[Path]:
    """Write the first clips as raw NTU files.

    Args:
        folder: where to write them; created if missing. Files of the same name are replaced.
        num_clips: number of clips; a larger number adds clips without changing the first ones.
        seed: seed of all random numbers.

    Returns:
        The paths of the files, in the order of `clip_names`.

    Raises:
        UsageError: `num_clips` or `seed` is out of range.
    """
    _check(num_clips, seed)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in clip_names(num_clips):
        path = folder / f"{name}{ENDING}"
        path.write_bytes(format_skeleton(simulate(name, seed)).encode("ascii"))
        paths.append(path)
    return paths


def write_session(path: Path, *, actions: Sequence[int], subject: int, seed: int = 0) -> None:
    """Write one raw NTU file in which a subject performs several actions, one after the other.

    The performances are none of the clips of `write_raw`: they are at a setup of their own.

    Args:
        path: the file to write.
        actions: their numbers in NTU's file names.
        subject: the actor, one of `SUBJECTS`.
        seed: seed of all random numbers.
    """
    names = [ClipName(LAST_SETUP, 1, subject, 1, action) for action in actions]
    path.write_bytes(format_skeleton(join([simulate(n, seed) for n in names])).encode("ascii"))


def clip_names(num_clips: int) -> list[ClipName]:
    """List the first clips, in a fixed order of which every beginning is balanced.

    The action changes from clip to clip; the subject, and with it the camera, from one round of
    all actions to the next. So after 2 rounds (32 clips) xsub and xview have training and test
    clips, and after 12 rounds every subject has appeared. After 72 rounds (1152 clips) every
    subject has performed every action in both replications in front of all cameras, at one of two
    setups; then the same starts again at two further setups.
    """
    return [_clip_name(index) for index in range(num_clips)]


def _clip_name(index: int) -> ClipName:
    round_index, row = divmod(index, len(ACTIONS))
    lap, actor = divmod(round_index, len(SUBJECTS))
    return ClipName(
        setup=FIRST_SETUP + actor // 2 % 2 + 2 * (lap // LAPS_PER_SITE),
        camera=1 + (actor + lap) % len(CAMERAS),
        subject=SUBJECTS[actor],
        replication=1 + (actor // 4 + lap) % len(FACINGS_DEGREES),
        action=ACTIONS[row].number,
    )


def simulate(name: ClipName, seed: int) -> SensorData:
    """Simulate the recording of one clip: a pure function of its name and the seed.

    As in NTU, all cameras see the same performance; noise and faults differ from camera to camera.
    """

    def rng(purpose: int, *numbers: int) -> Generator:
        return np.random.default_rng([seed, purpose, *numbers])

    performer = draw_actor(rng(1, name.subject))
    performance = rng(2, name.setup, name.subject, name.replication, name.action)
    facing = FACINGS_DEGREES[name.replication]
    people = perform(_ACTIONS[name.action], performer, facing, performance)
    seen = to_camera(np.stack(people), name.camera, site=rng(3, name.setup))
    return record(list(seen), rng(4, *name))


def _check(num_clips: int, seed: int) -> None:
    if not 1 <= num_clips <= MAX_CLIPS:
        raise UsageError(f"{num_clips} clips, expected 1 to {MAX_CLIPS}")
    if seed < 0:
        raise UsageError(f"seed {seed}, expected 0 or more")


def _parse(name: str) -> ClipName:
    clip_name = parse_name(name)
    if (
        clip_name is None
        or clip_name.setup < FIRST_SETUP
        or clip_name.camera not in CAMERAS
        or clip_name.subject not in SUBJECTS
        or clip_name.replication not in FACINGS_DEGREES
        or clip_name.action not in _ACTIONS
    ):
        raise InputError(f"{name}: expected the name of a synthetic clip, such as {_clip_name(0)}")
    return clip_name
