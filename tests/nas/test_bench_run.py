"""`skelnas bench`: from a cache to a table, and from a table to a report."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pydantic import TypeAdapter
from test_bench_statistics import make_table
from test_cli import run

from skelnas.config import BenchSettings
from skelnas.errors import InputError, UsageError
from skelnas.genotype import load, random_genotype
from skelnas.models.cost import NetworkShape, make_cost_table
from skelnas.nas.bench.report import report, score_by_search
from skelnas.nas.bench.run import bench, draw_strata
from skelnas.nas.bench.statistics import Estimate
from skelnas.nas.bench.table import BenchTable, read_table, write_table
from skelnas.nas.budget import UNLIMITED, Budget
from skelnas.primitives import candidates

SETTINGS = {
    "frames": 4,
    "layers": 3,
    "channels": 1,
    "epochs": 2,
    "batch_size": 8,
    "lr": 0.1,
    "device": "cpu",
    "genotypes": 1,
    "nodes": 1,
}
SHAPE = NetworkShape(layers=6, channels=16, frames=32, joints=20, num_classes=10, branches=(3,))


def without_minutes(table: BenchTable) -> BenchTable:
    return replace(table, trials=[replace(trial, minutes=None) for trial in table.trials])


@pytest.fixture(scope="module")
def whole(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BenchTable]:
    out = tmp_path_factory.mktemp("bench") / "whole"
    given = {"mine": random_genotype(7, num_nodes=1)}
    return out, bench(tiny_cache, out, BenchSettings(**SETTINGS, seeds=2), given)


def test_the_table_has_a_training_for_each_genotype_fold_and_seed(
    whole: tuple[Path, BenchTable],
) -> None:
    out, table = whole
    assert table == read_table(out)
    names = [entry.name for entry in table.genotypes]
    assert [entry.kind for entry in table.genotypes] == ["random", "given"]
    folds = ["xsub@subject:1/2", "xsub@subject:2/2"]
    assert [(t.seed, t.protocol, t.genotype) for t in table.trials] == [
        (seed, fold, name) for seed in (0, 1) for fold in folds for name in names
    ]
    assert len({trial.nll for trial in table.trials}) == len(table.trials)
    assert all(len(trial.train_loss or ()) == 2 for trial in table.trials)
    grid = table.grid()
    for name, genotype in zip(names[:1], grid.genotypes(), strict=False):
        assert genotype == random_genotype(int(name.partition(":")[2]), num_nodes=1)
    assert table.settings["channels"] == 1
    assert "genotypes" not in table.settings


def test_more_seeds_may_follow(
    tiny_cache: Path, tmp_path: Path, whole: tuple[Path, BenchTable]
) -> None:
    out = tmp_path / "run"
    first = bench(tiny_cache, out, BenchSettings(**SETTINGS, seeds=1))
    table = bench(tiny_cache, out, BenchSettings(**SETTINGS, seeds=2), resume=True)
    assert table.trials[: len(first.trials)] == first.trials  # to the minute
    expected = [t for t in without_minutes(whole[1]).trials if t.genotype != "mine"]
    assert without_minutes(table).trials == expected


def test_a_folder_with_other_settings_is_refused(
    tiny_cache: Path, whole: tuple[Path, BenchTable]
) -> None:
    settings = BenchSettings(**{**SETTINGS, "epochs": 3})
    with pytest.raises(UsageError, match="started with epochs = 2, now it is 3"):
        bench(tiny_cache, whole[0], settings, resume=True)


def test_no_genotype_is_trained_twice(tiny_cache: Path, tmp_path: Path) -> None:
    settings = BenchSettings(**SETTINGS)
    one, other = (random_genotype(seed, num_nodes=1) for seed in (7, 0))
    for given, message in (
        ({"a": one, "b": one}, "--genotype b: a is trained already"),
        ({"a": other}, "--genotype a: random:0 is trained already"),
        ({"random:0": one}, "--genotype random:0: random:0 is trained already"),
    ):
        with pytest.raises(UsageError, match=message):
            bench(tiny_cache, tmp_path / "run", settings, given)
    assert not (tmp_path / "run").exists()


def test_protocols_may_take_the_place_of_folds(tiny_cache: Path, tmp_path: Path) -> None:
    protocols = "xsub, xsub@clip:2/3"
    settings = BenchSettings(**SETTINGS, protocol=protocols, seeds=1)
    table = bench(tiny_cache, tmp_path / "run", settings)
    assert [trial.protocol for trial in table.trials] == ["xsub", "xsub@clip:2/3"]
    assert [trial.clips for trial in table.trials] == [12, 12]


@pytest.mark.parametrize(("count", "num_strata"), [(24, 6), (10, 2), (3, 1)])
def test_strata_have_equally_many_genotypes(count: int, num_strata: int) -> None:
    costs = make_cost_table(SHAPE, candidates("sar"))
    chosen = draw_strata(costs, UNLIMITED, count)
    assert len(chosen) == count
    sizes = [costs.total(genotype).parameters for genotype in chosen.values()]
    everybody = sorted(costs.total(random_genotype(seed)).parameters for seed in range(200))
    bounds = [everybody[min(200 * n // num_strata, 199)] for n in range(num_strata + 1)]
    for lower, upper in pairwise(bounds):
        found = sum(lower <= size <= upper for size in sizes)
        assert abs(found - count / num_strata) <= 1
    assert all(genotype == random_genotype(seed) for seed, genotype in chosen.items())


@pytest.mark.parametrize("count", [22, 23])
def test_strata_are_filled_up_where_few_genotypes_differ(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "skelnas.nas.bench.run.draw_genotype", lambda seed, *_: random_genotype(seed % 23)
    )
    chosen = draw_strata(make_cost_table(SHAPE, candidates("sar")), UNLIMITED, count)
    assert len(chosen) == len(set(map(str, chosen.values()))) == count


def test_all_genotypes_are_within_a_budget() -> None:
    costs = make_cost_table(SHAPE, candidates("sar"))
    chosen = draw_strata(costs, Budget(max_params=150_000), 8)
    sizes = [costs.total(genotype).parameters for genotype in chosen.values()]
    assert len(sizes) == 8
    assert max(sizes) <= 150_000
    settings = BenchSettings(max_params=150_000, epochs=3)
    assert settings.of_trainings().model_fields_set.isdisjoint({"max_params", "seed"})
    assert settings.of_trainings().epochs == 3


def test_a_space_that_is_too_small_is_refused() -> None:
    shape = replace(SHAPE, nodes=1)
    costs = make_cost_table(shape, candidates("none,skip_connect"))
    with pytest.raises(UsageError, match="--genotypes 2: only 1 different"):
        draw_strata(costs, UNLIMITED, 2)


def test_a_report_is_printed_drawn_and_written_as_json(tmp_path: Path) -> None:
    top1 = np.random.default_rng(0).uniform(size=(9, 2, 2))
    table = make_table(top1)
    table = replace(
        table, genotypes=[*table.genotypes[:8], replace(table.genotypes[8], kind="given")]
    )
    write_table(tmp_path / "table.json", table)
    done = run("skelnas bench report table.json --replays 10 --plot bench.svg --json", tmp_path)
    found = json.loads(done.stdout)
    assert [one["name"] for one in found["genotypes"]] == [f"random:{n}" for n in range(9)]
    assert found["genotypes"][3]["top1"] == pytest.approx(top1[3].mean())
    assert found["spread"]["top1"]["sd_seeds"]["low"] > 0
    assert {one["method"] for one in found["replays"]} == {"random", "halving", "predict"}
    on_front = [one["top1"] for one in found["genotypes"][:8] if one["on_front"]]
    assert on_front == sorted(on_front)
    assert max(on_front) == max(one["top1"] for one in found["genotypes"][:8])

    text = run("skelnas bench report table.json --replays 0", tmp_path).stdout
    assert "8 random genotypes, protocols: 2, seeds: 2, made up" in text
    assert "random:8" in text
    assert "replays" not in text
    picture = (tmp_path / "bench.svg").read_text()
    assert "best given within the cost" in picture
    again = run("skelnas bench report table.json --replays 0 --plot again.svg", tmp_path)
    assert again.returncode == 0
    assert (tmp_path / "again.svg").read_text() == picture


def test_what_a_report_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text("{}")
    done = run("skelnas bench report other.json", tmp_path)
    assert done.returncode == 3
    assert "other.json: not the table of a benchmark" in done.stderr
    write_table(tmp_path / "small.json", make_table(np.full((3, 2, 2), 0.5)))
    done = run("skelnas bench report small.json", tmp_path)
    assert done.returncode == 3
    assert "the table has 3 random genotypes" in done.stderr
    write_table(tmp_path / "small.json", make_table(np.full((4, 2, 2), 0.5)))
    done = run("skelnas bench report small.json", tmp_path)
    assert done.returncode == 0
    assert "no replays: a replay needs 8 random genotypes" in done.stderr
    done = run("skelnas bench report small.json --replays 20", tmp_path)
    assert done.returncode == 2
    done = run("skelnas bench report small.json --plot bench.gif", tmp_path)
    assert done.returncode == 2


def test_incomplete_genotypes_are_named() -> None:
    table = make_table(np.random.default_rng(1).uniform(size=(5, 2, 2)))
    found = report(replace(table, trials=table.trials[1:]))
    assert found.left_out == ["random:0"]
    assert len(found.genotypes) == 4


def test_the_alphas_of_a_search_score_genotypes_by_their_edges(tmp_path: Path) -> None:
    primitives = ["none", "skip_connect", "sep_conv_3x3"]
    weights = np.array([[0.1, 0.2, 0.7], [0.1, 0.6, 0.3]])  # of two edges of one node
    line = {"epoch": 1, "normal": np.log(weights).tolist(), "reduction": [[0, 0, 0]] * 2}
    config = {"verb": "search", "primitives": primitives, "settings": {"stop_skips": None}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "alphas.jsonl").write_text(json.dumps(line) + "\n")

    def genotype(first: str, second: str) -> dict[str, object]:
        cell = [[[first, 0], [second, 1]]]
        skips = [[["skip_connect", 0], ["skip_connect", 1]]]
        head = {"format": "skelnas-genotype", "version": 1}
        return {**head, "normal": cell, "reduction": skips}

    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    paths[0].write_text(json.dumps(genotype("sep_conv_3x3", "skip_connect")))
    paths[1].write_text(json.dumps(genotype("skip_connect", "sep_conv_3x3")))
    genotypes = [load(str(path)) for path in paths]
    found = score_by_search(tmp_path, genotypes)
    np.testing.assert_allclose(found, [0.7 + 0.6 + 2 / 3, 0.2 + 0.3 + 2 / 3])
    with pytest.raises(InputError, match="other operations or nodes"):
        score_by_search(tmp_path, [random_genotype(0)])


def test_another_table_of_the_same_genotypes_ranks_them(tmp_path: Path) -> None:
    top1 = np.random.default_rng(2).uniform(size=(6, 2, 2))
    short = make_table(top1)
    write_table(tmp_path / "short.json", replace(short, genotypes=short.genotypes[::-1]))
    write_table(tmp_path / "fewer.json", make_table(top1[:5]))
    found = report(make_table(top1), others=[tmp_path / "short.json"])
    assert found.ranks[str(tmp_path / "short.json")].value == 1
    with pytest.raises(InputError, match=r"fewer.json: lacks 1 of the 6 random genotypes"):
        report(make_table(top1), others=[tmp_path / "fewer.json"])


@pytest.mark.parametrize("name", ["nw_ucla", "msrc12"])
def test_the_published_figures_are_those_of_the_published_table(name: str) -> None:
    root = Path(__file__).parents[2]
    found = report(
        read_table(root / "benchmarks" / "results" / f"genotypes_{name}.json"), replays=0
    )
    page = (root / "docs" / "results.md").read_text(encoding="utf-8")
    section = page.partition("## Do genotypes differ?")[2].partition("\n## ")[0]

    def shown(estimate: Estimate, digits: int) -> str:
        numbers = estimate.value, estimate.low, estimate.high
        value, low, high = (f"{number:.{digits}f}" for number in numbers)
        return f"{value} [{low}, {high}]"

    for spread in ("sd_seeds", "sd_genotypes", "sd_equal_parameters"):
        top1, loss = (found.spread[measure][spread] for measure in ("top1", "nll"))
        assert f"| {shown(top1, 2)} | {shown(loss, 3)} |" in section, spread
    assert shown(found.spread["top1"]["per_doubling"], 2) in section
    for ranked_by in ("seed", "fold", "loss_seed", "loss_fold", "loss", "parameters"):
        assert f"| {shown(found.ranks[ranked_by], 2)} |" in section, ranked_by


def test_the_schema_is_that_of_the_table(whole: tuple[Path, BenchTable]) -> None:
    path = Path(__file__).parents[2] / "docs" / "bench.schema.json"
    schema = json.loads(path.read_text(encoding="utf-8"))
    document = json.loads((whole[0] / "table.json").read_text())
    for part, of_schema in (
        (document, schema),
        (document["genotypes"][0], schema["$defs"]["GenotypeEntry"]),
        (document["trials"][0], schema["$defs"]["TrialEntry"]),
    ):
        assert part.keys() == of_schema["properties"].keys()
        assert set(of_schema["required"]) <= part.keys()
        assert of_schema["additionalProperties"] is False
    made = TypeAdapter(BenchTable).json_schema()
    for name, entry in made["$defs"].items():
        for key, value in entry["properties"].items():
            value = {k: v for k, v in value.items() if k != "title"}
            assert schema["$defs"][name]["properties"][key] == value
