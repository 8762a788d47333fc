"""A stand-in for the Hugging Face Hub: as much of it as `huggingface_hub` needs for models."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Files = dict[str, bytes]


class HubServer(ThreadingHTTPServer):
    """Repositories by name, each a list of commits; the last is `main`.

    Attributes:
        repositories: user/name to its commits, (hash, files) each.
        requests: method and path of each request.
        claimed_sizes: path in a repository to the size that its headers claim.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, list[tuple[str, Files]]] = {}
        self.requests: list[str] = []
        self.claimed_sizes: dict[str, int] = {}

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, name: str, files: Files) -> str:
        """Add files to a repository; return the commit."""
        commits = self.repositories.setdefault(name, [])
        files = {**(commits[-1][1] if commits else {}), **files}
        digest = hashlib.sha1(repr((len(commits), sorted(files.items()))).encode()).hexdigest()
        commits.append((digest, files))
        return digest

    def find(self, name: str, revision: str) -> tuple[str, Files] | None:
        commits = self.repositories[name]
        if revision == "main":
            return commits[-1]
        return next((commit for commit in commits if commit[0] == revision), None)


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        owner, name, verb, revision, *path = [*self.path.strip("/").split("/"), *4 * [""]][:5]
        repository, file = f"{owner}/{name}", "/".join(path)
        if verb != "resolve" or repository not in self.server.repositories:
            return self._refuse("RepoNotFound")
        found = self.server.find(repository, revision)
        if found is None:
            return self._refuse("RevisionNotFound")
        commit, files = found
        if file not in files:
            return self._refuse("EntryNotFound")
        etag = hashlib.sha1(files[file]).hexdigest()
        size = self.server.claimed_sizes.get(file, len(files[file]))
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "X-Linked-Size": str(size)}
        return self._reply(200, files[file], headers)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        body = self._read_body()
        match self.path.strip("/").split("/"):
            case ["api", "repos", "create"]:
                request = json.loads(body)
                name = f"{request['organization']}/{request['name']}"
                self.server.repositories.setdefault(name, [])
                self._reply_json({"url": f"{self.server.address}/{name}"})
            case ["api", "validate-yaml"]:
                self._reply_json({"errors": [], "warnings": []})
            case ["api", "models", _, _, "preupload", _]:
                files = json.loads(body)["files"]
                plain = {"uploadMode": "regular", "shouldIgnore": False}
                self._reply_json({"files": [{"path": f["path"], **plain} for f in files]})
            case ["api", "models", owner, name, "commit", _]:
                items = [json.loads(line) for line in body.splitlines()]
                values = [item["value"] for item in items if item["key"] == "file"]
                files = {v["path"]: base64.b64decode(v["content"]) for v in values}
                commit = self.server.commit(f"{owner}/{name}", files)
                url = f"{self.server.address}/{owner}/{name}/commit/{commit}"
                self._reply_json({"success": True, "commitOid": commit, "commitUrl": url})
            case _:
                self._refuse("RepoNotFound")

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _refuse(self, code: str) -> None:
        self._reply(404, b"", {"X-Error-Code": code})

    def _reply_json(self, content: Any) -> None:
        self._reply(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextmanager
def serving() -> Iterator[HubServer]:
    """Serve an empty Hub in a thread, and stop it at the end."""
    with HubServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
