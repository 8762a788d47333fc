"""The text of NTU RGB+D `.skeleton` files, read in bulk, and line by line where bulk will not do.

    frames                                  one number
    for each frame:  bodies                 one number
        for each body:  id ...              the tracker's id and 9 numbers that are not needed
                        25                  the number of joints
                        x y z ...           25 lines: metres, then 9 numbers that are not needed

Lines end in LF or CRLF; blanks at the ends of a line and blank lines at the end of the file are no
error. The numbers that are not needed must be there, spelt with the characters of numbers.
A joint with a coordinate that is not finite (some files say NaN) becomes (0, 0, 0), which is how
the sensor itself writes a joint that it does not see.

Shapes: D detections (one body in one frame).
"""

from __future__ import annotations

import re

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from skelnas.data.readers.bodies import Detections, Indices
from skelnas.data.readers.files import as_joints
from skelnas.errors import InputError

NUM_JOINTS = 25
_BODY_FIELDS = np.array([10, 1] + [12] * NUM_JOINTS)
"""Numbers in each line of a body."""
_BODY_LINES = len(_BODY_FIELDS)
_NUMBER = re.compile(rb"[0-9.eE+-]+|[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_PLAIN_TEXT = b"0123456789.eE+- \t\r\n"
_LONGEST_PLAIN = 15
"""Digits that a float64 holds exactly, as it does 10 ** 15: their quotient is rounded only once."""
_POWERS = 10.0 ** np.arange(_LONGEST_PLAIN + 1)
_PIECE = 1 << 16


def parse(data: bytes, where: str) -> Detections:
    """Read a whole file.

    Args:
        data: the bytes of the file.
        where: its name, for the error.

    Raises:
        InputError: names the file, the line, what was expected and what was found.
    """
    detections = _parse_in_bulk(data)
    return parse_by_line(data, where) if detections is None else detections


def parse_by_line(data: bytes, where: str) -> Detections:
    """Do what `parse` does, slowly and obviously: what it accepts is the format."""
    lines = _Lines(data, where)
    frames, slots, bodies, joints = [], [], [], []
    num_frames = lines.take_count("the number of frames")
    if num_frames == 0:
        raise lines.error("at least one frame")
    for frame in range(num_frames):
        place = f"frame {frame + 1} of {num_frames}"
        for slot in range(lines.take_count(f"the number of bodies in {place}")):
            body = f"body {slot + 1} in {place}"
            frames.append(frame)
            slots.append(slot)
            bodies.append(lines.take_body_id(f"id and 9 numbers of {body}"))
            if lines.take_count(f"{NUM_JOINTS} joints of {body}") != NUM_JOINTS:
                raise lines.error(f"{NUM_JOINTS} joints of {body}")
            for joint in range(NUM_JOINTS):
                joints.append(lines.take_point(f"12 numbers of joint {joint + 1} of {body}"))
    lines.take_end(f"the end of the file after {num_frames} frames")
    return _detections(num_frames, frames, slots, bodies, joints)


class _Lines:
    """The fields of a file, taken line by line; an error names the line taken last."""

    def __init__(self, data: bytes, where: str) -> None:
        text = data.rstrip()
        self._lines = [line.split() for line in text.split(b"\n")] if text else []
        self._where = where
        self._number = 0

    def error(self, expected: str) -> InputError:
        found = "the end of the file"
        if self._number <= len(self._lines):
            text = b" ".join(self._lines[self._number - 1])
            found = repr(text[:40])[1:] + "..." * (len(text) > 40) if text else "a blank line"
        return InputError(
            f"{self._where}: line {self._number}: expected {expected}, found {found}",
            hint="the file may be truncated or of another kind: copy or unpack it again",
        )

    def _take(self, num_fields: int, expected: str) -> list[bytes]:
        self._number += 1
        fields = self._lines[self._number - 1] if self._number <= len(self._lines) else []
        if len(fields) != num_fields or not all(map(_NUMBER.fullmatch, fields)):
            raise self.error(expected)
        return fields

    def take_count(self, expected: str) -> int:
        return self._integer(self._take(1, expected)[0], 0, expected)

    def take_body_id(self, expected: str) -> int:
        return self._integer(self._take(10, expected)[0], -(2**63), expected)

    def take_point(self, expected: str) -> list[float]:
        fields = self._take(12, expected)
        try:
            return [float(field) for field in fields[:3]]
        except ValueError:
            raise self.error(expected) from None

    def _integer(self, field: bytes, least: int, expected: str) -> int:
        try:
            value = int(field)
        except ValueError:
            raise self.error(expected) from None
        if not least <= value < 2**63:
            raise self.error(expected)
        return value

    def take_end(self, expected: str) -> None:
        self._number += 1
        if self._number <= len(self._lines):
            raise self.error(expected)


def _parse_in_bulk(data: bytes) -> Detections | None:
    """Read a file with operations on whole arrays; None if it is broken or out of the ordinary."""
    if data.translate(None, _PLAIN_TEXT) or not data[:1].isdigit():
        return None
    if not data.endswith(b"\n"):
        data += b"\n"
    text = np.frombuffer(data, np.uint8)
    start, first, num_lines = _fields(text)
    num_fields = np.diff(first)
    if len(num_fields) != num_lines:  # one is blank or starts with a blank
        return None

    def integers(lines: Indices) -> list[int]:
        field = first[lines]
        spans = zip(start[field].tolist(), start[field + 1].tolist(), strict=True)
        return [int(data[begin:end]) for begin, end in spans]

    try:
        count_lines = np.flatnonzero(num_fields == 1)
        counts = dict(zip(count_lines.tolist(), integers(count_lines), strict=True))
        places = _place_bodies(counts, num_lines)
        if not places:
            return None
        frames, slots, body_lines = np.array(places).T
        lines = body_lines[:, None] + np.arange(_BODY_LINES)
        if (num_fields[lines] != _BODY_FIELDS).any():
            return None
        bodies = np.array(integers(body_lines), np.int64)
        x = first[lines[:, 2:]].ravel()  # [D * 25], the fields; y and z follow
        axes = [_decimals(text, start[x + axis], start[x + axis + 1] - 1) for axis in range(3)]
    except (ValueError, OverflowError):
        return None
    return _detections(counts[0], frames, slots, bodies, np.stack(axes, axis=1))


def _place_bodies(counts: dict[int, int], num_lines: int) -> list[tuple[int, int, int]]:
    """Walk from count to count.

    Args:
        counts: what the lines with only one number say, by line from 0.
        num_lines: of the file.

    Returns:
        Frame, slot and first line of each body; nothing if the counts do not fit the file.
    """
    places: list[tuple[int, int, int]] = []
    line = 1
    for frame in range(counts.get(0, 0)):
        num_bodies = counts.get(line, -1)
        line += 1
        if num_bodies < 0 or line + num_bodies * _BODY_LINES > num_lines:
            return []
        for slot in range(num_bodies):
            if counts.get(line + 1) != NUM_JOINTS:
                return []
            places.append((frame, slot, line))
            line += _BODY_LINES
    return places if line == num_lines else []


def _fields(text: NDArray[np.uint8]) -> tuple[Indices, Indices, int]:
    """Find the fields, piece by piece: new memory for whole files would cost more than the search.

    Returns:
        Where each field starts, and which of them come directly after the start of a line; both
        have one entry more, where the next would be. And the number of lines.
    """
    starts, are_first = [np.zeros(1, np.intp)], [np.ones(1, np.bool_)]
    num_lines = 0
    for begin in range(0, len(text), _PIECE):
        piece = text[begin : begin + _PIECE + 1]
        blank = piece <= ord(" ")
        last_blank = np.flatnonzero(blank[:-1] > blank[1:])
        starts.append(last_blank + (begin + 1))
        are_first.append(piece[last_blank] == ord("\n"))
        num_lines += int(np.count_nonzero(piece[:_PIECE] == ord("\n")))
    start = np.concatenate([*starts, [len(text)]])
    first = np.flatnonzero(np.concatenate([*are_first, [True]]))
    return start, first, num_lines


def _decimals(
    text: NDArray[np.uint8], start: NDArray[np.intp], end: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Convert fields to numbers, to the bit as `float` does but many at once.

    Fields such as -12.345, which is nearly all, are read as the integer 12345 over 10 ** 3. What
    is left, with an exponent or with more digits than a float64 holds, goes to `float`.

    Args:
        text: the bytes of a file, none of them above 127.
        start, end: [n] where the fields start and end; none starts in the first 15 bytes.

    Raises:
        ValueError: if a field is no number.
    """
    negative = text[start] == ord("-")
    length = end - start - negative
    width = int(min(length.max(), _LONGEST_PLAIN))
    column = np.arange(width, dtype=np.uint8)[::-1]  # 0 is the last character of a field
    chars = sliding_window_view(text, width)[end - width]  # [n, width], flush right
    inside = column < np.minimum(length, width).astype(np.uint8)[:, None]
    is_dot = chars == ord(".")
    is_dot &= inside
    chars -= ord("0")  # the value of a digit; other characters wrap round to 10 or more
    is_digit = chars < 10
    is_digit &= inside
    chars *= is_digit

    num_digits = np.einsum("ij->i", is_digit.view(np.uint8))
    num_dots = np.einsum("ij->i", is_dot.view(np.uint8))
    scale = _POWERS[np.where(num_dots, width - 1 - is_dot.argmax(axis=1), 0)]
    # With the dot read as a zero, all before it counts ten times too much: 12.345 gives 120345.
    spaced = np.einsum("ij,j->i", chars, _POWERS[column])
    whole = np.floor(spaced / (10 * scale))
    value: NDArray[np.float64] = np.where(num_dots, spaced - 9 * scale * whole, spaced) / scale
    value[negative] *= -1

    strange = (num_digits + num_dots != length) | (num_digits == 0) | (num_dots > 1)
    for i in np.flatnonzero(strange):
        value[i] = float(text[start[i] : end[i]].tobytes())
    return value


def _detections(
    num_frames: int, frames: ArrayLike, slots: ArrayLike, bodies: ArrayLike, joints: ArrayLike
) -> Detections:
    return Detections(
        num_frames,
        np.asarray(frames, np.int64),
        np.asarray(slots, np.int64),
        np.asarray(bodies, np.int64),
        as_joints(joints).reshape(-1, NUM_JOINTS, 3),
    )
