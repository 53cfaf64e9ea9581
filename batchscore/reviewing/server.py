"""Serve the page of a review on loopback until somebody ends it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from batchscore.errors import StorageError, missing_extra
from batchscore.reviewing.app import EXTRA, app_of
from batchscore.reviewing.session import Review

if TYPE_CHECKING:
    import uvicorn

LOOPBACK = "127.0.0.1"
_STOP_SECONDS = 1.0
_MOST_HEADERS = 16 * 1024
"""Bytes of a request before its body."""


def refuse_missing_extra() -> None:
    """Refuse to serve without the libraries for it, before anything is read.

    Raises:
        UsageError: the extra is not installed.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise missing_extra("The page of batchscore review", EXTRA) from error


def serve(review: Review, port: int, tell: Callable[[str], None]) -> None:
    """Serve until a signal comes, which the caller hears; ``tell`` gets the address. ``port`` 0: a free one.

    Raises:
        StorageError: the port is taken, or may not be used.
    """
    with serving(review, port) as (address, thread):
        tell(address)
        thread.join()


@contextlib.contextmanager
def serving(review: Review, port: int = 0) -> Iterator[tuple[str, threading.Thread]]:
    """Serve in a thread during the block: its address, and the thread."""
    import uvicorn

    token = secrets.token_urlsafe(32)
    listening = _listen(port)
    config = uvicorn.Config(
        app_of(review, token),
        lifespan="off",
        loop="asyncio",
        http="h11",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_MOST_HEADERS,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    # not the main thread, so that the library leaves signals alone
    thread = threading.Thread(target=_run, args=(server, listening), name="review", daemon=True)
    thread.start()
    try:
        yield f"http://{LOOPBACK}:{listening.getsockname()[1]}/?token={token}", thread
    finally:
        server.should_exit = True
        thread.join(_STOP_SECONDS)
        listening.close()


def _run(server: uvicorn.Server, listening: socket.socket) -> None:
    asyncio.run(server.serve(sockets=[listening]))


def _listen(port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
        listening.listen(64)
    except OSError as error:
        listening.close()
        reasons = {errno.EADDRINUSE: "it is taken", errno.EACCES: "it is for root alone"}
        reason = reasons.get(error.errno or 0, error.strerror)
        raise StorageError(
            f"Port {port} of {LOOPBACK} cannot be used: {reason}. Leave --port out for a free one."
        ) from error
    return listening
