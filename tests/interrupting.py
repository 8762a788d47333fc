"""Stop a job from within a test, at an exact step."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from skelnas.runtime import signals


def stop_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Ask the next run to stop, as Ctrl-C does, when it has done `steps` steps."""

    class Countdown(signals.StopFlag):
        asked = 0

        @property
        def requested(self) -> bool:  # type: ignore[override]
            self.asked += 1
            return self.asked >= steps

    monkeypatch.setattr("skelnas.training.loop.stop_on_signal", lambda: nullcontext(Countdown()))
