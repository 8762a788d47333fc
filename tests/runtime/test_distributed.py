"""Two ranks compute what one process computes, and end together."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import torch
from rank_steps import DECIDING, EVALUATE, HALVES, SEARCH, TRAIN, all_steps, search_step
from ranks import HERE, environment, finish, start
from safetensors.torch import load_file
from test_search import assert_same, outcome
from torch.distributed import HashStore
from typer.testing import CliRunner

from skelnas.cli import app
from skelnas.config import SearchSettings
from skelnas.errors import Interrupted, SkelnasError, UsageError
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import BUILT_IN
from skelnas.nas.search import search
from skelnas.runtime import distributed
from skelnas.training import run_dir
from skelnas.training.train import train

Outcome = tuple[dict[str, torch.Tensor], list[dict[str, object]], str]

approx = partial(pytest.approx, rel=1e-3)

CLOSE = {"rtol": 1e-9, "atol": 1e-12}
"""The same sums in float64, in another order."""


def flags(settings: SearchSettings) -> list[str]:
    options = settings.model_dump(exclude_unset=True).items()
    return [word for name, value in options for word in (f"--{name.replace('_', '-')}", str(value))]


def command(verb: str, *words: str | Path) -> list[subprocess.Popen[str]]:
    """Run a command on two ranks."""
    return start(["-m", "skelnas", verb, *words])


def assert_close(actual: Outcome, expected: Outcome) -> None:
    """Check that two runs differ by float32 rounding only."""
    torch.testing.assert_close(actual[0], expected[0], rtol=1e-3, atol=1e-4)
    for ours, theirs in zip(actual[1], expected[1], strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert value == (theirs[name] if isinstance(value, str) else approx(theirs[name]))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@dataclass(frozen=True)
class Pair:
    """The files, results and messages of two ranks."""

    folder: Path
    codes: list[int]
    printed: list[str]
    messages: list[str]

    def both(self, name: str) -> dict[str, torch.Tensor]:
        """Return the results, checked to be the same bits on both ranks."""
        assert self.codes == [2, 2], self.messages
        first, second = (load_file(self.folder / f"{name}{rank}.safetensors") for rank in range(2))
        assert first.keys() == second.keys()
        assert [key for key in first if not torch.equal(first[key], second[key])] == []
        return first


@pytest.fixture(scope="module")
def pair(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    return Pair(folder, *finish(start([HERE / "rank_steps.py", tiny_cache, folder])))


def test_two_ranks_take_the_same_steps_as_one_process(pair: Pair) -> None:
    """Covers both Hessian terms, drop-path, statistics and the baselines."""
    torch.testing.assert_close(pair.both("sync"), all_steps(), **CLOSE)


def test_separate_statistics_on_each_rank(pair: Pair) -> None:
    torch.testing.assert_close(pair.both("rank"), search_step(HALVES), **CLOSE)
    whole = search_step()
    assert (pair.both("rank")["normal"] - whole["normal"]).abs().max() > 1e-4


def test_communication_between_ranks(pair: Pair) -> None:
    results = pair.both("talk")
    assert results["flags"].tolist() == [True, False]
    assert results["rows"].tolist() == [[1, 7], [2, 7]]
    assert results["shared"].tolist() == [[0, 0], [0, 0]]
    assert results["reports"].item() == 1
    message = bytes(results["disagreement"].tolist()).decode()
    assert message == "the ranks disagree in epoch 3: rank 1 holds other numbers than rank 0"


@pytest.mark.parametrize(("name", "settings"), [("run", SEARCH), ("deciding", DECIDING)])
def test_a_search_on_two_ranks_equals_one_process(
    tiny_cache: Path, pair: Pair, tmp_path: Path, name: str, settings: SearchSettings
) -> None:
    """By default, and with weights first, exponentiated gradients and steering to a budget."""
    search(tiny_cache, tmp_path / name, settings)
    assert_close(outcome(pair.folder / name), outcome(tmp_path / name))


def test_a_training_on_two_ranks_equals_one_process(
    tiny_cache: Path, pair: Pair, tmp_path: Path
) -> None:
    trained = train(tiny_cache, BUILT_IN["ntu_cs112se30"], tmp_path / "model", TRAIN)
    one, two = load_file(trained.path), load_file(pair.folder / "model" / run_dir.MODEL)
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4)


def test_two_ranks_score_every_clip_once(tiny_cache: Path, pair: Pair) -> None:
    scores = evaluate(tiny_cache, pair.folder / "model", EVALUATE).to_dict()
    assert [json.loads(printed) for printed in pair.printed] == 2 * [json.loads(json.dumps(scores))]
    assert sum(map(sum, scores["confusion"])) == 12


def test_stopped_ranks_resume_to_the_same_result(pair: Pair) -> None:
    assert_same(pair.folder / "run", pair.folder / "stopped")


def test_a_dead_rank_ends_all_and_one_process_can_resume(
    tiny_cache: Path, pair: Pair, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ranks = command("search", tiny_cache, "--out", out, *flags(SEARCH))
    wait_for(lambda: (out / run_dir.METRICS).exists())
    ranks[1].kill()
    codes, _, messages = finish(ranks)
    assert codes == [1, -signal.SIGKILL], messages
    assert "skelnas: another rank is gone\n  hint: " in messages[0]
    assert "Traceback" not in messages[0]
    search(tiny_cache, out, SEARCH, resume=True)
    assert_close(outcome(out), outcome(pair.folder / "run"))


def test_a_refusal_is_printed_once_and_ends_all_ranks(pair: Pair) -> None:
    assert pair.codes == [2, 2]
    assert "".join(pair.messages).count("run: is not empty") == 1


def test_a_rank_that_never_joins(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(rank=0).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SkelnasError, match="another rank does not answer in time"):
        distributed.joined(1).__enter__()


def test_ranks_without_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(UsageError, match=r"WORLD_SIZE is 2, but .* RANK") as caught:
        distributed.joined(1).__enter__()
    assert "torchrun" in str(caught.value.hint)


def test_a_genotype_from_standard_input_needs_a_single_process(
    monkeypatch: pytest.MonkeyPatch, tiny_cache: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    words = ["train", str(tiny_cache), "--genotype", "-", "--out", str(tmp_path / "model")]
    assert "cannot read the genotype" in str(CliRunner().invoke(app, words).exception)


@pytest.mark.parametrize("count", [3, 7, 8, 48])
def test_rank_slices_partition_the_batch(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    slices = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "_group", distributed._Group(rank, 3, None))
        slices.append(list(range(count))[distributed.rank_slice(count)])
    assert list(itertools.chain(*slices)) == list(range(count))
    assert max(map(len, slices)) - min(map(len, slices)) <= 1
    with pytest.raises(UsageError, match="3 ranks cannot share 2 clips"):
        distributed.rank_slice(2)


def test_a_single_process_needs_no_communication() -> None:
    tensors = [torch.ones(2), torch.zeros(3)]
    with distributed.joined(1):
        assert distributed.all_reduce(tensors)[0] is tensors[0]
        assert distributed.rank_slice(5) == slice(0, 5)
        assert distributed.any_rank(True, False) == [True, False]
        assert distributed.run_on_first(lambda: 3) == 3


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (KeyboardInterrupt(), (Interrupted, "the first rank was interrupted")),
        (SystemExit(1), (Interrupted, "the first rank was interrupted")),
        (UsageError("no such folder"), (UsageError, "no such folder")),
        (ValueError("odd"), (SkelnasError, "odd")),
    ],
)
def test_no_rank_waits_for_a_first_one_that_failed(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, failure: tuple[type[Exception], str]
) -> None:
    def fail() -> None:
        raise error

    store = HashStore()
    monkeypatch.setattr(distributed, "_group", distributed._Group(0, 2, store))
    with pytest.raises(type(error)):
        distributed.run_on_first(fail)
    monkeypatch.setattr(distributed, "_group", distributed._Group(1, 2, store))
    store.set_timeout(timedelta(seconds=1))
    with pytest.raises(failure[0], match=failure[1]):
        distributed.run_on_first(fail)
