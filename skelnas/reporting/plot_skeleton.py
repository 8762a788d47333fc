"""Pictures of clips: a strip of poses side by side, or an animation.

Poses are seen from the camera: x to the right, y up where there is a z, and down where the
coordinates are those of a picture. All poses of a picture have one scale.

Shapes: M persons, T frames, V joints, C channels of a joint.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import Layout
from skelnas.errors import SkelnasError, UsageError
from skelnas.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PERSONS = ("#2f6db5", "#d9730d", "#27a583", "#8e2f6f")
"""Colours of the persons, told apart with any kind of colour vision."""
INK = "#22272e"
QUIET = "#8b949e"
GROUND = "#d0d7de"
PIXELS_PER_INCH = 160
STRIP_HEIGHT = 2.6  # inches, of a pose
NARROWEST = 0.42  # width of a pose's place, in heights
FRAMES_PER_SECOND = 30.0
"""Of a Kinect, and of Kinetics' videos."""
MOST_FRAMES = 300
"""A longer clip is animated with fewer, evenly spaced."""
JOINT_SIZE, HEAD_SIZE = 15.0, 120.0  # square points
TITLE_INCHES = 0.085  # that a character takes, and more
MARGIN = 0.06  # around the poses, in their heights
STRAY = 0.5
"""Per cent of the joints, at each end, that the picture's frame does not have to include."""


@dataclass(frozen=True)
class Portrait:
    """A clip as it is drawn.

    Attributes:
        title: what stands above it.
        points: [M, T, V, 2] float64, right and up; NaN where a joint is not known.
        bones: pairs of joints.
        head: the joint of that name, if there is one.
    """

    title: str
    points: NDArray[np.float64]
    bones: tuple[tuple[int, int], ...]
    head: int | None

    @property
    def shown(self) -> NDArray[np.intp]:
        """The frames in which somebody is seen."""
        return np.flatnonzero(np.isfinite(self.points).any(axis=(0, 2, 3)))


def portrait(
    title: str, poses: NDArray[np.float32], present: NDArray[np.bool_], layout: Layout
) -> Portrait:
    """Turn a clip, poses [M, T, V, C] and present [M, T], to the reader.

    Raises:
        UsageError: the joints have no x and y.
    """
    if layout.channels[:2] != ("x", "y"):
        raise UsageError(f"cannot draw joints with the channels {', '.join(layout.channels)}")
    is_flat = "z" not in layout.channels
    points = poses[..., :2].astype(np.float64) * (1, -1 if is_flat else 1)
    points[~poses.any(axis=-1) | ~present[..., None]] = np.nan
    head = layout.joints.index("head") if "head" in layout.joints else None
    return Portrait(title, points, layout.bones, head)


@dataclass(frozen=True)
class Strip:
    """Poses of a clip side by side, in the unit of its coordinates, right and up.

    Attributes:
        clip: which clip it is.
        frames: which F of its frames.
        points: [M, F, V, 2], each pose in its place.
        pose_width: that a pose has for itself.
        low, high: lower and upper end.
    """

    clip: Portrait
    frames: NDArray[np.intp]
    points: NDArray[np.float64]
    pose_width: float
    low: float
    high: float

    @property
    def width(self) -> float:
        """Of all poses."""
        return len(self.frames) * self.pose_width


def lay_out_strip(clip: Portrait, num_poses: int) -> Strip:
    """Place evenly spaced poses, from the first to the last frame in which somebody is seen.

    In a clip in which nobody is ever seen there are none.
    """
    shown = clip.shown
    places = np.linspace(0, len(shown) - 1, min(num_poses, len(shown))).round().astype(int)
    frames = np.unique(shown[places])
    middles = [np.nanmedian(clip.points[:, [frame], :, 0]) for frame in frames]
    moved = clip.points[:, frames] - np.stack([middles, np.zeros(len(frames))], axis=1)[:, None]
    left, right, low, high = _limits(moved)
    width = max(right - left, NARROWEST * (high - low))
    left = (left + right - width) / 2
    moved[..., 0] += (np.arange(len(frames)) * width - left)[:, None]
    return Strip(clip, frames, moved, width, low, high)


def draw_strip(clip: Portrait, path: Path, num_poses: int = 8) -> None:
    """Draw evenly spaced poses side by side into a ``.png`` file.

    Args:
        clip: what to draw.
        path: where to.
        num_poses: how many, from the first to the last frame in which somebody is seen.

    Raises:
        SkelnasError: matplotlib is not installed, or `path` cannot be written.
    """
    strip = lay_out_strip(clip, num_poses)
    inches = STRIP_HEIGHT / (strip.high - strip.low)
    with _figure(
        max(strip.width * inches, TITLE_INCHES * len(clip.title)), STRIP_HEIGHT + 0.75
    ) as figure:
        place = (0, 0.3 / (STRIP_HEIGHT + 0.75), 1, STRIP_HEIGHT / (STRIP_HEIGHT + 0.75))
        draw_poses(_axes(figure, place, (0, strip.width), (strip.low, strip.high)), strip)
        figure.text(0.5, 1 - 0.12 / (STRIP_HEIGHT + 0.75), clip.title, **_TITLE)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", dpi=PIXELS_PER_INCH, metadata={"Software": "skelnas"})
    atomic_write(path, picture.getvalue())


def draw_poses(axes: Axes, strip: Strip) -> None:
    """Draw a strip on axes that have its limits."""
    axes.axhline(strip.low, color=GROUND, linewidth=1.5)
    for column, frame in enumerate(strip.frames):
        for person, points in enumerate(strip.points[:, column]):
            _draw_pose(axes, strip.clip, points, person)
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


def draw_animation(clip: Portrait, path: Path) -> None:
    """Draw the clip as it moves into a ``.gif`` file. Raises as `draw_strip`."""
    num_frames = clip.points.shape[1]
    step = -(-num_frames // MOST_FRAMES)
    frames = range(0, num_frames, step)
    left, right, low, high = _limits(clip.points)
    width = max(right - left, NARROWEST * (high - low))
    left = (left + right - width) / 2
    height = 1.35 * STRIP_HEIGHT
    inches = min(height / (high - low), 2.2 * height / width)
    with _figure(
        max(width * inches, TITLE_INCHES * len(clip.title)), (high - low) * inches + 0.75
    ) as figure:
        from matplotlib.animation import FuncAnimation, PillowWriter

        full = (high - low) * inches + 0.75
        place = (0, 0.3 / full, 1, 1 - 0.75 / full)
        axes = _axes(figure, place, (left, left + width), (low, high))
        axes.axhline(low, color=GROUND, linewidth=1.5)
        figure.text(0.5, 1 - 0.12 / full, clip.title, **_TITLE)
        number = figure.text(0.5, 0.1 / full, "", ha="center", size=8, color=QUIET)
        drawn: list[Artist] = []

        def draw(frame: int) -> Iterable[Artist]:
            while drawn:
                drawn.pop().remove()
            for person, points in enumerate(clip.points[:, frame]):
                drawn.extend(_draw_pose(axes, clip, points, person))
            number.set_text(f"frame {frame + 1} of {num_frames}")
            return drawn

        film = FuncAnimation(figure, draw, frames, init_func=lambda: drawn)
        writer = PillowWriter(fps=FRAMES_PER_SECOND / step)
        with tempfile.TemporaryDirectory() as folder:  # the writer wants a file
            part = Path(folder) / "film.gif"
            film.save(part, writer=writer, dpi=110)
            atomic_write(path, part.read_bytes())


_TITLE: dict[str, Any] = {"ha": "center", "va": "top", "size": 10, "color": INK}


def _limits(points: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Left, right, low and high end of what has to be seen, with a margin."""
    low, high = np.nanpercentile(points, [STRAY, 100 - STRAY], axis=(0, 1, 2))
    margin = MARGIN * max(high[1] - low[1], high[0] - low[0], 1e-6)
    return low[0] - margin, high[0] + margin, low[1] - margin, high[1] + margin


@contextlib.contextmanager
def _figure(width: float, height: float) -> Any:
    """Make an empty figure of so many inches, in no style but ours."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError as error:
        raise SkelnasError(
            f"drawing clips needs matplotlib ({error})", hint="pip install 'skelnas[plot]'"
        ) from None
    with mpl.rc_context():
        mpl.rcdefaults()
        yield Figure(figsize=(width, height), facecolor="white")


def _axes(
    figure: Figure,
    place: tuple[float, float, float, float],
    xlim: tuple[float, float],
    ylim: tuple[float, float],
) -> Axes:
    axes = figure.add_axes(place, xlim=xlim, ylim=ylim, aspect="equal")
    axes.set_axis_off()
    return axes


def _draw_pose(
    axes: Axes, clip: Portrait, points: NDArray[np.float64], person: int
) -> list[Artist]:
    """Draw one person, points [V, 2]; a bone needs both of its joints."""
    from matplotlib.collections import LineCollection

    colour = PERSONS[person % len(PERSONS)]
    known = np.isfinite(points).all(axis=1)
    if not known.any():
        return []
    lines = points[np.array(clip.bones, dtype=int).reshape(-1, 2)]
    lines = lines[np.isfinite(lines).all(axis=(1, 2))]
    order = 2 - 0.1 * person  # the first person in front
    drawn: list[Artist] = []
    for stroke, width in (("white", 4.8), (colour, 2.2)):  # a rim shows what is in front
        limbs = LineCollection(
            list(lines), colors=stroke, linewidths=width, capstyle="round", zorder=order
        )
        drawn.append(axes.add_collection(limbs))
    sizes = np.full(len(points), JOINT_SIZE)
    if clip.head is not None:
        sizes[clip.head] = HEAD_SIZE
    x, y = points[known].T
    areas = sizes[known]
    joints = axes.scatter(x, y, areas, c=colour, edgecolors="white", linewidths=0.7, zorder=order)
    return [*drawn, joints]
