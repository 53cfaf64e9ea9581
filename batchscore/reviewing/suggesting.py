"""The rows of a run that are most worth labelling: those that the model is least sure of, of many kinds, each text once.

Labelling what the model is least sure of alone would ask for the same kind of row again and again. So of the least sure rows, ten times
as many as are wanted, TF-IDF of their words makes as many clusters as rows are wanted (k-means, in which less sure rows weigh more),
and each gives its least sure row: the weighted clustering of Zhdanov (2019, arXiv:1901.05954). Rows that have a label or a verdict,
and texts that a labelled row has too, are left out.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.errors import DataError, OutputError, printable
from batchscore.formats.registry import suffix_of_file
from batchscore.formats.text_keys import text_key
from batchscore.reviewing import csv_exchange, label_studio
from batchscore.reviewing.exchange import CSV, has_pairs
from batchscore.reviewing.records import rows_of
from batchscore.reviewing.run_rows import ReviewedRun, RowChunk, open_run
from batchscore.reviewing.store import existing_store
from batchscore.system.storage import atomic_write

if TYPE_CHECKING:
    from numpy.typing import NDArray

SUFFIX = ".suggested"
"""What the name of the file adds to that of the run, without another one."""
_POOL = 10
"""Unsure rows for each that is wanted."""
_MOST_POOL = 20_000
_MOST_CLUSTERS = 500
_CHARACTERS = 2_000
"""Of a text, from its beginning: what it is about."""
_ROUNDS = 20


@dataclasses.dataclass(frozen=True, slots=True)
class SuggestSettings:
    """Settings of one call."""

    run: Path
    rows: int = 200
    kind: str = CSV
    output: Path | None = None
    """The file; ``None`` is beside the run."""
    seed: int = 0
    force: bool = False

    @property
    def file(self) -> Path:
        """The file that is written."""
        if self.output is not None:
            return self.output
        run = self.run.absolute()
        ending = suffix_of_file(CSV, "") if self.kind == CSV else ".json"
        return run.with_name(f"{run.name}{SUFFIX}{ending}")


class Suggested(NamedTuple):
    """What was suggested."""

    rows: int
    candidates: int
    """Rows that have a text, an answer, and neither label nor verdict."""
    least: float | None
    """The probability of the predicted label of the least sure row."""
    most: float | None
    file: Path
    interface: str | None
    """The labelling interface for Label Studio, if the file is for it."""


def suggest(settings: SuggestSettings) -> Suggested:
    """Write the rows of a finished run that are most worth labelling.

    Raises:
        NoInputError: there is no finished run.
        DataError: it was changed, lacks texts or probabilities, or has no row without a label.
        OutputError: the file is there already, and may hold labels by now.
    """
    path = settings.file
    if path.exists() and not settings.force:
        raise OutputError(
            f"{printable(path)} is there already, and may hold labels by now. Name another --output, or add --force."
        )
    run = open_run(settings.run)
    pool = _pool_of(run, settings.rows)
    if not len(pool.keys):
        raise DataError(
            f"{printable(settings.run)}: every row with an answer has a label or a verdict, so there is nothing to suggest."
        )
    wanted = _chosen(pool, settings.rows, settings.seed)
    place = {key: at for at, key in enumerate(wanted)}
    rows = sorted(rows_of(run, place), key=lambda row: place[row.key])
    with atomic_write(path) as out:
        pairs = has_pairs(run)
        if settings.kind == CSV:
            csv_exchange.write(out, run.fingerprint, ((row, None) for row in rows), has_pairs=pairs)
        else:
            model = str(run.run.model.get("fingerprint", ""))
            label_studio.write(out, run.fingerprint, model, ((row, None) for row in rows))
    sure = [row.probability for row in rows if row.probability is not None]
    for_tool = label_studio.interface(run.labels, has_pairs=pairs) if settings.kind != CSV else None
    return Suggested(
        len(rows), pool.candidates, min(sure, default=None), max(sure, default=None), path, for_tool
    )


class _Pool(NamedTuple):
    """The least sure rows, the least sure first."""

    keys: list[int]
    doubts: NDArray[np.float64]
    """The probability of the predicted label, 0 where no label reached its threshold; ``[n]``."""
    words: list[str]
    candidates: int


class _Unsure:
    """The least sure rows that were seen, each text once, in bounded memory."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._found: list[tuple[float, int, bytes, str]] = []
        self._limit = np.inf

    def add(self, doubt: float, key: int, text_hash: bytes, words: str) -> None:
        if doubt < self._limit:
            self._found.append((doubt, key, text_hash, words))
            if len(self._found) >= 2 * self._most:
                self._cut()

    def _cut(self) -> None:
        """Keep the least sure row of each text, and of those the least sure."""
        first: dict[bytes, tuple[float, int, bytes, str]] = {}
        for row in sorted(self._found, key=lambda row: row[:2]):
            first.setdefault(row[2], row)
        self._found = list(first.values())[: self._most]
        if len(self._found) == self._most:
            self._limit = self._found[-1][0]

    def rows(self) -> list[tuple[float, int, bytes, str]]:
        self._cut()
        return self._found


def _pool_of(run: ReviewedRun, wanted: int) -> _Pool:
    """The rows to choose among; the run is read twice if any of its rows has a label."""
    unsure, judged = _Unsure(max(wanted, min(_POOL * wanted, _MOST_POOL))), _judged(run)
    candidates = unknown = labelled = 0
    for chunk in run.chunks():
        labelled += int((chunk.given >= 0).sum())
        for at, doubt in _unlabelled(chunk):
            key = int(chunk.keys[at])
            if key in judged:
                continue
            candidates += 1
            if np.isnan(doubt):
                unknown += 1
                continue
            text = _text(chunk, at)
            unsure.add(doubt, key, text_key(text), _words(text))
    if unknown:
        raise DataError(
            f"{printable(run.path)}: its predictions do not hold the probability of the predicted label, so that nobody can tell what the "
            "model was sure of. Score again without --probabilities none."
        )
    rows = unsure.rows()
    known = _labelled_texts(run, {row[2] for row in rows}, judged) if labelled or judged else set()
    rows = [row for row in rows if row[2] not in known]
    return _Pool(
        [row[1] for row in rows], np.array([row[0] for row in rows]), [row[3] for row in rows], candidates
    )


def _judged(run: ReviewedRun) -> frozenset[int]:
    """The rows that have a verdict."""
    store = existing_store(run)
    if store is None:
        return frozenset()
    try:
        return frozenset(verdict.key for verdict in store.all_standing())
    finally:
        store.close()


def _unlabelled(chunk: RowChunk) -> Iterator[tuple[int, float]]:
    """Rows with an answer and without a label, each with the probability of what was predicted."""
    doubt = np.where(chunk.abstained, 0.0, chunk.probability)
    wanted = ((chunk.predicted >= 0) | chunk.abstained) & (chunk.given < 0)
    for at in np.flatnonzero(wanted).tolist():
        if chunk.texts[at] is not None:
            yield at, float(doubt[at])


def _labelled_texts(run: ReviewedRun, wanted: set[bytes], judged: frozenset[int]) -> set[bytes]:
    """Those of some texts that a row with a label or a verdict has too."""
    found: set[bytes] = set()
    for chunk in run.chunks():
        rows = (chunk.given >= 0) | np.isin(chunk.keys, list(judged))
        for at in np.flatnonzero(rows).tolist():
            if chunk.texts[at] is not None:
                found.add(text_key(_text(chunk, at)))
        found &= wanted
    return found


def _text(chunk: RowChunk, at: int) -> str | tuple[str, str]:
    text = chunk.texts[at] or ""
    return text if chunk.pairs is None else (text, chunk.pairs[at] or "")


def _words(text: str | tuple[str, str]) -> str:
    texts = (text,) if isinstance(text, str) else text
    return "\n".join(each[:_CHARACTERS] for each in texts)


def _chosen(pool: _Pool, wanted: int, seed: int) -> list[int]:
    """The keys of the rows that are suggested, the least sure first."""
    if len(pool.keys) <= wanted:
        return pool.keys
    clusters = _clusters(pool, min(wanted, _MOST_CLUSTERS), seed)
    rank = np.zeros(len(clusters), dtype=np.int64)
    seen: dict[int, int] = {}
    for at, cluster in enumerate(clusters):  # the least sure first
        rank[at] = seen.get(cluster, 0)
        seen[cluster] = rank[at] + 1
    first = np.lexsort((np.arange(len(rank)), rank))[:wanted]
    return [pool.keys[at] for at in sorted(first.tolist())]


def _clusters(pool: _Pool, wanted: int, seed: int) -> Sequence[int]:
    """The cluster of each row; all in one if there are no words to tell them apart."""
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer
    from threadpoolctl import threadpool_limits

    try:
        words: Any = TfidfVectorizer(sublinear_tf=True, min_df=2, max_df=0.5).fit_transform(pool.words)
    except ValueError:  # an empty vocabulary
        return [0] * len(pool.keys)
    weights = 1 - pool.doubts + 1e-6
    with threadpool_limits(1), warnings.catch_warnings():  # one thread: the order of sums decides ties
        warnings.simplefilter("ignore")  # fewer distinct rows than clusters
        found = KMeans(wanted, n_init=1, max_iter=_ROUNDS, random_state=seed).fit(
            words, sample_weight=weights
        )
    clusters: list[int] = found.labels_.tolist()
    return clusters
