"""Pictures of clips: a strip of poses side by side, or an animation.

Left and right limbs have a colour each, and the trunk has the person's.

Poses are seen from the camera: x points right, and y up or down, as the layout says. All poses of
a picture have the same scale.

Shapes: M persons, T frames, V joints, C channels of a joint.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import Layout, fold_name
from skelnas.data.sides import find_side
from skelnas.errors import UsageError
from skelnas.reporting.plot_style import GRID, INK, PALETTE, QUIET, drawing, picture_kind, save
from skelnas.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDE_COLOURS = {"left": "second", "right": "first"}
TRUNK_COLOURS = ("ink", "grey", "faint")
"""Names in `PALETTE`: of limbs, and of the trunks of the first, the second and other persons."""

GIF_PIXELS_PER_INCH = 110
STRIP_HEIGHT = 2.6  # of a pose, in inches
TITLE_CHARACTER_WIDTH = 0.085  # in inches, rounded up
ABOVE, BELOW = 0.45, 0.3  # room for the title and the frame numbers, in inches
MIN_POSE_WIDTH = 0.42  # in heights of the strip
MARGIN = 0.06  # around the poses, in their heights
OUTLIER_PERCENT = 0.5
"""The per cent of all coordinates, at each end, that may be outside of the picture."""

FRAMES_PER_SECOND = 30.0
"""Where the frame rate is not known (ours)."""
MAX_FRAMES = 300
"""A longer clip is animated with fewer, evenly spaced frames."""

JOINT_SIZE, HEAD_SIZE = 3.9, 11.0  # diameters in points


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


def draw_strip(picture: ClipPicture, path: Path, num_poses: int = 8) -> None:
    """Draw evenly spaced poses side by side.

    Args:
        picture: the clip.
        path: the file to write, with one of `PICTURES`.
        num_poses: at most; see `lay_out_strip`.

    Raises:
        UsageError: the suffix is another.
        SkelnasError: matplotlib is not installed, or `path` cannot be written.
    """
    kind = picture_kind(path)
    strip = lay_out_strip(picture, num_poses)
    scale = STRIP_HEIGHT / (strip.high - strip.low)  # inches per unit
    with drawing("clips") as make_figure:
        figure, axes = _make_figure(
            make_figure,
            picture.title,
            strip.width * scale,
            STRIP_HEIGHT,
            (0, strip.width, strip.low, strip.high),
        )
        axes.axhline(strip.low, color=GRID, linewidth=1.5)
        for column, frame in enumerate(strip.frames):
            for person, points in enumerate(strip.points[:, column]):
                draw_pose(axes, picture, points, person)
            axes.annotate(
                f"frame {frame + 1}" if column == 0 else f"{frame + 1}",
                ((column + 0.5) * strip.pose_width, strip.low),
                (0, -7),
                textcoords="offset points",
                ha="center",
                va="top",
                size=8,
                color=QUIET,
                annotation_clip=False,
            )
        file = save(figure, kind)
    atomic_write(path, file)


def draw_animation(picture: ClipPicture, path: Path) -> None:
    """Animate a clip in a ``.gif`` file; raises as `draw_strip` does."""
    num_frames = picture.points.shape[1]
    left, right, low, high = find_limits(picture.points)
    width = max(right - left, MIN_POSE_WIDTH * (high - low))
    left = (left + right - width) / 2
    max_height = 1.35 * STRIP_HEIGHT
    scale = min(max_height / (high - low), 2.2 * max_height / width)  # inches per unit
    height = (high - low) * scale
    with drawing("clips") as make_figure:
        figure, axes = _make_figure(
            make_figure, picture.title, width * scale, height, (left, left + width, low, high)
        )
        axes.axhline(low, color=GRID, linewidth=1.5)
        y = 0.1 / (height + ABOVE + BELOW)
        frame_number = figure.text(0.5, y, "", ha="center", size=8, color=QUIET)

        def draw(frame: int) -> list[Artist]:
            frame_number.set_text(f"frame {frame + 1} of {num_frames}")
            people = enumerate(picture.points[:, frame])
            return [one for n, points in people for one in draw_pose(axes, picture, points, n)]

        animate(figure, draw, num_frames, picture.frame_rate, path)


def animate(
    figure: Figure,
    draw: Callable[[int], list[Artist]],
    num_frames: int,
    frame_rate: float,
    path: Path,
    max_rate: float = math.inf,
) -> None:
    """Write a figure that changes from frame to frame as a ``.gif``, at its true speed.

    Args:
        figure: made inside `drawing`.
        draw: draws a frame, by its number, and returns what is to vanish before the next.
        num_frames: of these at most `MAX_FRAMES` are shown.
        frame_rate: of the frames, per second.
        path: the file to write.
        max_rate: of those that are shown.
    """
    from matplotlib.animation import FuncAnimation, PillowWriter

    step = max(-(-num_frames // MAX_FRAMES), math.ceil(frame_rate / max_rate))
    artists: list[Artist] = []

    def update(frame: int) -> Iterable[Artist]:
        while artists:
            artists.pop().remove()
        artists.extend(draw(frame))
        return artists

    frames = range(0, num_frames, step)
    animation = FuncAnimation(figure, update, frames, init_func=lambda: artists)
    writer = PillowWriter(fps=frame_rate / step)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:  # the writer needs a path
        file = Path(folder) / "animation.gif"
        animation.save(file, writer=writer, dpi=GIF_PIXELS_PER_INCH)
        atomic_write(path, file.read_bytes())


def find_limits(points: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return the left, right, low and high limit of the points [..., V, 2], with a margin."""
    percentiles = [OUTLIER_PERCENT, 100 - OUTLIER_PERCENT]
    low, high = np.nanpercentile(points, percentiles, axis=(0, 1, 2))
    margin = MARGIN * max(high[1] - low[1], high[0] - low[0], 1e-6)
    return low[0] - margin, high[0] + margin, low[1] - margin, high[1] + margin


def _make_figure(
    make_figure: type[Figure],
    title: str,
    width: float,
    height: float,
    limits: tuple[float, float, float, float],
) -> tuple[Figure, Axes]:
    """Make a figure with a title and axes of the given size in inches."""
    full_height = height + ABOVE + BELOW
    full_width = max(width, TITLE_CHARACTER_WIDTH * len(title))
    figure = make_figure(figsize=(full_width, full_height), facecolor="white")
    style: dict[str, Any] = {"ha": "center", "va": "top", "size": 10, "color": INK}
    figure.text(0.5, 1 - 0.12 / full_height, title, **style)
    left, right, low, high = limits
    axes = figure.add_axes(
        (0, BELOW / full_height, 1, height / full_height),
        xlim=(left, right),
        ylim=(low, high),
        aspect="equal",
    )
    axes.set_axis_off()
    return figure, axes


def draw_pose(
    axes: Axes,
    picture: ClipPicture,
    points: NDArray[np.float64],
    person: int,
    scale: float = 1.0,
    *,
    with_joints: bool = True,
) -> list[Artist]:
    """Draw one person, points [V, 2]; a bone is drawn if both of its joints are known.

    Args:
        axes: where to draw.
        picture: the clip that the pose is of.
        points: of the joints.
        person: its number.
        scale: of the strokes.
        with_joints: whether to draw joints other than the head.
    """
    known = np.asarray(np.isfinite(points).all(axis=1))
    zorder = 2 - 0.1 * person  # the first person in front
    lines: dict[str, list[int]] = {}  # the ends of the bones of each colour
    for bone in picture.bones:
        if known[list(bone)].all():
            lines.setdefault(picture.bone_colour(bone, person), []).extend(bone)
    strokes = [(PALETTE[colour][0], 2.2, ends) for colour, ends in lines.items()]
    if strokes:  # a rim shows what is in front
        strokes.insert(0, ("white", 4.8, [end for _, _, ends in strokes for end in ends]))
    artists: list[Artist] = []
    for colour, width, ends in strokes:
        # [bones, 3, 2]: two ends, and a gap before the next.
        path = np.insert(points[ends].reshape(-1, 2, 2), 2, np.nan, axis=1).reshape(-1, 2)
        artists += axes.plot(
            *path.T,
            color=colour,
            linewidth=width * scale,
            solid_capstyle="round",
            zorder=zorder,
        )
    dots: dict[tuple[str, float], list[int]] = {}  # the joints of each colour and size
    for joint in np.flatnonzero(known).tolist():
        is_head = joint == picture.head
        if is_head or with_joints or not picture.bones:
            size = HEAD_SIZE if is_head else JOINT_SIZE
            dots.setdefault((picture.joint_colour(joint, person), size), []).append(joint)
    for (name, size), joints in dots.items():
        artists += axes.plot(
            *points[joints].T,
            linestyle="none",
            marker="o",
            color=PALETTE[name][0],
            markersize=size * scale,
            markeredgecolor="white",
            markeredgewidth=0.7 * scale,
            zorder=zorder,
        )
    return artists
