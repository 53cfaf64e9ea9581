"""A staged part: one Arrow IPC file with the rows as they were read and their predictions.

Columns: the input's own (Parquet and Arrow) or one binary column with the exact bytes of each record (text formats); then
the added columns; then five internal ones: ``line``, ``row``, ``given``, ``predicted`` and ``status`` as numbers. They are found by
position, never by name, so that no name in an input can collide.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from batchscore.formats.answers import Answers
from batchscore.formats.arrow_files import mapped
from batchscore.records import Predictions, Rows, Status
from batchscore.system.own_paths import AnyPath, readable
from batchscore.system.storage import atomic_write

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLUMNS = "arrow"
"""The format of a part whose rows are kept as Arrow arrays, as :func:`stage_columns` stages them."""
_OWN = ("line", "row", "given", "predicted", "status")
_FACTS = b"batchscore"


@dataclasses.dataclass(frozen=True, slots=True)
class StagedPart:
    """A staged part, read back (memory-mapped): ``n`` rows, ``C`` labels."""

    batch: pa.RecordBatch
    answers: Answers
    facts: dict[str, Any]

    @property
    def n_inputs(self) -> int:
        """Number of columns from the input."""
        return int(self.batch.num_columns) - _n_added(self.answers) - len(_OWN)

    @property
    def inputs(self) -> list[pa.Array]:
        """The input's columns, or the one column of raw records."""
        return [self.batch.column(place) for place in range(self.n_inputs)]

    @property
    def added(self) -> list[pa.Array]:
        """The added columns."""
        return [
            self.batch.column(place) for place in range(self.n_inputs, self.batch.num_columns - len(_OWN))
        ]

    def _own(self, name: str) -> pa.Array:
        return self.batch.column(self.batch.num_columns - len(_OWN) + _OWN.index(name))

    @property
    def row(self) -> NDArray[np.int64]:
        """Index of each row in its file, int64 ``[n]``."""
        return np.asarray(self._own("row"))

    @property
    def line(self) -> pa.Array:
        """The line where each row begins in its file, int64 ``[n]``; null where the format has no lines."""
        return self._own("line")

    @property
    def given(self) -> NDArray[Any]:
        """What the rows were given, in the array of their task (:mod:`batchscore.evaluation.tasks`)."""
        return self.answers.loaded(self._own("given"))

    @property
    def predicted(self) -> NDArray[Any]:
        """The predictions alone, in the array of their task."""
        return self.answers.loaded(self._own("predicted"))

    @property
    def n_tokens(self) -> NDArray[np.int32]:
        """Tokens of each row before it was cut, int32 ``[n]``; -1 where none were counted."""
        return _filled(self.batch.column(self.batch.num_columns - len(_OWN) - 3), -1)

    @property
    def predictions(self) -> Predictions:
        """The predictions as they were staged."""
        added, status = self.added, np.asarray(self._own("status"))
        probabilities = self.answers.probabilities(added)
        probabilities[status == Status.ABSTAINED] = np.nan
        return Predictions(
            status=status,
            predicted=self.predicted,
            probabilities=probabilities,
            n_tokens=_filled(added[-3], -1),
            truncated=_filled(added[-2], False),
        )

    def with_given(self, given: NDArray[Any]) -> StagedPart:
        """The same rows with other labels, in the array of their task."""
        place = self.batch.num_columns - len(_OWN) + _OWN.index("given")
        stored = self.answers.stored(given, self.answers.given_type)
        return self.rows(self.batch.set_column(place, self.batch.schema.field(place), stored))

    @property
    def row_numbers(self) -> pa.Array:
        """:attr:`row` as it is stored: null where it is not known."""
        return self._own("row")

    def rows(self, batch: pa.RecordBatch) -> StagedPart:
        """A part of some of the rows."""
        return dataclasses.replace(self, batch=batch)


@functools.lru_cache(maxsize=16)
def _n_added(answers: Answers) -> int:
    return len(answers.fields())


def _filled(column: pa.Array, value: Any) -> NDArray[Any]:
    return (column.fill_null(value) if column.null_count else column).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def stage_part(
    path: AnyPath, rows: Rows, predictions: Predictions, given: NDArray[Any], answers: Answers
) -> None:
    """Write a part atomically and durably."""
    if rows.table is not None:
        inputs, fields = rows.table.columns, list(rows.table.schema)
    else:
        inputs, fields = [_binary(rows.raw or [])], [pa.field("record", pa.large_binary())]
    positions = np.asarray(rows.row, dtype=np.int64)
    lines = pa.nulls(len(positions), pa.int64()) if rows.lines is None else pa.array(rows.lines, pa.int64())
    own = OwnColumns(lines, pa.array(positions), given, predictions.predicted, predictions.status)
    facts = {
        "failures": [[int(rows.row[index]), reason] for index, reason in predictions.failures],
        "duplicates": int(predictions.work.get("duplicates", 0)),
    }
    stage_columns(path, pa.schema(fields), inputs, answers.arrays(predictions), own, facts, answers)


class OwnColumns(NamedTuple):
    """The internal columns of a part."""

    line: pa.Array
    row: pa.Array
    given: NDArray[Any]
    predicted: NDArray[Any]
    status: NDArray[np.int8]

    def arrays(self, answers: Answers) -> list[pa.Array]:
        """As they are stored."""
        given = answers.stored(self.given, answers.given_type)
        predicted = answers.stored(self.predicted, answers.predicted_type)
        return [self.line, self.row, given, predicted, pa.array(self.status)]


def stage_columns(
    path: AnyPath,
    schema: pa.Schema,
    inputs: Sequence[pa.Array],
    added: Sequence[pa.Array],
    own: OwnColumns,
    facts: Mapping[str, Any],
    answers: Answers,
) -> None:
    """The same from columns: ``schema`` is that of the ``inputs``, ``facts`` has ``failures`` and ``duplicates``."""
    kinds = (pa.int64(), pa.int64(), answers.given_type, answers.predicted_type, pa.int8())
    schema = pa.schema(
        [*schema, *answers.fields(), *map(pa.field, _OWN, kinds)], metadata={_FACTS: json.dumps(facts)}
    )
    batch = pa.RecordBatch.from_arrays([*inputs, *added, *own.arrays(answers)], schema=schema)
    with atomic_write(path) as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(batch)


def _binary(records: Sequence[bytes]) -> pa.Array:
    """An Arrow array of records; a builder would take twice their bytes."""
    offsets = np.cumsum([0, *map(len, records)], dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(records))]
    return pa.Array.from_buffers(pa.large_binary(), len(records), buffers, 0)


def read_part(path: AnyPath, answers: Answers) -> StagedPart:
    """Map a staged part into memory; pages are read on demand."""
    with readable(path) as name, mapped(name) as file:
        reader = pa.ipc.open_file(file)
        return StagedPart(reader.get_batch(0), answers, json.loads(reader.schema.metadata[_FACTS]))
