"""The frozen records that flow from a file to its predictions.

``InputFile`` → ``Part`` → ``Rows`` → ``Encodings`` → ``MicroBatch`` → logits → ``Predictions``. A row carries its
position from the reader to the writer: nothing is dropped on the way.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

Text = str | tuple[str, str]
"""What the model is given of a row: a text, or two that it reads together."""
GivenText = str | tuple[str | None, str | None] | None
"""The same as it was read: any of it may be missing."""
UNLABELLED = -1
"""``given`` of a row without a label."""
UNKNOWN_LABEL = -2
"""``given`` of a row whose label value matches none of the model's labels."""


OUT_OF_MEMORY = "out of memory"
"""How the reason begins for which a row failed, but may not fail another time."""


class Status(enum.IntEnum):
    """The outcome of one row; predictions show the name in lower case."""

    OK = 0
    NULL_TEXT = 1
    EMPTY_TEXT = 2
    FAILED = 3
    ABSTAINED = 4
    """It was scored, and no label reached the threshold that was asked for: its probabilities are known, its label is not."""

    @property
    def text(self) -> str:
        """The value of the ``status`` column."""
        return self.name.lower()


def status_of(text: GivenText, missing_pair: str = "skip") -> Status:
    """``OK`` if the text can be scored; of two texts, both are needed, unless a ``missing_pair`` counts as ``empty``.

    >>> status_of("Fine."), status_of(" "), status_of(("Fine.", None)), status_of(("Fine.", None), "empty")
    (<Status.OK: 0>, <Status.EMPTY_TEXT: 2>, <Status.NULL_TEXT: 1>, <Status.OK: 0>)
    """
    if isinstance(text, tuple):
        first, second = text
        status = status_of(first)
        return status_of(second) if status == Status.OK and missing_pair == "skip" else status
    if text is None:
        return Status.NULL_TEXT
    return Status.OK if text.strip() else Status.EMPTY_TEXT


THRESHOLD = 0.5
"""The probability from which one of several labels is predicted, if nothing else is said."""


class Task(enum.StrEnum):
    """What a model says of a text."""

    SINGLE_LABEL = "single_label"
    """Exactly one of two or more labels."""
    MULTI_LABEL = "multi_label"
    """Any number of labels at once."""
    REGRESSION = "regression"
    """One number."""


class Column(NamedTuple):
    """One column of an input: its name and the kind of its values.

    ``string``, ``integer``, ``number``, ``boolean``, ``time``, ``binary``, ``object``, ``list``, ``null``, ``mixed`` (several
    kinds, in JSON) or ``other``.
    """

    name: str
    kind: str


class Position(NamedTuple):
    """Where a part starts: row (0-based, rejects included), byte offset and line (1-based) in the decompressed file."""

    row: int = 0
    offset: int = 0
    line: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """What the head of a file tells: its columns and how to read it.

    ``details`` is what its format needs to read it, as JSON values (a CSV's dialect and header).
    """

    columns: tuple[Column, ...]
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def names_are_certain(self) -> bool:
        """Whether column names are certain; the header of a text file may be its first row instead."""
        return bool(self.details.get("has_certain_names", True))


@dataclasses.dataclass(frozen=True, slots=True)
class ColumnChoice:
    """The columns of one file that the scorer uses."""

    text: str
    label: str | None = None
    id: str | None = None
    text_pair: str | None = None
    """The column of the second text, if each row is two."""
    labels: tuple[str, ...] = ()
    """Columns of 0 and 1, one for each label of a multi-label model, in the order of the labels."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The columns of one or two texts."""
        return (self.text,) if self.text_pair is None else (self.text, self.text_pair)

    @property
    def given(self) -> tuple[str, ...]:
        """The columns that hold what rows were given: none, one, or one for each label."""
        return self.labels or ((self.label,) if self.label is not None else ())

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ColumnChoice:
        """The inverse of :func:`dataclasses.asdict`, after a way through JSON."""
        return cls(**{**value, "labels": tuple(value.get("labels", ()))})


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """Consecutive rows of a file, which are planned and read back together."""

    number: int
    file: int
    start: Position
    rows: int
    """Rows of the input in this part, rejected ones included."""
    digest: str
    """Digest of these rows: shows whether reading them again gives the same."""
    bytes: int = 0
    """What its rows take once they are read, all columns of theirs, roughly."""


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """Consecutive whole parts: what is scored, staged and entered in the journal as one, here or on another machine.

    One part of a large file, or several small files (:func:`batchscore.runs.shards.shards_of`).
    """

    number: int
    """That of its first part."""
    parts: tuple[Part, ...]

    @classmethod
    def of(cls, *parts: Part) -> Shard:
        """One of these parts."""
        return cls(parts[0].number, parts)

    @property
    def rows(self) -> int:
        """Rows of the input in its parts, rejected ones included."""
        return sum(part.rows for part in self.parts)


@dataclasses.dataclass(frozen=True, slots=True)
class InputFile:
    """One input file in the plan."""

    path: str
    """Where it is read; see :attr:`shown`."""
    name: str
    """Path below ``predictions/``, with ``/``; unique in a run."""
    format: str
    compression: str
    size: int
    """Bytes on disk."""
    sha256: str
    layout: Layout
    columns: ColumnChoice
    rows: int
    """Rows to be scored, rejects included (with ``--limit``, fewer than in the file)."""
    rejects: int
    labelled: int = 0
    """Rows with a label that the model knows."""
    unknown_labels: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Label values that match no label of the model, each with its number of rows."""
    label_values: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Value in the label column → label of the model, ``""`` for none; at most a hundred."""
    label_reading: str = "names"
    """How label values are read (:mod:`batchscore.model.labels`)."""
    has_label_column: bool = False
    """Whether there is a label column, used or not."""
    given_as: str = ""
    """What it was called on the command line if that is no path: ``-``."""

    @property
    def shown(self) -> str:
        """Its path, or what it was called."""
        return self.given_as or self.path

    @property
    def class_names(self) -> tuple[str, ...]:
        """The class names that the file itself has for its label column."""
        return tuple(self.layout.details.get("class_names", {}).get(self.columns.label, ()))


@dataclasses.dataclass(frozen=True, slots=True)
class Reject:
    """A row that could not be read."""

    row: int
    line: int | None
    offset: int | None
    reason: str
    column: str | None
    raw: bytes


@dataclasses.dataclass(slots=True)
class Rows:
    """The rows of one part as they were read.

    Exactly one of ``table`` (Parquet and Arrow: every input column as it was) and ``raw`` (text formats: the exact bytes of
    each record) is set; ``row``, ``texts``, ``labels`` and ``pairs`` have one entry per readable row, in input order. If each
    label has a column of its own, an entry of ``labels`` is a tuple of their texts.
    """

    start: Position
    row: list[int]
    texts: list[str | None]
    labels: list[Any] | None
    rejects: list[Reject]
    table: pa.RecordBatch | None = None
    raw: list[bytes] | None = None
    names: set[str] = dataclasses.field(default_factory=set)
    """Names of the fields in this part, for formats whose rows have their own field names (JSON)."""
    pairs: list[str | None] | None = None
    """The second text of each row; ``None`` if there is no column of second texts."""
    lines: list[int] | None = None
    """The line (1-based) where each row begins, in text formats."""

    @property
    def given_texts(self) -> Sequence[GivenText]:
        """What there is to score of each row: its text, or its two texts."""
        return self.texts if self.pairs is None else list(zip(self.texts, self.pairs, strict=True))

    @property
    def weight(self) -> int:
        """Bytes that its rows take, roughly."""
        return sum(map(len, self.raw or ())) + (self.table.nbytes if self.table is not None else 0)

    def without_texts(self) -> Rows:
        """The same without what there is to score of each row, once that is tokenised; what was read of it stays."""
        none: list[str | None] = [None] * len(self.texts)
        return dataclasses.replace(self, texts=none, pairs=None)

    @property
    def rows_in(self) -> int:
        """Rows of the input, rejected ones included."""
        return len(self.texts) + len(self.rejects)

    def head(self, rows: int) -> Rows:
        """The first ``rows`` rows of the input, rejected ones included."""
        if rows >= self.rows_in:
            return self
        end = self.start.row + rows
        kept = sum(row < end for row in self.row)
        return dataclasses.replace(
            self,
            row=self.row[:kept],
            texts=self.texts[:kept],
            labels=self.labels[:kept] if self.labels is not None else None,
            pairs=self.pairs[:kept] if self.pairs is not None else None,
            lines=self.lines[:kept] if self.lines is not None else None,
            rejects=[reject for reject in self.rejects if reject.row < end],
            table=self.table.slice(0, kept) if self.table is not None else None,
            raw=self.raw[:kept] if self.raw is not None else None,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Encodings:
    """Token ids of the sequences of a part.

    ``input_ids[k]`` belongs to the text at index ``row[k]``; a text has several sequences only under ``windows``, each
    with its ``weight`` (content tokens). ``n_tokens[i]`` is the length of text *i* before truncation (-1: not scored).
    ``token_type_ids[k]`` has the token types of a sequence of two texts; ``None`` if they follow from the length alone.
    ``failures[i]`` is why text *i* could not be tokenised; it has no sequence.
    """

    row: NDArray[np.int32]
    input_ids: list[NDArray[np.int32]]
    weight: NDArray[np.float64]
    n_tokens: NDArray[np.int32]
    token_type_ids: list[NDArray[np.int8]] | None = None
    failures: Mapping[int, str] = dataclasses.field(default_factory=dict)

    @classmethod
    def joined(cls, parts: Sequence[Encodings]) -> Encodings:
        """The texts of each one behind the other's."""
        import numpy as np

        starts = np.cumsum([0, *(len(part.n_tokens) for part in parts)]).tolist()
        types = [part.token_type_ids for part in parts]
        return cls(
            row=np.concatenate([part.row + start for part, start in zip(parts, starts, strict=False)]).astype(
                np.int32
            ),
            input_ids=[ids for part in parts for ids in part.input_ids],
            weight=np.concatenate([part.weight for part in parts]),
            n_tokens=np.concatenate([part.n_tokens for part in parts]),
            token_type_ids=[each for some in types for each in some or ()] if any(types) else None,
            failures={
                start + text: why
                for part, start in zip(parts, starts, strict=False)
                for text, why in part.failures.items()
            },
        )


@dataclasses.dataclass(frozen=True, slots=True)
class MicroBatch:
    """The input of one forward pass; ``sequence`` is int64 ``[b]``, all else int64 ``[b, L]``."""

    sequence: NDArray[np.int64]
    """Index into ``Encodings.input_ids`` of each of the ``b`` sequences."""
    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64] | None = None
    """``None`` if the model takes none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Predictions:
    """The results of a part, in input order: ``n`` rows, ``C`` labels."""

    status: NDArray[np.int8]
    predicted: NDArray[Any]
    """Index of the predicted label, -1 where the status is not ``ok``; for other tasks see :mod:`batchscore.evaluation.tasks`."""
    probabilities: NDArray[np.float32]
    """``[n, C]``, or the values of a regression ``[n, 1]``; NaN where the status is not ``ok``.

    What ``abstained`` rows have is staged with them and kept in their predictions; a part that is read back has NaN there, so
    that nothing is measured of them.
    """
    n_tokens: NDArray[np.int32]
    truncated: NDArray[np.bool_]
    failures: tuple[tuple[int, str], ...] = ()
    """Index and reason of each row whose status is ``failed``."""
    work: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Cost: ``forward_seconds`` (sum over workers), ``tokens``, ``padded_tokens``, ``micro_batches``, ``halvings`` of the
    token budget, ``waiting_seconds`` of the device, ``duplicates``. Of the parts of a shard the first has the cost of all; each has
    its own ``duplicates``."""

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """Those of each one behind the other's, without what they cost and why any failed."""
        import numpy as np

        if len(parts) == 1:
            return parts[0]
        return cls(
            status=np.concatenate([part.status for part in parts]),
            predicted=np.concatenate([part.predicted for part in parts]),
            probabilities=np.concatenate([part.probabilities for part in parts]),
            n_tokens=np.concatenate([part.n_tokens for part in parts]),
            truncated=np.concatenate([part.truncated for part in parts]),
        )

    def between(self, start: int, end: int, work: Mapping[str, float]) -> Predictions:
        """Those of the rows from ``start`` to before ``end``, at the cost of ``work``."""
        rows = slice(start, end)
        return Predictions(
            status=self.status[rows],
            predicted=self.predicted[rows],
            probabilities=self.probabilities[rows],
            n_tokens=self.n_tokens[rows],
            truncated=self.truncated[rows],
            failures=tuple((row - start, why) for row, why in self.failures if start <= row < end),
            work=work,
        )
