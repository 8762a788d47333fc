"""Tables of results on stdout."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rich.table import Column, Table

from skelnas.runtime import console

if TYPE_CHECKING:
    from skelnas.evaluation.evaluate import Evaluation
    from skelnas.evaluation.scores import Comparison, Scores
    from skelnas.nas.bench.report import BenchReport
    from skelnas.nas.bench.statistics import Estimate
    from skelnas.nas.front import Front
    from skelnas.training.genotype_table import GenotypeTable


def print_evaluation(result: Evaluation) -> None:
    """Print the scores, the cost and the comparison of a model."""
    costs = [
        ("parameters", f"{result.complexity.parameters:,}"),
        ("MACs per clip", f"{result.complexity.macs:,}"),
        ("FLOPs per clip", f"{result.complexity.flops:,}"),
        *_costs_at_input_size(result),
    ]
    if result.views > 1:
        costs += [("views per clip", f"{result.views}, each at the cost of a clip")]
    for latency in result.latency or ():
        batch = f"batch of {latency.batch_size}"
        times = f"median {latency.median_ms:.2f} ms, 95 % below {latency.p95_ms:.2f} ms"
        costs += [(f"{batch}, {latency.passes} passes", times)]
        costs += [(f"{batch}, clips per second", f"{latency.clips_per_second:,.1f}")]
    if result.latency:
        last = result.latency[-1]
        plural = "" if last.threads == 1 else "s"
        costs += [("timed on", f"{last.device}, {last.threads} CPU thread{plural}")]
    print_scores(result.scores, costs)
    if result.comparison is not None:
        _print_comparison(result.metrics.top1, result.comparison)


def print_scores(scores: Scores, extra_rows: Iterable[tuple[str, str]] = ()) -> None:
    """Print the metrics over all clips, followed by `extra_rows`, and those of each class."""
    info, metrics = scores.info, scores.metrics
    title = f"{len(scores):,} {info.part} clips, {info.protocol}"
    without = scores.top1_without_copies
    overall = Table(title=title, show_header=False)
    for name, value in (
        ("top-1", f"{metrics.top1:.2%}"),
        *([("top-5", f"{metrics.top5:.2%}")] if len(info.classes) > 5 else []),
        ("mean per class", f"{metrics.mean_class:.2%}"),
        ("always the largest class", f"{scores.chance:.2%}"),
        ("negative log-likelihood", f"{metrics.nll:.4f}"),
        ("calibration error", f"{metrics.ece:.2%}"),
        *extra_rows,
        *(("did not fit the model", text) for text in info.mismatches),
        *([("copies of training clips", f"{len(info.copies):,}")] if info.copies else []),
        *([] if without is None else [("top-1 without copies", f"{without:.2%}")]),
    ):
        overall.add_row(name, value)
    console.print_table(overall)

    classes = Table("class", "clips", "top-1", "most often mistaken for", title="per class")
    confusion = metrics.confusion
    for index, (name, top1) in enumerate(zip(info.classes, metrics.per_class, strict=True)):
        if top1 is None:
            continue
        errors = confusion[index].copy()
        errors[index] = 0
        worst = int(errors.argmax())
        mistaken = f"{info.classes[worst]} ({errors[worst]})" if errors.any() else ""
        classes.add_row(name, str(confusion[index].sum()), f"{top1:.1%}", mistaken)
    console.print_table(classes)


def _print_comparison(top1: float, comparison: Comparison) -> None:
    """Print the top-1 of two models for each class (Paper: Table V)."""
    table = Table("class", "clips", "A", "B", "A - B", title=f"B is {comparison.other}")
    for name, clips, a, b in comparison.classes:
        table.add_row(name, str(clips), f"{a:.1%}", f"{b:.1%}", f"{100 * (a - b):+.1f}")
    table.add_section()
    clips = sum(row[1] for row in comparison.classes)
    difference = 100 * (top1 - comparison.top1)
    table.add_row(
        "all clips", str(clips), f"{top1:.1%}", f"{comparison.top1:.1%}", f"{difference:+.1f}"
    )
    console.print_table(table)


def _costs_at_input_size(result: Evaluation) -> list[tuple[str, str]]:
    if result.at_size is None:
        return []
    size, counts = result.at_size
    return [(f"MACs at {size}", f"{counts.macs:,}"), (f"FLOPs at {size}", f"{counts.flops:,}")]


def print_genotypes(table: GenotypeTable) -> None:
    """Print the front of a search by trainings, and the genotype that it chose."""
    front = Table("parameters", "MACs", "predicted loss", title="lowest predicted losses")
    before = ""
    for one in table.front:
        if (loss := f"{one.loss:.3f}") != before:
            front.add_row(f"{one.parameters:,}", f"{one.macs:,}", loss)
            before = loss
    console.print_table(front)
    chosen = table.genotypes[table.chosen]
    random = table.random_losses()
    console.result(
        f"chosen: genotype {table.chosen + 1}, {chosen.parameters:,} parameters, estimated loss "
        f"{table.estimates[table.chosen]:.3f} ± {table.deviation:.3f}"
    )
    if random:
        console.result(f"random genotypes: mean loss {statistics.fmean(random):.3f}")


def print_front(front: Front) -> None:
    """Print the best genotypes of every cost, beside random ones."""
    shape = front.shape
    table = Table(
        title=f"best genotypes by {front.by}: {shape.layers} layers, {shape.channels} channels, "
        f"{shape.frames} frames, {shape.joints} joints, {shape.num_classes} classes",
    )
    for name in ("parameters", "MACs", "score", "random, 5 %", "median", "95 %"):
        table.add_column(name, justify="right")
    for point, random in zip(front.points, front.random, strict=True):
        scores = [f"{score:.5f}" for score in (point.score, *random)]
        table.add_row(f"{point.cost.parameters:,}", f"{point.cost.macs:,}", *scores)
    console.print_table(table)


def print_repeats(document: dict[str, Any]) -> None:
    """Print the comparison of searched with random genotypes in ``repeats.json``."""
    summary = document["summary"]
    networks = {network["name"]: network for network in document["networks"]}
    picked = networks[summary["picked"]]
    table = Table(
        "seed",
        "searched",
        "parameters",
        "random",
        "parameters",
        title=f"top-1 on {picked['clips']:,} held-out clips, {picked['protocol']}",
    )
    for seed in summary["seeds"]:
        pair = [networks[f"{kind}-{seed}"] for kind in ("searched", "random")]
        cells = [text for one in pair for text in (f"{one['top1']:.1%}", f"{one['parameters']:,}")]
        table.add_row(str(seed), *cells)
    table.add_section()
    searched, random = summary["searched"], summary["random"]
    table.add_row("mean", f"{searched['mean']:.1%}", "", f"{random['mean']:.1%}", "")
    if searched["deviation"] is not None:
        deviations = f"{searched['deviation']:.1%}", f"{random['deviation']:.1%}"
        table.add_row("deviation", deviations[0], "", deviations[1], "")
    console.print_table(table)
    console.result(
        f"picked: seed {picked['seed']}, {picked['top1']:.1%} (always the largest class: "
        f"{picked['chance']:.1%});\nchoosing the best of several is optimistic, so evaluate it on "
        "the test part"
    )


def print_folds(document: dict[str, Any]) -> None:
    """Print the cross-validation in ``folds.json``."""
    # The end of a protocol's name tells the folds apart: short headers leave room for all of it.
    protocol = Column("protocol", overflow="fold")
    table = Table("fold", protocol, "test clips", "top-1", "mean per\nclass", "largest\nclass")
    for fold in document["folds"]:
        scores = [f"{fold[name]:.1%}" for name in ("top1", "mean_class_accuracy", "chance")]
        table.add_row(fold["name"], fold["protocol"], f"{fold['clips']:,}", *scores)
    table.add_section()
    for name in ("mean", "deviation"):
        table.add_row(name, "", "", f"{document['summary'][name]:.1%}")
    console.print_table(table)


SPREAD_NAMES = {
    "sd_seeds": "deviation of seeds",
    "sd_genotypes": "deviation of genotypes",
    "sd_equal_parameters": "... of equal parameters",
    "per_doubling": "twice the parameters add",
}
RANK_NAMES = {
    "seed": "top-1 with another seed",
    "fold": "top-1 on another protocol",
    "loss": "held-out loss of the same trainings",
    "loss_seed": "loss by loss with another seed",
    "loss_fold": "loss by loss on another protocol",
    "train_loss_25": "training losses, first quarter of the epochs",
    "train_loss_50": "training losses, first half",
    "train_loss_100": "training losses, all",
}
METHOD_NAMES = {
    "random": "best of random",
    "halving": "halving",
    "early": "a quarter of epochs",
    "predict": "--method predict",
}


def print_bench(report: BenchReport) -> None:
    """Print what a table of trainings says."""
    count = sum(one.kind == "random" for one in report.genotypes)
    title = (
        f"{count} random genotypes, protocols: {len(report.protocols)}, "
        f"seeds: {len(report.seeds)}, {report.source}"
    )
    spread = Table("spread", "top-1, points", "loss", title=title)
    for name, label in SPREAD_NAMES.items():
        if name in report.spread["top1"]:
            top1, nll = (report.spread[measure][name] for measure in ("top1", "nll"))
            spread.add_row(label, _interval(top1, 2), _interval(nll, 3))
    console.print_table(spread)

    ranks = Table("top-1 is ranked by", "Kendall's tau", title="how well genotypes are ranked")
    for name, tau in report.ranks.items():
        ranks.add_row(RANK_NAMES.get(name, name), _interval(tau, 2))
    console.print_table(ranks)

    if report.replays:
        replays = Table(
            "trainings", "search", "gain, points", "above best of random", title="replays"
        )
        for found in report.replays:
            above = "" if found.method == "random" else _interval(found.over_random, 2)
            label = METHOD_NAMES.get(found.method, found.method)
            replays.add_row(str(found.trainings), label, _interval(found.gain, 2), above)
        console.print_table(replays)

    given = [one for one in report.genotypes if one.kind == "given"]
    if given:
        others = Table("genotype", "parameters", "top-1", "loss", title="given genotypes")
        for one in given:
            error = "" if one.error is None else f" ± {100 * one.error:.1f}"
            others.add_row(
                one.name, f"{one.parameters:,}", f"{100 * one.top1:.1f}{error} %", f"{one.nll:.3f}"
            )
        console.print_table(others)
    if report.left_out:
        console.note(f"left out, for lack of trainings: {', '.join(report.left_out)}")


def _interval(estimate: Estimate, digits: int) -> str:
    """Format a number with its 95 % interval."""
    value, low, high = estimate.value, estimate.low, estimate.high
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
