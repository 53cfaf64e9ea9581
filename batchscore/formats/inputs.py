"""INPUT arguments to files: folders and globs resolved, and each file named below ``predictions/``."""

from __future__ import annotations

import collections
import dataclasses
import glob
import logging
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from batchscore.errors import DataError, NoInputError, UsageError, printable
from batchscore.formats.first_pass import Hashed
from batchscore.formats.foreign import table_folder
from batchscore.formats.identification import identify, is_note
from batchscore.formats.registry import format_of_name, plain_name, suffix_of_file, suffixes
from batchscore.formats.source import Source, reading
from batchscore.formats.standard_input import ARGUMENT, NAME
from batchscore.system.storage import sha256_of

_LOG = logging.getLogger(__name__)
_CLOCK_TICK_NS = 2 * 10**9
"""The coarsest timestamp of any file system; a change within this time of hashing may leave the same timestamp."""


class Identity(NamedTuple):
    """What the file system tells about a file's content."""

    size: int
    """Bytes."""
    inode: int
    device: int
    modified: int
    """mtime in nanoseconds since 1970; any program can set it back."""
    changed: int
    """ctime: last change of content, name or permissions; no program can set it."""

    def is_as_written(self, other: Identity) -> bool:
        """Whether ``other`` shows no change of content; permissions or links may have changed."""
        return self._replace(changed=0) == other._replace(changed=0)


class Noted(NamedTuple):
    """What a file was when its hash was known, kept for another call."""

    identity: Identity
    hashed: Hashed

    @property
    def is_certain(self) -> bool:
        """Whether a later change would show: hashing began well after the last one that the file system tells."""
        return self.identity.changed <= self.hashed.begun - _CLOCK_TICK_NS

    def to_json(self) -> list[int]:
        """As JSON values, without the hash itself."""
        return [*self.identity, self.hashed.begun]

    @classmethod
    def from_json(cls, value: Sequence[int], sha256: str) -> Noted:
        """The inverse of :meth:`to_json`.

        Raises:
            TypeError, ValueError: it was not written by that.
        """
        *identity, begun = value
        if not all(type(each) is int for each in value):
            raise ValueError("what a file was is told in whole numbers")
        return cls(Identity(*identity), Hashed(sha256, begun))


@dataclasses.dataclass(slots=True)
class FoundFile:
    """An input file. It is hashed while it is read for the first time, or when its hash is asked for before that."""

    source: Source
    name: str
    """Its path below the common folder of all inputs, with ``/``."""
    identity: Identity
    """Taken before it was hashed."""
    hashed: Hashed | None = None
    """None until it is."""
    given_as: str = ""
    """What it was called on the command line if that is no path: ``-``."""

    @property
    def sha256(self) -> str:
        """The hash of its bytes (hex).

        Raises:
            StorageError: it cannot be read.
        """
        self.hashed = self.hashed or _hashed(self.source)
        return self.hashed.sha256

    @property
    def noted(self) -> Noted:
        """What it is, for another call."""
        self.hashed = self.hashed or _hashed(self.source)
        return Noted(self.identity, self.hashed)

    def assert_unchanged(self) -> None:
        """Raise :class:`DataError` if the file's content changed since it was hashed.

        It is hashed again only if the file system cannot tell: its permissions or links changed, or it was written so
        shortly before hashing that a later change may have the same timestamp.
        """
        now, noted = identity_of(self.source.path), self.noted
        if now == self.identity and noted.is_certain:
            return
        if not now.is_as_written(self.identity):
            raise self._changed()
        self._take(now, _hashed(self.source))

    def assert_read(self, hashed: Hashed) -> None:
        """The same for a file whose bytes have just been read, and were these; they become its hash if it had none."""
        if not identity_of(self.source.path).is_as_written(self.identity):
            raise self._changed()
        self._take(self.identity, hashed)

    def _take(self, identity: Identity, hashed: Hashed) -> None:
        if self.hashed is not None and hashed.sha256 != self.hashed.sha256:
            raise self._changed()
        self.identity, self.hashed = identity, hashed

    def _changed(self) -> DataError:
        return DataError(
            f"{printable(self.source.path)} changed while it was being read. Write it under another name and rename "
            "it when it is whole, then run the same command again."
        )


def recognise(files: Iterable[FoundFile], noted: Iterable[Noted]) -> None:
    """Take over the hashes that an earlier call noted for files that have certainly not changed since.

    That is as sure as :meth:`FoundFile.assert_unchanged`: size, inode, device, mtime and ctime are the same, still after the file was
    opened. On a network share they may be those of a minute ago until then.

    Raises:
        NoInputError: a file is gone.
    """
    known = {note.identity: note.hashed for note in noted if note.is_certain}
    for file in files:
        hashed = known.get(file.identity)
        if file.hashed is None and hashed is not None and identity_of(file.source.path) == file.identity:
            file.hashed = hashed


def find_files(
    inputs: Sequence[str], given_format: str | None, exclude: Path, stdin: Path | None = None
) -> list[FoundFile]:
    """Resolve files, folders and globs, in the order given (names sorted within a folder or glob), each file once.

    Files below ``exclude`` (the run folder) are left out. ``stdin`` is the file that ``-`` stands for.

    Raises:
        NoInputError: an argument matches nothing.
        UsageError: a file is called as standard input would be.
    """
    paths: dict[Path, Path] = {}
    own, folders = _resolved(exclude), _Folders()
    for argument in inputs:
        if argument == ARGUMENT and stdin is not None:
            paths[stdin] = stdin
            continue
        for path in _expand(argument):
            real = folders.resolved(path)
            if not real.is_relative_to(own):
                paths.setdefault(real, path)
            elif str(path) == str(Path(argument)):
                raise NoInputError(f"{printable(path)} lies in the run folder. Name another --output.")
    if not paths:
        raise NoInputError(f"No file to score in {printable(', '.join(inputs))}.")
    _refuse_tables(paths)
    names = _names([path for path in paths.values() if path != stdin])
    found = [
        _standard_input(path, given_format) if path == stdin else _found(path, names.pop(0), given_format)
        for path in paths.values()
    ]
    taken = [file.name for file in found]
    if stdin is not None and len(set(taken)) < len(taken):
        name = next(file.name for file in found if file.given_as)
        raise UsageError(f"A file is called {printable(name)}, as standard input would be. Rename it.")
    return found


def _refuse_tables(paths: Iterable[Path]) -> None:
    """Refuse files of a table with a log (Delta and the like): the log may have deleted some of their rows."""
    seen: set[Path] = set()
    for path in paths:
        for folder in path.parents:
            if folder in seen:
                break
            seen.add(folder)
            if what := table_folder(folder):
                raise DataError(
                    f"{printable(folder)} is {what}: which rows of its files are live stands in its log, which is not read. "
                    "Export it as Parquet, and score that."
                )


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:  # RuntimeError: links that lead to each other
        raise NoInputError(f"{printable(path)} cannot be read: {printable(error)}.") from error


class _Folders:
    """Resolves paths; a folder that many files are in once."""

    def __init__(self) -> None:
        self._known: dict[Path, Path] = {}

    def resolved(self, path: Path) -> Path:
        """As :func:`_resolved`."""
        if path.name in {"", ".."} or path.is_symlink():
            return _resolved(path)
        folder = path.parent
        if folder not in self._known:
            self._known[folder] = _resolved(folder)
        return self._known[folder] / path.name


def _expand(argument: str) -> list[Path]:
    path = Path(argument)
    if not argument:
        raise NoInputError("An INPUT is empty; is a variable of the calling script not set?")
    if path.is_dir():
        found = sorted(_scorable_below(path))
        if not found:
            raise NoInputError(
                f"The folder {printable(path)} holds no file to score; these end in {', '.join(suffixes())}, and may be "
                "compressed."
            )
        return found
    if path.exists():
        return [path]
    if glob.has_magic(argument):
        found = sorted(Path(match) for match in glob.glob(argument, recursive=True))  # noqa: PTH207 - as given, absolute or not
        files = [match for match in found if not match.is_dir()]
        if files:
            return files
    raise NoInputError(
        f"No such input: {printable(argument)}. Check the path; a glob must be quoted and match a file."
    )


def is_scorable(name: str) -> bool:
    """Whether a file in a folder is taken for a table by its POSIX path from there."""
    *folders, last = name.split("/")
    is_hidden = last.startswith((".", "_", "~$")) or any(each.startswith((".", "_")) for each in folders)
    return not is_hidden and format_of_name(last) is not None


def _scorable_below(folder: Path) -> Iterator[Path]:
    """Files with a known suffix, except hidden ones and those that start with ``_`` or ``~$``, which are programs' markers.

    Linked folders are not entered: they may form a cycle.
    """

    def refuse(error: OSError) -> None:
        raise NoInputError(f"{printable(error.filename)} cannot be read: {error.strerror}.") from error

    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith((".", "_"))]
        for name in files:
            path = Path(root) / name
            if is_scorable(name) and not _is_metadata(path):
                yield path


def _is_metadata(path: Path) -> bool:
    """Whether a file is metadata about other files, not a table."""
    is_beside = is_note(path)
    if is_beside:
        _LOG.info("%s: about the tables beside it, no table; left out", path)
    return is_beside


def _names(paths: Sequence[Path]) -> list[str]:
    """Names below ``predictions/``: the file name, or the path below the common folder if there are several."""
    if not paths:
        return []
    whole = [os.path.abspath(path) for path in paths]  # noqa: PTH100 - links keep their own name
    common = os.path.commonpath({os.path.dirname(path) for path in whole})  # noqa: PTH120 - text is faster
    before = os.path.join(common, "")  # noqa: PTH118
    return [path.removeprefix(before) for path in whole]


def _standard_input(path: Path, given_format: str | None) -> FoundFile:
    """Standard input, named by what its first bytes say."""
    file = _found(path, "", given_format)
    name = NAME + suffix_of_file(file.source.format, file.source.compression)
    return dataclasses.replace(file, name=name, given_as=ARGUMENT)


def _found(path: Path, name: str, given_format: str | None) -> FoundFile:
    identity = identity_of(path)
    return FoundFile(identify(path, given_format), name, identity)


def _hashed(source: Source) -> Hashed:
    begun = time.time_ns()
    with reading(source):
        return Hashed(sha256_of(source.path), begun)


def identity_of(path: Path) -> Identity:
    """The identity of a regular file; anything else is refused without opening it."""
    try:
        facts = path.stat()
    except OSError as error:
        raise NoInputError(f"{printable(path)} cannot be read: {error.strerror}.") from error
    if not stat.S_ISREG(facts.st_mode):
        raise NoInputError(
            f"{printable(path)} is not a regular file; pipes and devices cannot be scored again."
        )
    return Identity(facts.st_size, facts.st_ino, facts.st_dev, facts.st_mtime_ns, facts.st_ctime_ns)


def output_names(names: Iterable[str], suffix: str) -> list[str]:
    """Names with the suffix of another format; if two would be equal, it is appended to the full name instead.

    >>> output_names(["a.csv", "b.csv.gz", "b.jsonl"], ".parquet")
    ['a.parquet', 'b.csv.gz.parquet', 'b.jsonl.parquet']
    """
    names = list(names)
    short = [_stem(name) + suffix for name in names]
    counts = collections.Counter(short)
    long = [one if counts[one] == 1 else name + suffix for one, name in zip(short, names, strict=True)]
    return long if len(set(long)) == len(long) else [name + suffix for name in names]


def _stem(name: str) -> str:
    plain = plain_name(name)
    return plain.rpartition(".")[0] if format_of_name(plain) else plain
