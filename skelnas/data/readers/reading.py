"""Read the clips of a source in several processes, and yield them in order.

Any exception while a file is read makes that file a broken one; it never stops the others.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from skelnas.data.readers.base import BrokenFile, Recording, Source, check_recording
from skelnas.errors import DeviceError, InputError, SkelnasError

CHUNK_FILES = 16
"""Files that a worker reads before it returns them together."""

CHUNKS_IN_FLIGHT = 3
"""Chunks per worker that are being read or waiting to be consumed; bounds the memory."""


def read_all(
    source: Source, items: list[Path], workers: int
) -> Generator[Recording | BrokenFile, None, None]:
    """Yield the recording of every item, or why there is none, in the order of the items.

    At most a few chunks per worker are in memory. Close the generator to stop the workers.

    Raises:
        DeviceError: a worker died.
    """
    if workers == 1:
        for item in items:
            yield _read_one(source, item)
        return
    starts = iter(range(0, len(items), CHUNK_FILES))
    chunks: deque[Future[list[Recording | BrokenFile]]] = deque()
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    pool = ProcessPoolExecutor(workers, context, _start_worker, (source,))
    try:
        num_done = 0
        while True:
            while len(chunks) < CHUNKS_IN_FLIGHT * workers:
                start = next(starts, None)
                if start is None:
                    break
                chunks.append(pool.submit(_read_chunk, items[start : start + CHUNK_FILES]))
            if not chunks:
                return
            chunk = chunks.popleft().result()
            yield from chunk
            num_done += len(chunk)
    except BrokenProcessPool as error:
        raise DeviceError(
            f"a worker died while it read files from {items[num_done]} on",
            hint="memory may have run out; try fewer --workers, or --workers 1 to see the error",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_worker_source: Source | None = None


def _start_worker(source: Source) -> None:
    """Keep the source, leave Ctrl-C to the parent process, and exit with it."""
    global _worker_source
    _worker_source = source
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _read_chunk(items: list[Path]) -> list[Recording | BrokenFile]:
    assert _worker_source is not None
    return [_read_one(_worker_source, item) for item in items]


def _read_one(source: Source, item: Path) -> Recording | BrokenFile:
    """Read and check one clip."""
    try:
        recording = source.read(item)
        check_recording(recording, source.layout, source.max_persons)
    except InputError as error:
        reason = str(error).removeprefix(f"{item}: ")
    except SkelnasError:
        raise
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    else:
        return recording
    return BrokenFile(str(item), reason)
