"""Run commands and read the files they write, to compare one version of skelnas with another."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import signal
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors import safe_open

from skelnas.__main__ import main

ON_CPU = "--device cpu --threads 1"

PREPARE = (
    "prepare manifest raw/clips.csv --joints raw/joints.json --persons 2 --test-subjects 4 --resume"
)
"""Prepare the cache; `--resume` keeps the journal when it is interrupted."""

RUNS = {
    "search": "search cache.h5 --config search.toml",
    "search-exact": "search cache.h5 --config search-exact.toml",
    "cells": "train cache.h5 --genotype genotype.json --config cells.toml",
    "branches": "train cache.h5 --genotype genotype.json --config branches.toml",
}
"""Commands that can be stopped and resumed, by the name of their folder."""

REPEATS = "search cache.h5 --repeats 1 --config search.toml --train-config short.toml"

BASELINES = ("hcn", "st-gcn", "temporal-conv")
TRAIN_BASELINE = "train cache.h5 --config baseline.toml"

EVALUATE = f"evaluate cache.h5 --json {ON_CPU}"

OUTPUTS = {
    "inspect": "inspect cache.h5 --verify --json",
    "inspect float16": "inspect float16.h5 --verify --json",
    "search settings": "search cache.h5 --out new --dry-run",
    "train settings": "train cache.h5 --genotype genotype.json --out new --dry-run",
    "paper settings": "train cache.h5 --genotype genotype.json --out new --dry-run --recipe paper",
    "evaluate cells": f"{EVALUATE} cells --views 2 --input-size 16x25",
    "evaluate held-out": f"{EVALUATE} cells --part held-out",
    "evaluate float16": f"{EVALUATE.replace('cache', 'float16')} cells",
    "evaluate branches": f"{EVALUATE} branches --compare scores.npz",
    "evaluate fused": f"{EVALUATE} fused.safetensors --compare scores.safetensors",
    "ensemble": "ensemble scores.npz scores.safetensors --weights 1,3 --json",
    "predict": f"predict cells raw/00.csv raw/23.csv --json {ON_CPU}",
    "derive early": "derive search --epoch 0 --keep 1 --max-skip 0",
    "derive by perturbation": "derive search-exact-stopped --select perturbation --cache cache.h5",
}
"""Commands that print JSON."""

VOLATILE = {"cache", "files_per_second", "megabytes", "seconds", "skelnas_version", "versions"}
"""Keys whose values depend on the machine, the moment or the versions of packages."""


def run(command: str, exit_code: int = 0) -> str:
    """Run a command of skelnas in this process; return what it prints on stdout."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    arguments, sys.argv = sys.argv, ["skelnas", *shlex.split(command)]
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as ending:
        code = ending.code or 0
    finally:
        sys.argv = arguments
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
    assert code == exit_code, f"skelnas {command}: exit code {code}\n{err.getvalue()}"
    return out.getvalue()


def read_output(command: str) -> list[Any]:
    """Run a command that prints JSON, or a JSON value per line."""
    text = run(command)
    try:
        return [json.loads(text)]
    except ValueError:
        return [json.loads(line) for line in text.splitlines()]


def read(path: Path) -> Any:
    """Read a file, or all files of a folder by name, into plain containers and arrays.

    A README or a picture, whose wording and drawing may change, is None.
    """
    if path.is_dir():
        return {file.name: read(file) for file in sorted(path.iterdir()) if file.name != ".lock"}
    readers = {
        ".json": lambda: _without_checksum(path.read_text()),
        ".jsonl": lambda: [_without_checksum(line) for line in path.read_text().splitlines()],
        ".safetensors": lambda: _read_safetensors(path),
        ".npz": lambda: _read_npz(path),
        ".h5": lambda: _read_hdf5(path),
    }
    reader = readers.get(path.suffix)
    return reader() if reader else None


def _without_checksum(text: str) -> Any:
    """Read JSON; the checksum of an object, which 0.1.0 did not write, is only checked to be one.

    Whether it is right is tested where it is read.
    """
    document = json.loads(text)
    if isinstance(document, dict) and "checksum" in document:
        assert re.fullmatch(r"[0-9a-f]{8}", document.pop("checksum"))
    return document


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as file:
        metadata = {key: _without_checksum(v) for key, v in (file.metadata() or {}).items()}
        return {
            "metadata": metadata,
            "tensors": {name: file.get_tensor(name) for name in file.keys()},  # noqa: SIM118
        }


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    if "facts" in arrays:  # of a journal: JSON as bytes
        arrays["facts"] = json.loads(arrays["facts"].tobytes())
    return arrays


def _read_hdf5(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        found[name] = {"attributes": {key: _plain(value) for key, value in item.attrs.items()}}
        if isinstance(item, h5py.Dataset):
            is_text = h5py.check_string_dtype(item.dtype) is not None
            found[name]["data"] = [text.decode() for text in item] if is_text else item[()]
            found[name]["compression"] = item.compression

    with h5py.File(path, "r") as file:
        add("/", file)
        file.visititems(add)
    return found


def _plain(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, np.generic) else value


def read_torchscript_metadata(path: Path) -> Any:
    """Read the metadata of an exported TorchScript file."""
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/skelnas.json")]
        return json.loads(archive.read(name))


def read_card_results(folder: Path) -> Any:
    """Read the results in a model card."""
    lines = (folder / "README.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("model-index: ")]
    return json.loads(line.removeprefix("model-index: "))


def compare(found: Any, expected: Any, where: str = "") -> None:
    """Check that what `read` returned is the same: names, types, shapes and numbers.

    Floats may differ by 1e-4: processors round differently, and trainings amplify that.

    Args:
        found, expected: values to compare.
        where: names of the value, for the message.
    """
    if isinstance(expected, np.ndarray):
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), where
        if expected.dtype.kind != "f":
            assert found.tobytes() == expected.tobytes(), where
        else:
            largest = np.abs(expected).max(initial=0)
            np.testing.assert_allclose(found, expected, 1e-4, 1e-4 * largest, err_msg=where)
        return
    assert type(found) is type(expected), f"{where}: {found!r}, expected {expected!r}"
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), f"{where}: {found.keys() ^ expected.keys()}"
        for key in expected.keys() - VOLATILE:
            compare(found[key], expected[key], f"{where}/{key}")
        for key in expected.keys() & VOLATILE:
            assert type(found[key]) is type(expected[key]), f"{where}/{key}"
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, pair in enumerate(zip(found, expected, strict=True)):
            compare(*pair, f"{where}[{index}]")
    elif isinstance(expected, float):
        np.testing.assert_allclose(found, expected, 1e-4, 1e-5, err_msg=where)
    else:
        assert found == expected, f"{where}: {found!r}, expected {expected!r}"


def list_files(folder: Path) -> list[str]:
    """List the files of a folder and of the folders in it."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return sorted(path.relative_to(folder).as_posix() for path in files)


def describe_tensors(path: Path) -> dict[str, Any]:
    """Return type and shape of each tensor of a safetensors file by name."""
    tensors = _read_safetensors(path)["tensors"]
    return {name: [str(array.dtype), *array.shape] for name, array in sorted(tensors.items())}


def make_tensors(description: dict[str, Any]) -> dict[str, np.ndarray[Any, Any]]:
    """Make up the weights of a network that is too large to store as a fixture."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, (dtype, *shape) in sorted(description.items()):
        values = rng.normal(0, 0.1, shape)
        if name.endswith("running_var"):
            values = 0.5 + np.abs(values)
        tensors[name] = np.asarray(values, dtype)
    return tensors


@contextmanager
def broken_clip() -> Iterator[None]:
    """Break the clip in the middle, so that `prepare --strict` stops there and leaves a journal."""
    path = Path("raw/12.csv")
    content = path.read_bytes()
    path.write_text("broken")
    yield
    path.write_bytes(content)
    set_raw_times(Path())


def set_raw_times(folder: Path) -> None:
    """Set the times of raw files to those in the journal, which detects changed files by them."""
    for path in (folder / "raw").iterdir():
        os.utime(path, ns=(0, 10**18))
