"""Trackers: each epoch once, also after stopping, failing and resuming; W&B and MLflow offline."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from conftest import TINY_SEARCH
from interrupting import stop_after

from skelnas.config import TrackerName, TrainSettings
from skelnas.errors import InputError, Interrupted, SkelnasError
from skelnas.genotype import random_genotype
from skelnas.nas.resume import resume
from skelnas.nas.search import search
from skelnas.training import run_dir
from skelnas.training.tracking import find_tracker
from skelnas.training.train import train

TRAIN = TrainSettings(frames=6, layers=3, channels=2, epochs=3, batch_size=12, device="cpu")


class Service:
    """A made-up service; it refuses what is in `refuses`, and remembers the rest in `calls`."""

    can_rewind: ClassVar[bool] = False
    hint: ClassVar[str] = "ask its owner"
    calls: ClassVar[list[tuple[Any, ...]]] = []
    refuses: ClassVar[set[str | int]] = set()

    def open(self, folder: Path, run: str | None, config: Mapping[str, Any], epoch: int) -> str:
        if "open" in self.refuses:
            raise ConnectionError("who are you?\nmore")
        self.calls.append(("open", run, config["settings"]["lr"], config["versions"]["skelnas"]))
        return "run 7"

    def log(self, epoch: int, values: Mapping[str, float], genotype: str | None) -> None:
        if epoch in self.refuses:
            raise ConnectionError("nobody there")
        what = "genotype" if genotype is not None else "loss/train"
        self.calls.append((what, epoch, genotype or values[what]))

    def close(self, *, failed: bool) -> None:
        self.calls.append(("close", failed))


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> type[Service]:
    monkeypatch.setitem(
        sys.modules, "skelnas.training.tracking.wandb", SimpleNamespace(Tracker=Service)
    )
    monkeypatch.setattr(Service, "calls", [])
    monkeypatch.setattr(Service, "refuses", set())
    return Service


def stopped(cache: Path, out: Path, steps: int, track: TrackerName) -> None:
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, steps)
        with pytest.raises(Interrupted):
            train(cache, random_genotype(0), out, TRAIN, track=track)


def epochs(service: type[Service], what: str) -> list[int]:
    return [call[1] for call in service.calls if call[0] == what]


def test_a_search_sends_metrics_and_genotypes(
    tiny_cache: Path, tmp_path: Path, service: type[Service]
) -> None:
    search(tiny_cache, tmp_path, TINY_SEARCH, track="wandb")
    assert epochs(service, "loss/train") == [1, 2, 3]
    assert epochs(service, "genotype") == [0, 1, 2, 3]
    sent = [call[2] for call in service.calls if call[0] == "loss/train"]
    assert sent == [line["train_loss"] for line in run_dir.read_lines(tmp_path / run_dir.METRICS)]
    assert "skelnas-genotype" in next(call for call in service.calls if call[0] == "genotype")[2]
    assert service.calls[-1] == ("close", False)


def test_a_resumed_training_goes_on_in_the_same_run(
    tiny_cache: Path, tmp_path: Path, service: type[Service]
) -> None:
    stopped(tiny_cache, tmp_path, 4, "wandb")
    assert service.calls[0][1] is None
    assert service.calls[-1] == ("close", True)
    assert find_tracker(tmp_path) == "wandb"
    resume(tmp_path)
    assert [call[1] for call in service.calls if call[0] == "open"] == [None, "run 7"]
    assert epochs(service, "loss/train") == [1, 2, 3]


def test_an_epoch_that_is_computed_again_is_sent_once(
    tiny_cache: Path, tmp_path: Path, service: type[Service]
) -> None:
    stopped(tiny_cache, tmp_path, 1, "wandb")
    checkpoint = (tmp_path / run_dir.CHECKPOINT).read_bytes()
    train(tiny_cache, random_genotype(0), tmp_path, TRAIN, resume=True, track="wandb")
    (tmp_path / run_dir.CHECKPOINT).write_bytes(checkpoint)  # as if it had been killed in between
    metrics = tmp_path / run_dir.METRICS
    metrics.write_text(metrics.read_text().splitlines(keepends=True)[0])
    train(tiny_cache, random_genotype(0), tmp_path, TRAIN, resume=True, track="wandb")
    assert epochs(service, "loss/train") == [1, 2, 3]


def test_earlier_epochs_are_sent_when_tracking_starts_late(
    tiny_cache: Path, tmp_path: Path, service: type[Service]
) -> None:
    train(tiny_cache, random_genotype(0), tmp_path, TRAIN)
    assert find_tracker(tmp_path) is None
    train(tiny_cache, random_genotype(0), tmp_path, TRAIN, resume=True, track="wandb")
    assert epochs(service, "loss/train") == [1, 2, 3]


def test_a_failing_service_stops_no_run_and_misses_no_epoch(
    tiny_cache: Path,
    tmp_path: Path,
    service: type[Service],
    capsys: pytest.CaptureFixture[str],
) -> None:
    service.refuses.add(2)
    train(tiny_cache, random_genotype(0), tmp_path, TRAIN, track="wandb")
    assert epochs(service, "loss/train") == [1]
    error = capsys.readouterr().err
    assert error.count("--track wandb: nobody there; the next epoch tries again") == 2
    service.refuses.clear()
    train(tiny_cache, random_genotype(0), tmp_path, TRAIN, resume=True, track="wandb")
    assert epochs(service, "loss/train") == [1, 2, 3]


def test_a_service_that_refuses_is_named_before_the_first_step(
    tiny_cache: Path, tmp_path: Path, service: type[Service]
) -> None:
    service.refuses.add("open")
    with pytest.raises(SkelnasError, match=r"^--track wandb: who are you\?$") as caught:
        train(tiny_cache, random_genotype(0), tmp_path, TRAIN, track="wandb")
    assert caught.value.hint == "ask its owner"
    assert not (tmp_path / run_dir.METRICS).exists()
    assert service.calls == []


def test_force_begins_a_new_run(tiny_cache: Path, tmp_path: Path, service: type[Service]) -> None:
    for _ in range(2):
        train(tiny_cache, random_genotype(0), tmp_path, TRAIN, force=True, track="wandb")
    assert [call[1] for call in service.calls if call[0] == "open"] == [None, None]
    assert epochs(service, "loss/train") == [1, 2, 3] * 2


@pytest.mark.parametrize("content", ["", "[]", '{"run": 3, "sent": {}}', '{"run": "x"}'])
def test_a_damaged_record_of_the_tracker_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / run_dir.TRACKER).write_text(content)
    with pytest.raises(InputError, match=r"tracker\.json: ") as caught:
        find_tracker(tmp_path)
    assert caught.value.hint == "without it, a new run is tracked"


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_without_its_package_a_tracker_names_its_extra(
    tiny_cache: Path, tmp_path: Path, name: TrackerName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"skelnas.training.tracking.{name}", raising=False)
    for module in (name, f"{name}.entities"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SkelnasError, match=f"^--track {name} needs the package {name}") as caught:
        train(tiny_cache, random_genotype(0), tmp_path / "m", TRAIN, track=name)
    assert caught.value.hint == f'pip install "skelnas[{name}]"'
    assert not (tmp_path / "m").exists()


@pytest.mark.filterwarnings("ignore")
def test_wandb_offline(tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tmp_path / "model"
    stopped(tiny_cache, out, 4, "wandb")
    resume(out)
    logs = sorted(out.glob("wandb/offline-run-*/*.wandb"))
    assert len(logs) == 2
    assert len({log.name for log in logs}) == 1  # the same run
    records = [record for log in logs for record in read_wandb(log)]
    rows = [
        {
            item.key or item.nested_key[0]: json.loads(item.value_json)
            for item in record.history.item
        }
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    metrics = run_dir.read_lines(out / run_dir.METRICS)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["loss/train"] for row in rows] == [line["train_loss"] for line in metrics]
    (first, _) = (r.run for r in records if r.WhichOneof("record_type") == "run")
    config = {entry.key: json.loads(entry.value_json) for entry in first.config.update}
    assert config["settings"]["batch_size"] == 12
    assert set(config["versions"]) == {"skelnas", "python", "torch", "numpy"}
    assert first.project == "skelnas"


def read_wandb(path: Path) -> list[Any]:
    """Read W&B's file of an offline run: a header, then small records as LevelDB logs them."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, records = path.read_bytes(), 7, []
    assert len(data) < 1 << 15  # a single block
    while at < len(data):
        _, size, kind = struct.unpack("<IHB", data[at : at + 7])
        assert kind == 1  # a whole record
        records.append(Record.FromString(data[at + 7 : at + 7 + size]))
        at += 7 + size
    return records


@pytest.mark.filterwarnings("ignore")
def test_mlflow_in_files(tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(Interrupted):
            search(tiny_cache, out, TINY_SEARCH, track="mlflow")
    client = MlflowClient()
    experiment = client.get_experiment_by_name("skelnas")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "KILLED"
    resume(out)
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"{tmp_path.name}/run"
    assert run.data.params["settings.alpha_lr"] == "0.05"
    assert run.data.params["versions.skelnas"]
    history = client.get_metric_history(run.info.run_id, "loss/train")
    metrics = run_dir.read_lines(out / run_dir.METRICS)
    assert [(metric.step, metric.value) for metric in history] == [
        (line["epoch"], line["train_loss"]) for line in metrics
    ]
    shares = client.get_metric_history(run.info.run_id, "normal_share/se_connect")
    assert [metric.step for metric in shares] == [0, 1, 2, 3]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["genotype.json"]
