"""A synthetic source: labelled recordings of bodies that forward kinematics moves, not people.

Sixteen actions of NTU RGB+D are played by twelve actors before three cameras, and reported by a
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

from skelnas.errors import InputError, UsageError
from skelnas.sources import ntu
from skelnas.sources.base import Catalogue, ClipTable, Layout, Recording
from skelnas.sources.bodies import MAX_PERSONS, choose_persons
from skelnas.sources.stage.actors import draw_actor, play
from skelnas.sources.stage.motions import ACTIONS
from skelnas.sources.stage.sensor import CAMERAS, Footage, film, skeleton_text, view

SUBJECTS = (1, 3, 2, 6, 4, 7, 5, 10, 8, 11, 9, 12)
"""Numbers of the actors, in the order of the clips: by NTU's xsub, training and test alternate."""

FACINGS = {1: 45.0, 2: -45.0}
"""Where a performer looks in each replication [degrees]: at camera 2, then at camera 3."""


def clip_names(num_clips: int) -> list[str]:
    """Name the first clips, in a fixed order of which every beginning is balanced.

    The action changes from clip to clip, the subject and the camera from one round of all actions
    to the next, so that after 2 rounds (32 clips) every protocol has clips on both sides, after 12
    every subject has played, and after 72 every subject has played everything before every camera,
    twice. The following 72 rounds are played at other setups.
    """
    return [_clip_name(index) for index in range(num_clips)]


def _clip_name(index: int) -> str:
    turn, row = divmod(index, len(ACTIONS))
    lap, place = divmod(turn, len(SUBJECTS))
    setup = 1 + place // 2 % 2 + lap // 6 * 2
    camera = 1 + (place + lap) % len(CAMERAS)
    replication = 1 + (place // 4 + lap) % len(FACINGS)
    return (
        f"S{setup:03}C{camera:03}P{SUBJECTS[place]:03}R{replication:03}A{ACTIONS[row].number:03}"
    )
