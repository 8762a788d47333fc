"""The chart of a search by trainings: loss against size of every genotype, and the front."""

from __future__ import annotations

from typing import TYPE_CHECKING

from skelnas.reporting.plot_style import INK, PALETTE, QUIET, legend, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from skelnas.training.genotype_table import GenotypeTable

RANDOM, PROPOSED = PALETTE["second"][0], PALETTE["first"][0]


def draw_front(axes: Axes, table: GenotypeTable, font_size: float) -> None:
    """Draw the estimated losses of the trained genotypes, the chosen one ringed, and the front.

    Args:
        axes: where to draw it.
        table: of the search.
        font_size: of all text, in points.
    """
    for label, colour, marker, is_proposed in (
        ("random", RANDOM, "s", False),
        ("proposed", PROPOSED, "o", True),
    ):
        points = [
            (one.parameters, loss)
            for one, loss in zip(table.genotypes, table.estimates, strict=True)
            if bool(one.round) == is_proposed
        ]
        axes.scatter(
            [cost for cost, _ in points],
            [loss for _, loss in points],
            s=14,
            color=colour,
            marker=marker,
            linewidths=0,
            label=label,
            zorder=2,
        )
    chosen = table.genotypes[table.chosen]
    axes.scatter(
        [chosen.parameters],
        [table.estimates[table.chosen]],
        s=70,
        facecolors="none",
        edgecolors=INK,
        linewidths=1.2,
        label="chosen",
        zorder=3,
    )
    costs = [one.parameters for one in table.front]
    losses = [one.loss for one in table.front]
    largest = max(one.parameters for one in table.genotypes)
    axes.plot(
        [*costs, max(largest, costs[-1])],
        [*losses, losses[-1]],
        drawstyle="steps-post",
        color=QUIET,
        linewidth=1.2,
        label="predicted front",
        zorder=1,
    )
    _style_axes(axes, font_size)


def describe_front(table: GenotypeTable) -> str:
    """Return in words what `draw_front` draws."""
    chosen = table.genotypes[table.chosen]
    return (
        f"Estimated loss against parameters of {len(table.genotypes)} genotypes, from "
        f"{min(table.estimates):.3f} to {max(table.estimates):.3f}; the chosen one has "
        f"{chosen.parameters:,} parameters"
    )


def _style_axes(axes: Axes, font_size: float) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    style_axes(axes, font_size, pad=2.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, min_n_ticks=2))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, min_n_ticks=2))
    axes.set_xlabel("parameters", size=font_size, color=QUIET, labelpad=1)
    legend(axes, font_size, 2, borderaxespad=0.4, columnspacing=1.4, handletextpad=0.5)
