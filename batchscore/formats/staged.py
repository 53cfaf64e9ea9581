"""A staged part: one Arrow IPC file with the rows as they were read and their predictions.

Columns: the input's own (Parquet and Arrow) or one binary column with the exact bytes of each record (text formats); then
the added columns; then four internal ones: ``row``, ``given``, ``predicted`` and ``status`` as numbers. They are found by
position, never by name, so that no name in an input can collide.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from batchscore.records import Predictions, Rows, Status
from batchscore.system.storage import atomic_write

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OWN = (("row", pa.int64()), ("given", pa.int32()), ("predicted", pa.int32()), ("status", pa.int8()))
_FACTS = b"batchscore"


def added_fields(labels: Sequence[str], prefix: str) -> list[pa.Field]:
    """The columns added to predictions, in order."""
    fields = [("predicted_label", pa.string()), ("probability", pa.float32())]
    fields += [(f"prob_{label}", pa.float32()) for label in labels]
    fields += [("n_tokens", pa.int32()), ("truncated", pa.bool_()), ("status", pa.string())]
    return [pa.field(prefix + name, kind) for name, kind in fields]


def added_names(labels: Sequence[str], prefix: str) -> list[str]:
    """The names of :func:`added_fields`."""
    return [field.name for field in added_fields(labels, prefix)]


def _added_arrays(predictions: Predictions, labels: Sequence[str]) -> list[pa.Array]:
    missing = predictions.status != Status.OK
    rows = np.arange(len(missing))
    best = predictions.probabilities[rows, np.maximum(predictions.predicted, 0)]
    names = pa.array(labels, pa.string()).take(pa.array(predictions.predicted, mask=missing))
    return [
        names,
        pa.array(best, mask=missing),
        *(pa.array(predictions.probabilities[:, k], mask=missing) for k in range(len(labels))),
        pa.array(predictions.n_tokens, mask=predictions.n_tokens < 0),
        pa.array(predictions.truncated, mask=predictions.n_tokens < 0),
        pa.array([status.text for status in Status], pa.string()).take(pa.array(predictions.status)),
    ]


@dataclasses.dataclass(frozen=True, slots=True)
class StagedPart:
    """A staged part, read back (memory-mapped): ``n`` rows, ``C`` labels."""

    batch: pa.RecordBatch
    n_labels: int
    facts: dict[str, Any]

    @property
    def _n_added(self) -> int:
        return self.n_labels + 5

    @property
    def n_inputs(self) -> int:
        """Number of columns from the input."""
        return int(self.batch.num_columns) - self._n_added - len(_OWN)

    @property
    def inputs(self) -> list[pa.Array]:
        """The input's columns, or the one column of raw records."""
        return list(self.batch.columns[: self.n_inputs])

    @property
    def added(self) -> list[pa.Array]:
        """The added columns."""
        return list(self.batch.columns[self.n_inputs : self.n_inputs + self._n_added])

    def _own(self, name: str) -> pa.Array:
        names = [own for own, _ in _OWN]
        return self.batch.column(self.batch.num_columns - len(names) + names.index(name))

    @property
    def row(self) -> NDArray[np.int64]:
        """Index of each row in its file, int64 ``[n]``."""
        return np.asarray(self._own("row"))

    @property
    def given(self) -> NDArray[np.int32]:
        """Index of the given label, int32 ``[n]``: -1 if none, -2 if the model does not know it."""
        return np.asarray(self._own("given"))

    @property
    def predictions(self) -> Predictions:
        """The predictions as they were staged."""
        columns = self.added[2 : 2 + self.n_labels]
        return Predictions(
            status=np.asarray(self._own("status")),
            predicted=np.asarray(self._own("predicted")),
            probabilities=np.stack([column.to_numpy(zero_copy_only=False) for column in columns], axis=1),
            n_tokens=np.asarray(self.added[-3].fill_null(-1)),
            truncated=self.added[-2].fill_null(False).to_numpy(zero_copy_only=False),
        )


def stage_part(
    path: Path, rows: Rows, predictions: Predictions, given: NDArray[np.int32], labels: Sequence[str]
) -> None:
    """Write a part atomically and durably."""
    if rows.table is not None:
        inputs, fields = rows.table.columns, list(rows.table.schema)
    else:
        inputs, fields = [pa.array(rows.raw, pa.large_binary())], [pa.field("record", pa.large_binary())]
    positions = np.asarray(rows.row, dtype=np.int64)
    own = [pa.array(values) for values in (positions, given, predictions.predicted, predictions.status)]
    facts = {
        "failures": [[int(rows.row[index]), reason] for index, reason in predictions.failures],
        "duplicates": int(predictions.work.get("duplicates", 0)),
    }
    schema = pa.schema(
        [*fields, *added_fields(labels, ""), *(pa.field(name, kind) for name, kind in _OWN)],
        metadata={_FACTS: json.dumps(facts)},
    )
    arrays = [*inputs, *_added_arrays(predictions, labels), *own]
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    with atomic_write(path) as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(batch)


def read_part(path: Path, n_labels: int) -> StagedPart:
    """Map a staged part into memory; pages are read on demand."""
    with pa.memory_map(str(path)) as file:
        reader = pa.ipc.open_file(file)
        return StagedPart(reader.get_batch(0), n_labels, json.loads(reader.schema.metadata[_FACTS]))
