"""What a report says in words: key figures, moments of a search, settings."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from skelnas.genotype import count_skips, count_stable
from skelnas.reporting.history import CELLS, History

if TYPE_CHECKING:
    from skelnas.evaluation.scores import Scores
    from skelnas.reporting.results import Confusion, Results


def facts(history: History) -> list[tuple[str, str]]:
    """Return the key figures of a run by name, those that are known."""
    done = history.epochs[-1] if history.epochs else 0
    found = [("Epochs", f"{done} of {history.planned}")]
    if history.seconds:
        found.append(("Time", duration(history.seconds)))
        found.append(("An epoch takes", duration(history.seconds / len(history.epochs))))
    found += _data(history)
    for name, values in history.metrics.items():
        if name.endswith(("_loss", "_top1")) and math.isfinite(values[-1]):
            text = f"{values[-1]:.1%}" if name.endswith("_top1") else f"{values[-1]:.3f}"
            found.append((name.replace("_", " ").replace("top1", "top-1").capitalize(), text))
    if history.has_moved:
        for cell in CELLS:
            entropy = history.entropy(cell)
            found.append((f"Entropy, {cell}", f"{entropy[0]:.1%} → {entropy[-1]:.1%}"))
        genotypes = list(history.genotypes.values())
        found.append(("Skips of the normal cell", str(count_skips(genotypes[-1]))))
        stable = count_stable(genotypes)
        found.append(("Cells unchanged for", f"{stable} epoch{'' if stable == 1 else 's'}"))
    return found


def _data(history: History) -> list[tuple[str, str]]:
    config, protocol = history.config, history.settings.get("protocol")
    model = config.get("model") if isinstance(config.get("model"), dict) else {}
    known = {**config, **(model or {})}
    found = []
    if "baseline" in known:
        found.append(("Baseline", str(known["baseline"])))
    if "cache" in known:
        cache = Path(str(known["cache"])).name
        found.append(("Clips from", f"{cache}, {protocol}" if protocol else cache))
    clips = known.get("clips")
    if isinstance(clips, dict):
        found.append((f"Clips for {', '.join(clips)}", ", ".join(map(str, clips.values()))))
    elif clips is not None:
        found.append(("Clips", str(clips)))
    if isinstance(known.get("classes"), list):
        found.append(("Classes", str(len(known["classes"]))))
    return found


def cost_facts(results: Results | None) -> list[tuple[str, str]]:
    """Return what a trained model costs, as far as it is known."""
    found = []
    if results and results.complexity:
        found.append(("Parameters", f"{results.complexity.parameters:,}"))
        found.append(("Multiply-adds a clip", f"{results.complexity.macs:,}"))
    latencies = results.latency if results else ()
    for latency in latencies:
        many = latency.batch_size > 1
        label = f"{latency.batch_size} clips take" if many else "A clip takes"
        found.append((label, f"{latency.median_ms:,.1f} ms"))
    if latencies:
        device, threads = latencies[0].device, latencies[0].threads
        found.append(("Timed on", f"{device}, {threads} thread{'s' if threads > 1 else ''}"))
    return found


def score_facts(scores: Scores) -> list[tuple[str, str]]:
    """Return the figures of all clips by name."""
    metrics = scores.metrics
    return [
        ("Top-1", f"{metrics.top1:.1%}"),
        ("Top-5", f"{metrics.top5:.1%}"),
        ("Mean per class", f"{metrics.mean_class:.1%}"),
        ("Chance", f"{scores.chance:.1%}"),
        ("Negative log-likelihood", f"{metrics.nll:.3f}"),
        ("Calibration error", f"{metrics.ece:.1%}"),
    ]


def ranked_classes(scores: Scores) -> list[tuple[str, int, float]]:
    """Return name, clips and top-1 of each class that has clips, the lowest first."""
    counts = scores.metrics.confusion.sum(axis=1).tolist()
    rows = zip(scores.about.classes, counts, scores.metrics.per_class, strict=True)
    known = [(name, clips, top1) for name, clips, top1 in rows if top1 is not None]
    return sorted(known, key=lambda row: row[2])


def spell_confusion(confusion: Confusion) -> tuple[str, str, str]:
    """Say which class is taken for which, and what both examples are."""
    share = confusion.clips / confusion.of
    title = (
        f"{confusion.true} taken for {confusion.taken_for}: {confusion.clips} of {confusion.of} "
        f"clips ({share:.0%})"
    )
    mistaken, right = confusion.mistaken, confusion.recognised
    recognised = f"{right.clip}: {confusion.taken_for}, {_sure(right.share)}" if right else ""
    wrong = f"{mistaken.clip}: {confusion.true}, taken for {confusion.taken_for}"
    return title, f"{wrong}, {_sure(mistaken.share)}", recognised


def _sure(share: float) -> str:
    return f"{share:.0%} sure" if share > 0.095 else f"{share:.1%} sure"


def heading(history: History) -> str:
    """Return what the report is about."""
    work = {"search": "Search", "train": "Training"}[history.verb]
    return f"{work} {history.folder.resolve().name}"


def moments(history: History) -> list[tuple[str, int]]:
    """Return the epochs whose cells are shown: with a title.

    Of a search start, middle, end, and the derived one where that is another.
    """
    epochs = list(history.genotypes)
    if not history.alphas:
        return [("", epoch) for epoch in epochs]
    chosen = sorted({epochs[0], epochs[len(epochs) // 2], epochs[-1], history.derived})
    titles = [(f"After epoch {epoch}" if epoch else "At the start", epoch) for epoch in chosen]
    if history.derived == epochs[-1]:
        return titles
    return [
        (title + ", the last that keeps to --stop-skips" * (epoch == history.derived), epoch)
        for title, epoch in titles
    ]


def settings(history: History) -> dict[str, dict[str, str]]:
    """Return what was asked and with what it was done, in groups, as text."""
    groups = {"Settings": history.settings, "Versions": history.config.get("versions")}
    return {
        title: {name: _plain(value) for name, value in group.items()}
        for title, group in groups.items()
        if isinstance(group, dict)
    }


def _plain(value: object) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value)


def duration(seconds: float) -> str:
    """Say a time in the two largest units that it has."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
