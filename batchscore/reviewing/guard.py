"""Who may ask the page's server, and what a browser may make of its answers.

The server listens on loopback, but any page that a browser has open can ask an address there. So each request needs the name of
this machine's loopback as its host (or another site's name could be made to lead here), the token, and, where a browser says which
page asks (``Origin``, ``Sec-Fetch-Site``), a page of this server. Nothing is answered to anybody else, and no answer is kept.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BODY = 16 * 1024
"""Bytes of a request's body: a verdict has about two hundred."""
_HOST = re.compile(rb"(?:127\.0\.0\.1|localhost)(?::[0-9]{1,5})?")
_OURS = {b"same-origin", b"none"}
_BEARER = b"Bearer "


class Guard:
    """Turns away what must not be answered, and sends each answer with the headers that bind the browser."""

    def __init__(self, app: ASGIApp, token: str, policy: str) -> None:
        """``policy``: what pages may load and run (``Content-Security-Policy``)."""
        self._app, self._token = app, token.encode()
        self._headers = [
            (name.lower().encode(), value.encode()) for name, value in answer_headers(policy).items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], *self._headers]}
            await send(message)

        if problem := self._problem(scope, headers):
            await _refuse(403, problem, sending)
        elif int(headers.get(b"content-length", b"0") or 0) > MOST_BODY or b"transfer-encoding" in headers:
            await _refuse(413, "too long", sending)
        else:
            await self._app(scope, receive, sending)

    def _problem(self, scope: Scope, headers: Mapping[bytes, bytes]) -> str:
        """Why a request is turned away; empty if it is not."""
        names = [name for name, _ in scope["headers"]]
        host = headers.get(b"host", b"")
        if names.count(b"host") != 1 or not _HOST.fullmatch(host):
            return "another host name"
        origin = headers.get(b"origin")
        if origin is None:
            if scope["method"] not in ("GET", "HEAD"):
                return "no origin"
        elif origin != b"http://" + host:
            return "another origin"
        if headers.get(b"sec-fetch-site", b"none") not in _OURS:
            return "another site"
        return "" if hmac.compare_digest(self._token, _token_in(scope, headers)) else "no token"


def _token_in(scope: Scope, headers: Mapping[bytes, bytes]) -> bytes:
    """The token of a request: in its address for the page itself, else in a header."""
    if scope["path"] == "/":
        query: bytes = scope["query_string"]
        return parse_qs(query.decode("latin-1")).get("token", [""])[0].encode()
    given = headers.get(b"authorization", b"")
    return given.removeprefix(_BEARER) if given.startswith(_BEARER) else b""


async def _refuse(status: int, problem: str, send: Send) -> None:
    headers: list[Any] = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": f"turned away: {problem}\n".encode()})


def answer_headers(policy: str) -> Mapping[str, str]:
    """The headers of every answer."""
    return {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    }
