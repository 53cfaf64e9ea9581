"""The formats: one entry each, with the module that has everything else about it.

Nothing heavy is imported here, so that the command line can list them; :func:`batchscore.formats.format.format_of` loads
the format itself.
"""

from __future__ import annotations

from typing import NamedTuple

_COMPRESSION_SUFFIXES = (".gz", ".gzip", ".zst", ".zstd", ".bz2")
_SUFFIX_OF_COMPRESSION = {"": "", "gzip": ".gz", "zstd": ".zst", "bz2": ".bz2"}


class Entry(NamedTuple):
    """A format's names; its module has the rest in ``FORMAT``."""

    title: str
    """A noun phrase for "this file is ..."."""
    suffixes: tuple[str, ...]
    """File name suffixes; predictions get the first."""
    module: str


ENTRIES = {
    "csv": Entry("CSV", (".csv", ".tsv", ".tab", ".psv"), "csv"),
    "parquet": Entry("Parquet", (".parquet", ".pq"), "parquet"),
    "jsonl": Entry("JSON Lines", (".jsonl", ".ndjson"), "jsonl"),
    "json": Entry("a JSON array", (".json",), "json_array"),
    "orc": Entry("ORC", (".orc",), "orc"),
    "xlsx": Entry("Excel", (".xlsx", ".xlsm"), "xlsx"),
    "arrow": Entry("Arrow IPC", (".arrow", ".feather", ".ipc"), "arrow"),
}
_KIND_OF_SUFFIX = {suffix: kind for kind, entry in ENTRIES.items() for suffix in entry.suffixes}
NAMES = tuple(ENTRIES)
"""The values of ``--format`` and ``--output-format``."""
DATA_SET = "parquet"
"""The format of a data set that runs are appended to: a folder of its files is one table to whoever reads them."""
DEFAULT = "csv"
"""The format if name and first bytes tell nothing."""


def suffix_of(name: str) -> str:
    """The suffix of predictions in this format."""
    return ENTRIES[name].suffixes[0]


def suffix_of_file(name: str, compression: str) -> str:
    """The suffix of a file of this format that is compressed as a whole.

    >>> suffix_of_file("csv", "gzip")
    '.csv.gz'
    """
    return suffix_of(name) + _SUFFIX_OF_COMPRESSION[compression]


def suffixes() -> list[str]:
    """The suffixes of files that are scored in a folder."""
    return [suffix for entry in ENTRIES.values() for suffix in entry.suffixes]


def plain_name(name: str) -> str:
    """A file name without the suffix of its compression: ``a.csv.gz`` is ``a.csv``."""
    return next((name[: -len(end)] for end in _COMPRESSION_SUFFIXES if name.lower().endswith(end)), name)


def format_of_name(name: str) -> str | None:
    """The format of a file name's suffix, or ``None``."""
    stem, dot, suffix = plain_name(name).rpartition("/")[2].rpartition(".")
    return _KIND_OF_SUFFIX.get(dot + suffix.lower()) if stem else None
