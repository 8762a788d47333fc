"""The space sar-joint from a search to an exported network, on two persons of five joints."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_search import SMALL

from skelnas.config import EvaluateSettings, ExportFormat, TrainSettings
from skelnas.derivation import count_skips
from skelnas.errors import UsageError
from skelnas.evaluation.evaluate import evaluate
from skelnas.evaluation.export import export
from skelnas.genotype import Edge, Genotype
from skelnas.models.complexity import Complexity, measure
from skelnas.models.layers import JOINT_NOISE, JointMixing
from skelnas.models.ops import make_op
from skelnas.nas.derive import Perturbation, derive
from skelnas.nas.search import search
from skelnas.primitives import SPACES
from skelnas.reporting.report import report
from skelnas.training.saved_model import load_model
from skelnas.training.train import train

CELL = (
    (Edge("joint_conv", 0), Edge("tconv_9x1", 1)),
    (Edge("joint_conv", 2), Edge("tconv_9x1", 2)),
)
GENOTYPE = Genotype(CELL, CELL)
TRAIN = TrainSettings(
    recipe="paper", frames=7, layers=4, channels=4, epochs=1, batch_size=12, device="cpu"
)


@pytest.fixture(scope="module")
def run(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("joint") / "run"
    search(tiny_cache, out, SMALL.model_copy(update={"space": "sar-joint", "epochs": 1}))
    return out


@pytest.fixture(scope="module")
def model(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("joint") / "model"
    train(tiny_cache, GENOTYPE, out, TRAIN)
    return out


def test_a_search_moves_the_alphas_of_both_operations(run: Path) -> None:
    first, last = (json.loads(line) for line in (run / "alphas.jsonl").read_text().splitlines())
    for cell in ("normal", "reduction"):
        moved = (torch.tensor(last[cell]) - torch.tensor(first[cell])).abs()
        assert moved.shape == (5, len(SPACES["sar-joint"]))
        assert (moved > 0).all()
    assert (run / "alphas.jsonl").read_text().count("\n") == 2


def test_cells_are_derived_from_alphas_and_by_perturbation(run: Path) -> None:
    allowed = set(SPACES["sar-joint"]) - {"none"}
    for genotype in (
        derive(run, max_skip=0),
        derive(run, max_skip=0, perturbation=Perturbation(num_clips=6)),
    ):
        edges = [edge for node in genotype.normal + genotype.reduction for edge in node]
        assert {edge.op for edge in edges} <= allowed
        assert count_skips(genotype) == 0


def test_a_report_shows_the_space(run: Path, tmp_path: Path) -> None:
    page = report(run, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "joint_conv" in page
    assert "tconv_9x1" in page


def test_a_trained_network_knows_its_joints_at_every_layer(model: Path) -> None:
    mixing = [m for m in load_model(model).network.modules() if isinstance(m, JointMixing)]
    sizes = [tuple(module.weight.shape[1:]) for module in mixing]
    normal, first, second = [(5, 5)] * 2, [(3, 5), (3, 3)], [(2, 3), (2, 2)]
    assert sizes == [*normal, *first, *second, *[(2, 2)] * 2]


def test_costs_can_be_measured_with_other_frames_but_not_with_other_joints(
    tiny_cache: Path, model: Path
) -> None:
    longer = evaluate(tiny_cache, model, EvaluateSettings(input_size="21x10", device="cpu"))
    assert longer.at_size is not None
    assert longer.at_size[1].parameters == longer.complexity.parameters
    assert longer.at_size[1].macs > longer.complexity.macs
    with pytest.raises(UsageError) as refusal:
        evaluate(tiny_cache, model, EvaluateSettings(input_size="7x20", device="cpu"))
    assert str(refusal.value) == (
        "--input-size 7x20: 20 joints, but joint_conv is made for the 10 that it was trained with"
    )


@pytest.mark.parametrize("format", ["onnx", "torchscript", "safetensors-fused"])
def test_exports_equal_the_model(model: Path, tmp_path: Path, format: ExportFormat) -> None:
    if format == "onnx":
        for package in ("onnx", "onnxruntime", "onnxscript"):
            pytest.importorskip(package)
    exported = export(model, tmp_path / "model", format)
    assert exported.largest_difference <= 1e-5 * max(exported.largest_logit, 1)


@pytest.mark.parametrize(
    ("op", "stride", "parameters", "macs"),
    [
        # Four matrices and the mixing of 8 channels, 6 (or 3) frames and 2 persons; pointwise; BN.
        ("joint_conv", 1, 4 * 5 * 5 + 64 + 16, 8 * 6 * 2 * 5 * 5 + 64 * 6 * 10),
        ("joint_conv", 2, 4 * 3 * 5 + 64 + 16, 8 * 3 * 2 * 3 * 5 + 64 * 3 * 5),
        ("tconv_9x1", 1, 8 * 9 + 64 + 16, (8 * 9 + 64) * 6 * 10),
        ("tconv_9x1", 2, 8 * 9 + 64 + 16, (8 * 9 + 64) * 3 * 5),
    ],
)
def test_operations_cost_what_they_compute(
    op: str, stride: int, parameters: int, macs: int
) -> None:
    assert measure(make_op(op, 8, stride, joints=5), (8, 6, 10)) == Complexity(parameters, macs)


@pytest.mark.parametrize("stride", [1, 2])
def test_a_joint_starts_as_itself_and_some_noise(stride: int) -> None:
    torch.manual_seed(0)
    noise = JointMixing(8, 60, stride).weight.detach() - torch.eye(60)[::stride]
    assert noise.shape == (4, 60 // stride, 60)
    assert noise.norm(dim=2).mean().item() == pytest.approx(JOINT_NOISE, rel=0.05)


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (6, 3), (7, 1), (16, 4), (10, 2)])
def test_groups_divide_the_channels(channels: int, groups: int) -> None:
    assert len(JointMixing(channels, 5, 1).weight) == groups


def test_without_the_number_of_joints_the_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="joint_conv needs the number of joints of a person"):
        make_op("joint_conv", 4, 1)
