"""Parse NTU RGB+D `.skeleton` files: in bulk where possible, else line by line.

    frames                                  one number
    for each frame:  bodies                 one number
        for each body:  id ...              the tracker's id and 9 unused numbers
                        25                  the number of joints
                        x y z ...           25 lines: metres, then 9 unused numbers

Lines end in LF or CRLF; blanks around a line and blank lines at the end of the file are allowed.
The unused numbers must be present and consist of the characters of numbers. A joint with a
coordinate that is not finite (some files contain NaN) becomes (0, 0, 0), as the sensor itself
writes joints that it does not see.

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
"""How many numbers each line of a body has."""
MAX_FRAMES = 100_000
"""An hour; more would fill the memory, since a frame without bodies takes two bytes in the file."""
_BODY_LINES = len(_BODY_FIELDS)
_NUMBER = re.compile(rb"[0-9.eE+-]+|[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_PLAIN_TEXT = b"0123456789.eE+- \t\r\n"
_MAX_EXACT_DIGITS = 15
"""float64 holds this many digits exactly, and 10 ** 15: their quotient is rounded only once."""
_POWERS = 10.0 ** np.arange(_MAX_EXACT_DIGITS + 1)
_PIECE_BYTES = 1 << 16


def parse(data: bytes, where: str) -> Detections:
    """Parse a whole file.

    Args:
        data: the content of the file.
        where: its name, for the error.

    Raises:
        InputError: names the file, the line, what was expected and what was found.
    """
    detections = _parse_in_bulk(data)
    return parse_by_line(data, where) if detections is None else detections


def parse_by_line(data: bytes, where: str) -> Detections:
    """Parse a whole file slowly but obviously: the reference for `parse`."""
    lines = _Lines(data, where)
    frames, slots, bodies, joints = [], [], [], []
    num_frames = lines.take_count("the number of frames")
    if not 1 <= num_frames <= MAX_FRAMES:
        raise lines.error(f"1 to {MAX_FRAMES:,} frames")
    for frame in range(num_frames):
        frame_name = f"frame {frame + 1} of {num_frames}"
        for slot in range(lines.take_count(f"the number of bodies in {frame_name}")):
            body = f"body {slot + 1} in {frame_name}"
            frames.append(frame)
            slots.append(slot)
            bodies.append(lines.take_body_id(f"id and 9 numbers of {body}"))
            if lines.take_count(f"{NUM_JOINTS} joints of {body}") != NUM_JOINTS:
                raise lines.error(f"{NUM_JOINTS} joints of {body}")
            for joint in range(NUM_JOINTS):
                joints.append(lines.take_point(f"12 numbers of joint {joint + 1} of {body}"))
    lines.take_end(f"the end of the file after {num_frames} frames")
    return _to_detections(num_frames, frames, slots, bodies, joints)


class _Lines:
    """The lines of a file, taken one by one; an error names the last line taken."""

    def __init__(self, data: bytes, where: str) -> None:
        text = data.rstrip()
        self._lines = text.split(b"\n") if text else []
        self._where = where
        self._number = 0

    def error(self, expected: str) -> InputError:
        found = "the end of the file"
        if self._number <= len(self._lines):
            text = b" ".join(self._lines[self._number - 1].split())
            found = repr(text[:40])[1:] + "..." * (len(text) > 40) if text else "a blank line"
        return InputError(
            f"{self._where}: line {self._number}: expected {expected}, found {found}",
            hint="the file may be truncated or in another format: copy or unpack it again",
        )

    def _take(self, num_fields: int, expected: str) -> list[bytes]:
        self._number += 1
        in_file = self._number <= len(self._lines)
        fields = self._lines[self._number - 1].split() if in_file else []
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

    def _integer(self, field: bytes, minimum: int, expected: str) -> int:
        try:
            value = int(field)
        except ValueError:
            raise self.error(expected) from None
        if not minimum <= value < 2**63:
            raise self.error(expected)
        return value

    def take_end(self, expected: str) -> None:
        self._number += 1
        if self._number <= len(self._lines):
            raise self.error(expected)


def _parse_in_bulk(data: bytes) -> Detections | None:
    """Parse a file with operations on whole arrays; return None if it is broken or unusual."""
    if data.translate(None, _PLAIN_TEXT) or not data[:1].isdigit():
        return None
    if data[: len(str(MAX_FRAMES)) + 1].isdigit():  # more frames, or leading zeros
        return None
    if not data.endswith(b"\n"):
        data += b"\n"
    text = np.frombuffer(data, np.uint8)
    start, first, num_lines = _find_fields(text)
    num_fields = np.diff(first)
    if len(num_fields) != num_lines:  # some line is blank or starts with a blank
        return None

    def integers(lines: Indices) -> list[int]:
        field = first[lines]
        spans = zip(start[field].tolist(), start[field + 1].tolist(), strict=True)
        return [int(data[begin:end]) for begin, end in spans]

    try:
        count_lines = np.flatnonzero(num_fields == 1)
        counts = dict(zip(count_lines.tolist(), integers(count_lines), strict=True))
        body_rows = _locate_bodies(counts, num_lines)
        if not body_rows:
            return None
        frames, slots, body_lines = np.array(body_rows).T
        lines = body_lines[:, None] + np.arange(_BODY_LINES)
        if (num_fields[lines] != _BODY_FIELDS).any():
            return None
        bodies = np.array(integers(body_lines), np.int64)
        x = first[lines[:, 2:]].ravel()  # [D * 25] fields; those of y and z follow
        axes = [
            _parse_decimals(text, start[x + axis], start[x + axis + 1] - 1) for axis in range(3)
        ]
    except (ValueError, OverflowError):
        return None
    return _to_detections(counts[0], frames, slots, bodies, np.stack(axes, axis=1))


def _locate_bodies(counts: dict[int, int], num_lines: int) -> list[tuple[int, int, int]]:
    """Find all bodies by walking from count to count.

    Args:
        counts: the lines with a single number, as line (from 0) to number.
        num_lines: number of lines in the file.

    Returns:
        Frame, slot and first line of each body; empty if the counts do not fit the file.
    """
    bodies: list[tuple[int, int, int]] = []
    line = 1
    num_frames = counts.get(0, 0)
    for frame in range(num_frames if num_frames <= MAX_FRAMES else 0):
        num_bodies = counts.get(line, -1)
        line += 1
        if num_bodies < 0 or line + num_bodies * _BODY_LINES > num_lines:
            return []
        for slot in range(num_bodies):
            if counts.get(line + 1) != NUM_JOINTS:
                return []
            bodies.append((frame, slot, line))
            line += _BODY_LINES
    return bodies if line == num_lines else []


def _find_fields(text: NDArray[np.uint8]) -> tuple[Indices, Indices, int]:
    """Find the fields, in pieces: temporary arrays as large as the file would be slower.

    Returns:
        The start of each field; the indices of the fields at the start of a line; the number of
        lines. The first two have one more entry, for the end of the file.
    """
    starts, are_first = [np.zeros(1, np.intp)], [np.ones(1, np.bool_)]
    num_lines = 0
    for begin in range(0, len(text), _PIECE_BYTES):
        piece = text[begin : begin + _PIECE_BYTES + 1]
        blank = piece <= ord(" ")
        last_blank = np.flatnonzero(blank[:-1] > blank[1:])
        starts.append(last_blank + (begin + 1))
        are_first.append(piece[last_blank] == ord("\n"))
        num_lines += int(np.count_nonzero(piece[:_PIECE_BYTES] == ord("\n")))
    start = np.concatenate([*starts, [len(text)]])
    first = np.flatnonzero(np.concatenate([*are_first, [True]]))
    return start, first, num_lines


def _parse_decimals(
    text: NDArray[np.uint8], start: NDArray[np.intp], end: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Convert many fields to numbers at once, bit for bit as `float` does.

    Fields such as -12.345, which means nearly all, are read as the integer 12345 over 10 ** 3. The
    rest, with an exponent or more digits than a float64 holds, goes to `float`.

    Args:
        text: the bytes of a file, none above 127.
        start, end: [n] where the fields start and end; none starts in the first 15 bytes.

    Raises:
        ValueError: a field is not a number.
    """
    negative = text[start] == ord("-")
    length = end - start - negative
    width = int(min(length.max(), _MAX_EXACT_DIGITS))
    column = np.arange(width, dtype=np.uint8)[::-1]  # 0 is the last character of a field
    chars = sliding_window_view(text, width)[end - width]  # [n, width], aligned right
    inside = column < np.minimum(length, width).astype(np.uint8)[:, None]
    is_dot = chars == ord(".")
    is_dot &= inside
    chars -= ord("0")  # the value of a digit; other characters wrap around to 10 or more
    is_digit = chars < 10
    is_digit &= inside
    chars *= is_digit

    num_digits = np.einsum("ij->i", is_digit.view(np.uint8))
    num_dots = np.einsum("ij->i", is_dot.view(np.uint8))
    scale = _POWERS[np.where(num_dots, width - 1 - is_dot.argmax(axis=1), 0)]
    # With the dot read as 0, all digits before it count ten times: 12.345 gives 120345.
    spaced = np.einsum("ij,j->i", chars, _POWERS[column])
    whole = np.floor(spaced / (10 * scale))
    value: NDArray[np.float64] = np.where(num_dots, spaced - 9 * scale * whole, spaced) / scale
    value[negative] *= -1

    is_unusual = (num_digits + num_dots != length) | (num_digits == 0) | (num_dots > 1)
    for i in np.flatnonzero(is_unusual):
        value[i] = float(text[start[i] : end[i]].tobytes())
    return value


def _to_detections(
    num_frames: int, frames: ArrayLike, slots: ArrayLike, bodies: ArrayLike, joints: ArrayLike
) -> Detections:
    return Detections(
        num_frames,
        np.asarray(frames, np.int64),
        np.asarray(slots, np.int64),
        np.asarray(bodies, np.int64),
        as_joints(np.reshape(joints, (-1, NUM_JOINTS, 3))),
    )
