"""The skeleton as a graph: which joints are neighbours, and sums over them.

V joints, K subsets of neighbours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

SUBSETS = 3
"""Neighbours as near to the centre as the joint itself, nearer, and farther."""

Bones = Sequence[tuple[int, int]]


def partition(num_joints: int, bones: Bones) -> NDArray[np.float32]:
    """Split what each joint takes from its neighbours by where they lie (ST-GCN, "spatial").

    A joint's neighbours are itself and those at the other end of its bones. Subset 0 has those
    as far from the centre as the joint is, the joint itself among them; 1 those nearer to it, 2
    those farther away. A neighbour weighs one over the number of all neighbours of the joint
    (ST-GCN's release). The centre is the joint with the fewest hops to all others, of equals
    the first: the middle of the shoulders for NTU and Kinetics, as in that release.

    Returns:
        [K, V, V]: what joint v gives to joint w in each subset.

    Raises:
        ValueError: a bone ends at a joint that does not exist.
    """
    if not {joint for bone in bones for joint in bone} <= set(range(num_joints)):
        raise ValueError(f"a bone ends at none of the {num_joints} joints")
    neighbours: list[set[int]] = [{joint} for joint in range(num_joints)]
    for one, other in bones:
        neighbours[one].add(other)
        neighbours[other].add(one)
    every = [_hops(start, neighbours) for start in range(num_joints)]
    from_centre = min(every, key=sum)
    subsets = np.zeros((SUBSETS, num_joints, num_joints), dtype=np.float32)
    for taker, givers in enumerate(neighbours):
        for giver in givers:
            way = from_centre[giver] - from_centre[taker]
            subset = 0 if way == 0 else 1 if way < 0 else 2
            subsets[subset, giver, taker] = 1 / len(givers)
    return subsets


def _hops(start: int, neighbours: Sequence[set[int]]) -> list[int]:
    """Count the bones on the way to each joint; as many as there are joints if there is none."""
    hops = [len(neighbours)] * len(neighbours)
    hops[start] = 0
    waiting = deque([start])
    while waiting:
        joint = waiting.popleft()
        for other in neighbours[joint]:
            if hops[other] == len(neighbours):
                hops[other] = hops[joint] + 1
                waiting.append(other)
    return hops


class GraphSum(nn.Module):
    """Add up what joints take from their neighbours, each edge with a learned importance.

    Args:
        num_joints: V.
        bones: pairs of joints.
    """

    edges: Tensor

    def __init__(self, num_joints: int, bones: Bones) -> None:
        super().__init__()
        edges = torch.from_numpy(partition(num_joints, bones))  # on the CPU, also under "meta"
        self.register_buffer("edges", edges, persistent=False)
        self.importance = nn.Parameter(torch.ones(edges.shape))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, K x C, T, V] to [N, C, T, V]; each subset of neighbours has own channels."""
        clips, _, frames, _ = x.shape
        takes = (self.edges * self.importance).permute(2, 1, 0).flatten(1)
        of_givers = x.permute(0, 2, 3, 1).reshape(clips, frames, takes.shape[1], -1)
        return (takes @ of_givers).permute(0, 3, 1, 2)
