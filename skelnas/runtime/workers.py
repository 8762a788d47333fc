"""Run one function on many items in processes that can be stopped and lose nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, TypeVar

from skelnas.errors import DeviceError
from skelnas.runtime import console

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Failure:
    error: BaseException


def run_all(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    jobs: int,
    environments: Sequence[Mapping[str, str]] = (),
) -> Generator[Result, None, None]:
    """Yield the result of every item, in the order in which they are finished.

    Notes of `work` are not printed. The first exception stops all. Close the generator to stop
    earlier: every process gets a SIGTERM, which a training answers by a checkpoint, and is
    waited for. A second Ctrl-C kills them.

    Args:
        work: a function that can be pickled, like items and results.
        items: started in this order.
        jobs: items at a time. A single one, without environments, runs in this process.
        environments: variables of the processes, in turn.

    Raises:
        DeviceError: a process died.
    """
    if jobs == 1 and not environments:
        for item in items:
            with console.muted():
                result = work(item)
            yield result
        return
    queue = iter(items)
    processes: dict[Connection, SpawnProcess] = {}
    try:
        for number, item in zip(range(jobs), queue, strict=False):
            environment = environments[number % len(environments)] if environments else {}
            connection, process = _start(environment)
            processes[connection] = process
            connection.send(work)
            connection.send(item)
        busy = list(processes)
        while busy:
            connection = wait(busy)[0]  # type: ignore[assignment]
            result = _receive(connection, processes[connection])
            try:
                connection.send(next(queue))
            except StopIteration:
                busy.remove(connection)
            yield result
    finally:
        _stop(processes)


def _start(environment: Mapping[str, str]) -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")  # a fork would share CUDA and threads
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, dict(environment)))
    process.start()
    theirs.close()
    return ours, process


def _receive(connection: Connection, process: SpawnProcess) -> Any:
    """Wait for the result of a process; raises what it raised."""
    try:
        result = connection.recv()
    except (EOFError, ConnectionError):
        process.join()
        raise DeviceError(
            f"a worker process died (exit code {process.exitcode})",
            hint="memory may have run out; --resume continues, try fewer --jobs",
        ) from None
    if isinstance(result, _Failure):
        raise result.error
    return result


def _stop(processes: Mapping[Connection, SpawnProcess]) -> None:
    """Ask processes to stop, and wait for their checkpoints."""
    try:
        for connection, process in processes.items():
            process.terminate()
            connection.close()  # the end of the work, for one that survives the signal
        for process in processes.values():
            process.join()
    except BaseException:
        for process in processes.values():
            process.kill()
        raise


def _serve(connection: Connection, environment: Mapping[str, str]) -> None:
    """Work on what comes through the pipe, until it is closed."""
    os.environ.update(environment)  # before torch, which is imported with `work`, looks for GPUs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent sends SIGTERM
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        work = connection.recv()
        while True:
            connection.send(_try(work, connection.recv()))
    except (EOFError, ConnectionError):
        return


def _try(work: Callable[[Any], Any], item: Any) -> Any:
    with console.muted():
        try:
            return work(item)
        except BaseException as error:
            error.add_note(traceback.format_exc())  # pickled with the error, its traceback is not
            return _Failure(error)


def _stop_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
