"""The prediction files of an earlier run: where they are, how they are read, and what their columns are called."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from batchscore.config import ReadSettings
from batchscore.formats.format import format_of
from batchscore.formats.output_columns import OutputColumns
from batchscore.formats.reading import describe
from batchscore.formats.source import Source
from batchscore.model.labels import label_key
from batchscore.records import ColumnChoice, Layout
from batchscore.runs.folder import PREDICTIONS, RunFolder, prediction_names

_NAMED_NUMBER = re.compile(r"(\d+) \(.*\)")
"""How ``run.json`` has a number whose name the file itself gives."""
_BATCH_ROWS = 4096
_NO_LIMITS = {"max_row_bytes": 2**40, "max_columns": 2**31, "max_expansion": 2**40, "part_rows": _BATCH_ROWS}
"""No limits for files that a run wrote."""


@dataclasses.dataclass(frozen=True, slots=True)
class EarlierFile:
    """The predictions of one input file of the earlier run."""

    name: str
    """The input's name below ``predictions/``."""
    path: Path
    """The prediction file."""
    format: str
    compression: str
    input_sha256: str
    rejects: int
    chosen: ColumnChoice
    """The columns of the input that the run used, by their names there."""
    columns: ColumnChoice
    """Those of them that the predictions hold, by their names there; a text that they do not hold is empty."""
    dialect: Mapping[str, str]
    """The dialect of a CSV file; empty if the earlier run did not record it."""
    meanings: Mapping[str, str]
    """:func:`label_key` of a value in the label column → label, as far as the earlier run recorded it."""

    is_partitioned: bool = False
    """Whether these are some of its rows, those of a partition, so that their places in the input are not known."""

    @property
    def has_rows(self) -> bool:
        """Whether there was anything to choose columns from."""
        return bool(self.chosen.text)

    @property
    def has_texts(self) -> bool:
        """Whether the predictions hold the text of each row, or both."""
        return all(self.columns.texts)

    @property
    def source(self) -> Source:
        """The prediction file as a source to read."""
        return Source(self.path, self.format, self.compression)


def files_of(run: RunFolder, names: Iterable[str]) -> tuple[EarlierFile, ...]:
    """The prediction files of a run, of all its files' ``names``; raises one of ``DAMAGE`` if its ``run.json`` is damaged.

    A file that was partitioned is several.
    """
    kind, called = run.options["output_format"], OutputColumns.of_options(run.options)
    choices = [ColumnChoice.from_json(file["columns"]) for file in run.files]
    outputs = prediction_names([file["name"] for file in run.files], kind)
    return tuple(
        EarlierFile(
            name=file["name"],
            path=run.path / name,
            is_partitioned=called.partition is not None,
            format=file["format"] if kind == "same" else kind,
            compression=file["compression"] if kind == "same" else "",
            input_sha256=file["sha256"],
            rejects=file["rejects"],
            chosen=chosen,
            columns=_held(chosen, called),
            dialect=file.get("dialect") or {},
            meanings=_meanings(file.get("label_values") or {}),
        )
        for file, chosen, output in zip(run.files, choices, outputs, strict=True)
        for name in _names_of(output, called.partition, names)
    )


def _names_of(output: str, partition: str | None, names: Iterable[str]) -> list[str]:
    """The prediction files of an input: one, or one in each partition that it has rows of."""
    if partition is None:
        return [f"{PREDICTIONS}/{output}"]
    pieces = ((name, name.split("/", 2)) for name in names)
    return [
        name
        for name, piece in pieces
        if piece[0] == PREDICTIONS and piece[1].startswith(f"{partition}=") and piece[2:] == [output]
    ]


def _held(chosen: ColumnChoice, called: OutputColumns) -> ColumnChoice:
    """The chosen columns by their names in predictions, as far as these hold them."""
    labels = [called.found(name) for name in chosen.labels]
    held = [name for name in labels if name is not None]
    return ColumnChoice(
        text=called.found(chosen.text) or "",
        label=chosen.label and called.found(chosen.label),
        id=chosen.id and called.found(chosen.id),
        text_pair=None if chosen.text_pair is None else called.found(chosen.text_pair) or "",
        labels=tuple(held) if len(held) == len(labels) else (),
    )


def _meanings(values: Mapping[str, str]) -> dict[str, str]:
    """:func:`label_key` of each value → label; ``0 (negative)`` counts as ``0`` too, unless there is a value ``0``."""
    numbers = {
        match[1]: label for value, label in values.items() if (match := _NAMED_NUMBER.fullmatch(value))
    }
    return {**numbers, **{label_key(value): label for value, label in values.items()}}


def described(file: EarlierFile) -> Layout:
    """The columns of a prediction file."""
    return describe(file.source, settings_of(file))


def settings_of(file: EarlierFile) -> ReadSettings:
    """How to read a prediction file."""
    return ReadSettings(**format_of(file.format).settings_like(file.dialect), **_NO_LIMITS)  # type: ignore[arg-type]
