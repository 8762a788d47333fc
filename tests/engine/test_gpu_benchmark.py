"""The one command for a GPU: it loses nothing when it is cut, and continues where it stopped."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from skelnas.cli import app

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module("gpu")


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("triton")
    if not torch.cuda.is_available():  # as in test_triton.py: an import settles how kernels run
        monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module("gpu_kernels")


def outcomes(folder: Path) -> dict[str, str]:
    records = json.loads((folder / "parts.json").read_text())
    return {name: record["outcome"] for name, record in records.items()}


def test_a_second_run_continues_with_what_did_not_end_well(gpu: Any, tmp_path: Path) -> None:
    count = "import sys; open(sys.argv[1], 'a').write('x'); sys.exit(int(sys.argv[2]))"

    def part(name: str, code: int) -> Any:
        return gpu.Part(name, [sys.executable, "-c", count, str(tmp_path / name), str(code)], 20)

    slow = gpu.Part("slow", [sys.executable, "-c", "import time; time.sleep(60)"], 1)
    absent = gpu.Part("absent", ["no-such-program"], 1)
    gpu.run_parts([part("good", 0), part("bad", 3), slow, absent], tmp_path, 60)
    assert outcomes(tmp_path) == {
        "good": "done",
        "bad": "exit code 3",
        "slow": "stopped after 1 s",
        "absent": "no-such-program is not installed",
    }
    gpu.run_parts([part("good", 0), part("bad", 0)], tmp_path, 60)
    assert outcomes(tmp_path)["bad"] == "done"
    assert (tmp_path / "good").read_text() == "x"
    assert (tmp_path / "bad").read_text() == "xx"
    gpu.run_parts([part("late", 0), part("bad", 0)], tmp_path, 0)
    assert outcomes(tmp_path)["late"] == "no time left"
    assert outcomes(tmp_path)["bad"] == "done"
    assert not (tmp_path / "late").exists()


def test_parts_that_were_not_reached_come_before_those_that_failed(
    gpu: Any, tmp_path: Path
) -> None:
    note = "import sys; open(sys.argv[1], 'a').write(sys.argv[2]); print('said'); sys.exit(1)"

    def part(name: str) -> Any:
        return gpu.Part(name, [sys.executable, "-c", note, str(tmp_path / "order"), name], 20)

    gpu.run_parts([part("a")], tmp_path, 60)
    gpu.run_parts([part("a"), part("b")], tmp_path, 0)
    assert outcomes(tmp_path) == {"a": "exit code 1", "b": "no time left"}
    gpu.run_parts([part("a"), part("b"), part("c")], tmp_path, 60)
    assert (tmp_path / "order").read_text() == "abca"
    assert (tmp_path / "c.txt").read_text() == "said\n"


def test_a_part_that_is_stopped_takes_its_children_with_it(gpu: Any, tmp_path: Path) -> None:
    beat = "import time\nwhile True: print('alive', flush=True); time.sleep(0.1)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {beat!r}])"
    log = tmp_path / "slow.txt"
    record = gpu.run_part(gpu.Part("slow", [sys.executable, "-c", parent], 5), 5, log)
    assert record["outcome"] == "stopped after 5 s"
    assert record["output"].startswith("alive\n")
    time.sleep(0.5)
    length = log.stat().st_size
    time.sleep(1)
    assert log.stat().st_size == length


def test_its_parts_are_all_there_and_the_most_valuable_first(gpu: Any, tmp_path: Path) -> None:
    names = [part.name for part in gpu.parts(tmp_path)]
    assert len(set(names)) == len(names)
    assert names[:4] == ["check", "tests", "step, batch 8", "profile"]
    assert {"graph replay", "sanitizer, memory", "sanitizer, races", "step, batch 64"} < {*names}
    assert {"sweep", "epoch", "training", "latency", "export"} < {*names}
    assert {f"{kind}, batch {n}" for kind in ("compiled", "max-autotune") for n in (8, 64)} < {
        *names
    }


@pytest.mark.usefixtures("kernels")
def test_its_commands_have_options_that_exist(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Parsed(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser) -> None:
        parse(parser)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    for part in gpu.parts(tmp_path):
        if part.command[1].endswith(".py"):  # it refuses unknown options
            module = import_module(Path(part.command[1]).stem)
            monkeypatch.setattr(sys, "argv", part.command[1:])
            with pytest.raises(Parsed):
                module.main()
        if "skelnas" in part.command:
            verb, *arguments = part.command[part.command.index("skelnas") + 1 :]
            names = [verb, *arguments[:1]] if verb == "prepare" else [verb]
            text = CliRunner().invoke(app, [*names, "--help"], env={"COLUMNS": "200"}).output
            assert all(each in text for each in arguments if each.startswith("--")), part


def test_without_a_gpu_it_says_so(gpu: Any, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("CUDA is there")
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (1, "no CUDA device")
    assert not (tmp_path / "out").exists()


def test_what_a_profiler_sees_is_joined_with_what_was_launched(kernels: Any) -> None:
    launched = [("combine", 16), ("sum, stage 1", 16), ("sum, stage 2", 32), ("combine", 16)]
    events = [("combine", 1.0), ("gemm", 9.0), ("sum", 2.0), ("sum", 3.0), ("combine", 4.0)]
    found = kernels.join(launched, events)
    assert found == {
        ("combine", 16): [1.0, 4.0],
        (kernels.OTHERS, None): [9.0],
        ("sum, stage 1", 16): [2.0],
        ("sum, stage 2", 32): [3.0],
    }
    with pytest.raises(ValueError, match="sum ran where combine was launched"):
        kernels.join(launched, events[2:])
    with pytest.raises(ValueError, match="combine was launched and did not run"):
        kernels.join(launched, events[:-1])

    rows = kernels.summarise([found, found | {("combine", 16): [7.0]}], {("combine", 16): 0.5})
    assert [row["kernel"] for row in rows] == [
        kernels.OTHERS, "combine", "sum, stage 2", "sum, stage 1"
    ]  # fmt: skip
    assert rows[1] == {
        "kernel": "combine", "channels": 16, "launches": 1, "seconds": 6.0,
        "p20_p50_p80": [5.4, 6.0, 6.6], "modelled": 0.5,
    }  # fmt: skip


class Here:
    """Runs at once what a pool of processes would."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    map = staticmethod(map)


def test_a_sweep_continues_where_it_stopped(
    kernels: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    timed: list[Any] = []
    stops = [5, 1000]

    def seconds(size: Any) -> float:
        return abs(size.pixels - 32) + size.light / 100 + size.stages

    def time_cell(width: int, size: Any, batch: int) -> dict[str, float]:
        if len(timed) == stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt
        timed.append((width, size))
        return {"seconds": seconds(size)}

    def compile_cell(each: Any) -> dict[str, str]:
        return {"error": "OutOfResources: too much"} if each[1].product_warps == 2 else {}

    table = kernels.blocks.BLOCKS[9, 0]
    monkeypatch.setattr(kernels.blocks, "choose", lambda channels, device: table[channels])
    monkeypatch.setattr(kernels, "ProcessPoolExecutor", Here)
    monkeypatch.setattr(kernels, "compile_cell", compile_cell)
    monkeypatch.setattr(kernels, "time_cell", time_cell)
    monkeypatch.setattr(kernels, "about", lambda device: {})
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: (9, 0))
    args = argparse.Namespace(batch=8, out=tmp_path / "sweep.json")
    with pytest.raises(KeyboardInterrupt):
        kernels.sweep(args)
    assert timed[:3] == [(width, table[width]) for width in (16, 32, 64)]
    first = json.loads(args.out.read_text())["rows"]
    assert sum("seconds" in row for row in first) == 5

    rows = kernels.sweep(args)
    tried = {width: kernels.sizes(width, table[width]) for width in (16, 32, 64)}
    assert len(rows) == sum(map(len, tried.values()))
    assert len(timed) == len(set(timed)) == sum("seconds" in row for row in rows)
    fastest = {
        width: min((size for size in some if size.product_warps != 2), key=seconds)
        for width, some in tried.items()
    }
    line = capsys.readouterr().out.splitlines()[-1]
    in_table = eval(f"{{{line}}}", {"Blocks": kernels.Blocks})
    assert {width: seconds(size) for width, size in in_table[9, 0].items()} == {
        width: seconds(size) for width, size in fastest.items()
    }
