"""Tables of results, as a terminal of 80 columns shows them."""

from __future__ import annotations

import io

import pytest

from skelnas.cli.tables import print_folds
from skelnas.runtime import console


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    monkeypatch.setattr(console, "out", console._Console(file=text, width=80, markup=False))
    return text


@pytest.mark.parametrize("protocol", ["xsub", "every-second-subject-of-our-own"])
def test_folds_are_told_apart_by_their_protocols(protocol: str, printed: io.StringIO) -> None:
    scores = {"clips": 1234, "top1": 1.0, "mean_class_accuracy": 1.0, "chance": 0.5}
    names = [f"{protocol}@subject:{number}/12" for number in range(1, 13)]
    folds = [{"name": f"fold{n}", "protocol": name, **scores} for n, name in enumerate(names, 1)]
    print_folds({"folds": folds, "summary": {"mean": 1.0, "deviation": 0.0}})
    rows = [line.split("│")[2].strip() for line in printed.getvalue().splitlines() if "│" in line]
    assert "".join(rows) == "".join(names)
    if protocol == "xsub":
        assert names[-1] in rows
