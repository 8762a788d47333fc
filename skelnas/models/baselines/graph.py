"""The skeleton as a graph: neighbouring joints, and sums over them.

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
"""Neighbours at the joint's distance from the centre, nearer ones, and farther ones."""

Bones = Sequence[tuple[int, int]]


def partition(num_joints: int, bones: Bones) -> NDArray[np.float32]:
    """Split the neighbours of each joint by their distance from the centre (ST-GCN, "spatial").

    The neighbours of a joint are the joint itself and the other ends of its bones. Subset 0 has
    those as far from the centre as the joint, including the joint itself; subset 1 nearer ones,
    subset 2 farther ones. A neighbour is weighted by 1 over the number of neighbours of the joint
    (ST-GCN's release). The centre is the joint with the fewest hops to all others, the first in
    case of a tie: the middle of the shoulders for NTU and Kinetics, as in that release.

    Returns:
        [K, V, V], the weight of joint v in the sum of joint w, for each subset.

    Raises:
        ValueError: a bone ends at a joint that does not exist.
    """
    if not {joint for bone in bones for joint in bone} <= set(range(num_joints)):
        raise ValueError(f"a bone ends at none of the {num_joints} joints")
    neighbours: list[set[int]] = [{joint} for joint in range(num_joints)]
    for one, other in bones:
        neighbours[one].add(other)
        neighbours[other].add(one)
    distances = [_hops(start, neighbours) for start in range(num_joints)]
    from_centre = min(distances, key=sum)
    subsets = np.zeros((SUBSETS, num_joints, num_joints), dtype=np.float32)
    for joint, around in enumerate(neighbours):
        for neighbour in around:
            difference = from_centre[neighbour] - from_centre[joint]
            subset = 0 if difference == 0 else 1 if difference < 0 else 2
            subsets[subset, neighbour, joint] = 1 / len(around)
    return subsets


def _hops(start: int, neighbours: Sequence[set[int]]) -> list[int]:
    """Return the number of bones between `start` and each joint; V for unreachable ones."""
    hops = [len(neighbours)] * len(neighbours)
    hops[start] = 0
    queue = deque([start])
    while queue:
        joint = queue.popleft()
        for other in neighbours[joint]:
            if hops[other] == len(neighbours):
                hops[other] = hops[joint] + 1
                queue.append(other)
    return hops


class GraphSum(nn.Module):
    """Sum the neighbours of each joint, with a learned importance for each edge.

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
        """Map [N, K x C, T, V] to [N, C, T, V]; each subset of neighbours has its own channels."""
        clips, _, frames, _ = x.shape
        weights = (self.edges * self.importance).permute(2, 1, 0).flatten(1)  # [V, V x K]
        x = x.permute(0, 2, 3, 1)  # [N, T, V, K x C]
        x = x.reshape(clips, frames, weights.shape[1], -1)  # [N, T, V x K, C]
        return (weights @ x).permute(0, 3, 1, 2)  # [N, T, V, C] -> [N, C, T, V]
