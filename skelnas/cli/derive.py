"""`skelnas derive`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from skelnas.config import Device
from skelnas.errors import UsageError
from skelnas.runtime import console


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
        typer.Option(help="Rank by alphas or by perturbation."),
    ] = "alphas",  # paper
    cache: Annotated[
        Path | None,
        typer.Option(help="For perturbation: the cache, if it has moved."),
    ] = None,
    clips: Annotated[
        int | None,
        typer.Option(min=1, help="For perturbation: number of clips to use."),
    ] = None,
    device: Annotated[
        Device | None, typer.Option(help="For perturbation: device, if not the search's.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw both cells as .svg or .png (extra: plot).")
    ] = None,
) -> None:
    """Print the genotype of a search as JSON.

    Example: skelnas derive runs/xsub | skelnas train ntu60.h5 --genotype - --out models/xsub
    """
    from skelnas.nas.derive import Perturbation
    from skelnas.nas.derive import derive as derive_genotype
    from skelnas.runtime.files import atomic_write

    if out is not None and plot is not None and out.resolve() == plot.resolve():
        raise UsageError(
            f"{out}: cannot hold both the genotype and its drawing",
            hint="name two files, such as --out cells.json --plot cells.svg",
        )
    perturbation = Perturbation(cache, clips or 0, device) if select == "perturbation" else None
    if perturbation is None and (cache or clips or device):
        raise UsageError("--cache, --clips and --device need --select perturbation")
    genotype = derive_genotype(
        run, epoch=epoch, keep=keep, max_skip=max_skip, perturbation=perturbation
    )
    if plot is not None:
        from skelnas.reporting.plot_cells import draw_cells

        draw_cells(genotype, plot)
    if out is None:
        console.result(genotype.to_json())
    else:
        atomic_write(out, genotype.to_json())
