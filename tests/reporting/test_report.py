"""Reports: self-contained, true to the run, and available at any stage."""

from __future__ import annotations

import json
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from skelnas.config import SearchSettings, TrainSettings
from skelnas.errors import InputError, SkelnasError, UsageError
from skelnas.genotype import CELLS, random_genotype
from skelnas.nas.derive import derive
from skelnas.nas.search import search
from skelnas.primitives import SPACES
from skelnas.reporting.facts import format_duration, run_facts
from skelnas.reporting.history import read_history
from skelnas.reporting.plot_curves import edge_charts, learning_curves
from skelnas.reporting.report import report
from skelnas.training import run_dir
from skelnas.training.train import train

SEARCH = SearchSettings(
    frames=4,
    layers=3,
    channels=1,
    nodes=2,
    epochs=4,
    batch_size=9,
    order="first",
    device="cpu",
    alpha_lr=0.05,
)
TRAIN = TrainSettings(frames=4, layers=3, channels=1, epochs=2, batch_size=9, device="cpu")
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """A parsed page; every element must be closed where it was opened."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1:] != ["style"]:
            self.texts.append(data.strip())

    def count(self, tag: str, **attributes: str) -> int:
        return sum(
            name == tag and all(found.get(key) == value for key, value in attributes.items())
            for name, found in self.tags
        )


@pytest.fixture(scope="module")
def searched(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "searched"
    search(tiny_cache, out, SEARCH)
    return out


@pytest.fixture(scope="module")
def trained(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report") / "trained"
    train(tiny_cache, random_genotype(0), out, TRAIN)
    return out


@pytest.fixture(scope="module")
def page(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return Page(report(searched, tmp_path_factory.mktemp("page") / "page.html"))


@pytest.fixture
def copy(searched: Path, tmp_path: Path) -> Path:
    """A run folder for a test to change."""
    return Path(shutil.copytree(searched, tmp_path / searched.name))


def cut(folder: Path, epochs: int, alphas: int) -> Path:
    """Truncate the metrics and the alphas to their first lines."""
    for name, count in {run_dir.METRICS: epochs, run_dir.ALPHAS: alphas}.items():
        lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(lines[:count]))
    return folder


def test_the_page_loads_and_runs_nothing(page: Page) -> None:
    assert "http" not in page.source
    assert "@import" not in page.source
    assert page.count("script") == page.count("link") == page.count("img") == 0
    for _, attributes in page.tags:
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert set(re.findall(r"url\((.)", page.source)) <= {"#"}


def test_ids_are_unique_and_all_are_used(page: Page) -> None:
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    used = re.findall(r"url\(#([^)]+)\)", page.source) + re.findall(r'href="#([^"]+)"', page.source)
    assert used
    assert set(used) == set(names)


def test_the_theme_defines_every_colour(page: Page) -> None:
    style, body = page.source.split("</style>", 1)
    assert not re.search(r"#[0-9a-f]{6}\b", body)
    for name in set(re.findall(r"var\(--([\w-]+)\)", body)) - {"width"}:
        assert len(re.findall(rf"--{name}:#", style)) == 2  # light and dark
    assert "prefers-color-scheme: dark" in style


def test_the_page_has_every_part(page: Page, searched: Path) -> None:
    headings = ["Learning curves", "Cells", "Operation weights", "Settings", "Versions"]
    assert [text for text in page.texts if text in headings] == headings
    for title in ("Loss (cross-entropy)", "Top-1 accuracy", "Learning rate"):
        assert title in page.texts
    assert "Search searched" in page.texts
    assert "4 of 4" in page.texts
    moments = ["At the start", "After epoch 2", "After epoch 4"]
    assert [text for text in page.texts if text in moments] == moments
    legend = page.source.split('<ul class="legend">')[1].split("</ul>")[0]
    assert re.findall(r"<code>(\w+)</code>", legend) == list(SPACES["sar"])
    settings = json.loads((searched / run_dir.CONFIG).read_text())["settings"]
    for name, value in settings.items():
        text = value if isinstance(value, str) else json.dumps(value).replace("null", "not set")
        assert f"<dt>{name}</dt><dd>{text}</dd>" in page.source


def test_every_figure_has_an_accessible_label(page: Page) -> None:
    figures = [
        attributes for name, attributes in page.tags if name == "svg" and "role" in attributes
    ]
    assert len(figures) == 5 + 3 * 2 + 2 * 5  # charts, cells, edges
    assert all(figure["role"] == "img" and figure["aria-label"] for figure in figures)
    assert all("width" not in figure and figure["viewbox"] for figure in figures)
    assert page.count("figure") == len(figures)


def test_all_numbers_are_in_a_table(page: Page, searched: Path) -> None:
    table = page.source.split('<table class="numbers">')[1].split("</table>")[0]
    rows = [re.findall(r"<td>([^<]*)</td>", row) for row in table.split("<tr>")[2:]]
    lines = [
        [value for value in line.values() if not isinstance(value, str)]
        for line in run_dir.read_lines(searched / run_dir.METRICS)
    ]
    assert [[float(cell) for cell in row] for row in rows] == [
        pytest.approx(line, rel=1e-3) for line in lines
    ]


def test_op_weights_are_a_softmax_and_the_derived_edges_are_marked(searched: Path) -> None:
    history = read_history(searched)
    genotype = derive(searched)
    for cell in CELLS:
        op_weights = history.op_weights(cell)
        assert op_weights.shape == (5, 5, 8)
        np.testing.assert_allclose(op_weights.sum(axis=2), 1)
        charts = list(edge_charts(history, cell))
        assert [(edge.source, edge.target) for edge in charts] == [
            (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)
        ]  # fmt: skip
        derived = {(edge.target, edge.source): edge.op for edge in charts if edge.op}
        assert derived == {
            (target, edge.source): edge.op
            for target, node in enumerate(getattr(genotype, cell), start=2)
            for edge in node
        }
        last = {curve.label: curve.values[-1] for curve in charts[3].chart.curves}
        assert list(last) == list(SPACES["sar"])
        assert list(last.values()) == op_weights[-1, 3].tolist()
        assert len({edge.chart.limits for edge in charts}) == 1


def test_curves_are_grouped_by_what_they_measure(searched: Path) -> None:
    charts = {chart.title: chart for chart in learning_curves(read_history(searched))}
    lines = run_dir.read_lines(searched / run_dir.METRICS)
    loss = {curve.label: curve.values for curve in charts["Loss (cross-entropy)"].curves}
    assert loss == {
        name: [line[f"{name}_loss"] for line in lines] for name in ("train", "validation")
    }
    entropy = charts["Entropy of the alphas"]
    assert list(entropy.epochs) == [0, 1, 2, 3, 4]
    assert entropy.curves[1].values[1:] == [line["reduction_entropy"] for line in lines]
    skips = charts["Skips in the normal cell"]
    assert skips.curves[0].values[1:] == [line["skips"] for line in lines]
    assert skips.limits == pytest.approx((-0.16, 4.16))


def test_by_default_the_page_is_written_into_the_folder(copy: Path, page: Page) -> None:
    path = report(copy)
    assert path == copy / "report.html"
    assert path.read_text(encoding="utf-8") == page.source


def test_a_training_has_cells_but_no_alphas(trained: Path, tmp_path: Path) -> None:
    page = Page(report(trained, tmp_path / "page.html"))
    assert "Training trained" in page.texts
    assert "Operation weights" not in page.texts
    assert page.source.count("Normal cell</figcaption>") == 1
    for edge in random_genotype(0).normal[0]:
        assert edge.op in page.texts


def test_a_run_without_epochs_has_a_page(copy: Path) -> None:
    page = Page(report(cut(copy, 0, 1)))
    assert "No epoch is finished yet." in page.texts
    assert "At the start" in page.texts
    assert "Operation weights" not in page.texts
    for name in (run_dir.METRICS, run_dir.ALPHAS):
        (copy / name).unlink()
    page = Page(report(copy))
    assert "0 of 4" in page.texts
    assert "Cells" not in page.texts
    assert "Settings" in page.texts


def test_a_run_of_one_epoch_has_a_page(copy: Path) -> None:
    page = Page(report(cut(copy, 1, 2)))
    assert "1 of 4" in page.texts
    assert "After epoch 1" in page.texts


def test_alphas_may_lack_the_start(copy: Path) -> None:
    lines = (copy / run_dir.ALPHAS).read_text().splitlines(keepends=True)
    (copy / run_dir.ALPHAS).write_text("".join(lines[3:]))
    page = Page(report(copy))
    moments = ["At the start", "After epoch 3", "After epoch 4"]
    assert [text for text in page.texts if text in moments] == moments[1:]


def test_a_truncated_last_line_is_ignored(copy: Path) -> None:
    with (copy / run_dir.METRICS).open("a") as lines:
        lines.write('{"epoch": 5, "tr')
    assert read_history(copy).epochs == [1, 2, 3, 4]


def test_curves_have_gaps_where_epochs_lack_a_metric(copy: Path) -> None:
    alphas = json.loads((copy / run_dir.ALPHAS).read_text().splitlines()[-1])
    del alphas["checksum"]
    for name, line in (
        (run_dir.ALPHAS, {**alphas, "epoch": 5}),
        (run_dir.METRICS, {"epoch": 5, "held_out_top1": 0.25, "note": "by hand"}),
    ):
        with (copy / name).open("a") as lines:
            lines.write(json.dumps(line) + "\n")
    history = read_history(copy)
    assert np.isnan(history.metrics["held_out_top1"][:4]).all()
    assert history.metrics["held_out_top1"][4] == 0.25
    assert "note" not in history.metrics
    assert ("Held out top-1", "25.0%") in run_facts(history)
    (top1,) = (chart for chart in learning_curves(history) if chart.title == "Top-1 accuracy")
    assert [curve.label for curve in top1.curves] == ["train", "held out"]


def test_names_are_escaped(copy: Path, tmp_path: Path) -> None:
    folder = cut(copy, 1, 2).rename(tmp_path / "<script>$x$&amp;")
    config = json.loads((folder / run_dir.CONFIG).read_text())
    config["settings"]["protocol"] = "<b>$\\frac$"
    (folder / run_dir.CONFIG).write_text(json.dumps(config))
    page = Page(report(folder))
    assert page.count("script") == page.count("b") == 0
    assert "Search <script>$x$&amp;" in page.texts


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (run_dir.CONFIG, "{", "cannot be read as JSON"),
        (run_dir.CONFIG, '{"verb": "bake"}', "holds no single search or training: .* 'bake'"),
        (run_dir.CONFIG, '{"verb": "search"}', "expected settings with a number of epochs"),
        (run_dir.CONFIG, '{"verb": "search", "settings": {"epochs": 1}}', "expected primitives"),
        (run_dir.CONFIG, '{"verb": "train", "settings": {"epochs": 1}}', "not a genotype"),
        (run_dir.METRICS, '{"epoch": 1}\n{\n{"epoch": 2}\n', "line 2: is not JSON"),
        (run_dir.METRICS, "5\n", "line 1: expected an object with an epoch"),
        (run_dir.METRICS, '{"loss": 3}\n', "line 1: expected an object with an epoch"),
        (run_dir.METRICS, b"\xff\xfe\x00", "is not text"),
        (run_dir.ALPHAS, '{"epoch": 0, "normal": [[1, 2]]}\n', "epoch 0: expected 8 numbers"),
        (run_dir.ALPHAS, '{"epoch": 0, "normal": 4, "reduction": 5}\n', "epoch 0: expected 8"),
    ],
)
def test_broken_folders_are_refused(
    copy: Path, file: str, content: str | bytes, message: str
) -> None:
    data = content if isinstance(content, bytes) else content.encode()
    if file == run_dir.ALPHAS:
        (copy / run_dir.METRICS).unlink()
    (copy / file).write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        report(copy)
    assert file in str(caught.value)
    assert not (copy / "report.html").exists()


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ([[0.0] * 8] * 4, "no cells can be derived"),
        ([[float("nan")] * 8] * 2, "not all finite"),
        ([[10**400] * 8] * 2, "expected 8 numbers"),
    ],
)
def test_malformed_alphas_are_refused(copy: Path, edges: list[list[float]], message: str) -> None:
    line = {"epoch": 0, "normal": edges, "reduction": edges}
    (copy / run_dir.METRICS).unlink()
    (copy / run_dir.ALPHAS).write_text(json.dumps(line) + "\n")
    with pytest.raises(InputError, match=message):
        report(copy)


def test_other_folders_and_other_suffixes_are_refused(searched: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        report(tmp_path)
    for name in ("r.pdf", "r.PNG", "r"):
        with pytest.raises(UsageError, match=rf"{name}: a report is an HTML page") as caught:
            report(searched, tmp_path / name)
        assert "a browser prints it" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_extra_is_named(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SkelnasError, match=r"^drawing a report needs matplotlib") as caught:
        report(searched, tmp_path / "r.html")
    assert caught.value.hint == "pip install 'skelnas[plot]'"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.2 s"), (9.96, "10.0 s"), (59.4, "59 s"), (61, "1 min"), (7260, "2 h 1 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
