"""Cross-validation: folds that are apart, their mean, and the same bytes after an interruption."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from conftest import write_tiny_cache
from interrupting import stop_after

from skelnas.config import TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.readers.base import Test, Train
from skelnas.errors import Interrupted, UsageError
from skelnas.evaluation.cross_validation import choose_folds, cross_validate
from skelnas.evaluation.evaluate import evaluate
from skelnas.genotype import random_genotype
from skelnas.training import run_dir

SETTINGS = TrainSettings(frames=4, layers=3, channels=1, epochs=1, batch_size=12, device="cpu")
GENOTYPE = random_genotype(0, "none,skip_connect,sep_conv_3x3", 1)


@pytest.fixture(scope="module")
def whole(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("folds") / "whole"
    cross_validate(tiny_cache, GENOTYPE, out, SETTINGS, count=3)
    return out


def test_each_fold_is_trained_and_scored_apart(tiny_cache: Path, whole: Path) -> None:
    document = json.loads((whole / run_dir.FOLDS).read_text())
    folds = document["folds"]
    assert [fold["name"] for fold in folds] == ["fold1", "fold2", "fold3"]
    assert [fold["protocol"] for fold in folds] == [f"xsub@subject:{k}/3" for k in (1, 2, 3)]
    top1 = [fold["top1"] for fold in folds]
    assert document["summary"]["mean"] == pytest.approx(statistics.fmean(top1))
    assert document["summary"]["deviation"] == pytest.approx(statistics.stdev(top1))
    assert evaluate(tiny_cache, whole / "fold2").metrics.top1 == top1[1]
    with Cache.open(tiny_cache) as cache:
        tested = [set(cache.indices(fold["protocol"], Test)) for fold in folds]
        assert set.union(*tested) == set(cache.indices("xsub", Train))
        assert sum(map(len, tested)) == len(set.union(*tested))


def test_resuming_ends_with_the_same_bytes(
    tiny_cache: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:

        def stop_in_second_fold(*_: object) -> None:
            stop_after(patch, 1)

        with pytest.raises(Interrupted):
            cross_validate(
                tiny_cache, GENOTYPE, out, SETTINGS, count=3, after_train=stop_in_second_fold
            )
    assert sorted(path.name for path in out.glob("fold*")) == ["fold1", "fold2"]
    assert not (out / run_dir.FOLDS).exists()
    cross_validate(tiny_cache, GENOTYPE, out, SETTINGS, count=3, resume=True)
    for name in (run_dir.FOLDS, "fold1/model.safetensors", "fold3/model.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    with pytest.raises(UsageError, match="protocols"):
        cross_validate(tiny_cache, GENOTYPE, out, SETTINGS, count=2, resume=True)


def test_the_folds_of_the_cache_come_first(tmp_path: Path) -> None:
    write_tiny_cache(tmp_path / "cache.h5")
    with Cache.open(tmp_path / "cache.h5") as cache:
        assert choose_folds(cache, "", 2) == ["xsub@subject:1/2", "xsub@subject:2/2"]
        assert choose_folds(cache, "", 12)[0] == "xsub@clip:1/12"
        cache.splits |= {"fold1": cache.splits["xsub"], "fold2": 1 - cache.splits["xsub"]}
        assert choose_folds(cache, "", 2) == ["fold1", "fold2"]
        assert choose_folds(cache, "xsub", 2) == ["xsub@subject:1/2", "xsub@subject:2/2"]
        with pytest.raises(UsageError, match="was divided into 2 folds"):
            choose_folds(cache, "", 3)
