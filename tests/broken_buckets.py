"""A store of the S3 kind on this machine, and a proxy before it that breaks what passes: for tests of buckets.

The store is moto's server. A :class:`Proxy` asks its ``plan`` what becomes of each request: nothing, a ``503``, ``slow_down``, ``lost`` (it is
done, and its answer never comes), or ``cut`` (half of the body comes); ``unconditional`` takes the conditions out of it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import http.client
import logging
import random
import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

Plan = Callable[[str, str], str]
"""Method and path of a request → what becomes of it."""
FAULTS = ("503", "slow_down", "lost", "cut")
KEY, SECRET = "AKIANOBODY", "wJalrXUtnFEMI-not-to-be-printed"
_SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>'


def plain(method: str, path: str) -> str:
    return ""


def sometimes(share: float, seed: int, faults: tuple[str, ...] = FAULTS) -> Plan:
    """A plan that breaks this share of all requests, the same ones each time."""
    chance, lock = random.Random(seed), threading.Lock()

    def decide(method: str, path: str) -> str:
        with lock:
            if chance.random() >= share:
                return ""
            fault = chance.choice(faults)
        return "lost" if fault == "cut" and method != "GET" else fault

    return decide


@dataclasses.dataclass
class Proxy:
    """The proxy: its ``endpoint``, and how often it did what."""

    server: ThreadingHTTPServer
    plan: Plan = plain
    done: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    requests: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: ClassVar[Proxy]
    upstream: ClassVar[str]

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy, path = self.proxy, urllib.parse.unquote(self.path)
        fault = proxy.plan(self.command, path)
        proxy.requests.append((self.command, path))
        proxy.done[fault] += 1
        if fault == "503":
            self._answer(503, {}, b"")
        elif fault == "slow_down":
            self._answer(503, {"Content-Type": "application/xml"}, _SLOW_DOWN)
        elif fault == "denied":
            told = f"<Error><Code>AccessDenied</Code><Message>{self.headers['Authorization']} {SECRET}</Message></Error>"
            self._answer(403, {"Content-Type": "application/xml"}, told.encode())
        else:
            status, headers, answer = self._ask(body, without_conditions=fault == "unconditional")
            if fault == "lost":
                self._hang_up()
            elif fault == "cut" and len(answer) > 1:
                self._answer(status, headers, answer, cut=len(answer) // 2)
            else:
                self._answer(status, headers, answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass  # noqa: N815 - names of the library

    def _ask(self, body: bytes, *, without_conditions: bool) -> tuple[int, dict[str, str], bytes]:
        headers = dict(self.headers.items())
        if without_conditions:
            headers = {name: value for name, value in headers.items() if not name.lower().startswith("if-")}
        connection = http.client.HTTPConnection(self.upstream, timeout=30)
        try:
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            skipped = {"transfer-encoding", "connection", "content-length"}
            kept = {name: value for name, value in answer.getheaders() if name.lower() not in skipped}
            if self.command == "HEAD":
                kept["Content-Length"] = answer.headers.get("Content-Length", "0")
            return answer.status, kept, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None) -> None:
        with contextlib.suppress(ConnectionError):
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[:cut])
            if cut is not None:
                self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: Any) -> None:
        pass


@contextlib.contextmanager
def serving() -> Iterator[str]:
    """The store: the address of its server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"{host}:{port}"
    finally:
        server.stop()


@contextlib.contextmanager
def proxied(upstream: str) -> Iterator[Proxy]:
    """A proxy before the store."""
    handler = type("Handler", (_Handler,), {"upstream": upstream})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        handler.proxy = proxy = Proxy(server)  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield proxy
        finally:
            server.shutdown()


def make_bucket(upstream: str, name: str) -> None:
    connection = http.client.HTTPConnection(upstream)
    connection.request("PUT", f"/{name}")
    assert connection.getresponse().status == 200
    connection.close()


def uploads_in(upstream: str, bucket: str) -> int:
    """How many uploads were begun and not finished."""
    connection = http.client.HTTPConnection(upstream)
    connection.request("GET", f"/{bucket}?uploads")
    text = connection.getresponse().read().decode()
    connection.close()
    return text.count("<UploadId>")


def environment(endpoint: str) -> dict[str, str]:
    """The variables by which the program finds the store."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }
