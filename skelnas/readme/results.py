"""Results in a card: kept in its head in the form of the Hub, shown in its text as a table."""

from __future__ import annotations

import json
import re
from typing import Any

from skelnas.scores import Scores

BEGIN, END = "<!-- results of skelnas -->", "<!-- end of results -->"
_INDEX = re.compile(r"^model-index: (\[.*\])$", re.MULTILINE)

MEASURES = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class_accuracy": "mean per class",
    "chance": "chance",
    "nll": "negative log-likelihood",
    "ece": "calibration error",
}
"""What results are given of: name in an evaluation, and in words."""


def add(text: str, scores: Scores, source: str) -> str:
    """Return a card with results; those on the same part of the same protocol are replaced.

    Args:
        text: of a card that has a place for them.
        scores: of the model.
        source: of the data set.
    """
    index = _find_index(text)
    result = _describe(scores, source)
    kept = [one for one in index[0]["results"] if one["dataset"] != result["dataset"]]
    index[0]["results"] = sorted([*kept, result], key=lambda one: json.dumps(one["dataset"]))
    text = _INDEX.sub(lambda _: f"model-index: {json.dumps(index)}", text, count=1)
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{_table(index[0]['results'])}\n\n{END}{tail}"


def has_place(text: str) -> bool:
    """Say whether a card still has what results are kept in."""
    begin, end = text.find(BEGIN), text.find(END)
    return 0 <= begin < end and _find_index(text) is not None


def _find_index(text: str) -> Any:
    """Return the results so far, in the form of the Hub; None if they are not what was written."""
    found = _INDEX.search(text)
    try:
        index = json.loads(found[1]) if found else []
        _table(index[0]["results"])
    except (ValueError, TypeError, LookupError):
        return None
    return index


def _describe(scores: Scores, source: str) -> dict[str, Any]:
    """Return results in the form of the Hub."""
    about, found = scores.about, scores.to_dict()
    dataset = {"type": source, "name": source, "config": about.protocol, "split": about.part}
    measures = [{"type": "clips", "name": "clips", "value": len(scores)}]
    for name, words in MEASURES.items():
        kind = "accuracy" if name == "top1" else name
        measures.append({"type": kind, "name": words, "value": round(found[name], 6)})
    task = {"type": "skeleton-based-action-recognition"}
    return {"task": task, "dataset": dataset, "metrics": measures}


def _table(results: list[dict[str, Any]]) -> str:
    """Show results as a table."""
    names = ["protocol", "part", "clips", *MEASURES.values()]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for result in results:
        values = {measure["name"]: measure["value"] for measure in result["metrics"]}
        cells = [result["dataset"]["config"], result["dataset"]["split"], f"{values['clips']:,}"]
        for name, words in MEASURES.items():
            cells.append(f"{values[words]:.4f}" if name == "nll" else f"{values[words]:.2%}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
