"""`skelnas derive`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from skelnas.cli.options import Json, with_settings
from skelnas.cli.tables import print_front
from skelnas.config import DEVICES, Device, TrainSettings
from skelnas.errors import UsageError
from skelnas.runtime import console


@with_settings(
    TrainSettings, ("max_params", "max_macs", "layers", "channels", "branches", "frames", "streams")
)
def derive(
    run: Annotated[Path, typer.Argument(help="Run folder of a search.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Write the genotype to this file.")] = None,
    epoch: Annotated[
        int | None, typer.Option(min=0, help="Use the alphas after this epoch; 0 is the start.")
    ] = None,
    keep: Annotated[int, typer.Option(min=1, help="Incoming edges kept per node.")] = 2,  # paper
    max_skip: Annotated[
        int | None,
        typer.Option(min=0, help="Maximum number of skips in the normal cell."),
    ] = None,  # P-DARTS: 2
    select: Annotated[
        Literal["alphas", "perturbation"],
        typer.Option(help="Rank by alphas or perturbation."),
    ] = "alphas",  # paper
    cache: Annotated[
        Path | None,
        typer.Option(help="The cache, if it has moved or is another."),
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(min=1, help="For perturbation: number of clips to use."),
    ] = None,
    device: Annotated[
        Device | None,
        typer.Option(metavar=DEVICES, help="For perturbation: auto, cpu, cuda, cuda:N or mps."),
    ] = None,
    front: Annotated[
        bool, typer.Option("--front", help="Print the best genotypes of every size.")
    ] = False,
    by: Annotated[
        Literal["parameters", "macs"] | None,
        typer.Option(help="For --front: the size (parameters).", show_default=False),
    ] = None,
    json: Json = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw cells or front: .svg, .png or .pdf.")
    ] = None,
    *,
    settings: TrainSettings,
) -> None:
    """Print the genotype of a search as JSON.

    Examples:
        skelnas derive runs/xsub --out cells.json --plot cells.svg
        skelnas derive runs/xsub | skelnas train c.h5 --genotype - --out models/c
        skelnas derive runs/xsub --front --plot front.svg
    """
    from skelnas.nas.derive import Perturbation
    from skelnas.nas.derive import derive as derive_genotype
    from skelnas.reporting.plot_style import check_picture
    from skelnas.runtime.files import atomic_write, check_output, real_path

    if out is not None and plot is not None and real_path(out) == real_path(plot):
        raise UsageError(
            f"{out}: cannot hold both the genotype and its drawing",
            hint="name two files, such as --out cells.json --plot cells.svg",
        )
    if select == "alphas" and (clips or device):
        raise UsageError("--clips and --device need --select perturbation")
    if out is not None:
        check_output(out)
    if plot is not None:
        check_picture(plot, "cells")
    options: dict[str, Any] = {
        "epoch": epoch,
        "keep": keep,
        "perturbation": Perturbation(clips or 0, device) if select == "perturbation" else None,
        "cache": cache,
        "training": settings,
    }
    if front:
        if out is not None or max_skip is not None:
            raise UsageError("--front takes neither --out nor --max-skip")
        _derive_front(run, by or "parameters", plot, as_json=json, **options)
        return
    if by:
        raise UsageError("--by needs --front")
    genotype = derive_genotype(run, max_skip=max_skip, **options)
    is_written = False
    try:
        if out is not None:
            atomic_write(out, genotype.to_json())
            is_written = True
        if plot is not None:
            from skelnas.reporting.plot_cells import draw_cells

            draw_cells(genotype, plot)
    finally:  # a full disk does not lose what was computed
        if json or not is_written:
            console.result(genotype.to_json())


def _derive_front(
    run: Path,
    by: Literal["parameters", "macs"],
    plot: Path | None,
    *,
    as_json: bool,
    **options: Any,
) -> None:
    """Print the front as a table or as JSON, and draw it."""
    from skelnas.nas.front import derive_front

    front = derive_front(run, by=by, **options)
    try:
        if plot is not None:
            from skelnas.reporting.plot_budget import draw_budget_front

            names = {"parameters": "parameters", "macs": "MACs per clip"}
            scores = [point.score for point in front.points]
            draw_budget_front(plot, front.costs, scores, front.random, names[by], front.limit)
    finally:
        if as_json:
            console.result_json(front.to_dict())
        else:
            print_front(front)
