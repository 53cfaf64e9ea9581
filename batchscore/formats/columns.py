"""Input columns of a part, for any format: for slices and for matching rows."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from batchscore.formats.format import Texts, format_of
from batchscore.formats.staged import StagedPart
from batchscore.records import InputFile

__all__ = ["Texts", "input_columns", "input_schema", "named_column", "texts_of"]


def texts_of(part: StagedPart, file: InputFile, names: Sequence[str]) -> Texts:
    """The columns ``names`` of a staged part as text; a missing one is all None."""
    return format_of(file.format).texts(part, file, names) if names else {}


def input_columns(part: StagedPart, file: InputFile) -> Sequence[pa.Array]:
    """The input's columns of a part as Arrow arrays: in their own types, or as strings."""
    return format_of(file.format).columns(part, file)


def input_schema(file: InputFile) -> pa.Schema:
    """The Arrow schema of :func:`input_columns`."""
    return format_of(file.format).schema(file)


def named_column(part: StagedPart, file: InputFile, name: str) -> pa.Array:
    """One column of a staged part, or a field within one, in the type that predictions in Parquet give it."""
    return format_of(file.format).column(part, file, name)
