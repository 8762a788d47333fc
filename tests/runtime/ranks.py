"""Start two ranks on this machine's CPU, as `torchrun` does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent


def environment(rank: int, port: int | None = None) -> dict[str, str]:
    """Return the environment in which `torchrun` starts one of two ranks."""
    names = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port or free_port())}
    return {"WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), **names}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(command: Sequence[str | Path]) -> list[subprocess.Popen[str]]:
    """Start `python COMMAND` on both ranks."""
    port = free_port()
    path = os.pathsep.join(map(str, (HERE.parents[1], HERE.parent, HERE)))
    variables = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, **variables, **environment(rank, port)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def finish(processes: Sequence[subprocess.Popen[str]]) -> tuple[list[int], list[str], list[str]]:
    """Wait for all ranks; return their exit codes, outputs and messages."""
    streams = [process.communicate(timeout=120) for process in processes]
    return (
        [p.returncode for p in processes],
        [out for out, _ in streams],
        [err for _, err in streams],
    )
