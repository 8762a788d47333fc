"""Persons in JSON as pose estimators write it: OpenPose, MediaPipe, MoveNet and COCO results.

A person is one of

    {"pose_keypoints_2d": [x, y, score, x, ...]}                           OpenPose
    {"keypoints": [{"x": 0.5, "y": 0.4, "z": 0, "visibility": 1}, ...]}    MediaPipe, MoveNet
    {"image_id": 7, "category_id": 1, "keypoints": [x, y, score, ...]}     COCO results, AlphaPose

Shapes: V joints, C channels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import MAX_COORDINATE, MAX_JOINTS, SCORE_NAMES, channel_name
from skelnas.data.readers.channels import XYS
from skelnas.data.readers.files import as_array
from skelnas.data.readers.layouts import LAYOUTS
from skelnas.data.readers.numbering import number_names
from skelnas.data.sides import standard_name
from skelnas.errors import InputError, shown

PEOPLE, KEYPOINTS, IMAGE = "people", "keypoints", "image_id"
BODY_KEYS = ("pose_keypoints_2d", "pose_keypoints")
"""Of a person of OpenPose; the second until version 1.1."""
HAND_KEYS = ("hand_left_keypoints_2d", "hand_right_keypoints_2d")
OPENPOSE = {18: "openpose18", 25: "openpose25", 67: "openpose67"}
OTHER_ORDER = {"openpose25": "openpose25b"}
"""Layouts that look alike in a file: BODY_25 and BODY_25B, told apart by their bones."""
COCO = {17: "coco17", 26: "halpe26", 133: "coco-wholebody"}
"""Layouts by their number of joints."""
HAND_JOINTS = 21
WITH_HANDS = 25 + 2 * HAND_JOINTS
MAX_PERSONS = 100
"""In a frame."""
_NUMBER = re.compile(r"[0-9]+")


class Person(NamedTuple):
    """A person in a frame.

    Attributes:
        numbers: [V, C] float64, NaN where one is unknown.
        channels: standard names of the C numbers.
        layout: name of the layout that the format has; empty if it says nothing.
        joints: names of the V joints; empty if neither the format nor the file has them.
        has_hands: whether the file has hands that were not read.
    """

    numbers: NDArray[np.float64]
    channels: tuple[str, ...]
    layout: str = ""
    joints: tuple[str, ...] = ()
    has_hands: bool = False


def are_persons(content: Any) -> bool:
    """Return whether JSON holds persons, and not arrays of numbers."""
    if isinstance(content, dict):
        return PEOPLE in content or KEYPOINTS in content
    while isinstance(content, list) and content:
        content = next((item for item in content if item not in (None, [])), None)
    return isinstance(content, dict)


def is_one_frame(content: Any) -> bool:
    """Return whether the persons are those of one frame, and not of a clip."""
    return isinstance(content, dict) or any(map(_is_point, content))


def read_frames(content: list[Any], where: str, num_joints: int | None) -> dict[int, list[Person]]:
    """Read the persons of each frame of a clip: a list of frames, or of COCO results.

    Args:
        content: parsed JSON, see `are_persons`.
        where: name of the file, for error messages.
        num_joints: V, if it is known.

    Returns:
        Frame number to persons.

    Raises:
        InputError: a person is malformed.
    """
    frames: dict[int, list[Person]] = {}
    if any(isinstance(item, dict) and IMAGE in item for item in content):
        numbers = _number_images(content, where)
        for index, (number, item) in enumerate(zip(numbers, content, strict=True)):
            place = f"{where}: [{index}]"
            frames.setdefault(number, []).extend(read_frame([item], place, num_joints))
            if len(frames[number]) > MAX_PERSONS:
                raise _too_many_error(place, len(frames[number]))
        return frames
    for number, item in enumerate(content):
        frames[number] = read_frame(item, f"{where}: [{number}]", num_joints)
    return frames


def read_frame(content: Any, where: str, num_joints: int | None) -> list[Person]:
    """Read the persons of one frame: an object of OpenPose, a person, or a list of persons.

    Args:
        content: parsed JSON; null or an empty list if nobody was found.
        where: name of the frame, for error messages.
        num_joints: V, if it is known.

    Raises:
        InputError: a person is malformed.
    """
    if isinstance(content, dict) and PEOPLE in content:
        where, content = f"{where}: {PEOPLE}", content[PEOPLE]
        if not isinstance(content, list):
            raise InputError(f"{where}: expected a list of persons, found {shown(content)}")
    if content is None:
        return []
    is_one = not isinstance(content, list) or any(map(_is_point, content))
    items: list[Any] = [content] if is_one else content
    if len(items) > MAX_PERSONS:
        raise _too_many_error(where, len(items))
    persons = []
    for index, item in enumerate(items):
        person = _read_person(item, where if is_one else f"{where}[{index}]", num_joints)
        if person is not None:
            persons.append(person)
    return persons


def _too_many_error(where: str, count: int) -> InputError:
    return InputError(f"{where}: {count} persons in a frame, expected at most {MAX_PERSONS}")


def _read_person(item: Any, where: str, num_joints: int | None) -> Person | None:
    """Read a person; None if there are no joints."""
    if item is None or item == []:
        return None
    if isinstance(item, list) and any(map(_is_point, item)):
        return _read_points(item, where)
    if not isinstance(item, dict):
        raise InputError(f"{where}: expected a person, found {shown(item)}")
    body = next((key for key in BODY_KEYS if key in item), None)
    if body:
        return _read_openpose(item, body, where, num_joints)
    if KEYPOINTS not in item:
        keys = ", ".join(map(shown, list(item)[:4])) or "nothing"
        expected = f"{KEYPOINTS!r} or {BODY_KEYS[0]!r}"
        raise InputError(f"{where}: expected a person with {expected}, found {keys}")
    if item.get("category_id", 1) != 1:
        found = shown(item["category_id"])
        raise InputError(f"{where}: expected the category_id 1, a person, found {found}")
    points, where = item[KEYPOINTS], f"{where}: {KEYPOINTS}"
    if points is None or points == []:
        return None
    if isinstance(points, list) and any(map(_is_point, points)):
        return _read_points(points, where)
    return _named(_read_triples(points, where), COCO)


def _read_openpose(
    item: dict[str, Any], body: str, where: str, num_joints: int | None
) -> Person | None:
    if item[body] in (None, []):
        return None
    numbers = _read_triples(item[body], f"{where}: {body}")
    if len(numbers) not in (18, 25):
        raise InputError(
            f"{where}: {body} has {len(numbers)} joints, expected 25 (BODY_25) or 18 (COCO)"
        )
    hands = [item.get(key) or [] for key in HAND_KEYS]
    if num_joints != WITH_HANDS or len(numbers) != 25:
        return _named(numbers, OPENPOSE, has_hands=any(hands) and len(numbers) == 25)
    parts = [numbers]
    for key, hand in zip(HAND_KEYS, hands, strict=True):
        part = _read_triples(hand, f"{where}: {key}") if hand else np.zeros((HAND_JOINTS, 3))
        if len(part) != HAND_JOINTS:
            raise InputError(f"{where}: {key} has {len(part)} joints, expected {HAND_JOINTS}")
        parts.append(part)
    return _named(np.concatenate(parts), OPENPOSE)


def _named(
    numbers: NDArray[np.float64], layouts: dict[int, str], has_hands: bool = False
) -> Person:
    name = layouts.get(len(numbers), "")
    joints = LAYOUTS[name].layout.joints if name else ()
    return Person(numbers, XYS, name, joints, has_hands)


def _read_triples(item: Any, where: str) -> NDArray[np.float64]:
    """Read x, y and score of every joint: [V, 3]."""
    array = as_array(item)
    if array is None or array.ndim != 1 or not len(array) or len(array) % 3:
        found = shown(item) if array is None else f"an array {list(array.shape)}"
        raise InputError(
            f"{where}: expected a list of x, y and score of every joint, found {found}"
        )
    if len(array) > 3 * MAX_JOINTS:
        raise InputError(f"{where}: {len(array) // 3} joints, expected at most {MAX_JOINTS}")
    is_large = np.abs(array) > MAX_COORDINATE
    if is_large.any():
        raise _too_large_error(where, float(array[is_large][0]))
    return array.reshape(-1, 3)  # [V * 3] -> [V, 3]


def _too_large_error(where: str, value: float) -> InputError:
    return InputError(
        f"{where}: expected numbers up to {MAX_COORDINATE:,.0f}, found {shown(value)}"
    )


def _read_points(points: list[Any], where: str) -> Person:
    """Read joints that are objects; a joint that is null is unknown."""
    if len(points) > MAX_JOINTS:
        raise InputError(f"{where}: {len(points)} joints, expected at most {MAX_JOINTS}")
    first = next(point for point in points if _is_point(point))
    keys = [key for key in ("x", "y", "z") if key in first]
    keys += [key for key in first if key in SCORE_NAMES][:1]
    numbers = np.array(
        [list(_read_point(point, keys, f"{where}[{i}]")) for i, point in enumerate(points)],
        np.float64,
    )
    names = [point["name"] for point in points if _is_point(point) and _has_name(point)]
    is_named = len(set(map(standard_name, names))) == len(points)
    channels = tuple(map(channel_name, keys))
    return Person(numbers, channels, joints=tuple(names) if is_named else ())


def _read_point(point: Any, keys: list[str], where: str) -> Iterator[float]:
    for key in keys:
        value = point.get(key, "") if _is_point(point) else point
        if value is None:
            yield math.nan
        elif isinstance(value, bool) or not isinstance(value, int | float):
            found = shown(value) if value != "" else "nothing"
            raise InputError(
                f"{where}: expected a number {key!r} as in the other joints, found {found}"
            )
        elif abs(value) > MAX_COORDINATE:  # an integer may be too large for a float
            raise _too_large_error(where, value)
        else:
            yield float(value)


def _is_point(item: Any) -> bool:
    return isinstance(item, dict) and {"x", "y"} <= item.keys()


def _has_name(point: dict[str, Any]) -> bool:
    return isinstance(point.get("name"), str) and point["name"] != ""


def _number_images(results: list[Any], where: str) -> list[int]:
    """Return the frame number of each COCO result: its image_id, or where that is a name the number
    in which it differs from the others.
    """
    images = [_read_image(item, f"{where}: [{index}]") for index, item in enumerate(results)]
    names = list(dict.fromkeys(image for image in images if isinstance(image, str)))
    if not names:
        return [int(image) for image in images]
    if (number := next((image for image in images if isinstance(image, int)), None)) is not None:
        raise InputError(
            f"{where}: expected an {IMAGE!r} of one kind, found {number} and {shown(names[0])}"
        )
    numbered = number_names(
        names,
        f"{where}: {IMAGE}",
        kind="images",
        example="'frame_001.jpg'",
        hint="put the frames of each clip into a file of its own",
    )
    number_of = {name: number for number, name in numbered.items()}
    return [number_of[str(image)] for image in images]


def _read_image(item: Any, where: str) -> int | str:
    """Return the image_id of a COCO result: a number, or a name that has one."""
    image = item.get(IMAGE) if isinstance(item, dict) else None
    if type(image) is int and 0 <= image < 10**18:
        return image
    if isinstance(image, str) and _NUMBER.search(image):
        return image
    raise InputError(
        f"{where}: expected an {IMAGE!r} with the number of the frame, found {shown(image)}"
    )
