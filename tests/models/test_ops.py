"""The tables of operations are complete, and operations can be added as documented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from skelnas.config import SearchSettings
from skelnas.engine import ENGINES, reference
from skelnas.genotype import Edge, Genotype
from skelnas.models.complexity import measure
from skelnas.models.network import Network
from skelnas.models.ops import FACTORIES, make_op, register_op
from skelnas.nas.derive import derive
from skelnas.nas.search import search
from skelnas.primitives import PRIMITIVES, Primitive
from skelnas.reporting.plot_cells import draw_cells
from skelnas.reporting.plot_style import KINDS, PALETTE, stroke

PAGE = Path(__file__).parents[2] / "docs" / "contributing.md"


def test_every_table_has_every_operation() -> None:
    assert list(PRIMITIVES) == list(FACTORIES)
    assert set(reference.OPS) == set(PRIMITIVES) - {"none"}
    for op, primitive in PRIMITIVES.items():
        assert primitive.id == op
        assert primitive.colour in PALETTE
        assert primitive.kind in KINDS or op == "none"


def test_an_unknown_operation_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown operation 'conv_9x9'"):
        make_op("conv_9x9", 4, 1)


def test_a_taken_id_is_refused() -> None:
    with pytest.raises(ValueError, match="already an operation 'conv_3x3'"):
        register_op(Primitive("conv_3x3", "convolution", "blue"), reference.conv, FACTORIES["none"])


@pytest.fixture
def _documented_op(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the documented example, and unregister its operation afterwards."""
    found = re.search(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.M)
    assert found
    exec(found[1], {})
    yield
    for table in (PRIMITIVES, reference.OPS, FACTORIES):
        del table["conv_5x1"]


@pytest.mark.usefixtures("_documented_op")
@pytest.mark.parametrize("stride", [1, 2])
def test_the_documented_function_equals_its_module_and_both_engines(stride: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 7, 5, dtype=torch.float64)
    modules = [make_op("conv_5x1", 4, stride, searching=True).double() for _ in range(2)]
    weights = [tuple(module.parameters()) for module in modules]
    expected = modules[0](x)
    torch.testing.assert_close(reference.OPS["conv_5x1"](x, weights[0], stride), expected)
    assert expected.shape == (2, 4, -(-7 // stride), -(-5 // stride))

    op_weights = torch.tensor([[0.3], [0.7]], dtype=torch.float64)
    total = 0.3 * expected + 0.7 * modules[1](x)
    for engine in ENGINES.values():
        out = engine((x, x), op_weights, ["conv_5x1"], [[w] for w in weights], stride == 2)
        torch.testing.assert_close(out, total)


@pytest.mark.usefixtures("_documented_op")
def test_the_documented_operation_is_searched_derived_built_counted_and_drawn(
    tiny_cache: Path, tmp_path: Path
) -> None:
    settings = SearchSettings(
        space="conv_5x1,none", frames=6, layers=3, channels=2, nodes=2, epochs=1, batch_size=12,
        device="cpu",
    )  # fmt: skip
    assert settings.space == "none,conv_5x1"
    search(tiny_cache, tmp_path / "run", settings)
    genotype = derive(tmp_path / "run")
    assert isinstance(genotype, Genotype)
    edges = [edge for node in genotype.normal + genotype.reduction for edge in node]
    assert {edge.op for edge in edges} == {"conv_5x1"}

    sizes = {"in_channels": 3, "num_classes": 3, "channels": 4, "num_layers": 1}
    with_convolutions = measure(Network(genotype, **sizes), (3, 12, 5)).parameters
    pools = Genotype(
        *(
            tuple(tuple(Edge("max_pool_3x3", edge.source) for edge in node) for node in cell)
            for cell in (genotype.normal, genotype.reduction)
        )
    )
    without = measure(Network(pools, **sizes), (3, 12, 5)).parameters
    c = 8  # the only cell is a reduction, which doubles the channels
    assert with_convolutions - without == 4 * (5 * c * c + 2 * c)

    draw_cells(genotype, tmp_path / "cells.svg")
    picture = (tmp_path / "cells.svg").read_text(encoding="utf-8")
    assert "conv_5x1" in picture
    assert stroke("conv_5x1").colour in picture
