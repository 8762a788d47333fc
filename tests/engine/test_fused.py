"""The fused engine against the reference: outputs and every gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from skelnas.engine import ENGINES, fused, reference
from skelnas.engine.fused import mixed_cell
from skelnas.models.ops import make_edge_op
from skelnas.models.stack import CellSpec
from skelnas.primitives import PRIMITIVES, SPACES

OPS = [op for op in PRIMITIVES if op != "none"]


@dataclass
class Case:
    """A mixed cell with random inputs, op weights and weights."""

    inputs: tuple[Tensor, Tensor]
    op_weights: Tensor
    primitives: Sequence[str]
    weights: list[list[tuple[Tensor, ...]]]
    reduction: bool

    @property
    def leaves(self) -> list[Tensor]:
        weights = [tensor for edge in self.weights for op in edge for tensor in op]
        return [*self.inputs, self.op_weights, *weights]

    def run(self, engine: str) -> Tensor:
        return ENGINES[engine](
            self.inputs, self.op_weights, self.primitives, self.weights, self.reduction
        )

    def gradients(
        self, engine: str, leaves: Sequence[Tensor], upstream: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        out = self.run(engine)
        if upstream is None:
            generator = torch.Generator().manual_seed(7)
            upstream = torch.randn(out.shape, generator=generator, dtype=torch.float64)
        gradients = torch.autograd.grad(
            out, leaves, upstream.to(out.dtype), allow_unused=True, materialize_grads=True
        )
        return out, list(gradients)


def make_case(
    primitives: Sequence[str],
    shape: tuple[int, int, int, int],
    reduction: bool,
    nodes: int = 2,
    dtype: torch.dtype = torch.float64,
    persons: int = 1,
) -> Case:
    torch.manual_seed(0)
    channels, joints = shape[1], -(-shape[3] // persons)
    spec = CellSpec((channels, channels), channels, reduction, False, joints)
    sources = [source for node in range(nodes) for source in range(2 + node)]
    edges = [
        {op: make_edge_op(op, spec, source, searching=True) for op in primitives}
        for source in sources
    ]
    weights = [
        [
            tuple(p.detach().to(dtype).requires_grad_() for p in op.parameters())
            for op in edge.values()
        ]
        for edge in edges
    ]
    first, last = (torch.randn(shape, dtype=dtype).requires_grad_() for _ in range(2))
    op_weights = torch.randn(len(edges), len(primitives), dtype=dtype).softmax(1).requires_grad_()
    return Case((first, last), op_weights, primitives, weights, reduction)


def assert_same(case: Case, upstream: Tensor | None = None) -> None:
    expected, expected_gradients = case.gradients("reference", case.leaves, upstream)
    actual, actual_gradients = case.gradients("fused", case.leaves, upstream)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    for one, other in zip(actual_gradients, expected_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize("shape", [(2, 4, 7, 13), (3, 2, 8, 6), (2, 3, 5, 1)])
def test_a_single_operation(op: str, reduction: bool, shape: tuple[int, int, int, int]) -> None:
    assert_same(make_case(("none", op), shape, reduction))


@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize("width", [13, 14, 10])
def test_joints_of_two_persons(reduction: bool, width: int) -> None:
    """Of 7 and 6 joints, as after a reduction of 13 each; of 7 each; of 5 each, then 3 and 2."""
    assert_same(make_case(("none", "joint_conv"), (1, 8, 5, width), reduction, persons=2))


@pytest.mark.parametrize("space", list(SPACES))
@pytest.mark.parametrize("reduction", [False, True])
def test_every_space_with_four_nodes(space: str, reduction: bool) -> None:
    assert_same(make_case(SPACES[space], (2, 4, 9, 6), reduction, nodes=4))


@pytest.mark.parametrize("reduction", [False, True])
def test_one_clip(reduction: bool) -> None:
    """Without squeeze-and-excitation: the mean of one clip's normalised values is only rounding."""
    assert_same(make_case(SPACES["sar-no-se"], (1, 4, 8, 7), reduction))


def test_one_node() -> None:
    assert_same(make_case(SPACES["sar"], (2, 4, 6, 5), reduction=True, nodes=1))


@pytest.mark.parametrize("alone", range(len(SPACES["sar"])))
def test_op_weights_of_zero_and_one(alone: int) -> None:
    case = make_case(SPACES["sar"], (2, 4, 6, 5), reduction=False)
    with torch.no_grad():
        case.op_weights.zero_()
        case.op_weights[:, alone] = 1
    assert_same(case)


def test_max_pool_ties_route_their_gradient_as_in_the_reference() -> None:
    case = make_case(("max_pool_3x3", "conv_3x3"), (2, 4, 8, 8), reduction=False)
    with torch.no_grad():
        for image in case.inputs:
            image[..., 4:] = 0.25
    assert_same(case)


def test_frozen_weights_do_not_change_the_gradients_of_op_weights() -> None:
    case = make_case(SPACES["sar"], (2, 4, 9, 6), reduction=True, nodes=3)
    _, (expected,) = case.gradients("fused", [case.op_weights])
    for tensor in case.leaves:
        tensor.requires_grad_(tensor is case.op_weights)
    _, (actual,) = case.gradients("fused", [case.op_weights])
    assert torch.equal(actual, expected)


def test_float32_is_as_close_to_float64_as_the_reference_is() -> None:
    shape = (4, 8, 20, 11)
    exact = make_case(SPACES["sar"], shape, reduction=False, nodes=4)
    coarse = make_case(SPACES["sar"], shape, reduction=False, nodes=4, dtype=torch.float32)
    with torch.no_grad():
        for rounded, true in zip(coarse.leaves, exact.leaves, strict=True):
            true.copy_(rounded)

    truth, gradients = exact.gradients("reference", exact.leaves)

    def distance(engine: str) -> tuple[float, float]:
        out, coarse_gradients = coarse.gradients(engine, coarse.leaves)
        errors = [
            (a - b).norm() / b.norm() for a, b in zip(coarse_gradients, gradients, strict=True)
        ]
        return ((out - truth).norm() / truth.norm()).item(), torch.stack(errors).mean().item()

    for fused_one, reference_one in zip(distance("fused"), distance("reference"), strict=True):
        assert fused_one < 2 * reference_one
        assert fused_one < 1e-5


def test_the_memory_format_does_not_matter() -> None:
    case = make_case(SPACES["sar"], (2, 4, 9, 6), reduction=False)
    last = [x.to(memory_format=torch.channels_last) for x in case.inputs]
    out = fused.cell((last[0], last[1]), case.op_weights, case.primitives, case.weights, False)
    assert torch.equal(out, case.run("fused"))


@pytest.mark.parametrize("clips", [1, 2])
def test_the_memory_order_of_the_upstream_gradient_does_not_matter(clips: int) -> None:
    case = make_case(SPACES["sar-no-se"], (clips, 4, 5, 6), reduction=False, nodes=3)
    torch.manual_seed(7)
    assert_same(case, torch.randn(clips, 12, 1, 1, dtype=torch.float64).expand(clips, 12, 5, 6))
    assert_same(case, torch.randn(12, 6, 5, clips, dtype=torch.float64).permute(3, 0, 2, 1))


class Dispatched(TorchDispatchMode):
    """Notes the operations that PyTorch dispatches."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("engine", ["reference", "fused"])
@pytest.mark.parametrize("reduction", [False, True])
def test_nothing_passes_between_host_and_device(engine: str, reduction: bool) -> None:
    """Otherwise a CUDA graph cannot record the cell."""
    case = make_case(list(PRIMITIVES), (2, 4, 5, 6), reduction)
    with Dispatched() as dispatched:
        case.gradients(engine, case.leaves, torch.ones(2, 8, *([3, 3] if reduction else [5, 6])))
    assert "convolution_backward" in dispatched.names
    copying = {"index", "index_put", "index_put_", "lift_fresh", "nonzero", "_local_scalar_dense"}
    assert not copying & dispatched.names


def test_arguments_are_not_changed() -> None:
    case = make_case(SPACES["sar"], (2, 4, 9, 6), reduction=True)
    before = [tensor.detach().clone() for tensor in case.leaves]
    case.gradients("fused", case.leaves)
    assert all(torch.equal(a, b) for a, b in zip(case.leaves, before, strict=True))


def test_backward_can_be_repeated() -> None:
    case = make_case(SPACES["sar"], (2, 4, 9, 6), reduction=True)
    loss = case.run("fused").square().sum()
    once = torch.autograd.grad(loss, case.leaves, retain_graph=True)
    twice = torch.autograd.grad(loss, case.leaves)
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


def test_a_second_derivative_is_refused() -> None:
    case = make_case(("none", "conv_3x3"), (2, 4, 6, 5), reduction=False)
    (gradient,) = torch.autograd.grad(
        case.run("fused").square().sum(), case.op_weights, create_graph=True
    )
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


def test_saved_memory_is_less_than_half_of_the_references() -> None:
    def saved_bytes(engine: str) -> int:
        storages: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            out = case.run(engine)
        assert out.requires_grad
        return sum(storages.values())

    case = make_case(SPACES["sar"], (2, 8, 24, 20), reduction=False, nodes=4)
    assert saved_bytes("fused") < saved_bytes("reference") / 2


def test_every_operation_of_the_reference_has_a_fused_form() -> None:
    assert {*mixed_cell.OPERATIONS, *mixed_cell.CONNECTIONS} == set(reference.OPS)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("reduction", [False, True])
def test_an_operation_without_a_fused_form_falls_back_to_the_reference(
    monkeypatch: pytest.MonkeyPatch, op: str, reduction: bool
) -> None:
    monkeypatch.delitem(mixed_cell.OPERATIONS, op, raising=False)
    monkeypatch.setattr(mixed_cell, "CONNECTIONS", ())
    other = next(other for other in OPS if other != op)
    case = make_case(("none", op, other), (2, 4, 7, 5), reduction, nodes=3)
    assert_same(case)
    _, (expected,) = case.gradients("fused", [case.op_weights])
    for tensor in case.leaves:
        tensor.requires_grad_(tensor is case.op_weights)
    _, (frozen,) = case.gradients("fused", [case.op_weights])
    assert torch.equal(frozen, expected)
