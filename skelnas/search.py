"""`skelnas search`: cache → run folder, by bilevel search over the supernet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call

from skelnas import architect, devices, runs
from skelnas.batches import Batch, ClipStore, num_batches, shuffled
from skelnas.cache import Cache
from skelnas.config import SearchSettings
from skelnas.console import note
from skelnas.errors import InputError
from skelnas.genotype import Genotype, candidates
from skelnas.job import Job, descend
from skelnas.models.supernet import Supernet
from skelnas.selection import count_skips, entropy, from_alphas
from skelnas.sources.base import Train

ALPHA_BETAS = (0.5, 0.999)
"""Adam's decay rates for alpha (authors' release)."""

STREAM_INIT, STREAM_SPLIT, STREAM_TRAIN, STREAM_VALIDATION = range(4)
"""What is drawn at random, told apart so that each has a seed of its own."""


def search(
    cache_path: Path,
    out: Path,
    settings: SearchSettings,
    *,
    resume: bool = False,
    force: bool = False,
) -> Genotype:
    """Search for the two cells, and keep the run in a folder.

    One half of the training part of the protocol trains the weights, the other half drives
    the alphas; the test part is never read. A run that was stopped goes on with `resume` as
    if nothing had happened.

    Args:
        cache_path: a skeleton cache.
        out: the run folder.
        settings: see `SearchSettings`.
        resume: go on with the run in the folder.
        force: forget the run in the folder.

    Returns:
        The genotype that the alphas stand for at the end.

    Raises:
        InputError: the cache is broken, or its training part cannot be halved.
        UsageError: the folder holds another run.
        DeviceError: the device is missing or out of memory.
        Interrupted: asked to stop; the run can be resumed.
    """
    device = devices.choose(settings)
    with Cache.open(cache_path) as cache:
        protocol = cache.choose_protocol(settings.protocol)
        settings = settings.model_copy(update={"protocol": protocol})
        indices = cache.indices(protocol, Train)
        weight_half, alpha_half = halve(indices, cache.clips.subjects, settings)
        clips = cache.load_part(protocol, Train)
        config: dict[str, Any] = {
            "verb": "search",
            "cache": str(cache_path.resolve()),
            "settings": settings.model_dump(),
            "primitives": list(candidates(settings.space)),
            "classes": cache.classes,
            "clips": {"weights": len(weight_half), "alphas": len(alpha_half)},
            "fingerprint": clips.fingerprint(),
        }
        layout, persons = cache.layout, cache.max_persons
        store = ClipStore(clips, layout, persons, settings, device, settings.store)
    note(
        f"search: {len(weight_half)} clips train w, {len(alpha_half)} drive alpha "
        f"({protocol}); {settings.order} order on {device}"
    )
    if settings.layers < 3:
        note("the supernet has no normal cell: that of the genotype will be as drawn at random")
    with runs.start(out, config, resume=resume, force=force) as run:
        job = _Search(run, settings, store, len(config["classes"]), weight_half, alpha_half)
        job.work()
        return job.genotype()


def halve(
    indices: NDArray[np.int64], subjects: NDArray[np.int32], settings: SearchSettings
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split the training part into the half that trains w and the half that drives alpha.

    Args:
        indices: [n] clips of the training part, in the cache.
        subjects: of every clip of the cache.
        settings: seed, and whether no subject may be in both halves.

    Returns:
        Positions in `indices`, sorted, of each half.

    Raises:
        InputError: there are too few clips or subjects to make two halves.
    """
    generator = np.random.default_rng(runs.random_seed(settings.seed, STREAM_SPLIT))
    positions = np.arange(len(indices))
    if settings.validation == "random":
        groups = generator.permutation(positions)
        chosen = np.isin(positions, groups[: len(groups) // 2])
    else:
        present = np.unique(subjects[indices])
        order = generator.permutation(present)
        chosen = np.isin(subjects[indices], order[: len(order) // 2])
    if not chosen.any() or chosen.all():
        raise InputError(
            f"the training part cannot be halved: {len(indices)} clips of "
            f"{len(np.unique(subjects[indices]))} subjects",
            hint="a protocol with more clips, or for --validation subject more subjects, is needed",
        )
    return positions[~chosen], positions[chosen]


class _Search(Job[tuple[Tensor, Tensor]]):
    """A search at work: the supernet and its two optimisers."""

    verb = "search"
    metrics = ("train_loss", "train_top1", "validation_loss")

    def __init__(
        self,
        run: runs.Run,
        settings: SearchSettings,
        store: ClipStore,
        num_classes: int,
        weight_half: NDArray[np.int64],
        alpha_half: NDArray[np.int64],
    ) -> None:
        self.settings = settings
        self.store = store
        self.halves = (weight_half, alpha_half)
        torch.manual_seed(runs.random_seed(settings.seed, STREAM_INIT))
        self.supernet = Supernet(
            in_channels=store.shape[0],
            num_classes=num_classes,
            primitives=candidates(settings.space),
            channels=settings.channels,
            num_layers=settings.layers,
            num_nodes=settings.nodes,
        )
        devices.place(self.supernet, store.device)
        self.weight_names, self.weights = zip(*self.supernet.named_weights(), strict=True)
        self.alphas = list(self.supernet.alphas.values())
        self.weight_optimizer = torch.optim.SGD(
            self.weights,
            lr=settings.lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
        )
        self.alpha_optimizer = torch.optim.Adam(
            self.alphas,
            lr=settings.alpha_lr,
            betas=ALPHA_BETAS,
            weight_decay=settings.alpha_weight_decay,
        )
        super().__init__(
            run,
            self.supernet,
            {
                "weight_optimizer": (self.weight_optimizer, self.weight_names),
                "alpha_optimizer": (self.alpha_optimizer, list(self.supernet.alphas)),
            },
            epochs=settings.epochs,
            steps_per_epoch=num_batches(len(weight_half), settings.batch_size),
            lr=(settings.lr, settings.lr_min),
            seed=settings.seed,
        )

    def genotype(self) -> Genotype:
        """Derive the genotype that the alphas stand for now."""
        normal, reduction = (alpha.tolist() for alpha in self.alphas)
        return from_alphas(normal, reduction, candidates(self.settings.space))

    def plan_epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield for each step the clips that train w and the clips that drive alpha."""
        if self.epoch == 0 and self.step == 0:
            self._log_alphas()
        training, validation = (
            list(shuffled(half, self.settings.batch_size, self.random_seed(stream, self.epoch)))
            for half, stream in zip(self.halves, (STREAM_TRAIN, STREAM_VALIDATION), strict=True)
        )
        return zip(training, itertools.cycle(validation), strict=False)

    def take_step(self, item: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        """Move alpha by its gradient, then w by its own (the release's order)."""
        training, validation = (self.store.batch(indices) for indices in item)
        lr = self.lr(self.steps_done)

        gradient = self._architecture_gradient(training, validation, lr)
        for alpha, alpha_gradient in zip(self.alphas, gradient.alphas, strict=True):
            alpha.grad = alpha_gradient
        self.alpha_optimizer.step()

        logits = self.supernet(training.x)
        loss = F.cross_entropy(logits, training.labels)
        descend(self.weight_optimizer, loss, lr, self.settings.grad_clip)

        hits = (logits.detach().argmax(1) == training.labels).sum()
        count = len(training.labels)
        return torch.stack([loss.detach() * count, hits, gradient.validation_loss * count]), count

    def _architecture_gradient(
        self, training: Batch, validation: Batch, lr: float
    ) -> architect.ArchitectureGradient:
        settings = self.settings
        train, validate = partial(self._loss, training), partial(self._loss, validation)
        if settings.order == "first":
            return architect.first_order(validate, self.alphas)
        buffers = [self.weight_optimizer.state[w].get("momentum_buffer") for w in self.weights]
        known = None if buffers[0] is None else buffers
        step = architect.VirtualStep(lr, settings.momentum, known, settings.weight_decay)
        problem = train, validate, self.weights, self.alphas, step
        if settings.hessian == "exact":
            return architect.second_order_exact(*problem)
        return architect.second_order(*problem, settings.perturbation)

    def _loss(self, batch: Batch, weights: Sequence[Tensor] | None = None) -> Tensor:
        """Evaluate the loss of a batch; at other weights, if they are given."""
        if weights is None:
            logits = self.supernet(batch.x)
        else:
            named = dict(zip(self.weight_names, weights, strict=True))
            logits = functional_call(self.supernet, named, batch.x)
        return F.cross_entropy(logits, batch.labels)

    def end_epoch(self, record: dict[str, Any]) -> str:
        """Keep the alphas of this epoch; tell how many skips the normal cell would have."""
        self._log_alphas()
        for cell, alphas in self.supernet.alphas.items():
            record[f"{cell}_entropy"] = entropy(alphas.tolist())
        return f"skips {count_skips(self.genotype())}"

    def _log_alphas(self) -> None:
        values = {cell: alpha.tolist() for cell, alpha in self.supernet.alphas.items()}
        self.run.log({"epoch": self.epoch, **values}, runs.ALPHAS)
