"""`skelnas export --quantize`: model and cache → ONNX in 8-bit integers, with the loss stated.

Static quantisation: the range of every activation is that over some training clips. Weights have a
scale for each output channel and seven bits, since products of eight overflow on CPUs without VNNI.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skelnas.config import EvaluateSettings, QuantizeSettings, ScoredPart
from skelnas.data.cache import Cache
from skelnas.data.dataset import Dataset
from skelnas.data.splits import split_training_part
from skelnas.errors import InputError
from skelnas.evaluation.evaluate import make_dataset, score_part
from skelnas.evaluation.export import choose_format, load_source, write_checked
from skelnas.evaluation.fit import Fit, fit_cache, fit_clips
from skelnas.evaluation.scores import Scores
from skelnas.models.onnx_network import INPUT, OnnxNetwork
from skelnas.runtime import files, onnx_files
from skelnas.runtime.console import Meter, progress
from skelnas.training.card import ModelCard, Quantized
from skelnas.training.saved_model import METADATA_KEY, Model, card_facts

DEFAULTS = QuantizeSettings()

BATCH_SIZE = 16


@dataclass(frozen=True)
class Quantization:
    """A quantised file, and what it lost.

    Attributes:
        path: of the file.
        bytes, float_bytes, model_bytes: sizes of the file, of the same in float32, and of
            ``model.safetensors``.
        calibration_clips: training clips that chose the ranges of activations.
        protocol, part, clips: what was scored, and how many clips that are.
        top1, model_top1: accuracy of the file and of the model.
        agreement: fraction of the clips to which both give the same class.
    """

    path: str
    bytes: int
    float_bytes: int
    model_bytes: int
    calibration_clips: int
    protocol: str
    part: ScoredPart
    clips: int
    top1: float
    model_top1: float
    agreement: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain containers, for JSON."""
        return asdict(self)


def quantize(
    cache_path: Path | str,
    model_path: Path | str,
    out: Path | str,
    settings: QuantizeSettings = DEFAULTS,
) -> Quantization:
    """Export a model to ONNX in 8-bit integers, and score it next to the model.

    Args:
        cache_path: a cache that the model fits, with the protocol that it was trained on.
        model_path: a model folder or a ``model.safetensors``.
        out: the file to write; an existing file is replaced.
        settings: see `QuantizeSettings`.

    Raises:
        InputError: cache or model are broken or do not fit each other.
        UsageError: `out` cannot be written to or has the name of another format, ONNX lacks an
            operation of the network, or held-out clips are to be scored and there are none.
        SkelnasError: a package is missing, or the network in ONNX computes something else.
    """
    out = Path(out)
    source, model = load_source(model_path, out)
    format = choose_format(out, "onnx")
    scoring = EvaluateSettings(device="cpu", part=settings.part)
    with Cache.open(cache_path) as cache:
        fit = fit_cache(cache, model.card, source)
        protocol = _find_protocol(cache, model.card)
        scores = score_part(model, source, cache, fit, protocol, scoring)
        clips = _load_training_clips(
            cache, fit, model.card, source, protocol, settings.calibration_clips, scoring
        )
        float_data, _, _ = write_checked(model, format, out)
        network = _quantize(float_data, clips)
        card = replace(model.card, folded=True, quantized=Quantized("int8", len(clips)))
        quantized = Model(OnnxNetwork(network), card)
        scores_after = score_part(quantized, out, cache, fit, protocol, scoring)
    data = onnx_files.to_bytes(network, METADATA_KEY, card_facts(card))
    files.atomic_write(out, data)
    return Quantization(
        path=str(out),
        bytes=len(data),
        float_bytes=len(float_data),
        model_bytes=source.stat().st_size,
        calibration_clips=len(clips),
        protocol=protocol,
        part=settings.part,
        clips=len(scores),
        top1=scores_after.metrics.top1,
        model_top1=scores.metrics.top1,
        agreement=_agreement(scores, scores_after),
    )


def _find_protocol(cache: Cache, card: ModelCard) -> str:
    """Return the protocol that a model was trained on.

    Raises:
        InputError: the cache does not have it.
    """
    try:
        return cache.choose_protocol(card.protocol)
    except InputError as error:
        raise InputError(str(error), hint="--cache takes the cache of the training") from None


def _load_training_clips(
    cache: Cache,
    fit: Fit,
    card: ModelCard,
    path: Path,
    protocol: str,
    count: int,
    scoring: EvaluateSettings,
) -> Dataset:
    """Load some of the clips that a model was trained on, evenly spread over the cache."""
    held_out = card.hold_out.share if card.hold_out else 0
    indices = split_training_part(cache, protocol, held_out).train
    chosen = np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)
    clips = fit.match.reorder(cache.load(indices[chosen]))
    fit_clips(clips, fit, card, (cache.path, path), allow=False)
    return make_dataset(clips, fit, card, torch.device("cpu"), scoring)


def _quantize(data: bytes, clips: Dataset) -> bytes:
    """Return the network of an ONNX file with weights and activations in 8 bits."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with (
        tempfile.TemporaryDirectory() as folder,
        progress("calibrate", len(clips)) as meter,
        _no_warnings(),
    ):
        given, prepared, quantized = (Path(folder) / f"{name}.onnx" for name in "abc")
        given.write_bytes(data)
        quant_pre_process(given, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            quantized,
            _Reader(clips, meter),
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
        )
        proto = onnx.load(quantized)
    del proto.metadata_props[:]
    domains = {node.domain for node in proto.graph.node}
    used = [entry for entry in proto.opset_import if entry.domain in domains]
    del proto.opset_import[:]
    proto.opset_import.extend(used)
    network: bytes = proto.SerializeToString()
    return network


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Leave out what ONNX Runtime logs of each tensor that it leaves as it is."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


class _Reader:
    """Gives ONNX Runtime the clips, batch by batch."""

    def __init__(self, clips: Dataset, meter: Meter) -> None:
        self._clips, self._meter = clips, meter
        self._batches = iter(torch.split(torch.arange(len(clips)), BATCH_SIZE))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the next batch as the network's inputs, or None."""
        indices = next(self._batches, None)
        if indices is None:
            return None
        self._meter.advance(len(indices))
        return {INPUT: self._clips.batch(indices).x.contiguous().numpy()}  # [N, C, T, V]


def _agreement(scores: Scores, others: Scores) -> float:
    """Return the fraction of clips to which both give the same class."""
    return float((scores.logits.argmax(1) == others.logits.argmax(1)).mean())
