"""`skelnas inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from skelnas.cli.options import CacheArgument, Json
from skelnas.errors import UsageError
from skelnas.runtime import console

if TYPE_CHECKING:
    from skelnas.data.cache import Cache
    from skelnas.data.inspect import Inspection

MAX_PROBLEMS = 20
"""Lines about damage to print; ``--json`` has all of them."""


def inspect(
    cache: CacheArgument,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check all data against its checksums.")
    ] = False,
    clip: Annotated[str | None, typer.Option(help="Name of the clip to draw.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw the clip: .svg, .png, .pdf or .gif."),
    ] = None,
    poses: Annotated[int, typer.Option(min=1, max=40, help="Poses in a still picture.")] = 8,
    as_json: Json = False,
) -> None:
    """Show what a cache contains, verify it, or draw a clip.

    Examples:
        skelnas inspect ntu60.h5
        skelnas inspect ntu60.h5 --verify
        skelnas inspect ntu60.h5 --clip S001C001P001R001A023 --plot waving.gif
    """
    if (clip is None) != (plot is None):
        raise UsageError("--clip NAME and --plot FILE go together")
    from skelnas.reporting.plot_style import ANIMATION, PICTURES, check_picture

    if plot is not None:
        check_picture(plot, "clips", (*PICTURES, ANIMATION))

    from skelnas.data.cache import Cache
    from skelnas.data.inspect import find_damage
    from skelnas.data.inspect import inspect as summarise

    with Cache.open(cache) as opened:
        if clip is not None and plot is not None:
            _draw(opened, clip, plot, poses)
            return
        facts = summarise(opened)
        problems = find_damage(opened) if verify else []
    if as_json:
        damage = {"damage": problems} if verify else {}
        console.result_json({**facts.to_dict(), **damage})
    else:
        _print(facts)
    if problems:
        for line in problems[:MAX_PROBLEMS]:
            console.note(line)
        if len(problems) > MAX_PROBLEMS:
            console.note(f"and {len(problems) - MAX_PROBLEMS} more, see --json")
        console.note(f"{cache} is damaged; copy it or prepare it again", style="red")
        raise typer.Exit(3)
    if verify:
        console.note(f"{cache} is intact: all {facts.clips:,} clips match their checksums")


def _draw(cache: Cache, name: str, path: Path, num_poses: int) -> None:
    from skelnas.data.inspect import find_clip
    from skelnas.reporting.plot_skeleton import draw_animation, draw_strip
    from skelnas.reporting.pose_layout import ClipPicture

    index = find_clip(cache, name)
    action = cache.classes[cache.clips.labels[index]]
    picture = ClipPicture.of(f"{name} · {action}", *cache.read(index), cache.layout)
    if path.suffix.lower() == ".gif":
        draw_animation(picture, path)
    else:
        draw_strip(picture, path, num_poses)
    console.note(f"{path}: {name}, {action}, {cache.num_frames[index]} frames")


def _print(facts: Inspection) -> None:
    table = Table(show_header=False, title=f"{facts.path}: {facts.clips:,} clips")
    rule = "\n".join(f"{name}: {value}" for name, value in facts.rule.items())
    for name, value in (
        ("source", facts.source),
        ("rule", rule),
        ("classes", _describe_classes(facts.class_clips)),
        ("subjects", _list_numbers(facts.subjects)),
        ("cameras", _list_numbers(facts.cameras)),
        ("setups", _list_numbers(facts.setups)),
        ("joints", f"{facts.joints}, each {', '.join(facts.channels)}"),
        ("frames", f"{facts.frames:,}"),
        ("clip length", f"{facts.shortest} to {facts.longest} frames, median {facts.median:g}"),
        ("with two persons", f"{facts.two_person_share:.1%} of the clips"),
        ("nobody seen", f"{facts.empty_frame_share:.1%} of the frames"),
        ("left out", f"{facts.skipped:,} on purpose, {facts.failed:,} broken"),
        ("duplicates", _describe_duplicates(facts)),
        ("missing", "\n".join(facts.missing_clips)),
        ("size", f"{facts.megabytes:,} MB, {facts.storage}"),
        ("written by", f"skelnas {facts.skelnas_version}, schema {facts.schema_version}"),
    ):
        if value:
            table.add_row(name, value)
    console.print_table(table)
    parts = Table("protocol", "train clips", "test clips", "in neither")
    for protocol, sizes in facts.protocols.items():
        parts.add_row(protocol, *(f"{sizes[part]:,}" for part in ("train", "test", "unused")))
    console.print_table(parts)


def _describe_classes(class_clips: list[int]) -> str:
    """Return how many classes there are, and how many clips they have."""
    used = [count for count in class_clips if count]
    if len(used) < len(class_clips):
        return f"{len(class_clips)}, of which {len(used)} occur"
    fewest, most = min(used), max(used)
    if fewest < most:
        return f"{len(class_clips)}, {fewest:,} to {most:,} clips each"
    return f"{len(class_clips)}, {most:,} clip{'' if most == 1 else 's'} each"


def _describe_duplicates(facts: Inspection) -> str:
    if not facts.duplicates:
        return ""
    lines = [f"{facts.duplicates:,} clips have the same numbers as an earlier one"]
    lines += [
        f"{protocol}: {count:,} test clips are in the training part, too"
        for protocol, count in facts.test_clips_in_train.items()
        if count
    ]
    return "\n".join(lines)


def _list_numbers(numbers: list[int]) -> str:
    """Return how many numbers there are, followed by the first ones."""
    if not numbers:
        return "unknown"
    return f"{len(numbers)}: {', '.join(map(str, numbers[:12]))}" + ", ..." * (len(numbers) > 12)
