"""`skelnas layouts`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from skelnas.cli.options import Json
from skelnas.errors import UsageError
from skelnas.runtime import console
from skelnas.runtime.files import check_output

if TYPE_CHECKING:
    from skelnas.data.readers.base import Layout


def layouts(
    name: Annotated[
        str | None, typer.Argument(help="Show this one; by default all are listed.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it as a .png.")] = None,
    as_json: Json = False,
) -> None:
    """List named skeletons, or show the joints and bones of one.

    `prepare manifest --joints` takes the name, or a file such as --json prints.

    Examples:
        skelnas layouts
        skelnas layouts coco17 --plot coco17.png
        skelnas layouts coco17 --json > joints.json
    """
    if plot is not None and (name is None or plot.suffix.lower() != ".png"):
        raise UsageError("--plot draws one layout: give its name and a file that ends in .png")
    if plot is not None:
        check_output(plot)

    from skelnas.data.readers.layouts import LAYOUTS, find_layout

    if name is None:
        rows = {
            name: (len(layout.joints), ", ".join(layout.channels), about)
            for name, (layout, about) in LAYOUTS.items()
        }
        if as_json:
            console.result_json({name: row[2] for name, row in rows.items()})
        else:
            _print_list(rows)
        return
    layout = find_layout(name)
    if as_json:
        console.result(json.dumps(_to_dict(layout)))
    if plot is not None:
        from skelnas.reporting.plot_layout import draw_layout

        draw_layout(name, layout, plot)
        console.note(f"{plot}: {name}, {len(layout.joints)} joints")
    elif not as_json:
        _print_layout(name, layout)


def _print_list(rows: dict[str, tuple[int, str, str]]) -> None:
    table = Table("layout", "joints", "channels", "of")
    for name, (num_joints, channels, about) in rows.items():
        table.add_row(name, str(num_joints), channels, about)
    console.print_table(table)


def _print_layout(name: str, layout: Layout) -> None:
    parents = dict(layout.bones)
    center = layout.joints[layout.center_joint] if layout.center_joint is not None else "none"
    vertical = "downwards" if layout.y_down else "upwards"
    caption = f"y grows {vertical}, centre: {center}"
    title = f"{name}: {', '.join(layout.channels)}"
    table = Table("index", "joint", "its bone starts at", title=title, caption=caption)
    for joint, text in enumerate(layout.joints):
        parent = layout.joints[parents[joint]] if joint in parents else ""
        table.add_row(str(joint), text, parent)
    console.print_table(table)


def _to_dict(layout: Layout) -> dict[str, Any]:
    """Return a file of joints, see `skelnas.data.readers.skeleton_file`."""
    joints = layout.joints
    center = layout.center_joint
    y_down = layout.to_dict().get("y_down")
    return {
        "joints": joints,
        "bones": [[joints[child], joints[parent]] for child, parent in layout.bones],
        **({} if center is None else {"center": joints[center]}),
        "channels": layout.channels,
        **({} if y_down is None else {"y_down": y_down}),
    }
