"""ONNX files as models: the same results and the same checks as of the folder; and in int8."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
import torch
from conftest import BODY, LAYOUT, write_tiny_cache
from typer.testing import CliRunner, Result

from skelnas.cli import app
from skelnas.config import EvaluateSettings, PredictSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.readers.base import Layout
from skelnas.errors import DeviceError, InputError, SkelnasError, UsageError
from skelnas.evaluation import quantize
from skelnas.evaluation.evaluate import evaluate
from skelnas.evaluation.export import export
from skelnas.evaluation.predict import predict, predict_stream
from skelnas.genotype import random_genotype
from skelnas.runtime import onnx_files
from skelnas.training.saved_model import METADATA_KEY, card_facts, load_model
from skelnas.training.train import train

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

ON_CPU = EvaluateSettings(device="cpu")
HELD_OUT = EvaluateSettings(device="cpu", part="held-out")


@pytest.fixture(scope="module")
def folder(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model"
    settings = TrainSettings(
        frames=9, layers=3, channels=4, epochs=10, batch_size=8, hold_out=0.3, device="cpu"
    )
    train(tiny_cache, random_genotype(0), path, settings)
    return path


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return Path(export(folder, folder.with_suffix(".onnx")).path)


@pytest.fixture(autouse=True)
def _same_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def rewrite(file: Path, to: Path, **changes: object) -> Path:
    """Write an ONNX file with other facts, correctly sealed."""
    network, facts = onnx_files.read(file, METADATA_KEY)
    to.write_bytes(onnx_files.to_bytes(network, METADATA_KEY, {**facts, **changes}))
    return to


def test_a_file_scores_like_its_folder(tiny_cache: Path, folder: Path, file: Path) -> None:
    one, other = (evaluate(tiny_cache, path, ON_CPU) for path in (folder, file))
    assert other.scores.info.model != one.scores.info.model
    assert replace(other.scores.info, model="") == replace(one.scores.info, model="")
    assert other.scores.logits == pytest.approx(one.scores.logits, rel=1e-4, abs=1e-4)
    assert other.complexity.macs == one.complexity.macs
    settings = EvaluateSettings(
        device="cpu", part="held-out", views=2, latency=True, passes=2, input_size="9x10", threads=2
    )
    compared = evaluate(tiny_cache, file, settings, folder)
    assert compared.comparison is not None
    assert compared.comparison.top1 == compared.metrics.top1
    assert compared.latency is not None
    assert [latency.threads for latency in compared.latency] == [2, 2]


def test_a_recording_and_a_stream_get_the_classes_of_the_folder(
    folder: Path, file: Path, tmp_path: Path
) -> None:
    recording = tmp_path / "clip.npy"
    np.save(recording, np.tile(BODY, (12, 1, 1)))
    lines = [json.dumps(BODY.tolist())] * 12
    settings = PredictSettings(device="cpu", precision="auto", window=12)
    found = []
    for path in (folder, file):
        model = load_model(path)
        (prediction,) = predict(model, [recording], settings)
        (window,) = predict_stream(model, lines, settings)
        assert window.prediction is not None
        assert window.prediction.logits == pytest.approx(prediction.logits, abs=1e-5)
        found.append(prediction.logits)
    assert found[1] == pytest.approx(found[0], rel=1e-4, abs=1e-4)


def test_what_does_not_fit_the_folder_does_not_fit_the_file(file: Path, tmp_path: Path) -> None:
    renamed = Layout((*LAYOUT.joints[:-1], "head"), LAYOUT.bones, center_joint=1)
    write_tiny_cache(tmp_path / "joints.h5", layout=renamed)
    with pytest.raises(InputError, match=r"does not fit .*joints"):
        evaluate(tmp_path / "joints.h5", file, ON_CPU)
    write_tiny_cache(tmp_path / "classes.h5", classes=("still", "wave", "two"))
    with pytest.raises(InputError, match="class 2 is 'two', not 'pair'"):
        evaluate(tmp_path / "classes.h5", file, ON_CPU)
    np.save(tmp_path / "clip.npy", np.tile(BODY[:4], (12, 1, 1)))
    with pytest.raises(InputError, match="joints"):
        list(predict(load_model(file), [tmp_path / "clip.npy"]))


def test_joints_in_another_order_are_reordered(
    tiny_cache: Path, file: Path, tmp_path: Path
) -> None:
    scores = evaluate(tiny_cache, file, ON_CPU).scores
    order = [4, 2, 0, 1, 3]
    names = [LAYOUT.joints[index] for index in order]
    poses = np.tile(BODY, (12, 1, 1))
    poses[:, 4, 1] += np.sin(np.arange(12))
    plain, named = tmp_path / "plain.json", tmp_path / "named.json"
    plain.write_text(json.dumps(poses.tolist()))
    named.write_text(json.dumps({"joints": names, "poses": poses[:, order].tolist()}))
    one, other = predict(load_model(file), [plain, named])
    assert np.array_equal(one.logits, other.logits)
    assert len(scores) == 12


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ["a", "b"]}, "to 3 logits, expected .* and 2"),
        ({"version": 2}, "not a model of version 1"),
        ({"channels": 4000}, r"weights in [\d,]+ bytes"),
        ({"layers": 10**6}, "edges, but"),
        ({"joints": ["a", "b"]}, "joints and layout disagree"),
        ({"more": 1}, "more"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_description_that_does_not_fit_the_network_is_refused(
    file: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_model(rewrite(file, tmp_path / "m.onnx", **changes))


def test_damage_is_found(file: Path, tmp_path: Path) -> None:
    data, random, damaged = file.read_bytes(), Random(0), tmp_path / "m.onnx"
    for content in (b"", data[: len(data) // 2], data[len(data) // 2 :], b"no ONNX at all"):
        damaged.write_bytes(content)
        with pytest.raises(InputError, match=r"m\.onnx: not a skelnas model"):
            load_model(damaged)
    for _ in range(40):
        changed = bytearray(data)
        changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
        damaged.write_bytes(changed)
        with pytest.raises(InputError):
            load_model(damaged)


def test_networks_that_are_not_ours_are_refused(file: Path, tmp_path: Path) -> None:
    network, facts = onnx_files.read(file, METADATA_KEY)
    (tmp_path / "plain.onnx").write_bytes(network)
    with pytest.raises(InputError, match="its metadata has no 'skelnas' entry"):
        load_model(tmp_path / "plain.onnx")
    for change, message in (
        (lambda graph: setattr(graph.input[0], "name", "x"), "ONNX Runtime refuses it"),
        (
            lambda graph: setattr(graph.input[0].type.tensor_type.shape.dim[0], "dim_value", 2),
            "its shapes are",
        ),
        (lambda graph: graph.output.append(graph.input[0]), "expected an input 'clips'"),
    ):
        proto = onnx.ModelProto.FromString(network)
        change(proto.graph)
        data = onnx_files.to_bytes(proto.SerializeToString(), METADATA_KEY, facts)
        (tmp_path / "m.onnx").write_bytes(data)
        with pytest.raises(InputError, match=message):
            load_model(tmp_path / "m.onnx")


def test_what_is_no_model_is_refused_with_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"m\.onnx: there is no such file") as missing:
        load_model(tmp_path / "m.onnx")
    assert missing.value.hint == "`skelnas export --out FILE` writes it"
    (tmp_path / "m.pt").write_bytes(b"PK of TorchScript")
    with pytest.raises(InputError, match=r"m\.pt: not a skelnas model") as foreign:
        load_model(tmp_path / "m.pt")
    assert ".onnx of `skelnas export`" in str(foreign.value.hint)


def test_weights_in_another_file_are_not_read(file: Path, tmp_path: Path) -> None:
    network, facts = onnx_files.read(file, METADATA_KEY)
    proto = onnx.ModelProto.FromString(network)
    onnx.save(
        proto, tmp_path / "e.onnx", save_as_external_data=True, location="w", size_threshold=0
    )
    data = (tmp_path / "e.onnx").read_bytes()
    (tmp_path / "m.onnx").write_bytes(onnx_files.to_bytes(data, METADATA_KEY, facts))
    with pytest.raises(InputError, match="ONNX Runtime refuses it"):
        load_model(tmp_path / "m.onnx")


def test_a_file_runs_on_the_cpu_and_learns_nothing(
    tiny_cache: Path, file: Path, tmp_path: Path
) -> None:
    with pytest.raises(DeviceError, match="--device cuda: ONNX Runtime computes on the CPU"):
        evaluate(tiny_cache, file, EvaluateSettings(device="cuda"))
    with pytest.raises(DeviceError, match="--precision bf16: ONNX"):
        list(predict(load_model(file), [], PredictSettings(device="cpu", precision="bf16")))
    with pytest.raises(InputError, match="an export, whose normalisation can no longer learn"):
        train(tiny_cache, random_genotype(0), tmp_path / "m", TrainSettings(init=str(file)))
    with pytest.raises(UsageError, match="only ONNX Runtime has"):
        export(file, tmp_path / "again.onnx")


def test_without_the_extra_the_error_names_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SkelnasError, match=r"^reading ONNX needs onnxruntime$") as failure:
        load_model(file)
    assert failure.value.hint == "pip install 'skelnas[onnx]'"


def test_the_installed_command_predicts_from_a_pipe(folder: Path, file: Path) -> None:
    frames = "".join(f"{json.dumps(BODY.tolist())}\n" for _ in range(4))
    command = shutil.which("skelnas")
    assert command is not None
    done = subprocess.run(
        [command, "predict", str(file), "-", "--window", "4", "--json"],
        input=frames,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    document = json.loads(done.stdout)
    assert [one["class"] for one in document["classes"]] == [
        name
        for name, _ in next(
            iter(predict_stream(load_model(folder), frames.splitlines(), PredictSettings()))
        ).prediction.top(5)  # type: ignore[union-attr]
    ]


@pytest.fixture(scope="module")
def int8(tiny_cache: Path, folder: Path) -> tuple[Path, dict[str, object], set[str]]:
    """Return the file in int8, what its export printed, and the names of the clips it has seen."""
    out, names = folder.with_name("int8.onnx"), set()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "fit_clips", lambda clips, *_, **__: names.update(clips.names))
        words = ("export", folder, "--out", out, "--quantize", "int8", "--cache", tiny_cache)
        done = run(*words, "--part", "held-out", "--json")
    assert done.exit_code == 0
    return out, json.loads(done.stdout), names


def test_int8_states_what_it_loses(
    tiny_cache: Path, folder: Path, int8: tuple[Path, dict[str, object], set[str]]
) -> None:
    out, document, _ = int8
    model, quantized = (evaluate(tiny_cache, path, HELD_OUT) for path in (folder, out))
    assert document["model_top1"] == model.metrics.top1
    assert document["top1"] == quantized.metrics.top1
    same = quantized.scores.logits.argmax(1) == model.scores.logits.argmax(1)
    assert document["agreement"] == same.mean() > 0.8
    assert document["bytes"] == out.stat().st_size
    losses = np.abs(quantized.scores.logits - model.scores.logits)
    deviation = model.scores.logits.std()
    assert 0 < np.median(losses) < 0.1 * deviation
    assert losses.max() < deviation


def test_int8_has_seen_training_clips_only(
    tiny_cache: Path, folder: Path, int8: tuple[Path, dict[str, object], set[str]]
) -> None:
    out, document, seen = int8
    test, held_out = (
        set(evaluate(tiny_cache, folder, settings).scores.info.names)
        for settings in (ON_CPU, HELD_OUT)
    )
    assert document["clips"] == len(held_out)
    assert document["calibration_clips"] == len(seen) == 48 - len(test) - len(held_out)
    assert not seen & (test | held_out)
    quantized = card_facts(load_model(out).card)["quantized"]
    assert quantized == {"type": "int8", "calibration_clips": len(seen)}


def test_int8_has_convolutions_of_int8(int8: tuple[Path, dict[str, object], set[str]]) -> None:
    proto = onnx.load(int8[0])
    onnx.checker.check_model(proto, full_check=True)
    assert [entry.domain for entry in proto.opset_import] == [""]
    types = {tensor.data_type for tensor in proto.graph.initializer if len(tensor.dims) == 4}
    assert types == {onnx.TensorProto.INT8}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "i8.onnx"), "--quantize needs clips to choose ranges by"),
        (("--out", "i8.pt", "--cache", "c.h5"), "i8.pt: --quantize is for ONNX only"),
        (("--out", "i8.onnx", "--format", "torchscript"), "i8.onnx: its name says onnx, not torch"),
    ],
)
def test_contradictory_options_of_int8_are_refused(
    folder: Path, words: tuple[str, ...], message: str
) -> None:
    done = run("export", folder, "--quantize", "int8", *words)
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


def test_a_cache_of_other_protocols_is_refused(
    tiny_cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    init = Cache.__init__

    def rename(cache: Cache, *args: object) -> None:
        init(cache, *args)  # type: ignore[arg-type]
        cache.splits = {"official": cache.splits["xsub"]}

    monkeypatch.setattr(Cache, "__init__", rename)
    out = tmp_path / "i8.onnx"
    done = run("export", folder, "--out", out, "--quantize", "int8", "--cache", tiny_cache)
    assert isinstance(done.exception, InputError)
    assert "no protocol" in str(done.exception)
    assert done.exception.hint == "--cache takes the cache of the training"
    assert not out.exists()


def test_a_cache_without_int8_is_refused(folder: Path) -> None:
    done = run("export", folder, "--out", "m.onnx", "--cache", "c.h5")
    assert str(done.exception) == "--cache has the clips for --quantize, which is not given"
