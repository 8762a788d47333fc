"""Break caches: changes of their bytes, and of their HDF5 structure."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np
from mutations import mutate

from skelnas.data.cache import CacheWriter, Storage
from skelnas.data.readers.base import Layout, Recording

LAYOUT = Layout(("hip", "head", "手"), ((1, 0), (2, 0)), center_joint=0, frame_rate=30.0)

REFUSALS = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError)
"""What h5py raises when a change does not fit the entry that it meets."""

SHAPES = ((), (0,), (1,), (4,), (3, 2), (10**6,), (10**12,), (2**40, 3, 3), (1, 1, 1, 1))
DTYPES = ("i1", "<i4", ">i4", "<i8", "u4", "f2", "<f4", ">f4", "f8", "?", "S3", "V5", "c8", "i4,f4")
NUMBERS = (0, -1, 1, 2, 65, 2**31 - 1, -(2**31), 2**62)
TEXTS = ("", "wave", "\x1b[31m", "a\nb", "x" * 70_000, "[" * 5000, '{"a": NaN}', "{}", "1e999", "é")
VALUES: tuple[Any, ...] = (
    *(np.inf, -np.inf, np.nan, -1, 0, 2**63 - 1, 1.5, True, b"\xff\xfe", h5py.Empty("i4")),
    *(np.zeros(3), np.zeros(7000), *TEXTS),
)


def make_seeds(folder: Path) -> list[Path]:
    """Write valid caches; the last has no checksums, so that changes get further."""
    rng = np.random.default_rng(0)
    seeds = []
    for float16, compress in ((False, False), (False, True), (True, True), (False, False)):
        path = folder / f"seed-{len(seeds)}.h5"
        with CacheWriter(
            path,
            source="fake",
            rule={"threshold": 0.5},
            layout=LAYOUT,
            max_persons=2,
            storage=Storage(float16, compress),
        ) as writer:
            for index in range(4):
                present = np.ones((1 + index % 2, 5 + index), np.bool_)
                poses = rng.normal(0, 1, (*present.shape, 3, 3)).astype(np.float32)
                writer.add(Recording(f"clip-{index}", index % 3, poses, present, index))
            splits = {"xsub": np.array([0, 1, 0, 1], np.int8), "few": np.zeros(4, np.int8)}
            writer.finish(classes=["wave", "jump", "跳"], splits=splits, failed=[("a", "b")])
        seeds.append(path)
    with h5py.File(seeds[-1], "a") as file:
        del file["clips/crc32"]
        for item in (file, *_datasets(file)):
            item.attrs.pop("crc32", None)
    return seeds


def make_input(seeds: list[Path], random: Random, path: Path) -> tuple[Path, bool]:
    """Write a broken cache.

    Returns:
        The seed, and whether the broken cache must be refused.
    """
    seed = random.choice(seeds)
    if random.random() < 0.5:
        others = seeds[-1:] if seed == seeds[-1] else seeds[:-1]
        path.write_bytes(_change_bytes([file.read_bytes() for file in others], seed, random))
        return seed, False
    seed = seeds[-1]
    shutil.copyfile(seed, path)
    with h5py.File(path, "a") as file:
        must_refuse = False
        for _ in range(random.choice((1, 2))):
            # where a change does not fit, nothing is changed
            with suppress(*REFUSALS):
                must_refuse = random.choice(_CHANGES)(file, random)
            if must_refuse:  # another change might follow a link, and change a seed
                break
    return seed, must_refuse


def _change_bytes(contents: list[bytes], seed: Path, random: Random) -> bytes:
    if random.random() < 0.3:
        return mutate(contents, random)
    data = bytearray(seed.read_bytes())
    used = [index for index, byte in enumerate(data) if byte]  # the rest is mostly unused
    for _ in range(random.choice((1, 1, 1, 2, 8))):
        index = random.choice(used) + random.choice((0, 0, 0, 1, 2, 4))
        value = random.choice((1 << random.randrange(8), random.randrange(1, 256), 255))
        data[index % len(data)] ^= value
    return bytes(data)


def _datasets(file: h5py.File) -> list[h5py.Dataset]:
    found: list[h5py.Dataset] = []

    def add(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(item)

    file.visititems(add)
    return found


def _choose(file: h5py.File, random: Random) -> str:
    names = ["classes", "poses", "present", "splits", "clips", "layout", "failed", "splits/xsub"]
    names += ["clips/name", "clips/label", "clips/start", "clips/num_frames", "clips/num_persons"]
    names += ["layout/joints", "layout/bones", "layout/channels", "failed/file", "failed/reason"]
    return random.choice([name for name in names if name in file] or ["new"])


def _remove(file: h5py.File, random: Random) -> str:
    name = _choose(file, random)
    if name in file:
        del file[name]
    return name


def _delete(file: h5py.File, random: Random) -> bool:
    return not _remove(file, random).startswith(("splits/", "new"))


def _retype(file: h5py.File, random: Random) -> bool:
    """Replace a dataset by one of any type and shape, of which nothing may be written."""
    name = _remove(file, random)
    shape = random.choice(SHAPES)
    options: dict[str, Any] = {"dtype": random.choice(DTYPES), "shape": shape}
    size = np.prod(shape, dtype=float)
    if size > 1:
        stores = ({"chunks": True}, {"chunks": True, "compression": "gzip"}, {})
        options |= random.choice(stores[:2] if size > 10**6 else stores)
    if size < 100 and random.random() < 0.5:
        options["data"] = np.zeros(shape, options["dtype"])
    file.create_dataset(name, **options)
    return False


def _restring(file: h5py.File, random: Random) -> bool:
    name = _remove(file, random)
    texts = [random.choice(TEXTS).replace("\0", "") for _ in range(random.choice((1, 3, 4)))]
    file.create_dataset(name, data=texts, dtype=h5py.string_dtype())
    return False


def _link(file: h5py.File, random: Random) -> bool:
    name = _remove(file, random)
    targets = (h5py.SoftLink("/poses"), h5py.SoftLink("/" + name))
    targets += (h5py.ExternalLink("seed-0.h5", "/" + name), h5py.ExternalLink("/dev/zero", "/"))
    file[name] = random.choice(targets)
    return name != "new"


def _view(file: h5py.File, random: Random) -> bool:
    name = random.choice(("poses", "present", "clips/label", "splits/xsub", "layout/bones"))
    if name not in file or not isinstance(file[name], h5py.Dataset) or file[name].ndim == 0:
        return False
    shape, dtype = file[name].shape, file[name].dtype
    if np.prod(shape, dtype=float) > 10**6 or dtype.kind not in "iufb":
        return False
    del file[name]
    if random.random() < 0.5:
        file.create_dataset(name, shape, dtype, external=[("/dev/zero", 0, h5py.h5f.UNLIMITED)])
    else:
        layout = h5py.VirtualLayout(shape, dtype)
        layout[:] = h5py.VirtualSource("seed-0.h5", name, shape)
        file.create_virtual_dataset(name, layout)
    return True


def _move(file: h5py.File, random: Random) -> bool:
    """Put one entry in the place of another, or both names on one."""
    other = _choose(file, random)
    if other in file:
        item = file[other]
        name = _remove(file, random)
        file[name] = item
    return False


def _set_attribute(file: h5py.File, random: Random) -> bool:
    names = ("source", "rule", "max_persons", "skelnas_version", "schema_version", "format")
    owner, name = file, random.choice(names)
    if random.random() < 0.3 and isinstance(file.get("layout"), h5py.Group):
        owner, name = file["layout"], random.choice(("center_joint", "y_down", "frame_rate"))
    value = random.choice(VALUES)
    if isinstance(value, str) and len(value) > 60_000:
        value = value[:60_000]
    owner.attrs[name] = value
    return False


def _set_value(file: h5py.File, random: Random) -> bool:
    tables = [item for item in _datasets(file) if item.size and item.size < 10**6 and item.ndim]
    if not tables:
        return False
    table = random.choice(tables)
    index = tuple(random.randrange(size) for size in table.shape)
    if table.dtype.kind in "iu":
        limits = np.iinfo(table.dtype)
        table[index] = min(max(random.choice(NUMBERS), limits.min), limits.max)
    elif table.dtype.kind == "f":
        with np.errstate(over="ignore"):
            table[index] = np.array(random.choice((np.nan, np.inf, 1e30, 0))).astype(table.dtype)
    elif h5py.check_string_dtype(table.dtype):
        table[index] = random.choice(TEXTS)
    return False


def _resize(file: h5py.File, random: Random) -> bool:
    for name in ("poses", "present"):
        if name in file and isinstance(file[name], h5py.Dataset) and file[name].chunks:
            file[name].resize(random.choice((0, 1, 10**4, 10**7, 10**12)), axis=0)
    if "clips/num_frames" in file and file["clips/num_frames"].shape == (4,):
        file["clips/num_frames"][3] = random.choice((10**4, 10**7, 2**31 - 1))
    return False


def _filter(file: h5py.File, random: Random) -> bool:
    if not isinstance(file.get("poses"), h5py.Dataset) or file["poses"].size > 10**6:
        return False
    poses = file["poses"][()]
    if not poses.size:
        return False
    del file["poses"]
    options: tuple[dict[str, Any], ...] = ({"compression": "lzf"}, {"fletcher32": True})
    options += ({"scaleoffset": 3}, {"compression": "gzip"})
    file.create_dataset("poses", data=poses, chunks=poses.shape, **random.choice(options))
    return True


def _fill_group(file: h5py.File, random: Random) -> bool:
    name = random.choice(("", "splits", "clips", "layout"))
    group = file.get(f"/{name}")
    if not isinstance(group, h5py.Group):
        return False
    if random.random() < 0.5:
        for number in range(1100):
            group[f"extra-{number}"] = h5py.SoftLink("/poses")
    else:
        for _ in range(200):
            group = group.require_group("g")
    return name == "splits"


_CHANGES: tuple[Callable[[h5py.File, Random], bool], ...] = (
    *(_delete, _retype, _retype, _restring, _link, _view, _move, _set_attribute, _set_attribute),
    *(_set_value, _set_value, _resize, _filter, _fill_group),
)
