"""Where each clip stands and how it is turned before anything is changed at random.

Shapes: N clips, V joints, C channels of a joint, D of them coordinates in space.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skelnas.batches.sampling import Rows
from skelnas.batches.streams import num_spatial
from skelnas.errors import InputError
from skelnas.sources.base import Layout

VERTICAL = ("spine_base", "spine_mid")
SIDEWAYS = ("hip_right", "hip_left")
"""Joints that a clip is aligned by: the spine points along y, the hips lie along x."""


def first_poses(rows: Rows) -> Tensor:
    """Return [N, V, C], each clip's first row with a person in it: mostly person 1, frame 1."""
    num_rows, num_clips = len(rows.present), len(rows.starts)
    row = torch.arange(num_rows, device=rows.present.device)
    clip = torch.arange(num_clips, device=row.device)
    clip = clip.repeat_interleave(rows.num_persons * rows.num_frames)
    seen = torch.where(rows.present, row, num_rows - 1)
    first = torch.full((num_clips,), num_rows - 1, device=row.device)
    return rows.poses[first.scatter_reduce(0, clip, seen, "amin")]


def find_origins(first: Tensor, layout: Layout) -> Tensor | None:
    """Return [N, D], where the centre joint is in the first poses; None if there is no such."""
    if layout.center_joint is None:
        return None
    return first[:, layout.center_joint, : num_spatial(layout)]


def find_turns(first: Tensor, layout: Layout) -> Tensor:
    """Return rotations [N, 3, 3] whose rows are the body's own axes in the first poses.

    Raises:
        InputError: the joints have no hips, spine or depth.
    """
    joints = {name: index for index, name in enumerate(layout.joints)}
    if num_spatial(layout) != 3 or not set(VERTICAL + SIDEWAYS) <= set(joints):
        raise InputError(
            f"clips cannot be aligned: that needs 3-D joints {', '.join(VERTICAL + SIDEWAYS)}",
            hint="leave --align out for this cache",
        )

    def direction(start: str, end: str) -> Tensor:
        return first[:, joints[end], :3] - first[:, joints[start], :3]

    up = torch.nn.functional.normalize(direction(*VERTICAL), dim=1)
    side = direction(*SIDEWAYS)
    side = side - (side * up).sum(1, keepdim=True) * up
    side = torch.nn.functional.normalize(side, dim=1)
    turns = torch.stack([side, up, torch.linalg.cross(side, up)], dim=1)
    degenerate = (up.norm(dim=1) < 0.5) | (side.norm(dim=1) < 0.5)
    return torch.where(degenerate[:, None, None], torch.eye(3, device=turns.device), turns)
