"""Which classes mirroring turns into each other, and which sources have none of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from test_dataset import make_clips

from skelnas.config import ClipSettings
from skelnas.data.dataset import Dataset
from skelnas.data.mirrors import find_mirrored_classes
from skelnas.data.readers.base import Layout

LAYOUT = Layout(("hip", "head", "left_hand", "right_hand"), center_joint=0)
MOVES = {"still": (), "wave a": (2,), "wave b": (3,), "wave both": (2, 3)}


def make_dataset(moves: dict[str, tuple[int, ...]], clips_per_move: int, noise: float) -> Dataset:
    """People in front of a camera who wave with some of their hands."""
    generator = np.random.default_rng(0)
    clips, labels = [], []
    for index in range(clips_per_move * len(moves)):
        body = np.array([[0, 0, 3], [0, 0.7, 3], [0.4, 0.3, 3], [-0.4, 0.3, 3.0]])
        poses = np.tile(body, (1, generator.integers(20, 40), 1, 1))
        label = index % len(moves)
        swing = 0.3 * np.sin(np.arange(poses.shape[1]) / 3 + generator.uniform(0, 6))
        for hand in list(moves.values())[label]:
            poses[0, :, hand, 1] += 0.4 + swing
        clips.append(
            (poses + generator.normal(0, noise, poses.shape), np.ones(poses.shape[:2], bool))
        )
        labels.append(label)
    dataset = Dataset(make_clips(*clips), LAYOUT, 1, ClipSettings(frames=20), torch.device("cpu"))
    dataset.labels = torch.tensor(labels)
    return dataset


@pytest.mark.parametrize(("count", "noise"), [(3, 0.02), (8, 0.02), (20, 0.25)])
def test_two_classes_that_are_mirror_images_are_found(count: int, noise: float) -> None:
    dataset = make_dataset(MOVES, count, noise)
    assert find_mirrored_classes(dataset, list(MOVES)) == [("wave a", "wave b")]


@pytest.mark.parametrize("noise", [0.02, 0.5])
def test_symmetric_classes_and_actions_of_one_hand_are_no_mirror_images(noise: float) -> None:
    moves = {name: hands for name, hands in MOVES.items() if name != "wave b"}
    for others in (moves, moves | {"wave again": (2,)}):
        assert find_mirrored_classes(make_dataset(others, 12, noise), list(others)) == []


def test_classes_of_too_few_clips_are_left_out() -> None:
    assert find_mirrored_classes(make_dataset(MOVES, 2, 0.02), list(MOVES)) == []
