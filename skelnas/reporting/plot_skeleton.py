"""Pictures of clips: a strip of poses side by side, or an animation.

Poses are seen from the camera: x points right, and y up or down, as the layout says. All poses of
a picture have the same scale.

Shapes: M persons, T frames, V joints, C channels of a joint.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import Layout, fold_name
from skelnas.errors import UsageError
from skelnas.reporting.plot_style import drawing
from skelnas.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PERSON_COLOURS = ("#2f6db5", "#d9730d", "#27a583", "#8e2f6f")
"""Can be told apart with any kind of colour vision."""
INK = "#22272e"
QUIET = "#8b949e"
GROUND = "#d0d7de"

PIXELS_PER_INCH = 160
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

JOINT_SIZE, HEAD_SIZE = 15.0, 120.0  # in square points


@dataclass(frozen=True)
class ClipPicture:
    """A clip in the coordinates of a picture: x points right, y points up.

    Attributes:
        title: the text above it.
        points: [M, T, V, 2] float64; NaN where a joint is not known.
        bones: pairs of joints.
        head: index of the joint called "head", or None.
        frame_rate: frames per second of an animation.
    """

    title: str
    points: NDArray[np.float64]
    bones: tuple[tuple[int, int], ...]
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
        return cls(title, points, layout.bones, head, layout.frame_rate or FRAMES_PER_SECOND)

    @property
    def visible_frames(self) -> NDArray[np.intp]:
        """The frames in which a person is seen."""
        return np.flatnonzero(np.isfinite(self.points).any(axis=(0, 2, 3)))


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
    middles = [np.nanmedian(picture.points[:, [frame], :, 0]) for frame in frames]
    offsets = np.stack([middles, np.zeros(len(frames))], axis=1)
    points = picture.points[:, frames] - offsets[:, None]
    left, right, low, high = _find_limits(points)
    width = max(right - left, MIN_POSE_WIDTH * (high - low))
    left = (left + right - width) / 2
    points[..., 0] += (np.arange(len(frames)) * width - left)[:, None]
    return Strip(picture, frames, points, width, low, high)


def draw_strip(picture: ClipPicture, path: Path, num_poses: int = 8) -> None:
    """Draw evenly spaced poses side by side into a ``.png`` file.

    Args:
        picture: the clip.
        path: the file to write.
        num_poses: at most; see `lay_out_strip`.

    Raises:
        SkelnasError: matplotlib is not installed, or `path` cannot be written.
    """
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
        axes.axhline(strip.low, color=GROUND, linewidth=1.5)
        for column, frame in enumerate(strip.frames):
            for person, points in enumerate(strip.points[:, column]):
                _draw_pose(axes, picture, points, person)
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
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=PIXELS_PER_INCH, metadata={"Software": "skelnas"})
    atomic_write(path, file.getvalue())


def draw_animation(picture: ClipPicture, path: Path) -> None:
    """Animate a clip in a ``.gif`` file; raises as `draw_strip` does."""
    num_frames = picture.points.shape[1]
    step = -(-num_frames // MAX_FRAMES)
    left, right, low, high = _find_limits(picture.points)
    width = max(right - left, MIN_POSE_WIDTH * (high - low))
    left = (left + right - width) / 2
    max_height = 1.35 * STRIP_HEIGHT
    scale = min(max_height / (high - low), 2.2 * max_height / width)  # inches per unit
    height = (high - low) * scale
    with drawing("clips") as make_figure:
        from matplotlib.animation import FuncAnimation, PillowWriter

        figure, axes = _make_figure(
            make_figure, picture.title, width * scale, height, (left, left + width, low, high)
        )
        axes.axhline(low, color=GROUND, linewidth=1.5)
        y = 0.1 / (height + ABOVE + BELOW)
        frame_number = figure.text(0.5, y, "", ha="center", size=8, color=QUIET)
        artists: list[Artist] = []

        def draw(frame: int) -> Iterable[Artist]:
            while artists:
                artists.pop().remove()
            for person, points in enumerate(picture.points[:, frame]):
                artists.extend(_draw_pose(axes, picture, points, person))
            frame_number.set_text(f"frame {frame + 1} of {num_frames}")
            return artists

        animation = FuncAnimation(
            figure, draw, range(0, num_frames, step), init_func=lambda: artists
        )
        writer = PillowWriter(fps=picture.frame_rate / step)
        with tempfile.TemporaryDirectory() as folder:  # the writer needs a path
            file = Path(folder) / "animation.gif"
            animation.save(file, writer=writer, dpi=GIF_PIXELS_PER_INCH)
            atomic_write(path, file.read_bytes())


def _find_limits(points: NDArray[np.float64]) -> tuple[float, float, float, float]:
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


def _draw_pose(
    axes: Axes, picture: ClipPicture, points: NDArray[np.float64], person: int
) -> list[Artist]:
    """Draw one person, points [V, 2]; a bone is drawn if both of its joints are known."""
    from matplotlib.collections import LineCollection

    colour = PERSON_COLOURS[person % len(PERSON_COLOURS)]
    is_known = np.isfinite(points).all(axis=1)
    if not is_known.any():
        return []
    bones = points[np.array(picture.bones, dtype=int).reshape(-1, 2)]  # [bones, 2 ends, 2]
    bones = bones[np.isfinite(bones).all(axis=(1, 2))]
    zorder = 2 - 0.1 * person  # the first person in front
    artists: list[Artist] = []
    for line_colour, width in (("white", 4.8), (colour, 2.2)):  # a rim shows what is in front
        lines = LineCollection(
            list(bones), colors=line_colour, linewidths=width, capstyle="round", zorder=zorder
        )
        artists.append(axes.add_collection(lines))
    sizes = np.full(len(points), JOINT_SIZE)
    if picture.head is not None:
        sizes[picture.head] = HEAD_SIZE
    x, y = points[is_known].T
    joints = axes.scatter(
        x, y, sizes[is_known], c=colour, edgecolors="white", linewidths=0.7, zorder=zorder
    )
    return [*artists, joints]
