"""All weights in one tensor: the same values, the same steps, and no synchronisation."""

from __future__ import annotations

import importlib
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from skelnas.config import SearchSettings
from skelnas.data.dataset import Batch
from skelnas.nas import bilevel
from skelnas.nas.bilevel import NUM_WARMUP_STEPS, Bilevel, CudaGraphStep
from skelnas.nas.flat_weights import FlatSGD, FlatWeights, gradients
from skelnas.nas.supernet import Supernet
from skelnas.primitives import SPACES

SHAPES = (3, 2, 3, 5), (4,), (2, 3)


def leaves() -> list[Tensor]:
    torch.manual_seed(0)
    made = [torch.randn(shape, dtype=torch.float64) for shape in SHAPES]
    made[0] = made[0].contiguous(memory_format=torch.channels_last)
    return [leaf.requires_grad_() for leaf in made]


def sgd(weights: FlatWeights, clip: float) -> FlatSGD:
    return FlatSGD(weights, ["a", "b", "c"], momentum=0.9, weight_decay=0.01, clip=clip)


class TestFlatWeights:
    def test_leaves_keep_their_values_and_become_views(self) -> None:
        tensors, before = leaves(), leaves()
        flat = FlatWeights(tensors)
        assert all(map(torch.equal, tensors, before))
        flat.values.mul_(2)
        assert all(torch.equal(t, 2 * b) for t, b in zip(tensors, before, strict=True))
        assert tensors[0].is_contiguous(memory_format=torch.channels_last)

    def test_split_is_the_inverse_of_join(self) -> None:
        flat = FlatWeights(leaves())
        others = [torch.randn(shape, dtype=torch.float64) for shape in SHAPES]
        assert all(map(torch.equal, flat.split(flat.join(others)), others))

    def test_gradients_are_those_of_the_leaves(self) -> None:
        tensors = leaves()
        flat, x = FlatWeights(tensors), torch.ones((), dtype=torch.float64, requires_grad=True)

        def loss() -> Tensor:
            a, b, _ = tensors
            return a.square().sum() * b.prod() * x

        expected = torch.autograd.grad(loss(), tensors[:2])
        grad_x, grad_flat = gradients(loss(), [x, flat])
        parts = flat.split(grad_flat)
        assert all(map(torch.equal, parts, expected))
        assert parts[2].count_nonzero() == 0
        assert grad_x == loss()


class TestFlatSGD:
    @pytest.mark.parametrize("clip", [0.5, 1e9])
    def test_steps_equal_those_of_pytorch(self, clip: float) -> None:
        tensors, theirs = leaves(), leaves()
        flat = FlatWeights(tensors)
        ours = sgd(flat, clip)
        optimizer = torch.optim.SGD(theirs, lr=0.1, momentum=0.9, weight_decay=0.01)
        for lr in (0.1, 0.05, 0.02):
            grads = [torch.randn(shape, dtype=torch.float64) for shape in SHAPES]
            ours.step(flat.join(grads), torch.tensor(lr, dtype=torch.float64))
            for leaf, grad in zip(theirs, grads, strict=True):
                leaf.grad = grad
            torch.nn.utils.clip_grad_norm_(theirs, clip)
            optimizer.param_groups[0]["lr"] = lr
            optimizer.step()
        for a, b in zip(tensors, theirs, strict=True):
            torch.testing.assert_close(a, b)

    def test_continues_from_a_saved_state(self) -> None:
        first, second = FlatWeights(leaves()), FlatWeights(leaves())
        ours, restored = sgd(first, 1.0), sgd(second, 1.0)
        grad = torch.randn_like(first.values)
        ours.step(grad, 0.1)
        second.values.copy_(first.values)
        restored.restore({name: value.clone() for name, value in ours.tensors().items()})
        for one in (ours, restored):
            one.step(grad, 0.1)
        assert torch.equal(first.values, second.values)

    def test_refuses_the_state_of_other_weights(self) -> None:
        ours = sgd(FlatWeights(leaves()), 1.0)
        state = ours.tensors()
        with pytest.raises(ValueError, match=r"b/momentum_buffer has the shape \[5\]"):
            ours.restore({**state, "b/momentum_buffer": torch.zeros(5)})
        del state["a/momentum_buffer"]
        with pytest.raises(KeyError, match="a/momentum_buffer"):
            ours.restore(state)


def batch(seed: int, count: int = 2, device: str = "cpu") -> Batch:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, 8, 5, generator=generator)
    labels = torch.randint(4, (count,), generator=generator)
    return Batch(x.to(device), labels.to(device), count)


def searching(device: str, dtype: torch.dtype = torch.float32, **changes: object) -> Bilevel:
    torch.manual_seed(0)
    shape = {"channels": 2, "num_layers": 3, "num_nodes": 2, "engine": "fused"}
    net = Supernet(in_channels=3, num_classes=4, primitives=SPACES["sar"], **shape)  # type: ignore[arg-type]
    return Bilevel(net.to(device, dtype), SearchSettings.model_validate(changes))


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_step_never_synchronises(
    monkeypatch: pytest.MonkeyPatch, order: str, checkpointed: bool
) -> None:
    """On the meta device, as in a CUDA graph, reading a number fails."""
    adam = importlib.import_module("torch.optim.adam")
    monkeypatch.setattr(adam, "_get_capturable_supported_devices", lambda **_: ["meta"])
    monkeypatch.setattr(
        torch, "autocast", lambda *_, **__: nullcontext()
    )  # unknown to the meta device
    search = searching("meta", order=order)
    search.supernet.checkpoint_cells = checkpointed
    search.alpha_optimizer.param_groups[0]["capturable"] = True
    for _ in range(2):
        sums = search.step(batch(0, device="meta"), batch(1, device="meta"), 0.1)
    with pytest.raises(RuntimeError, match="meta"):
        sums.tolist()


class Replayed:
    """Stands in for a CUDA graph: runs the recorded step on static inputs."""

    def __init__(self, step: bilevel.Step, batches: tuple[Batch, Batch], stream: object) -> None:
        self.step = step
        self.inputs = tuple(Batch(b.x.clone(), b.labels.clone(), b.num_clips) for b in batches)

    def replay(self, batches: tuple[Batch, Batch]) -> Tensor:
        for static, batch in zip(self.inputs, batches, strict=True):
            static.x.copy_(batch.x)
            static.labels.copy_(batch.labels)
        return self.step(*self.inputs)


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bilevel, "_CudaGraph", Replayed)
    monkeypatch.setattr(bilevel, "on_side_stream", lambda step, batches, stream: step(*batches))
    monkeypatch.setattr(torch.cuda, "Stream", object)


class TestCudaGraphStep:
    def test_each_shape_is_recorded_once_after_its_warmup_steps(
        self, no_cuda: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        recorded: list[int] = []
        steps: list[float] = []

        def record(step: bilevel.Step, batches: tuple[Batch, Batch], stream: object) -> Replayed:
            recorded.append(len(batches[0].x))
            return Replayed(step, batches, stream)

        def step(a: Batch, b: Batch) -> Tensor:
            steps.append(a.x.sum().item())
            return a.x.sum() + b.x.sum()

        monkeypatch.setattr(bilevel, "_CudaGraph", record)
        work = CudaGraphStep(step)
        for number in range(NUM_WARMUP_STEPS + 2):
            for count in (2, 3):
                a, b = batch(number, count), batch(number + 100, count)
                assert work(a, b) == a.x.sum() + b.x.sum()
                assert steps[-1] == a.x.sum()
        assert recorded == [2, 3]
        assert len(steps) == 2 * (NUM_WARMUP_STEPS + 2)

    def test_steps_without_alphas_are_recorded_apart(self, no_cuda: None) -> None:
        work = CudaGraphStep(lambda *batches: torch.tensor(len(batches)))
        for number in range(NUM_WARMUP_STEPS + 2):
            assert work(batch(number)) == 1
        for number in range(NUM_WARMUP_STEPS + 2):
            assert work(batch(number), batch(9)) == 2

    def test_rehearsals_and_recording_take_one_stream(
        self, no_cuda: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        streams: list[object] = []

        def rehearse(step: bilevel.Step, batches: tuple[Batch, Batch], stream: object) -> Tensor:
            streams.append(stream)
            return step(*batches)

        def record(step: bilevel.Step, batches: tuple[Batch, Batch], stream: object) -> Replayed:
            streams.append(stream)
            return Replayed(step, batches, stream)

        monkeypatch.setattr(bilevel, "on_side_stream", rehearse)
        monkeypatch.setattr(bilevel, "_CudaGraph", record)
        work = CudaGraphStep(lambda a, b: a.x.sum())
        for number in range(NUM_WARMUP_STEPS + 2):
            work(batch(number), batch(9))
        assert len(streams) == NUM_WARMUP_STEPS + 1
        assert len(set(map(id, streams))) == 1

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (RuntimeError("not permitted when capturing\nand more"), "RuntimeError: not permitted"),
            (type("OutOfResources", (Exception,), {})(), "OutOfResources: "),
        ],
    )
    def test_stays_eager_if_recording_fails(
        self,
        no_cuda: None,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        error: Exception,
        reason: str,
    ) -> None:
        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr(bilevel, "_CudaGraph", fail)
        work = CudaGraphStep(lambda a, b: a.x.sum())
        for number in range(NUM_WARMUP_STEPS + 3):
            assert work(batch(number), batch(9)) == batch(number).x.sum()
        message = f"cannot be recorded as a CUDA graph and runs eagerly: {reason}"
        assert capsys.readouterr().err.count(message) == 1

    def test_out_of_memory_is_raised(self, no_cuda: None, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(bilevel, "_CudaGraph", fail)
        work = CudaGraphStep(lambda a, b: a.x.sum())
        for _ in range(NUM_WARMUP_STEPS):
            work(batch(0), batch(1))
        with pytest.raises(torch.OutOfMemoryError):
            work(batch(0), batch(1))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("update", ["adam", "exponentiated"])
@pytest.mark.parametrize("order", ["first", "second"])
def test_replayed_steps_equal_eager_steps(order: str, update: str) -> None:
    """In float64, since some sums of a GPU have no fixed order and Adam amplifies rounding."""

    def exact(number: int) -> Batch:
        rounded = batch(number, 2 + number % 2, "cuda")
        return replace(rounded, x=rounded.x.double())

    ends = []
    for record in (True, False):
        changes = {"order": order, "alpha_update": update, "cuda_graphs": record}
        search = searching("cuda", torch.float64, **changes)
        for step in range(3 * NUM_WARMUP_STEPS):  # of the weights alone
            search.step(exact(step), None, 0.1)
        for step in range(3 * NUM_WARMUP_STEPS):
            sums = search.step(exact(step), exact(100 - step), 0.1)
        ends.append((search.weights.values, *search.alphas, sums))
    for replayed, plain in zip(*ends, strict=True):
        torch.testing.assert_close(replayed, plain, rtol=1e-6, atol=1e-9)
