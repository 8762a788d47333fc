"""Input streams of a network: joints, bones and motions, as channels of one image.

Shapes: N clips, M persons, T frames, V joints, C channels of a joint in the cache, D of them
spatial coordinates.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from skelnas.data.readers.base import Layout, num_coordinates
from skelnas.errors import InputError


class Streams:
    """Computes the input channels of a network from poses.

    Args:
        names: comma-separated streams, in the order of `skelnas.config.STREAMS`.
        layout: joints, bones and channels.
        device: of the poses.

    Raises:
        InputError: there is a bone stream, but the layout has no bones.
    """

    def __init__(self, names: str, layout: Layout, device: torch.device) -> None:
        self._names = names.split(",")
        self._num_spatial = num_spatial(layout)
        parents = find_parents(layout) if "bone" in self._names else []
        self._parents = torch.tensor(parents, device=device)

    def make(self, poses: Tensor, present: Tensor, found: Tensor | None = None) -> Tensor:
        """Concatenate the streams, then the scores, once.

        Args:
            poses: [N, M, T, V, C], all zero where a person is absent or a joint not found.
            present: [N, M, T] bool.
            found: [N, M, T, V] bool; None if all joints of present persons were found.

        Returns:
            [N, M, T, V, channels].
        """
        space, scores = poses[..., : self._num_spatial], poses[..., self._num_spatial :]
        streams = []
        for name in self._names:
            if name == "joint":
                streams.append(space)
            elif name == "bone":
                streams.append(compute_bones(space, self._parents, found))
            else:
                streams.append(
                    compute_motions(space, present[..., None] if found is None else found)
                )
        return torch.cat([*streams, scores], dim=-1)


def num_spatial(layout: Layout) -> int:
    """Return D: the first 3 or 2 channels are coordinates, any others are scores."""
    return num_coordinates(layout.channels)


def num_channels(names: str, layout: Layout) -> int:
    """Return the number of input channels: D per stream, and the scores once."""
    size = num_spatial(layout)
    return len(names.split(",")) * size + len(layout.channels) - size


def branch_channels(names: str, layout: Layout) -> list[list[int]]:
    """Return the input channels of each branch: every stream alone, then all of them.

    Every branch sees the scores.
    """
    size = num_spatial(layout)
    channels = list(range(num_channels(names, layout)))
    num_streams = len(names.split(","))
    scores = channels[num_streams * size :]
    single = [channels[i * size : (i + 1) * size] + scores for i in range(num_streams)]
    return [*single, channels]


def find_parents(layout: Layout) -> list[int]:
    """Return the joint at which the bone of each joint starts; the joint itself without a bone.

    Raises:
        InputError: the layout has no bones.
    """
    if not layout.bones:
        raise InputError(
            "there is no bone stream: the cache does not say which joints are connected",
            hint="leave bone out of --streams, or prepare the cache from a source with bones",
        )
    parents = list(range(len(layout.joints)))
    for child, parent in layout.bones:
        parents[child] = parent
    return parents


def compute_bones(space: Tensor, parents: Tensor, found: Tensor | None = None) -> Tensor:
    """Return each joint minus its parent, zero without a parent or if either was not found.

    Args:
        space: [N, M, T, V, D], all zero where a person is absent.
        parents: [V], see `find_parents`.
        found: [N, M, T, V] bool; None if all joints of present persons were found.
    """
    bones = space - space[:, :, :, parents]  # [N, M, T, V, D]
    return bones if found is None else bones * (found & found[..., parents])[..., None]


def compute_motions(space: Tensor, found: Tensor) -> Tensor:
    """Return each joint's displacement to the next frame, zero unless it was found in both.

    Args:
        space: [N, M, T, V, D].
        found: [N, M, T, V] bool; [N, M, T, 1] if all joints of present persons were found.

    Returns:
        [N, M, T, V, D], zero in the last frame.
    """
    in_both = found[:, :, 1:] & found[:, :, :-1]  # [N, M, T-1, V]
    motions = (space[:, :, 1:] - space[:, :, :-1]) * in_both[..., None]  # [N, M, T-1, V, D]
    return F.pad(motions, (0, 0, 0, 0, 0, 1))
