"""A bucket as a store, by ``obstore``: conditional writes, tries again for a minute, and words for what went wrong.

Files are sent in one request, mapped into memory instead of read into it. So no unfinished upload is ever left in the bucket, and each
write has its condition; only what is larger than one request may be goes in several.

Credentials, regions and endpoints come from the environment that the store's own tools read (``AWS_...``, ``GOOGLE_...``, ``AZURE_...``).
What the library says of an error may hold an address with a signature or a header, and is never shown: only what kind of error it
is, and the store's own code for it.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import io
import mmap
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Any, TypeVar, cast

from batchscore.addresses import Address
from batchscore.errors import ModelError, StorageError, missing_extra, printable
from batchscore.system.own_paths import OwnPath
from batchscore.system.stores import ChangedError, Content, Stored, Version, opened, same_bytes, size_of

if TYPE_CHECKING:
    from obstore.store import ObjectStore

Result = TypeVar("Result")
_LARGEST_REQUEST = 4 * 2**30
"""Bytes that are sent in one request; S3 takes up to 5 GiB."""
_SLOWEST = 2**20
"""Bytes in a second that a connection carries at least; a request that takes longer is given up."""
_SHORTEST_SECONDS = 30
_CHUNK = 2**20
_PATIENCE = 60.0
"""Seconds for which a request is made again."""
_LASTING = ("no credentials were found", "the region is not known", "the account is not known")
"""Reasons that do not pass."""
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_REASONS = (
    ("refused", "the connection was refused"),
    ("dns", "its name is not known"),
    ("timed out", "it took too long"),
    ("timeout", "it took too long"),
    ("credential", "no credentials were found"),
    ("169.254.169.254", "no credentials were found"),
    ("region", "the region is not known"),
    ("account", "the account is not known"),
    ("connect", "there was no connection"),
    ("body", "the connection broke"),
)
"""A word in what the library says, and what we say then."""


class BucketStore:
    """Objects below an address; see :class:`~batchscore.system.stores.Store`."""

    def __init__(self, place: Address) -> None:
        """Open it, without a request.

        Raises:
            UsageError: the extra ``cloud`` is not installed.
            ModelError: the environment does not tell what the store needs.
        """
        self.place = place
        self._client(0)

    def __str__(self) -> str:
        return str(self.place)

    def list(self, below: str = "") -> Iterator[Stored]:
        """As the protocol says."""
        place = self._key(below)
        start = f"{self.place.key}/" if self.place.key else ""

        def found() -> list[Stored]:
            import obstore

            batches = obstore.list(self._client(0), place or None)
            return [_stored(meta, start) for batch in batches for meta in batch]

        yield from sorted(_done(self._about("Listing", below), found))

    @contextlib.contextmanager
    def open(self, name: str, version: Version | None = None) -> Iterator[IO[bytes]]:
        """As the protocol says; what is read is counted against the size that the store told."""
        what = self._about("Reading", name)
        with io.BufferedReader(_Body(self, what, self._key(name), version), _CHUNK) as file:
            yield file

    def put(self, name: str, content: Content) -> Version:
        """As the protocol says."""
        return self._write(name, content, "overwrite")

    def create(self, name: str, content: Content) -> Version:
        """As the protocol says."""
        return self._write(name, content, "create")

    def replace(self, name: str, content: Content, version: Version) -> Version:
        """As the protocol says."""
        seen = {"e_tag": version.e_tag, "version": version.number}
        return self._write(name, content, {key: value for key, value in seen.items() if value is not None})

    def delete(self, name: str) -> None:
        """As the protocol says."""

        def remove() -> None:
            import obstore

            with contextlib.suppress(FileNotFoundError):
                obstore.delete(self._client(0), self._key(name))

        _done(self._about("Removing", name), remove)

    def find(self, name: str) -> Stored | None:
        """What a name holds, by its head alone; None if there is nothing."""

        def head() -> Any:
            import obstore

            return obstore.head(self._client(0), self._key(name))

        start = f"{self.place.key}/" if self.place.key else ""
        try:
            return _stored(_done(self._about("Reading", name), head), start)
        except FileNotFoundError:
            return None

    def _write(self, name: str, content: Content, mode: Any) -> Version:
        what, key, size = self._about("Writing", name), self._key(name), size_of(content)

        def send() -> Version:
            import obstore

            with _mapped(content) as data:
                client = self._client(size)
                if size > _LARGEST_REQUEST:  # in several requests, for which there are no conditions
                    done = obstore.put(client, key, data, use_multipart=True, chunk_size=64 * 2**20)
                else:
                    done = obstore.put(client, key, data, mode=mode, use_multipart=False)
            return Version(done["e_tag"], done["version"])

        if size > _LARGEST_REQUEST:
            self._assert_may_write(name, mode)
        try:
            return _done(what, send)
        except (FileExistsError, ChangedError):
            if (found := self._holding(name, content)) is None:
                raise
            return found  # by an earlier try, whose answer was lost

    def _assert_may_write(self, name: str, mode: Any) -> None:
        """Hold a condition against what is there now, where the store cannot."""
        found = self.find(name)
        if mode == "create" and found is not None:
            raise FileExistsError(f"{self._key(name)} is there")
        if isinstance(mode, dict) and (found is None or found.version.e_tag != mode["e_tag"]):
            raise ChangedError(f"{self._key(name)} was written since")

    def _holding(self, name: str, content: Content) -> Version | None:
        """The version of a name if it holds these bytes."""
        found = self.find(name)
        if found is None or found.size != size_of(content):
            return None
        try:
            with self.open(name, found.version) as there, opened(content) as ours:
                return found.version if same_bytes(there, ours) else None
        except (FileNotFoundError, ChangedError):
            return None

    def _key(self, name: str) -> str:
        return "/".join(filter(None, (self.place.key, name)))

    def _about(self, action: str, name: str) -> str:
        return f"{action} {printable(self.place / name if name else self.place)}"

    def _client(self, size: int) -> ObjectStore:
        seconds = _SHORTEST_SECONDS
        while seconds * _SLOWEST < size:
            seconds *= 2
        return client_of(self.place.scheme, self.place.bucket, seconds)


@functools.cache
def client_of(scheme: str, bucket: str, seconds: int) -> ObjectStore:
    """The library's client of a bucket, whose requests take at most ``seconds``, and are tried again a few times.

    Raises:
        UsageError, ModelError: as :class:`BucketStore`.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise missing_extra(f"{scheme}://", "cloud") from error
    tries: Any = {
        "max_retries": 4,
        "retry_timeout": datetime.timedelta(seconds=20),
        "backoff": {
            "init_backoff": datetime.timedelta(milliseconds=100),
            "max_backoff": datetime.timedelta(seconds=5),
            "base": 2,
        },
    }
    options: Any = {"timeout": f"{seconds}s", "connect_timeout": "10s"}
    if os.environ.get("AWS_ENDPOINT_URL", "").startswith("http://"):  # then that is what is wanted
        options["allow_http"] = True
    try:
        return from_url(f"{scheme}://{bucket}", client_options=options, retry_config=tries)
    except (BaseError, ValueError) as error:
        raise ModelError(
            f"{scheme}://{bucket} cannot be opened: {_reason(error)}. Credentials, region and endpoint come from the environment "
            f"({_VARIABLES.get(scheme, '')})."
        ) from None


_VARIABLES = {
    "s3": "AWS_ACCESS_KEY_ID, AWS_REGION, AWS_ENDPOINT_URL and so on",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS and so on",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and so on",
}


class _Body(io.RawIOBase):
    """The bytes of one version of an object, as they come; where the connection breaks, it is read on from there."""

    def __init__(self, store: BucketStore, what: str, key: str, version: Version | None) -> None:
        self._store, self._what, self._key = store, what, key
        pinned = {"if_match": version.e_tag, "version": version.number} if version is not None else {}
        self._options: dict[str, Any] = {name: value for name, value in pinned.items() if value is not None}
        self._at, self._block = 0, memoryview(b"")
        self._blocks: Iterator[Any] | None = None
        meta = _done(what, self._ask)
        self._size, self._options["if_match"] = int(meta["size"]), meta["e_tag"]
        if self._size > _SHORTEST_SECONDS * _SLOWEST:  # it takes a client with more time
            self._blocks = None

    def _ask(self) -> Any:
        import obstore

        client = self._store._client(getattr(self, "_size", 0))
        options = {**self._options, "range": {"offset": self._at}} if self._at else self._options
        found = obstore.get(client, self._key, options=cast("Any", options))
        self._blocks = iter(found.stream(min_chunk_size=_CHUNK))
        return found.meta

    def _next(self) -> bytes:
        try:
            if self._blocks is None:
                self._ask()
            block = next(cast("Iterator[Any]", self._blocks), b"")
        except BaseException:
            self._blocks = None
            raise
        return bytes(block)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._block and self._at < self._size:
            block = _done(self._what, self._next)
            if not block:
                raise StorageError(
                    f"{self._what} failed: {self._size - self._at} bytes at its end are missing. Try it again."
                )
            self._block, self._at = memoryview(block), self._at + len(block)
        count = min(len(buffer), len(self._block))
        buffer[:count] = self._block[:count]
        self._block = self._block[count:]
        return count


@contextlib.contextmanager
def _mapped(content: Content) -> Iterator[Any]:
    """Content as a buffer: a file's bytes are mapped, so that no memory is filled with them."""
    if isinstance(content, OwnPath) and size_of(content):
        with content.open_read() as file:
            yield mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # closed with its last user
    else:
        yield content if isinstance(content, bytes) else b""


def _stored(meta: Any, start: str) -> Stored:
    version = Version(meta["e_tag"], meta["version"])
    return Stored(str(meta["path"]).removeprefix(start), int(meta["size"]), version, meta["last_modified"])


def _done(what: str, call: Callable[[], Result]) -> Result:
    """The result of a request that may be made several times; it is, for a minute, while the store or the network fails.

    Raises:
        FileNotFoundError, FileExistsError, ChangedError: as the store says.
        StorageError: anything else.
    """
    until, pause = time.monotonic() + _PATIENCE, 0.1
    while True:
        try:
            return _awaited(call)
        except Exception as error:  # noqa: BLE001 - raised again, as one of ours
            if not _may_pass(error) or time.monotonic() > until:
                raise _error_of(what, error) from None
        time.sleep(pause)
        pause = min(2 * pause, 5.0)


def _awaited(call: Callable[[], Result]) -> Result:
    """The result of a call that is made by a thread of its own, so that a signal ends the wait for it."""
    found: list[Result] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]


def _may_pass(error: BaseException) -> bool:
    """Whether the same request may do better later."""
    from obstore import exceptions

    if not isinstance(error, exceptions.GenericError):
        return False
    status = _STATUS.search(str(error))
    if status is None:
        return _reason(error) not in _LASTING
    return int(status[1]) >= 500 or int(status[1]) in {408, 429}


def _error_of(what: str, error: BaseException) -> BaseException:
    from obstore import exceptions

    status = _STATUS.search(str(error))
    if isinstance(error, FileNotFoundError) and "NoSuchBucket" not in str(error):
        return FileNotFoundError(what)
    if isinstance(error, exceptions.AlreadyExistsError):
        return FileExistsError(what)
    if isinstance(error, exceptions.PreconditionError):
        return ChangedError(what)
    if not isinstance(error, exceptions.BaseError | ValueError | FileNotFoundError):
        return error
    if status is not None and status[1] in {"401", "403"}:
        return StorageError(
            f"{what} failed: permission denied ({_reason(error)}). Give the job's credentials the right to do it."
        )
    return StorageError(
        f"{what} failed: {_reason(error)}. Look after the cause and run the same command again: what was finished is kept."
    )


def _reason(error: BaseException) -> str:
    """What an error is about, in our words and the store's own code: what the library says may hold a signature."""
    said = str(error)
    status, code = _STATUS.search(said), _CODE.search(said)
    told = [f"status {status[1]}" if status else "", code[1] if code else ""]
    if any(told):
        return " ".join(filter(None, told))
    low = said.lower()
    return next((words for sign, words in _REASONS if sign in low), "the store did not answer as it should")
