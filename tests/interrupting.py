"""Stop a run at an exact step."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from skelnas.runtime import signals


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Make the next run stop after `steps` steps, as Ctrl-C would."""

    class Countdown(signals.StopFlag):
        reads = 0

        @property
        def requested(self) -> bool:  # type: ignore[override]
            self.reads += 1
            return self.reads >= steps

    monkeypatch.setattr("skelnas.training.loop.stop_on_signal", lambda: nullcontext(Countdown()))
