"""Measure the error of alpha's gradient for several finite differences and precisions.

    python benchmarks/alpha_gradient.py --out benchmarks/results/alpha_gradient.json
    python benchmarks/alpha_gradient.py --cache ucla.h5 --frames 52 --channels 8

A supernet is trained for some steps (first order, which is fast), on synthetic clips or on those of
a cache. Then, for some pairs of batches, the exact gradient of alpha is computed in float64 by
double backward. Other methods are compared with it in the direct term, the mixed term and their
sum, by cosine and by relative error (norm of the difference over norm of the exact gradient).
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from about import about
from torch import Tensor
from torch.func import functional_call

from skelnas.config import Precision, SearchSettings
from skelnas.data.cache import Cache
from skelnas.data.dataset import Batch, shuffled_batches
from skelnas.data.prepare import prepare
from skelnas.data.readers.synthetic import Synthetic
from skelnas.engine import ENGINES
from skelnas.nas import architect
from skelnas.nas.bilevel import Bilevel
from skelnas.nas.flat_weights import FlatSGD, FlatWeights, gradients
from skelnas.nas.search import SearchClips, load_search_clips
from skelnas.nas.supernet import Supernet
from skelnas.runtime import devices

PERTURBATIONS = (1.0, 0.1, 0.01, 0.001)

Terms = dict[str, Tensor]
"""The terms of alpha's gradient and their sum, each as one vector in float64."""


@dataclass(frozen=True)
class Moment:
    """The state of a search between two steps.

    Attributes:
        supernet: a copy, with weights and alphas.
        settings: of the search.
        velocity: of SGD, for all weights.
        training, validation: the next batches.
    """

    supernet: Supernet
    settings: SearchSettings
    velocity: Tensor
    training: Batch
    validation: Batch

    def double(self) -> Moment:
        """Return a copy in float64, evaluated by the reference engine."""
        return replace(
            self.with_engine("reference"),
            supernet=copy.deepcopy(self.supernet).double(),
            velocity=self.velocity.double(),
            training=replace(self.training, x=self.training.x.double()),
            validation=replace(self.validation, x=self.validation.x.double()),
        )

    def with_engine(self, engine: str) -> Moment:
        """Return a copy that is evaluated by another engine."""
        supernet = copy.deepcopy(self.supernet)
        for cell in supernet.cells:
            cell.engine = ENGINES[engine]
        return replace(self, supernet=supernet)

    def loss(
        self, batch: Batch, precision: Precision, weights: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Return the loss of a batch, at the supernet's weights or at others."""
        names, default = zip(*self.supernet.named_weights(), strict=True)
        named = dict(zip(names, weights or default, strict=True))
        with devices.autocast(precision, batch.x.device):
            logits = functional_call(self.supernet, named, batch.x)
        return F.cross_entropy(logits.to(self.supernet.classifier.weight.dtype), batch.labels)

    def difference(self, size: float, precision: Precision, perturbed: Precision) -> Terms:
        """Return the finite difference; `perturbed` is the precision of its two extra passes."""
        precisions = iter((precision, perturbed, perturbed))
        return self._terms(
            architect.second_order(
                lambda: self.loss(self.training, next(precisions)),
                partial(self.loss, self.validation, precision),
                *self._problem(),
                size,
            ),
            precision,
        )

    def exact(self, precision: Precision) -> Terms:
        """Return the gradient by differentiating through the virtual step."""
        return self._terms(
            architect.second_order_exact(
                partial(self.loss, self.training, precision),
                partial(self.loss, self.validation, precision),
                *self._problem(),
            ),
            precision,
        )

    def first_order(self) -> Tensor:
        """Return the first-order gradient, which uses w in place of w'."""
        validate = partial(self.loss, self.validation, "fp32")
        return flat(architect.first_order(validate, *self._problem()[:2]).alphas)

    def _problem(self) -> tuple[FlatWeights, list[Tensor], architect.VirtualStep]:
        names, tensors = zip(*self.supernet.named_weights(), strict=True)
        weights, settings = FlatWeights(tensors), self.settings
        sgd = FlatSGD(
            weights,
            names,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            clip=settings.grad_clip,
        )
        sgd.velocity.copy_(self.velocity)
        step = architect.VirtualStep(settings.lr, sgd.direction)
        return weights, list(self.supernet.alphas.values()), step

    def _terms(self, gradient: architect.ArchitectureGradient, precision: Precision) -> Terms:
        """Split the gradient: recompute its direct term and subtract it."""
        weights, alphas, step = self._problem()
        (grad_w,) = gradients(self.loss(self.training, precision), [weights])
        moved = weights.values - step.lr * step.direction(grad_w, weights.values)
        loss = self.loss(self.validation, precision, weights.split(moved))
        direct, total = flat(torch.autograd.grad(loss, alphas)), flat(gradient.alphas)
        return {"direct": direct, "mixed": (direct - total) / step.lr, "sum": total}


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.double().flatten() for tensor in tensors])


class Trained:
    """A supernet trained by first-order steps."""

    def __init__(self, clips: SearchClips, settings: SearchSettings) -> None:
        torch.manual_seed(settings.seed)
        self.clips, self.settings, self.steps = clips, settings, 0
        joints = len(clips.dataset.layout.joints)
        supernet = Supernet.of(settings, clips.dataset.shape[0], len(clips.classes), joints)
        devices.move(supernet, clips.dataset.device)
        self.bilevel = Bilevel(supernet, settings)

    def pair(self, number: int) -> tuple[Batch, Batch]:
        """Return one batch of each half: the first of its shuffle with this number."""
        halves = self.clips.weight_half, self.clips.alpha_half
        batches = (
            next(shuffled_batches(half, self.settings.batch_size, number)) for half in halves
        )
        training, validation = (self.clips.dataset.batch(indices) for indices in batches)
        return training, validation

    def train(self, steps: int) -> None:
        """Train up to this number of steps."""
        for number in range(self.steps, steps):
            self.bilevel.step(*self.pair(number), self.settings.lr)
        self.steps = steps

    def moment(self, number: int) -> Moment:
        """Return the current state, with one pair of batches."""
        supernet = copy.deepcopy(self.bilevel.supernet)
        velocity = self.bilevel.weight_optimizer.velocity.clone()
        return Moment(supernet, self.settings, velocity, *self.pair(1_000_000 + number))


def compute(moment: Moment, precisions: Sequence[Precision]) -> dict[str, Terms]:
    """Compute the gradient by all methods; the first is the exact one."""
    double, reference = moment.double(), moment.with_engine("reference")
    ways = {"exact, float64": double.exact("fp32")}
    direct = ways["exact, float64"]["direct"]
    ways["no mixed term, float64"] = {"direct": direct, "sum": direct}
    ways["first order, float64"] = {"sum": double.first_order()}
    for h in PERTURBATIONS:
        ways[f"{h:g}, float64"] = double.difference(h, "fp32", "fp32")
    for precision in precisions:
        bf16 = precision == "bf16"  # not by the fused engine; and the difference needs fp32
        engine = reference if bf16 else moment
        with devices.precision(precision):
            ways[f"exact, {precision}"] = reference.exact(precision)
            for h in PERTURBATIONS:
                ways[f"{h:g}, {precision}"] = engine.difference(h, precision, precision)
                if bf16:
                    ways[f"{h:g}, bf16 then fp32"] = engine.difference(h, "bf16", "fp32")
    return ways


def compare(all_ways: list[dict[str, Terms]]) -> list[dict[str, Any]]:
    """Compare each method with the first; return a record each: smallest, median, largest."""
    truth = next(iter(all_ways[0]))
    records = []
    for way in all_ways[0]:
        record: dict[str, Any] = {"way": way}
        for term in all_ways[0][way]:
            pairs = [(ways[way][term], ways[truth][term]) for ways in all_ways]
            cosines = [F.cosine_similarity(one, exact, dim=0).item() for one, exact in pairs]
            errors = [((one - exact).norm() / exact.norm()).item() for one, exact in pairs]
            record[term] = {"cosine": spread(cosines), "relative_error": spread(errors)}
        records.append(record)
    return records


def spread(values: list[float]) -> list[float]:
    middle = statistics.median(values)
    return [float(f"{value:.6g}") for value in (min(values), middle, max(values))]


def show(records: list[dict[str, Any]]) -> None:
    for record in records:
        cells = (
            f"{record[term]['cosine'][1]:9.5f}" if term in record else " " * 9
            for term in ("direct", "mixed", "sum")
        )
        print(f"  {record['way']:24}", *cells, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, help="cache of clips (default: synthetic ones)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=56)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.015)
    parser.add_argument("--alpha-lr", type=float, default=3e-4)
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[0, 60], help="steps after which to compare"
    )
    parser.add_argument("--pairs", type=int, default=3, help="pairs of batches each time")
    parser.add_argument(
        "--precisions", nargs="+", choices=["fp32", "tf32", "bf16"], default=["fp32", "bf16"]
    )
    parser.add_argument("--out", type=Path, help="write the result to this file")
    options = parser.parse_args()
    chosen = vars(options)

    settings = SearchSettings(
        order="first",
        protocol="xsub",
        **{name: chosen[name] for name in SearchSettings.model_fields if name in chosen},
    )
    with tempfile.TemporaryDirectory() as folder:
        cache = options.cache or Path(folder, "synthetic.h5")
        if not options.cache:
            prepare(Synthetic(576), cache)
        with Cache.open(cache) as opened:
            clips = load_search_clips(opened, settings, devices.choose(settings))
            source = opened.source
    trained = Trained(clips, settings)
    moments = []
    for steps in options.steps:
        trained.train(steps)
        with devices.precision("fp32"):
            ways = [
                compute(trained.moment(number), options.precisions)
                for number in range(options.pairs)
            ]
        moments.append({"steps": steps, "ways": compare(ways)})
        print(f"after {steps} steps: median cosines of direct term, mixed term and sum")
        show(moments[-1]["ways"])
    result = {
        "what": "gradient of alpha against double backward in float64: smallest, median, largest",
        **about(options.device),
        "clips": source,
        "shape": list(clips.dataset.shape),
        "settings": {
            **{name: chosen[name] for name in ("channels", "layers", "batch_size", "lr")},
            "pairs": options.pairs,
        },
        "moments": moments,
    }
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
