"""Options of `skelnas prepare` for your own recordings: what they are, and how they are divided."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from skelnas.errors import UsageError

TestShare = Annotated[float, typer.Option(help="Fraction that protocol random tests on.")]
Folds = Annotated[int, typer.Option(help="Number of protocols fold1, fold2, ...")]
SplitSeed = Annotated[int, typer.Option(min=0, help="Seed of random and the folds.")]


@dataclass(frozen=True)
class RecordingOptions:
    """Options of the sources `manifest` and `folder`."""

    joints: Annotated[
        Path | None,
        typer.Option(metavar="LAYOUT", help="Name (skelnas layouts), or JSON or TOML file."),
    ] = None
    channels: Annotated[
        str, typer.Option(help="Numbers of a joint in arrays, such as x,y,score.")
    ] = ""
    picture: Annotated[
        str, typer.Option(help="Width x height to divide by, such as 1920x1080.")
    ] = ""
    delimiter: Annotated[
        Literal["", "comma", "semicolon", "tab", "blank"],
        typer.Option(help="comma, semicolon, tab or blank; found by default."),
    ] = ""
    skip_columns: Annotated[
        int, typer.Option(min=0, max=1000, help="Columns before the joints in text.")
    ] = 0
    frame_rate: Annotated[
        float | None, typer.Option(help="Frames per second, for start_s and end_s.")
    ] = None
    persons: Annotated[
        int, typer.Option(min=1, max=16, help="Maximum number of persons per clip.")
    ] = 1
    test_subjects: Annotated[
        str, typer.Option(help="Test subjects of protocol xsub, such as 3,5.")
    ] = ""
    test_cameras: Annotated[
        str, typer.Option(help="Test cameras of protocol xview, such as 2.")
    ] = ""
    test_share: TestShare = 0.0
    folds: Folds = 0
    split_seed: SplitSeed = 0

    def parse(self) -> dict[str, Any]:
        """Return them as arguments of `skelnas.data.readers.manifest.Manifest`.

        Raises:
            UsageError: one cannot be read.
        """
        from skelnas.data.readers.channels import parse_option
        from skelnas.data.readers.clip_tables import TextFormat
        from skelnas.data.readers.expected import parse_picture

        return {
            "joints": self.joints,
            "channels": parse_option(self.channels),
            "picture": parse_picture(self.picture),
            "text_format": TextFormat(self.delimiter, self.skip_columns),
            "frame_rate": check_frame_rate(self.frame_rate),
            "persons": self.persons,
            "test_subjects": parse_numbers(self.test_subjects, "--test-subjects"),
            "test_cameras": parse_numbers(self.test_cameras, "--test-cameras"),
            "test_share": self.test_share,
            "folds": self.folds,
            "split_seed": self.split_seed,
        }


def parse_numbers(text: str, option: str) -> tuple[int, ...]:
    """Parse comma-separated numbers."""
    fields = [field.strip() for field in text.split(",")] if text else []
    if not all(field.isascii() and field.isdigit() and len(field) < 10 for field in fields):
        raise UsageError(f"{option} {text}: expected numbers such as 3,5")
    return tuple(map(int, fields))


def check_frame_rate(frame_rate: float | None) -> float | None:
    """Return it, unless it is none."""
    from skelnas.data.readers.skeleton_file import MAX_FRAME_RATE

    if frame_rate is not None and not 0 < frame_rate <= MAX_FRAME_RATE:
        raise UsageError(f"--frame-rate {frame_rate:g}: expected frames per second, such as 30")
    return frame_rate
