"""Paths below a folder that the user named, opened without following a link that somebody put there.

The folder itself may be a link, or lie below one: the user named it. What is below it is ours, and whoever can write there must
not make us write, remove or read anything elsewhere. So each step from the folder on is opened below the handle of the one
before (``openat`` with ``O_NOFOLLOW``), and a file is opened, renamed or removed by its name below such a handle: there is no
moment between a check and a use. What is there must be a regular file; a pipe or a device is never waited for.

An :class:`OwnPath` is no ``os.PathLike``, so that nothing can open it by its name by mistake.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import io
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Set
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from batchscore.errors import NotOursError, shown_as

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DESCRIPTORS = Path("/proc/self/fd")
_PLAIN_NAME = re.compile(r"[^/.\0][^/\0]*(?:/[^/.\0][^/\0]*)*")
"""Names without a step that means something else, which many begin with a dot."""
_EXCHANGE = 2
"""``RENAME_EXCHANGE`` of Linux."""
_NO_SUCH_KIND = {errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EMLINK}
"""Errors of opening a link, a pipe or a socket in the place of a folder or a file."""
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class Entry(NamedTuple):
    """A file, folder or anything else below a folder: its POSIX path from there, and its own facts, links not followed."""

    name: str
    facts: os.stat_result

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder itself, and no link to one."""
        return stat.S_ISDIR(self.facts.st_mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file itself, and no link to one."""
        return stat.S_ISREG(self.facts.st_mode)


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class OwnPath:
    """``root``, the folder that the user named, and the names from there; without any it is the folder itself.

    Whatever touches the disk raises :class:`~batchscore.errors.NotOursError`, an ``OSError``, where a link or the like lies in the
    place of a folder or a file of ours, and any other ``OSError`` as usual, with the whole path in it.
    """

    root: Path
    parts: tuple[str, ...] = ()

    def __truediv__(self, name: str) -> OwnPath:
        """The path of a name, or of several with ``/`` between them, below this one."""
        if _PLAIN_NAME.fullmatch(name):
            return OwnPath(self.root, (*self.parts, *name.split("/")))
        more = PurePosixPath(name)
        if more.is_absolute() or ".." in more.parts:
            raise ValueError(f"{name!r} leads out of the folder")
        return OwnPath(self.root, (*self.parts, *more.parts))

    def __str__(self) -> str:
        """The whole path, for messages."""
        return str(self.path)

    @property
    def path(self) -> Path:
        """The whole path as a name, for messages and comparisons; to open it would follow links."""
        return self.root.joinpath(*self.parts)

    @property
    def name(self) -> str:
        """The last name."""
        return self.parts[-1] if self.parts else self.root.name

    @property
    def parent(self) -> OwnPath:
        """The folder it lies in; there is none above ``root``."""
        if not self.parts:
            raise ValueError(f"{self.root} is where our paths begin")
        return OwnPath(self.root, self.parts[:-1])

    def with_name(self, name: str) -> OwnPath:
        """Another name in the same folder."""
        return self.parent / name

    # ------------------------------------------------------------------------------------------------- folders

    @contextlib.contextmanager
    def handle(self) -> Iterator[int]:
        """A descriptor of this folder, step by step from ``root``."""
        descriptor, held = self._nearest_held()
        try:
            for depth, name in enumerate(self.parts[held:], start=held + 1):
                with _naming(OwnPath(self.root, self.parts[:depth]), descriptor):
                    below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within the block the way to what is below this folder begins at one handle of it, as many files are below it."""
        with self.handle() as descriptor:
            before = _HELD.get(self)
            _HELD[self] = descriptor
            try:
                yield
            finally:
                del _HELD[self]
                if before is not None:
                    _HELD[self] = before

    def _nearest_held(self) -> tuple[int, int]:
        """A descriptor of the nearest folder on the way that is held, or of ``root``, and how many names lead there."""
        for depth in range(len(self.parts), 0, -1) if _HELD else ():
            if (held := _HELD.get(OwnPath(self.root, self.parts[:depth]))) is not None:
                return os.dup(held), depth
        return os.open(self.root, _FOLDER), 0

    @contextlib.contextmanager
    def _named(self) -> Iterator[int]:
        """A descriptor of the folder that this name is in; errors in the block are about this path."""
        with self.parent.handle() as folder, _naming(self, folder):
            yield folder

    def names(self) -> list[str]:
        """The names in this folder, sorted."""
        with self.handle() as folder:
            return sorted(os.listdir(folder))  # noqa: PTH208 - a descriptor

    def mkdir(self, mode: int = 0o777) -> bool:
        """Make this folder; returns whether it was missing."""
        with self._named() as folder:
            try:
                os.mkdir(self.name, mode, dir_fd=folder)
            except FileExistsError:
                os.close(os.open(self.name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder))
                return False
            return True

    def keep_to_ourselves(self) -> None:
        """Let nobody else put anything into this folder, for libraries that write by names and follow links.

        Raises:
            NotOursError: it is another user's, who could let others in again.
        """
        probe = self / f".{secrets.token_hex(8)}"
        probe.mkdir(0o700)
        try:
            owner = probe.stat().st_uid  # as this file system has it, whoever we are
        finally:
            probe.rmdir()
        with self.handle() as folder:
            if os.fstat(folder).st_uid != owner:
                raise NotOursError(str(self), "another user's folder")
            with contextlib.suppress(PermissionError):  # a file system without modes
                os.fchmod(folder, 0o700)

    def rmdir(self) -> None:
        """Remove this folder, which must be empty."""
        if not self.parts:
            self.root.rmdir()
            return
        with self._named() as folder:
            os.rmdir(self.name, dir_fd=folder)

    def remove_tree(self) -> None:
        """Remove this folder and all that is in it, or the link or file that lies there; it may be missing."""
        with contextlib.suppress(FileNotFoundError), self._named() as folder:
            if stat.S_ISDIR(os.stat(self.name, dir_fd=folder, follow_symlinks=False).st_mode):
                shutil.rmtree(self.name, dir_fd=folder)
            else:
                os.unlink(self.name, dir_fd=folder)

    def entries(self) -> list[Entry]:
        """What is in this folder, by name."""
        with self.handle() as folder:
            return _entries(folder)

    def walk(self, without: Set[str] = frozenset()) -> Iterator[Entry]:
        """All that is below this folder, each folder before what is in it; links are told and not followed.

        Names of this folder that are in ``without`` are left out, and all that is below them.
        """
        with self.handle() as folder:
            for entry in _entries(folder):
                if entry.name not in without:
                    yield entry
                    if entry.is_folder:
                        yield from _walk(folder, entry.name)

    # --------------------------------------------------------------------------------------------------- files

    def stat(self) -> os.stat_result:
        """Its own facts, links not followed."""
        if not self.parts:
            return self.root.stat()
        with self._named() as folder:
            return os.stat(self.name, dir_fd=folder, follow_symlinks=False)

    def exists(self) -> bool:
        """Whether anything has this name, a link that leads nowhere included; False below a link."""
        return self._kind() != 0

    def is_folder(self) -> bool:
        """Whether it is a folder, and no link to one."""
        return stat.S_ISDIR(self._kind())

    def is_file(self) -> bool:
        """Whether it is a regular file, and no link to one."""
        return stat.S_ISREG(self._kind())

    def _kind(self) -> int:
        try:
            return stat.S_IFMT(self.stat().st_mode)
        except OSError as error:
            if isinstance(error, NotOursError) or error.errno in {errno.ENOENT, errno.ENOTDIR}:
                return 0
            raise

    def open_read(self) -> io.BufferedReader:
        """Open the file for reading."""
        return os.fdopen(self._open(os.O_RDONLY), "rb")

    def read_bytes(self) -> bytes:
        """All bytes of the file."""
        with self.open_read() as file:
            return file.read()

    def open_new(self, mode: int = 0o666) -> IO[bytes]:
        """Make the file, which must not exist, and open it for writing and reading."""
        return os.fdopen(self._open(os.O_RDWR | os.O_CREAT | os.O_EXCL, mode), "w+b")

    def open_fresh(self) -> IO[bytes]:
        """The same in the place of a file that may exist, which is removed first: another name of it keeps its bytes."""
        self.unlink(missing_ok=True)
        return self.open_new()

    def open_append(self) -> IO[bytes]:
        """Open the file for appending; it may be missing. A file of two names is refused, as the other may be anybody's."""
        descriptor = self._open(os.O_RDWR | os.O_CREAT | os.O_APPEND)
        if os.fstat(descriptor).st_nlink > 1:
            os.close(descriptor)
            raise NotOursError(str(self), "a hard link to a file with another name")
        return os.fdopen(descriptor, "ab")

    @contextlib.contextmanager
    def readable(self) -> Iterator[Path]:
        """A path by which others read the file that is open here, whatever is put in its place; messages call it by its name."""
        with self.open_read() as file:
            has_descriptors = _DESCRIPTORS.is_dir()  # not in a chroot without /proc, where its name must do
            path = _DESCRIPTORS / str(file.fileno()) if has_descriptors else self.path
            with shown_as(path, str(self)):
                yield path

    def sync(self) -> None:
        """Make the names in this folder, or the bytes of this file, durable."""
        if not self.parts or self.is_folder():
            with self.handle() as descriptor:
                os.fsync(descriptor)
            return
        self.sync_file()

    def sync_file(self) -> None:
        """Make the bytes of this file durable."""
        with self.open_read() as file:
            os.fsync(file.fileno())

    def read_link(self) -> str:
        """What this link leads to, as it is written in it; an ``OSError`` if it is none."""
        with self._named() as folder:
            return os.readlink(self.name, dir_fd=folder)

    def make_link(self, target: str) -> None:
        """Make a symbolic link of this name, which must not exist."""
        with self._named() as folder:
            os.symlink(target, self.name, dir_fd=folder)

    def unlink(self, *, missing_ok: bool = False) -> None:
        """Remove the file, or the link that lies there; its folder may be missing too if it may."""
        try:
            with self._named() as folder:
                os.unlink(self.name, dir_fd=folder)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def replace(self, target: OwnPath) -> None:
        """Rename to ``target``, in the place of what has that name: a link there is replaced itself."""
        with self._named() as folder, target._named() as other:
            os.replace(self.name, target.name, src_dir_fd=folder, dst_dir_fd=other)

    def link_to(self, target: OwnPath) -> None:
        """Give the file another name, which must be free: of several who try at once, one succeeds."""
        with self._named() as folder, target._named() as other:
            os.link(self.name, target.name, src_dir_fd=folder, dst_dir_fd=other, follow_symlinks=False)

    def exchange(self, other: OwnPath) -> bool:
        """Let two files or folders change their names, both at once; False where the system cannot."""
        with self._named() as folder, other._named() as there:
            call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
            names = (os.fsencode(self.name), os.fsencode(other.name))
            if call is None or call(folder, names[0], there, names[1], _EXCHANGE) != 0:
                code = ctypes.get_errno() if call is not None else errno.ENOSYS
                if code in {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}:
                    return False
                raise OSError(code, os.strerror(code), str(self))
        return True

    def _open(self, flags: int, mode: int = 0o666) -> int:
        with self._named() as folder:
            descriptor = os.open(self.name, flags | _FILE, mode, dir_fd=folder)
        found = os.fstat(descriptor).st_mode
        if stat.S_ISREG(found):
            return descriptor
        os.close(descriptor)
        if stat.S_ISDIR(found):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(self))
        raise NotOursError(str(self), _KINDS.get(stat.S_IFMT(found), "no file"))


_HELD: dict[OwnPath, int] = {}
"""Folders that are held open, and their descriptors."""

AnyPath = Path | OwnPath
"""A path of our own, or one whose folder the user named."""


def own(path: AnyPath) -> OwnPath:
    """A file or folder in a folder that the user named."""
    if isinstance(path, OwnPath):
        return path
    return OwnPath(path) if path.name in {"", ".."} else OwnPath(path.parent, (path.name,))


def own_folder(folder: AnyPath) -> OwnPath:
    """A folder that the user named, itself, for what lies below it."""
    return folder if isinstance(folder, OwnPath) else OwnPath(folder)


@contextlib.contextmanager
def readable(path: AnyPath) -> Iterator[Path]:
    """A path by which a library that takes no open file reads this one."""
    if isinstance(path, OwnPath):
        with path.readable() as found:
            yield found
    else:
        yield path


def refuse_strange(folder: OwnPath, names: Set[str], trees: Set[str]) -> None:
    """Refuse a folder where a link, pipe or device lies in the place of a file of ours, before any work is done.

    ``names`` are files and folders in it, ``trees`` folders of which all is ours.

    Raises:
        NotOursError: names the first.
    """
    for entry in folder.entries():
        if entry.name in names or entry.name in trees:
            _refuse(folder / entry.name, entry)
        if entry.name in trees and entry.is_folder:
            refuse_strange_below(folder / entry.name)


def refuse_strange_below(folder: OwnPath) -> None:
    """The same for all that is in a folder, however deep."""
    for entry in folder.walk():
        _refuse(folder / entry.name, entry)


def _refuse(path: OwnPath, entry: Entry) -> None:
    if not entry.is_folder and not entry.is_file:
        raise NotOursError(str(path), _KINDS.get(stat.S_IFMT(entry.facts.st_mode), "no file"))


def _entries(folder: int) -> list[Entry]:
    entries = []
    with os.scandir(folder) as found:
        for each in found:
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                entries.append(Entry(each.name, each.stat(follow_symlinks=False)))
    return sorted(entries)


def _walk(folder: int, name: str, before: str = "") -> Iterator[Entry]:
    """What is below the folder ``name`` of an open one; ``before`` comes before each path."""
    try:
        below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:  # removed meanwhile
        return
    try:
        for entry in _entries(below):
            yield entry._replace(name=f"{before}{name}/{entry.name}")
            if entry.is_folder:
                yield from _walk(below, entry.name, f"{before}{name}/")
    finally:
        os.close(below)


@contextlib.contextmanager
def _naming(path: OwnPath, folder: int) -> Iterator[None]:
    """Have an ``OSError`` name the whole path, and say what lies there if it is nothing of ours.

    ``folder`` is a descriptor of the folder that it is in.
    """
    try:
        yield
    except NotOursError:
        raise
    except OSError as error:
        error.filename = str(path)
        if error.errno in _NO_SUCH_KIND and (what := _strange(path.name, folder)):
            raise NotOursError(str(path), what) from None
        raise


def _strange(name: str, folder: int) -> str:
    """What lies there if it is neither a file nor a folder; empty if it is, or cannot be told."""
    try:
        return _KINDS.get(stat.S_IFMT(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode), "")
    except OSError:
        return ""
