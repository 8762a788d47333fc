"""Read one frame of a stream from a line of JSON.

Shapes: M persons, V joints, C channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skelnas import json_text
from skelnas.data.readers.base import Layout
from skelnas.data.readers.clip_files import KEY
from skelnas.data.readers.expected import Expected, check_size, order_known_joints
from skelnas.data.readers.files import as_array, check_json
from skelnas.data.readers.joint_names import find_array_names, order_channels, order_joints
from skelnas.data.readers.keypoints import OTHER_ORDER, are_persons, read_frame
from skelnas.errors import InputError, shown


class StreamFrame(NamedTuple):
    """One frame of a stream.

    Attributes:
        persons: [M, V, C], M >= 0, NaN where a number is unknown.
        says_who: whether a person has the same place in all frames; if not, there may be more than
            the model takes, and they are to be tracked.
    """

    persons: NDArray[np.float64]
    says_who: bool = True


def parse_frame(line: str, where: str, expected: Expected) -> StreamFrame:
    """Read one frame from JSON: [joints, channels] or [persons, joints, channels].

    An object holds this under the key ``poses``, and maybe names, as in a file, or is of a pose
    estimator. An unknown number or joint is null; a frame without persons is null or an empty list.

    Args:
        line: the text.
        where: name of the line, for error messages.
        expected: what it has to be; a pose estimator may see more persons.

    Raises:
        InputError: the line is not such a frame.
    """
    layout, max_persons = expected.layout, expected.max_persons
    try:
        value = json_text.parse(line.removeprefix("\ufeff"), is_strict=False)
    except ValueError:
        found = shown(line.strip())
        raise InputError(f"{where}: expected a frame as JSON, found {found}") from None
    if are_persons(value):
        return StreamFrame(_parse_persons(value, where, layout), says_who=False)
    content: dict[str, Any] = {}
    if isinstance(value, dict):
        if KEY not in value:
            raise InputError(
                f"{where}: expected an object with {KEY!r}, found {shown(line.strip())}"
            )
        content, value = value, value[KEY]
    shape = (len(layout.joints), len(layout.channels))
    if value is None or value == []:
        return StreamFrame(np.empty((0, *shape)))
    array = as_array(value)
    if array is None or array.ndim not in (2, 3) or array.shape[-2:] != shape:
        found = "something else" if array is None else f"an array {list(array.shape)}"
        raise InputError(
            f"{where}: found {found}, expected {shape[0]} joints of {shape[1]} numbers, or a list "
            "of such persons"
        )
    check_json(array, where)
    frame = array.reshape(-1, *shape)
    check_size(frame, where)
    if len(frame) > max_persons:
        raise InputError(f"{where}: {len(frame)} persons, expected at most {max_persons}")
    joints, names = find_array_names(content, shape, where)
    if joints:
        frame = frame[:, order_joints(joints, layout, where)]
    order = order_channels(names or expected.channel_order, layout, where)
    return StreamFrame(frame[..., order])


def _parse_persons(value: Any, where: str, layout: Layout) -> NDArray[np.float64]:
    """Return persons [M, V, C] in the order of the layout."""
    num_joints = len(layout.joints)
    persons = read_frame(value, where, num_joints)
    frame = np.empty((len(persons), num_joints, len(layout.channels)))
    for index, person in enumerate(persons):
        if len(person.numbers) != num_joints:
            raise InputError(f"{where}: {len(person.numbers)} joints, expected {num_joints}")
        other = OTHER_ORDER.get(person.layout, "")
        joints = order_known_joints(person.joints or layout.joints, other, layout, where)
        channels = order_channels(person.channels, layout, where)
        frame[index] = person.numbers[joints][:, channels]
    return frame
