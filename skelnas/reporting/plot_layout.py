"""Pictures of layouts: a standing body with the numbers and names of its joints.

The body faces the viewer, so that its left is on the right; dense parts are drawn larger beside it.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from skelnas.data.readers.base import Layout
from skelnas.reporting.plot_style import INK, PALETTE, QUIET, drawing
from skelnas.runtime.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]
View = tuple[Point, Point]
"""The lower left and the upper right corner of a part of the body."""

MIDDLE = """
    head 0 172, nose 0 166, neck 0 150, thorax 0 142, spine_shoulder 0 142, spine_chest 0 126,
    spine_mid 0 114, spine_navel 0 110, spine 0 116, spine_base 0 96, pelvis 0 96, hip_mid 0 96,
    hip 0 96, spine_1 0 106, spine_2 0 117, spine_3 0 128,
    nose_bridge_1 0 170, nose_bridge_2 0 168.8, nose_bridge_3 0 167.6, nose_tip 0 166.4,
    nose_base 0 164.6, lip_upper 0 163, lip_upper_inside 0 162.1, lip_lower_inside 0 160.7,
    lip_lower 0 159.8, chin 0 156.5
"""
"""Joints on neither side, with x and y in centimetres."""

LEFT = """
    eye 3.6 169.6, eye_inner 2.2 169.6, eye_outer 5 169.6, ear 8 167, mouth 2.5 161.5,
    collar 7 141, clavicle 6 143, shoulder 18 141, elbow 33 118, wrist 47 96, hand 51.5 89,
    hand_tip 56 82, thumb 55 93, index 56.5 85, pinky 51 84,
    hip 10 92, knee 12 50, ankle 13 9, foot 17 2, heel 11 4, foot_index 18 1, big_toe 16 0,
    small_toe 21 2,
    brow_1 2 171.7, brow_2 3.2 172.2, brow_3 4.4 172.4, brow_4 5.6 172.2, brow_5 6.8 171.5,
    lid_upper_inner 3.1 170.2, lid_upper_outer 4.2 170.2, lid_lower_inner 3.1 169,
    lid_lower_outer 4.2 169, nostril_inner 0.9 164.8, nostril_outer 1.8 165.2,
    mouth_outer 4 161.4, mouth_inner 3 161.4, lip_upper_1 1.1 163.4, lip_upper_2 2.6 162.8,
    lip_upper_inside 1.4 162, lip_lower_1 1.2 160, lip_lower_2 2.7 160.4,
    lip_lower_inside 1.4 160.8,
    jaw_1 1.6 156.7, jaw_2 3.1 157.4, jaw_3 4.4 158.4, jaw_4 5.7 159.9, jaw_5 6.7 161.6,
    jaw_6 7.4 163.6, jaw_7 7.8 165.8, jaw_8 8 168
"""
"""Joints on the left; those on the right mirror them."""

FINGERS = """
    wrist 0 0, hand_root 0 0, palm 0 5, thumb_cmc -3 2.5, thumb_mcp -5.5 5, thumb_ip -7.3 7.3,
    thumb_tip -8.7 9.3,
    index_finger_mcp -2.8 9, index_finger_pip -3.4 13, index_finger_dip -3.7 15.6,
    index_finger_tip -3.9 17.8, middle_finger_mcp -0.3 9.4, middle_finger_pip -0.3 14,
    middle_finger_dip -0.3 17, middle_finger_tip -0.3 19.4, ring_finger_mcp 2 8.8,
    ring_finger_pip 2.5 13, ring_finger_dip 2.8 15.8, ring_finger_tip 3 18, pinky_mcp 4.2 7.6,
    pinky_pip 5.2 10.7, pinky_dip 5.8 12.7, pinky_tip 6.3 14.5
"""
"""A hand that points up."""


def _parse(table: str) -> dict[str, Point]:
    rows = (row.split() for row in table.split(","))
    return {joint: (float(x), float(y)) for joint, x, y in rows}


_MIDDLE, _LEFT, _FINGERS = map(_parse, (MIDDLE, LEFT, FINGERS))

HEIGHT, TITLE_HEIGHT = 9.0, 0.4  # in inches
NAME_ROWS, NAME_WIDTH = 45, 1.9  # names in a column, and its width in inches
PIXELS_PER_INCH = 120

CLOSE_UPS: tuple[View, ...] = (
    ((-10, 154), (10, 175)),
    ((42, 74), (64, 99)),
    ((-64, 74), (-42, 99)),
)
"""The face, the left and the right hand."""
MIN_CROWD = 9
"""Joints in a part from which on it is drawn larger, too."""


def draw_layout(name: str, layout: Layout, path: Path) -> None:
    """Draw a layout into a ``.png`` file.

    Raises:
        SkelnasError: matplotlib is not installed, or `path` cannot be written.
    """
    points = np.array([place(joint) for joint in layout.joints])  # [V, 2]
    body = _find_view(points)
    crowds = [points[_is_within(points, view)] for view in CLOSE_UPS]
    closer = [_find_view(crowd) for crowd in crowds if len(crowd) >= MIN_CROWD]
    row_height = HEIGHT / len(CLOSE_UPS)
    body_width = HEIGHT * _aspect(body)
    closer_width = row_height * max(map(_aspect, closer), default=0)
    names_left = body_width + closer_width
    size = (names_left + NAME_WIDTH * -(-len(points) // NAME_ROWS), HEIGHT + TITLE_HEIGHT)
    with drawing("layouts") as make_figure:
        figure = make_figure(figsize=size, facecolor="white")
        sides = "; the body faces you, its left is orange" if "hip_left" in layout.joints else ""
        title = f"{name}: {len(points)} joints{sides}"
        figure.text(0.5, 0.985, title, ha="center", va="top", size=11, color=INK)
        boxes = [(0.0, 0.0, body_width, HEIGHT)]
        for row in range(1, len(closer) + 1):
            boxes.append((body_width, HEIGHT - row * row_height, closer_width, row_height))
        for view, box in zip([body, *closer], boxes, strict=True):
            axes = figure.add_axes(tuple(np.divide(box, size * 2).tolist()))
            _draw_view(axes, layout, points, view, closer if view is body else [])
        for joint, text in enumerate(layout.joints):
            column, row = divmod(joint, NAME_ROWS)
            x = (names_left + column * NAME_WIDTH) / size[0]
            y = 0.94 - 0.92 * row / NAME_ROWS
            figure.text(x, y, f"{joint} {text}", size=8, color=_colour(text))
        file = io.BytesIO()
        software = {"Software": "skelnas"}
        figure.savefig(file, format="png", dpi=PIXELS_PER_INCH, metadata=software)
    atomic_write(path, file.getvalue())


def place(joint: str) -> Point:
    """Return where a joint of a layout is drawn, in centimetres. Raises KeyError if unknown."""
    words = joint.split("_")
    for side, sign in (("left", 1), ("right", -1)):
        if side in words:
            words.remove(side)
            x, y = _place_left("_".join(words))
            return sign * x, y
    return _MIDDLE[joint] if joint in _MIDDLE else _FINGERS[joint]


def _place_left(part: str) -> Point:
    """Return where a part of the left side is; a hand goes on where the forearm ends."""
    if part in _LEFT:
        return _LEFT[part]
    x, y = _FINGERS[part]
    elbow, wrist = _LEFT["elbow"], _LEFT["wrist"]
    length = math.dist(wrist, elbow)
    a, b = (wrist[0] - elbow[0]) / length, (wrist[1] - elbow[1]) / length
    y += 1  # the root of the hand is not the wrist of the body
    return wrist[0] + b * x + a * y, wrist[1] - a * x + b * y


def _find_view(points: NDArray[np.float64]) -> View:
    """Return the box around points [n, 2], at least as high as wide."""
    (left, low), (right, high) = points.min(0).tolist(), points.max(0).tolist()
    extra = max(0.0, right - left - (high - low)) / 2
    return (left, low - extra), (right, high + extra)


def _is_within(points: NDArray[np.float64], view: View) -> NDArray[np.bool_]:
    """Return which points [n, 2] are within a view."""
    low, high = view
    return np.asarray(((points >= low) & (points <= high)).all(axis=1))


def _aspect(view: View) -> float:
    """Return the width of a view, with margins for the numbers, relative to its height."""
    (left, low), (right, high) = view
    return (right - left) / (high - low) + 0.25


def _draw_view(
    axes: Axes, layout: Layout, points: NDArray[np.float64], view: View, closer: list[View]
) -> None:
    """Draw the part of a body within a view; leave the numbers in `closer` views to them."""
    from matplotlib.patheffects import withStroke

    (left, low), (right, high) = view
    margin = 0.06 * (high - low)
    axes.set(
        xlim=(left - 2 * margin, right + 2 * margin),
        ylim=(low - margin, high + margin),
        aspect="equal",
    )
    axes.set_axis_off()
    for child, parent in layout.bones:
        axes.plot(*points[[child, parent]].T, color=QUIET, linewidth=1.2, zorder=1)
    colours = list(map(_colour, layout.joints))
    x, y = points.T
    axes.scatter(x, y, s=14, c=colours, zorder=2)
    is_numbered = _is_within(points, view)
    for other in closer:
        is_numbered &= ~_is_within(points, other)
    rim = withStroke(linewidth=2, foreground="white")
    for joint in np.flatnonzero(is_numbered).tolist():
        axes.annotate(
            str(joint),
            points[joint],
            (3, 3),
            textcoords="offset points",
            size=8,
            color=colours[joint],
            zorder=3,
            path_effects=[rim],
        )


def _colour(joint: str) -> str:
    words = joint.split("_")
    kind = "second" if "left" in words else "first" if "right" in words else "ink"
    return PALETTE[kind][0]
