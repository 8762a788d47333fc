"""What a model remembers of its training clips: read back, joined, and kept out of JSON."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from skelnas.config import TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.readers.base import Train
from skelnas.errors import InputError
from skelnas.genotype import random_genotype
from skelnas.training.saved_model import load_model, save_model
from skelnas.training.train import train
from skelnas.training.trained_clips import decode, encode, join

NUMBERS = np.array([2**48 - 1, 0, 5, 2**40], np.uint64)


def test_numbers_are_read_back_sorted() -> None:
    text = encode(NUMBERS)
    assert len(text) == 8 * len(NUMBERS)
    assert decode(text).tolist() == sorted(NUMBERS.tolist())
    assert decode(encode(NUMBERS[:0])).tolist() == decode("").tolist() == []
    assert decode(join(text, "", encode(NUMBERS[1:2]))).tolist() == [0, *sorted(NUMBERS.tolist())]


@pytest.mark.parametrize("text", ["AAAAAAA", "AAAA", "no base64!", "é"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="trained_clips"):
        decode(text)


def test_a_model_file_has_its_training_clips_and_those_of_its_initial_model(
    tiny_cache: Path, tmp_path: Path
) -> None:
    settings = TrainSettings(
        frames=4, layers=3, channels=2, epochs=1, batch_size=12, device="cpu", hold_out=0.3
    )
    train(tiny_cache, random_genotype(0), tmp_path / "first", settings)
    first = load_model(tmp_path / "first").card
    with Cache.open(tiny_cache) as cache:
        assert cache.contents is not None
        training = cache.contents[cache.indices("xsub", Train)]
    assert set(decode(first.trained_clips)) < set(training)
    assert len(decode(first.trained_clips)) == 24
    assert "trained_clips" not in first.to_dict()
    assert first.trained_clips not in repr(first)

    more = settings.model_copy(update={"init": str(tmp_path / "first"), "hold_out": 0.0})
    train(tiny_cache, random_genotype(0), tmp_path / "second", more)
    second = load_model(tmp_path / "second").card
    assert set(decode(second.trained_clips)) == set(training)

    model = load_model(tmp_path / "second")
    save_model(tmp_path, model.network, model.card)
    damaged = (tmp_path / "model.safetensors").read_bytes()
    half = second.trained_clips[: len(second.trained_clips) // 2]
    (tmp_path / "model.safetensors").write_bytes(
        damaged.replace(half.encode(), b"!" * len(half), 1)
    )
    with pytest.raises(InputError, match=r"trained_clips|checksum"):
        load_model(tmp_path)
    with pytest.raises(ValueError, match="trained_clips"):
        replace(second, trained_clips="?")
