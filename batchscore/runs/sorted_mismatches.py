"""All mismatches of a run in the order of their report, in little memory however many there are: an external sort.

The parts are read once. Their mismatches are collected, as rows of the report, up to a number of bytes; these are sorted and
written to disk as a *run*. Then all runs are read side by side: as many rows of the lowest label quality as fit into memory are
taken from each of them, which lie together there, and sorted. So each row is written once and read once.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from batchscore.formats.arrow_files import mapped
from batchscore.formats.arrow_values import take_rows, with_leaves
from batchscore.runs.mismatch_columns import Keys, joined_keys
from batchscore.system.own_paths import OwnPath
from batchscore.system.storage import make_folder, remove_tree

if TYPE_CHECKING:
    from numpy.typing import NDArray

RUN_BYTES = 16 << 20
"""Bytes of the rows that are sorted at once."""
BUCKET_BYTES = 8 << 20
"""Bytes of the rows that are taken from all runs at once."""
_BATCH_ROWS = 512
_SIGN = 0x80000000
_INDEX = np.dtype([("part", "i4"), ("row", "i4"), ("quality", "f4"), ("n_tokens", "i4"), ("end", "i8")])
"""Of a row in a run: its keys, and the bytes of the run up to its end, roughly."""
_UNSORTABLE = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
"""Types whose arrays hold on to all the values that they were taken from, and what has the same values."""


class _Run(Protocol):
    """Sorted rows."""

    @property
    def index(self) -> NDArray[np.void]:
        """``_INDEX`` of each row."""

    def rows(self, start: int, end: int) -> list[pa.RecordBatch]:
        """Some rows that follow each other; at least one."""


class SortedMismatches:
    """Takes the mismatches of part after part, and gives them in order: by label quality, then by part and row."""

    def __init__(self, folder: OwnPath, schema: pa.Schema) -> None:
        """Below ``folder``, which is emptied, runs are kept; ``schema`` is that of the rows."""
        self._folder, self._schema = folder, schema
        self._kept = pa.schema(
            [
                (str(place), with_leaves(kind, lambda leaf: _UNSORTABLE.get(leaf, leaf)))
                for place, kind in enumerate(schema.types)
            ]
        )
        self._waiting: list[tuple[pa.RecordBatch, Keys]] = []
        self._bytes = 0
        self._runs: list[_Run] = []
        remove_tree(folder)

    def __len__(self) -> int:
        return sum(len(run.index) for run in self._runs) + sum(len(keys) for _, keys in self._waiting)

    def add(self, rows: pa.RecordBatch, keys: Keys) -> None:
        """Some rows; parts come in order, and so do the rows of one."""
        if not len(keys):
            return
        arrays = [_as(array, kind) for array, kind in zip(rows.columns, self._kept.types, strict=True)]
        batch = pa.RecordBatch.from_arrays(arrays, schema=self._kept)
        self._waiting.append((batch, keys))
        self._bytes += batch.nbytes
        if self._bytes >= RUN_BYTES:
            self._spill()

    def _spill(self) -> None:
        batch, index = self._sorted()
        if not self._runs:
            make_folder(self._folder)
        self._runs.append(_DiskRun(self._folder / f"{len(self._runs):06d}", batch, index))

    def _sorted(self) -> tuple[pa.RecordBatch, NDArray[np.void]]:
        """What waits, in order, which is the order of parts and rows where qualities are equal; nothing waits then."""
        batch = pa.concat_batches([batch for batch, _ in self._waiting])
        keys = joined_keys([keys for _, keys in self._waiting])
        each = np.concatenate([np.full(len(keys), batch.nbytes / len(keys)) for batch, keys in self._waiting])
        self._waiting, self._bytes = [], 0
        order = np.argsort(keys.quality, kind="stable")
        index = np.empty(len(order), dtype=_INDEX)
        index["part"], index["row"] = keys.part[order], keys.index[order]
        index["quality"], index["n_tokens"] = keys.quality[order], keys.n_tokens[order]
        index["end"] = np.cumsum(each[order]).astype(np.int64)
        return take_rows(batch, order), index

    def _seal(self) -> None:
        """What waits at the end stays in memory."""
        if self._waiting:
            self._runs.append(_MemoryRun(*self._sorted()))

    def close(self) -> None:
        """Remove what is on disk."""
        self._runs = []
        remove_tree(self._folder)

    # ------------------------------------------------------------------------------------------------------- in order

    def first(self, most: int) -> Keys:
        """The keys of the first rows."""
        self._seal()
        some = np.concatenate([np.empty(0, dtype=_INDEX), *(run.index[:most] for run in self._runs)])
        return _keys(some[np.argsort(some["quality"], kind="stable")][:most])

    def in_order(self) -> Iterator[tuple[pa.RecordBatch, Keys]]:
        """All rows in order, some at a time, each with its keys."""
        self._seal()
        at = [0] * len(self._runs)
        while any(start < len(run.index) for start, run in zip(at, self._runs, strict=True)):
            ends = self._next_ends(at)
            if (
                self._bytes_between(at, ends) > 2 * BUCKET_BYTES
            ):  # many rows of one quality, which are in order
                yield from self._one_after_another(at, ends)
            else:
                yield self._merged(at, ends)
            at = ends

    def _next_ends(self, at: Sequence[int]) -> list[int]:
        """Where each run has got to when the rows of the next lowest qualities are taken."""
        lowest = min(
            run.index["quality"][k] for k, run in zip(at, self._runs, strict=True) if k < len(run.index)
        )
        low, high = _ordinal(lowest), _ordinal(np.float32(np.inf))
        found = bisect.bisect_right(
            range(low + 1, high + 1),
            BUCKET_BYTES,
            key=lambda ordinal: self._bytes_between(at, self._ends(at, _number(ordinal))),
        )
        return self._ends(at, _number(low + found))

    def _ends(self, at: Sequence[int], quality: np.float32) -> list[int]:
        return [
            max(start, int(np.searchsorted(run.index["quality"], quality, side="right")))
            for start, run in zip(at, self._runs, strict=True)
        ]

    def _bytes_between(self, at: Sequence[int], ends: Sequence[int]) -> int:
        return sum(
            int(run.index["end"][end - 1]) - (int(run.index["end"][start - 1]) if start else 0)
            for start, end, run in zip(at, ends, self._runs, strict=True)
            if end > start
        )

    def _merged(self, at: Sequence[int], ends: Sequence[int]) -> tuple[pa.RecordBatch, Keys]:
        batches: list[pa.RecordBatch] = []
        found = [np.empty(0, dtype=_INDEX)]
        for start, end, run in zip(at, ends, self._runs, strict=True):
            if end > start:
                batches += run.rows(start, end)
                found.append(np.asarray(run.index[start:end]))
        index = np.concatenate(found)
        order = np.argsort(index["quality"], kind="stable")  # runs are in the order of parts
        return self._given(take_rows(pa.concat_batches(batches), order)), _keys(index[order])

    def _one_after_another(
        self, at: Sequence[int], ends: Sequence[int]
    ) -> Iterator[tuple[pa.RecordBatch, Keys]]:
        for start, end, run in zip(at, ends, self._runs, strict=True):
            for begin in range(start, end, _BATCH_ROWS):
                stop = min(begin + _BATCH_ROWS, end)
                batch = pa.concat_batches(run.rows(begin, stop))
                yield self._given(batch), _keys(np.asarray(run.index[begin:stop]))

    def _given(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Kept rows in their own types."""
        arrays = [_as(array, kind) for array, kind in zip(batch.columns, self._schema.types, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


@dataclasses.dataclass(frozen=True, slots=True)
class _MemoryRun:
    """Rows that are in memory."""

    batch: pa.RecordBatch
    index: NDArray[np.void]

    def rows(self, start: int, end: int) -> list[pa.RecordBatch]:
        return [self.batch.slice(start, end - start)]


class _DiskRun:
    """Rows that are in a file, and their index in another."""

    def __init__(self, path: OwnPath, batch: pa.RecordBatch, index: NDArray[np.void]) -> None:
        self._path = path
        with path.open_fresh() as out, pa.ipc.new_file(out, batch.schema) as writer:
            writer.write_table(pa.Table.from_batches([batch]), max_chunksize=_BATCH_ROWS)
        place = path.with_name(f"{path.name}.index")
        with place.open_fresh() as out:
            out.write(index.tobytes())
        with place.open_read() as file:
            self.index: NDArray[np.void] = np.memmap(file, dtype=_INDEX, mode="r")

    def rows(self, start: int, end: int) -> list[pa.RecordBatch]:
        with self._path.readable() as name, mapped(name) as file:
            reader = pa.ipc.open_file(file)
            found = []
            for number in range(start // _BATCH_ROWS, -(-end // _BATCH_ROWS)):
                first = number * _BATCH_ROWS
                begin, stop = max(start - first, 0), min(end - first, _BATCH_ROWS)
                found.append(reader.get_batch(number).slice(begin, stop - begin))
            return found


def _as(array: pa.Array, kind: pa.DataType) -> pa.Array:
    return array if array.type == kind else array.cast(kind)


def _keys(index: NDArray[np.void]) -> Keys:
    none = np.zeros(len(index), dtype=np.bool_)
    return Keys(index["part"], index["row"], index["quality"], none, index["n_tokens"])


def _ordinal(value: np.float32) -> int:
    """A whole number that is larger where the float32 is: its bits, those of negative ones turned round.

    >>> _ordinal(np.float32(-1)) < _ordinal(np.float32(0)) < _ordinal(np.float32(1e-45))
    True
    """
    bits = int(np.float32(value).view(np.uint32))
    return bits + _SIGN if bits < _SIGN else 2 * _SIGN - 1 - bits


def _number(ordinal: int) -> np.float32:
    """The inverse of :func:`_ordinal`."""
    bits = ordinal - _SIGN if ordinal >= _SIGN else 2 * _SIGN - 1 - ordinal
    return np.uint32(bits).view(np.float32)
