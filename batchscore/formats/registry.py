"""Which formats there are: an entry a format, with the module that knows everything else about it.

Nothing heavy is imported here, so that the command line can name all of them; :func:`batchscore.formats.format.format_of`
gives the format itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

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
