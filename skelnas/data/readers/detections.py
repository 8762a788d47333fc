"""Poses that MMAction2 and PYSKL keep in a file for each clip, as for Kinetics.

The annotation lists the frame of every detected person under ``frame_inds``; the file holds their
joints: a pickle or `.npy` of an array [D, V, 3], x, y and score.

Shapes: D detections in all frames, M persons, T frames, V joints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.annotations import load_pickle
from skelnas.data.readers.files import read_bytes
from skelnas.data.readers.npy import read_npy
from skelnas.data.readers.pickles import Array
from skelnas.errors import InputError, shown

FILE_KEYS = ("raw_file", "filename")
"""Of an annotation: the file with its poses."""
ENDINGS = (".pkl", ".npy")
MAX_NUMBERS = 1 << 25
"""Of a clip, those of absent persons included."""


def list_pose_files(annotation: dict[str, Any], folder: Path) -> list[Path]:
    """Return where in a folder the poses of a clip may be, never outside of it."""
    names = [name for key in FILE_KEYS if isinstance(name := annotation.get(key), str) and name]
    clip = annotation["frame_dir"]
    names += [f"{clip}{ending}" for ending in ENDINGS]
    inner = [[part for part in Path(name).parts if part not in ("/", "..")] for name in names]
    return [folder.joinpath(*parts) for parts in inner if parts]


def read_detections(path: Path) -> NDArray[Any]:
    """Read the joints of all detections [D, V, 3]. Raises InputError if there is no such array."""
    if path.suffix.lower() == ".npy":
        return read_npy(read_bytes(path), str(path))
    content = load_pickle(path)
    if isinstance(content, dict):
        content = content.get("keypoint")
    if not isinstance(content, Array):
        raise InputError(f"{path}: expected an array of joints, found {shown(content)}")
    return content.read()


def group_by_frame(
    detections: NDArray[Any], frames: NDArray[Any], where: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Turn detections into persons: the first of each frame is one person, the second another.

    Args:
        detections: [D, V, 3] or, without scores, [D, V, 2].
        frames: [D], the frame of each.
        where: name of the clip, for error messages.

    Returns:
        The coordinates [M, T, V, 2] and scores [M, T, V] from the first to the last frame with a
        detection; zero where there is none.

    Raises:
        InputError: they do not fit each other.
    """
    if (
        detections.ndim != 3
        or detections.shape[2] not in (2, 3)
        or frames.shape != detections.shape[:1]
        or not len(frames)
        or frames.dtype.kind not in "iu"
        or detections.dtype.kind not in "fiu"
    ):
        raise InputError(
            f"{where}: {detections.shape} of {detections.dtype} for {frames.shape} 'frame_inds' of "
            f"{frames.dtype}, expected detections x joints x 3 and a whole number for each"
        )
    if not 0 <= frames.min() <= frames.max() < 2**31:
        raise InputError(f"{where}: 'frame_inds' from {frames.min()} to {frames.max()}")
    frame = frames.astype(np.int64)
    order = np.argsort(frame, kind="stable")
    ordered, first = frame[order], int(frame.min())
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
    sizes = np.diff(starts, append=len(ordered))
    person = np.arange(len(ordered)) - np.repeat(starts, sizes)
    shape = (int(sizes.max()), int(frame.max()) - first + 1, detections.shape[1])
    if np.prod(shape, dtype=float) * 3 > MAX_NUMBERS:
        raise InputError(
            f"{where}: {shape[0]} persons in {shape[1]:,} frames of {shape[2]} joints, expected at "
            f"most {MAX_NUMBERS:,} numbers"
        )
    keypoint, score = np.zeros((*shape, 2)), np.zeros(shape)
    with np.errstate(invalid="ignore"):  # a signalling NaN
        joints = detections[order].astype(np.float64)
    keypoint[person, ordered - first] = joints[..., :2]
    score[person, ordered - first] = joints[..., 2] if joints.shape[2] == 3 else 1
    return keypoint, score
