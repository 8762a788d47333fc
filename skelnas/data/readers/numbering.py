"""Number the frames of a recording: by the names of their files or images, or as it counts them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from skelnas.errors import InputError

MAX_DIGITS = 18
"""The last ones of a longer number count, so that it fits into 64 bits."""
_DIGITS = re.compile(r"([0-9]+)")


class Numbering(NamedTuple):
    """The numbers that a recording gives its frames: `first`, `first + step`, and so on.

    Attributes:
        first: number of the first frame that is listed; there may be others before it, in which
            nobody is seen.
        step: from one frame to the next.
    """

    first: int = 0
    step: int = 1

    @property
    def start_number(self) -> int:
        """The number of the frame at time 0: 1 if that is the first, as in ffmpeg's files."""
        return 1 if self.first == 1 else 0


FROM_ZERO = Numbering()
"""Of frames that have no numbers."""


def number_names(
    names: Sequence[str], where: str, *, kind: str, example: str, hint: str
) -> dict[int, str]:
    """Return the names by the number in which they differ, in its order.

    Args:
        names: at least one, each only once.
        where: what holds them, for error messages.
        kind: what the names are of, for error messages.
        example: a usual name, for error messages.
        hint: what to do about other names.

    Raises:
        InputError: names differ in something else, or two have the same number.
    """
    split = {name: _DIGITS.split(name) for name in names}
    first = names[0]
    for name, parts in split.items():
        if parts[::2] != split[first][::2]:
            raise InputError(
                f"{where}: expected names that differ in a number only, such as {example}, "
                f"found {first[:60]!r} and {name[:60]!r}",
                hint=hint,
            )
    numbers = {
        name: [int(digits[-MAX_DIGITS:]) for digits in parts[1::2]] for name, parts in split.items()
    }
    columns = range(len(split[first]) // 2)
    varying = [column for column in columns if len({row[column] for row in numbers.values()}) > 1]
    if len(varying) > 1:
        other = next(
            name for name in names if numbers[name][varying[0]] != numbers[first][varying[0]]
        )
        raise InputError(
            f"{where}: expected names that differ in one number, found several in "
            f"{first[:60]!r} and {other[:60]!r}",
            hint=hint,
        )
    numbered: dict[int, str] = {}
    for name in names:
        number = numbers[name][varying[0]] if varying else [0, *numbers[name]][-1]
        if number in numbered:
            raise InputError(
                f"{where}: two {kind} of frame {number}: "
                f"{numbered[number][:60]!r} and {name[:60]!r}"
            )
        numbered[number] = name
    return dict(sorted(numbered.items()))
