"""Where the poses of a picture of a clip go: side by side, or above their moments.

Left and right limbs have a colour each, and the trunk has the person's.

Poses are seen from the camera: x points right, and y up or down, as the layout says. All poses of
a picture have the same scale.

Shapes: M persons, T frames, V joints, C channels of a joint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import Layout, fold_name
from skelnas.data.sides import find_side
from skelnas.errors import UsageError

SIDE_COLOURS = {"left": "second", "right": "first"}
TRUNK_COLOURS = ("ink", "grey", "faint")
"""Names in `PALETTE`: of limbs, and of the trunks of the first, the second and other persons."""

MIN_POSE_WIDTH = 0.42  # in heights of the strip
MARGIN = 0.06  # around the poses, in their heights
OUTLIER_PERCENT = 0.5
"""The per cent of all coordinates, at each end, that may be outside of the picture."""

FRAMES_PER_SECOND = 30.0
"""Where the frame rate is not known (ours)."""


@dataclass(frozen=True)
class ClipPicture:
    """A clip in the coordinates of a picture: x points right, y points up.

    Attributes:
        title: the text above it.
        points: [M, T, V, 2] float64; NaN where a joint is not known.
        bones: pairs of joints.
        sides: of each joint, `left`, `right` or empty.
        head: index of the joint called "head", or None.
        frame_rate: frames per second of an animation.
    """

    title: str
    points: NDArray[np.float64]
    bones: tuple[tuple[int, int], ...]
    sides: tuple[str, ...]
    head: int | None
    frame_rate: float = FRAMES_PER_SECOND

    @classmethod
    def of(
        cls,
        title: str,
        poses: NDArray[np.float32],
        present: NDArray[np.bool_],
        layout: Layout,
    ) -> ClipPicture:
        """Project a clip onto the picture.

        Args:
            title: the text above it.
            poses: [M, T, V, C].
            present: [M, T].
            layout: joints, bones and channels.

        Raises:
            UsageError: the joints have no x and y.
        """
        if layout.channels[:2] != ("x", "y"):
            raise UsageError(f"cannot draw joints with the channels {', '.join(layout.channels)}")
        points = poses[..., :2].astype(np.float64) * (1, -1 if layout.y_down else 1)
        points[~poses.any(axis=-1) | ~present[..., None]] = np.nan
        names = [fold_name(name) for name in layout.joints]
        head = names.index("head") if "head" in names else None
        sides = tuple(map(find_side, layout.joints))
        rate = layout.frame_rate or FRAMES_PER_SECOND
        return cls(title, points, layout.bones, sides, head, rate)

    @property
    def visible_frames(self) -> NDArray[np.intp]:
        """The frames in which a person is seen."""
        return np.flatnonzero(np.isfinite(self.points).any(axis=(0, 2, 3)))

    def joint_colour(self, joint: int, person: int) -> str:
        """Return the colour of a joint, as a name in `PALETTE`."""
        trunk = TRUNK_COLOURS[min(person, len(TRUNK_COLOURS) - 1)]
        return SIDE_COLOURS.get(self.sides[joint], trunk)

    def bone_colour(self, bone: tuple[int, int], person: int) -> str:
        """Return the colour of a bone: that of its end that is on a side."""
        child, parent = bone
        return self.joint_colour(child if self.sides[child] else parent, person)

    def centre(self, frames: NDArray[np.intp]) -> NDArray[np.float64]:
        """Return the points [M, F, V, 2] of some frames, each with its persons around x = 0."""
        points = self.points[:, frames]
        for column in range(len(frames)):
            x = points[:, column, :, 0]
            if np.isfinite(x).any():
                x -= np.nanmedian(x)
        return points


@dataclass(frozen=True)
class Strip:
    """F poses of a clip side by side, in the unit of its coordinates; y points up.

    Attributes:
        picture: the clip.
        frames: [F], the frames that are shown.
        points: [M, F, V, 2], moved to where each pose is drawn.
        pose_width: the width of each pose.
        low, high: the limits of y.
    """

    picture: ClipPicture
    frames: NDArray[np.intp]
    points: NDArray[np.float64]
    pose_width: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """The width of all poses."""
        return len(self.frames) * self.pose_width


def lay_out_strip(picture: ClipPicture, num_poses: int) -> Strip:
    """Arrange evenly spaced poses, from the first to the last frame in which a person is seen.

    A strip has fewer poses than asked for if the clip has fewer such frames.
    """
    visible = picture.visible_frames
    chosen = np.linspace(0, len(visible) - 1, min(num_poses, len(visible))).round().astype(int)
    frames = np.unique(visible[chosen])
    points = picture.centre(frames)
    left, right, low, high = find_limits(points)
    width = max(right - left, MIN_POSE_WIDTH * (high - low))
    left = (left + right - width) / 2
    points[..., 0] += (np.arange(len(frames)) * width - left)[:, None]
    return Strip(picture, frames, points, width, low, high)


def _fill(lefts: NDArray[np.float64], rights: NDArray[np.float64], width: float) -> list[int]:
    """Choose intervals that do not overlap, so that they cover as much as possible of 0 to width.

    Args:
        lefts, rights: [n], the ends of the intervals.
        width: intervals that go beyond it, or below 0, are left out.
    """
    order = [i for i in np.argsort(rights).tolist() if lefts[i] >= 0 and rights[i] <= width]
    ends = rights[order]
    covered = [0.0]  # by the best choice among the first intervals
    choices: list[tuple[int, ...]] = [()]
    for count, index in enumerate(order):
        before = int(np.searchsorted(ends[:count], lefts[index], side="right"))
        cover = covered[before] + float(rights[index] - lefts[index])
        if cover > covered[-1]:
            covered.append(cover)
            choices.append((*choices[before], index))
        else:
            covered.append(covered[-1])
            choices.append(choices[-1])
    return list(choices[-1])


@dataclass(frozen=True)
class Moments:
    """F poses of a clip above an axis of time, in the unit of its coordinates; y points up.

    Attributes:
        frames: [F], the frames that are shown.
        points: [M, F, V, 2], moved to where each pose is drawn.
        width: of the axis, for all frames of the clip.
        low, high: the limits of y.
    """

    frames: NDArray[np.intp]
    points: NDArray[np.float64]
    width: float
    low: float
    high: float


def lay_out_moments(picture: ClipPicture, aspect: float) -> Moments | None:
    """Arrange as many poses as fit side by side, each above its moment.

    Args:
        picture: the clip.
        aspect: the width of the axis, in heights of the poses.

    Returns:
        The poses; None if nobody is ever seen.
    """
    visible = picture.visible_frames
    if not len(visible):
        return None
    points = picture.centre(visible)  # [M, F, V, 2]
    _, _, low, high = find_limits(points)
    width, room = aspect * (high - low), MIN_POSE_WIDTH * (high - low) / 2
    middles = (visible + 0.5) * width / picture.points.shape[1]
    lefts = middles + np.minimum(np.nanmin(points[..., 0], axis=(0, 2)), -room)
    rights = middles + np.maximum(np.nanmax(points[..., 0], axis=(0, 2)), room)
    chosen = _fill(lefts, rights, width) or [len(visible) // 2]
    points = points[:, chosen]
    points[..., 0] += middles[chosen, None]
    return Moments(visible[chosen], points, width, low, high)


def find_limits(points: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return the left, right, low and high limit of the points [..., V, 2], with a margin."""
    percentiles = [OUTLIER_PERCENT, 100 - OUTLIER_PERCENT]
    low, high = np.nanpercentile(points, percentiles, axis=(0, 1, 2))
    margin = MARGIN * max(high[1] - low[1], high[0] - low[0], 1e-6)
    return low[0] - margin, high[0] + margin, low[1] - margin, high[1] + margin
