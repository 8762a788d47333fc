"""What a network sees of a pose: joints, bones and motions, as channels of one picture.

Shapes: N clips, M persons, T frames, V joints, C channels of a joint in the cache, D of them
coordinates in space.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skelnas.data.readers.base import Layout
from skelnas.errors import InputError


def num_spatial(layout: Layout) -> int:
    """Return D: the first 3 or 2 channels are coordinates, what follows are scores."""
    return 3 if layout.channels[:3] == ("x", "y", "z") else 2


def num_channels(names: str, layout: Layout) -> int:
    """Count the channels of streams: D for each, and the scores once."""
    size = num_spatial(layout)
    return len(names.split(",")) * size + len(layout.channels) - size


def branch_channels(names: str, layout: Layout) -> list[list[int]]:
    """Say which channels each of several networks sees: each stream alone, then all of them.

    The scores are seen by each.
    """
    size = num_spatial(layout)
    everything = list(range(num_channels(names, layout)))
    count = len(names.split(","))
    scores = everything[count * size :]
    alone = [everything[at * size : (at + 1) * size] + scores for at in range(count)]
    return [*alone, everything]


class Streams:
    """Makes the channels that a network sees out of poses.

    Args:
        names: which streams, with commas between, in the order of `skelnas.config.STREAMS`.
        layout: joints, bones and channels.
        device: of the poses.

    Raises:
        InputError: bones are asked of a layout that has none.
    """

    def __init__(self, names: str, layout: Layout, device: torch.device) -> None:
        self._names = names.split(",")
        self._size = num_spatial(layout)
        parents = find_parents(layout) if "bone" in self._names else []
        self._parents = torch.tensor(parents, device=device)

    def make(self, poses: Tensor, present: Tensor) -> Tensor:
        """Put the streams side by side, and the scores behind them, once.

        Args:
            poses: [N, M, T, V, C], all zero where a person is absent.
            present: [N, M, T] bool.

        Returns:
            [N, M, T, V, channels].
        """
        space, scores = poses[..., : self._size], poses[..., self._size :]
        parts = []
        for name in self._names:
            if name == "joint":
                parts.append(space)
            elif name == "bone":
                parts.append(bones(space, self._parents))
            else:
                parts.append(motions(space, present))
        return torch.cat([*parts, scores], dim=-1)


def find_parents(layout: Layout) -> list[int]:
    """Return for each joint the one that its bone starts at; itself, if it has no bone.

    Raises:
        InputError: nothing is known of bones.
    """
    if not layout.bones:
        raise InputError(
            "there is no stream of bones: the cache does not say which joints are joined",
            hint="leave bone out of --streams, or prepare the cache from a source with bones",
        )
    parents = list(range(len(layout.joints)))
    for child, parent in layout.bones:
        parents[child] = parent
    return parents


def bones(space: Tensor, parents: Tensor) -> Tensor:
    """Return each joint minus its parent, zero where a joint has none.

    Args:
        space: [N, M, T, V, D], all zero where a person is absent.
        parents: [V], as `find_parents` returns them.
    """
    return space - space[:, :, :, parents]


def motions(space: Tensor, present: Tensor) -> Tensor:
    """Return each joint's way to the next frame, zero unless its person is present in both.

    Args:
        space: [N, M, T, V, D].
        present: [N, M, T] bool.

    Returns:
        [N, M, T, V, D], zero in the last frame.
    """
    both = present[:, :, 1:] & present[:, :, :-1]
    ways = (space[:, :, 1:] - space[:, :, :-1]) * both[..., None, None]
    return F.pad(ways, (0, 0, 0, 0, 0, 1))
