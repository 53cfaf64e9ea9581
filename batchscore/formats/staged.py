"""A staged part: one Arrow IPC file with the rows as they were read and their predictions.

A shard of one part is that file. One of several small parts is a file with one or more *blocks*, each of them an Arrow IPC file
with the rows of consecutive parts, and behind them where each block begins and which rows of it are whose. Rows that are kept as
records share a block whatever files they are of, as all are bytes; a part with columns of its own is a block by itself, as its
columns, and the values of its dictionaries, are those of its file alone.

Columns: the input's own (Parquet and Arrow) or one binary column with the exact bytes of each record (text formats); then
the added columns; then five internal ones: ``line``, ``row``, ``given``, ``predicted`` and ``status`` as numbers. They are found by
position, never by name, so that no name in an input can collide.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import struct
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
import pyarrow as pa

from batchscore.formats.answers import Answers
from batchscore.formats.arrow_files import mapped
from batchscore.records import Predictions, Rows, Status
from batchscore.system.own_paths import AnyPath, readable
from batchscore.system.storage import atomic_write

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARD_FORMAT = 2
"""When the parts of a shard lie together in another way: it counts for the fingerprint of a run, not for that of its answers."""
_Made = TypeVar("_Made")
COLUMNS = "arrow"
"""The format of a part whose rows are kept as Arrow arrays, as :func:`stage_columns` stages them."""
_OWN = ("line", "row", "given", "predicted", "status")
_FACTS = b"batchscore"
_MARK = b"batchscore shard"
"""The end of a file of several parts; a part's own ends with Arrow's mark."""
_LENGTH = struct.Struct("<Q")
_SMALL = 1 << 20
"""Bytes of rows; a block of fewer is made in memory, as Arrow writes a file in dozens of pieces."""
_ALIGNED = 64
"""Bytes; a block begins at a multiple of it, so that numbers lie in memory as they should."""


@dataclasses.dataclass(frozen=True, slots=True)
class StagedPart:
    """A staged part, read back (memory-mapped): ``n`` rows, ``C`` labels."""

    batch: pa.RecordBatch
    answers: Answers
    facts: Mapping[str, Any]
    block: Block | None = None
    """Where its rows lie with those of other parts, from the row ``start`` on."""
    start: int = 0

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
        return StagedPart(batch, self.answers, self.facts)

    def together(self, name: Hashable, make: Callable[[StagedPart], _Made]) -> _Made:
        """What ``make`` makes of all rows of the block, once under that ``name``; those from ``start`` on are this part's."""
        if self.block is None:
            return make(self)
        made = self.block.made
        if name not in made:
            made[name] = make(self.block.whole)
        return cast("_Made", made[name])

    @property
    def alone(self) -> StagedPart:
        """The same in memory of its own: Arrow writes what lies behind a slice as its padding, which would be another file's."""
        if self.block is None:
            return self
        columns = [pa.concat_arrays([column]) for column in self.batch.columns]
        return self.rows(pa.RecordBatch.from_arrays(columns, schema=self.batch.schema))


@dataclasses.dataclass(frozen=True, slots=True)
class Block:
    """The rows of some parts, ``n`` together, one behind the other in one record batch: of many small ones, or of a part alone."""

    whole: StagedPart
    """All rows; its facts are nobody's."""
    starts: Sequence[int]
    """Where each part begins, and ``n``."""
    facts: Sequence[Mapping[str, Any]]
    """Those of each part."""
    made: dict[Hashable, Any] = dataclasses.field(default_factory=dict)
    """What :meth:`StagedPart.together` has made."""

    @classmethod
    def of(cls, part: StagedPart) -> Block:
        """A part alone."""
        return cls(part, (0, part.batch.num_rows), (part.facts,))

    def __len__(self) -> int:
        """The number of parts."""
        return len(self.facts)

    def part(self, place: int) -> StagedPart:
        """One of the parts."""
        if len(self.facts) == 1:
            return self.whole
        start, end = self.starts[place], self.starts[place + 1]
        batch = self.whole.batch.slice(start, end - start)
        return StagedPart(batch, self.whole.answers, self.facts[place], self, start)

    def parts(self) -> Iterator[StagedPart]:
        """The parts in order."""
        return map(self.part, range(len(self)))

    def of_each_row(self, values: Sequence[Any] | NDArray[Any]) -> NDArray[Any]:
        """``[n]``: that of its part, of ``values`` with one for each part."""
        return np.repeat(np.asarray(values), np.diff(self.starts))


def _n_added(answers: Answers) -> int:
    return len(answers.names())


def _filled(column: pa.Array, value: Any) -> NDArray[Any]:
    return (column.fill_null(value) if column.null_count else column).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


class Section(NamedTuple):
    """A part to be staged: its rows as they were read, their predictions, and what they were given, in the array of their task."""

    rows: Rows
    predictions: Predictions
    given: NDArray[Any]


def stage_shard(path: AnyPath, sections: Sequence[Section], answers: Answers) -> str:
    """Write the parts of a shard into one file, atomically; returns the SHA-256 (hex) of its bytes.

    They are durable, and their name is once its folder is synced, which is the caller's to do.
    """
    columns, start, blocks = _added_and_own(sections, answers), 0, _blocks(sections)
    with atomic_write(path, syncs_folder=False) as file:
        out, places = _Hashed(file), []
        for block in blocks:
            counts, begun = [len(section.rows.row) for section in block], out.size
            end = start + sum(counts)
            own = [_only(each, start, end) for each in columns] if len(blocks) > 1 else columns
            facts = [_facts(section) for section in block]
            _write_block(out, block, own, facts[0] if len(sections) == 1 else {}, answers)
            places.append([begun, out.size - begun, counts, facts])
            if len(sections) > 1:
                out.write(b"\0" * (-out.size % _ALIGNED))
            start = end
        if len(sections) > 1:
            told = json.dumps(places).encode()
            out.write(told + _LENGTH.pack(len(told)) + _MARK)
        return out.digest


def _blocks(sections: Sequence[Section]) -> list[list[Section]]:
    """Consecutive sections that are staged as one."""
    blocks: list[list[Section]] = []
    for section in sections:
        if blocks and section.rows.table is None and blocks[-1][-1].rows.table is None:
            blocks[-1].append(section)
        else:
            blocks.append([section])
    return blocks


def _facts(section: Section) -> dict[str, Any]:
    rows, predictions, _ = section
    return {
        "failures": [[int(rows.row[index]), reason] for index, reason in predictions.failures],
        "duplicates": int(predictions.work.get("duplicates", 0)),
    }


def _added_and_own(sections: Sequence[Section], answers: Answers) -> list[pa.Array]:
    """The added columns and the internal ones, for the rows of all sections: a few large arrays are made sooner than many small ones."""
    predictions = Predictions.joined([section.predictions for section in sections])
    given = [section.given for section in sections]
    positions = np.concatenate([np.asarray(section.rows.row, dtype=np.int64) for section in sections])
    lines = [_lines(section.rows) for section in sections]
    own = OwnColumns(
        pa.concat_arrays(lines) if len(lines) > 1 else lines[0],
        pa.array(positions),
        np.concatenate(given) if len(given) > 1 else given[0],
        predictions.predicted,
        predictions.status,
    )
    return [*answers.arrays(predictions), *own.arrays(answers)]


def _only(column: pa.Array, start: int, end: int) -> pa.Array:
    """Some rows in memory of their own; see :attr:`StagedPart.alone`."""
    return pa.concat_arrays([column.slice(start, end - start)])


def _lines(rows: Rows) -> pa.Array:
    return pa.nulls(len(rows.row), pa.int64()) if rows.lines is None else pa.array(rows.lines, pa.int64())


class _Hashed:
    """A file that is written from its start to its end, and the digest of its bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        self._digest.update(data)
        written = self._file.write(data)
        self.size += written
        return written

    def flush(self) -> None:
        """Nothing: its file is flushed when it is complete."""

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()


def _write_block(
    out: _Hashed,
    block: Sequence[Section],
    columns: Sequence[pa.Array],
    facts: Mapping[str, Any],
    answers: Answers,
) -> None:
    """Write the input's columns and the added and internal ``columns`` of parts; a small block at once."""
    rows = block[0].rows
    if rows.table is not None:
        inputs, fields = rows.table.columns, list(rows.table.schema)
    else:
        raw = [record for section in block for record in section.rows.raw or ()]
        inputs, fields = [_binary(raw)], [pa.field("record", pa.large_binary())]
    if sum(section.rows.weight for section in block) > _SMALL:
        _write_columns(out, pa.schema(fields), [*inputs, *columns], facts, answers)
        return
    memory = pa.BufferOutputStream()
    _write_columns(memory, pa.schema(fields), [*inputs, *columns], facts, answers)
    out.write(memory.getvalue())


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
    """Write a part from columns: ``schema`` is that of the ``inputs``, ``facts`` has ``failures`` and ``duplicates``."""
    with atomic_write(path) as file:
        _write_columns(file, schema, [*inputs, *added, *own.arrays(answers)], facts, answers)


def _write_columns(
    out: Any, schema: pa.Schema, columns: Sequence[pa.Array], facts: Mapping[str, Any], answers: Answers
) -> None:
    """Write a part: ``schema`` is that of the input's columns, which are the first of ``columns``."""
    kinds = (pa.int64(), pa.int64(), answers.given_type, answers.predicted_type, pa.int8())
    schema = pa.schema(
        [*schema, *answers.fields(), *map(pa.field, _OWN, kinds)], metadata={_FACTS: json.dumps(facts)}
    )
    batch = pa.RecordBatch.from_arrays(list(columns), schema=schema)
    with pa.ipc.new_file(out, schema, options=pa.ipc.IpcWriteOptions()) as writer:
        writer.write_batch(batch)


def _binary(records: Sequence[bytes]) -> pa.Array:
    """An Arrow array of records; a builder would take twice their bytes."""
    offsets = np.cumsum([0, *map(len, records)], dtype=np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(records))]
    return pa.Array.from_buffers(pa.large_binary(), len(records), buffers, 0)


def read_part(path: AnyPath, answers: Answers) -> StagedPart:
    """Map a part that is staged in a file of its own into memory; pages are read on demand."""
    (block,) = read_blocks(path, answers)
    return block.part(0)


def read_blocks(path: AnyPath, answers: Answers) -> list[Block]:
    """Map the parts of a staged shard into memory, as they lie there; pages are read on demand."""
    with readable(path) as name, mapped(name) as file:
        whole = file.read_buffer()
    tail = _LENGTH.size + len(_MARK)
    if len(whole) < tail or whole.slice(len(whole) - len(_MARK)).to_pybytes() != _MARK:
        reader = pa.ipc.open_file(whole)
        facts = json.loads(reader.schema.metadata[_FACTS])
        return [Block.of(StagedPart(reader.get_batch(0), answers, facts))]
    (length,) = _LENGTH.unpack(whole.slice(len(whole) - tail, _LENGTH.size).to_pybytes())
    places = json.loads(whole.slice(len(whole) - tail - length, length).to_pybytes())
    return [
        _read_block(whole.slice(start, size), counts, facts, answers) for start, size, counts, facts in places
    ]


def _read_block(
    memory: pa.Buffer, counts: Sequence[int], facts: Sequence[Mapping[str, Any]], answers: Answers
) -> Block:
    """The block that a slice of a file holds; it keeps the file's memory."""
    batch = pa.ipc.open_file(memory).get_batch(0)
    if len(counts) == 1:
        return Block.of(StagedPart(batch, answers, facts[0]))
    return Block(StagedPart(batch, answers, {}), [0, *itertools.accumulate(counts)], facts)
