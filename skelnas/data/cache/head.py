"""The head of a cache: everything but the poses. It is read whole and checked before use.

Shapes: N clips, R rows of all clips, V joints, C channels of a joint.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from skelnas import json_text
from skelnas.data.cache.hdf5 import Hdf5Reader
from skelnas.data.cache.storage import (
    CHECKSUM,
    INTEGERS,
    POSES_CHUNK_BYTES,
    PRESENT_CHUNK_ROWS,
)
from skelnas.data.readers.base import (
    MAX_CHANNELS,
    MAX_CLASSES,
    MAX_JOINTS,
    ClipTable,
    Layout,
    Test,
    Train,
    Unused,
    find_layout_problem,
)
from skelnas.errors import shown

MAX_PERSONS = 64
"""A cache that claims more persons per clip counts as damaged."""


@dataclass(frozen=True)
class Head:
    """Everything in a cache but the poses; see `Cache` for the attributes of the same names.

    Attributes:
        starts: [N] int64, the first row of each clip.
        checksums: [N] uint32, one for the rows of each clip; None in a cache without them.
        poses, present: the datasets [R, V, C] and [R].
        present_checksum: of all rows; None in a cache of 0.1.0.
        checksum: of the head, as read.
    """

    source: str
    rule: dict[str, Any]
    skelnas_version: str
    max_persons: int
    layout: Layout
    classes: list[str]
    clips: ClipTable
    starts: NDArray[np.int64]
    num_persons: NDArray[np.int64]
    num_frames: NDArray[np.int64]
    checksums: NDArray[np.uint32] | None
    splits: dict[str, NDArray[np.int8]]
    skipped: list[tuple[str, str]]
    failed: list[tuple[str, str]]
    poses: h5py.Dataset
    present: h5py.Dataset
    present_checksum: int | None
    checksum: int


def read_head(file: Hdf5Reader) -> Head:
    """Read the head of a cache and check that its parts fit each other.

    Raises:
        ValueError: names the entry that does not. See `Hdf5Reader` for what HDF5 raises.
    """
    rule = _parse_rule(file.attribute("rule", str))
    max_persons = file.attribute("max_persons", int)
    if not 1 <= max_persons <= MAX_PERSONS:
        raise ValueError(f"attribute max_persons: {max_persons}, expected 1 to {MAX_PERSONS}")
    layout = _read_layout(file)
    classes = _read_unique(file, "classes", MAX_CLASSES)
    names = _read_unique(file, "clips/name")
    columns = {
        name: file.table(f"clips/{name}", "<i8" if name == "start" else "<i4", (len(names),))
        for name in INTEGERS
    }
    _check_columns(columns, len(classes), max_persons)
    checksums = None
    if file.has(f"clips/{CHECKSUM}"):
        checksums = file.table(f"clips/{CHECKSUM}", "<u4", (len(names),))
    num_persons, num_frames = (
        columns[name].astype(np.int64) for name in ("num_persons", "num_frames")
    )
    poses, present = _open_rows(file, layout, int((num_persons * num_frames).sum()))
    return Head(
        source=file.attribute("source", str),
        rule=rule,
        skelnas_version=file.attribute("skelnas_version", str),
        max_persons=max_persons,
        layout=layout,
        classes=classes,
        clips=ClipTable(
            names=names,
            labels=columns["label"],
            subjects=columns["subject"],
            cameras=columns["camera"],
            setups=columns["setup"],
        ),
        starts=columns["start"],
        num_persons=num_persons,
        num_frames=num_frames,
        checksums=checksums,
        splits={name: _read_split(file, name, len(names)) for name in file.names("splits")},
        skipped=_read_pairs(file, "skipped"),
        failed=_read_pairs(file, "failed"),
        poses=poses,
        present=present,
        present_checksum=file.stored_checksum("present"),
        checksum=file.checksum(),
    )


def _read_layout(file: Hdf5Reader) -> Layout:
    center = file.attribute("layout/center_joint", int)
    joints = _read_unique(file, "layout/joints", MAX_JOINTS)
    channels = _read_unique(file, "layout/channels", MAX_CHANNELS)
    bones = file.table("layout/bones", "<i4", (None, 2))
    if len(bones) > MAX_JOINTS:
        raise ValueError(f"layout/bones: {len(bones):,}, expected at most {MAX_JOINTS:,}")
    layout = Layout(
        joints=tuple(joints),
        bones=tuple((child, parent) for child, parent in bones.tolist()),
        channels=tuple(channels),
        center_joint=None if center == -1 else center,
        y_down=file.optional_attribute("layout/y_down", bool),
        frame_rate=file.optional_attribute("layout/frame_rate", float),
    )
    if problem := find_layout_problem(layout):
        raise ValueError(f"layout: {problem}")
    return layout


def _read_unique(file: Hdf5Reader, name: str, max_count: int | None = None) -> list[str]:
    texts = file.strings(name, max_count)
    if not texts:
        raise ValueError(f"{name}: is empty")
    if len(set(texts)) < len(texts):
        (text, _), *_ = Counter(texts).most_common(1)
        raise ValueError(f"{name}: {shown(text)} is there twice")
    return texts


def _check_columns(columns: dict[str, NDArray[Any]], num_classes: int, max_persons: int) -> None:
    for name, first, last in (
        ("label", 0, num_classes - 1),
        ("subject", -1, None),
        ("camera", -1, None),
        ("setup", -1, None),
        ("num_persons", 1, max_persons),
        ("num_frames", 1, None),
    ):
        low, high = int(columns[name].min()), int(columns[name].max())
        if low < first or (last is not None and high > last):
            limits = f"{first} or more" if last is None else f"{first} to {last}"
            raise ValueError(f"clips/{name}: {low} to {high}, expected {limits}")
    num_rows = columns["num_persons"].astype(np.int64) * columns["num_frames"]
    if not np.array_equal(columns["start"], np.cumsum(num_rows) - num_rows):
        raise ValueError("clips/start: the clips do not follow each other")


def _open_rows(
    file: Hdf5Reader, layout: Layout, num_rows: int
) -> tuple[h5py.Dataset, h5py.Dataset]:
    poses = file.rows("poses", POSES_CHUNK_BYTES)
    present = file.rows("present", PRESENT_CHUNK_ROWS)
    shape = (num_rows, len(layout.joints), len(layout.channels))
    for name, dataset, expected, dtypes in (
        ("poses", poses, shape, ("<f4", "<f2")),
        ("present", present, shape[:1], ("|b1",)),
    ):
        if dataset.shape != expected or dataset.dtype.str not in dtypes:
            found = f"{dataset.dtype.str} {dataset.shape}"
            raise ValueError(f"{name}: {found}, expected {' or '.join(dtypes)} {expected}")
    return poses, present


def _read_split(file: Hdf5Reader, protocol: str, count: int) -> NDArray[np.int8]:
    parts: NDArray[np.int8] = file.table(f"splits/{protocol}", "|i1", (count,))
    if not np.isin(parts, (Train, Test, Unused)).all():
        raise ValueError(f"splits/{protocol}: expected {Train}, {Test} or {Unused} for each clip")
    return parts


def _read_pairs(file: Hdf5Reader, group: str) -> list[tuple[str, str]]:
    files, reasons = file.strings(f"{group}/file"), file.strings(f"{group}/reason")
    if len(files) != len(reasons):
        raise ValueError(f"{group}: {len(files)} files, but {len(reasons)} reasons")
    return list(zip(files, reasons, strict=True))


def _parse_rule(text: str) -> dict[str, Any]:
    try:
        rule = json_text.parse(text)
        json.dumps(rule, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"attribute rule: expected JSON: {error}") from None
    if not isinstance(rule, dict):
        raise ValueError("attribute rule: expected a JSON object")
    return rule
