"""The format and compression of a file, from its name and its first bytes."""

from __future__ import annotations

import re
from pathlib import Path

from batchscore.errors import DataError, printable
from batchscore.formats import foreign
from batchscore.formats.format import format_of
from batchscore.formats.registry import DEFAULT, ENTRIES, NAMES, format_of_name, plain_name
from batchscore.formats.source import Source, open_bytes, reading

_LOOK_BYTES = 16 * 1024
_MAGIC = {
    "gzip": re.compile(rb"\x1f\x8b\x08"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),  # a frame, or a skippable one (pzstd)
    "bz2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),  # a CSV header may begin with BZh
}


def identify(path: Path, given_format: str | None = None) -> Source:
    """Find format and compression of a file from its first bytes and its name; ``given_format`` wins.

    Within a family of formats the first bytes decide, whatever the name.

    Raises:
        DataError: the content contradicts its name or the given format.
        StorageError: it cannot be read.
    """
    source = Source(path, given_format or format_of_name(path.name) or "", "")
    with reading(source), path.open("rb") as file:
        magic = file.read(_LOOK_BYTES)
    compression = next((kind for kind, start in _MAGIC.items() if start.match(magic)), "")
    _refuse_foreign(path, magic)
    if not compression and plain_name(path.name) != path.name:
        raise DataError(
            f"{printable(path)} is not compressed as its name says, or damaged. Rename it, or get a whole copy of it."
        )
    source = source._replace(compression=compression)
    head = magic
    if compression:
        with reading(source), open_bytes(source) as stream:
            head = stream.read(_LOOK_BYTES)
        _refuse_foreign(path, head)
    source = source._replace(format=_format_of(source, head, is_given=given_format is not None))
    if compression and not format_of(source.format).can_be_compressed:
        title = ENTRIES[source.format].title
        raise DataError(f"{printable(path)} is a {title} file inside {compression}; unpack it first.")
    return source


def is_note(path: Path) -> bool:
    """Whether a file is metadata about the tables beside it, such as ``dataset_info.json``, by name and first bytes."""
    name = format_of_name(path.name)
    if name is None or not format_of(name).has_notes or not path.is_file():  # a pipe is not opened
        return False
    try:
        with path.open("rb") as file:
            return format_of(name).is_note(file.read(_LOOK_BYTES))
    except OSError:
        return False


def _refuse_foreign(path: Path, head: bytes) -> None:
    if kind := foreign.recognised(head[: foreign.HEAD_BYTES]):
        raise DataError(f"{printable(path)} is {kind.what}. {kind.advice}")


def _format_of(source: Source, head: bytes, *, is_given: bool) -> str:
    """The format of a file that begins with ``head``; it must agree with the name or the option."""
    found = next((name for name in NAMES if format_of(name).begins(head)), "")
    wanted = source.format or found or DEFAULT
    if found and format_of(found).family and format_of(found).family == format_of(wanted).family:
        wanted = found
    if found not in {"", wanted}:
        said = f"--format {wanted}" if is_given else f"its name says {ENTRIES[wanted].title}"
        advice = f"--format {found}" if is_given else f"Rename it, or say --format {found}"
        raise DataError(f"{printable(source.path)} is {ENTRIES[found].title}, but {said}. {advice}.")
    format_of(wanted).refuse_head(source, head)
    if format_of(wanted).has_magic and not found and head:
        title = ENTRIES[wanted].title
        raise DataError(f"{printable(source.path)} is no {title} file: it does not begin like one.")
    return wanted
