"""Break folders: change the content of their files, or put something else in their places."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import safetensors.numpy
from json_changes import change_json
from mutations import mutate

from skelnas.runtime.files import CHECKSUM

Folder = Mapping[str, bytes]
"""The files of a folder: name to content."""

FIFO, LOOP, DEVICE, SUBFOLDER, MISSING, NOWHERE = range(6)
SPECIAL = (FIFO, LOOP, DEVICE, SUBFOLDER, MISSING, MISSING, NOWHERE)
"""What may be in the place of a file: a pipe, a link to itself, to a device or to nothing, ..."""

DTYPES = ("<f4", "<f8", "<f2", "<i8", "<i4", "|u1", "|b1", "<c8", "<U4", "|S3", "|O")
SHAPES = ((), (0,), (1,), (3,), (1, 1), (2, 3), (4, 0, 7), (10**6,), (10**12,), (2**62, 8))
NAMES = ("", "x", "sums", "model/x", "optimizer", "a/b/c", "é", "logits", "..", "average/x/y")


def change(
    seeds: Sequence[Folder], random: Random, names: Sequence[str]
) -> tuple[dict[str, bytes | int], set[str], set[str]]:
    """Break one of some folders.

    Args:
        seeds: valid folders.
        random: everything depends on it.
        names: of the files to change.

    Returns:
        The files, of which some may be one of `SPECIAL`; the names of those whose bytes were
        damaged; and of those that were changed otherwise.
    """
    seed = random.choice(seeds)
    files: dict[str, bytes | int] = dict(seed)
    damaged, changed = set(), set()
    for _ in range(random.choice((1, 1, 1, 2))):
        name = random.choice([name for name in names if name in seed] or list(seed))
        content = files[name]
        kind = random.random()
        if kind < 0.03 or isinstance(content, int):
            files[name] = random.choice(SPECIAL)
            changed.add(name)
        elif kind < 0.45 or content != seed[name]:
            files[name] = _damage(content, random)
            damaged.add(name)
        else:
            files[name] = rebuild(name, content, random)
            changed.add(name)
    return files, damaged, changed


def write(folder: Path, files: Mapping[str, bytes | int]) -> None:
    """Write a folder; everything else in it is removed."""
    folder.mkdir(parents=True, exist_ok=True)
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            Path(entry).unlink()
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content == FIFO:
            os.mkfifo(path)
        elif content == SUBFOLDER:
            path.mkdir()
        elif content != MISSING:
            path.symlink_to({LOOP: path, DEVICE: "/dev/zero", NOWHERE: "/nowhere"}[content])


def _damage(content: bytes, random: Random) -> bytes:
    if random.random() < 0.5:
        data = bytearray(content or b"\0")
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)
        return bytes(data)
    return mutate([content], random)


def rebuild(name: str, content: bytes, random: Random) -> bytes:
    """Return a file of another content, with all checksums removed."""
    if name.endswith(".safetensors"):
        return _rebuild_tensors(content, random)
    if name.endswith(".npz"):
        return _rebuild_archive(content, random)
    if name.endswith(".jsonl"):
        return _rebuild_lines(content, random)
    if name.endswith(".json"):
        return change_json(without_checksum(json.loads(content)), random).encode(
            "utf-8", "surrogatepass"
        )
    return mutate([content], random)


def _rebuild_lines(content: bytes, random: Random) -> bytes:
    lines = [without_checksum(json.loads(line)) for line in content.splitlines()]
    texts = [json.dumps(line) for line in lines]
    index = random.randrange(len(texts))
    kind = random.random()
    if kind < 0.7:
        texts[index] = change_json(lines[index], random)
    elif kind < 0.8:
        texts.insert(index, random.choice(texts))
    elif kind < 0.9:
        del texts[index]
    else:
        random.shuffle(texts)
    return "".join(f"{text}\n" for text in texts).encode("utf-8", "surrogatepass")


def without_checksum(document: Any) -> Any:
    """Return a JSON object as 0.1.0 wrote it."""
    return {key: value for key, value in document.items() if key != CHECKSUM}


def _rebuild_tensors(content: bytes, random: Random) -> bytes:
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    (key,) = metadata
    facts = without_checksum(json.loads(metadata[key]))
    text = json.dumps(facts)
    if random.random() < 0.6:
        text = change_json(facts, random)
    tensors = safetensors.numpy.load(content)
    if random.random() < 0.5 and tensors:
        _change_arrays(tensors, random, is_archive=False)
    if random.random() < 0.05:
        key = random.choice(("format", "skelnas", "place", "skelnas-scores"))
    data = safetensors.numpy.save(
        {name: np.ascontiguousarray(array) for name, array in tensors.items()},
        {key: text.encode("utf-8", "replace").decode()},
    )
    if random.random() < 0.3:
        data = _change_header(data, random)
    return data


def _change_header(data: bytes, random: Random) -> bytes:
    """Change the JSON that names the tensors; it has no checksum of its own."""
    size = int.from_bytes(data[:8], "little")
    header = change_json(json.loads(data[8 : 8 + size]), random)
    encoded = header.encode("utf-8", "surrogatepass")
    return len(encoded).to_bytes(8, "little") + encoded + data[8 + size :]


def _rebuild_archive(content: bytes, random: Random) -> bytes:
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    _change_arrays(arrays, random, is_archive=True)
    members = {f"{name}.npy": _npy(array, random) for name, array in arrays.items()}
    result = io.BytesIO()
    method = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(result, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return result.getvalue()


def _npy(array: Any, random: Random) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    data = file.getvalue()
    if random.random() < 0.05:  # a header that does not fit
        shape = random.choice(("(1000000000000,)", "(0,)", "(-1,)", "(3,", f"({2**63 - 1},)"))
        begin, end = data.find(b"'shape': ") + 9, data.find(b"}")
        data = data[:begin] + shape.encode().ljust(end - begin, b" ") + data[end:]
    return data


def _change_arrays(arrays: dict[str, Any], random: Random, *, is_archive: bool) -> None:
    for _ in range(random.choice((1, 1, 2))):
        name = random.choice(list(arrays) or ["x"])
        array = arrays.get(name, np.zeros(3))
        kind = random.randrange(6)
        if kind == 0:
            arrays.pop(name, None)
        elif kind == 1:
            arrays[random.choice(NAMES)] = arrays.pop(name, array)
        elif kind == 2:
            shape = random.choice([shape for shape in SHAPES if np.prod(shape, dtype=float) < 1e7])
            dtype = random.choice(DTYPES if is_archive else DTYPES[:7])
            arrays[name] = np.zeros(shape, dtype)
        elif kind == 3 and array.dtype.kind != "O":
            with np.errstate(all="ignore"):
                if array.dtype.kind in "fiub":
                    arrays[name] = array.astype(random.choice(DTYPES[:7]))
        elif kind == 4:
            arrays[name] = np.tile(array, random.choice((2, 1000 if array.size < 100 else 2)))
        elif array.dtype.kind in "fi" and array.size:
            changed = array.copy()
            value = random.choice((np.nan, np.inf, -1e30, 0, -1, 7, 2**40))
            with np.errstate(all="ignore"):
                changed.reshape(-1)[random.randrange(array.size)] = np.array(value).astype(
                    array.dtype
                )
            arrays[name] = changed
