"""Budgets from `search` to `train`: for the network that is trained, not for the supernet."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import LAYOUT, write_tiny_cache
from interrupting import stop_after
from test_cli import run as run_command
from test_search import assert_same
from typer.testing import CliRunner

from skelnas.cli import app
from skelnas.cli.config_file import make_settings
from skelnas.cli.tables import print_front
from skelnas.config import SearchSettings, TrainSettings
from skelnas.derivation import count_skips
from skelnas.errors import InputError, Interrupted, UsageError
from skelnas.genotype import BUILT_IN, Genotype, from_dict, load, random_genotype
from skelnas.models.complexity import Complexity, measure
from skelnas.models.network import Network
from skelnas.nas.derive import Perturbation, derive
from skelnas.nas.front import derive_front
from skelnas.nas.repeats import repeat
from skelnas.nas.search import search
from skelnas.nas.target import draw_for_training
from skelnas.reporting.history import read_history
from skelnas.reporting.plot_budget import draw_budget_front
from skelnas.training import run_dir
from skelnas.training.train import train

LIMIT = 2400
SEARCH = SearchSettings(
    frames=6,
    layers=3,
    channels=2,
    nodes=2,
    epochs=2,
    batch_size=6,
    order="first",
    alpha_lr=0.3,
    device="cpu",
    max_params=LIMIT,
)
TRAIN = TrainSettings(frames=6, layers=4, channels=4, epochs=1, batch_size=12, device="cpu")
SIZES = {"layers": 4, "channels": 4, "frames": 6}


@pytest.fixture(scope="module")
def searched(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("target") / "run"
    search(tiny_cache, out, SEARCH, training=TRAIN)
    return out


def cost_of(genotype: Genotype, channels: int = 4, layers: int = 4) -> Complexity:
    """Return the cost of the network that TRAIN makes for the tiny cache."""
    network = Network(genotype, in_channels=3, num_classes=3, channels=channels, num_layers=layers)
    return measure(network, (3, 6, 2 * len(LAYOUT.joints)))


def without_limits(run: Path, copy: Path) -> Path:
    """Copy a run as if its search had no budget."""
    shutil.copytree(run, copy)
    config = json.loads((copy / run_dir.CONFIG).read_text())
    for name in ("network", "training"):
        del config[name]
    del config["settings"]["max_params"]
    (copy / run_dir.CONFIG).write_text(json.dumps(config))
    lines = [
        {name: line[name] for name in ("epoch", "normal", "reduction")}
        for line in run_dir.read_lines(copy / run_dir.ALPHAS)
    ]
    (copy / run_dir.ALPHAS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return copy


def test_a_search_derives_within_its_budget(searched: Path, tmp_path: Path) -> None:
    free = derive(without_limits(searched, tmp_path / "free"))
    assert cost_of(free).parameters > LIMIT
    genotype = derive(searched)
    assert cost_of(genotype).parameters <= LIMIT
    lines = run_dir.read_lines(searched / run_dir.ALPHAS)
    for line in lines:
        assert cost_of(from_dict(line["genotype"], "line")).parameters <= LIMIT
        assert derive(searched, epoch=line["epoch"]).to_dict() == line["genotype"]
    assert read_history(searched).genotypes == {
        line["epoch"]: from_dict(line["genotype"], "line") for line in lines
    }
    metrics = run_dir.read_lines(searched / run_dir.METRICS)
    assert metrics[-1]["skips"] == count_skips(genotype)


def test_what_is_recorded_is_what_would_be_derived(searched: Path, tmp_path: Path) -> None:
    """With other options the genotype is derived again, from the recorded shape."""
    assert derive(searched, max_skip=8) == derive(searched)
    moved = without_limits(searched, tmp_path / "free")
    limits = TrainSettings(max_params=LIMIT, **SIZES)
    assert derive(moved, training=limits) == derive(searched)


def test_without_a_record_clips_are_those_of_the_search(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = without_limits(searched, tmp_path / "free")
    capsys.readouterr()
    sizes = {"layers": 4, "channels": 4}
    macs = cost_of(derive(searched)).macs
    found = derive(moved, training=TrainSettings(max_params=LIMIT, max_macs=macs, **sizes))
    assert found == derive(searched)
    line = "derive: counts a network of 4 layers, 4 channels and clips of 6 frames and 10 joints\n"
    assert capsys.readouterr().err == line


def test_options_replace_what_is_recorded(searched: Path) -> None:
    smaller = derive(searched, training=TrainSettings(max_params=LIMIT - 200))
    assert cost_of(smaller).parameters <= LIMIT - 200
    wider = derive(searched, training=TrainSettings(channels=6, max_params=4800))
    assert 4800 >= cost_of(wider, channels=6).parameters > LIMIT
    macs = cost_of(derive(searched)).macs - 1
    fewer = derive(searched, training=TrainSettings(max_macs=macs))
    assert cost_of(fewer).macs <= macs
    assert cost_of(fewer).parameters <= LIMIT


def test_a_resumed_search_within_a_budget_is_the_same(
    tiny_cache: Path, searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(Interrupted):
            search(tiny_cache, out, SEARCH, training=TRAIN)
    larger = SEARCH.model_copy(update={"max_params": LIMIT + 1})
    with pytest.raises(UsageError, match="was started with max_params"):
        search(tiny_cache, out, larger, training=TRAIN, resume=True)
    other = TRAIN.model_copy(update={"channels": 3})
    with pytest.raises(UsageError, match="was started with channels = 4"):
        search(tiny_cache, out, SEARCH, training=other, resume=True)
    search(tiny_cache, out, SEARCH, training=TRAIN, resume=True)
    assert_same(out, searched)


def test_an_impossible_budget_is_refused_before_the_search(
    tiny_cache: Path, tmp_path: Path
) -> None:
    settings = SEARCH.model_copy(update={"max_params": 100})
    with pytest.raises(UsageError, match=r"--max-params 100: expected [\d,]+ or more") as caught:
        search(tiny_cache, tmp_path / "run", settings, training=TRAIN)
    assert not (tmp_path / "run").exists()
    smallest = int(str(caught.value).split("expected ")[1].split()[0].replace(",", ""))
    settings = SEARCH.model_copy(update={"max_params": smallest, "epochs": 1})
    search(tiny_cache, tmp_path / "run", settings, training=TRAIN)
    assert cost_of(derive(tmp_path / "run")).parameters == smallest


def test_perturbation_within_a_budget(searched: Path) -> None:
    genotype = derive(searched, perturbation=Perturbation(num_clips=1))
    assert cost_of(genotype).parameters <= LIMIT
    assert genotype != derive(searched)


def test_a_front_of_a_search(searched: Path) -> None:
    front = derive_front(searched, by="macs")
    assert front.costs == sorted(front.costs)
    for point, (low, middle, high) in zip(front.points, front.random, strict=True):
        assert cost_of(point.genotype) == point.cost
        assert low <= middle <= high <= point.score
        limits = TrainSettings(max_macs=point.cost.macs, max_params=10**9)
        assert derive(searched, training=limits) == point.genotype


def test_the_front_is_printed_and_drawn(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "front.svg"
    done = run_command(f"skelnas derive {searched} --front --json --plot {picture}", tmp_path)
    document = json.loads(done.stdout)
    assert document["by"] == "parameters"
    for point in document["points"]:
        genotype = from_dict(point["genotype"], "point")
        assert cost_of(genotype) == Complexity(point["parameters"], point["macs"])
    assert f"limit {LIMIT:,}" in picture.read_text()
    print_front(derive_front(searched))
    table = capsys.readouterr().out
    for point in document["points"]:
        assert f"{point['parameters']:,}" in table


def test_a_front_is_always_drawn_the_same(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        random = [(0.1, 0.2, 0.3), (0.2, 0.3, 0.4)]
        draw_budget_front(tmp_path / name, [100, 2000], [0.5, 0.7], random, "parameters", limit=500)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with pytest.raises(UsageError, match=r"front\.jpg: cannot draw"):
        draw_budget_front(tmp_path / "front.jpg", [1], [1.0], [(0.0, 0.0, 0.0)], "parameters")


def test_options_without_effect_are_refused(searched: Path, tmp_path: Path) -> None:
    run = without_limits(searched, tmp_path / "free")
    with pytest.raises(UsageError, match=r"^--channels needs --max-params, --max-macs or --front$"):
        derive(run, training=TrainSettings(channels=4))
    with pytest.raises(UsageError, match=r"^--cache needs --select perturbation, --max-params"):
        derive(run, cache=tmp_path / "x.h5")
    for options, message in (
        ("--by macs", "--by needs --front"),
        ("--front --max-skip 2", "--front takes neither --out nor --max-skip"),
    ):
        done = run_command(f"skelnas derive {run} {options}", tmp_path)
        assert (done.returncode, message in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "number"),
    [("200k", 200_000), ("1.2M", 1_200_000), ("0.5G", 500_000_000), ("1234", 1234), (7, 7)],
)
def test_limits_may_have_a_unit(text: str | int, number: int) -> None:
    settings = make_settings(TrainSettings, {"max_params": text, "max_macs": text})
    assert (settings.max_params, settings.max_macs) == (number, number)


@pytest.mark.parametrize("text", ["", "k", "1e5", "-5k", "1.2345k", "200 k", "200K", "nan", "1.5"])
def test_other_limits_are_refused(text: str) -> None:
    expected = "expected a whole number such as 200000, 200k or 1.2M"
    with pytest.raises(UsageError, match=f"^--max-macs {text}: {expected}$"):
        make_settings(SearchSettings, {"max_macs": text})


def test_the_cache_is_needed_where_no_shape_is_recorded(
    tiny_cache: Path, searched: Path, tmp_path: Path
) -> None:
    run = without_limits(searched, tmp_path / "free")
    config = json.loads((run / run_dir.CONFIG).read_text())
    (run / run_dir.CONFIG).write_text(json.dumps({**config, "cache": "gone.h5"}))
    limits = TrainSettings(max_params=LIMIT, **SIZES)
    with pytest.raises(InputError, match=r"gone\.h5: the cache of the search is missing") as caught:
        derive(run, training=limits)
    assert caught.value.hint == "--cache gives its new path"
    assert derive(run, training=limits, cache=tiny_cache) == derive(searched)
    other = tmp_path / "other.h5"
    write_tiny_cache(other, classes=[f"class {index}" for index in range(100)])
    with pytest.raises(UsageError, match=r"--max-params 2,400: expected [\d,]+ or more"):
        derive(run, training=limits, cache=other)  # its classifier is too large


@pytest.mark.parametrize("change", [{"network": {"layers": 3}}, {"training": 7}, {"settings": []}])
def test_a_broken_config_is_reported(
    searched: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(searched, run)
    config = json.loads((run / run_dir.CONFIG).read_text())
    (run / run_dir.CONFIG).write_text(json.dumps({**config, **change}))
    with pytest.raises(InputError, match=r"config\.json: (unexpected content|expected settings)"):
        derive(run, keep=1, training=TrainSettings(max_params=LIMIT))


def test_a_training_keeps_within_its_limits(tiny_cache: Path, tmp_path: Path) -> None:
    genotype = BUILT_IN["ntu_cs112se30"]
    cost = cost_of(genotype)
    for limits in ({"max_params": cost.parameters - 1}, {"max_macs": cost.macs - 1}):
        settings = TRAIN.model_copy(update=limits)
        ((name, limit),) = limits.items()
        message = f"--{name.replace('_', '-')} {limit}: the network has {limit + 1}"
        with pytest.raises(UsageError, match=message):
            train(tiny_cache, genotype, tmp_path / "model", settings)
    assert not (tmp_path / "model").exists()
    exact = TRAIN.model_copy(update={"max_params": cost.parameters, "max_macs": cost.macs})
    train(tiny_cache, genotype, tmp_path / "model", exact)


def test_random_genotypes_of_a_training_are_within_its_limits(
    tiny_cache: Path, tmp_path: Path
) -> None:
    loose = TRAIN.model_copy(update={"max_params": 10**9})
    assert draw_for_training(tiny_cache, loose, 1, "sar") == load("random:1")
    limit = cost_of(random_genotype(1)).parameters - 500
    options = ["train", str(tiny_cache), "--genotype", "random:1", "--max-params", str(limit)]
    for name in ("frames", "layers", "channels", "epochs", "batch_size", "device"):
        options += [f"--{name.replace('_', '-')}", str(getattr(TRAIN, name))]
    done = CliRunner().invoke(app, [*options, "--out", str(tmp_path / "m")])
    assert done.exit_code == 0, done.output
    found = from_dict(run_dir.read_config(tmp_path / "m")["model"]["genotype"], "model")
    assert found != random_genotype(1)
    assert cost_of(found).parameters <= limit
    limits = TRAIN.model_copy(update={"max_params": limit})
    assert found == draw_for_training(tiny_cache, limits, 1, "sar")


def test_repeats_compare_within_a_budget(tiny_cache: Path, tmp_path: Path) -> None:
    settings = SEARCH.model_copy(update={"epochs": 1, "seed": 3})
    result = repeat(tiny_cache, tmp_path, settings, TRAIN, count=1)
    assert [network["name"] for network in result["networks"]] == ["searched-3", "random-3"]
    assert all(network["parameters"] <= LIMIT for network in result["networks"])
    assert cost_of(random_genotype(3, num_nodes=2)).parameters > LIMIT
    for name in ("searched-3", "random-3"):
        assert run_dir.read_config(tmp_path / name)["settings"]["max_params"] == LIMIT
