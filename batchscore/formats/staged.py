"""A staged part: one Arrow IPC file with the rows as they were read and their predictions.

Columns: the input's own (Parquet and Arrow) or one binary column with the exact bytes of each record (text formats); then
the added columns; then five internal ones: ``line``, ``row``, ``given``, ``predicted`` and ``status`` as numbers. They are found by
position, never by name, so that no name in an input can collide.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from batchscore.formats.answers import Answers
from batchscore.formats.arrow_files import mapped
from batchscore.records import Predictions, Rows, Status
from batchscore.system.own_paths import AnyPath, readable
from batchscore.system.storage import atomic_write

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
        return int(self.batch.num_columns) - len(self.answers.fields()) - len(_OWN)

    @property
    def inputs(self) -> list[pa.Array]:
        """The input's columns, or the one column of raw records."""
        return list(self.batch.columns[: self.n_inputs])

    @property
    def added(self) -> list[pa.Array]:
        """The added columns."""
        return list(self.batch.columns[self.n_inputs : -len(_OWN)])

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
    def predictions(self) -> Predictions:
        """The predictions as they were staged."""
        added, status = self.added, np.asarray(self._own("status"))
        probabilities = self.answers.probabilities(added)
        probabilities[status == Status.ABSTAINED] = np.nan
        return Predictions(
            status=status,
            predicted=self.answers.loaded(self._own("predicted")),
            probabilities=probabilities,
            n_tokens=np.asarray(added[-3].fill_null(-1)),
            truncated=added[-2].fill_null(False).to_numpy(zero_copy_only=False),
        )

    def rows(self, batch: pa.RecordBatch) -> StagedPart:
        """A part of some of the rows."""
        return dataclasses.replace(self, batch=batch)


def stage_part(
    path: AnyPath, rows: Rows, predictions: Predictions, given: NDArray[Any], answers: Answers
) -> None:
    """Write a part atomically and durably."""
    if rows.table is not None:
        inputs, fields = rows.table.columns, list(rows.table.schema)
    else:
        inputs, fields = [_binary(rows.raw or [])], [pa.field("record", pa.large_binary())]
    positions = np.asarray(rows.row, dtype=np.int64)
    kinds = (pa.int64(), pa.int64(), answers.given_type, answers.predicted_type, pa.int8())
    own = [
        pa.nulls(len(positions), pa.int64()) if rows.lines is None else pa.array(rows.lines, pa.int64()),
        pa.array(positions),
        answers.stored(given, answers.given_type),
        answers.stored(predictions.predicted, answers.predicted_type),
        pa.array(predictions.status),
    ]
    facts = {
        "failures": [[int(rows.row[index]), reason] for index, reason in predictions.failures],
        "duplicates": int(predictions.work.get("duplicates", 0)),
    }
    schema = pa.schema(
        [*fields, *answers.fields(), *map(pa.field, _OWN, kinds)],
        metadata={_FACTS: json.dumps(facts)},
    )
    arrays = [*inputs, *answers.arrays(predictions), *own]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
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
