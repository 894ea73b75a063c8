"""A proxy in front of an S3 server that misbehaves on purpose, by a seeded plan.

| fault | what the client sees |
|---|---|
| 503 | SlowDown; the server saw nothing |
| reset | a connection reset; the server saw nothing |
| delay | no answer for `delay_s`, then a reset; the server saw nothing |
| drop | a connection reset after the server did what was asked |
| truncate | half the body of an object, then the end of the connection |
| flip | an object with one bit changed, status 200 |
| stale | what the object held before its last overwrite |

`truncate`, `flip` and `stale` strike reads of objects only, `drop` any request.
"""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>slow</Message></Error>"
_DENIED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>no</Message></Error>"
_ON_READS = {"truncate", "flip", "stale"}
_HOP = {"connection", "expect", "transfer-encoding", "keep-alive"}


class FaultProxy:
    """The proxy and its plan. `faults` and `rate` may be changed at any time."""

    def __init__(self, upstream_port: int, *, seed: int = 0, delay_s: float = 1.0) -> None:
        self.faults: Sequence[str] = ()
        self.rate = 0.0
        self.only: Callable[[str, str], bool] = lambda method, path: True
        self.answer_headers: dict[str, str] = {}  # added
        self.replaced_headers: dict[str, str] = {}
        self.denied_methods: set[str] = set()  # as by read-only credentials
        self.ignores_ranges = False
        self.delay_s = delay_s
        self.requests: Counter[str] = Counter()
        self.injected: Counter[str] = Counter()
        self.upstream_port = upstream_port
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._versions: dict[str, list[bytes]] = {}
        proxy = self

        class Handler(_Handler):
            plan = proxy

        self._server = _Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def inject(self, faults: Sequence[str], rate: float) -> None:
        self.faults, self.rate = faults, rate

    @contextmanager
    def running(self) -> Iterator[FaultProxy]:
        self._thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def choose(self, method: str, path: str) -> str | None:
        """The fault of the next request."""
        with self._lock:
            self.requests[method] += 1
            is_read = method == "GET" and "?" not in path
            possible = [f for f in self.faults if is_read or f not in _ON_READS]
            if not possible or not self.only(method, path) or self._random.random() >= self.rate:
                return None
            fault = self._random.choice(possible)
            self.injected[fault] += 1
            return fault

    def flip(self, body: bytes) -> bytes:
        if not body:
            return body
        at = self._random.randrange(len(body))
        return body[:at] + bytes([body[at] ^ 1 << self._random.randrange(8)]) + body[at + 1 :]

    def written(self, path: str, body: bytes) -> None:
        with self._lock:
            self._versions.setdefault(path, []).append(body)

    def stale(self, path: str, body: bytes) -> bytes:
        older = [version for version in self._versions.get(path, []) if version != body]
        return older[-1] if older else body


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what is tested."""


class _Handler(BaseHTTPRequestHandler):
    plan: FaultProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.command in self.plan.denied_methods:
            return self._answer(403, [("Content-Type", "application/xml")], _DENIED)
        fault = self.plan.choose(self.command, self.path)
        if fault == "503":
            return self._answer(503, [("Content-Type", "application/xml")], _SLOW_DOWN)
        if fault == "delay":
            time.sleep(self.plan.delay_s)
        if fault in {"delay", "reset"}:
            return self._reset()
        try:
            status, headers, answer = self._forward(body)
        except OSError:
            return self._reset()
        if self.command == "PUT" and "?" not in self.path and status == 200:
            self.plan.written(self.path, body)
        if fault == "drop":
            return self._reset()
        if status == 206 and self.plan.ignores_ranges:
            return self._answer(200, [], answer)
        if status in {200, 206}:
            if fault == "flip":
                answer = self.plan.flip(answer)
            if fault == "stale" and status == 200:
                answer = self.plan.stale(self.path, answer)
            if fault == "truncate":
                return self._answer(status, headers, answer, sent=len(answer) // 2)
        return self._answer(status, headers, answer)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection("127.0.0.1", self.plan.upstream_port, timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            headers = [(n, v) for n, v in answer.getheaders() if n.lower() not in _HOP]
            return answer.status, headers, answer.read()
        except http.client.HTTPException as error:
            raise ConnectionError from error
        finally:
            upstream.close()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, sent: int | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in [*headers, *self.plan.answer_headers.items()]:
            if name.lower() != "content-length" or self.command == "HEAD":
                self.send_header(name, self.plan.replaced_headers.get(name.lower(), value))
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:sent])
        if sent is not None:
            self.close_connection = True

    def _reset(self) -> None:
        linger = struct.pack("ii", 1, 0)  # close with RST
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True
        self.rfile.close()
        self.wfile.close()
        self.connection.close()
