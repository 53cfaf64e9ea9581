"""The rows for review as the page asks for them: filtered, a page at a time, with what holds of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from batchscore.reviewing.databases import connect, telling
from batchscore.reviewing.index import Population
from batchscore.reviewing.run_rows import ReviewedRun, key_of, place_of
from batchscore.reviewing.store import DRAWN, WORST, VerdictStore, kind_of
from batchscore.system.own_paths import OwnPath

_MOST_CHARACTERS = 1_000_000
"""Of the texts of one page: a longer text comes by itself."""
_MOST_MAPPED = 2**30
"""Bytes of the index that are read where the system has them, without a copy."""
_COLUMNS = (
    "r.key, r.given, r.predicted, r.probability, r.is_issue, r.id, r.text, r.pair, s.kind, s.label, s.number"
)
_PLACES = {WORST: "worst", DRAWN: "drawn"}


class Filter(NamedTuple):
    """Which rows are wanted."""

    tab: str = WORST
    """In the order of suspicion, or as they were drawn at random."""
    pair: tuple[int, int] | None = None
    """Given and predicted label, below 0 for none."""
    slice: tuple[str, str] | None = None
    """Column and value."""
    file: int | None = None
    text: str = ""
    """A part of text or id, in whatever case."""
    reviewed: bool | None = None
    """Only those that have a verdict, or only those that have none."""


class Row(NamedTuple):
    """One row for review."""

    place: int
    """In the order of its tab, from 0."""
    key: int
    given: int
    predicted: int
    probability: float | None
    is_issue: bool
    id: str | None
    text: str
    pair: str | None
    kind: str | None
    """What holds of it, if anybody said."""
    label: str | None
    number: int | None
    """Of the event by which that holds."""


class ReviewQueue:
    """The rows of one run, read from its index beside its verdicts."""

    def __init__(self, run: ReviewedRun, index: OwnPath, store: VerdictStore, most_drawn: int) -> None:
        """``most_drawn``: the rows that are shown of those drawn at random."""
        self.run, self.path, self.most_drawn = run, index, most_drawn
        self._connection = connect(index)
        with telling(index):
            uri = f"{store.path.path.absolute().as_uri()}?mode=rw"
            self._connection.execute("ATTACH ? AS v", (uri,))
            self._connection.execute("PRAGMA temp_store = MEMORY")
            self._connection.execute(f"PRAGMA mmap_size = {_MOST_MAPPED}")
            self._connection.execute("CREATE TEMP TABLE hits (key INTEGER PRIMARY KEY)")
        self._searched = ""

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def rows(
        self, wanted: Filter, *, after: int = -1, before: int | None = None, most: int = 20
    ) -> list[Row]:
        """The next rows ``after`` a place, or, backwards, those ``before`` one; as many as fit a page."""
        order = _PLACES[wanted.tab]
        where, values = self._where(wanted)
        sign, turn, edge = (">", "ASC", after) if before is None else ("<", "DESC", before)
        query = (
            f"SELECT r.{order}, {_COLUMNS} FROM rows r LEFT JOIN v.standing s ON s.key = r.key WHERE {where} "  # noqa: S608
            f"AND r.{order} {sign} ? ORDER BY r.{order} {turn} LIMIT ?"
        )
        found: list[Row] = []
        characters = 0
        with telling(self.path):
            for values_of_row in self._connection.execute(query, (*values, edge, most)):
                row = Row(*values_of_row)
                characters += len(row.text) + len(row.pair or "")
                if found and characters > _MOST_CHARACTERS:
                    break
                found.append(row)
        return found

    def row(self, key: int, tab: str) -> Row | None:
        """One row, if it is for review in that tab."""
        order = _PLACES[tab]
        query = f"SELECT r.{order}, {_COLUMNS} FROM rows r LEFT JOIN v.standing s ON s.key = r.key WHERE r.key = ?"  # noqa: S608
        with telling(self.path):
            found = self._connection.execute(query, (key,)).fetchone()
        return None if found is None else Row(*found)._replace(place=-1 if found[0] is None else found[0])

    def counts(self, wanted: Filter) -> dict[str, int]:
        """How many rows a filter has, ``reviewed`` or not, and how many of them are."""
        where, values = self._where(wanted._replace(reviewed=None))
        query = (
            "SELECT count(*), count(s.key) FROM rows r "  # noqa: S608
            f"LEFT JOIN v.standing s ON s.key = r.key WHERE {where}"
        )
        with telling(self.path):
            rows, reviewed = self._connection.execute(query, values).fetchone()
        return {"rows": rows, "reviewed": reviewed}

    def pairs(self) -> list[tuple[int, int, int]]:
        """Given label, predicted label and rows in the order of suspicion, most rows first."""
        query = (
            "SELECT given, predicted, count(*) FROM rows WHERE worst IS NOT NULL "
            "GROUP BY given, predicted ORDER BY count(*) DESC, given, predicted"
        )
        with telling(self.path):
            return list(self._connection.execute(query))

    def slices(self, most: int = 500) -> list[tuple[str, str, int]]:
        """Column, value and rows, at most so many."""
        query = "SELECT name, value, count(*) FROM slices GROUP BY name, value ORDER BY name, value LIMIT ?"
        with telling(self.path):
            return list(self._connection.execute(query, (most,)))

    @property
    def facts(self) -> Mapping[str, int]:
        """Numbers that were counted while the run was read: ``answered``, ``labelled``, ``mismatches``."""
        with telling(self.path):
            found = dict(self._connection.execute("SELECT name, value FROM facts WHERE name != 'recipe'"))
        return {name: int(value) for name, value in found.items()}

    @property
    def population(self) -> Population:
        """What rows at random are drawn from."""
        return Population(self.facts["answered"], self.facts["labelled"])

    def drawn(self) -> list[Row]:
        """The rows drawn at random that count as judged, in the order of the draw; their texts are left out.

        They are those up to the last one that was judged where they are shown, or all once all are judged, wherever. So a row that was
        judged because it looked wrong does not count by that alone.
        """
        columns = _COLUMNS.replace("r.text, r.pair", "'', NULL")
        query = (
            f"SELECT s.tab, r.drawn, {columns} FROM rows r LEFT JOIN v.standing s ON s.key = r.key "  # noqa: S608
            "WHERE r.drawn < ? ORDER BY r.drawn"
        )
        with telling(self.path):
            found = [(tab, Row(*row)) for tab, *row in self._connection.execute(query, (self.most_drawn,))]
        if all(row.kind is not None for _, row in found):
            return [row for _, row in found]
        end = max((place + 1 for place, (tab, _) in enumerate(found) if tab == DRAWN), default=0)
        return [row for _, row in found[:end]]

    def _search(self, text: str) -> None:
        """Put the rows with a text into ``hits``, where those of the last search are: a look at all texts for each new one."""
        if text != self._searched:
            with telling(self.path):
                self._connection.execute("DELETE FROM hits")
                self._connection.execute(
                    "INSERT INTO hits SELECT key FROM search WHERE instr(folded, ?) > 0", (text,)
                )
            self._searched = text

    def _where(self, wanted: Filter) -> tuple[str, Sequence[Any]]:
        """The conditions on rows ``r`` and what holds of them, ``s``, with their values."""
        order = _PLACES[wanted.tab]
        conditions, values = [f"r.{order} IS NOT NULL"], list[Any]()
        if wanted.tab == DRAWN:
            conditions.append("r.drawn < ?")
            values.append(self.most_drawn)
        if wanted.pair is not None:
            conditions.append("r.given = ? AND r.predicted = ?")
            values += wanted.pair
        if wanted.slice is not None:
            conditions.append("r.key IN (SELECT key FROM slices WHERE name = ? AND value = ?)")
            values += wanted.slice
        if wanted.file is not None:
            conditions.append("r.key >= ? AND r.key < ?")
            values += [key_of(wanted.file, 0), key_of(wanted.file + 1, 0)]
        if wanted.text:
            self._search(wanted.text.casefold())
            conditions.append("r.key IN (SELECT key FROM hits)")
        if wanted.reviewed is not None:
            conditions.append(f"s.key IS {'NOT ' if wanted.reviewed else ''}NULL")
        return " AND ".join(conditions), values


def shown(run: ReviewedRun, row: Row) -> dict[str, Any]:
    """A row as the page gets it, as JSON values; its key is a text, as JavaScript's numbers end at 2**53."""
    file, place = place_of(row.key)
    given, predicted = label_of(run, row.given), label_of(run, row.predicted)
    kind = (
        row.kind if row.label is None else kind_of(row.label, given, predicted)
    )  # its label may have come since
    return {
        "key": str(row.key),
        "place": row.place,
        "file": run.names[file],
        "row": place + 1,
        "id": row.id,
        "given": given,
        "predicted": predicted,
        "probability": row.probability,
        "is_issue": bool(row.is_issue),
        "texts": [row.text] if row.pair is None else [row.text, row.pair],
        "verdict": None if row.kind is None else {"kind": kind, "label": row.label, "number": row.number},
    }


def label_of(run: ReviewedRun, index: int) -> str | None:
    """The label with this index; None below 0."""
    return run.labels[index] if index >= 0 else None
