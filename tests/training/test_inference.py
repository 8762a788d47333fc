"""Metrics computed by hand, and scores that do not depend on the batch."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from conftest import overflow

from skelnas.config import ClipSettings
from skelnas.data.cache import Cache
from skelnas.data.dataset import Dataset
from skelnas.data.sampling import TemporalCrop
from skelnas.errors import NotFinite
from skelnas.genotype import BUILT_IN
from skelnas.models.network import Network
from skelnas.training.inference import check_finite, score
from skelnas.training.metrics import calibration_error, measure


def test_metrics_by_hand() -> None:
    logits = torch.eye(7)[[0, 1, 1, 3]] * 10 + torch.arange(7) / 100
    metrics = measure(logits, torch.tensor([0, 1, 2, 0]))
    # Clip 3 ranks 3, 6, 5, 4, 2 before its class 0; clip 2 ranks 1, 6, 5, 4, 3 before 2.
    assert metrics.top1 == 0.5
    assert metrics.top5 == 0.5
    assert metrics.mean_class == pytest.approx((0.5 + 1 + 0) / 3)
    assert metrics.per_class == [0.5, 1, 0, None, None, None, None]
    assert metrics.confusion[0].tolist() == [1, 0, 0, 1, 0, 0, 0]
    assert metrics.confusion.sum() == 4


def test_likelihood_and_calibration_in_closed_form() -> None:
    # Confidences 0.9, 0.9, 0.6, 0.6; three of four predictions are right.
    probabilities = torch.tensor(
        [[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.6, 0.4]], dtype=torch.float64
    )
    metrics = measure(
        probabilities.log() + 3, torch.tensor([0, 1, 1, 0])
    )  # a constant changes nothing
    assert metrics.nll == pytest.approx(-math.log(0.9 * 0.1 * 0.6 * 0.6) / 4)
    # Two bins of two clips: |1/2 - 0.9| and |1 - 0.6|, each half of all clips.
    assert metrics.ece == pytest.approx(0.4)


def test_calibration_errors_cancel_within_a_bin_only() -> None:
    hit = torch.tensor([True, False])
    assert calibration_error(torch.tensor([0.5, 0.5], dtype=torch.float64), hit) == 0
    # 0.6 = 9 / 15 is the upper edge of its bin, 0.61 is in the next one.
    edges = torch.tensor([9 / 15, 9 / 15 + 0.01], dtype=torch.float64)
    assert calibration_error(edges, hit) == pytest.approx((0.4 + 0.61) / 2)
    sure = torch.ones(4, dtype=torch.float64)
    assert calibration_error(sure, torch.tensor([True, True, True, False])) == 0.25


def test_ties_go_to_the_lower_class() -> None:
    metrics = measure(torch.zeros(2, 3), torch.tensor([0, 2]))
    assert metrics.confusion.tolist() == [[1, 0, 0], [0, 0, 0], [1, 0, 0]]


def test_fewer_than_five_classes_are_all_in_the_top_five() -> None:
    assert measure(torch.randn(4, 3), torch.tensor([0, 1, 2, 0])).top5 == 1


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network(
        BUILT_IN["ntu_cs112se30"], in_channels=3, num_classes=3, channels=4, num_layers=3
    )


@pytest.fixture(scope="module")
def dataset(tiny_cache: Path) -> Dataset:
    with Cache.open(tiny_cache) as cache:
        clips = cache.load(range(10))
        settings = ClipSettings(frames=8)
        return Dataset(clips, cache.layout, cache.max_persons, settings, torch.device("cpu"))


def test_scores_do_not_depend_on_the_batch(network: Network, dataset: Dataset) -> None:
    done: list[int] = []
    one, many = score(network, dataset, 1), score(network, dataset, 4, done.append)
    torch.testing.assert_close(one, many, atol=1e-5, rtol=1e-5)
    assert done == [4, 4, 2]
    assert network.training


def test_views_are_crops_of_the_clip_and_their_softmax_is_averaged(
    network: Network, dataset: Dataset
) -> None:
    indices = torch.arange(len(dataset))
    network.eval()
    probabilities = []
    for start in (0, 0.5, 1):
        with torch.no_grad():
            x = dataset.batch(indices, crop=TemporalCrop(0.9, start)).x
            probabilities.append(network(x).softmax(1))
    network.train()
    expected = torch.stack(probabilities).mean(0).log()
    torch.testing.assert_close(score(network, dataset, 4, views=3), expected)
    assert not torch.allclose(probabilities[0], probabilities[2]), (
        "the views must differ for this to test anything"
    )


def test_scores_that_are_not_finite_are_left_to_the_caller(
    network: Network, dataset: Dataset
) -> None:
    network = copy.deepcopy(network)
    overflow(network.classifier)
    assert not score(network, dataset, 4).isfinite().any()


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_the_first_clip_whose_scores_are_not_finite_is_named(number: float) -> None:
    logits = torch.zeros(4, 3)
    check_finite(logits, list("abcd"))
    logits[1, 2] = logits[3] = number
    with pytest.raises(NotFinite, match=r"^m: its scores of 'b' are not finite$"):
        check_finite(logits, list("abcd"), "m")


def test_a_crop_is_its_part_of_the_clip(dataset: Dataset) -> None:
    indices = torch.arange(len(dataset))
    whole = dataset.batch(indices).x
    torch.testing.assert_close(dataset.batch(indices, crop=TemporalCrop(1, 0.3)).x, whole)
    first = dataset.batch(indices, crop=TemporalCrop(0.5, 0)).x
    last = dataset.batch(indices, crop=TemporalCrop(0.5, 1)).x
    torch.testing.assert_close(first[:, :, 0], whole[:, :, 0])
    torch.testing.assert_close(last[:, :, -1], whole[:, :, -1])
    torch.testing.assert_close(first[:, :, -1], last[:, :, 0])  # they meet in the middle
