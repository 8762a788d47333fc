"""Figures as SVG that stands in a page: its text is the page's, its colours follow the theme."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from skelnas.plot.style import PALETTE, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VARIABLES = {light: f"var(--{name})" for name, (light, _) in PALETTE.items()}
"""Colours of figures, and what a page calls them."""


def inline(figure: Figure, name: str, about: str) -> str:
    """Return a figure as an element of a page.

    Args:
        figure: made of the colours of `skelnas.plot.style`.
        name: of the figure, once in a page: its parts are named after it.
        about: what is seen on it, for those who hear the page.
    """
    root = ElementTree.fromstring(save(figure, "svg"))
    for parent in list(root.iter()):
        parent.tag = _local(parent.tag)
        parent.attrib = {_local(key): value for key, value in parent.attrib.items()}
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for key in ("width", "height", "version"):
        root.attrib.pop(key)
    _rename(root, name)
    root.attrib = {"role": "img", "aria-label": about, **root.attrib}
    text = ElementTree.tostring(root, encoding="unicode")
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: VARIABLES.get(found[0], found[0]), text)


def _local(name: str) -> str:
    """Drop the namespace, which an SVG in a page does not need."""
    return name.rpartition("}")[2]


def _rename(root: ElementTree.Element, name: str) -> None:
    """Name what is referred to after the figure, and nothing else."""
    used = set(re.findall(r"(?:url\(|\")#([\w-]+)", ElementTree.tostring(root, encoding="unicode")))
    names = {old: f"{name}-{number}" for number, old in enumerate(sorted(used))}
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
