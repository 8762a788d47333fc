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

MIDDLE: dict[str, Point] = {
    "head": (0, 172),
    "nose": (0, 166),
    "neck": (0, 150),
    "thorax": (0, 142),
    "spine_shoulder": (0, 142),
    "spine_chest": (0, 126),
    "spine_mid": (0, 114),
    "spine_navel": (0, 110),
    "spine": (0, 116),
    "spine_base": (0, 96),
    "pelvis": (0, 96),
    "hip_mid": (0, 96),
    "hip": (0, 96),
    "spine_1": (0, 106),
    "spine_2": (0, 117),
    "spine_3": (0, 128),
    "nose_bridge_1": (0, 170),
    "nose_bridge_2": (0, 168.8),
    "nose_bridge_3": (0, 167.6),
    "nose_tip": (0, 166.4),
    "nose_base": (0, 164.6),
    "lip_upper": (0, 162.7),
    "lip_upper_inside": (0, 162.1),
    "lip_lower_inside": (0, 161.2),
    "lip_lower": (0, 160.4),
    "chin": (0, 156.5),
}
"""Centimetres, of joints on neither side."""

LEFT: dict[str, Point] = {
    "eye": (3.6, 169.6),
    "eye_inner": (2.2, 169.6),
    "eye_outer": (5, 169.6),
    "ear": (8, 167),
    "mouth": (2.5, 161.5),
    "collar": (7, 141),
    "clavicle": (6, 143),
    "shoulder": (18, 141),
    "elbow": (33, 118),
    "wrist": (47, 96),
    "hand": (51.5, 89),
    "hand_tip": (56, 82),
    "thumb": (55, 93),
    "index": (56.5, 85),
    "pinky": (51, 84),
    "hip": (10, 92),
    "knee": (12, 50),
    "ankle": (13, 9),
    "foot": (17, 2),
    "heel": (11, 4),
    "foot_index": (18, 1),
    "big_toe": (16, 0),
    "small_toe": (21, 2),
    "nostril_inner": (0.9, 164.8),
    "nostril_outer": (1.8, 165.2),
    "lid_upper_inner": (3.1, 170.2),
    "lid_upper_outer": (4.2, 170.2),
    "lid_lower_inner": (3.1, 169),
    "lid_lower_outer": (4.2, 169),
    "mouth_outer": (2.9, 161.8),
    "mouth_inner": (2.2, 161.7),
    "lip_upper_1": (0.8, 163),
    "lip_upper_2": (1.9, 162.6),
    "lip_upper_inside": (1, 162),
    "lip_lower_1": (0.9, 160.5),
    "lip_lower_2": (2, 160.9),
    "lip_lower_inside": (1, 161.3),
    **{f"brow_{i}": (0.8 + 1.2 * i, 171.4 + (0.3, 0.8, 1, 0.8, 0.1)[i - 1]) for i in range(1, 6)},
    **{
        f"jaw_{i}": (
            8 * math.sin(i * math.pi / 16),
            156.5 + 11.5 * (1 - math.cos(i * math.pi / 16)),
        )
        for i in range(1, 9)
    },
}
"""The same of joints on the left side; the right mirrors them."""

FINGERS: dict[str, tuple[Point, ...]] = {
    "thumb": ((-3, 2.5), (-5.5, 5), (-7.3, 7.3), (-8.7, 9.3)),
    "index_finger": ((-2.8, 9), (-3.4, 13), (-3.7, 15.6), (-3.9, 17.8)),
    "middle_finger": ((-0.3, 9.4), (-0.3, 14), (-0.3, 17), (-0.3, 19.4)),
    "ring_finger": ((2, 8.8), (2.5, 13), (2.8, 15.8), (3, 18)),
    "pinky": ((4.2, 7.6), (5.2, 10.7), (5.8, 12.7), (6.3, 14.5)),
}
"""Centimetres from the wrist of a hand that points up."""

HEIGHT = 9.0  # of the picture, in inches
NAME_ROWS, NAME_WIDTH = 45, 1.9  # names in a column, and its width in inches
CLOSE_UPS = (((-10, 154), (10, 175)), ((42, 74), (64, 99)), ((-64, 74), (-42, 99)))
"""The lower left and upper right corner of the face, the left and the right hand."""
MIN_CROWD = 9
"""Joints in a part from which on it is drawn larger, too."""


def draw_layout(name: str, layout: Layout, path: Path) -> None:
    """Draw a layout into a ``.png`` file.

    Raises:
        SkelnasError: matplotlib is not installed, or `path` cannot be written.
    """
    points = np.array([place(joint) for joint in layout.joints])
    is_hand = layout.joints[0] == "wrist"
    views = [(points.min(0), points.max(0))]
    for low, high in CLOSE_UPS if not is_hand else ():
        inside = ((points >= low) & (points <= high)).all(axis=1)
        if inside.sum() >= MIN_CROWD:
            views.append((points[inside].min(0), points[inside].max(0)))
    widths = [HEIGHT * _width(*view) for view in views[:1]]
    widths += [HEIGHT / max(len(views) - 1, 1) * _width(*view) for view in views[1:]]
    body, close = widths[0], max(widths[1:], default=0)
    num_columns = -(-len(points) // NAME_ROWS)
    with drawing("layouts") as make_figure:
        total = body + close + num_columns * NAME_WIDTH
        figure = make_figure(figsize=(total, HEIGHT + 0.4), facecolor="white")
        title = f"{name}: {len(points)} joints; the body faces you, its left is orange"
        figure.text(0.5, 0.985, title, ha="center", va="top", size=11, color=INK)
        for number, view in enumerate(views):
            rows = max(len(views) - 1, 1)
            left, bottom, width, height = (
                (0.0, 0.0, body, 1.0)
                if number == 0
                else (body, (rows - number) / rows, close, 1 / rows)
            )
            scale = HEIGHT / (HEIGHT + 0.4)
            axes = figure.add_axes((left / total, bottom * scale, width / total, height * scale))
            _draw_view(axes, layout, points, view, views[number + 1 :] if number == 0 else [])
        for joint, text in enumerate(layout.joints):
            column, row = divmod(joint, NAME_ROWS)
            x = (body + close + column * NAME_WIDTH) / total
            y = 0.94 - 0.92 * row / NAME_ROWS
            figure.text(x, y, f"{joint} {text}", size=8, color=_colour(text))
        file = io.BytesIO()
        figure.savefig(file, format="png", dpi=120, metadata={"Software": "skelnas"})
    atomic_write(path, file.getvalue())


def place(joint: str) -> Point:
    """Return where a joint of a layout is drawn, in centimetres. Raises KeyError if unknown."""
    for side, sign in (("left", 1), ("right", -1)):
        if side in joint.split("_"):
            part = "_".join(word for word in joint.split("_") if word != side)
            x, y = LEFT[part] if part in LEFT else _place_in_hand(part, LEFT["wrist"])
            return sign * x, y
    return MIDDLE[joint] if joint in MIDDLE else _place_in_hand(joint, None)


def _place_in_hand(joint: str, wrist: Point | None) -> Point:
    """Return where a joint of a hand is; of one that points up if there is no arm."""
    if joint in ("wrist", "hand_root"):
        x, y = 0.0, 0.0
    else:
        finger, _, part = joint.rpartition("_")
        bones = ("cmc", "mcp", "ip", "tip") if finger == "thumb" else ("mcp", "pip", "dip", "tip")
        x, y = FINGERS[finger][bones.index(part)]
    if wrist is None:
        return x, y
    elbow = LEFT["elbow"]
    length = math.dist(wrist, elbow)
    a, b = (wrist[0] - elbow[0]) / length, (wrist[1] - elbow[1]) / length
    start = (wrist[0] + a, wrist[1] + b)  # beside the wrist of the body
    return start[0] + b * x + a * y, start[1] - a * x + b * y


def _width(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    """Return the width of a view, with its margin, relative to its height."""
    return float((high[0] - low[0]) / (high[1] - low[1])) + 0.25


def _draw_view(
    axes: Axes,
    layout: Layout,
    points: NDArray[np.float64],
    view: tuple[NDArray[np.float64], NDArray[np.float64]],
    closer: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
) -> None:
    """Draw the part of a body within a view; leave numbers that `closer` views have to them."""
    from matplotlib.patheffects import withStroke

    low, high = view
    margin = 0.06 * (high[1] - low[1])
    axes.set(
        xlim=(low[0] - 2 * margin, high[0] + 2 * margin),
        ylim=(low[1] - margin, high[1] + margin),
        aspect="equal",
    )
    axes.set_axis_off()
    for child, parent in layout.bones:
        axes.plot(*points[[child, parent]].T, color=QUIET, linewidth=1.2, zorder=1)
    for joint, (x, y) in enumerate(points):
        colour = _colour(layout.joints[joint])
        axes.scatter(x, y, s=14, color=colour, zorder=2, clip_on=True)
        is_closer = any(((points[joint] >= a) & (points[joint] <= b)).all() for a, b in closer)
        is_inside = ((points[joint] >= low) & (points[joint] <= high)).all()
        if is_inside and not is_closer:
            axes.annotate(
                str(joint),
                (x, y),
                (3, 3),
                textcoords="offset points",
                size=8,
                color=colour,
                zorder=3,
                path_effects=[withStroke(linewidth=2, foreground="white")],
            )


def _colour(joint: str) -> str:
    words = joint.split("_")
    kind = "second" if "left" in words else "first" if "right" in words else "ink"
    return PALETTE[kind][0]
