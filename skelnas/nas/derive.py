"""`skelnas derive`: run folder → genotype."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from skelnas.config import BudgetSettings, Device, TrainSettings
from skelnas.derivation import Scores, choose_cell, choose_epoch, from_line, op_weights
from skelnas.errors import InputError, UsageError, shown
from skelnas.genotype import CELLS, EDGES_PER_NODE, Genotype, from_dict
from skelnas.runtime.console import note
from skelnas.runtime.files import read_object
from skelnas.training.genotype_table import is_by_trainings, read_table
from skelnas.training.run_dir import ALPHAS, CONFIG, REPEATS, read_config
from skelnas.training.search_run import SearchRun, read_search

Result = TypeVar("Result")

MAX_NAME_CHARS = 255

LIMITS = frozenset(BudgetSettings.model_fields)


@dataclass(frozen=True)
class Perturbation:
    """Selection by how much the loss rises when an operation or edge is removed.

    Attributes:
        num_clips: maximum number of clips to measure on; 0 for the whole half that drives alpha.
        device: None for that of the search.
    """

    num_clips: int = 0
    device: Device | None = None


@dataclass(frozen=True)
class Ranking:
    """How a search ranks operations and edges.

    Attributes:
        primitives: the candidate operations.
        scores: by kind of cell, of each operation on each edge.
        edge_scores: by kind of cell, of each edge; None for that of its chosen operation.
    """

    primitives: tuple[str, ...]
    scores: Mapping[str, Scores]
    edge_scores: Mapping[str, Sequence[float]] | None = None


def derive(
    run: Path | str,
    *,
    epoch: int | None = None,
    keep: int = EDGES_PER_NODE,
    max_skip: int | None = None,
    perturbation: Perturbation | None = None,
    cache: Path | str | None = None,
    training: TrainSettings | None = None,
) -> Genotype:
    """Derive a genotype from a search.

    Args:
        run: run folder of a search, finished or not; with ``--repeats`` a finished one, whose
            picked genotype is returned.
        epoch: derive from the alphas after this epoch; 0 is before the first step. None uses the
            last finished epoch or, with ``--stop-skips``, the last one within that limit.
        keep: incoming edges to keep per node (Paper: 2).
        max_skip: maximum number of skips in the normal cell; None for no limit. See
            `skelnas.derivation.choose_cell`.
        perturbation: select by perturbing the supernet of the checkpoint instead of by alphas.
        cache: the cache, if it was moved, or the network is to be trained on another; read only
            for a perturbation or a budget.
        training: budget and sizes of the network that will be trained. What it was not given is
            as the search recorded it, or else the default.

    Raises:
        InputError: the folder holds no search, or the search or its cache is broken.
        UsageError: there are no alphas of that epoch, the options exclude each other, or no
            genotype is within the budget.
        DeviceError: the device is missing.
    """
    run, cache = Path(run), None if cache is None else Path(cache)
    training = training or TrainSettings()
    config = read_config(run)
    keep_given = [keep] if keep != EDGES_PER_NODE else []
    is_given = (*keep_given, *(given is not None for given in (max_skip, perturbation, cache)))
    by_default = not any(is_given) and not training.model_fields_set
    if config.get("verb") == "repeats":
        if epoch is not None or not by_default:
            raise UsageError(
                f"{run}: holds several searches; their picked genotype is fixed",
                hint=f"to derive with other options, give one of the searches: {run / 'seed-...'}",
            )
        return _picked(run / REPEATS)
    if by_default:
        if is_by_trainings(config):
            _check_has_no_alphas(run, epoch)
            return read_table(run).choice()
        search = _read_search(run, config)
        return _genotype(run, search, _choose_epoch(run, search, epoch))
    in_budget = has_budget(config, training)
    if training.model_fields_set and not in_budget:
        option = min(training.model_fields_set).replace("_", "-")
        raise UsageError(f"--{option} needs --max-params, --max-macs or --front")
    if cache is not None and perturbation is None and not in_budget:
        raise UsageError("--cache needs --select perturbation, --max-params, --max-macs or --front")
    if is_by_trainings(config):
        _check_has_no_alphas(run, epoch, perturbation, max_skip, *keep_given)
        from skelnas.nas.rating import choose_for  # needs torch

        return choose_for(run, config, training, cache)
    ranking = rank(run, config, epoch=epoch, perturbation=perturbation, cache=cache)
    if in_budget:
        from skelnas.nas.budget import choose_genotype  # these need torch
        from skelnas.nas.target import find_target

        target = find_target(run, config, ranking.primitives, training, cache)
        return choose_genotype(
            ranking.scores,
            target.costs,
            target.budget,
            keep=keep,
            max_skip=max_skip,
            edge_scores=ranking.edge_scores,
        )
    edges = ranking.edge_scores or {}
    return Genotype(
        normal=choose_cell(ranking.scores["normal"], keep, max_skip, edges.get("normal")),
        reduction=choose_cell(ranking.scores["reduction"], keep, None, edges.get("reduction")),
    )


def has_budget(config: Mapping[str, Any], training: TrainSettings) -> bool:
    """Return whether the search or the options limit the network."""
    settings = config.get("settings")
    recorded = settings if isinstance(settings, dict) else {}
    return training.has_budget or any(recorded.get(name) for name in LIMITS)


def rank(
    run: Path,
    config: dict[str, Any],
    *,
    epoch: int | None = None,
    perturbation: Perturbation | None = None,
    cache: Path | None = None,
) -> Ranking:
    """Rank the operations and edges of a search by its alphas, or by perturbation.

    Args:
        run, epoch, perturbation, cache: as for `derive`.
        config: the run's ``config.json``.

    Raises:
        InputError, UsageError, DeviceError: as `derive` does.
    """
    if is_by_trainings(config):
        _check_has_no_alphas(run, epoch, perturbation)
        from skelnas.nas.rating import learn_from  # needs torch

        found = learn_from(read_table(run), config["primitives"])
        return Ranking(tuple(config["primitives"]), found.predictor.edge_scores())
    if perturbation is None:
        search = _read_search(run, config)
        primitives = tuple(search.primitives)
        line = search.lines[_choose_epoch(run, search, epoch)]
        scores = _explaining(
            run, line, lambda: {kind: op_weights(line[kind], primitives) for kind in CELLS}
        )
        return Ranking(primitives, scores)
    if epoch is not None:
        raise UsageError(
            "--epoch needs --select alphas: only the last state of the supernet is saved",
            hint="leave out --epoch or --select perturbation",
        )
    _check_verb(run, config)
    from skelnas.nas.perturbation import measure_losses  # needs torch

    losses = measure_losses(
        run,
        config,
        cache=cache,
        num_clips=perturbation.num_clips,
        device=perturbation.device,
    )
    return Ranking(
        primitives=tuple(losses["normal"].ops[0]),
        scores={kind: increases.ops for kind, increases in losses.items()},
        edge_scores={kind: increases.edges for kind, increases in losses.items()},
    )


def _check_has_no_alphas(run: Path, *options: object) -> None:
    """Refuse options of alphas, if any is given, for a search by trainings."""
    if any(option is not None for option in options):
        raise UsageError(
            f"{run}: was searched with --method predict, so it has neither alphas nor supernet",
            hint="leave out --epoch, --keep, --max-skip and --select",
        )


def _read_search(run: Path, config: dict[str, Any]) -> SearchRun:
    _check_verb(run, config)
    return read_search(run, config)


def _check_verb(run: Path, config: Mapping[str, Any]) -> None:
    if config.get("verb") != "search":
        raise InputError(
            f"{run}: not a search: its {CONFIG} was written by {shown(config.get('verb'))}",
            hint="give the folder that `skelnas search --out` wrote",
        )


def _picked(path: Path) -> Genotype:
    """Return the genotype picked by `skelnas search --repeats`."""
    try:
        document = read_object(path) if path.exists() else {}
        if not document.get("summary"):
            raise InputError(
                f"{path.parent}: no genotype has been picked yet",
                hint="resume the search: the same command with --resume",
            )
        picked = document["summary"]["picked"]
        is_name = picked == Path(picked).name and picked.isprintable()
        if not is_name or len(picked) > MAX_NAME_CHARS:
            raise ValueError(f"picked is {shown(picked)}, expected the name of a model folder")
        model = read_config(path.parent / picked)
        return from_dict(model["model"]["genotype"], str(path))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: unexpected content ({error!r})") from None


def _choose_epoch(run: Path, search: SearchRun, epoch: int | None) -> int:
    """Return the epoch, or the last one, or the last one within ``--stop-skips``."""
    if not search.lines:
        raise InputError(f"{run / ALPHAS}: no alphas yet", hint="let the search continue")
    last = max(search.lines)
    if epoch is not None and epoch not in search.lines:
        raise UsageError(f"{run}: no alphas of epoch {epoch}", hint=f"it has epochs 0 to {last}")
    if max(last if epoch is None else epoch, 1) <= search.weight_epochs:
        note(f"the alphas have not learned yet: w trains alone for {search.weight_epochs} epochs")
    if epoch is not None or search.stop_skips is None:
        return last if epoch is None else epoch
    genotypes = {epoch: _genotype(run, search, epoch) for epoch in search.lines}
    epoch = choose_epoch(genotypes, search.stop_skips, search.weight_epochs)
    if epoch != last:
        note(
            f"using epoch {epoch}, the last with at most {search.stop_skips} skip_connect "
            "in the normal cell"
        )
    return epoch


def _genotype(run: Path, search: SearchRun, epoch: int) -> Genotype:
    line = search.lines[epoch]
    return _explaining(run, line, lambda: from_line(line, search.primitives))


def _explaining(run: Path, line: Mapping[str, Any], read: Callable[[], Result]) -> Result:
    """Read a line of alphas; name the file and the epoch where that fails."""
    where = f"{run / ALPHAS}: epoch {line['epoch']}"
    try:
        return read()
    except InputError as error:
        raise InputError(f"{where}: {error}", hint=error.hint) from None
    except (KeyError, TypeError, IndexError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{where}: unexpected content ({error!r})") from None
