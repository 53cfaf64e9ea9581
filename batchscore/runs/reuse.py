"""``--reuse``: texts that were scored before are not scored again, and each night some of them are all the same, as an audit.

The engine sees the shards without the texts that are known: their rows are as rows without a text to it. What is known is put into
its predictions before they are staged. So every engine is the same here, and none of them knows of it.

An answer depends on its text alone (:mod:`batchscore.model.answer_bits`), so the bytes are those of a run that takes none. The
audit holds that against what is stored: of the texts that are known a share ``a`` is scored again, chosen by a digest that is keyed
with the run's fingerprint, in which tonight's inputs are, so that nobody could know it who wrote the answers; at least one in each part.
If ``k`` of the answers that tonight would take are wrong, they are found with a probability of at least ``1 - (1 - a)^k``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from batchscore.config import LATEST
from batchscore.errors import DataError, ModelError, UsageError, printable
from batchscore.model.answer_bits import refuse_dependent
from batchscore.model.canaries import CANARY_TOLERANCE, canary_check
from batchscore.model.scoring import with_answers
from batchscore.records import Part, Predictions, Rows, Shard, Status, status_of
from batchscore.runs.answer_store import Answer, AnswerStore, TextDigests, refuse_foreign_store
from batchscore.runs.earlier_predictions import EarlierPredictions, open_earlier_predictions
from batchscore.runs.folder import is_finished
from batchscore.runs.latest import latest_run
from batchscore.system.own_paths import OwnPath, own_folder
from batchscore.system.storage import remove_tree
from batchscore.system.terminal import NOTICE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.config import ScoreSettings
    from batchscore.formats.inputs import FoundFile
    from batchscore.model.bundle import Bundle
    from batchscore.model.scoring import Model

_LOG = logging.getLogger(__name__)
Source = EarlierPredictions | Path
"""A run, or the folder of a store."""


def find_source(settings: ScoreSettings, bundle: Bundle, found: Iterable[FoundFile]) -> Source | None:
    """Where answers may be taken from; None if nowhere, or ``latest`` and there is no earlier run yet.

    Raises:
        UsageError: the folder is the run's own.
        OutputError: it is neither a finished run nor a store, nor could it become one.
        DataError: it is a run that is damaged.
    """
    wanted: Path | Literal["latest"] | None = settings.reuse
    if wanted is None:
        return None
    if wanted == LATEST:
        names = [file.name for file in found]
        wanted = latest_run(settings.output, names, bundle.labels, bundle.task, night=settings.date)
        if wanted is None:
            _LOG.log(NOTICE, "--reuse latest: there is no earlier run yet")
            return None
    if wanted.resolve() == settings.output.resolve():
        raise UsageError("--reuse is the --output itself; name the folder of an earlier run, or of a store.")
    if is_finished(wanted):
        try:
            return open_earlier_predictions(wanted)
        except DataError as error:
            _refuse_named(error, settings)
            return None
    if wanted.exists() and not wanted.is_dir():
        raise UsageError(
            f"--reuse {printable(wanted)} is a file; name the folder of an earlier run, or of a store."
        )
    if wanted.is_dir():
        refuse_foreign_store(own_folder(wanted))
    else:
        _LOG.log(
            NOTICE, "--reuse %s: there is nothing yet; a store of answers is made there", printable(wanted)
        )
    return wanted


def identity_of(source: Source | None) -> str | None:
    """What no other run or store has in common with this one; None if there is none.

    Raises:
        BatchscoreError: it is damaged, locked, or refused for wrong answers.
    """
    if source is None:
        return None
    if isinstance(source, EarlierPredictions):
        return source.identity
    store = AnswerStore(OwnPath(source))
    store.close()
    return store.identity


def open_reuse(
    source: Source | None, settings: ScoreSettings, model: Model, deciding: str, seed: str, folder: OwnPath
) -> Reuse | None:
    """What takes answers from ``source``; None if there is none that fits.

    ``deciding``: by what tonight's answers are known, ``seed``: the run's fingerprint, ``folder``: for answers of an earlier run.

    Raises:
        UsageError, ModelError: answers depend on the texts beside them.
        BatchscoreError: the source is damaged, locked and so on.
    """
    if source is None:
        return None
    refuse_dependent(model)
    digests = TextDigests(deciding)
    if isinstance(source, Path):
        store = AnswerStore(OwnPath(source))
        taken = _Taken(store, store.identity, source, digests, is_added_to=True)
        return Reuse(taken, settings.audit, seed, model)
    if source.deciding != deciding:
        why = (
            "other versions, another model, precision or kind of machine"
            if source.deciding
            else "an older version"
        )
        _LOG.warning(
            "--reuse %s: no answer is taken from it, it was made with %s", printable(source.path), why
        )
        return None
    try:
        store = _read(source, model.bundle, digests, folder)
    except DataError as error:
        _refuse_named(error, settings)
        return None
    taken = _Taken(store, source.identity, source.path, digests, is_added_to=False)
    return Reuse(taken, settings.audit, seed, model)


def _read(source: EarlierPredictions, bundle: Bundle, digests: TextDigests, folder: OwnPath) -> AnswerStore:
    """The answers of an earlier run in a store of this run's own."""
    source.verify()
    remove_tree(folder)
    store = AnswerStore(folder, is_kept=False)
    try:
        for answers in source.answers(bundle):
            store.add({digests.of(text): answer for text, answer in answers})
        store.flush()
    except BaseException:
        store.close()
        raise
    return store


def _refuse_named(error: DataError, settings: ScoreSettings) -> None:
    """Refuse a run that answers cannot be read from if the user named it; that the latest one is such a run refuses no night."""
    if settings.reuse != LATEST:
        raise error
    _LOG.warning("--reuse latest: no answer is taken. %s", error)


@dataclasses.dataclass(frozen=True, slots=True)
class _PartTexts:
    """What is known of a part's texts."""

    digests: list[bytes | None]
    """Of each row's; None if there is nothing to score."""
    known: Mapping[bytes, Answer]
    audited: frozenset[bytes]

    def is_taken(self, digest: bytes | None) -> bool:
        return digest in self.known and digest not in self.audited

    @property
    def taken(self) -> NDArray[np.int64]:
        """The rows whose answers are taken."""
        return np.flatnonzero([self.is_taken(digest) for digest in self.digests])


class _Taken(NamedTuple):
    """A store that answers are taken from."""

    store: AnswerStore
    identity: str
    path: Path
    digests: TextDigests
    is_added_to: bool


class Reuse:
    """Takes answers from a store, audits them, and adds to it what was scored."""

    def __init__(self, taken: _Taken, share: float, seed: str, model: Model) -> None:
        """``share``: of the texts that are known, how many are audited, chosen by ``seed``."""
        self._store, self.identity, self._path = taken.store, taken.identity, taken.path
        self._digests, self._is_added_to = taken.digests, taken.is_added_to
        self._share, self._model = share, model
        self._seed = hashlib.sha256(seed.encode()).digest()
        self._parts: dict[int, _PartTexts] = {}
        self._lock = threading.Lock()

    def unknown(
        self, shards: Iterable[tuple[Shard, Sequence[Rows]]]
    ) -> Iterator[tuple[Shard, Sequence[Rows]]]:
        """The shards, in which rows have no text whose answer is taken."""
        for shard, rows in shards:
            light = [self._unknown(part, each) for part, each in zip(shard.parts, rows, strict=True)]
            del rows
            yield shard, light
            del light

    def _unknown(self, part: Part, rows: Rows) -> Rows:
        found = self._look_up(rows)
        with self._lock:
            self._parts[part.number] = found
        texts = [
            None if found.is_taken(digest) else text
            for text, digest in zip(rows.texts, found.digests, strict=True)
        ]
        return dataclasses.replace(rows, texts=texts)

    def without(self, shard: Shard) -> str:
        """Names the rows of a shard that are not scored, for micro-batches that are noted."""
        found = [self._parts[part.number] for part in shard.parts]
        is_taken = [each.is_taken(digest) for each in found for digest in each.digests]
        return hashlib.sha256(np.packbits(is_taken).tobytes()).hexdigest()[:16]

    def completed(self, shard: Shard, predictions: Sequence[Predictions]) -> list[Predictions]:
        """The predictions of a shard's parts with the answers that are taken, once each has passed its audit.

        Raises:
            ModelError: an answer that is stored is another than the model gives.
        """
        return [self._completed(part, each) for part, each in zip(shard.parts, predictions, strict=True)]

    def _completed(self, part: Part, predictions: Predictions) -> Predictions:
        with self._lock:
            found = self._parts.pop(part.number)
        work = {**predictions.work, **self._audited(found, predictions)}
        rows = found.taken
        answers = [found.known[found.digests[row] or b""] for row in rows]
        n_labels = predictions.probabilities.shape[1]
        whole = with_answers(
            predictions,
            rows,
            np.array([answer.values for answer in answers], dtype=np.float32).reshape(-1, n_labels),
            np.array([answer.n_tokens for answer in answers], dtype=np.int32),
            self._model,
        )
        scored = [digest for digest in found.digests if digest is not None]
        work |= {"reused": float(len(rows)), "duplicates": float(len(scored) - len(set(scored)))}
        if self._is_added_to:
            self._store.add(self._new(found, predictions))
        return dataclasses.replace(whole, work=work)

    def finish(self) -> None:
        """Every shard is staged: write what is not written yet."""
        if self._is_added_to:
            self._store.flush()

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _look_up(self, rows: Rows) -> _PartTexts:
        missing_pair = self._model.inference.missing_pair
        digests: list[bytes | None] = []
        for text in rows.given_texts:
            is_scored = text is not None and status_of(text, missing_pair) == Status.OK
            whole = (text[0] or "", text[1] or "") if isinstance(text, tuple) else text
            digests.append(self._digests.of(whole) if is_scored and whole is not None else None)
        known = self._store.find(
            {each for each in digests if each is not None}, len(self._model.bundle.labels)
        )
        return _PartTexts(digests, known, self._drawn(known))

    def _drawn(self, known: Iterable[bytes]) -> frozenset[bytes]:
        """The texts of a part that are audited."""
        draws = {digest: self._draw(digest) for digest in known}
        drawn = {digest for digest, draw in draws.items() if draw < self._share}
        if draws and self._share > 0 and not drawn:
            drawn = {min(draws, key=draws.__getitem__)}
        return frozenset(drawn)

    def _draw(self, digest: bytes) -> float:
        """Uniform in [0, 1)."""
        drawn = hashlib.blake2b(digest, digest_size=8, key=self._seed).digest()
        return int.from_bytes(drawn, "little") / 2**64

    def _audited(self, found: _PartTexts, predictions: Predictions) -> dict[str, float]:
        """The figures of a part's audit."""
        at = {digest: row for row, digest in enumerate(found.digests) if digest in found.audited}
        rows = [row for row in at.values() if predictions.status[row] in (Status.OK, Status.ABSTAINED)]
        if not rows:
            return {"audited": 0.0, "audited_otherwise": 0.0}
        stored = [found.known[found.digests[row] or b""] for row in rows]
        scored, values = predictions.probabilities[rows], np.array([each.values for each in stored])
        is_other = (scored != values).any(axis=1)
        is_other |= predictions.n_tokens[rows] != [each.n_tokens for each in stored]
        check = canary_check(scored, values, self._model.bundle.task)
        if not check.agrees:
            self._refuse(len(rows), int(is_other.sum()), check.labels_changed, check.largest_change)
        if is_other.any():
            _LOG.warning(
                "--reuse %s: of %d answers that were scored again %d differ, by %.2g at most: within what a canary may, but not to the last bit",
                printable(self._path),
                len(rows),
                is_other.sum(),
                check.largest_change,
            )
        return {"audited": float(len(rows)), "audited_otherwise": float(is_other.sum())}

    def _refuse(self, audited: int, others: int, labels: int, change: float) -> None:
        reason = (
            f"of {audited} answers that were scored again {others} are others than the model gives ({labels} with another label, the "
            f"largest change {change:.4f}, allowed: {CANARY_TOLERANCE})"
        )
        if self._is_added_to:
            self._store.refuse(reason)
        raise ModelError(
            f"--reuse {printable(self._path)}: {reason}. Nothing is written from it. Run the same command again without --reuse: "
            "what was taken from there is scored anew."
        )

    def _new(self, found: _PartTexts, predictions: Predictions) -> dict[bytes, Answer]:
        """What was scored and is not in the store."""
        is_scored = np.isin(predictions.status, (Status.OK, Status.ABSTAINED))
        return {
            digest: Answer(int(predictions.n_tokens[row]), predictions.probabilities[row])
            for row, digest in enumerate(found.digests)
            if digest is not None and is_scored[row] and digest not in found.known
        }


def facts_of_reuse(
    settings: ScoreSettings, source: Source | None, work: Mapping[str, Any]
) -> dict[str, Any] | None:
    """What ``run.json`` says of it, with the run that ``latest`` was; None if nothing was asked for."""
    if settings.reuse is None:
        return None
    return {
        "path": str(source.path if isinstance(source, EarlierPredictions) else settings.reuse),
        "audit": settings.audit,
        "rows": round(work.get("reused", 0)),
        "audited": round(work.get("audited", 0)),
        "audited_otherwise": round(work.get("audited_otherwise", 0)),
    }
