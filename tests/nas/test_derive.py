"""`derive` reads run folders and reports broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from skelnas.cli.config_file import make_settings
from skelnas.config import SearchSettings
from skelnas.errors import InputError, UsageError
from skelnas.nas.derive import derive
from skelnas.training.run_dir import ALPHAS, CONFIG, METRICS

OPS = ["none", "skip_connect", "conv_3x3"]
EDGES = 5  # of two nodes


def write_run(folder: Path, alphas: list[dict[str, Any]], done: int = 0, **changed: object) -> Path:
    folder.mkdir(exist_ok=True)
    config = {"verb": "search", "settings": {"stop_skips": None}, "primitives": OPS, **changed}
    (folder / CONFIG).write_text(json.dumps(config))
    (folder / ALPHAS).write_text("".join(json.dumps(line) + "\n" for line in alphas))
    (folder / METRICS).write_text("".join(f'{{"epoch": {e + 1}}}\n' for e in range(done)))
    return folder


def line(epoch: int, op: int) -> dict[str, Any]:
    """Return alphas that prefer one operation everywhere."""
    row = [float(index == op) for index in range(len(OPS))]
    return {"epoch": epoch, "normal": [row] * EDGES, "reduction": [row] * EDGES}


def test_derive_uses_the_last_epoch_within_the_skip_limit(tmp_path: Path) -> None:
    lines = [line(0, 1), line(1, 2), line(2, 1)]
    write_run(tmp_path, lines)
    kinds = [
        {edge.op for node in derive(tmp_path, epoch=epoch).normal for edge in node}
        for epoch in (0, 1, None)
    ]
    assert kinds == [{"skip_connect"}, {"conv_3x3"}, {"skip_connect"}]
    write_run(tmp_path, lines, settings={"stop_skips": 2})
    assert derive(tmp_path) == derive(tmp_path, epoch=1)
    write_run(tmp_path, [line(0, 2), line(1, 1)], settings={"stop_skips": 2})
    assert derive(tmp_path) == derive(tmp_path, epoch=1)  # the initial alphas are not an epoch


@pytest.mark.parametrize(
    "changed",
    [
        {"primitives": None},
        {"primitives": [1, 2]},
        {"settings": None},
        {"settings": {"stop_skips": "two"}},
        {"settings": {"stop_skips": True}},
    ],
)
def test_a_broken_config_is_reported(tmp_path: Path, changed: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"config\.json: expected (primitives|settings)"):
        derive(write_run(tmp_path, [line(0, 1)], **changed))


def test_missing_alphas_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"alphas\.jsonl: no alphas yet") as caught:
        derive(write_run(tmp_path, []))
    assert caught.value.hint == "let the search continue"
    with pytest.raises(
        InputError, match=r"alphas\.jsonl: is missing or cut short: it lacks epoch 3"
    ):
        derive(write_run(tmp_path, [], done=3))
    with pytest.raises(InputError, match=r"is missing or cut short: it lacks epoch 1$"):
        derive(write_run(tmp_path, [line(0, 1), line(2, 1)]))
    derive(write_run(tmp_path, [line(0, 1), line(1, 1)], done=1))
    write_run(tmp_path, [], done=3)
    (tmp_path / ALPHAS).unlink()
    with pytest.raises(
        InputError, match=r"alphas\.jsonl: is missing or cut short: it lacks epoch 3"
    ):
        derive(tmp_path)


def test_an_invalid_line_is_reported_with_its_number(tmp_path: Path) -> None:
    diverged = line(1, 1)
    diverged["reduction"] = [[float("nan")] * 3] * EDGES
    with pytest.raises(InputError, match=r"alphas\.jsonl: epoch 1: the alphas of edge 0") as caught:
        derive(write_run(tmp_path, [line(0, 1), diverged]))
    assert caught.value.hint == "the search has diverged; derive from an earlier epoch"
    with pytest.raises(InputError, match=r"alphas\.jsonl: epoch 0: unexpected content"):
        derive(write_run(tmp_path, [{"epoch": 0, "normal": 7}]))
    with pytest.raises(UsageError, match="no alphas of epoch 4"):
        derive(write_run(tmp_path, [line(0, 1)]), epoch=4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "first", "hessian": "exact"}, "--hessian exact: expected --order second"),
        ({"order": "first", "perturbation": 0.1}, "--perturbation 0.1: expected --order second"),
        ({"engine": "fused", "hessian": "exact"}, "--hessian exact: expected --engine reference"),
        (
            {"hessian": "exact", "perturbation": 0.1},
            "--perturbation 0.1: expected --hessian difference",
        ),
    ],
)
def test_settings_that_would_have_no_effect_are_refused(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        make_settings(SearchSettings, settings)


def test_unchanged_settings_are_accepted() -> None:
    make_settings(SearchSettings, {"order": "first", "hessian": "difference", "perturbation": 0.01})
    make_settings(SearchSettings, {"engine": "reference", "hessian": "exact"})
