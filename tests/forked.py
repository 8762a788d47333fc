"""The skelnas command without its start-up time: forks of a process with all imports done.

``python forked.py SOCKET --serve`` imports and waits; then ``python forked.py SOCKET ARGUMENT...``
acts as `skelnas ARGUMENT...`, in the same folder and with the same streams. Without it, a shell
script of fifty commands imports torch fifty times.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path


def ask(path: str, arguments: list[str]) -> int:
    """Run a command on the server; return its exit code."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        message = json.dumps([str(Path.cwd()), *arguments]).encode()
        socket.send_fds(connection, [message], [0, 1, 2])
        return connection.recv(1)[0]


def serve(path: str) -> None:
    """Run commands one at a time until killed."""
    import torch

    from skelnas import cli

    torch.set_num_threads(1)
    torch.optim.SGD([torch.zeros(1)])  # imports torch.compile, which takes longer than a command
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            message, streams, *_ = socket.recv_fds(connection, 65536, 3)
            child = os.fork()
            if child == 0:
                for number, stream in enumerate(streams):
                    os.dup2(stream, number)
                folder, *arguments = json.loads(message)
                os.chdir(folder)
                sys.argv = ["skelnas", *arguments]
                code = 1
                try:
                    cli.main()
                    code = 0
                except SystemExit as ending:
                    code = int(ending.code or 0)
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            _, status = os.waitpid(child, 0)
            connection.send(bytes([os.waitstatus_to_exitcode(status) % 256]))
            connection.close()
            for stream in streams:
                os.close(stream)


if __name__ == "__main__":
    if sys.argv[2:] == ["--serve"]:
        serve(sys.argv[1])
    sys.exit(ask(sys.argv[1], sys.argv[2:]))
