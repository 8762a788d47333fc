"""Read variables of a `.mat` file: the numbers and texts of MATLAB 5 to 7.2.

A file is a list of elements: a type, a size and the content. A variable is an element of elements:
its class, its shape, its name, its numbers. Cells, structures, objects and sparse arrays are not
read. Nothing is allocated that the file does not hold, at most `MAX_BYTES` when unpacked.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.clip_tables import MAX_NUMBERS, ClipArray
from skelnas.data.readers.files import MAX_BYTES
from skelnas.data.readers.layouts import find_layout
from skelnas.errors import InputError, shown

HEADER_BYTES = 128
MAX_AXES = 8
MAX_NAME_BYTES = 100
MATRIX, COMPRESSED = 14, 15
CHARACTERS, NUMBER_CLASSES = 4, range(6, 16)
COMPLEX = 0x0800
NUMBERS = dict(
    zip(
        (1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18),
        ("i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8", "i8", "u8", "u1", "u2", "u4"),
        strict=True,
    )
)
"""NumPy's type for each type of element; the last three are texts."""
ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
KNOWN_NAMES = ("poses", "d_skel")
"""Of the array of joints, where there are others."""
_KINECT = find_layout("kinect-v1").joints
UTD_JOINTS = tuple(_KINECT[joint] for joint in (3, 2, 1, 0, *range(4, 20)))
"""Of `d_skel`, which is UTD-MHAD's: the head first, the base of the spine fourth."""
SMALL_AXES = range(2, 5)
"""Lengths of the axis with the numbers of a joint."""


class MatError(ValueError):
    """The file is damaged, or no such file."""


class _Element(NamedTuple):
    kind: int
    data: memoryview


def read_mat(data: bytes, where: str) -> dict[str, NDArray[Any] | str]:
    """Read all numeric arrays and texts, by the name of the variable.

    Raises:
        InputError: it is no such file, is damaged, or is too large when unpacked.
    """
    if data[:10] == b"MATLAB 7.3":
        raise InputError(
            f"{where}: expected a .mat file up to MATLAB 7.2, found one of 7.3",
            hint="save it in MATLAB by save(FILE, '-v7')",
        )
    order = {b"IM": "<", b"MI": ">"}.get(data[126:HEADER_BYTES])
    if order is None:
        raise InputError(f"{where}: expected a .mat file of MATLAB 5 to 7.2, found something else")
    variables: dict[str, NDArray[Any] | str] = {}
    budget = MAX_BYTES
    try:
        for element in _elements(memoryview(data)[HEADER_BYTES:], order):
            if element.kind == COMPRESSED:
                unpacked = zlib.decompressobj().decompress(element.data, budget + 1)
                budget -= len(unpacked)
                if budget < 0:
                    raise MatError(f"more than {MAX_BYTES:,} bytes when unpacked")
                element = next(_elements(memoryview(unpacked), order), element)
            if element.kind == MATRIX and (variable := _read_variable(element.data, order)):
                variables[variable[0]] = variable[1]
    except (MatError, zlib.error, UnicodeDecodeError) as error:
        raise InputError(f"{where}: the .mat file is damaged: {error}") from None
    return variables


def _elements(data: memoryview, order: str) -> Iterator[_Element]:
    """Yield the elements that follow each other."""
    position = 0
    while position < len(data):
        if len(data) - position < 8:
            raise MatError(f"{len(data) - position} bytes at the end")
        kind, size = struct.unpack_from(f"{order}II", data, position)
        position += 8
        if kind >> 16:  # a small one, with its content in the place of the size
            kind, size, start = kind & 0xFFFF, kind >> 16, position - 4
            if size > 4:
                raise MatError(f"a small element of {size} bytes")
        else:
            start = position
            position += size if kind == COMPRESSED else -(-size // 8) * 8
        if start + size > len(data):
            raise MatError(
                f"an element of {size:,} bytes, of which {len(data) - start:,} are there"
            )
        yield _Element(kind, data[start : start + size])


def _read_variable(data: memoryview, order: str) -> tuple[str, NDArray[Any] | str] | None:
    """Return the name and the content of a variable; None if it is no array of numbers or text."""
    elements = _elements(data, order)
    flags, shape, name, content = (next(elements, None) for _ in range(4))
    if flags is None or shape is None or name is None or len(flags.data) < 8:
        return None
    (flag,) = struct.unpack_from(f"{order}I", flags.data)
    kind = flag & 0xFF
    if (kind != CHARACTERS and kind not in NUMBER_CLASSES) or content is None or flag & COMPLEX:
        return None
    lengths = _read_numbers(shape, order).tolist()
    if len(lengths) > MAX_AXES or len(name.data) > MAX_NAME_BYTES:
        raise MatError(f"a variable of {len(lengths)} axes with a name of {len(name.data)} bytes")
    text = bytes(name.data).decode("latin-1")
    if kind == CHARACTERS:
        encoding = ENCODINGS.get(content.kind, "latin-1")
        return text, bytes(content.data).decode(_with_order(encoding, order))
    numbers = _read_numbers(content, order)
    if any(type(n) is not int or n < 0 for n in lengths) or prod(lengths) != len(numbers):
        raise MatError(f"{text!r} has {len(numbers):,} numbers for the shape {lengths}")
    if len(numbers) > MAX_NUMBERS:
        raise MatError(f"{text!r} has {len(numbers):,} numbers, expected at most {MAX_NUMBERS:,}")
    try:
        return text, numbers.reshape(lengths, order="F")
    except ValueError as error:  # an empty array with an axis too long for NumPy
        raise MatError(str(error)) from None


def _with_order(encoding: str, order: str) -> str:
    suffix = "-le" if order == "<" else "-be"
    return encoding + suffix if encoding in ("utf-16", "utf-32") else encoding


def _read_numbers(element: _Element, order: str) -> NDArray[Any]:
    if element.kind not in NUMBERS:
        raise MatError(f"numbers of the type {element.kind}")
    dtype = np.dtype(order + NUMBERS[element.kind])
    if len(element.data) % dtype.itemsize:
        raise MatError(f"{len(element.data)} bytes of {dtype}")
    return np.frombuffer(element.data, dtype)


def read_mat_clip(data: bytes, where: str) -> ClipArray:
    """Read a clip: from `poses`, `d_skel`, `x` and `y`, or else the only array of joints.

    Raises:
        InputError: the file is damaged, or holds no or several such arrays.
    """
    variables = read_mat(data, where)
    arrays = {name: value for name, value in variables.items() if isinstance(value, np.ndarray)}
    x, y = arrays.get("x"), arrays.get("y")
    if x is not None and y is not None and x.ndim == 2 and x.shape == y.shape:
        names = {"x": "x", "y": "y", "z": "z", "visibility": "score", "score": "score"}
        found = {
            channel: arrays[name]
            for name, channel in names.items()
            if name in arrays and arrays[name].shape == x.shape
        }
        poses = np.stack([array.astype(np.float64) for array in found.values()], axis=-1)
        return ClipArray(poses[None], channels=tuple(found))  # [T, V, C] -> [1, T, V, C]
    joints = {name: array for name, array in arrays.items() if array.ndim in (3, 4)}
    known = [name for name in joints if name in KNOWN_NAMES] or list(joints)
    if len(known) != 1:
        listed = ", ".join(f"{shown(key)} {value.shape}" for key, value in arrays.items())[:120]
        raise InputError(
            f"{where}: expected one array of joints, or x and y, found {listed or 'no arrays'}",
            hint="name it poses: [frames, joints, channels]",
        )
    name = known[0]
    with np.errstate(invalid="ignore"):  # a signalling NaN
        array = joints[name].astype(np.float64)
    if array.ndim == 4:
        return ClipArray(array)
    is_last, is_middle = (array.shape[axis] in SMALL_AXES for axis in (2, 1))
    if name == "d_skel" or (name != "poses" and is_middle and not is_last):
        array = array.transpose(2, 0, 1)  # [V, C, T] -> [T, V, C]
    elif name != "poses" and is_last == is_middle:
        raise InputError(
            f"{where}: {shown(name)} has the shape {array.shape}: which axis has the numbers of a "
            "joint?",
            hint="name it poses if it is [frames, joints, channels]",
        )
    is_utd = name == "d_skel" and array.shape[1] == len(UTD_JOINTS)
    return ClipArray(array[None], UTD_JOINTS if is_utd else ())
