"""SVG elements for an HTML page: matplotlib's figures, confusion matrices and strips of poses.

Their text is in the page's font, and their colours follow the page's light or dark theme.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from numpy.typing import NDArray

from skelnas.reporting.plot_confusion import MAX_NUMBERED_CLASSES, shorten_name, shown_classes
from skelnas.reporting.plot_style import PALETTE, blend, save, text_colour
from skelnas.reporting.pose_layout import ClipPicture, Strip

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THEME_COLOURS = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}
"""The CSS variable of each colour that a figure may have."""

NUMBER_COLOURS = {
    f"number-{one}-{two}": (colours[one], colours[two])
    for colours in [{"black": "#000000", "white": "#ffffff"}]
    for one in colours
    for two in colours
}
"""The colours of numbers in a matrix, in the light and in the dark theme, by their variable."""

MAX_NAMED_CLASSES = 120
"""With more classes there is no room for their names, and only the tooltips have them."""

MAX_MATRIX_WIDTH = 1100.0
"""Of a matrix without names, in pixels."""

CHARACTER_WIDTH = 0.55
"""At most, on average, in font sizes."""

POSE_HEIGHT, HEADROOM = 120.0, 8.0  # pixels


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """Return a figure as an element of a page.

    Args:
        figure: drawn in the colours of `skelnas.reporting.plot_style`.
        name: a prefix for the ids inside the element, unique in the page.
        description: what the figure shows, for screen readers.
    """
    root = ElementTree.fromstring(save(figure, "svg"))
    for parent in list(root.iter()):
        parent.tag = _local_name(parent.tag)
        parent.attrib = {_local_name(key): value for key, value in parent.attrib.items()}
        for child in list(parent):
            if _local_name(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for key in ("width", "height", "version"):
        root.attrib.pop(key)
    _prefix_ids(root, name)
    root.attrib = {"role": "img", "aria-label": description, **root.attrib}
    return re.sub(
        r"#[0-9a-f]{6}\b", lambda found: THEME_COLOURS.get(found[0], found[0]), _to_text(root)
    )


def _local_name(name: str) -> str:
    """Drop the namespace, which an SVG inside HTML does not need."""
    return name.rpartition("}")[2]


def _prefix_ids(root: Element, prefix: str) -> None:
    """Make the ids that are referred to unique in the page, and drop the others."""
    used = set(re.findall(r"(?:url\(|\")#([\w-]+)", _to_text(root)))
    names = {old: f"{prefix}-{number}" for number, old in enumerate(sorted(used))}
    for element in root.iter():
        old = element.attrib.pop("id", "")
        if old in names:
            element.attrib["id"] = names[old]
        for key, value in element.attrib.items():
            if key == "href":
                element.attrib[key] = "#" + names[value[1:]]
            elif "url(#" in value:
                element.attrib[key] = re.sub(
                    r"url\(#([\w-]+)\)", lambda found: f"url(#{names[found[1]]})", value
                )


def _to_text(root: Element) -> str:
    return ElementTree.tostring(root, encoding="unicode")


def matrix_svg(classes: Sequence[str], confusion: NDArray[np.int64]) -> str:
    """Draw a confusion matrix: a row is a true class, a column a predicted one.

    The opacity of a square is the square root of its fraction of the row, so that rare mistakes
    can be seen. Its tooltip has the classes and the number of clips.

    Args:
        classes: their names.
        confusion: [classes, classes] counts.
    """
    rows, columns = shown_classes(confusion)
    num_rows, num_columns = len(rows), len(columns)
    confusion = confusion[np.ix_(rows, columns)]
    classes = [classes[index] for index in columns]  # those of the rows come first
    has_numbers = num_columns <= MAX_NUMBERED_CLASSES
    side, font_size = (30.0, 11.0) if has_numbers else (13.0, 9.5)
    names = [shorten_name(name) for name in classes]
    margin = CHARACTER_WIDTH * font_size * max(map(len, names)) + 12
    if num_columns > MAX_NAMED_CLASSES:
        names, margin, side = [], 1, MAX_MATRIX_WIDTH / num_columns
    width, height = margin + side * num_columns, margin + side * num_rows
    root = Element(
        "svg",
        {
            "role": "img",
            "aria-label": f"confusion matrix of {num_rows} classes",
            "class": "matrix",
            "style": f"--width:{width:.0f}px",
            "viewBox": f"0 0 {width:.1f} {height:.1f}",
            "font-size": f"{font_size}",
        },
    )
    group = SubElement(root, "g", transform=f"translate({margin:.1f} {margin:.1f})")
    lines = (num_columns, num_rows) if names else (1, 1)
    _add_grid(group, lines, (side * num_columns, side * num_rows))
    for index, name in enumerate(names):
        _add_name(group, name, (index + 0.5) * side, has_row=index < num_rows)
    totals = np.maximum(confusion.sum(axis=1), 1)
    for row, column in np.argwhere(confusion).tolist():
        count, total = int(confusion[row, column]), int(totals[row])
        words = f"{classes[row]} classified as {classes[column]}"
        if row == column:
            words = f"{classes[row]} recognised"
        tooltip = f"{words}: {count} of {total} clips"
        _add_square(group, column * side, row * side, side, count / total, tooltip)
        if has_numbers:
            x, y = (column + 0.5) * side, (row + 0.5) * side
            _add_number(group, x, y, count, _number_colour(count / total))
    return _to_text(root)


def _add_grid(parent: Element, counts: tuple[int, int], extent: tuple[float, float]) -> None:
    """Draw the lines around this many columns and rows of an extent."""
    (columns, rows), (width, height) = counts, extent
    lines = [f"M{index * width / columns:g} 0V{height:g}" for index in range(columns + 1)]
    lines += [f"M0 {index * height / rows:g}H{width:g}" for index in range(rows + 1)]
    SubElement(parent, "path", d="".join(lines), stroke="var(--grid)", fill="none")


def _add_name(parent: Element, name: str, middle: float, *, has_row: bool) -> None:
    """Write the name of a class at its column, and at its row if it has one."""
    style = {"dominant-baseline": "central", "fill": "var(--ink)"}
    row = {"x": "-6", "y": f"{middle:g}", "text-anchor": "end"}
    column = {"transform": f"translate({middle:g} -6) rotate(-90)"}
    for position in (row, column) if has_row else (column,):
        SubElement(parent, "text", {**position, **style}).text = name


def _add_square(
    parent: Element, x: float, y: float, side: float, fraction: float, tooltip: str
) -> None:
    square = SubElement(
        parent,
        "rect",
        {
            "x": f"{x:g}",
            "y": f"{y:g}",
            "width": f"{side:g}",
            "height": f"{side:g}",
            "fill": "var(--deep-blue)",
            "fill-opacity": f"{opacity(fraction):.2f}",
        },
    )
    SubElement(square, "title").text = tooltip


def opacity(fraction: float) -> float:
    """Return how opaque the square of a fraction is; the root makes rare mistakes visible."""
    return math.sqrt(fraction)


def _number_colour(fraction: float) -> str:
    """Return the variable of the colour of the number in a square, see `NUMBER_COLOURS`."""
    pair = tuple(
        text_colour(blend(square, paper, round(opacity(fraction), 2)))
        for square, paper in zip(PALETTE["deep-blue"], PALETTE["paper"], strict=True)
    )
    return next(name for name, colours in NUMBER_COLOURS.items() if colours == pair)


def _add_number(parent: Element, x: float, y: float, number: int, colour: str) -> None:
    attributes = {
        "x": f"{x:g}",
        "y": f"{y:g}",
        "text-anchor": "middle",
        "dominant-baseline": "central",
        "pointer-events": "none",
        "fill": f"var(--{colour})",
    }
    SubElement(parent, "text", attributes).text = str(number)


def strip_svg(strip: Strip, description: str) -> str:
    """Draw poses side by side.

    Args:
        strip: the poses.
        description: what they show, for screen readers.
    """
    scale = POSE_HEIGHT / (strip.high - strip.low)
    width, height = strip.width * scale, POSE_HEIGHT + 18
    root = Element(
        "svg",
        {
            "role": "img",
            "aria-label": description,
            "class": "strip",
            "style": f"--width:{width:.0f}px",
            "viewBox": f"0 {-HEADROOM:g} {width:.1f} {height + HEADROOM:.1f}",
            "font-size": "10",
        },
    )
    SubElement(root, "path", d=f"M0 {POSE_HEIGHT:g}H{width:.1f}", stroke="var(--grid)")
    for column, frame in enumerate(strip.frames):
        for person in reversed(range(len(strip.points))):  # the first one in front
            x, y = strip.points[person, column].T
            joints = np.stack([x * scale, (strip.high - y) * scale], axis=1)
            _add_pose(root, joints, strip.picture, person)
        SubElement(
            root,
            "text",
            {
                "x": f"{(column + 0.5) * strip.pose_width * scale:.1f}",
                "y": f"{height - 4:g}",
                "text-anchor": "middle",
                "fill": "var(--quiet)",
            },
        ).text = str(frame + 1)
    return _to_text(root)


def _add_pose(
    parent: Element, joints: NDArray[np.float64], picture: ClipPicture, person: int
) -> None:
    """Draw one person, joints [V, 2] in pixels; a bone is drawn if both of its joints are known."""
    known = np.flatnonzero(np.isfinite(joints).all(axis=1)).tolist()
    lines: dict[str, str] = {}  # of the bones of each colour
    for a, b in picture.bones:
        if a in known and b in known:
            line = f"M{joints[a, 0]:.1f} {joints[a, 1]:.1f}L{joints[b, 0]:.1f} {joints[b, 1]:.1f}"
            colour = picture.bone_colour((a, b), person)
            lines[colour] = lines.get(colour, "") + line
    if lines:
        SubElement(parent, "path", {"class": "rim", "d": "".join(lines.values())})
    for colour, path in lines.items():
        SubElement(parent, "path", {"class": "bones", "stroke": f"var(--{colour})", "d": path})
    for joint in known:
        x, y = joints[joint]
        radius = 5 if joint == picture.head else 1.6
        colour = picture.joint_colour(joint, person)
        SubElement(
            parent,
            "circle",
            {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": f"{radius:g}", "fill": f"var(--{colour})"},
        )
