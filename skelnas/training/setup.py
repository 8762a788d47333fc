"""What a search or a training needs before its first step, checked and opened in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from skelnas.config import SearchSettings, TrainSettings
from skelnas.data.cache import Cache
from skelnas.engine.norm import over_ranks
from skelnas.errors import UsageError
from skelnas.runtime import devices, distributed
from skelnas.runtime.console import note
from skelnas.runtime.files import real_path
from skelnas.training import run_dir
from skelnas.training.run_dir import Mirror, RunDir

AnySettings = TypeVar("AnySettings", SearchSettings, TrainSettings)


@dataclass(frozen=True)
class Setup(Generic[AnySettings]):
    """A run that may start: ranks joined, device chosen, cache opened. Made by `open_setup`.

    Attributes:
        settings: as given, with the precision and the protocol that they resolve to.
        device: of this rank.
        cache: open; the caller closes it once the clips are loaded.
        out, resume, force, mirror: what `run_dir.start` takes.
    """

    settings: AnySettings
    device: torch.device
    cache: Cache
    out: Path
    resume: bool
    force: bool
    mirror: Mirror | None

    @contextmanager
    def start(self, config: Mapping[str, Any]) -> Iterator[RunDir]:
        """Open the run folder and set the precision of float32 products.

        The first rank works in the folder, the others only read its checkpoint.

        Args:
            config: what defines the run, besides the cache, its layout and the ranks.

        Raises:
            UsageError: see `run_dir.start`.
            SkelnasError: the ranks have different configs, such as other clips.
        """
        # Unless each rank has its own statistics, their number does not change what is computed.
        ranks = distributed.world_size() if self.settings.batch_norm == "rank" else "any"
        config = {**config, "layout": asdict(self.cache.layout), "ranks": ranks}
        encoded = json.dumps(config).encode()
        distributed.check_same([torch.tensor(list(encoded))], "at the start")
        config["cache"] = str(real_path(self.cache.path))  # may differ from machine to machine
        start = partial(
            run_dir.start,
            self.out,
            config,
            resume=self.resume,
            force=self.force,
            mirror=self.mirror,
        )
        run = distributed.run_on_first(start) or RunDir(self.out, writes=False)
        with run, devices.precision(self.settings.precision):
            yield run


def name_single_clips(settings: SearchSettings | TrainSettings, num_clips: int) -> str | None:
    """Return " a rank" or "" if statistics are made from a single clip, on a rank or in all."""
    ranks = distributed.world_size() if settings.batch_norm == "rank" else 1
    if min(settings.batch_size, num_clips) // ranks > 1:
        return None
    return " a rank" if ranks > 1 else ""


def check_normalisation(
    settings: TrainSettings, num_clips: int, count_values: Callable[[], int | None]
) -> None:
    """Check that BatchNorm has more than one value a channel to normalise, and note single clips.

    Args:
        settings: with the batch size.
        num_clips: to make batches of.
        count_values: returns the values that one clip gives a channel, at the least; called only
            where batches have a single clip.

    Raises:
        UsageError: there is a single value.
    """
    ending = None if settings.freeze else name_single_clips(settings, num_clips)
    count = None if ending is None else count_values()
    if count == 1:
        raise UsageError(
            f"batches of one clip{ending} leave BatchNorm a single value "
            f"for each channel, at --frames {settings.frames}",
            hint="it needs a --batch-size above 1 and as many training clips, or more --frames",
        )
    if count is not None:
        note(
            f"train: batches of one clip{ending} are normalised alone, unlike clips in use later: "
            "a --batch-size above 1 is more accurate"
        )


@contextmanager
def open_setup(
    cache_path: Path,
    out: Path,
    settings: AnySettings,
    *,
    resume: bool,
    force: bool,
    mirror: Mirror | None,
) -> Iterator[Setup[AnySettings]]:
    """Join the ranks, check the run folder, choose the device, open the cache, in this order.

    A folder that would be refused is refused before anything is loaded or computed.

    Raises:
        UsageError: see `run_dir.check`.
        DeviceError: the device is missing or cannot compute with the requested precision.
        InputError: the cache is broken or lacks the protocol.
    """
    with ExitStack() as stack:
        stack.enter_context(distributed.joined(settings.rank_timeout))
        distributed.run_on_first(partial(run_dir.check, out, resume=resume, force=force))
        stack.enter_context(over_ranks(settings.batch_norm == "sync"))
        device = devices.choose(settings)
        cache = stack.enter_context(Cache.open(cache_path))
        settings = devices.resolve_precision(settings, device)
        protocol = cache.choose_protocol(settings.protocol)
        settings = settings.model_copy(update={"protocol": protocol})
        yield Setup(settings, device, cache, out, resume, force, mirror)
