"""Ctrl-C and SIGTERM as a request that is honoured between two steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """Whether the user or the system has asked the run to stop. Made by `stop_on_signal`."""

    requested = False


@contextmanager
def stop_on_signal() -> Iterator[StopFlag]:
    """Turn the first Ctrl-C or SIGTERM into a request that the loop honours between steps.

    A second Ctrl-C interrupts at once.
    """
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def request(number: int, frame: FrameType | None) -> None:
        flag.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    previous = {
        number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield flag
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
