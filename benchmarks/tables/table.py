"""Print a table of the paper as Markdown, with the figures measured here next to the paper's.

    python benchmarks/tables/table.py NAME OUT

NAME is 2 to 5, `comparison` or `ablation`; OUT is the folder of results of its script. Missing
figures are dashes, so a table can be printed while its script runs. Figures are from the last
epoch, on the official test part.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

NONE = "-"
Rows = list[list[str]]


def read(path: Path) -> dict[str, Any]:
    """Read the output of `skelnas evaluate --json`; return {} if there is none yet."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def percent(score: float | None) -> str:
    return NONE if score is None else f"{100 * score:.1f}%"


def millions(count: int | None) -> str:
    return NONE if count is None else f"{count / 1e6:.2f}M"


def table2(out: Path) -> Rows:
    paper = {7: ("81.2%", "8.09G"), 8: ("84.1%", "9.09G"), 9: ("86.4%", "10.2G")}
    paper |= {10: ("85.0%", "11.1G"), 11: ("84.8%", "12.1G")}
    rows = [["cells", "paper: top-1", "top-1", "paper: Flops", "MACs at 224x224", "parameters"]]
    for cells, (top1, flops) in paper.items():
        found = read(out / f"xsub/sar/{cells}-cells.json")
        macs = (found.get("at_input_size") or {}).get("macs")
        cost = NONE if macs is None else f"{macs / 1e9:.2f}G"
        size = millions(found.get("parameters"))
        rows.append([str(cells), top1, percent(found.get("top1")), flops, cost, size])
    return rows


def table3(out: Path) -> Rows:
    paper: list[tuple[str, str | None, str, str, str]] = [
        ("LSTM-CNN", None, "60M+", "82.9%", "90.1%"),
        ("DCM (DenseNet161)", None, "10M+", "84.5%", "91.3%"),
        ("DPRL + GCNN", None, NONE, "83.5%", "89.8%"),
        ("HCN", "hcn", "2.64M", "86.5%", "91.1%"),
        ("ST-GCN", "st-gcn", "3.1M", "81.5%", "88.3%"),
        ("AS-GCN", None, "7.1M", "86.8%", "94.2%"),
        ("DARTS", "darts/9-cells", "1.6M", "83.9%", "92.0%"),
        ("SAR-NAS", "sar/9-cells", "1.3M", "86.4%", "94.3%"),
    ]
    rows = [["network", "paper: parameters", "parameters", "paper: cross-subject", "cross-subject"]]
    rows[0] += ["paper: cross-view", "cross-view"]
    for name, folder, size, subject, view in paper:
        one, two = (read(out / f"{protocol}/{folder}.json") for protocol in ("xsub", "xview"))
        sizes = dict.fromkeys(millions(it["parameters"]) for it in (one, two) if it)
        found = [percent(it.get("top1")) for it in (one, two)]
        rows.append([name, size, ", ".join(sizes) or NONE, subject, found[0], view, found[1]])
    return rows


def table4(out: Path) -> Rows:
    paper: list[tuple[str, str | None, str, str, str]] = [
        ("Temporal Conv", "temporal-conv", NONE, "20.3%", "40.0%"),
        ("ST-GCN", "st-gcn", "3.1M", "30.7%", "52.8%"),
        ("AS-GCN", None, "7.1M", "34.8%", "56.5%"),
        ("DARTS", "darts/9-cells", "2.7M", "32.1%", "54.0%"),
        ("SAR-NAS", "sar/9-cells", "2.5M", "33.6%", "56.3%"),
    ]
    rows = [["network", "paper: parameters", "parameters", "paper: top-1", "top-1"]]
    rows[0] += ["paper: top-5", "top-5"]
    for name, folder, size, top1, top5 in paper:
        it = read(out / f"official/{folder}.json")
        found = [millions(it.get("parameters")), percent(it.get("top1")), percent(it.get("top5"))]
        rows.append([name, size, found[0], top1, found[1], top5, found[2]])
    return rows


def table5(out: Path) -> Rows:
    paper = {
        "drink water": ("Drink water", "95.0%", "94.1%"),
        "brushing hair": ("Brush hair", "94.6%", "91.5%"),
        "wipe face": ("Wipe face", "88.3%", "84.5%"),
        "touch back (backache)": ("Back pain", "89.2%", "87.0%"),
        "kicking something": ("Kicking", "97.1%", "95.9%"),
        "touch other person's pocket": ("Touch pocket", "95.3%", "91.1%"),
    }
    comparison = read(out / "xview/with-and-without-se.json").get("comparison") or {}
    found = {row["class"]: row for row in comparison.get("classes", [])}
    rows = [["action", "in the paper", "paper: with SE", "with SE"]]
    rows[0] += ["paper: without SE", "without SE"]
    for name in dict.fromkeys([*paper, *found]):  # the paper's rows first
        row, (paper_name, with_se, without) = found.get(name, {}), paper.get(name, (NONE,) * 3)
        measured = percent(row.get("a")), percent(row.get("b"))
        rows.append([name, paper_name, with_se, measured[0], without, measured[1]])
    return rows


def ablation(out: Path) -> Rows:
    levers = ["strong", "no-warmup", "no-nesterov", "no-label-smoothing", "no-drop-path", "no-ema"]
    levers += ["no-input-norm", "no-rotate", "no-scale", "no-crop", "no-flip", "paper"]
    levers += ["only-joints", "no-branches", "no-se"]
    found = {name: read(out / f"ablation/{name}.json") for name in levers}
    whole = found["strong"].get("top1")
    rows = [["training", "top-1", "points to strong", "mean per class", "nll"]]
    for name, it in found.items():
        top1, nll = it.get("top1"), it.get("nll")
        points = NONE if None in (top1, whole) else f"{100 * (top1 - whole):+.1f}"
        likelihood = NONE if nll is None else f"{nll:.3f}"
        mean = percent(it.get("mean_class_accuracy"))
        rows.append([name.replace("-", " "), percent(top1), points, mean, likelihood])
    return rows


def comparison(out: Path) -> Rows:
    rows = [["network", "parameters", "MACs a clip", "seeds", "top-1", "mean per class"]]
    rows[0] += ["top-1 without copies of training clips"]
    kinds = ["top1", "mean_class_accuracy", "top1_without_copies"]
    networks: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(out.glob("comparison/*-*.json")):
        networks.setdefault(path.stem.rpartition("-")[0], []).append(read(path))
    for name, found in networks.items():
        sizes = [range_of([it["parameters"] / 1e6 for it in found], "{:.2f}", "M")]
        sizes += [range_of([it["macs"] / 1e6 for it in found], "{:.0f}", "M")]
        scores = [spread_of([it[score] for it in found if score in it]) for score in kinds]
        rows.append([name, *sizes, str(len(found)), *scores])
    return rows


def range_of(values: list[float], form: str, unit: str) -> str:
    """Format the range of some values, or their one value."""
    ends = dict.fromkeys(form.format(value) for value in (min(values), max(values)))
    return f"{' to '.join(ends)}{unit}"


def spread_of(scores: list[float]) -> str:
    """Format the mean, the sample standard deviation and the scores themselves."""
    mean = percent(statistics.fmean(scores) if scores else None)
    if len(scores) < 2:
        return mean
    each = ", ".join(f"{100 * score:.1f}" for score in scores)
    return f"{mean} ± {100 * statistics.stdev(scores):.1f} ({each})"


TABLES: dict[str, tuple[str, Callable[[Path], Rows]]] = {
    "2": ("Table II: depth of the network, NTU RGB+D 60, cross-subject", table2),
    "3": ("Table III: NTU RGB+D 60, top-1", table3),
    "4": ("Table IV: Kinetics-Skeleton", table4),
    "5": ("Table V: squeeze-and-excitation, NTU RGB+D 60, cross-view, top-1 of a class", table5),
    "comparison": ("Networks that were trained alike, the mean of some seeds", comparison),
    "ablation": ("The strong recipe without each of its levers", ablation),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=TABLES, help="number or name of the table")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    title, make = TABLES[arguments.name]
    head, *rows = make(arguments.out)
    print(f"# {title}\n")
    for cells in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
