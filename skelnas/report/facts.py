"""What a report says in words: key figures, moments of a search, settings."""

from __future__ import annotations

import json
import math
from pathlib import Path

from skelnas.report.history import CELLS, History
from skelnas.selection import count_skips, count_stable


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


def heading(history: History) -> str:
    """Return what the report is about."""
    work = {"search": "Search", "train": "Training"}[history.verb]
    return f"{work} {history.folder.resolve().name}"


def moments(history: History) -> list[tuple[str, int]]:
    """Return the epochs whose cells are shown: of a search start, middle and end, with a title."""
    epochs = list(history.genotypes)
    if not history.alphas:
        return [("", epoch) for epoch in epochs]
    chosen = dict.fromkeys([epochs[0], epochs[len(epochs) // 2], epochs[-1]])
    return [(f"After epoch {epoch}" if epoch else "At the start", epoch) for epoch in chosen]


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
