"""The compiled kernels, executed by an emulator: right numbers, no races, nothing out of bounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from ptx.program import parse

from skelnas.primitives import SPACES

if find_spec("triton") is None:  # an import here would settle for test_triton.py how kernels run
    pytest.skip("needs triton", allow_module_level=True)

HERE = Path(__file__).parent

TOLERANCE = 3.0
"""Largest error, relative to that of the reference in float32; both against float64."""

SEPARABLE = ("none", "skip_connect", "se_connect", "max_pool_3x3", "avg_pool_3x3", "sep_conv_3x3")
DENSE = ("skip_connect", "conv_3x3", "dil_conv_3x3")


def run(module: str, argument: Any) -> subprocess.CompletedProcess[str]:
    """Run a module in a process whose kernels are not interpreted."""
    paths = [str(HERE), str(HERE.parents[1] / "benchmarks"), *filter(None, sys.path)]
    environment = {"PYTHONPATH": os.pathsep.join(paths), "TRITON_INTERPRET": "0"}
    return subprocess.run(
        [sys.executable, "-m", module, json.dumps(argument)],
        env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip


def emulate(*cells: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run cells in the emulator; see `ptx.__main__.compare`."""
    done = run("ptx", cells)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_right(*cells: Mapping[str, Any]) -> None:
    for cell, outcome in zip(cells, emulate(*cells), strict=True):
        assert outcome["error"] <= TOLERANCE * max(outcome["rounding"], 1e-6), (cell, outcome)
        assert not outcome["races"], (cell, outcome)


def test_two_cells() -> None:
    assert_right(
        {"shape": (1, 16, 3, 4), "primitives": SEPARABLE},
        {"shape": (2, 12, 3, 5), "primitives": DENSE, "reduction": True, "nodes": 2},
    )


def test_products_on_tensor_cores() -> None:
    cell = {"shape": (1, 16, 3, 4), "primitives": ("conv_3x3",), "products": "tf32x3"}
    assert_right(cell | {"capability": (8, 0)}, cell | {"capability": (9, 0)})


def test_a_launch_up_to_where_cuda_begins() -> None:
    cell = {"primitives": ("skip_connect", "conv_3x3"), "width": 12}
    done = run("ptx.driver", cell)
    assert done.returncode == 0, done.stderr
    once, twice = ["combine"], ["node_gradient", "matrix_gradients"]
    twice += ["convolve_and_pool, stage 1", "finish_statistics", "sum_products"]
    expected = dict.fromkeys(once, 1) | dict.fromkeys([*twice, "finish_gradients, stage 2"], 2)
    found = {f"{name}, 12 channels": count for name, count in expected.items()}
    assert json.loads(done.stdout) == found

    done = run("ptx.driver", cell | {"shared": 1000})
    assert done.returncode == 1
    assert done.stderr.startswith("OutOfResources: out of resource: shared memory"), done.stderr
    assert done.stderr.count("\n") == 1


def test_missing_barriers_are_found() -> None:
    cell = {"shape": (1, 16, 3, 4), "primitives": ("conv_3x3",), "barriers": False}
    (outcome,) = emulate(cell)
    assert any("read after write" in race for race in outcome["races"])


def test_loads_are_joined_as_by_ptxas() -> None:
    """Four aligned words are one load, two are one; a barrier or an odd word stands alone."""
    loads = [f"ld.shared.b32 %r{number}, [%r9+{number * 4}];" for number in (1, 0, 3, 2, 4, 5, 7)]
    body = "\n".join([*loads, "bar.sync 0;", "ld.shared.b32 %r6, [%r9+24];", "ret;"])
    program = parse(f".entry f(\n)\n.reqntid 32\n{{\n{body}\n$L__func_end0:\n}}")
    assert [each.joint for each in program.instructions] == [16, 0, 0, 0, 8, 0, *[None] * 4]


@pytest.mark.slow
@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize("reduction", [False, True])
def test_the_papers_cells(width: int, reduction: bool) -> None:
    """One clip without squeeze-and-excitation: the mean of its normalised values is rounding."""
    cell = {"reduction": reduction, "nodes": 2, "frozen": True}
    assert_right(
        {"shape": (1, width, 9, 7), "primitives": SPACES["sar-no-se"], **cell},
        {"shape": (3, width, 9, 7), "primitives": SPACES["sar"], **cell},
    )


@pytest.mark.slow
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
@pytest.mark.parametrize("reduction", [False, True])
def test_the_papers_cells_on_tensor_cores(capability: tuple[int, int], reduction: bool) -> None:
    cell = {"reduction": reduction, "frozen": True, "capability": capability}
    sizes = ((16, 2), (32, 1), (64, 1)) if capability == (9, 0) else ((16, 2),)
    assert_right(
        *(
            {"shape": (3, width, 9, 7), "primitives": SPACES["sar"], "nodes": nodes, **cell}
            | {"products": "tf32x3"}
            for width, nodes in sizes
        )
    )


@pytest.mark.slow
def test_the_operations_of_darts() -> None:
    ops = ("none", "skip_connect", "sep_conv_5x5", "dil_conv_5x5", "max_pool_3x3")
    assert_right(
        {"shape": (2, 16, 9, 11), "primitives": ops, "nodes": 3, "frozen": True},
        {"shape": (2, 32, 9, 11), "primitives": ops, "reduction": True, "frozen": True},
    )


FEW = {"channel_scales", "scales_backward", "finish_statistics", "finish_gradients"}
"""Kernels that only finish sums: their programs are few and short."""


@pytest.mark.slow
@pytest.mark.parametrize("width", [16, 32, 64])
def test_no_kernel_waits_for_banks_or_leaves_the_gpu_empty(tmp_path: Path, width: int) -> None:
    command = [sys.executable, HERE.parents[1] / "benchmarks/kernel_model.py"]
    subprocess.run(
        [*command, "--width", str(width), "--out", tmp_path / "model.json"],
        env=os.environ | {"TRITON_INTERPRET": "0"}, capture_output=True, check=True,
    )  # fmt: skip
    for row in json.loads((tmp_path / "model.json").read_text())["kernels"]:
        assert row["wavefronts"] <= 2.5 * row["least_wavefronts"], row
        assert row["registers"] <= 255, row
        assert row["spilled"] <= 16, row
        if row["kernel"].split(",")[0] not in FEW:
            assert row["fewest_programs"] >= 132, row
