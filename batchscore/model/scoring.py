"""Score one part: rows in, predictions out.

``prepare`` (tokenise) and ``conclude`` (probabilities, input order) need no device, so an engine may overlap them with
``Computation``, the forward passes; ``score_part`` runs all three in turn.

A part's micro-batches depend only on its rows and the token budget, and each is computed independently: their order and
concurrency change no bit. The budget does change the last bit, as libraries pick kernels by the number of rows. So if the
device runs out of memory, the whole part is planned again with half the budget. The result is that of the largest halved
budget that fits, whatever else ran at the time, and the next part starts with the full budget; a resumed run does the same.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.errors import printable
from batchscore.model import batching
from batchscore.model.backends import PLAIN, Backend, OutOfDeviceMemoryError
from batchscore.model.decisions import decided, undecided
from batchscore.model.device_time import DeviceTime
from batchscore.records import OUT_OF_MEMORY, Encodings, MicroBatch, Predictions, Rows, Status, status_of
from batchscore.system.memory import has_room

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.model.bundle import Bundle
    from batchscore.model.tokenization import Tokenizer
    from batchscore.records import GivenText, Text

    Task = Callable[[list[int]], list["Scored"]]
    MapTasks = Callable[[Task, Iterable[list[int]]], Iterator[list["Scored"]]]
    """``map``, or that of an executor: results come in the order of the items."""

_LOG = logging.getLogger(__name__)
LONGEST_PROBE = 65 * batching.LENGTH_MULTIPLE
"""Tokens of the longest probe (:mod:`batchscore.model.probing`); a length that rows are padded to."""


@dataclasses.dataclass(frozen=True, slots=True)
class InferenceSettings:
    """What a prediction depends on besides bundle and backend.

    Scoring processes, which load the model by themselves, make it of the same settings, so that a new field goes with it.
    """

    max_batch_tokens: int
    """Padded tokens in a micro-batch."""
    long_text: str
    """How a text beyond the longest input is handled: ``head``, ``head-tail`` or ``windows``."""
    padding_mode: str = "right"
    """One of :data:`batchscore.model.batching.PADDING_MODES`."""
    missing_pair: str = "skip"
    """Whether a row without its second text is not scored (``skip``) or scored with an ``empty`` one."""
    thresholds: tuple[float, ...] = ()
    """One a label, or none (:func:`batchscore.model.decisions.decided`)."""
    below: str = "next"
    """What happens to a row of one label whose likeliest is below its threshold: the ``next`` one, or ``abstain``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """Everything needed to turn texts into probabilities."""

    bundle: Bundle
    tokenizer: Tokenizer
    backend: Backend
    inference: InferenceSettings
    workers: int = dataclasses.field(default=1, compare=False)
    """Micro-batches computed at a time; changes no prediction."""
    tokenisers: int = dataclasses.field(default=0, compare=False)
    """Threads that tokenise beside the one that reads; 0: that one does. Changes no prediction."""

    @property
    def padding(self) -> batching.Padding:
        """How micro-batches are padded; for transformers only up to the length of the longest probe."""
        padding = self.tokenizer.padding(self.inference.padding_mode)
        return (
            dataclasses.replace(padding, longest_probe=LONGEST_PROBE)
            if self.backend.name in PLAIN
            else padding
        )

    @property
    def mixes_parts(self) -> bool:
        """Whether rows of several small parts may go through the model in one micro-batch.

        A GPU needs large micro-batches. On a CPU a file's answers are the same bits whatever files are beside it: in a micro-batch
        with theirs if the backend computes a row alike there, else in its own.
        """
        return self.backend.device != "cpu" or (self.backend.name == "torch" and self.backend.rows_are_alone)

    def with_inference(self, **changes: Any) -> Model:
        """The same model with some :class:`InferenceSettings` changed."""
        return dataclasses.replace(self, inference=dataclasses.replace(self.inference, **changes))


class Prepared(NamedTuple):
    """A part, or the parts of a shard, ready for the device."""

    status: NDArray[np.int8]
    unique: NDArray[np.int64]
    """Index of each row into the distinct texts, -1 if there is nothing to score."""
    encodings: Encodings
    """Of the distinct texts."""
    rows: tuple[int, ...]
    """Of each part, in order."""
    apart: tuple[int, ...]
    """How many consecutive sequences are planned into micro-batches together, for all of them."""


class Computed(NamedTuple):
    """Logits ``[sequences, C]`` float32 (NaN where a sequence failed), failures, and counts of the work done."""

    logits: NDArray[np.float32]
    failures: dict[int, str]
    work: dict[str, float]


def score_part(rows: Rows, model: Model) -> Predictions:
    """Score the rows of a part; predictions are in input order."""
    return score_texts(rows.given_texts, model)


def score_texts(texts: Sequence[GivenText], model: Model) -> Predictions:
    """Score texts, or two texts a row; predictions are in their order."""
    return score_parts([texts], model)[0]


def score_parts(parts: Sequence[Sequence[GivenText]], model: Model) -> list[Predictions]:
    """The same for the parts of a shard: the predictions of each."""
    prepared = prepare_parts(parts, model)
    return conclude_parts(prepared, compute(prepared, model), model)


def prepare(texts: Sequence[GivenText], model: Model) -> Prepared:
    """Set the status of each row, and tokenise each distinct text, or pair of texts, once."""
    status = np.array([status_of(text, model.inference.missing_pair) for text in texts], dtype=np.int8)
    seen: dict[Text, int] = {}
    unique = np.full(len(texts), -1, dtype=np.int64)
    for index, text in enumerate(texts):
        if status[index] == Status.OK and text is not None:
            whole = text if isinstance(text, str) else (text[0] or "", text[1] or "")
            unique[index] = seen.setdefault(whole, len(seen))
    encodings = model.tokenizer.encode(list(seen), model.inference.long_text)
    return Prepared(status, unique, encodings, (len(status),), (len(encodings.input_ids),))


def prepare_parts(parts: Sequence[Sequence[GivenText]], model: Model) -> Prepared:
    """The same for the parts of a shard: each distinct text of all of them once, if the model may mix them."""
    if len(parts) == 1:
        return prepare(parts[0], model)
    if not model.mixes_parts:
        return _joined([prepare(texts, model) for texts in parts])
    whole = prepare([text for texts in parts for text in texts], model)
    return whole._replace(rows=tuple(map(len, parts)))


def _joined(parts: Sequence[Prepared]) -> Prepared:
    """Parts one behind the other."""
    starts = np.cumsum([0, *(len(part.encodings.n_tokens) for part in parts)])
    unique = [np.where(p.unique >= 0, p.unique + start, -1) for p, start in zip(parts, starts, strict=False)]
    return Prepared(
        status=np.concatenate([part.status for part in parts]),
        unique=np.concatenate(unique),
        encodings=Encodings.joined([part.encodings for part in parts]),
        rows=tuple(rows for part in parts for rows in part.rows),
        apart=tuple(each for part in parts for each in part.apart),
    )


class Scored(NamedTuple):
    """The result of one micro-batch, or of several."""

    sequence: NDArray[np.int64]
    logits: NDArray[np.float32]
    """``[b, C]`` in the order of ``sequence``; NaN where it failed."""
    failures: dict[int, str]
    work: collections.Counter[str]


class Watcher:
    """Sees the micro-batches of one part as they are done; this one looks away.

    A micro-batch is known by the part, the budget that it was planned with and its number in that plan.
    """

    def known(self, budget: int) -> Mapping[int, Scored]:  # noqa: ARG002
        """Those that an earlier start did, which are not computed again."""
        return {}

    def done(self, budget: int, number: int, scored: Scored, share: float) -> None:
        """Another is done, or was known: ``share`` of the part's sequences. Called in the threads of workers."""


UNWATCHED = Watcher()


def compute(prepared: Prepared, model: Model) -> Computed:
    """Run the micro-batches of a part through the model, one after the other."""
    return Computation(prepared, model).result()


class Computation:
    """The forward passes of a part.

    ``map_tasks`` runs them; an executor's ``map`` starts at once, so that several parts can be in flight. ``device`` is told when
    its device has something to do.
    """

    def __init__(
        self,
        prepared: Prepared,
        model: Model,
        map_tasks: MapTasks = map,
        watcher: Watcher = UNWATCHED,
        device: DeviceTime | None = None,
    ) -> None:
        self._sequences, self._model, self._map_tasks = prepared.encodings.input_ids, model, map_tasks
        self._apart = prepared.apart
        self._types = prepared.encodings.token_type_ids
        self._watcher, self._device = watcher, device or DeviceTime()
        self._budget, self._halvings = model.inference.max_batch_tokens, 0
        self._scored = self._begin()

    def _begin(self) -> Iterator[Scored]:
        budget = self._budget
        batches = batching.plan_apart(self._sequences, self._apart, budget, self._model.padding)
        known = self._watcher.known(budget)

        def scored_of(number: int) -> Scored:
            scored, sequence = known.get(number), batches[number]
            if scored is None or not np.array_equal(scored.sequence, sequence):
                scored = self._run(sequence)
            self._watcher.done(budget, number, scored, len(sequence) / len(self._sequences))
            return scored

        tokens = (sum(len(self._sequences[each]) for each in sequence) for sequence in batches)

        def task(numbers: list[int]) -> list[Scored]:
            return [scored_of(number) for number in numbers]

        return itertools.chain.from_iterable(self._map_tasks(task, _tasks(tokens, budget)))

    def result(self) -> Computed:
        """Wait for all micro-batches; if one does not fit the device, all are run again with half the budget."""
        while True:
            try:
                return self._gather()
            except OutOfDeviceMemoryError as error:
                self._model.backend.release()
                self._budget, self._halvings = self._budget // 2, self._halvings + 1
                _LOG.warning(
                    "out of memory (%s); the part is scored again with %d tokens in a micro-batch",
                    printable(error)[:200],
                    self._budget,
                )
                self._scored = self._begin()

    def _gather(self) -> Computed:
        logits = np.full((len(self._sequences), len(self._model.bundle.labels)), np.nan, dtype=np.float32)
        failures: dict[int, str] = {}
        work = collections.Counter[str]()
        for scored in self._scored:
            logits[scored.sequence] = scored.logits
            failures |= scored.failures
            work.update(scored.work)
        work["halvings"] = self._halvings
        return Computed(logits, failures, {key: float(work[key]) for key in _WORK})

    def _run(self, sequence: NDArray[np.int64]) -> Scored:
        """Score one micro-batch; if it fails it is halved until the failing row is alone.

        Raises:
            OutOfDeviceMemoryError: fewer rows may fit.
        """
        model = self._model
        batch = batching.assemble(self._sequences, sequence, model.padding, self._types)
        started = time.perf_counter()
        try:
            with self._device.busy():
                logits = model.backend.logits(batch)
            if not np.isfinite(logits).all():
                raise FloatingPointError("the model's output is not finite")
            return Scored(sequence, logits, {}, _work(batch, time.perf_counter() - started))
        except OutOfDeviceMemoryError as error:
            if len(sequence) > 1:
                raise
            model.backend.release()
            reason = f"{OUT_OF_MEMORY}: {error}"
        except MemoryError:
            if len(sequence) == 1 and not has_room():
                raise  # it is not the row's fault, which is scored when there is more
            reason = f"{OUT_OF_MEMORY}: there is none left"
        except Exception as error:  # noqa: BLE001 - whatever a backend raises must not fail other rows
            reason = f"{type(error).__name__}: {error}"
        if len(sequence) == 1:
            nan = np.full((1, len(model.bundle.labels)), np.nan, dtype=np.float32)
            failure = {int(sequence[0]): printable(reason)[:500]}
            return Scored(sequence, nan, failure, _work(batch, time.perf_counter() - started))
        middle = (len(sequence) + 1) // 2
        first, second = self._run(sequence[:middle]), self._run(sequence[middle:])
        return Scored(
            sequence,
            np.concatenate([first.logits, second.logits]),
            first.failures | second.failures,
            first.work + second.work,
        )


def _tasks(tokens: Iterable[int], budget: int) -> list[list[int]]:
    """The numbers of micro-batches in tasks, given the tokens of each: small ones, as of small files, together.

    Together they are no more work than a full one, so a run that is stopped does not wait longer.
    """
    tasks: list[list[int]] = []
    left = 0
    for number, count in enumerate(tokens):
        if not tasks or count > left:
            tasks.append([])
            left = budget
        tasks[-1].append(number)
        left -= count
    return tasks


def _work(batch: MicroBatch, seconds: float) -> collections.Counter[str]:
    tokens = int(batch.attention_mask.sum())
    values = (seconds, tokens, batch.input_ids.size, 1)
    return collections.Counter(dict(zip(_WORK, values, strict=False)))


_WORK = ("forward_seconds", "tokens", "padded_tokens", "micro_batches", "halvings")


def conclude(prepared: Prepared, computed: Computed, model: Model) -> Predictions:
    """Turn logits into calibrated probabilities, merge windows, and expand distinct texts into rows."""
    encodings = prepared.encodings
    probabilities = _merge_windows(encodings, model.bundle.answers(computed.logits))
    failed = {int(encodings.row[sequence]): reason for sequence, reason in computed.failures.items()}
    failed |= encodings.failures
    status = prepared.status.copy()
    failures = []
    for row, text in enumerate(prepared.unique):
        if int(text) in failed:
            status[row] = Status.FAILED
            failures.append((row, failed[int(text)]))
    scored = status == Status.OK
    rows = np.full((len(status), probabilities.shape[1]), np.nan, dtype=np.float32)
    rows[scored] = probabilities[prepared.unique[scored]]
    work = {**computed.work, "duplicates": float((prepared.unique >= 0).sum() - len(encodings.n_tokens))}
    n_tokens = np.where(prepared.unique >= 0, _at(encodings.n_tokens, prepared.unique, -1), -1)
    inference = model.inference
    predicted = decided(model.bundle.task, rows, scored, inference.thresholds, inference.below)
    status[undecided(model.bundle.task, predicted, scored)] = Status.ABSTAINED
    return Predictions(
        status=status,
        predicted=predicted,
        probabilities=rows,
        n_tokens=n_tokens.astype(np.int32),
        truncated=n_tokens > model.tokenizer.max_length,
        failures=tuple(failures),
        work=work,
    )


def conclude_parts(prepared: Prepared, computed: Computed, model: Model) -> list[Predictions]:
    """The same for each part: the first has the cost of all, as it cannot be told apart, each its own duplicates."""
    whole = conclude(prepared, computed, model)
    if len(prepared.rows) == 1:
        return [whole]
    ends = np.cumsum(prepared.rows).tolist()
    parts: list[Predictions] = []
    for start, end in zip([0, *ends], ends, strict=False):
        unique = prepared.unique[start:end]
        scored = unique[unique >= 0]
        duplicates = {"duplicates": float(len(scored) - len(np.unique(scored)))}
        parts.append(whole.between(start, end, duplicates if parts else {**computed.work, **duplicates}))
    return parts


def with_answers(
    predictions: Predictions,
    rows: NDArray[np.int64],
    answers: NDArray[np.float32],
    n_tokens: NDArray[np.int32],
    model: Model,
) -> Predictions:
    """Predictions with what is known of some ``rows``, which were not scored: their ``answers[n, C]`` and ``n_tokens[n]``."""
    status, every = predictions.status.copy(), predictions.n_tokens.copy()
    probabilities = predictions.probabilities.copy()
    status[rows], probabilities[rows], every[rows] = Status.OK, answers, n_tokens
    status[status == Status.ABSTAINED] = Status.OK
    scored, task, inference = status == Status.OK, model.bundle.task, model.inference
    predicted = decided(task, probabilities, scored, inference.thresholds, inference.below)
    status[undecided(task, predicted, scored)] = Status.ABSTAINED
    return dataclasses.replace(
        predictions,
        status=status,
        predicted=predicted,
        probabilities=probabilities,
        n_tokens=every,
        truncated=every > model.tokenizer.max_length,
    )


def _at(values: NDArray[np.int32], index: NDArray[np.int64], missing: int) -> NDArray[np.int32]:
    return values[index] if len(values) else np.full(len(index), missing, dtype=np.int32)


def _merge_windows(encodings: Encodings, probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities ``[texts, C]`` float32: the mean over a text's windows, weighted by their tokens."""
    texts = len(encodings.n_tokens)
    if len(probabilities) == texts and not encodings.failures:
        return probabilities
    total = np.zeros((texts, probabilities.shape[1]), dtype=np.float64)
    np.add.at(total, encodings.row, probabilities * encodings.weight[:, None])
    weight = np.bincount(encodings.row, encodings.weight, minlength=texts).astype(
        np.float64
    )  # int64 of nothing
    weight[list(encodings.failures)] = np.nan
    return (total / weight[:, None]).astype(np.float32)
