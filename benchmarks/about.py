"""Describe where, when and with what something was measured, and publish it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from batches import device_name


def about(device: str) -> dict[str, Any]:
    """Return the facts that a result must state besides its figures."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).date().isoformat(),
        "device": device_name(torch.device(device)),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": round(os.getloadavg()[0], 1),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("skelnas", "torch", "numpy")},
        },
    }


def publish(report: dict[str, Any], out: Path | None) -> None:
    """Print a report as JSON, and write it to a file if there is one."""
    text = json.dumps(report, indent=2) + "\n"
    if out:
        out.write_text(text, encoding="utf-8")
    print(text, end="")
