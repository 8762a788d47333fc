"""The terminal: parse, call one verb, print. No logic, and no torch before a verb needs it."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Annotated, Any

import typer

from skelnas._version import __version__
from skelnas.cli.commands import Commands
from skelnas.errors import SkelnasError, is_out_of_memory
from skelnas.runtime import console

app = typer.Typer(
    name="skelnas",
    cls=Commands,
    help="Find compact CNNs for skeleton-based action recognition by differentiable "
    "architecture search (SAR-NAS).\n\nprepare → search → derive → train → evaluate",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        console.result(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a verb."""


def main() -> None:
    """Run the command line; a known failure is one line, its hint and its exit code."""
    asked_to_end = _listen()
    if not console.SPEAKS:
        sys.stdout = sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    try:
        app()
    except SystemExit as ending:
        if ending.code == 130:  # Typer has met a KeyboardInterrupt and said nothing
            console.note("skelnas: interrupted", style="red")
        raise
    except SkelnasError as error:
        _fail(str(error), error.hint, error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): nothing more to say, and no traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        place = error.filename or "the output"
        _fail(f"{place}: {error.strerror or error}", "make room, or check the path", 1)
    except Exception as error:
        if asked_to_end:  # some imports turn a KeyboardInterrupt into an error of their own
            _fail("interrupted", None, 130)
        if is_out_of_memory(error):
            _fail(f"out of memory ({str(error).splitlines()[0]})", "try a smaller --batch-size", 4)
        if os.environ.get("SKELNAS_DEBUG"):
            sys.stderr = sys.__stderr__
            raise
        _fail(
            f"unexpected {type(error).__name__}: {error}",
            "this is a bug; run again with SKELNAS_DEBUG=1 and report the traceback",
            1,
        )


def _listen() -> list[int]:
    """Let SIGTERM clean up as Ctrl-C does; return a list that gets the number of each signal."""
    numbers: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        numbers.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, interrupt)
    return numbers


def _fail(message: str, hint: str | None, exit_code: int) -> None:
    parallel: Any = sys.modules.get("skelnas.runtime.distributed")
    if parallel and parallel.world_size() > 1:
        if not parallel.is_new(message):  # what fails on all ranks is told once
            sys.exit(exit_code)
        sys.stderr = sys.__stderr__
    if os.environ.get("SKELNAS_DEBUG") and sys.exc_info()[1] is not None:
        console.err.print_exception()
    console.note(f"skelnas: {message}", style="red")
    if hint:
        console.note(f"  hint: {hint}")
    sys.exit(exit_code)
