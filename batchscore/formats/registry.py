"""Which formats there are: an entry a format, with the module that knows everything else about it.

Nothing heavy is imported before a format is asked for by :func:`format_of`, so the command line can name all of them.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from batchscore.formats.format import Format

_COMPRESSION_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd", ".bz2")


class Entry(NamedTuple):
    """A format as it is named; its module has the rest in ``FORMAT``."""

    title: str
    """As a noun phrase: a file *is* this."""
    suffixes: tuple[str, ...]
    """Of files; the first is that of predictions."""
    module: str


ENTRIES = {
    "csv": Entry("CSV", (".csv", ".tsv", ".tab", ".psv"), "csv"),
    "parquet": Entry("Parquet", (".parquet", ".pq"), "parquet"),
    "jsonl": Entry("JSON Lines", (".jsonl", ".ndjson"), "jsonl"),
    "json": Entry("a JSON array", (".json",), "json_array"),
    "arrow": Entry("Arrow IPC", (".arrow", ".feather", ".ipc"), "arrow"),
}
NAMES = tuple(ENTRIES)
"""As ``--format`` and ``--output-format`` have them."""
DEFAULT = "csv"
"""Of a file whose name and first bytes say nothing."""


@functools.cache
def format_of(name: str) -> Format:
    """The format of this name."""
    module = importlib.import_module(f"batchscore.formats.{ENTRIES[name].module}")
    return cast("Format", module.FORMAT)


def suffix_of(name: str) -> str:
    """The suffix of predictions in this format."""
    return ENTRIES[name].suffixes[0]


def suffixes() -> list[str]:
    """The suffixes by which files in a folder are known."""
    return [suffix for entry in ENTRIES.values() for suffix in entry.suffixes]


def plain_name(name: str) -> str:
    """A file name without the suffix of its compression: ``a.csv.gz`` is ``a.csv``."""
    return next((name[: -len(end)] for end in _COMPRESSION_SUFFIXES if name.lower().endswith(end)), name)


def format_of_name(name: str) -> str | None:
    """The format that a file name tells, or ``None``."""
    suffix = Path(plain_name(name)).suffix.lower()
    return next((kind for kind, entry in ENTRIES.items() if suffix in entry.suffixes), None)
