"""Exports: folding is exact, and files give the outputs of the model and describe themselves."""

from __future__ import annotations

import io
import json
import sys
import warnings
from pathlib import Path

import pytest
import torch
from conftest import BODY, LAYOUT, overflow
from torch import Tensor, nn
from typer.testing import CliRunner

from skelnas.cli import app
from skelnas.config import EvaluateSettings, ExportFormat, PredictSettings, TrainSettings
from skelnas.errors import InputError, SkelnasError, UsageError
from skelnas.evaluation import export as export_module
from skelnas.evaluation.evaluate import evaluate
from skelnas.evaluation.export import OPSET, choose_format, export
from skelnas.evaluation.predict import predict_stream
from skelnas.genotype import BUILT_IN, random_genotype
from skelnas.models.baselines import BASELINES, Shape, find_baseline
from skelnas.models.fold import fold
from skelnas.models.network import Network
from skelnas.models.norm import BatchNorm
from skelnas.models.ops import make_op
from skelnas.primitives import PRIMITIVES
from skelnas.training.saved_model import load_model, save_model
from skelnas.training.train import train

SMALL = TrainSettings(
    frames=9, layers=3, channels=2, epochs=1, batch_size=8, recipe="paper", device="cpu"
)


@pytest.fixture(scope="module")
def model(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "model"
    train(tiny_cache, BUILT_IN["ntu_cs112se30"], folder, SMALL)
    return folder


def settled(network: nn.Module) -> nn.Module:
    """Randomise the statistics and weights of normalisation, in float64."""
    for module in network.modules():
        if isinstance(module, BatchNorm):
            for numbers in (module.running_mean, module.bias):
                nn.init.normal_(numbers)
            for numbers in (module.running_var, module.weight):
                nn.init.uniform_(numbers, 0.5, 2)
    return network.double().eval()


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, BatchNorm) for module in network.modules())


def check_fold(network: nn.Module, clips: Tensor) -> nn.Module:
    """Check that folding is exact up to float64 rounding; return the folded network."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    folded = fold(network)
    assert torch.allclose(folded(clips), network(clips), rtol=1e-10, atol=1e-10)
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    return folded


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", [name for name in PRIMITIVES if name != "none"])
def test_folding_an_operation_is_exact(name: str, stride: int) -> None:
    torch.manual_seed(0)
    operation = settled(nn.Sequential(make_op(name, 4, stride, joints=5)))
    folded = check_fold(operation, torch.randn(2, 4, 7, 5).double())
    assert norms(folded) == 0


def test_folding_a_network_leaves_no_normalisation() -> None:
    torch.manual_seed(0)
    network = Network(random_genotype(3), in_channels=3, num_classes=4, channels=2, num_layers=9)
    folded = check_fold(settled(network), torch.randn(2, 3, 9, 10).double())
    assert norms(folded) == 0


@pytest.mark.parametrize(("name", "left"), [("hcn", 0), ("st-gcn", 11), ("temporal-conv", 10)])
def test_a_norm_that_does_not_follow_a_convolution_is_not_folded(name: str, left: int) -> None:
    torch.manual_seed(0)
    shape = Shape(3, 5, 2, 4, LAYOUT.bones)
    network = settled(find_baseline(name)(shape))
    assert norms(check_fold(network, torch.randn(2, 3, 12, 10).double())) == left


def test_a_fused_model_can_be_loaded_and_evaluated(
    model: Path, tiny_cache: Path, tmp_path: Path
) -> None:
    written = export(model, tmp_path / "fused.safetensors", "safetensors-fused")
    path = Path(written.path)
    assert written.bytes == path.stat().st_size < written.model_bytes
    assert written.largest_difference <= 1e-4 * written.largest_logit
    loaded = load_model(path)
    assert loaded.card.folded
    assert norms(loaded) == 0
    settings = EvaluateSettings(device="cpu")
    one, other = (evaluate(tiny_cache, file, settings) for file in (model, path))
    assert other.scores.logits == pytest.approx(one.scores.logits, abs=1e-4)
    assert other.complexity.macs == one.complexity.macs

    again = export(path, tmp_path / "again.safetensors", "safetensors-fused")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    assert again.largest_difference == 0
    frames = [json.dumps(BODY.tolist())] * 3
    (window,) = predict_stream(loaded, frames, PredictSettings(device="cpu"))
    assert window.prediction is not None


OTHER_CELLS = {
    "normalised": {"input_norm": True},
    "branches": {"input_norm": True, "branches": True, "streams": "joint,motion"},
}


@pytest.mark.parametrize("name", ["cells", *OTHER_CELLS, *BASELINES])
def test_torchscript_equals_the_model(
    model: Path, tiny_cache: Path, tmp_path: Path, name: str
) -> None:
    if name in OTHER_CELLS:
        model = tmp_path / name
        settings = SMALL.model_copy(update=OTHER_CELLS[name])
        train(tiny_cache, BUILT_IN["ntu_cs112se30"], model, settings)
    elif name != "cells":
        model = tmp_path / name
        train(tiny_cache, name, model, SMALL.model_copy(update={"layers": 9, "channels": 36}))
    out = tmp_path / "model.pt"
    export(model, out, "torchscript")
    extra = {"skelnas.json": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.load(io.BytesIO(out.read_bytes()), _extra_files=extra)
    loaded = load_model(model)
    clips = torch.randn(5, *loaded.card.input_shape)
    assert torch.allclose(traced(clips), loaded(clips), rtol=1e-4, atol=1e-5)
    assert json.loads(extra["skelnas.json"])["classes"] == ["still", "wave", "pair"]


@pytest.mark.parametrize(
    ("name", "channels", "normalisations"),
    [("cells", 3, 0), ("normalised", 3, 1), ("branches", 6, 3)],
)
def test_onnx_equals_the_model(
    model: Path, tiny_cache: Path, tmp_path: Path, name: str, channels: int, normalisations: int
) -> None:
    if name in OTHER_CELLS:
        model = tmp_path / name
        settings = SMALL.model_copy(update=OTHER_CELLS[name])
        train(tiny_cache, random_genotype(0), model, settings)
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    out = tmp_path / "model.onnx"
    assert export(model, out, "onnx").opset == OPSET
    proto = onnx.load(out)
    onnx.checker.check_model(proto, full_check=True)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", OPSET)]
    kinds = [node.op_type for node in proto.graph.node]
    # The input norm of each network does not follow a convolution.
    assert kinds.count("BatchNormalization") == normalisations
    (shape,) = [one.type.tensor_type.shape.dim for one in proto.graph.input]
    assert shape[0].dim_param
    assert [size.dim_value for size in shape[1:]] == [channels, 9, 10]
    assert b".py" not in out.read_bytes()

    session = runtime.InferenceSession(out, providers=["CPUExecutionProvider"])
    described = json.loads(session.get_modelmeta().custom_metadata_map["skelnas"])
    assert described["classes"] == ["still", "wave", "pair"]
    assert described["clip_settings"]["center"] is True
    assert described["layout"]["center_joint"] == LAYOUT.center_joint
    loaded = load_model(model)
    for count in (1, 5):
        clips = torch.randn(count, *loaded.card.input_shape)
        (logits,) = session.run(["logits"], {"clips": clips.numpy()})
        assert logits == pytest.approx(loaded(clips).detach().numpy(), rel=1e-4, abs=1e-5)


def test_an_export_with_other_results_is_not_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model.pt"
    out.write_text("old content")
    for wrong in (
        lambda clips: torch.full((len(clips), 3), 9.0),
        lambda clips: torch.full((len(clips), 3), float("nan")),
        lambda clips: torch.zeros(2, 3),
    ):
        monkeypatch.setitem(export_module.WRITERS, "torchscript", lambda _, run=wrong: (b"", run))
        with pytest.raises(SkelnasError, match="nothing was written"):
            export(model, out, "torchscript")
    assert out.read_text() == "old content"


@pytest.mark.parametrize("format", ["torchscript", "safetensors-fused"])
def test_a_model_whose_scores_are_not_finite_is_not_exported(
    model: Path, tmp_path: Path, format: ExportFormat
) -> None:
    loaded = load_model(model)
    assert isinstance(loaded.network, Network)
    overflow(loaded.network.classifier)
    save_model(tmp_path, loaded.network, loaded.card)
    with pytest.raises(InputError, match="the model: its scores of 'noise' are not finite"):
        export(tmp_path, tmp_path / "out", format)
    assert not (tmp_path / "out").exists()


def test_torchscript_is_not_read_back(model: Path, tmp_path: Path) -> None:
    for name in ("m.ts", "m.pt"):
        export(model, tmp_path / name)
        with pytest.raises(InputError, match="an archive of PyTorch, such as Torch") as refusal:
            load_model(tmp_path / name)
        assert "give the model folder" in str(refusal.value.hint)


def test_models_that_cannot_be_exported_are_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="is the model itself"):
        export(model, model / "model.safetensors", "safetensors-fused")
    with pytest.raises(UsageError, match="is a folder"):
        export(model, tmp_path, "onnx")
    with pytest.raises(UsageError, match=r"model.safetensors is a file, expected a folder"):
        export(model, model / "model.safetensors" / "m.onnx", "onnx")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnx", None)
        with pytest.raises(SkelnasError, match="writing ONNX needs onnx") as failure:
            export(model, tmp_path / "m.onnx", "onnx")
        assert failure.value.hint == "pip install 'skelnas[onnx]'"


def test_hcn_cannot_be_exported_to_onnx(tiny_cache: Path, tmp_path: Path) -> None:
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    train(tiny_cache, "hcn", tmp_path / "hcn", TrainSettings(frames=9, epochs=1, device="cpu"))
    with pytest.raises(UsageError, match="which hcn needs"):
        export(tmp_path / "hcn", tmp_path / "m.onnx", "onnx")


@pytest.mark.parametrize(
    ("name", "format", "expected"),
    [
        ("m.onnx", None, "onnx"),
        ("m.PT", None, "torchscript"),
        ("m.ts", "torchscript", "torchscript"),
        ("m.safetensors", None, "safetensors-fused"),
        ("m", "onnx", "onnx"),
    ],
)
def test_the_name_says_the_format(
    name: str, format: ExportFormat | None, expected: ExportFormat
) -> None:
    assert choose_format(Path(name), format) == expected


def test_names_that_contradict_the_format_are_refused() -> None:
    with pytest.raises(UsageError, match=r"^m.onnx: its name says onnx, not torchscript$"):
        choose_format(Path("m.onnx"), "torchscript")
    for name in ("m", "m.pt2"):
        with pytest.raises(UsageError, match="its name says no format"):
            choose_format(Path(name), None)


def test_the_command_prints_what_it_wrote(model: Path, tmp_path: Path) -> None:
    words = ["export", str(model), "--out"]
    text = CliRunner().invoke(app, [*words, str(tmp_path / "a.safetensors")])
    assert text.exit_code == 0
    assert text.stdout.startswith(f"{tmp_path}/a.safetensors: 0.0")
    assert "differ by at most" in text.stdout
    printed = CliRunner().invoke(app, [*words, str(tmp_path / "b.safetensors"), "--json"])
    document = json.loads(printed.stdout)
    assert document["format"] == "safetensors-fused"
    assert document["bytes"] == (tmp_path / "b.safetensors").stat().st_size
