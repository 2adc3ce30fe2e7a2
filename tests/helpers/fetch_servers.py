"""Servers on loopback that behave, and misbehave, as those that predictors come from: a plain one, and as much of a hub
as a file needs."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(ThreadingHTTPServer):
    """Serves ``files`` (path -> bytes), after the ``faults`` of a path, one a request.

    A fault is a status, ``("cut", n)``: only n bytes of the body, ``("stall", n)``: the same, and then nothing,
    ``("redirect", url)``, ``("silent", s)``: no answer for s seconds, ``("slow head", s)`` and ``("trickle", s)``: a
    byte of the head, or of the body, each s seconds, ``("range", text)``: a 206 with this Content-Range, whatever was
    asked for, and the first half of the body, or None for an answer without fault. ``requests``: method, path and
    headers of each.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list] = {}
        self.versioned = self.ranges = self.knows_if_range = True
        self.pause_s = 0.0
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def get_request(self):
        self.connections += 1
        return super().get_request()

    def handle_error(self, request, client_address):
        pass  # a client that was killed

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of a file."""
        if path not in self.files:
            return 404, {}, b"no such file"
        body = self.files[path]
        return 200, {"ETag": f'"{hashlib.sha256(body).hexdigest()}"'} if self.versioned else {}, body

    def gets(self) -> list[dict[str, str]]:
        return [headers for method, _, headers in self.requests if method == "GET"]


class Hub(Server):
    """One repository, ``repo``, at one commit; ``files`` are its files. ``private``: for this token alone;
    ``headers``: more of the weights'."""

    repo = ("someone", "a2v")
    private = ""
    gated = False
    headers: ClassVar[dict[str, str]] = {}

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        owner, name, resolve, revision, file = path.strip("/").split("/", 4)
        token = self.requests[-1][2].get("authorization", "").removeprefix("Bearer ")
        if (owner, name, resolve) != (*self.repo, "resolve") or (self.private and token != self.private):
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        if self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b""
        if revision not in ("main", "v1", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if file not in self.files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        body = self.files[file]
        return (
            200,
            {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
            | (self.headers if file.endswith(".safetensors") else {}),
            body,
        )


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self):
        self._answer(whole=True)

    def do_HEAD(self):
        self._answer(whole=False)

    def log_message(self, *arguments):
        pass

    def _answer(self, whole: bool) -> None:
        server, path = self.server, unquote(urlsplit(self.path).path)
        request_headers = {key.lower(): value for key, value in self.headers.items()}
        server.requests.append((self.command, self.path, request_headers))
        faults = server.faults.get(path) or [None]
        fault = faults.pop(0)
        status, headers, body = server.answer(path)
        kind, value = fault if isinstance(fault, tuple) else (None, None)
        if isinstance(fault, int):
            status, headers, body = fault, {}, b""
        elif kind == "redirect":
            status, headers, body = 302, headers | {"Location": value}, b""
        if kind == "silent":
            time.sleep(value)
        if kind == "slow head":
            for letter in b"HTTP/1.1 200 OK\r\nX-More: " + b"x" * 1000:
                self.wfile.write(bytes([letter]))
                time.sleep(value)
        begin = (
            int(request_headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
            if server.ranges and status == 200
            else 0
        )
        if server.knows_if_range and request_headers.get("if-range", headers.get("ETag")) != headers.get("ETag"):
            begin = 0
        if begin >= len(body) > 0:
            status, body = 416, b""
        elif begin:
            status, headers = 206, headers | {"Content-Range": f"bytes {begin}-{len(body) - 1}/{len(body)}"}
        if kind == "range":
            status, headers, body = 206, headers | {"Content-Range": value}, body[: len(body) // 2]
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        body = body[begin:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not whole:
            return
        for letter in body if kind == "trickle" else b"":
            self.wfile.write(bytes([letter]))
            time.sleep(value)
        sent = body[:value] if kind in ("cut", "stall") else body
        self.wfile.write(sent[: len(sent) // 2])
        time.sleep(server.pause_s)
        self.wfile.write(sent[len(sent) // 2 :])
        self.wfile.flush()
        if kind == "stall":
            time.sleep(60)
        if kind == "cut":
            self.close_connection = True


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
