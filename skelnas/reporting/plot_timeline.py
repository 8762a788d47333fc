"""Pictures of recordings with their actions: poses over time, above the classes they are taken for.

A recording of several windows has a row for each class, filled as high as its probability and
darkest where no other class is more probable. A single clip has bars instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from skelnas.evaluation.timeline import Timeline
from skelnas.reporting.plot_confusion import shorten_name
from skelnas.reporting.plot_skeleton import animate, draw_pose
from skelnas.reporting.plot_style import (
    FAINT,
    GRID,
    INK,
    PALETTE,
    PAPER,
    QUIET,
    drawing,
    write,
)
from skelnas.reporting.pose_layout import ClipPicture, find_limits, lay_out_moments

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_ROWS = 8
"""Classes of a recording that are shown, those that are most probable longest."""
NUM_BARS = 5
"""Classes of a single clip that are shown."""

LIKELY, UNLIKELY = PALETTE["blue"][0], PALETTE["light-blue"][1]
LEFT, RIGHT = PALETTE["second"][0], PALETTE["first"][0]

# Lengths are in points, 1/72 inch.
WIDTH = 720.0
POSE_HEIGHT = 118.0
ROW_HEIGHT = 17.0
MARGIN = 14.0
HEADER = 24.0
GAP = 10.0  # between the ground and the first row
AXIS_HEIGHT = 30.0
LABEL_GAP = 8.0
FONT_SIZE = 8.5
GIF_FRAMES_PER_SECOND = 15.0


def draw_timeline(timeline: Timeline, path: Path) -> int:
    """Draw a recording and its classes; the same recording always gives the same file.

    Args:
        timeline: the recording.
        path: the file to write: ``.svg``, ``.png``, ``.pdf`` or an animated ``.gif``.

    Returns:
        The number of classes shown.

    Raises:
        UsageError: the suffix is none of these, or the joints have no x and y.
        SkelnasError: matplotlib is not installed, or `path` cannot be written.
    """
    recording = timeline.recording
    name = shorten_name(recording.name)
    picture = ClipPicture.of(name, recording.poses, recording.present, timeline.layout)
    shown = choose_classes(timeline)
    with drawing("a recording") as make_figure:
        sheet = _Sheet(make_figure, timeline, shown)
        sheet.add_header(name)
        sheet.draw_classes()
        if path.suffix.lower() == ".gif":
            sheet.animate(picture, path)
        else:
            sheet.draw_poses(picture)
            write(sheet.figure, path)
    return len(shown)


def choose_classes(timeline: Timeline) -> list[int]:
    """Return the classes to show, from the top.

    Of a recording these are the classes that are the most probable somewhere, in the order of
    their first appearance; of a single clip, the most probable ones.
    """
    probabilities = timeline.probabilities
    if len(probabilities) == 1:
        ranked: list[int] = np.argsort(-probabilities[0], kind="stable").tolist()
        return ranked[:NUM_BARS]
    likeliest = probabilities[np.isfinite(probabilities[:, 0])].argmax(axis=1).tolist()
    by_length = sorted(dict.fromkeys(likeliest), key=lambda one: -likeliest.count(one))
    return sorted(by_length[:MAX_ROWS], key=likeliest.index)


class _Sheet:
    """A figure with room for poses above a row for each class that is shown."""

    def __init__(self, make_figure: type[Figure], timeline: Timeline, shown: list[int]) -> None:
        from matplotlib import rc
        from matplotlib.font_manager import FontProperties
        from matplotlib.textpath import TextPath

        rc("text", parse_math=False)  # a dollar sign in a name is one
        self._timeline, self._shown = timeline, shown
        self._names = [shorten_name(timeline.classes[index]) for index in shown]
        font = FontProperties(size=FONT_SIZE)
        widths = [TextPath((0, 0), n or " ", prop=font).get_extents().width for n in self._names]
        self._left = MARGIN + max(widths, default=0) + LABEL_GAP
        self._rows_height = ROW_HEIGHT * max(len(shown), 1)
        self._height = HEADER + POSE_HEIGHT + GAP + self._rows_height + AXIS_HEIGHT
        self.figure = make_figure(figsize=(WIDTH / 72, self._height / 72), facecolor=PAPER)
        self._rate = timeline.layout.frame_rate
        self._length = timeline.num_frames / (self._rate or 1)
        self._pose_aspect = (WIDTH - self._left - MARGIN) / POSE_HEIGHT
        self._rows = self._add_axes(HEADER + POSE_HEIGHT + GAP, self._rows_height)

    def _add_axes(self, top: float, height: float) -> Axes:
        """Add axes between the names and the right margin, at a distance from the top."""
        left, width = self._left / WIDTH, (WIDTH - self._left - MARGIN) / WIDTH
        bottom = 1 - (top + height) / self._height
        axes = self.figure.add_axes((left, bottom, width, height / self._height))
        axes.set_facecolor("none")
        return axes

    def add_header(self, name: str) -> None:
        """Write the name of the recording, and which colour is which side."""
        y = 1 - 9 / self._height
        style: dict[str, Any] = {"size": FONT_SIZE, "va": "top"}
        self.figure.text(MARGIN / WIDTH, y, name, color=INK, weight="bold", **style)
        x = 1 - MARGIN / WIDTH
        self.figure.text(x, y, "right limbs", color=RIGHT, ha="right", **style)
        self.figure.text(x - 58 / WIDTH, y, "left limbs", color=LEFT, ha="right", **style)

    def draw_classes(self) -> None:
        """Draw the probabilities of each class over time, or as bars for a single clip."""
        axes = self._rows
        num_rows = max(len(self._shown), 1)
        axes.set_ylim(num_rows, 0)
        axes.set_yticks(np.arange(len(self._names)) + 0.6, self._names)
        axes.tick_params(axis="y", length=0, pad=LABEL_GAP, labelsize=FONT_SIZE, labelcolor=INK)
        axes.tick_params(axis="x", length=2.5, labelsize=FONT_SIZE, labelcolor=QUIET, color=FAINT)
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.spines["bottom"].set_color(FAINT)
        if len(self._timeline.probabilities) == 1:
            self._draw_bars(axes)
        else:
            self._draw_rows(axes)

    def _draw_bars(self, axes: Axes) -> None:
        values = 100 * self._timeline.probabilities[0, self._shown]
        axes.set_xlim(0, 100)
        axes.set_xlabel("probability, %", size=FONT_SIZE, color=QUIET, labelpad=2)
        for row, value in enumerate(values.tolist()):
            colour = LIKELY if row == 0 else UNLIKELY
            axes.barh(row + 0.57, value, height=0.62, color=colour)
            inside = value > 90
            axes.annotate(
                f"{value:.1f}",
                (value, row + 0.6),
                (-4 if inside else 4, 0),
                textcoords="offset points",
                ha="right" if inside else "left",
                va="center_baseline",
                size=FONT_SIZE,
                color=(PAPER if row == 0 else INK) if inside else QUIET,
            )

    def _draw_rows(self, axes: Axes) -> None:
        bounds = self._timeline.bounds / (self._rate or 1)
        axes.set_xlim(0, self._length)
        axes.set_xlabel(
            "seconds" if self._rate else "frames", size=FONT_SIZE, color=QUIET, labelpad=2
        )
        probabilities = np.nan_to_num(self._timeline.probabilities)
        likeliest = np.where(probabilities.any(axis=1), probabilities.argmax(axis=1), -1)
        for row, index in enumerate(self._shown):
            values = probabilities[:, index]
            axes.axhline(row + 1, color=GRID, linewidth=0.7, zorder=0.5)
            for colour, part in (
                (UNLIKELY, values),
                (LIKELY, np.where(likeliest == index, values, 0)),
            ):
                steps = row + 1 - 0.86 * np.append(part, part[-1])
                axes.fill_between(bounds, steps, row + 1, step="post", color=colour, linewidth=0)

    def draw_poses(self, picture: ClipPicture) -> None:
        """Draw as many poses as fit, each above its moment."""
        moments = lay_out_moments(picture, self._pose_aspect)
        axes = self._add_pose_axes()
        if moments is None:
            return
        axes.set(xlim=(0, moments.width), ylim=(moments.low, moments.high))
        for column in range(len(moments.frames)):
            for person, points in enumerate(moments.points[:, column]):
                draw_pose(axes, picture, points, person, scale=0.8, with_joints=False)

    def _add_pose_axes(self) -> Axes:
        axes = self._add_axes(HEADER, POSE_HEIGHT)
        axes.set(xticks=[], yticks=[])
        axes.spines[["left", "right", "top"]].set_visible(False)
        axes.spines["bottom"].set_color(GRID)
        return axes

    def animate(self, picture: ClipPicture, path: Path) -> None:
        """Show the poses one after the other, with the most probable class of each moment."""
        axes = self._add_pose_axes()
        if len(picture.visible_frames):
            left, right, low, high = find_limits(picture.points)
            width = max(right - left, (high - low) * self._pose_aspect)
            middle, height = (left + right) / 2, width / self._pose_aspect
            axes.set(xlim=(middle - width / 2, middle + width / 2), ylim=(low, low + height))
        title = axes.text(0.01, 0.9, "", size=FONT_SIZE + 2, color=INK, transform=axes.transAxes)
        bounds = self._timeline.bounds

        def draw(frame: int) -> list[Artist]:
            window = int(np.searchsorted(bounds, frame, side="right")) - 1
            title.set_text(self._describe(window))
            people = enumerate(picture.points[:, frame])
            artists = [one for n, points in people for one in draw_pose(axes, picture, points, n)]
            if len(self._timeline.probabilities) > 1:
                moment = (frame + 0.5) / (self._rate or 1)
                artists.append(self._rows.axvline(moment, color=INK, linewidth=1.2))
            return artists

        num_frames, rate = self._timeline.num_frames, picture.frame_rate
        animate(self.figure, draw, num_frames, rate, path, GIF_FRAMES_PER_SECOND)

    def _describe(self, window: int) -> str:
        values = self._timeline.probabilities[window]
        if not np.isfinite(values[0]):
            return "nobody is seen"
        best = int(values.argmax())
        return f"{shorten_name(self._timeline.classes[best])}  {values[best]:.0%}"
