"""Precisions of products, and devices without them."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from test_search import SMALL as SEARCH
from test_train import GENOTYPE
from test_train import SMALL as TRAIN

from skelnas.config import DeviceSettings, EvaluateSettings, Precision
from skelnas.errors import DeviceError
from skelnas.evaluation.evaluate import evaluate
from skelnas.nas.search import search
from skelnas.runtime import devices
from skelnas.training import run_dir
from skelnas.training.train import train

CPU = torch.device("cpu")


def flags() -> list[bool]:
    return [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32]


@pytest.fixture(params=[False, True])
def before(request: pytest.FixtureRequest) -> Iterator[list[bool]]:
    """Return the flags set before; PyTorch's defaults differ for matrices and convolutions."""
    start = flags()
    torch.backends.cuda.matmul.allow_tf32 = request.param
    torch.backends.cudnn.allow_tf32 = not request.param
    yield flags()
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = start


@pytest.mark.parametrize(
    ("precision", "allowed"), [("fp32", False), ("tf32", True), ("bf16", False)]
)
def test_precision_is_set_and_restored(
    before: list[bool], precision: Precision, allowed: bool
) -> None:
    with devices.precision(precision):
        assert flags() == [allowed, allowed]
    assert flags() == before
    with pytest.raises(ZeroDivisionError), devices.precision(precision):
        _ = 1 // 0
    assert flags() == before


OLD, NEW = (7, 5), (8, 0)


@pytest.mark.parametrize(
    ("precision", "device", "capability", "can"),
    [
        ("fp32", "cpu", None, True),
        ("bf16", "cpu", None, True),
        ("tf32", "cpu", None, False),
        ("fp32", "cuda", OLD, True),
        ("bf16", "cuda", OLD, False),
        ("tf32", "cuda", OLD, False),
        ("bf16", "cuda", NEW, True),
        ("tf32", "cuda", NEW, True),
        ("fp32", "mps", None, True),
        ("bf16", "mps", None, False),
        ("tf32", "mps", None, False),
    ],
)
def test_a_precision_that_the_device_lacks_is_refused(
    monkeypatch: pytest.MonkeyPatch, precision: str, device: str, capability: object, can: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: device == "cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: device == "mps")
    settings = DeviceSettings(device=device, precision=precision)
    if can:
        assert devices.choose(settings).type == device
    else:
        with pytest.raises(DeviceError, match=f"--precision {precision} needs .*, not {device}"):
            devices.choose(settings)


def test_autocast_rounds_in_bfloat16_only() -> None:
    layer, x = torch.nn.Linear(64, 64), torch.randn(8, 64)
    exact = layer(x)
    with devices.autocast("bf16", CPU):
        rounded = layer(x)
    assert rounded.dtype == torch.bfloat16
    assert 0 < (rounded - exact).abs().max() < 0.1
    with devices.autocast("fp32", CPU):
        assert torch.equal(layer(x), exact)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_products_on_cuda_have_the_requested_precision() -> None:
    x, weight = torch.randn(4, 64, 32, 32, device="cuda"), torch.randn(64, 64, 3, 3, device="cuda")
    truth = torch.nn.functional.conv2d(x.double(), weight.double())
    errors = {}
    for precision in ("fp32", "tf32"):
        with devices.precision(precision):
            result = torch.nn.functional.conv2d(x, weight)
        errors[precision] = ((result - truth).norm() / truth.norm()).item()
    assert errors["fp32"] < 1e-6 < 1e-5 < errors["tf32"]


def test_a_search_in_bfloat16_stays_close_and_stores_float32(
    tiny_cache: Path, tmp_path: Path
) -> None:
    losses = {}
    for name, precision in {"exact": "fp32", "one": "bf16", "other": "bf16"}.items():
        settings = SEARCH.model_copy(update={"epochs": 1, "precision": precision})
        search(tiny_cache, tmp_path / name, settings)
        (line,) = run_dir.read_lines(tmp_path / name / run_dir.METRICS)
        losses[name] = line["train_loss"]
    one, other = (load_file(tmp_path / name / run_dir.CHECKPOINT) for name in ("one", "other"))
    assert {tensor.dtype for tensor in one.values()} == {torch.float32}
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert losses["one"] != losses["exact"]
    assert losses["one"] == pytest.approx(losses["exact"], rel=0.02)


def test_training_and_evaluation_in_bfloat16(tiny_cache: Path, tmp_path: Path) -> None:
    settings = TRAIN.model_copy(update={"precision": "bf16"})
    model = load_file(train(tiny_cache, GENOTYPE, tmp_path / "model", settings).path)
    floating = {tensor.dtype for tensor in model.values() if tensor.is_floating_point()}
    assert floating == {torch.float32}
    exact, rounded = (
        evaluate(tiny_cache, tmp_path / "model", EvaluateSettings(precision=precision)).scores
        for precision in ("fp32", "bf16")
    )
    assert rounded.metrics.top1 > 1.5 * rounded.chance
    assert rounded.metrics.top1 == pytest.approx(exact.metrics.top1, abs=0.1)
    assert 0 < np.abs(rounded.logits - exact.logits).max() < 0.1 * np.abs(exact.logits).max()


def test_a_gpu_is_chosen_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    assert devices.choose(DeviceSettings(device="cuda:1")) == torch.device("cuda", 1)
    assert current == [torch.device("cuda", 1)]
    assert devices.list_gpus(DeviceSettings(device="cuda:1")) == []
    with pytest.raises(DeviceError, match="device cuda:2 is not available") as caught:
        devices.choose(DeviceSettings(device="cuda:2"))
    assert "cuda:0, cuda:1" in (caught.value.hint or "")
    monkeypatch.setattr(devices.distributed, "world_size", lambda: 2)
    with pytest.raises(DeviceError, match="each of several ranks needs its own"):
        devices.choose(DeviceSettings(device="cuda:1"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(DeviceError, match="device cuda:0 is not available"):
        devices.choose(DeviceSettings(device="cuda:0"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    script = """
import ctypes
import resource
import statistics
import torch
from skelnas.runtime import devices
PR_SET_THP_DISABLE = 41
ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)  # a huge page is one fault, not 512
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        tensors = [torch.zeros(100_000 * size) for size in range(1, 30)]  # 174 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
by_default = statistics.median(faults() for _ in range(9))
devices.keep_freed_memory()
print(by_default, statistics.median(faults() for _ in range(9)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    by_default, kept = map(float, done.stdout.split())
    assert by_default > 100
    assert kept < by_default / 10
