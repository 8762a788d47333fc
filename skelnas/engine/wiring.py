"""How the nodes and edges of a cell are numbered.

Nodes 0 and 1 are the inputs, intermediate nodes count on from 2. Edges are ordered by target, then
by source: node 2 has edges 0 and 1 (from the nodes 0 and 1), node 3 has edges 2, 3 and 4, and so
on.
"""

from __future__ import annotations

NUM_INPUTS = 2


def count_nodes(num_edges: int) -> int:
    """Return the number of intermediate nodes of a cell with `num_edges` edges."""
    return next(n for n in range(1, num_edges) if n * (n + 3) // 2 == num_edges)


def outgoing_edges(source: int, num_nodes: int) -> list[int]:
    """Return the numbers of the edges from a node to each later intermediate node, in order.

    Args:
        source: the node that they leave.
        num_nodes: intermediate nodes of the cell.
    """
    first = max(source + 1 - NUM_INPUTS, 0)  # of the targets, counted from the first intermediate
    return [target * (target + 3) // 2 + source for target in range(first, num_nodes)]
