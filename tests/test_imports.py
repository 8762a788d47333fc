from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "skelnas.cli",
        "skelnas.nas.derive",
        "skelnas.data.prepare",
        "skelnas.reporting.plot_cells",
        "skelnas.reporting.page",
    ],
)
def test_starts_without_slow_imports(module: str) -> None:
    script = (
        f"import sys, {module}\n"
        "print(*(name for name in ('torch', 'matplotlib') if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
