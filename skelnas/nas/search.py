"""`skelnas search`: bilevel search over the supernet; cache → run folder."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelnas.config import SearchSettings, TrackerName, TrainSettings
from skelnas.data.cache import Cache
from skelnas.data.dataset import Dataset, num_batches, shuffled_batches
from skelnas.data.splits import HoldOut, halve, note_faults, split_training_part
from skelnas.derivation import count_skips, count_stable, entropy, from_alphas, from_line
from skelnas.engine.choice import EngineChoice
from skelnas.errors import InputError, UsageError
from skelnas.genotype import Genotype
from skelnas.nas.alpha_updates import resolve_alpha_lr
from skelnas.nas.bilevel import Bilevel
from skelnas.nas.cost_term import CostTerm
from skelnas.nas.supernet import Supernet, choose_engine
from skelnas.nas.target import Target, target_of_search
from skelnas.primitives import candidates
from skelnas.runtime import devices, distributed
from skelnas.runtime.console import note
from skelnas.runtime.memory import explaining_network_too_large
from skelnas.runtime.seed import random_seed
from skelnas.training.checkpoint import OptimizerState
from skelnas.training.loop import Item, TrainLoop
from skelnas.training.progress import Reading
from skelnas.training.run_dir import ALPHAS, RunDir, read_lines
from skelnas.training.setup import name_single_clips, open_setup
from skelnas.training.tracking import Tracking

STREAM_INIT, STREAM_SPLIT, STREAM_TRAIN, STREAM_VALIDATION = range(4)
"""Random streams of a search; each has its own seed."""


@dataclass(frozen=True)
class SearchClips:
    """The clips of a search and their two halves.

    Attributes:
        dataset: the training part of the protocol, without held-out clips.
        weight_half, alpha_half: indices of the clips that train w and that drive alpha.
        classes: names of all classes.
        hold_out: what was held out of the training part, or None.
        fingerprint: of the clips in the dataset.
    """

    dataset: Dataset
    weight_half: NDArray[np.int64]
    alpha_half: NDArray[np.int64]
    classes: list[str]
    hold_out: HoldOut | None
    fingerprint: str


def load_search_clips(cache: Cache, settings: SearchSettings, device: torch.device) -> SearchClips:
    """Load the training part of the protocol and split it in half; never reads the test part.

    Raises:
        InputError: the cache is broken, or its training part is too small to split.
    """
    part = split_training_part(cache, settings.protocol, settings.hold_out)
    note_faults(cache, settings.protocol, part)
    weight_half, alpha_half = halve(
        cache.clips.subjects[part.train],
        random_seed(settings.seed, STREAM_SPLIT),
        by_subject=settings.validation == "subject",
    )
    clips = cache.load(part.train)
    return SearchClips(
        dataset=Dataset(clips, cache.layout, cache.max_persons, settings, device, settings.store),
        weight_half=weight_half,
        alpha_half=alpha_half,
        classes=cache.classes,
        hold_out=part.hold_out,
        fingerprint=clips.fingerprint(),
    )


def search(
    cache_path: Path | str,
    out: Path | str,
    settings: SearchSettings,
    *,
    training: TrainSettings | None = None,
    resume: bool = False,
    force: bool = False,
    track: TrackerName | None = None,
) -> None:
    """Search for the two cells and write a run folder, from which `derive` reads the genotype.

    One half of the training part of the protocol trains the weights, the other half drives the
    alphas; the test part and held-out clips are never read. With several ranks the result is that
    of one process.

    Args:
        cache_path: a skeleton cache.
        out: the run folder.
        settings: see `SearchSettings`.
        training: sizes of the network that will be trained, for which a budget counts; None for
            the defaults, with the clips of the search.
        resume: continue the run in the folder; the result is that of an uninterrupted run.
        force: discard the run in the folder.
        track: a tracker to show the run in.

    Raises:
        InputError: the cache is broken, or its training part is too small to split.
        UsageError: the folder is not empty, in use, or holds another run; or no genotype is
            within the budget.
        DeviceError: the device is missing or out of memory.
        Interrupted: stopped by a signal; the run can be resumed.
    """
    if settings.method != "gradient":
        raise UsageError(
            "search descends a gradient; --method predict is skelnas.predictor_search",
            hint="call that function, or `skelnas search`, which knows both",
        )
    cache_path, out = Path(cache_path), Path(out)
    mirror = Tracking(track, out, candidates(settings.space)) if track else None
    with open_setup(cache_path, out, settings, resume=resume, force=force, mirror=mirror) as setup:
        settings = setup.settings
        engine = choose_engine(settings)  # refuses what it cannot do before the folder is made
        with setup.cache as cache:
            clips = load_search_clips(cache, settings, setup.device)
            target = target_of_search(settings, cache, training) if settings.has_budget else None
        _check_batches(settings, clips)
        steps_per_epoch = num_batches(len(clips.weight_half), settings.batch_size)
        settings = resolve_alpha_lr(settings, steps_per_epoch)
        config: dict[str, Any] = {
            "verb": "search",
            "settings": settings.fixed(),
            "primitives": list(candidates(settings.space)),
            "classes": clips.classes,
            "clips": {"weights": len(clips.weight_half), "alphas": len(clips.alpha_half)},
            "hold_out": clips.hold_out and asdict(clips.hold_out),
            "fingerprint": clips.fingerprint,
            **(target.record() if target else {}),
        }
        with setup.start(config) as run_dir:
            _announce(settings, clips, engine)
            with explaining_network_too_large("search", setup.device):
                loop = _Search(run_dir, settings, clips, target)
            loop.run()


def _check_batches(settings: SearchSettings, clips: SearchClips) -> None:
    """Check that batches have at least two clips, on every rank that has statistics of its own.

    The last normalisation of the supernet has neither scale nor shift: the features of a single
    clip, averaged over time and joints, are zero. So all clips look alike.

    Raises:
        UsageError: batches have a single clip.
    """
    for half in (clips.weight_half, clips.alpha_half):
        ending = name_single_clips(settings, len(half))
        if ending is not None:
            raise UsageError(
                f"batches of one clip{ending} teach a search nothing: "
                "normalised alone, all clips look alike",
                hint="it needs a --batch-size above 1 and at least 4 training clips",
            )


def _announce(settings: SearchSettings, clips: SearchClips, engine: EngineChoice) -> None:
    """Print what is searched on and how."""
    held_out = f", {clips.hold_out.clips} are held out" if clips.hold_out else ""
    note(
        f"search: {len(clips.weight_half)} clips train w, {len(clips.alpha_half)} drive alpha"
        f"{held_out} ({settings.protocol}); {settings.order} order, "
        f"{engine.name} engine on {clips.dataset.device}"
    )
    if settings.weight_epochs:
        note(f"w trains alone for the first {settings.weight_epochs} of {settings.epochs} epochs")
    on_cuda = clips.dataset.device.type == "cuda"
    if on_cuda and engine.name == "fused" and engine.why_not_faster:
        note(f"the Triton engine is not used: {engine.why_not_faster}")
    if settings.layers < 3:
        note(
            "with fewer than 3 layers the supernet has no normal cell: "
            "that of the genotype stays random"
        )


class _Search(TrainLoop):
    """The search as a training loop."""

    verb = "search"
    metrics = ("train_loss", "train_top1", "validation_loss")
    memory_hint = "; --checkpoint-cells takes less, too, and a run can be resumed with it"

    def __init__(
        self,
        run_dir: RunDir,
        settings: SearchSettings,
        clips: SearchClips,
        target: Target | None,
    ) -> None:
        self.settings = settings
        self.target = target
        self.dataset = clips.dataset
        self.halves = (clips.weight_half, clips.alpha_half)
        torch.manual_seed(random_seed(settings.seed, STREAM_INIT))
        joints = len(self.dataset.layout.joints)
        supernet = Supernet.of(settings, self.dataset.shape[0], len(clips.classes), joints)
        devices.move(supernet, self.dataset.device)
        num_batches_of_w = num_batches(len(clips.weight_half), settings.batch_size)
        cost_term = None
        if settings.steer and target is not None:
            num_steps = num_batches_of_w * (settings.epochs - settings.weight_epochs)
            cost_term = CostTerm(target, num_steps, like=next(iter(supernet.alphas.values())))
        self.bilevel = Bilevel(supernet, settings, cost_term)
        super().__init__(
            run_dir,
            supernet,
            {
                "weight_optimizer": self.bilevel.weight_optimizer,
                "alpha_optimizer": OptimizerState(
                    self.bilevel.alpha_optimizer, list(supernet.alphas)
                ),
                **({"cost_term": cost_term} if cost_term else {}),
            },
            epochs=settings.epochs,
            steps_per_epoch=num_batches_of_w,
            lr=(settings.lr, settings.lr_min),
            seed=settings.seed,
        )

    def restore(self) -> None:
        """Restore the checkpoint and the genotypes of the finished epochs."""
        super().restore()
        path = self.run_dir.folder / ALPHAS
        lines = read_lines(path) if path.exists() else []
        primitives = candidates(self.settings.space)
        try:
            self.genotypes = [from_line(line, primitives) for line in lines]
        except InputError as error:
            raise InputError(f"{path}: {error}", hint="--force starts over") from None
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise InputError(f"{path}: unexpected content ({error!r})") from None
        done = self.epoch + 1 if self.steps_done else 0
        if [line["epoch"] for line in lines] != list(range(done)):
            raise InputError(
                f"{path}: expected one line of alphas for each of the epochs 0 to {self.epoch}",
                hint="--force starts over",
            )

    def genotype(self) -> Genotype:
        """Derive the genotype of the current alphas."""
        normal, reduction = (alpha.tolist() for alpha in self.bilevel.alphas)
        if self.target is not None:
            return self.target.derive(normal, reduction)
        return from_alphas(normal, reduction, candidates(self.settings.space))

    def read(self) -> Reading:
        """Return the progress of the epoch, and the cells and entropy of the current alphas."""
        with suppress(InputError):  # diverged, and about to end
            return replace(super().read(), cells=self.genotype(), entropy=self._entropy())
        return super().read()

    def mean_metrics(self) -> dict[str, float]:
        """Return the means over the clips of this epoch so far; L_val only if alpha learns."""
        metrics = super().mean_metrics()
        if not self.alpha_learns:
            del metrics["validation_loss"]
        return metrics

    @property
    def alpha_learns(self) -> bool:
        """Whether this epoch comes after those of ``--weights-first``."""
        return self.epoch >= self.settings.weight_epochs

    def plan_epoch(self) -> Iterator[Item]:
        """Yield the indices of the batches of each step: for w and, if it learns, for alpha."""
        if self.epoch == 0 and self.step == 0:
            self._log_alphas()
        training, validation = (
            list(
                shuffled_batches(
                    half, self.settings.batch_size, self.random_seed(stream, self.epoch)
                )
            )
            for half, stream in zip(self.halves, (STREAM_TRAIN, STREAM_VALIDATION), strict=True)
        )
        if not self.alpha_learns:
            return zip(training, strict=True)
        return zip(training, itertools.cycle(validation), strict=False)

    def take_step(self, item: Item) -> tuple[Tensor, int]:
        """Update alpha, if it learns, and w once."""
        training, *rest = (
            self.dataset.batch(indices, rank_slice=distributed.rank_slice(len(indices)))
            for indices in item
        )
        validation = rest[0] if rest else None
        sums = self.bilevel.step(training, validation, self.lr(self.steps_done))
        return sums, len(item[0])

    def end_epoch(self, record: dict[str, Any]) -> str:
        """Log the alphas, their entropy and the signs of a collapse or of convergence."""
        self._log_alphas()
        record.update({f"{cell}_entropy": part for cell, part in self._entropy().items()})
        record["engine"] = choose_engine(self.settings).name
        record["skips"] = count_skips(self.genotypes[-1])
        record["stable"] = count_stable(self.alpha_genotypes)
        text = f"skips {record['skips']}  stable {record['stable']}"
        if (cost_term := self.bilevel.cost_term) is not None:
            costs = cost_term.record(list(self.bilevel.supernet.op_weights().values()))
            record.update(costs)
            text += "".join(f"  {name} {costs[f'expected_{name}']:.0%}" for name in cost_term.names)
        return text

    def stop_reason(self) -> str:
        """Return why ``--stop-skips`` or ``--stop-stable`` ends the search, or ""."""
        max_skips, num_stable = self.settings.stop_skips, self.settings.stop_stable
        if len(self.alpha_genotypes) < 2:  # only the initial ones
            return ""
        if max_skips is not None and (skips := count_skips(self.genotypes[-1])) > max_skips:
            return f"the normal cell has {skips} skip_connect, more than --stop-skips {max_skips}"
        if num_stable is not None and count_stable(self.alpha_genotypes) >= num_stable:
            return f"the genotype is the same for --stop-stable {num_stable} epochs"
        return ""

    @property
    def alpha_genotypes(self) -> list[Genotype]:
        """The genotypes before and after each epoch in which alpha learns."""
        return self.genotypes[self.settings.weight_epochs :]

    def _entropy(self) -> dict[str, float]:
        return {
            cell: entropy(alphas.tolist()) for cell, alphas in self.bilevel.supernet.alphas.items()
        }

    def _log_alphas(self) -> None:
        line = {cell: alpha.tolist() for cell, alpha in self.bilevel.supernet.alphas.items()}
        self.genotypes.append(self.genotype())
        if self.target is not None:  # alphas alone do not determine it
            line["genotype"] = self.genotypes[-1].to_dict()
        self.run_dir.log({"epoch": self.epoch, **line}, ALPHAS)
