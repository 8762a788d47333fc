"""Write a recording in every format that can hold it.

Shapes: M persons, T frames, V joints, C channels of a joint.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
import random
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from recordings import Clip, Kind

Missing = Literal["nan", "one nan", "zero", "score", "sentinel", "inf"]


def ways_to_miss(kind: Kind) -> list[Missing]:
    """Return the ways to write that a joint was not found."""
    ways: list[Missing] = ["nan", "one nan", "zero", "inf"]
    if kind.is_scored:
        ways.append("score")
    if kind.num_spatial == 2:
        ways.append("sentinel")
    return ways


def spell(clip: Clip, missing: Missing = "nan") -> NDArray[np.float64]:
    """Return the numbers [M, T, V, C], with joints that were not found in one of the ways."""
    numbers, lost = clip.numbers.copy(), ~clip.found
    size = clip.kind.num_spatial
    fill = np.full(numbers.shape[-1], np.nan)
    match missing:
        case "zero":
            fill[:size], fill[size:] = 0, 0.7
        case "score":
            fill[:size], fill[size:] = 0.3, 0
        case "sentinel":
            fill[:size], fill[size:] = -1, 0.7
        case "one nan":
            fill[:size], fill[size:] = 0.3, 0.7
            fill[size - 1] = np.nan
        case "inf":
            fill[:] = np.inf
    numbers[lost] = fill
    return numbers


def write_npy(path: Path, clip: Clip, missing: Missing = "nan", dtype: str = "f8") -> None:
    np.save(path, _squeeze(spell(clip, missing)).astype(dtype))


def write_npz(path: Path, clip: Clip, missing: Missing = "nan", key: str = "poses") -> None:
    others = {"frame_rate": np.array(30.0)} if key == "poses" else {}
    np.savez_compressed(path, **{key: _squeeze(spell(clip, missing))}, **others)


def write_json(
    path: Path, clip: Clip, missing: Missing = "nan", key: str | None = "poses", bom: bool = False
) -> None:
    lists = to_lists(_squeeze(spell(clip, missing)))
    path.write_text(json.dumps({key: lists} if key else lists), "utf-8-sig" if bom else "utf-8")


def to_lists(numbers: NDArray[np.float64]) -> Any:
    """Convert to nested lists with None for what is not a number; JSON has no infinity."""
    return np.where(np.isfinite(numbers), numbers.astype(object), None).tolist()


def _squeeze(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    return numbers[0] if len(numbers) == 1 else numbers


def to_lines(clip: Clip, missing: Missing = "nan", drop_absent: bool = True) -> list[str]:
    """Return a stream: a line of JSON for each frame.

    A person who is absent is left out if all those after them are, too, or else unknown.
    """
    numbers = spell(clip, missing)
    lines = []
    for frame, present in zip(numbers.swapaxes(0, 1), clip.present.T, strict=True):
        count = len(frame)
        while drop_absent and count and not present[count - 1]:
            count -= 1
        lines.append(json.dumps(to_lists(frame[:count]) if count else None) + "\n")
    return lines


@dataclass(frozen=True)
class Style:
    """How a table is written; none of it may change what is read.

    Attributes:
        joints, channels: orders of the columns.
        change: how names are spelt.
        channel_names: names of the channels, in the order of the layout.
        delimiter, newline, quoting, has_bom: of the file.
        index: the index column of a table of pandas: its header, or None for no such column.
        has_frames: whether there is a column `frame`.
        shuffle: seed of the order of the rows, which takes a column `frame`; None as recorded.
        missing: how a joint that was not found is written.
        empty: how a cell without a number is written.
    """

    joints: Sequence[int]
    channels: Sequence[int]
    change: Callable[[str], str] = str
    channel_names: Sequence[str] = ()
    delimiter: str = ","
    newline: str = "\n"
    quoting: int = csv.QUOTE_MINIMAL
    has_bom: bool = False
    index: str | None = None
    has_frames: bool = False
    shuffle: int | None = None
    missing: Missing = "nan"
    empty: str = ""


def nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def nfd(name: str) -> str:
    return unicodedata.normalize("NFD", name)


def nfd_capitals(name: str) -> str:
    return unicodedata.normalize("NFD", name.upper())


def side_last(name: str) -> str:
    return re.sub(r"^(left|right)_(hand|foot)", r"\2_\1", name)


def side_letter(name: str) -> str:
    return re.sub(r"^([lr])(eft|ight)_(hand|foot)", lambda m: f"{m[1].upper()}{m[3].title()}", name)


SPELLINGS = (str, str.upper, str.title, nfc, nfd, nfd_capitals, side_last, side_letter)
SCORE_NAMES = ("score", "confidence", "visibility", "conf", "c", "s", "v", "vis", "likelihood")


def styles(kind: Kind, *, plain_order: bool = False) -> st.SearchStrategy[Style]:
    """Ways to write a table of this kind."""
    joints, channels = len(kind.layout.joints), len(kind.layout.channels)
    has_frames = st.booleans()

    def build(has_frames: bool) -> st.SearchStrategy[Style]:
        score_name = st.sampled_from(SCORE_NAMES) if kind.is_scored else st.just("")
        return st.builds(
            Style,
            joints=st.just(range(joints)) if plain_order else st.permutations(range(joints)),
            channels=st.just(range(channels)) if plain_order else st.permutations(range(channels)),
            change=st.sampled_from(SPELLINGS),
            channel_names=score_name.map(
                lambda name: (*kind.layout.channels[: kind.num_spatial], *([name] if name else []))
            ),
            delimiter=st.sampled_from([",", ";", "\t"]),
            newline=st.sampled_from(["\n", "\r\n"]),
            quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
            has_bom=st.booleans(),
            index=st.none() if has_frames else st.sampled_from([None, ""]),
            has_frames=st.just(has_frames),
            shuffle=st.none() | st.integers(0, 99) if has_frames else st.none(),
            missing=st.sampled_from(ways_to_miss(kind)),
            empty=st.sampled_from(["", "nan", "NaN"]),
        )

    return has_frames.flatmap(build)


def write_csv(path: Path, clip: Clip, style: Style) -> None:
    """Write a table with a header; several persons need the column `frame`."""
    layout, many = clip.kind.layout, len(clip.numbers) > 1
    names = style.channel_names or layout.channels
    header = [
        style.change(f"{layout.joints[joint]}_{names[channel]}")
        for joint in style.joints
        for channel in style.channels
    ]
    numbers = spell(clip, style.missing)[:, :, style.joints][..., style.channels]
    rows = []
    for frame in range(numbers.shape[1]):
        for person in range(len(numbers)):
            cells = [_cell(number, style.empty) for number in numbers[person, frame].flat]
            head = [str(frame)] * (style.has_frames or many) + [str(3 * person + 1)] * many
            rows.append([*head, *cells])
    if style.shuffle is not None:
        random.Random(style.shuffle).shuffle(rows)
    header = ["frame"] * (style.has_frames or many) + ["person"] * many + header
    if style.index is not None and not many:
        header = [style.index, *header]
        rows = [[str(number), *row] for number, row in enumerate(rows)]
    write_rows(path, [header, *rows], style)


def write_rows(path: Path, rows: list[list[str]], style: Style) -> None:
    """Write cells."""
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=style.delimiter, lineterminator=style.newline, quoting=style.quoting
    )
    writer.writerows(rows)
    path.write_bytes(text.getvalue().encode("utf-8-sig" if style.has_bom else "utf-8"))


def _cell(number: float, empty: str) -> str:
    return empty if np.isnan(number) else repr(float(number))


def write_plain_csv(
    path: Path,
    clip: Clip,
    header: Literal["none", "numbers", "index and numbers"] = "none",
    missing: Missing = "nan",
    empty: str = "",
) -> None:
    """Write a table without names: without a header, or with that of pandas."""
    (numbers,) = spell(clip, missing)
    rows = [[_cell(number, empty) for number in frame.flat] for frame in numbers]
    names = [str(column) for column in range(len(rows[0]))]
    if header == "index and numbers":
        rows = [[str(number), *row] for number, row in enumerate(rows)]
        names = ["", *names]
    table = rows if header == "none" else [names, *rows]
    path.write_text("".join(",".join(row) + "\n" for row in table))


def write_joints(
    path: Path,
    kind: Kind,
    order: Sequence[int] | None = None,
    change: Callable[[str], str] = str,
    **changes: Any,
) -> Path:
    """Write a joints file, with the joints in another order and changed keys."""
    layout = kind.layout
    order = range(len(layout.joints)) if order is None else order
    content = {
        "joints": [change(layout.joints[joint]) for joint in order],
        "bones": [[change(layout.joints[end]) for end in bone] for bone in layout.bones],
        "channels": [change(channel) for channel in layout.channels],
    }
    if layout.center_joint is not None:
        content["center"] = change(layout.joints[layout.center_joint])
    content |= {"picture": list(kind.picture)} if kind.picture else {}
    content |= changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return path


def write_skeleton(path: Path, clip: Clip, missing: Missing = "nan", newline: str = "\n") -> None:
    """Write the text format of NTU RGB+D."""
    numbers = spell(clip, missing)
    lines = [str(numbers.shape[1])]
    for frame in range(numbers.shape[1]):
        present = np.flatnonzero(clip.present[:, frame])
        lines.append(str(len(present)))
        for person in present:
            lines += [f"{72057594037930000 + person} 0 1 1 1 1 0 0.1 -0.2 2", "25"]
            lines += [
                " ".join([*(f"{number!r}" for number in map(float, joint)), *"000000000"])
                for joint in numbers[person, frame]
            ]
    path.write_bytes(newline.join([*lines, ""]).encode())


def write_nw_ucla(path: Path, clip: Clip, label: int, missing: Missing = "zero") -> None:
    """Write the JSON of NW-UCLA."""
    (numbers,) = spell(clip, missing)
    path.write_text(json.dumps({"skeletons": numbers.tolist(), "label": label}))


def write_kinetics(path: Path, clip: Clip, missing: Missing = "score") -> None:
    """Write the JSON of Kinetics-Skeleton, without frames in which nobody is seen."""
    numbers, frames = spell(clip, missing), []
    for frame, present in enumerate(clip.present.T):
        persons = [
            {"pose": person[:, :2].flatten().tolist(), "score": person[:, 2].tolist()}
            for person in numbers[:, frame]
        ]
        while persons and not present[len(persons) - 1]:
            persons.pop()
        frames.append({"frame_index": frame + 1, "skeleton": persons})
    path.write_text(json.dumps({"data": frames, "label": "yoga", "label_index": 398}))


def write_pyskl(
    path: Path,
    clips: dict[str, Clip],
    labels: dict[str, int],
    split: dict[str, list[str]],
    missing: Missing = "nan",
) -> None:
    """Write a pickle of PYSKL."""
    annotations = []
    for name, clip in clips.items():
        numbers = spell(clip, missing)
        size = clip.kind.num_spatial
        annotation = {
            "frame_dir": name,
            "label": labels[name],
            "total_frames": numbers.shape[1],
            "keypoint": numbers[..., :size].astype(np.float32),
        }
        if clip.kind.is_scored:
            width, height = map(int, clip.kind.picture)
            annotation |= {
                "keypoint_score": numbers[..., size].astype(np.float32),
                "img_shape": (height, width),
                "original_shape": (height, width),
            }
        annotations.append(annotation)
    path.write_bytes(pickle.dumps({"split": split, "annotations": annotations}))


def write_ctrgcn(
    path: Path, clips: list[Clip], labels: list[int], missing: Missing = "zero"
) -> None:
    """Write the `.npz` of CTR-GCN: these clips for testing, the same for training."""
    num_frames = max(clip.numbers.shape[1] for clip in clips)
    x = np.zeros((len(clips), num_frames, 2, 25, 3), np.float32)
    for row, clip in enumerate(clips):
        numbers = spell(clip, missing)
        x[row, : numbers.shape[1], : len(numbers)] = numbers.swapaxes(0, 1)
    x = x.reshape(len(clips), num_frames, -1)
    y = np.eye(max(labels) + 1)[labels]
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)
