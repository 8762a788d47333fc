"""The parsers to fuzz: some small valid files for each, and a function that reads a changed one.

Every target has its own folder. `read` takes the bytes of a file and yields its recordings, each
with its source, or raises InputError.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from skelnas.data.readers import manifest
from skelnas.data.readers.annotations import read_annotations
from skelnas.data.readers.base import Recording, Source
from skelnas.data.readers.clip_tables import TextFormat
from skelnas.data.readers.ctrgcn import CtrGcn, _open
from skelnas.data.readers.expected import Expected, to_poses
from skelnas.data.readers.folder import Folder, read_folder
from skelnas.data.readers.kinetics import Kinetics
from skelnas.data.readers.manifest import Manifest, read_manifest
from skelnas.data.readers.msrc12 import Msrc12, _read_frames
from skelnas.data.readers.npy import read_npy
from skelnas.data.readers.ntu import Ntu
from skelnas.data.readers.ntu_file import parse, parse_by_line
from skelnas.data.readers.nw_ucla import NwUcla
from skelnas.data.readers.penn_action import PennAction
from skelnas.data.readers.pyskl import Pyskl, find_single
from skelnas.data.readers.skeleton_file import read_skeleton
from skelnas.data.readers.stream_frames import parse_frame
from skelnas.errors import InputError

Outcome = Iterator[tuple[Recording, Source]]
RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Target:
    """A parser to fuzz.

    Attributes:
        seeds: valid files, which must all be accepted.
        read: reads a file.
        wrap: wraps a changed file, as in an archive with a valid checksum.
    """

    seeds: list[bytes]
    read: Callable[[bytes], Outcome]
    wrap: Callable[[bytes, Random], bytes] = lambda data, random: data


class WrongAcceptanceError(Exception):
    """A file is accepted that the reference reader refuses or reads differently."""


def ntu(folder: Path) -> Target:
    def frame(*bodies: int) -> list[str]:
        lines = [str(len(bodies))]
        for body in bodies:
            points = RNG.normal(0, 1, (25, 3)).round(5).astype(str)
            points[3:5] = "0"  # not found
            lines += [f"{body} 0 1 1 1 1 0 0.02 -0.05 2", "25"]
            lines += [" ".join([*point, "0 0 0 0 0 0 0 0 2"]) for point in points]
        return lines

    files = ([frame(7)], [frame(), frame(7)], [frame(7, 8)])
    texts = [[str(len(frames)), *chain.from_iterable(frames)] for frames in files]
    seeds = ["\n".join([*text, ""]).encode() for text in texts]
    seeds.append(seeds[0].replace(b"\n", b"\r\n"))
    item = folder / "S001C001P001R001A001.skeleton"
    source = Ntu(folder)

    def read(data: bytes) -> Outcome:
        slow, fast = _outcome(parse_by_line, data), _outcome(parse, data)
        if slow != fast:
            raise WrongAcceptanceError(f"by line {str(slow)[:200]}, in bulk {str(fast)[:200]}")
        item.write_bytes(data)
        yield source.read(item), source

    return Target(seeds, read)


def _outcome(read: Callable[[bytes, str], Any], data: bytes) -> Any:
    try:
        found = read(data, "file")
    except InputError as error:
        return str(error)
    arrays = (found.frames, found.slots, found.bodies, found.joints)
    return found.num_frames, [array.tobytes() for array in arrays]


def archive(folder: Path) -> Target:
    """NTU clips in a zip archive."""
    clip, path = ntu(folder).seeds[0], folder / "clips.zip"
    names = ("x/S001C001P001R001A001.skeleton", "S001C001P001R001A002.skeleton")
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

    def read(data: bytes) -> Outcome:
        path.unlink(missing_ok=True)  # archives are cached by modification time
        path.write_bytes(data)
        source = Ntu(path)
        for item in source.catalogue().items:
            yield source.read(item), source

    return Target([_zipped(dict.fromkeys(names, clip), method) for method in methods], read)


def kinetics(folder: Path) -> Target:
    facts = {"has_skeleton": True, "label": "zumba", "label_index": 399}
    (folder / "train").mkdir()
    (folder / "kinetics_train_label.json").write_text(json.dumps({"one": facts}))
    person = {"pose": [0.25, 0.5] * 18, "score": [0.5] * 18}
    lost = {"pose": [-1, -1, 0, 0, 0.1, -1] * 6, "score": [0, 0.5, -0.5] * 6}
    frames = [{"frame_index": i, "skeleton": [person, lost][: i % 3]} for i in range(1, 5)]
    seeds = [json.dumps({"data": frames[:n], "label": "zumba"}).encode() for n in (1, 2, 4)]
    return _one_file(Kinetics(folder), folder / "train" / "one.json", seeds)


def nw_ucla(folder: Path) -> Target:
    poses = RNG.normal(0, 1, (2, 20, 3)).round(3).tolist()
    poses[1][3:6] = [0, 0, 0], [None, 1, 2], [float("nan"), 1, 2]
    seeds = [json.dumps({"skeletons": poses[:n], "label": 7}).encode() for n in (1, 2)]
    return _one_file(NwUcla(folder), folder / "a08_s10_e00_v03.json", seeds)


def pyskl(folder: Path) -> Target:
    flat = {
        "frame_dir": "S001C001P001R001A001",
        "label": 0,
        "total_frames": 2,
        "img_shape": (1080, 1920),
        "keypoint": np.full((1, 2, 17, 2), 400, np.float16),
        "keypoint_score": np.full((1, 2, 17), 0.5, np.float16),
        "valid": {0.5: 2, None: True},
    }
    bare = {
        "frame_dir": "c",
        "label": 2,
        "total_frames": None,
        "img_shape": None,
        "keypoint": np.tile([[0, 0], [-1, -1], [0.5, 0.25]] * 5 + [[1, 1]] * 2, (3, 1, 1, 1)),
        "keypoint_score": None,
    }
    deep = {"frame_dir": "b", "label": np.int64(1), "keypoint": np.ones((1, 1, 25, 3), "f4")}
    split = {"xsub_train": ["S001C001P001R001A001"], "xsub_val": ["b"]}
    seeds = [
        pickle.dumps({"split": split, "annotations": [clip]}, protocol)
        for clip in (flat, deep, bare)
        for protocol in (2, 4, 5)
    ]
    grouped = {
        "frame_inds": np.int16([3, 3, 5]),
        "img_shape": (9, 9),
        "keypoint": np.ones((3, 17, 3)),
    }
    seeds += [pickle.dumps(content, 4) for content in (grouped, [bare])]
    path = folder / "clips.pkl"

    def read(data: bytes) -> Outcome:
        path.unlink(missing_ok=True)  # the previous one is still memory-mapped
        path.write_bytes(data)
        read_annotations.cache_clear()
        source = Pyskl(path)
        if not read_annotations(path).protocols:
            poses = source.poses(find_single(path)[1])
            yield Recording("one", 0, *poses), source
            return
        for item in source.catalogue().items:
            yield source.read(item), source

    return Target(seeds, read)


def ctrgcn(folder: Path) -> Target:
    x, y = RNG.normal(0, 1, (1, 2, 150)).astype(np.float32), np.eye(3)[:1]
    members = {f"{name}_{part}.npy": _npy(array) for part in ("train", "test")
               for name, array in (("x", x), ("y", y))}  # fmt: skip
    path = folder / "clips.npz"

    def read(data: bytes) -> Outcome:
        path.write_bytes(data)
        _open.cache_clear()
        source = CtrGcn(path)
        for item in source.catalogue().items:
            yield source.read(item), source

    def wrap(data: bytes, random: Random) -> bytes:
        """Return an archive as it is, and put anything else into one as an array."""
        if data.startswith(b"PK"):
            return data
        name = "x_train.npy" if data in seeds else random.choice(list(members))
        return _zipped({**members, name: data}, zipfile.ZIP_STORED)

    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    seeds = [*(_zipped(members, method) for method in methods), members["x_train.npy"]]
    return Target(seeds, read, wrap)


def npy(folder: Path) -> Target:
    """Clips of a manifest as `.npy`; NumPy's reader is the reference."""
    arrays = (np.ones((2, 3, 3), "f4"), np.ones((1, 2, 3, 3), ">f8"), np.ones((2, 3, 3), "i2"))
    seeds = [_npy(array) for array in (*arrays, np.asfortranarray(arrays[0]))]
    target = _clip(folder, "one.npy", seeds)

    def read(data: bytes) -> Outcome:
        try:
            array = read_npy(data, "file")
        except InputError:
            pass
        else:
            expected = np.load(io.BytesIO(data), allow_pickle=False)
            if array.dtype != expected.dtype or array.tobytes() != expected.tobytes():
                raise WrongAcceptanceError(f"{array.dtype} {array.shape}, NumPy: {expected.dtype}")
        return target.read(data)

    return Target(seeds, read)


def npz(folder: Path) -> Target:
    """Clips of a manifest as `.npz`."""
    data = _npy(np.ones((2, 3, 3), "f4"))
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    seeds = [_zipped({"poses.npy": data}, method) for method in methods]
    target = _clip(folder, "one.npz", [*seeds, data])
    return Target(target.seeds, target.read, lambda changed, random: (
        changed if changed.startswith(b"PK") else _zipped({"a.npy": changed}, methods[0])
    ))  # fmt: skip


def clip_json(folder: Path) -> Target:
    """Clips of a manifest as `.json`."""
    lists = RNG.normal(0, 1, (2, 3, 3)).round(2).tolist()
    contents = (lists, {"poses": [lists], "rate": 30}, [[[1, None, 2], [1, 2, 3], [4, 5, 6]]])
    return _clip(folder, "one.json", [json.dumps(content).encode() for content in contents])


def keypoints(folder: Path) -> Target:
    """A clip as pose estimators write it, in one file."""
    (folder / "clips.csv").write_text("path,label,split\none.json,0,train\n")
    names = ("x", "y", "z", "visibility")
    points = [dict(zip(names, RNG.random(4).round(2).tolist(), strict=True)) for _ in range(3)]
    named = [{**point, "name": name} for point, name in zip(points, "abc", strict=True)]
    people = _openpose()
    results = [
        {"image_id": f"{n}.jpg", "category_id": 1, "keypoints": person[:51], "score": 0.5}
        for n, person in zip((1, 1, 4), people * 2, strict=False)
    ]
    clips = (
        [{"keypoints": points}, {"keypoints": []}, {"keypoints": [*points[:2], None]}],
        [{"keypoints": named}, None, named],
        [[{"keypoints": points}, {"keypoints": points}], []],
        results,
    )

    def read(data: bytes) -> Outcome:
        (folder / "one.json").write_bytes(data)
        manifest._find_layout.cache_clear()
        source = Manifest(folder / "clips.csv", persons=2)
        yield source.read(folder / "one.json"), source

    return Target([json.dumps(clip).encode() for clip in clips], read)


def frames(folder: Path, *, as_lines: bool = False) -> Target:
    """A folder with a file a frame, or a file with a line a frame; each line is one."""
    name = "one.jsonl" if as_lines else "one"
    (folder / "clips.csv").write_text(f"path,label,split\n{name},0,train\n")
    people = [{"pose_keypoints_2d": person} for person in _openpose()]
    people[1] |= {"hand_left_keypoints_2d": [1, 2, 0.5] * 21}
    rows = RNG.normal(0, 1, (3, 3, 2)).round(2)
    clips: tuple[list[Any], ...] = (
        [{"people": people}, {"people": people[:1]}, {"people": []}],
        [{"people": people[1:]}],
        [rows[0].tolist(), None, rows[1:].tolist()],
        [row.ravel().tolist() for row in rows],
    )

    def read(data: bytes) -> Outcome:
        clip = folder / name
        if as_lines:
            clip.write_bytes(data)
        else:
            shutil.rmtree(clip, ignore_errors=True)
            clip.mkdir()
            for number, line in enumerate(data.split(b"\n")[:20]):
                (clip / f"{number}.json").write_bytes(line)
        manifest._find_layout.cache_clear()
        channels = () if b"_2d" in data else ("x", "y")
        source = Manifest(folder / "clips.csv", persons=2, channels=channels)
        yield source.read(clip), source

    return Target(["\n".join(map(json.dumps, clip)).encode() for clip in clips], read)


def class_folder(folder: Path) -> Target:
    """Clips in folders named after classes, in an archive."""
    path = folder / "own.zip"
    clip = _npy(RNG.normal(0, 1, (2, 3, 2)))
    frame = _npy(RNG.normal(0, 1, (3, 2)))
    names = ("wave/s1.npy", "wave/s2/0.npy", "wave/s2/2.npy", "run/p1_s1.npy")
    members = {name: clip if name.count("/") == 1 else frame for name in names}
    parts = {f"{part}/{name}": members[name] for part in ("train", "val") for name in names[:3]}

    def read(data: bytes) -> Outcome:
        path.unlink(missing_ok=True)  # archives are cached by modification time
        path.write_bytes(data)
        read_folder.cache_clear()
        manifest._find_layout.cache_clear()
        subjects = () if read_folder(path).table.protocols else (1,)
        source = Folder(path, persons=2, test_subjects=subjects)
        for item in source.catalogue().items:
            yield source.read(item), source

    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    return Target(
        [_zipped(files, method) for files in (members, parts) for method in methods], read
    )


def clip_csv(folder: Path) -> Target:
    """Clips of a manifest as `.csv`."""
    header = ",".join(f"{joint}_{axis}" for joint in ("joint_0", "joint_1", "joint_2")
                      for axis in "xyz")  # fmt: skip
    row = "0.5,1,-2,3e0,,1,2,3,4"
    texts = (
        f"{header}\n{row}\n{row}\n",
        f"frame,person,{header}\n3,7,{row}\n3,8,{row}\n5,7,{row}\n".replace("\n", "\r\n"),
        f"{row}\n{row}\n",
        f"{header}\n{row}\n".replace(",", ";"),
    )
    return _clip(folder, "one.csv", [text.encode() for text in texts])


def clip_text(folder: Path) -> Target:
    """Clips of a manifest as `.txt`, after a column that is left out."""
    row = "0.5 1 -2 3e0 nan 1 2 3 4"
    texts = (
        f"7 {row}\n8 {row}\n",
        f"0.1 \t{row}\r\n0.2  {row}\r\n",
        f"time;{';'.join(f'joint_{n // 3}_{axis}' for n, axis in enumerate('xyz' * 3))}\n1;"
        + row.replace(" ", ";"),
    )
    clips = folder / "clips.csv"
    clips.write_text("path,label,split\none.txt,0,train\n")
    source = Manifest(clips, _joints(folder), text_format=TextFormat(skip_columns=1))
    return _one_file(source, folder / "one.txt", [text.encode() for text in texts])


def mat(folder: Path) -> Target:
    """Clips of a manifest as `.mat`."""
    array = RNG.normal(0, 1, (2, 3, 3))
    variable = _mat_matrix(b"poses", array)
    packed = zlib.compress(variable)
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    seeds = [header + variable, header + _mat_matrix(b"d_skel", array.transpose(1, 2, 0))]
    seeds.append(header + struct.pack("<II", 15, len(packed)) + packed)
    target = _clip(folder, "one.mat", seeds)

    def wrap(data: bytes, random: Random) -> bytes:
        """Compress one in three files, so that changes pass the checksum."""
        if random.random() > 0.3:
            return data
        packed = zlib.compress(data[128:])
        return header + struct.pack("<II", 15, len(packed)) + packed

    return Target(target.seeds, target.read, wrap)


def _mat_matrix(name: bytes, array: Any) -> bytes:
    parts = [
        (6, struct.pack("<II", 6, 0)),
        (5, struct.pack(f"<{array.ndim}i", *array.shape)),
        (1, name),
        (9, array.astype("<f8").tobytes(order="F")),
    ]
    body = b"".join(
        struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8) for kind, data in parts
    )
    return struct.pack("<II", 14, len(body)) + body


def penn_action(folder: Path) -> Target:
    """Clips of Penn Action."""
    target = mat(folder)

    def read(data: bytes) -> Outcome:
        (folder / "0001.mat").write_bytes(data)
        source = PennAction(folder)
        yield Recording("0001", 0, *source.poses(folder / "0001.mat")), source

    marks = np.ones((2, 13))
    names = {b"x": 100 * marks, b"y": 50 * marks, b"visibility": marks}
    parts = {**names, b"dimensions": np.array([[240.0, 320.0, 2.0]])}
    header = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    seed = header + b"".join(_mat_matrix(name, array) for name, array in parts.items())
    return Target([seed], read, target.wrap)


def msrc12(folder: Path) -> Target:
    """A recording of MSRC-12, after its file of tags and a line."""
    row = " ".join(["0.5 1 2 1"] * 20)
    rows = "\n".join(f"{1_000_000 + 33_000 * number} {row}" for number in range(3))
    tags = "XQPCTick;Tag\n49875000;G12 Kick\n51000000;G2  Duck\n"
    path = folder / "P1_1_12A_p19.csv"

    def read(data: bytes) -> Outcome:
        first, _, second = data.partition(b"\n\n")
        path.with_suffix(".tagstream").write_bytes(first)
        path.write_bytes(second)
        _read_frames.cache_clear()
        source = Msrc12(folder)
        for item in source.catalogue().items:
            yield source.read(item), source

    return Target([f"{tags}\n{rows}\n".encode()], read)


def channels(folder: Path) -> Target:
    """A clip whose numbers have no names."""
    table = folder / "clips.csv"
    table.write_text("path,label,split\none.json,0,train\n")
    pixels, metres = RNG.uniform(0, 640, (2, 3, 2)), RNG.normal(0, 1, (2, 3, 3))
    scores = RNG.uniform(0.1, 1, (2, 3, 1))
    clips = (pixels, metres, np.dstack([pixels, scores]), np.dstack([metres, scores]))

    def read(data: bytes) -> Outcome:
        (folder / "one.json").write_bytes(data)
        manifest._find_layout.cache_clear()
        source = Manifest(table, persons=2)
        yield source.read(folder / "one.json"), source

    return Target([json.dumps(clip.round(2).tolist()).encode() for clip in clips], read)


def frame(folder: Path) -> Target:
    """One line of a stream of frames."""
    one, other = RNG.normal(0, 1, (2, 3, 3)).round(2).tolist()
    contents = (one, [one, other], {"poses": [one], "time": 3}, [[1, None, 2], *one[1:]], None, [])
    clips = folder / "clips.csv"
    clips.write_text("path,label,split\none.json,0,train\n")
    source = Manifest(clips, _joints(folder), persons=2)

    def read(data: bytes) -> Outcome:
        line = data.decode("utf-8", "replace")
        persons = parse_frame(line, "line 1", Expected(source.layout, source.max_persons)).persons
        poses, present = to_poses(persons[:, None], source.layout.channels)
        if present.any():
            yield Recording("one", 0, poses, present), source

    return Target([json.dumps(content).encode() for content in contents], read)


def table(folder: Path) -> Target:
    """The table of a manifest."""
    np.save(folder / "a.npy", np.ones((2, 3, 3)))
    path = folder / "changed.csv"
    texts = (
        "path,label,subject,split\na.npy,1,3,train\n",
        "path;label;name;camera;split_a;split_b\na.npy;run;x;;test;\nb.npy;go;y;7;;train\n",
        "path,label,split,start,end\na.npy,1,train,,1\na.npy,0,test,1,2\n",
        "path,label,split,end_s,width,height\na.npy,1,train,0.05,640,480\n",
    )

    def read(data: bytes) -> Outcome:
        path.write_bytes(data)
        read_manifest.cache_clear()
        source = Manifest(path, _joints(folder), persons=2, frame_rate=20)
        (item, *_) = source.catalogue().items
        yield source.read(item), source

    return Target([text.encode() for text in texts], read)


def joints(folder: Path) -> Target:
    """The file that names joints."""
    path = folder / "joints.json"
    content = {"joints": ["a", "b"], "bones": [["a", "b"]], "center": 0, "picture": [640, 480]}
    seeds = [json.dumps(content).encode(), b'{"joints": ["a"], "channels": ["x", "y"]}']

    def read(data: bytes) -> Outcome:
        path.write_bytes(data)
        skeleton = read_skeleton(path)
        count = len(skeleton.joints)
        if any(not 0 <= joint < count for bone in skeleton.bones for joint in bone):
            raise WrongAcceptanceError(f"bones {skeleton.bones} of {count} joints")
        return iter(())

    return Target(seeds, read)


def _openpose() -> list[list[float]]:
    """Return two persons of BODY_25."""
    persons = np.dstack([RNG.uniform(0, 640, (2, 25, 2)), RNG.uniform(0, 1, (2, 25, 1))])
    return [person.ravel().round(2).tolist() for person in persons]


def _joints(folder: Path) -> Path:
    path = folder / "three.json"
    names = ["joint_0", "joint_1", "joint_2"]
    path.write_text(json.dumps({"joints": names, "channels": ["x", "y", "z"]}))
    return path


def _clip(folder: Path, name: str, seeds: list[bytes]) -> Target:
    clips = folder / "clips.csv"
    clips.write_text(f"path,label,split\n{name},0,train\n")
    return _one_file(Manifest(clips, _joints(folder), persons=2), folder / name, seeds)


def _one_file(source: Source, item: Path, seeds: list[bytes]) -> Target:
    def read(data: bytes) -> Outcome:
        item.write_bytes(data)
        yield source.read(item), source

    return Target(seeds, read)


def _npy(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def _zipped(members: dict[str, bytes], method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


TARGETS: dict[str, Callable[[Path], Target]] = {
    "ntu": ntu,
    "archive": archive,
    "kinetics": kinetics,
    "nw-ucla": nw_ucla,
    "pyskl": pyskl,
    "ctrgcn": ctrgcn,
    "npy": npy,
    "npz": npz,
    "json": clip_json,
    "csv": clip_csv,
    "text": clip_text,
    "mat": mat,
    "penn-action": penn_action,
    "msrc12": msrc12,
    "keypoints": keypoints,
    "frames": frames,
    "jsonl": partial(frames, as_lines=True),
    "folder": class_folder,
    "channels": channels,
    "frame": frame,
    "table": table,
    "joints": joints,
}
