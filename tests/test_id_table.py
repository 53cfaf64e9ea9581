"""Ids found again: on disk, whatever the number of buckets."""

from __future__ import annotations

import collections
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchscore.runs import id_table
from batchscore.runs.id_table import ABSENT, AMBIGUOUS, IdTable

IDS = st.lists(st.one_of(st.none(), st.text(max_size=3), st.integers(0, 60).map(str)), max_size=120)


def expected(stored: Sequence[str | None], wanted: Sequence[str | None]) -> list[int]:
    times = collections.Counter(stored)
    values = {each: number for number, each in enumerate(stored)}
    return [
        ABSENT if not each or each not in values else AMBIGUOUS if times[each] > 1 else values[each]
        for each in wanted
    ]


@settings(max_examples=60, deadline=None)
@given(IDS, IDS, st.integers(1, 7), st.integers(1, 500))
def test_a_table_finds_what_a_dictionary_finds(
    stored: list[str | None], wanted: list[str | None], pieces: int, rows: int
) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(id_table, "_BUCKET_ROWS", 8)
        table = IdTable(Path(folder), rows)
        for at in np.array_split(np.arange(len(stored)), pieces):
            table.add([stored[k] for k in at], at.astype(np.int64))
        table.seal()
        assert table.find([*wanted, *stored]).tolist() == expected(stored, [*wanted, *stored])
