from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from skelnas.errors import SkelnasError, UsageError
from skelnas.genotype import BUILT_IN, Cell, Edge, Genotype
from skelnas.primitives import PRIMITIVES
from skelnas.reporting import cell_layout, plot_style
from skelnas.reporting.plot_cells import ARROW, FONT_SIZE, draw_cells
from skelnas.reporting.plot_confusion import draw_confusion
from skelnas.reporting.plot_style import stroke

OPS = [op for op in PRIMITIVES if op != "none"]
SVG = "{http://www.w3.org/2000/svg}"


def draw_any(num_nodes: int, num_edges: int, seed: int = 0) -> Cell:
    generator = random.Random(f"{num_nodes} {num_edges} {seed}")
    return tuple(
        tuple(Edge(generator.choice(OPS), generator.randrange(index)) for _ in range(num_edges))
        for index in range(2, 2 + num_nodes)
    )


def texts(path: Path) -> list[str]:
    root = ElementTree.parse(path).getroot()
    return [element.text or "" for element in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("name", BUILT_IN)
def test_svg_names_every_operation_and_node(name: str, tmp_path: Path) -> None:
    genotype = BUILT_IN[name]
    path = tmp_path / "cells.svg"
    draw_cells(genotype, path)
    cells = (genotype.normal, genotype.reduction)
    ops = [edge.op for cell in cells for node in cell for edge in node]
    nodes = [str(number) for cell in cells for number in range(2, 2 + len(cell))]
    kinds = ["convolution", "pooling", "squeeze-and-excitation"]
    assert sorted(texts(path)) == sorted(
        ["Normal cell", "Reduction cell", *ops, *nodes, *kinds],
    )


def test_png_has_the_png_signature(tmp_path: Path) -> None:
    path = tmp_path / "cells.PNG"
    draw_cells(BUILT_IN["ntu_cs112se30"], path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_same_genotype_gives_the_same_file(suffix: str, tmp_path: Path) -> None:
    first, second = tmp_path / f"first.{suffix}", tmp_path / f"second.{suffix}"
    draw_cells(BUILT_IN["ntu_cv112se30"], first)
    draw_cells(BUILT_IN["ntu_cv112se30"], second)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [first.name, second.name]


@pytest.mark.parametrize("name", ["cells.jpg", "cells", "svg", ".svg"])
def test_another_suffix_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        draw_cells(BUILT_IN["ntu_cs112se30"], tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: cannot draw a picture of this type"
    assert caught.value.hint == "name a file that ends in .svg, .png or .pdf"
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SkelnasError, match=r"^drawing cells needs matplotlib") as caught:
        draw_cells(BUILT_IN["ntu_cs112se30"], tmp_path / "cells.svg")
    assert caught.value.hint == "pip install 'skelnas[plot]'"


def test_a_picture_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "folder.svg"
    target.mkdir()
    with pytest.raises(SkelnasError, match=r"folder\.svg: cannot be written"):
        draw_cells(BUILT_IN["ntu_cs112se30"], target)
    assert list(tmp_path.iterdir()) == [target]


def test_the_users_style_does_not_change_the_picture(tmp_path: Path) -> None:
    import matplotlib as mpl

    plain, styled = tmp_path / "plain.svg", tmp_path / "styled.svg"
    draw_cells(BUILT_IN["ntu_cs112se30"], plain)
    with mpl.rc_context({"font.size": 30, "svg.fonttype": "path", "savefig.bbox": "tight"}):
        draw_cells(BUILT_IN["ntu_cs112se30"], styled)
        assert mpl.rcParams["font.size"] == 30
    assert styled.read_bytes() == plain.read_bytes()


def test_operation_names_fit_into_their_boxes() -> None:
    size = FONT_SIZE
    for op in OPS:
        extent = TextPath((0, 0), op, size=size, prop=FontProperties()).get_extents()
        assert extent.width < cell_layout.OP_WIDTH - 8


@pytest.mark.parametrize("num_nodes", [1, 2, 4, 6])
@pytest.mark.parametrize("num_edges", [1, 2, 3])
def test_boxes_do_not_overlap_and_lines_avoid_them(num_nodes: int, num_edges: int) -> None:
    cell = draw_any(num_nodes, num_edges)
    layout = cell_layout.lay_out(cell)

    for before, after in itertools.pairwise(layout.columns):
        right = max(box.x + box.width / 2 for box in before)
        left = min(box.x - box.width / 2 for box in after)
        assert left - right >= 2 * ARROW
    for column in layout.columns:
        for upper, lower in itertools.pairwise(column):
            gap = (lower.y - lower.height / 2) - (upper.y + upper.height / 2)
            assert gap >= cell_layout.BOX_GAP - 1e-6
    # A line bends only between columns; in a column it has a separate box or ends.
    column_of = {box: i for i, column in enumerate(layout.columns) for box in column}
    for line in layout.lines:
        steps = [column_of[after] - column_of[before] for before, after in itertools.pairwise(line)]
        assert set(steps) == {1}
    ends = [
        (box, end)
        for box in layout.boxes
        for end in [cell_layout.segment(source, box)[1] for source in box.sources]
    ]
    assert all(abs(end - box.y) <= box.height / 2 for box, end in ends)
    assert len({(id(box), round(end, 6)) for box, end in ends}) == len(ends)


def test_every_edge_is_drawn_once_including_parallel_edges() -> None:
    cell = (
        (Edge("conv_3x3", 0), Edge("conv_3x3", 0), Edge("se_connect", 1)),
        (Edge("skip_connect", 2),),
    )
    layout = cell_layout.lay_out(cell)
    ends = [
        (line[0].label, next((box.label for box in line[1:-1] if box.label), ""), line[-1].label)
        for line in layout.lines
    ]
    assert sorted(ends) == sorted(
        [
            (cell_layout.INPUTS[0], "conv_3x3", "2"),
            (cell_layout.INPUTS[0], "conv_3x3", "2"),
            (cell_layout.INPUTS[1], "se_connect", "2"),
            ("2", "skip_connect", "3"),
            ("2", "", "$c_{k}$"),
            ("3", "", "$c_{k}$"),
        ]
    )


def test_a_planar_cell_is_drawn_without_crossings() -> None:
    chain = tuple((Edge("conv_3x3", index), Edge("conv_3x3", index + 1)) for index in range(4))
    columns = cell_layout.lay_out(chain).columns
    assert (
        sum(cell_layout._count_crossings(columns, index) for index in range(len(columns) - 1)) == 0
    )


def test_cells_of_different_sizes_share_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "cells.svg"
    draw_cells(Genotype(draw_any(1, 1), draw_any(6, 3)), path)
    assert texts(path).count("2") == 2
    assert texts(path).count("7") == 1


def test_every_operation_has_a_distinct_stroke() -> None:
    assert len({stroke(op) for op in PRIMITIVES}) == len(PRIMITIVES)
    assert stroke("sep_conv_9x9").colour == plot_style.KINDS["convolution"]


@pytest.mark.parametrize("shade", [0, 1], ids=["light", "dark"])
def test_colours_have_enough_contrast(shade: int) -> None:
    """WCAG 2.1: a contrast of 4.5 for text and of 3 for graphics."""

    def luminance(name: str) -> float:
        colour = plot_style.PALETTE[name][shade]
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    paper = luminance("paper")
    for name in plot_style.PALETTE.keys() - {"paper", "grid", "node", "faint"}:
        high, low = max(paper, luminance(name)), min(paper, luminance(name))
        least = 4.5 if name in ("ink", "quiet") else 3
        assert (high + 0.05) / (low + 0.05) > least, name


@pytest.mark.parametrize(
    ("name", "start"),
    [("c.PNG", b"\x89PNG\r\n\x1a\n"), ("c.svg", b"<?xml"), ("c.pdf", b"%PDF")],
)
def test_a_confusion_matrix_is_written_in_each_format(
    name: str, start: bytes, tmp_path: Path
) -> None:
    confusion = np.array([[5, 1], [0, 0]])
    draw_confusion(["sit", "stand"], confusion, tmp_path / name)
    first = (tmp_path / name).read_bytes()
    assert first.startswith(start)
    draw_confusion(["sit", "stand"], confusion, tmp_path / name)
    assert (tmp_path / name).read_bytes() == first


def test_a_confusion_matrix_names_classes_and_counts_where_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "c.svg"
    draw_confusion(["sit", "x" * 60], np.array([[5, 1], [0, 70]]), path)
    cut = "x" * 39 + "…"
    axes = ["predicted class", "true class"]
    assert sorted(texts(path)) == sorted(["sit", "sit", cut, cut, "5", "1", "70", *axes])
    names = [f"class {number}" for number in range(60)]
    draw_confusion(names, 7 * np.eye(60, dtype=np.int64), path)
    assert sorted(texts(path)) == sorted([*names, *names, *axes])


@pytest.mark.parametrize("name", ["confusion.svg", "confusion.png"])
def test_class_names_that_are_no_formulas_or_not_in_the_font(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    draw_confusion(["$\\oops$", "挥手", "\ud800"], np.eye(3, dtype=np.int64), tmp_path / name)
    assert capsys.readouterr().err.count("not in the font") == 1
    if name.endswith(".svg"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert all(shown in text for shown in ("$\\oops$", "挥手", "\\ud800"))
