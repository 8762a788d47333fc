"""What is printed when the stream's encoding lacks a character."""

from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path

import pytest
from rich.table import Table

from skelnas import cli
from skelnas.runtime import console

NAMES = ("grüßen", "挥手", "[red]wave[/]", "[/]", "\ud800")


def stream(encoding: str, errors: str = "strict") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding, errors)


def printed(output: io.TextIOWrapper) -> str:
    output.flush()
    return output.buffer.getvalue().decode(output.encoding)  # type: ignore[attr-defined]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_tables_stay_straight_in_every_encoding(encoding: str) -> None:
    output = stream(encoding)
    table = Table("class", "clips", title=NAMES[0])
    for name in NAMES:
        table.add_row(name, "1")
    console._Console(file=output, width=80, markup=False).print(table)
    text = printed(output)
    assert r"\ud800" in text
    assert "[red]wave[/]" in text
    assert ("grüßen" if encoding != "ascii" else r"gr\xfc\xdfen") in text
    assert ("挥手" if encoding == "utf-8" else r"\u6325\u624b") in text
    if encoding != "utf-8":  # where these characters are two cells wide
        assert len({len(line) for line in text.splitlines()[1:]}) == 1


def test_results_and_errors_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = stream("ascii"), stream("ascii", "backslashreplace")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    def app(**_: object) -> None:
        console.result("挥手 0.5")
        raise cli.SkelnasError("no protocol 'grüß'")

    monkeypatch.setattr(cli, "app", app)
    with pytest.raises(SystemExit):
        cli.main()
    assert printed(out) == "\\u6325\\u624b 0.5\n"
    assert printed(err) == "skelnas: no protocol 'gr\\xfc\\xdf'\n"


def test_commands_are_quoted_as_a_shell_takes_them() -> None:
    words = ("derive", Path("my runs/a"), "--clip", "it's")
    assert shlex.split(console.shell(*words)) == ["skelnas", *map(str, words)]
    assert console.shell("derive", "runs/xsub") == "skelnas derive runs/xsub"


def test_a_path_is_not_taken_for_an_option() -> None:
    words = ("evaluate", Path("./-c.h5"), Path("-o/a"), "--scores", Path("s.npz"))
    assert console.shell(*words) == "skelnas evaluate ./-c.h5 ./-o/a --scores s.npz"
