"""The kernels against the reference: in Triton's interpreter on a CPU, natively on a GPU."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from skelnas.config import Precision, SearchSettings
from skelnas.engine import ENGINES, reference, triton
from skelnas.engine.choice import why_not_triton
from skelnas.errors import UsageError
from skelnas.nas.supernet import choose_engine, demands
from skelnas.primitives import SPACES
from skelnas.runtime import devices

NATIVE = torch.cuda.is_available()
"""If not, kernels are interpreted; this is fixed for the process when they are imported."""

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

with pytest.MonkeyPatch.context() as patch:
    if not NATIVE:
        patch.setenv("TRITON_INTERPRET", "1")
    # interpreters before 3.9 do not know NumPy 2.4
    pytest.importorskip("triton", minversion=None if NATIVE else "3.9")
    from skelnas.engine.triton import blocks, check, layout, mixed_cell

    patch.syspath_prepend(BENCHMARKS)
    import ahead_of_time

pytestmark = [pytest.mark.cuda] if NATIVE else []

DEVICE = torch.device("cuda" if NATIVE else "cpu")
DTYPE = torch.float32 if NATIVE else torch.float64
Run = Callable[..., Tensor]


@pytest.fixture(autouse=True)
def _interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    if not NATIVE:
        monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture(autouse=True)
def _unwritten_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill new memory with NaN, so that reading it before it is written shows."""

    def filling(make: Run) -> Run:
        def filled(*args: Any, **named: Any) -> Tensor:
            tensor = make(*args, **named)
            return tensor.fill_(float("nan") if tensor.is_floating_point() else 99)

        return filled

    monkeypatch.setattr(torch, "empty_like", filling(torch.empty_like))
    monkeypatch.setattr(Tensor, "new_empty", filling(Tensor.new_empty))


def make(
    primitives: Sequence[str], shape: tuple[int, ...], reduction: bool, nodes: int
) -> check.Cell:
    return check.make_cell(primitives, shape, reduction, nodes, DEVICE, DTYPE)


def contiguous(out: Tensor) -> Tensor:
    return torch.linspace(-9, 9, out.numel(), device=DEVICE, dtype=DTYPE).sin().view_as(out)


def expanded(out: Tensor) -> Tensor:
    """Return one value a channel, as the gradient of a sum over pixels."""
    return contiguous(out[:, :, :1, :1]).expand_as(out)


def permuted(out: Tensor) -> Tensor:
    """Return values whose clips, not channels, are next to one another."""
    return contiguous(out.permute(1, 3, 2, 0)).permute(3, 0, 2, 1)  # [C, V, T, N] -> [N, C, T, V]


def results(
    cell: check.Cell, run: Run, leaves: Sequence[Tensor], upstream_of: Run = contiguous
) -> list[Tensor]:
    out = run(cell.inputs, cell.op_weights, cell.primitives, cell.weights, cell.reduction)
    upstream = upstream_of(out)
    found = torch.autograd.grad(out, leaves, upstream, allow_unused=True, materialize_grads=True)
    return [out.detach(), *found]


def assert_same(cell: check.Cell, upstream_of: Run = contiguous) -> None:
    expected = results(cell, reference.cell, cell.leaves, upstream_of)
    actual = results(cell, mixed_cell.evaluate, cell.leaves, upstream_of)
    for one, other in zip(actual, expected, strict=True):
        if NATIVE:  # float32: a part of the whole
            assert (one - other).norm() <= 1e-4 * other.norm().clamp_min(1e-6)
        else:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reduction", [pytest.param(False, marks=pytest.mark.slow), True])
def test_the_papers_cell_in_several_tiles(monkeypatch: pytest.MonkeyPatch, reduction: bool) -> None:
    monkeypatch.setattr(blocks, "INTERPRETED", blocks.Blocks(16, 16, 99, 1, 1, 4, sums=32))
    assert_same(make(SPACES["sar"], (2, 3, 9, 5) if reduction else (2, 3, 3, 6), reduction, 2))


def test_the_operations_of_darts() -> None:
    assert_same(make(SPACES["darts"], (2, 2, 4, 5), reduction=True, nodes=1))


def test_one_clip_without_squeeze_and_excitation() -> None:
    assert_same(make(SPACES["sar-no-se"], (1, 4, 5, 4), reduction=True, nodes=1))


def test_three_nodes_and_operations_in_another_order() -> None:
    ops = ("se_connect", "dil_conv_3x3", "none", "max_pool_3x3")
    assert_same(make(ops, (2, 2, 3, 2), reduction=False, nodes=3))


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("upstream_of", [contiguous, expanded, permuted])
def test_gradients_for_any_memory_order_of_the_upstream_gradient(
    upstream_of: Run, clips: int
) -> None:
    cell = make(("skip_connect", "avg_pool_3x3"), (clips, 2, 3, 2), reduction=False, nodes=3)
    assert_same(cell, upstream_of)


def test_inputs_in_any_memory_order() -> None:
    cell = make(("skip_connect", "conv_3x3"), (1, 2, 3, 2), reduction=False, nodes=2)
    first, second = cell.inputs
    strided = permuted(first.detach()).requires_grad_()
    repeated = second.detach()[:, :, :1].expand_as(second).requires_grad_()
    assert_same(cell._replace(inputs=(strided, repeated)))


def test_a_kernel_is_refused_a_tensor_that_it_would_misread() -> None:
    cell = make(("skip_connect",), (1, 2, 3, 2), reduction=False, nodes=1)
    plan = layout.make_layout(("skip_connect",), 2, 2, 1, False)
    rows = [image.detach().permute(0, 2, 3, 1) for image in cell.inputs]  # [N, C, T, V] strides
    with pytest.raises(ValueError, match="x0 of combine has the strides"):
        mixed_cell._forward(plan, rows, cell.op_weights.detach(), cell.op_weights.new_zeros(0))


def test_pools_alone() -> None:
    assert_same(make(("avg_pool_3x3", "none"), (2, 2, 4, 1), reduction=True, nodes=1))


def test_max_pool_ties_route_their_gradient_as_in_the_reference() -> None:
    cell = make(("max_pool_3x3", "avg_pool_3x3"), (1, 2, 4, 6), reduction=False, nodes=1)
    with torch.no_grad():
        for image in cell.inputs:
            image[..., 3:] = 0.25
    assert_same(cell)


def test_frozen_weights_do_not_change_the_gradients_of_op_weights() -> None:
    cell = make(("conv_3x3", "sep_conv_3x3"), (1, 2, 2, 3), reduction=False, nodes=1)
    _, expected = results(cell, mixed_cell.evaluate, [cell.op_weights])
    for tensor in cell.leaves:
        tensor.requires_grad_(tensor is cell.op_weights)
    _, actual = results(cell, mixed_cell.evaluate, [cell.op_weights])
    assert torch.equal(actual, expected)


def test_gradients_of_inputs_that_nobody_wants_are_not_computed() -> None:
    space = ("skip_connect", "sep_conv_3x3")
    lengths = [
        len(
            ahead_of_time.launches_of(
                space, (2, 16, 8, 6), False, (9, 0), 2, grad_weights=False, grad_inputs=inputs
            )[1]
        )
        for inputs in ((True, True), (False, True), (False, False))
    ]
    of_stages = 5  # three kernels of the stages, their sums, the node
    assert lengths == [lengths[0], lengths[0] - of_stages, lengths[0] - 2 * of_stages]
    cell = make(space, (1, 2, 2, 3), reduction=False, nodes=2)
    for weight in cell.leaves[3:]:
        weight.requires_grad_(False)
    leaves = [cell.inputs[1], cell.op_weights]
    _, *expected = results(cell, mixed_cell.evaluate, leaves)
    cell.inputs[0].requires_grad_(False)
    _, *actual = results(cell, mixed_cell.evaluate, leaves)
    assert all(map(torch.equal, actual, expected))


def test_statistics_survive_a_mean_far_from_zero_in_float32() -> None:
    cell = check.make_cell(("conv_3x3",), (2, 2, 4, 5), False, 1, DEVICE, torch.float32)
    images = [
        image.detach().add(300).permute(0, 2, 3, 1).contiguous()  # [N, C, T, V] -> [N, T, V, C]
        for image in cell.inputs
    ]
    plan = layout.make_layout(("conv_3x3",), 2, 2, 1, False)
    packed = plan.pack(cell.weights, cell.op_weights).detach()
    saved = mixed_cell._forward(plan, images, cell.op_weights.detach(), packed)
    for edge, image in enumerate(images):
        raw = reference.convolve(
            image.permute(0, 3, 1, 2).double(), cell.weights[edge][0][0].double()
        )
        mean, rstd = raw.mean((0, 2, 3)), raw.var((0, 2, 3), correction=0).add(1e-5).rsqrt()
        torch.testing.assert_close(saved.norms[edge, 0].double(), mean, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(saved.norms[edge, 1].double(), rstd, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("precision", "products", "rounding", "for_weights"),
    [
        ("fp32", None, "ieee", "ieee"),
        ("fp32", "tf32x3", "tf32x3", "ieee"),
        ("tf32", None, "tf32", "tf32"),
    ],
)
def test_products_have_the_precision_of_the_search(
    precision: Precision, products: str | None, rounding: str, for_weights: str
) -> None:
    with devices.precision(precision):
        forward, backward = ahead_of_time.launches_of(
            SPACES["sar"], (2, 16, 8, 6), False, (9, 0), products=products
        )
    found = {
        (launch.name == "matrix_gradients", launch.arguments["PRECISION"])
        for launch in forward + backward
        if "PRECISION" in launch.arguments
    }
    assert found == {(False, rounding), (True, for_weights)}
    assert (len(forward), len(backward)) == (29, 55)


def test_a_second_derivative_is_refused() -> None:
    cell = make(("none", "skip_connect"), (1, 2, 2, 2), reduction=False, nodes=1)
    out = mixed_cell.evaluate(cell.inputs, cell.op_weights, cell.primitives, cell.weights, False)
    (once,) = torch.autograd.grad(out.square().sum(), cell.op_weights, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        once.sum().backward()


CHECKED = triton.Cells(("skip_connect",), (2, 3), num_nodes=1)


@pytest.fixture
def _small_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "SIZE", (2, 4, 3))


@pytest.mark.usefixtures("_small_check")
@pytest.mark.parametrize(("width", "reduction"), [(2, False), (3, True)])
def test_the_check_of_a_device_finds_an_error_in_any_cell(
    monkeypatch: pytest.MonkeyPatch, width: int, reduction: bool
) -> None:
    right = mixed_cell.evaluate

    def wrong_once(inputs: tuple[Tensor, Tensor], *args: Any) -> Tensor:
        is_wrong = inputs[0].shape[1] == width and args[-1] == reduction
        return (1.01 if is_wrong else 1) * right(inputs, *args)

    assert check.largest_error(DEVICE, CHECKED) < triton.TOLERANCES[False]
    monkeypatch.setattr(check, "evaluate", wrong_once)
    assert check.largest_error(DEVICE, CHECKED) > triton.TOLERANCES[False]


@pytest.mark.usefixtures("_small_check")
def test_the_check_covers_every_precision_of_the_search(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    precisions = set()
    new_setting = mixed_cell._setting

    def noted(*args: Any) -> Any:
        setting = new_setting(*args)
        precisions.add(setting.precision)
        return setting

    monkeypatch.setattr(mixed_cell, "_setting", noted)
    for tf32, expected in ((False, {"ieee"}), (True, {"ieee", "tf32"})):
        with devices.precision("fp32"):
            command = ["check", str(DEVICE), json.dumps(CHECKED), json.dumps(tf32)]
            monkeypatch.setattr(sys, "argv", command)
            check.main()
        assert precisions == expected
        assert len(json.loads(capsys.readouterr().out)) == 1 + tf32


def test_what_triton_cannot_compile_is_the_reason() -> None:
    from triton.compiler.errors import CompilationError

    source = "def kernel():\n    inner()\n"
    (line,) = ast.parse(source).body
    failure = CompilationError(source, line, None)  # the reason is in the function called
    failure.__cause__ = CompilationError(source, line, "Shape element 0 must be a power of 2")
    failure.__cause__.__cause__ = ValueError("Shape element 0")
    assert check.reason(failure) == "CompilationError: Shape element 0 must be a power of 2"


def test_a_failure_of_the_check_in_another_process_is_the_reason() -> None:
    reason = triton.checked(DEVICE, CHECKED._replace(primitives=("unknown",)), tf32=False)
    assert reason == "its kernels fail here: KeyError: 'unknown'"


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ("a line\n[[false, 1e-5], [true, 1e-2]]", ""),
        ("[[false, 1e-2], [true, 1e-2]]", "its kernels compute something else here: an error of"),
        ("[[false, 1e-5], [true, NaN]]", "its kernels compute something else here: an error of"),
        (subprocess.TimeoutExpired("check", 900), "its kernels did not finish a check in 900"),
    ],
)
def test_the_check_of_a_device_is_judged_by_its_errors(
    monkeypatch: pytest.MonkeyPatch, outcome: str | Exception, reason: str
) -> None:
    def run(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
        if isinstance(outcome, Exception):
            raise outcome
        return subprocess.CompletedProcess([], 0, outcome, "")

    monkeypatch.setattr(subprocess, "run", run)
    found = triton.checked(DEVICE, CHECKED, tf32=True)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


@pytest.mark.skipif(NATIVE, reason="CUDA is there")
def test_without_cuda_the_fused_engine_is_used_and_triton_is_refused() -> None:
    cell = make(("conv_3x3",), (1, 2, 4, 3), reduction=False, nodes=1)
    args = cell.inputs, cell.op_weights, cell.primitives, cell.weights, False
    assert torch.equal(ENGINES["triton"](*args), ENGINES["fused"](*args))
    assert choose_engine(SearchSettings()).name == "fused"
    with pytest.raises(UsageError, match="triton cannot be used: its kernels need CUDA, not cpu"):
        choose_engine(SearchSettings(engine="triton"))


@pytest.mark.skipif(not NATIVE, reason="needs a CUDA device")
def test_with_cuda_the_engine_is_used() -> None:
    assert why_not_triton(demands(SearchSettings())) == ""
    assert choose_engine(SearchSettings()).name == "triton"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": "none,conv_7x1_1x7,conv_3x3"}, "there is no kernel for conv_7x1_1x7"),
        ({"space": "sar-joint"}, "there is no kernel for joint_conv, tconv_9x1"),
        ({"channels": 32}, "cells of 128 channels are too wide, 64 is the most"),
        ({"hessian": "exact"}, "triton cannot be differentiated twice"),
    ],
)
def test_the_reason_why_triton_is_unavailable_is_printed(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        choose_engine(SearchSettings(engine="triton").model_copy(update=changes))


KERNELS = {
    "convolve_and_pool",
    "finish_statistics",
    "channel_scales",
    "combine",
    "pool",
    "sum_products",
    "finish_gradients",
    "scales_backward",
    "pointwise_backward",
    "depthwise_backward",
    "node_gradient",
    "matrix_gradients",
    "depthwise_gradients",
}

ALWAYS = ((16, "9.0"),)
"""Widths and GPUs that are always compiled; the others take minutes."""


@pytest.mark.parametrize(
    ("width", "capability"),
    [
        pytest.param(*each, marks=[] if each in ALWAYS else [pytest.mark.slow])
        for each in product((16, 32, 64), ("8.0", "8.6", "8.9", "9.0"))
    ],
)
def test_compiled_kernels_fit_the_gpu(tmp_path: Path, width: int, capability: str) -> None:
    command = [
        sys.executable,
        BENCHMARKS / "kernel_report.py",
        "--width",
        str(width),
        "--capability",
        capability,
    ]
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert {row["kernel"] for row in found["kernels"]} == KERNELS
    assert found["launches"]["forward"] <= 2 * 29
    assert found["launches"]["backward with weights"] <= 2 * 55
    for row in found["kernels"]:
        assert row["spilled"] <= 16, row
        assert row["shared"] <= 64 * 1024, row  # (8, 6) and (8, 9) have 99 KiB
        assert 0 < row["registers"] <= 255, row
