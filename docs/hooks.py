"""What MkDocs is told beside mkdocs.yml: links out of docs/, and the names of headings."""

from __future__ import annotations

import re
from typing import Any

REPOSITORY = "https://github.com/skelnas/skelnas/blob/main/"


def on_config(config: Any) -> None:
    """Name headings as GitHub does, so that one link serves both."""
    config.mdx_configs["toc"]["slugify"] = slugify


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Let links to files beside docs/, and to notebooks, lead to the repository."""
    notebooks = f"{REPOSITORY}docs/notebooks/"
    return markdown.replace("](../", f"]({REPOSITORY}").replace("](notebooks/", f"]({notebooks}")


def slugify(heading: str, separator: str) -> str:
    """Return the name of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", separator)
