"""The words and figures of a report."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from skelnas.derivation import count_skips, count_stable
from skelnas.genotype import CELLS
from skelnas.reporting.history import History
from skelnas.runtime.files import real_path
from skelnas.training.genotype_table import GenotypeTable

if TYPE_CHECKING:
    from skelnas.evaluation.scores import Scores
    from skelnas.reporting.results import Confusion, Example, Results

Facts = list[tuple[str, str]]
"""Key figures: name and value."""


def heading(history: History) -> str:
    """Return the title of a report."""
    kind = {"search": "Search", "train": "Training"}[history.verb]
    return f"{kind} {real_path(history.folder).name}"


def run_facts(history: History) -> Facts:
    """Return the key figures of a run."""
    if history.is_by_trainings:
        return [*_table_facts(history.table), *_data_facts(history)]
    num_epochs = len(history.epochs)
    facts = [("Epochs", f"{history.epochs[-1] if num_epochs else 0} of {history.planned_epochs}")]
    if history.seconds:
        facts.append(("Time", format_duration(history.seconds)))
        facts.append(("Time per epoch", format_duration(history.seconds / num_epochs)))
    facts += _data_facts(history)
    for name, values in history.metrics.items():
        if name.endswith(("_loss", "_top1")) and math.isfinite(values[-1]):
            text = f"{values[-1]:.1%}" if name.endswith("_top1") else f"{values[-1]:.3f}"
            facts.append((name.replace("_", " ").replace("top1", "top-1").capitalize(), text))
    if history.has_alpha_curves:
        for cell in CELLS:
            entropy = history.entropy(cell)
            facts.append((f"Entropy, {cell}", f"{entropy[0]:.1%} → {entropy[-1]:.1%}"))
        genotypes = list(history.genotypes.values())
        facts.append(("Skips in the normal cell", str(count_skips(genotypes[-1]))))
        num_stable = count_stable(genotypes[history.weight_epochs :])
        facts.append(("Cells unchanged for", f"{num_stable} epoch{_plural(num_stable)}"))
    return facts


def _table_facts(table: GenotypeTable | None) -> Facts:
    if table is None:
        return [("Genotypes", "none yet")]
    chosen = table.genotypes[table.chosen]
    random = table.random_losses()
    facts = [
        ("Genotypes", f"{len(table.genotypes)} of {table.planned}, {len(table.folds)} folds"),
        ("Chosen", f"number {table.chosen + 1}, {chosen.parameters:,} parameters"),
        ("Its estimated loss", f"{table.estimates[table.chosen]:.3f} ± {table.deviation:.3f}"),
    ]
    if random:
        facts.append(("Mean loss at random", f"{fmean(random):.3f}"))
    return [*facts, ("Noise of a mean loss", f"{table.noise:.3f}")]


def _data_facts(history: History) -> Facts:
    model = history.config.get("model")
    config: dict[str, Any] = {**history.config, **(model if isinstance(model, dict) else {})}
    protocol = history.settings.get("protocol")
    facts = []
    if "baseline" in config:
        facts.append(("Baseline", str(config["baseline"])))
    if "cache" in config:
        cache = Path(str(config["cache"])).name
        facts.append(("Clips from", f"{cache}, {protocol}" if protocol else cache))
    clips = config.get("clips")
    if isinstance(clips, dict):
        facts.append((f"Clips for {', '.join(clips)}", ", ".join(map(str, clips.values()))))
    elif clips is not None:
        facts.append(("Clips", str(clips)))
    if isinstance(config.get("classes"), list):
        facts.append(("Classes", str(len(config["classes"]))))
    return facts


def cost_facts(results: Results | None) -> Facts:
    """Return the size, the multiply-adds and the latency of a model, as far as they are known."""
    if results is None:
        return []
    facts = []
    if results.epoch:
        facts.append(("Weights", f"of epoch {results.epoch}, chosen by held-out clips"))
    if results.complexity:
        facts.append(("Parameters", f"{results.complexity.parameters:,}"))
        facts.append(("Multiply-adds per clip", f"{results.complexity.macs:,}"))
    for latency in results.latency:
        size = latency.batch_size
        facts.append((f"Time for {size} clip{_plural(size)}", f"{latency.median_ms:,.1f} ms"))
    if results.latency:
        device, threads = results.latency[0].device, results.latency[0].threads
        facts.append(("Timed on", f"{device}, {threads} thread{_plural(threads)}"))
    return facts


def score_facts(scores: Scores, epoch: int | None = None) -> Facts:
    """Return the metrics of a model, whose epoch held-out clips chose if it is given."""
    metrics = scores.metrics
    is_optimistic = epoch is not None and scores.info.part == "held-out"
    return [
        *([("Optimistic", "these clips chose the epoch of the weights")] if is_optimistic else []),
        ("Top-1", f"{metrics.top1:.1%}"),
        *([("Top-5", f"{metrics.top5:.1%}")] if len(scores.info.classes) > 5 else []),
        ("Mean per class", f"{metrics.mean_class:.1%}"),
        ("Always the largest class", f"{scores.chance:.1%}"),
        ("Negative log-likelihood", f"{metrics.nll:.3f}"),
        ("Calibration error", f"{metrics.ece:.1%}"),
        *(("Clips that did not fit the model", text) for text in scores.info.mismatches),
        *copy_facts(scores),
    ]


def copy_facts(scores: Scores) -> Facts:
    """Return how many clips are copies of training clips, and the top-1 without them."""
    if not (copies := scores.info.copies):
        return []
    without = scores.top1_without_copies
    better = [] if without is None else [("Top-1 without copies", f"{without:.1%}")]
    return [("Copies of training clips", f"{len(copies):,}"), *better]


def rank_classes(scores: Scores) -> list[tuple[str, int, float]]:
    """Return name, number of clips and top-1 of each class that has clips, the lowest first."""
    counts = scores.metrics.confusion.sum(axis=1).tolist()
    rows = zip(scores.info.classes, counts, scores.metrics.per_class, strict=True)
    return sorted(
        ((name, count, top1) for name, count, top1 in rows if top1 is not None),
        key=lambda row: row[2],
    )


def describe_confusion(confusion: Confusion) -> tuple[str, str, str]:
    """Return the title of a confusion and a line for each of its two examples."""
    true, predicted = confusion.true, confusion.predicted
    fraction = confusion.num_clips / confusion.num_true_clips
    title = (
        f"{true} classified as {predicted}: {confusion.num_clips} of {confusion.num_true_clips} "
        f"clips ({fraction:.0%})"
    )
    wrong, right = confusion.wrong, confusion.right
    return (
        title,
        f"{wrong.clip}: {true}, classified as {predicted} with {_confidence(wrong)}",
        f"{right.clip}: {predicted}, with {_confidence(right)}" if right else "",
    )


def _confidence(example: Example) -> str:
    digits = 0 if example.confidence > 0.095 else 1
    return f"{example.confidence:.{digits}%} confidence"


def shown_epochs(history: History) -> dict[int, str]:
    """Return the epochs whose cells are shown, with a title for each.

    For a search they are the first, the middle and the last one of those in which alphas learn,
    and the one that `skelnas derive` takes if that is another.
    """
    epochs = list(history.genotypes)
    if not history.alphas:
        return dict.fromkeys(epochs, "")
    derived = history.derived_epoch
    epochs = epochs[min(history.weight_epochs, len(epochs) - 1) :]
    chosen = sorted({epochs[0], epochs[len(epochs) // 2], epochs[-1], derived})
    titles = {epoch: f"After epoch {epoch}" if epoch else "At the start" for epoch in chosen}
    if derived != epochs[-1]:
        titles[derived] += ", the last within --stop-skips"
    return titles


def group_settings(history: History) -> dict[str, dict[str, str]]:
    """Return the settings and the versions of a run, as text."""
    groups = {"Settings": history.settings, "Versions": history.config.get("versions")}
    return {
        title: {name: _format_setting(value) for name, value in group.items()}
        for title, group in groups.items()
        if isinstance(group, dict)
    }


def _format_setting(value: object) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value)


def format_duration(seconds: float) -> str:
    """Return a duration in seconds, in minutes, or in hours and minutes."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _plural(count: int) -> str:
    return "" if count == 1 else "s"
