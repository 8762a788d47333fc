"""The progress of a run on all kinds of terminals."""

from __future__ import annotations

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from skelnas.genotype import BUILT_IN, Edge, Genotype
from skelnas.runtime import console
from skelnas.training import progress
from skelnas.training.progress import Reading, View, format_metric, watch

METRICS = {"train_loss": 1.35, "train_top1": 0.474, "validation_loss": 1.53, "lr": 0.01372}
SEARCH = Reading(METRICS, BUILT_IN["ntu_cs112se30"], {"normal": 0.982, "reduction": 0.9})
CELL_LINE = " 2 = sep_conv_3x3(0) + max_pool_3x3(1)"


def screen(width: int = 80, **options: object) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, **options)  # type: ignore[arg-type]


def written(on: Console) -> str:
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


def shown(reading: Reading, width: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_READINGS", -1.0)
    on = screen(width, color_system=None)
    view = View("search", 35, 63, on)
    view.show(11, 41, lambda: reading)
    on.print(view)
    return written(on).splitlines()


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_everything_is_shown_at_any_width(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(SEARCH, width, monkeypatch)
    assert max(map(cell_len, lines)) <= width
    text = "\n".join(lines)
    for part in (
        "search  epoch 12/35  step 41/63",
        "eta",
        "train loss 1.350",
        "train top-1 47.4%",
        "validation loss 1.530",
        "lr 0.0137",
        "normal entropy 98.2%",
        "reduction entropy 90.0%",
        "skips 0",
        CELL_LINE,
        " 5 = max_pool_3x3(0) + max_pool_3x3(2)",
    ):
        assert part in text


def test_cells_are_side_by_side_if_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    (line,) = (line for line in shown(SEARCH, 80, monkeypatch) if line.startswith(CELL_LINE))
    assert "2 = avg_pool_3x3(1)" in line
    (line,) = (line for line in shown(SEARCH, 60, monkeypatch) if line.startswith(CELL_LINE))
    assert line.rstrip() == CELL_LINE


def test_a_training_has_no_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(Reading({"train_loss": 0.5, "lr": 0.01}), 80, monkeypatch)
    assert len(lines) == 2
    assert lines[1].split() == ["train", "loss", "0.500", "lr", "0.01"]


def test_skips_of_the_normal_cell_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    skip = Edge("skip_connect", 0)
    cells = Genotype(normal=((skip, skip), (Edge("conv_3x3", 1),)), reduction=((skip,),))
    assert "skips 2" in "\n".join(shown(Reading(METRICS, cells), 80, monkeypatch))


def test_the_device_is_read_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    view = View("train", 1, 40, screen())
    readings = []

    def read() -> Reading:
        readings.append(now)
        return Reading({"train_loss": now})

    for step in range(1, 41):
        now += 0.25
        view.show(0, step, read)
    assert readings == [101.25 + 1.25 * number for number in range(8)]


def test_the_view_vanishes_and_notes_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    on = screen(color_system=None)
    monkeypatch.setattr(console, "err", on)
    with watch("search", 2, 3) as view:
        assert isinstance(view, View)
        view.show(1, 2)
        console.note("epoch 1/2 done")
    text = written(on)
    assert "epoch 1/2 done\n" in text
    assert text.count("epoch 2/2  step 2/3") >= 1
    assert text.endswith("\x1b[2K")  # the cursor is on an empty line


@pytest.mark.parametrize(
    "on",
    [Console(file=io.StringIO()), screen(_environ={"TERM": "dumb"})],
    ids=["no terminal", "TERM=dumb"],
)
def test_plain_lines_if_the_screen_cannot_be_redrawn(
    on: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "err", on)
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with watch("search", 4, 30) as view:
        view.show(1, 10)  # resumed
        for second in range(1, 7):
            now = 100 + 2 * second
            read = (lambda: SEARCH) if second == 6 else lambda: pytest.fail("read without need")
            view.show(1, 10 + second, read)
        now += 10.5
        view.show(3, 0, lambda: Reading({"lr": 0.01}))
    assert written(on).splitlines() == [
        "search: epoch 2/4  step 16/30  train_loss 1.350  train_top1 47.4%  "
        "validation_loss 1.530  lr 0.0137  2.0 s/step  eta 0:02:28",
        "search: epoch 4/4  step 0/30  lr 0.01  2.2 steps/s  eta 0:00:14",
    ]


def test_lines_become_rare_in_a_long_run(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace, lines = console.Pace(10**6), []
    for second in range(24 * 3600):
        now = float(second)
        if pace.is_due():
            lines.append(second)
            pace.tell(second + 1)
    gaps = [after - before for before, after in zip([0, *lines], lines, strict=False)]
    assert gaps == sorted(gaps)
    assert (gaps[0], gaps[-1]) == (11, 301)
    assert len(lines) < 400


def test_the_speed_is_that_of_the_last_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    pace = console.Pace(119_700)
    assert pace.tell(0) == ""
    for minute in range(1, 31):
        now = 60.0 * minute
        done = 60 * minute if minute <= 15 else 900 + 120 * (minute - 15) * 60
        text = pace.tell(done, "clip")
    assert text == "120.0 clips/s  eta 0:01:30"


def test_a_notebook_has_a_bar_if_it_has_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "err", Console(file=io.StringIO(), force_jupyter=True))
    for spec in (None, object()):
        monkeypatch.setattr(console, "find_spec", lambda name, spec=spec: spec)
        assert console.can_redraw() is (spec is not None)


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_READINGS", -1.0)
    colours = {}
    for name, environment in {"plain": {"NO_COLOR": "1"}, "coloured": {}}.items():
        on = screen(_environ={"TERM": "xterm", **environment})
        view = View("search", 35, 63, on)
        view.show(11, 41, lambda: SEARCH)
        on.print(view)
        colours[name] = "\x1b[34m" in written(on)
    assert colours == {"plain": False, "coloured": True}


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("train_loss", 1.23456, "1.235"), ("train_top1", 0.4321, "43.2%"), ("lr", 1e-6, "1e-06")],
)
def test_metrics_are_formatted_by_name(name: str, value: float, text: str) -> None:
    assert format_metric(name, value) == text
