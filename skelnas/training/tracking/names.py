"""How runs are called in trackers."""

from __future__ import annotations

from pathlib import Path

from skelnas.runtime.files import real_path

PROJECT = "skelnas"


def run_name(folder: Path) -> str:
    """Return the name of a run: of its folder and the one above, such as ``models/xsub``."""
    return "/".join(real_path(folder).parts[-2:])
