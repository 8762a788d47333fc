"""Peak memory of tensors, and the advice when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from test_search import SMALL as SEARCH
from test_train import GENOTYPE
from test_train import SMALL as TRAIN

from skelnas.errors import DeviceError
from skelnas.models.network import Network
from skelnas.nas.search import search
from skelnas.nas.supernet import Supernet
from skelnas.runtime.memory import USABLE_FRACTION, estimate_max_batch, free_bytes, peak_memory
from skelnas.training import run_dir
from skelnas.training.train import train

CPU = torch.device("cpu")
SPENT = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")


def peak_of(work: Callable[[], object]) -> int:
    with peak_memory(CPU) as peak:
        work()
    return peak.num_bytes


def test_tensors_count_as_long_as_they_live() -> None:
    before = torch.zeros(10_000)

    def work() -> None:
        a = torch.zeros(1000)  # 4000 bytes
        b = a + 1  # 8000
        del a
        c = [b.double(), b.view(10, 100), before[5:], before.add_(1)]  # 12000
        assert len(c) == 4

    assert peak_of(work) == 12_000


def test_tensors_saved_for_backward_count_until_then() -> None:
    w = torch.ones(1000, requires_grad=True)

    def work() -> None:
        (w.exp().exp().exp().sum()).backward()  # three results, and later a gradient

    assert 3 * 4000 < peak_of(work) < 6 * 4000


def test_measuring_ends_with_the_block_even_if_it_fails() -> None:
    with pytest.raises(ZeroDivisionError), peak_memory(CPU) as peak:
        torch.zeros(100 + 1 // len(torch.zeros(100)[100:]))
    torch.zeros(1000)
    assert peak.num_bytes == 400


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_peak_memory_on_cuda() -> None:
    device = torch.device("cuda")
    before = torch.zeros(2**20, device=device)
    with peak_memory(device) as peak:
        _ = before + 1 + 1
    assert peak.num_bytes == 2 * 4 * 2**20
    free = free_bytes(device)
    assert free is not None
    assert 0 < free <= torch.cuda.get_device_properties(device).total_memory


def step(num_clips: int) -> None:
    """Allocate 4000 bytes, and 400 for each clip."""
    _ = torch.zeros(1000), torch.zeros(num_clips, 100)


@pytest.mark.parametrize(
    ("free", "fits"),
    [(4000 + 400 * 50, 50), (4000 + 400 * 50 - 1, 49), (1e12, 63), (4000, 1)],
)
def test_max_batch_is_extrapolated_linearly(free: float, fits: int) -> None:
    assert estimate_max_batch(step, 64, free / USABLE_FRACTION, CPU) == fits


def test_max_batch_is_unknown_without_free_memory() -> None:
    assert estimate_max_batch(lambda clips: 1 // 0, 64, None, CPU) is None


@pytest.mark.parametrize("limit", [0, 1])
def test_max_batch_when_one_or_two_clips_do_not_fit(limit: int) -> None:
    def spend(num_clips: int) -> None:
        if num_clips > limit:
            raise SPENT

    assert estimate_max_batch(spend, 64, 1e12, CPU) == limit


def test_other_failures_are_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        estimate_max_batch(lambda clips: 1 // 0, 64, 1e12, CPU)


@pytest.mark.parametrize("verb", ["search", "train"])
@pytest.mark.parametrize(
    ("limit", "message"),
    [
        (4, "batches of 6 clips; 5 should fit"),
        (1, "batches of 6 clips; 1 should fit"),
        (0, "batches of 6 clips; not even one fits"),
    ],
)
def test_a_run_that_is_too_large_reports_the_batch_that_fits(
    tiny_cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    limit: int,
    message: str,
) -> None:
    model = {"search": Supernet, "train": Network}[verb]
    forward = model.forward

    def spend(self: torch.nn.Module, x: torch.Tensor, *more: Any) -> torch.Tensor:
        if len(x) > limit and self.training:
            raise SPENT
        return forward(self, x, *more)

    monkeypatch.setattr(model, "forward", spend)
    start = {
        "search": partial(search, tiny_cache, tmp_path / "run", SEARCH),
        "train": partial(train, tiny_cache, GENOTYPE, tmp_path / "run", TRAIN),
    }[verb]
    with pytest.raises(DeviceError, match=f"^{verb} ran out of memory on cpu with {message}$") as e:
        start()
    assert e.value.exit_code == 4
    assert ("--checkpoint-cells" in str(e.value.hint)) == (verb == "search")
    assert not (tmp_path / "run" / run_dir.CHECKPOINT).exists()


def test_free_memory_is_plausible() -> None:
    free = free_bytes(CPU)
    assert free is None or 1e6 < free < 1e15


@pytest.mark.parametrize("verb", ["search", "train"])
def test_a_network_that_is_too_large_suggests_a_smaller_one(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    def spend(model: torch.nn.Module, device: torch.device) -> None:
        raise SPENT

    monkeypatch.setattr("skelnas.runtime.devices.move", spend)
    start = {
        "search": partial(search, tiny_cache, tmp_path / "run", SEARCH),
        "train": partial(train, tiny_cache, GENOTYPE, tmp_path / "run", TRAIN),
    }[verb]
    with pytest.raises(DeviceError, match="while building the network") as e:
        start()
    assert "--channels" in str(e.value.hint)
    assert "--batch-size" not in str(e.value.hint)
