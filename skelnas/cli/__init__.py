"""The command line: parse options, call one function, print its result."""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from contextlib import suppress
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from skelnas._version import __version__
from skelnas.cli.commands import Commands
from skelnas.errors import SkelnasError, first_line, is_out_of_memory
from skelnas.runtime import console

app = typer.Typer(
    name="skelnas",
    cls=Commands,
    help="Find compact CNNs for skeleton-based action recognition by differentiable "
    "architecture search (SAR-NAS).\n\nprepare → search → derive → train → evaluate",
    epilog="`skelnas help COMMAND` shows how to use a command.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(requested: bool) -> None:
    if requested:
        console.result(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "-V",
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Declare the options that precede a command."""


def main() -> None:
    """Run the command line; report a known failure in one line, and exit with its code."""
    signals = _interrupt_on_signals()
    if not console.IS_MAIN_RANK:
        sys.stdout = sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if isinstance(sys.stdout, io.TextIOWrapper):  # as stderr is; not so when it is closed
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        code = app(prog_name="skelnas", standalone_mode=False) or 0
        if code == 130:  # Typer handles KeyboardInterrupt without a message
            console.failure("interrupted")
        sys.exit(code)
    except SkelnasError as error:
        _fail(str(error), error.hint, error.exit_code)
    except BrokenPipeError:
        # The reader of our output has exited (`| head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        path = error.filename or "the output"
        _fail(f"{path}: {error.strerror or error}", "make room, or check the path", 1)
    except Exception as error:
        if hasattr(error, "format_message"):
            _fail_usage(error)
        if signals:  # some imports turn a KeyboardInterrupt into another exception
            _fail("interrupted", None, 130)
        if is_out_of_memory(error):
            _fail(f"out of memory ({first_line(error)})", "try a smaller --batch-size", 4)
        if os.environ.get("SKELNAS_DEBUG"):
            sys.stderr = sys.__stderr__
            raise
        _fail(
            f"unexpected {type(error).__name__}: {error}",
            "this is a bug; run again with SKELNAS_DEBUG=1 and report the traceback",
            1,
        )


def _interrupt_on_signals() -> list[int]:
    """Raise KeyboardInterrupt on SIGTERM as on SIGINT; return a list that records the signals."""
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # leave an ignored SIGINT
        signal.signal(signal.SIGINT, interrupt)
    return received


def _fail_usage(error: Any) -> None:
    """Report what Typer, or Click below it, refuses."""
    from skelnas.cli.usage import explain  # imports pydantic

    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        sys.exit(error.exit_code)
    explained = explain(error)
    _fail(str(explained), explained.hint, explained.exit_code)


def _fail(message: str, hint: str | None, exit_code: int) -> None:
    distributed: Any = sys.modules.get("skelnas.runtime.distributed")
    is_rank = distributed and distributed.world_size() > 1
    if is_rank:
        if not distributed.is_unreported(message):  # print once what fails on all ranks
            _end_rank(exit_code)
        sys.stderr = sys.__stderr__
    if os.environ.get("SKELNAS_DEBUG") and sys.exc_info()[1] is not None:
        console.err.print_exception()
    console.failure(message, hint)
    if is_rank:
        if distributed.is_first():
            time.sleep(1)  # it holds the store, where the others read why
        _end_rank(exit_code)
    sys.exit(exit_code)


def _end_rank(exit_code: int) -> NoReturn:
    """End this process at once: taken down after a failure, Gloo's threads may abort it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()
    os._exit(exit_code)
