"""Pictures of clips: a strip of poses side by side, or an animation.

Shapes: M persons, T frames, V joints.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skelnas.reporting.plot_style import GRID, INK, PALETTE, QUIET, drawing, write
from skelnas.reporting.pose_layout import MIN_POSE_WIDTH, ClipPicture, find_limits, lay_out_strip
from skelnas.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GIF_PIXELS_PER_INCH = 110
STRIP_HEIGHT = 2.6  # of a pose, in inches
TITLE_CHARACTER_WIDTH = 0.085  # in inches, rounded up
ABOVE, BELOW = 0.45, 0.3  # room for the title and the frame numbers, in inches
MAX_FRAMES = 300
"""A longer clip is animated with fewer, evenly spaced frames."""

JOINT_SIZE, HEAD_SIZE = 3.9, 11.0  # diameters in points


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
        write(figure, path)


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
