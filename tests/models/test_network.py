"""The derived network: published sizes, stacking, drop-path."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from skelnas.genotype import BUILT_IN, Edge, Genotype, random_genotype
from skelnas.models.complexity import measure
from skelnas.models.layers import Depthwise, Dilated
from skelnas.models.network import DropPath, Network
from skelnas.models.norm import JointNorm
from skelnas.models.ops import make_op
from skelnas.primitives import PRIMITIVES


@pytest.mark.parametrize(("name", "millions"), [("ntu_cs112se30", 1.319), ("ntu_cv112se30", 1.162)])
def test_released_genotypes_have_the_published_parameter_counts(name: str, millions: float) -> None:
    network = Network(BUILT_IN[name], in_channels=3, num_classes=60)
    complexity = measure(network, (3, 112, 50))
    assert round(complexity.parameters / 1e6, 3) == millions


def test_macs_at_the_real_input() -> None:
    network = Network(BUILT_IN["ntu_cs112se30"], in_channels=3, num_classes=60)
    complexity = measure(network, (3, 112, 50))
    assert round(complexity.macs / 1e9, 2) == 1.33
    assert complexity.flops == 2 * complexity.macs


def test_flops_of_table_2() -> None:
    """Table II of the paper to its last digit; multiply-adds alone are within 2 %."""
    table = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "table2.py"))
    for layers, paper in table["PAPER"].items():
        counts = table["count"](BUILT_IN["ntu_cv112se30"], layers, 36, (3, 224, 224))
        assert float(f"{counts['profiled'] / 1e9:.3g}") == paper
        assert counts["macs"] / 1e9 == pytest.approx(paper, rel=0.02)
        assert counts["macs"] < counts["profiled"]


def test_macs_of_one_convolution_and_one_linear_layer() -> None:
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, padding=1, stride=2, bias=False),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    )
    assert measure(model, (3, 8, 10)).macs == 4 * 5 * 8 * 3 * 9 + 8 * 5


def test_macs_are_counted_without_importing_the_compiler() -> None:
    script = (
        "import sys, torch\n"
        "from skelnas.models.complexity import measure\n"
        "assert measure(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1)), (3, 2, 2)).macs == 96\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_macs_are_counted_without_changing_the_network() -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 1), torch.nn.BatchNorm2d(8)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    measure(network, (3, 2, 2))
    assert network.training
    assert all(value.equal(before[name]) for name, value in network.state_dict().items())


def test_darts_v2_on_cifar_has_the_published_parameter_count() -> None:
    def cell(*edges: tuple[str, int]) -> tuple[tuple[Edge, ...], ...]:
        pairs = [Edge(*edge) for edge in edges]
        return tuple(tuple(pairs[i : i + 2]) for i in range(0, len(pairs), 2))

    sep, skip, pool = "sep_conv_3x3", "skip_connect", "max_pool_3x3"
    darts_v2 = Genotype(
        normal=cell(
            *[(sep, 0), (sep, 1), (sep, 0), (sep, 1), (sep, 1), (skip, 0), (skip, 0)],
            ("dil_conv_3x3", 2),
        ),
        reduction=cell(
            *[(pool, 0), (pool, 1), (skip, 2), (pool, 1), (pool, 0), (skip, 2), (skip, 2)],
            (pool, 1),
        ),
    )
    network = Network(darts_v2, in_channels=3, num_classes=10, channels=36, num_layers=20)
    assert round(measure(network, (3, 32, 32)).parameters / 1e6, 3) == 3.349


@pytest.mark.parametrize("op", [op for op in PRIMITIVES if op != "none"])
def test_every_operation_has_gradients_in_both_cells(op: str) -> None:
    cell = ((Edge(op, 0), Edge(op, 1)), (Edge(op, 2), Edge(op, 0)))
    shape = {"in_channels": 3, "num_classes": 4, "channels": 2, "num_layers": 3}
    network = Network(Genotype(cell, cell), **shape, joints=13)
    loss = network(torch.randn(3, 3, 9, 13)).square().mean()
    gradients = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("size", [(52, 20), (7, 13), (5, 1)])
def test_any_genotype_runs_at_any_size(seed: int, size: tuple[int, int]) -> None:
    network = Network(random_genotype(seed), in_channels=3, num_classes=4, channels=3, num_layers=5)
    logits = network(torch.randn(2, 3, *size))
    logits.sum().backward()
    assert logits.shape == (2, 4)
    assert all(p.grad is not None for p in network.parameters())


def test_genotype_with_a_large_kernel_of_every_kind() -> None:
    node = tuple(
        Edge(op, i % 2)
        for i, op in enumerate(("sep_conv_5x5", "sep_conv_7x7", "dil_conv_5x5", "conv_7x1_1x7"))
    )
    genotype = Genotype(normal=(node,), reduction=(node, node))
    network = Network(genotype, in_channels=2, num_classes=4, channels=4, num_layers=3)
    assert network(torch.randn(2, 2, 9, 7)).shape == (2, 4)


def drop_paths_of(network: Network) -> list[DropPath]:
    return [module for module in network.modules() if isinstance(module, DropPath)]


def test_drop_path_drops_whole_clips_and_keeps_the_mean() -> None:
    network = Network(random_genotype(0), in_channels=3, num_classes=4, channels=2, num_layers=3)
    draws = []
    for rank_slice in (slice(None), slice(1000, 4000)):
        network.draw_drop_paths(0.25, 4000, torch.Generator().manual_seed(0), rank_slice)
        draws.append([drop.factors for drop in drop_paths_of(network)])
    whole, part = draws
    for drop, factors in zip(drop_paths_of(network), part, strict=True):
        y = drop(torch.ones(3000, 2, 3, 3))
        assert torch.equal(y, factors[:, None, None, None].expand_as(y))
        assert torch.equal(drop.eval()(y), y)
        assert factors.unique().tolist() == [0.0, pytest.approx(4 / 3)]
        assert factors.mean().item() == pytest.approx(1, abs=0.05)
    assert all(torch.equal(a[1000:], b) for a, b in zip(whole, part, strict=True))
    assert not torch.equal(whole[0], whole[1])
    network.draw_drop_paths(0.0, 2, torch.Generator(), slice(None))
    assert all(drop.factors.tolist() == [1.0, 1.0] for drop in drop_paths_of(network))


def test_a_growing_drop_probability_compiles_the_network_once() -> None:
    network = Network(random_genotype(0), in_channels=3, num_classes=4, channels=2, num_layers=3)
    counter = CompileCounter()
    compiled = torch.compile(network, backend=counter)
    for chance in (0.0, 0.1, 0.2):
        network.draw_drop_paths(chance, 2, torch.Generator().manual_seed(0), slice(None))
        compiled(torch.randn(2, 3, 12, 9))
    assert counter.frame_count == 1


def test_skips_are_never_dropped() -> None:
    genotype = Genotype(
        normal=((Edge("skip_connect", 0), Edge("conv_3x3", 1)),),
        reduction=((Edge("skip_connect", 0), Edge("conv_3x3", 1)),),
    )
    network = Network(genotype, in_channels=3, num_classes=4, channels=4, num_layers=3)
    counts = [
        sum(isinstance(module, DropPath) for module in cell.modules()) for cell in network.cells
    ]
    assert counts == [1, 2, 2]  # only a skip that has weights, at stride 2, can be dropped


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [(7, 13), (8, 2), (1, 5)])
def test_a_dilated_convolution_equals_pytorchs(
    stride: int, kernel: int, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    conv = Dilated(3, kernel, stride).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    found, expected = conv(x), nn.Conv2d.forward(conv, x)
    torch.testing.assert_close(found, expected)
    g = torch.randn_like(expected)
    gradients = (torch.autograd.grad(y, (x, conv.weight), g) for y in (found, expected))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("op", ["sep_conv_3x3", "dil_conv_3x3"])
@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_gradients_in_bfloat16_are_close_to_float32(op: str, stride: int) -> None:
    torch.manual_seed(0)
    conv = make_op(op, 4, stride).train()
    x = torch.randn(3, 4, 9, 6)
    upstream = torch.randn(conv(x).shape)
    gradients = []
    for rounded in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            y = conv(x.bfloat16() if rounded else x)
        gradients.append(torch.autograd.grad(y.float(), list(conv.parameters()), upstream))
    for exact, found in zip(*gradients, strict=True):
        assert found.dtype == torch.float32
        assert (found - exact).norm() < 0.05 * exact.norm()


def test_a_depthwise_convolution_equals_pytorchs_without_autocast_too() -> None:
    torch.manual_seed(0)
    conv = Depthwise(3, 3, 2)
    x = torch.randn(2, 3, 7, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = conv(x)
    torch.testing.assert_close(found, nn.Conv2d.forward(conv, x), rtol=0, atol=0)


def test_input_norm_normalises_each_joint_separately() -> None:
    torch.manual_seed(0)
    norm = JointNorm(2, 3).double()
    x = torch.randn(4, 2, 5, 3, dtype=torch.float64) * torch.tensor([1e-2, 1, 50.0]) + 7
    y = norm(x)
    centred = x - x.mean((0, 2), keepdim=True)
    torch.testing.assert_close(y, centred / (centred.square().mean((0, 2), True) + 1e-5).sqrt())
    assert norm.eval()(x).shape == x.shape
    assert not list(norm.parameters())


def test_input_norm_adds_no_parameters() -> None:
    torch.manual_seed(0)
    shape = {"in_channels": 3, "num_classes": 4, "channels": 2, "num_layers": 3}
    network = Network(random_genotype(0), **shape, normalised_joints=5).double().train()
    plain = Network(random_genotype(0), **shape)
    assert network.state_dict().keys() - plain.state_dict().keys() == {
        f"input_norm.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")
    }
    x = torch.randn(4, 3, 7, 5, dtype=torch.float64)
    scales = torch.rand(1, 3, 1, 5, dtype=torch.float64) * 100 + 1
    torch.testing.assert_close(network(x), network(x * scales + 3), rtol=1e-4, atol=1e-4)
