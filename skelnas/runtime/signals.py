"""Ctrl-C and SIGTERM as requests to stop, honoured between steps."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """Whether a signal has requested a stop. Made by `stop_on_signal`."""

    requested = False


@contextmanager
def stop_on_signal() -> Iterator[StopFlag]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop.

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
