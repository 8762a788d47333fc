"""From scores to cells, on cases small enough to check by hand."""

from __future__ import annotations

import pytest

from skelnas.derivation import choose_cell, count_skips, count_stable, entropy, from_alphas, softmax
from skelnas.errors import InputError, UsageError
from skelnas.genotype import Cell, Edge, Genotype


def test_softmax_sums_to_one_even_for_large_values() -> None:
    assert softmax([0.0, 0.0]) == [0.5, 0.5]
    assert softmax([1000.0, 1000.0, -1000.0]) == [0.5, 0.5, 0.0]


class TestFromAlphas:
    ops = ("none", "max_pool_3x3", "skip_connect", "conv_3x3")

    def derive(self, alphas: list[list[float]], keep: int = 2) -> Cell:
        genotype = from_alphas(alphas, alphas, self.ops, keep)
        assert genotype.normal == genotype.reduction
        return genotype.normal

    def test_keeps_the_strongest_operation_of_the_strongest_edges(self) -> None:
        alphas = [
            [0.0, 1.0, 0.0, 0.0],  # 0 → 2
            [0.0, 0.0, 0.0, 2.0],  # 1 → 2
            [0.0, 0.0, 3.0, 0.0],  # 0 → 3
            [0.0, 0.0, 0.0, 1.0],  # 1 → 3
            [0.0, 2.0, 0.0, 0.0],  # 2 → 3
        ]
        assert self.derive(alphas) == (
            (Edge("conv_3x3", 1), Edge("max_pool_3x3", 0)),
            (Edge("skip_connect", 0), Edge("max_pool_3x3", 2)),
        )

    def test_none_counts_in_the_softmax_but_is_never_chosen(self) -> None:
        # Edge 0's operation has the larger alpha, but `none` leaves it the smaller weight.
        alphas = [[9.0, 5.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
        assert self.derive(alphas, keep=1) == ((Edge("conv_3x3", 1),),)
        assert self.derive(alphas, keep=2)[0][1] == Edge("max_pool_3x3", 0)

    def test_ties_go_to_the_lower_index(self) -> None:
        assert self.derive([[0.0] * 4] * 5) == (
            (Edge("max_pool_3x3", 0), Edge("max_pool_3x3", 1)),
            (Edge("max_pool_3x3", 0), Edge("max_pool_3x3", 1)),
        )

    def test_a_node_with_few_incoming_edges_keeps_all(self) -> None:
        assert [len(node) for node in self.derive([[0.0] * 4] * 5, keep=3)] == [2, 3]

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_diverged_alphas_are_refused(self, value: float) -> None:
        with pytest.raises(InputError, match="alphas of edge 1 are not all finite"):
            self.derive([[0.0] * 4, [0.0, value, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("alphas", "expected"),
    [
        ([[3.0] * 8, [0.0] * 8], 1.0),
        ([[0.0, -1e4, -1e4], [-1e4, 0.0, -1e4]], 0.0),
        ([[0.0, 0.0], [0.0, -1e4]], 0.5),
        ([[0.0, 0.0, -1e4, -1e4]], 0.5),
        ([[7.0]], 0.0),
    ],
)
def test_entropy_is_1_when_undecided_and_0_when_decided(
    alphas: list[list[float]], expected: float
) -> None:
    assert entropy(alphas) == pytest.approx(expected)


class TestMaxSkip:
    """Two nodes; on each edge the scores of a skip, a pool and a convolution."""

    scores = [
        {"none": 0.9, "skip_connect": 0.8, "max_pool_3x3": 0.5, "conv_3x3": 0.1},  # 0 → 2
        {"none": 0.0, "skip_connect": 0.7, "max_pool_3x3": 0.0, "conv_3x3": 0.6},  # 1 → 2
        {"none": 0.0, "skip_connect": 0.9, "max_pool_3x3": 0.2, "conv_3x3": 0.1},  # 0 → 3
        {"none": 0.0, "skip_connect": 0.1, "max_pool_3x3": 0.1, "conv_3x3": 0.3},  # 1 → 3
        {"none": 0.0, "skip_connect": 0.6, "max_pool_3x3": 0.1, "conv_3x3": 0.2},  # 2 → 3
    ]

    def test_without_a_limit_skips_are_not_replaced(self) -> None:
        expected = (
            (Edge("skip_connect", 0), Edge("skip_connect", 1)),
            (Edge("skip_connect", 0), Edge("skip_connect", 2)),
        )
        assert choose_cell(self.scores) == expected
        assert choose_cell(self.scores, max_skip=4) == expected

    def test_a_skip_is_replaced_by_another_edge_of_the_node(self) -> None:
        assert choose_cell(self.scores, max_skip=3)[1] == (
            Edge("skip_connect", 0),
            Edge("conv_3x3", 1),
        )

    def test_a_skip_is_replaced_by_the_next_operation_of_its_edge(self) -> None:
        assert choose_cell(self.scores, max_skip=2)[0] == (
            Edge("skip_connect", 0),
            Edge("conv_3x3", 1),
        )

    def test_a_limit_of_zero_leaves_no_skips(self) -> None:
        assert choose_cell(self.scores, max_skip=0) == (
            (Edge("conv_3x3", 1), Edge("max_pool_3x3", 0)),
            (Edge("conv_3x3", 1), Edge("max_pool_3x3", 0)),
        )

    def test_a_skip_that_replaces_a_skip_is_counted(self) -> None:
        scores = [
            {"skip_connect": 0.9, "conv_3x3": 0.0},  # 0 → 2
            {"skip_connect": 0.8, "conv_3x3": 0.1},  # 1 → 2
        ]
        assert choose_cell(scores, keep=1, max_skip=0) == ((Edge("conv_3x3", 1),),)

    def test_among_equal_skips_the_last_is_replaced_first(self) -> None:
        scores = [{"skip_connect": 0.5, "conv_3x3": 0.4}] * 2
        assert choose_cell(scores, max_skip=1) == ((Edge("skip_connect", 0), Edge("conv_3x3", 1)),)

    def test_only_the_normal_cell_is_limited(self) -> None:
        alphas = [[0.0, 2.0, 1.0]] * 2
        genotype = from_alphas(alphas, alphas, ("none", "skip_connect", "conv_3x3"), max_skip=0)
        assert genotype.normal == ((Edge("conv_3x3", 0), Edge("conv_3x3", 1)),)
        assert genotype.reduction == ((Edge("skip_connect", 0), Edge("skip_connect", 1)),)
        assert count_skips(genotype) == 0

    def test_a_cell_of_skips_alone_cannot_be_limited(self) -> None:
        alphas = [[0.0, 1.0]] * 2
        ops = ("none", "skip_connect")
        assert count_skips(from_alphas(alphas, alphas, ops)) == 2
        with pytest.raises(UsageError, match="no operation but skip_connect"):
            from_alphas(alphas, alphas, ops, max_skip=1)


def test_scores_of_edges_choose_the_edges_but_not_the_operations() -> None:
    scores = [{"conv_3x3": 0.9, "max_pool_3x3": 0.1}, {"conv_3x3": 0.2, "max_pool_3x3": 0.3}]
    assert choose_cell(scores, keep=1) == ((Edge("conv_3x3", 0),),)
    assert choose_cell(scores, keep=1, edge_scores=[0.0, 1.0]) == ((Edge("max_pool_3x3", 1),),)


def test_stable_epochs_are_counted_back_from_the_last() -> None:
    def genotype(*edges: tuple[str, int]) -> Genotype:
        cell = (tuple(Edge(*edge) for edge in edges),)
        return Genotype(cell, cell)

    one = genotype(("conv_3x3", 0), ("max_pool_3x3", 1))
    same = genotype(("max_pool_3x3", 1), ("conv_3x3", 0))
    other = genotype(("conv_3x3", 1), ("max_pool_3x3", 0))
    assert count_stable([one]) == 0
    assert count_stable([one, one]) == 1
    assert count_stable([one, other]) == 0
    assert count_stable([other, one, same, one]) == 2
    assert count_stable([one, other, one]) == 0
