"""The reference: against closed forms, against the modules, and by float64 gradcheck."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from skelnas.engine import reference
from skelnas.models.ops import make_op
from skelnas.primitives import PRIMITIVES, SPACES

OPS = [op for op in PRIMITIVES if op != "none"]


def clip(n: int = 2, c: int = 4, t: int = 7, v: int = 13) -> Tensor:
    generator = torch.Generator().manual_seed(n * 1000 + t)
    return torch.randn(n, c, t, v, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(2, 4, 7, 13), (1, 3, 5, 5), (3, 2, 8, 6)])
def test_function_equals_module_in_value_and_every_gradient(
    op: str, stride: int, shape: tuple[int, int, int, int]
) -> None:
    torch.manual_seed(0)
    module = make_op(op, shape[1], stride, searching=True, joints=shape[3]).double()
    weights = list(module.parameters())
    x = clip(*shape).requires_grad_()
    expected, actual = module(x), reference.OPS[op](x, weights, stride)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    assert actual.shape[2:] == (-(-shape[2] // stride), -(-shape[3] // stride))

    upstream = torch.randn(expected.shape, dtype=torch.float64)
    gradients = [
        torch.autograd.grad(y, [x, *weights], upstream, retain_graph=True)
        for y in (expected, actual)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def test_batch_norm_gives_each_channel_mean_zero_and_variance_one() -> None:
    y = reference.batch_norm(5 + 3 * clip())
    torch.testing.assert_close(y.mean(dim=(0, 2, 3)), torch.zeros(4, dtype=torch.float64))
    variance = y.var(dim=(0, 2, 3), unbiased=False)
    torch.testing.assert_close(variance, torch.ones(4, dtype=torch.float64), rtol=1e-5, atol=0)


def test_conv_is_a_sum_over_the_neighbourhood() -> None:
    x = clip(1, 2, 4, 5)
    weight = clip(3, 2, 3, 3)
    padded = F.pad(x.relu(), (1, 1, 1, 1))
    raw = torch.zeros(1, 3, 4, 5, dtype=torch.float64)
    for t in range(4):
        for v in range(5):
            raw[0, :, t, v] = (padded[0, :, t : t + 3, v : v + 3] * weight).sum(dim=(1, 2, 3))
    actual = reference.conv(x, [weight], 1)
    torch.testing.assert_close(actual, reference.batch_norm(raw))


def test_average_pool_does_not_count_the_padding() -> None:
    x = torch.arange(9.0, dtype=torch.float64).reshape(1, 1, 3, 3)
    expected = torch.tensor([[2.0, 2.5, 3.0], [3.5, 4.0, 4.5], [5.0, 5.5, 6.0]]).double()
    actual = reference.avg_pool(x, (), 1)
    torch.testing.assert_close(actual, reference.batch_norm(expected[None, None]))


def test_squeeze_excite_closed_form() -> None:
    x = clip(2, 4, 3, 3)
    squeeze, excite = clip(1, 1, 1, 4)[0, 0], clip(1, 1, 4, 1)[0, 0]
    for n in range(2):
        means = x[n].mean(dim=(1, 2))
        gate = torch.sigmoid(excite @ torch.relu(squeeze @ means))
        actual = reference.se_connect(x, [squeeze, excite], 1)[n]
        torch.testing.assert_close(actual, gate[:, None, None] * x[n])


def test_skip_is_the_input_itself() -> None:
    x = clip()
    assert reference.skip_connect(x, (), 1) is x


def test_factorized_reduction_is_two_strided_convolutions() -> None:
    x, one, other = clip(2, 3, 7, 5), clip(2, 3, 1, 1), clip(4, 3, 1, 1)
    raw = torch.cat([F.conv2d(x.relu(), weight, stride=2) for weight in (one, other)], dim=1)
    actual = reference.factorized_reduce(x, [one, other])
    torch.testing.assert_close(actual, reference.batch_norm(raw))


@pytest.mark.parametrize("op", ["skip_connect", "se_connect", "conv_3x3", "sep_conv_3x3"])
def test_narrow_reductions_at_the_papers_size_do_not_corrupt_memory(op: str) -> None:
    """Gradients in channels-last order at 112 x 36, which killed the process with 8 channels."""
    torch.manual_seed(0)
    module = make_op(op, 8, 2, searching=True).to(memory_format=torch.channels_last)
    x = torch.randn(2, 8, 112, 36).to(memory_format=torch.channels_last)
    for _ in range(5):
        loss = reference.OPS[op](x, list(module.parameters()), 2).square().mean()
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        assert all(gradient.isfinite().all() for gradient in gradients)


def test_dilated_convolution_reads_every_second_pixel() -> None:
    x = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    x[0, 0, 4, 4] = 1
    depthwise = torch.ones(1, 1, 3, 3, dtype=torch.float64)
    y = reference.dil_conv(x, [depthwise, torch.ones(1, 1, 1, 1, dtype=torch.float64)], 1)
    touched = (y[0, 0] > 0).nonzero().tolist()
    assert touched == [[t, v] for t in (2, 4, 6) for v in (2, 4, 6)]


def test_mixing_of_joints_is_a_matrix_for_each_group_of_channels_shared_by_persons() -> None:
    """Persons of 5 joints, which become 3 and 2 where an image of 10 is halved."""
    x, (mixing, halving) = clip(2, 6, 4, 10), (clip(1, 3, v, 5)[0] for v in (5, 3))
    same, half = (reference.mix_joints(x, each, s) for each, s in ((mixing, 1), (halving, 2)))
    assert same.shape == (2, 6, 4, 10)
    assert half.shape == (2, 6, 2, 5)
    for channel in range(6):
        for first in (0, 5):
            person = x[:, channel, :, first : first + 5]  # [N, T, V]
            expected = torch.einsum("ntv,wv->ntw", person, mixing[channel // 2])
            torch.testing.assert_close(same[:, channel, :, first : first + 5], expected)
            halved = torch.einsum("ntv,wv->ntw", person[:, ::2], halving[channel // 2])
            after = slice(0, 3) if first == 0 else slice(3, 5)
            torch.testing.assert_close(half[:, channel, :, after], halved[..., : 3 - first // 5])


def test_mixing_takes_a_joint_that_the_last_person_lacks_as_zero() -> None:
    x, mixing = clip(1, 2, 3, 5), clip(1, 2, 3, 3)[0]
    whole = torch.cat([x, torch.zeros(1, 2, 3, 1, dtype=torch.float64)], dim=3)
    expected = reference.mix_joints(whole, mixing)[..., :5]
    torch.testing.assert_close(reference.mix_joints(x, mixing), expected)


def test_joint_conv_is_relu_mixing_pointwise_and_normalisation() -> None:
    x, mixing, pointwise = clip(2, 4, 3, 5), clip(1, 1, 5, 5)[0], clip(6, 4, 1, 1)
    raw = torch.einsum("nctv,wv,dc->ndtw", x.relu(), mixing[0], pointwise[..., 0, 0])
    actual = reference.joint_conv(x, [mixing, pointwise], 1)
    torch.testing.assert_close(actual, reference.batch_norm(raw))


def test_tconv_reads_nine_frames_of_one_joint() -> None:
    x = torch.zeros(1, 1, 13, 3, dtype=torch.float64)
    x[0, 0, 6, 1] = 1
    depthwise, pointwise = (torch.ones(1, 1, t, 1, dtype=torch.float64) for t in (9, 1))
    for stride in (1, 2):
        y = reference.temporal_conv(
            x[..., 1:] if stride == 2 else x, [depthwise, pointwise], stride
        )
        touched = (y[0, 0] > 0).nonzero().tolist()
        assert touched == (
            [[t, 1] for t in range(2, 11)] if stride == 1 else [[t, 0] for t in range(1, 6)]
        )


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("persons", [1, 2])
def test_joint_conv_gradcheck(stride: int, persons: int) -> None:
    torch.manual_seed(1)
    module = make_op("joint_conv", 2, stride, searching=True, joints=3).double()

    def evaluate(x: Tensor, *weights: Tensor) -> Tensor:
        return reference.joint_conv(x, weights, stride)

    inputs = clip(1, 2, 3, 3 * persons).requires_grad_(), *module.parameters()
    assert torch.autograd.gradcheck(evaluate, inputs, atol=1e-6)
    assert torch.autograd.gradgradcheck(evaluate, inputs, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_mixed_op_gradcheck(stride: int) -> None:
    torch.manual_seed(1)
    primitives = SPACES["sar-joint"]
    modules = [make_op(op, 2, stride, searching=True, joints=4).double() for op in primitives]
    counts = [len(list(module.parameters())) for module in modules]
    flat = [weight for module in modules for weight in module.parameters()]

    def evaluate(x: Tensor, alphas: Tensor, *weights: Tensor) -> Tensor:
        pieces = iter(weights)
        grouped = [[next(pieces) for _ in range(count)] for count in counts]
        return reference.mixed_op(x, alphas.softmax(0), primitives, grouped, stride)

    x = clip(1, 2, 3, 4).requires_grad_()
    alphas = torch.randn(len(primitives), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(evaluate, (x, alphas, *flat), atol=1e-6)


@pytest.mark.parametrize("chosen", range(8))
def test_mixed_op_with_one_op_weight_is_that_operation(chosen: int) -> None:
    torch.manual_seed(2)
    primitives = SPACES["sar"]
    weights = [list(make_op(op, 4, 1, searching=True).double().parameters()) for op in primitives]
    op_weights = F.one_hot(torch.tensor(chosen), 8).double()
    x = clip()
    actual = reference.mixed_op(x, op_weights, primitives, weights, 1)
    op = primitives[chosen]
    expected = torch.zeros_like(x) if op == "none" else reference.OPS[op](x, weights[chosen], 1)
    torch.testing.assert_close(actual, expected)


def test_cell_sums_edges_into_nodes_in_order() -> None:
    primitives = ("none", "skip_connect")
    op_weights = torch.tensor([[0, 1], [0, 2], [0, 3], [0, 0], [0, 5]], dtype=torch.float64)
    weights: list[list[list[Tensor]]] = [[[], []]] * 5
    a, b = clip(), 2 * clip()
    output = reference.cell((a, b), op_weights, primitives, weights, reduction=False)
    node2 = a + 2 * b
    node3 = 3 * a + 0 * b + 5 * node2
    torch.testing.assert_close(output, torch.cat([node2, node3], dim=1))
