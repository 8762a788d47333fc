"""The supernet: shapes, sharing of alphas, and no state between passes."""

from __future__ import annotations

import pytest
import torch

from skelnas.nas.supernet import Supernet
from skelnas.primitives import SPACES
from skelnas.runtime.memory import peak_memory


def make(space: str = "sar", **changes: int) -> Supernet:
    torch.manual_seed(0)
    settings = {"channels": 4, "num_layers": 6, "num_nodes": 4} | changes
    return Supernet(in_channels=3, num_classes=5, primitives=SPACES[space], **settings)


@pytest.mark.parametrize("space", list(SPACES))
@pytest.mark.parametrize("size", [(16, 25), (7, 13), (8, 1)])
def test_logits_for_every_space_at_odd_sizes(space: str, size: tuple[int, int]) -> None:
    logits = make(space, joints=size[1])(torch.randn(2, 3, *size))
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()


def test_alphas_are_small_and_shared_by_cells_of_a_kind() -> None:
    net = make()
    assert {name: tuple(alpha.shape) for name, alpha in net.alphas.items()} == {
        "normal": (14, 8),
        "reduction": (14, 8),
    }
    for alpha in net.alphas.values():
        assert 5e-4 < alpha.std().item() < 2e-3
    assert [cell.reduction for cell in net.cells] == [False, False, True, False, True, False]


def test_paper_supernet_shapes() -> None:
    net = make(channels=16)
    widths = [next(iter(cell.preprocess1.parameters())).shape[0] for cell in net.cells]
    assert widths == [16, 16, 32, 32, 64, 64]


def test_a_pass_leaves_no_state() -> None:
    net = make()
    assert list(net.buffers()) == []
    x = torch.randn(2, 3, 8, 5)
    first = net(x)
    net(torch.randn(4, 3, 8, 5))
    assert torch.equal(first, net(x))
    assert torch.equal(first, net.eval()(x))


def test_weights_and_alphas_do_not_overlap() -> None:
    net = make()
    weights = dict(net.named_weights())
    assert "cells.0.edges.3.sep_conv_3x3.1.weight" in weights
    assert len(weights) + len(net.alphas) == len(list(net.parameters()))
    assert not any("alpha" in name for name in weights)


def test_every_weight_and_alpha_has_a_gradient() -> None:
    net = make()
    net(torch.randn(2, 3, 8, 5)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_checkpointed_cells_have_the_same_gradients_in_less_memory() -> None:
    x = torch.randn(2, 3, 16, 25)
    results, peaks = [], []
    for checkpoint_cells in (False, True):
        net = make(num_nodes=2, checkpoint_cells=checkpoint_cells)
        with peak_memory(x.device) as peak:
            loss = net(x).square().sum()
            results.append([loss, *torch.autograd.grad(loss, list(net.parameters()))])
        peaks.append(peak.num_bytes)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    assert peaks[1] < 0.5 * peaks[0]


def test_batch_statistics_depend_on_the_clips_but_not_their_order() -> None:
    """The logits of a clip depend on the other clips of its batch, but not on their order."""
    net, x = make().double(), torch.randn(4, 3, 8, 5, dtype=torch.float64)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(net(x[order]), net(x)[order])
    assert not torch.allclose(net(x[:2]), net(x)[:2])


def test_batches_can_be_scored_in_any_order() -> None:
    net, batches = make().eval(), torch.randn(3, 2, 3, 8, 5)
    forth = [net(batch) for batch in batches]
    back = [net(batch) for batch in reversed(batches)]
    assert all(torch.equal(one, other) for one, other in zip(forth, reversed(back), strict=True))
