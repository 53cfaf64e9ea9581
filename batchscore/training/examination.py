"""Evaluate the saved classifier as the scorer will run it: accuracy, temperature and canaries.

The first evaluation rows are the validation split: they select the best epoch. The others are held out, and calibrate.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.errors import ModelError, printable
from batchscore.model.backends import open_backend
from batchscore.model.backends.backend import PLAIN
from batchscore.model.bundle import N_CANARIES, Bundle, Canaries, open_bundle
from batchscore.model.bundle_facts import predicted_names
from batchscore.model.canaries import canary_check
from batchscore.model.held_out import HeldOutAnswers
from batchscore.model.loading import DEFAULT_BATCH_TOKENS
from batchscore.model.probing import padded_safely
from batchscore.model.scoring import (
    Computation,
    Computed,
    InferenceSettings,
    Model,
    Prepared,
    compute,
    conclude,
    prepare,
)
from batchscore.model.tokenization import Tokenizer
from batchscore.records import Predictions, Status, Task
from batchscore.system.cores import usable_cores
from batchscore.training.context import NoProgress
from batchscore.training.results import Results, results_of
from batchscore.training.splits import Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.records import Text
    from batchscore.training.context import Progress, TrainingContext

_LOG = logging.getLogger(__name__)
MIN_TO_CALIBRATE = 200
"""With this many evaluation rows, half are held out from selecting the epoch, for the temperature."""
MIN_FOR_TEMPERATURE = MIN_TO_CALIBRATE // 2
MAX_VALIDATION_ROWS = 2000
_PART_ROWS = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One evaluation row and its prediction."""

    text: Text
    given: str
    predicted: str
    probability: float | None
    """Of several labels, of the least sure decision; numbers have none."""


@dataclasses.dataclass(frozen=True, slots=True)
class Examination:
    """Results of a saved classifier on the evaluation rows."""

    temperature: float
    thresholds: tuple[float, ...]
    """Of several labels, from which probability each is predicted."""
    metrics: dict[str, Any]
    canaries: dict[str, Any]
    examples: tuple[Example, ...]
    mismatches: tuple[Example, ...]
    predicted: NDArray[Any]
    """Of each evaluation row, as :class:`~batchscore.records.Predictions` has it."""
    n_chosen: int
    """The first rows, which chose the epoch or the thresholds."""
    is_ours: bool
    """Whether our own encoder scored the rows, as it agrees with transformers."""
    precision: str
    """What they were scored in, as a run would score them."""
    held_out: HeldOutAnswers | None = None
    """Of one label a text: the answers to rows that neither trained it nor chose its epoch, if there are any."""


def n_validation_rows(n_rows: int) -> int:
    """The size of the validation split: the first evaluation rows, measured after each epoch."""
    return n_rows if n_rows < MIN_TO_CALIBRATE else min(n_rows // 2, MAX_VALIDATION_ROWS)


def n_selection_rows(n_rows: int, selects_epoch: bool) -> int:
    """The number of evaluation rows, the first ones, that selected the epoch and so cannot calibrate it.

    With one epoch there is nothing to select, so it is 0, and all rows fit the temperature if there are enough.
    """
    return n_validation_rows(n_rows) if selects_epoch or n_rows < MIN_FOR_TEMPERATURE else 0


def open_saved(folder: Path, base: Bundle) -> Bundle:
    """Open the folder just saved as the scorer will, still without temperature and canaries."""
    of_base = ("max_length", "long_text", "takes_pairs", "missing_pair")
    return dataclasses.replace(open_bundle(str(folder)), **{name: getattr(base, name) for name in of_base})


def examine(
    bundle: Bundle,
    split: Split,
    n_selection: int,
    context: TrainingContext,
    threshold: float | None = None,
    trained_on: Collection[Text] = (),
) -> Examination:
    """Score the evaluation rows, fit the temperature on the held-out ones, compute metrics, pick canaries.

    All rows but the first ``n_selection`` are held out. Of several labels each is predicted from the ``threshold`` on, or from
    the probability that is best for it on the validation split. Rows whose texts it was ``trained_on`` are no held-out answers.

    The canaries' probabilities come from transformers, in float32, each text alone. The rows are scored by the first of these
    that agrees on the canaries: our own encoder in the training's precision, in float32, and transformers in float32.

    Raises:
        ModelError: a row cannot be scored.
    """
    known = set(trained_on)
    is_new = np.array([row >= n_selection and text not in known for row, text in enumerate(split.texts)])
    ours = dataclasses.replace(bundle, canaries=_no_canaries(bundle))
    progress = context.progress
    ways = [(ours, context.precision), (ours, "fp32"), (bundle, "fp32")]
    for way, precision in ways[context.precision == "fp32" :]:
        found = _scored(_load(way, context.device, precision), split, progress)
        examination, agrees = _evaluate(found, bundle, split, n_selection, threshold, is_new)
        backend = found.model.backend
        if agrees or (backend.precision == "fp32" and backend.name in PLAIN):
            break
        _LOG.info(
            "%s: %s in %s is not as transformers", printable(bundle.path), backend.name, backend.precision
        )
        progress = NoProgress()  # its rows are counted
    return examination


def answers_to(bundle: Bundle, split: Split, context: TrainingContext, *, is_ours: bool) -> Predictions:
    """The answers of a saved classifier to the rows, without a temperature; by our own encoder, which is not checked, or by transformers."""
    return answers_of(model_of(bundle, context, is_ours=is_ours), split.texts, context.progress)


def model_of(bundle: Bundle, context: TrainingContext, *, is_ours: bool) -> Model:
    """A saved classifier that can score: in our own encoder, which is not checked, or in transformers."""
    if is_ours:
        bundle = dataclasses.replace(bundle, canaries=_no_canaries(bundle))
    return _load(bundle, context.device, context.precision)


def answers_of(model: Model, texts: Sequence[Text], progress: Progress) -> Predictions:
    """The answers of a model to texts."""
    parts = _scored(model, Split(list(texts), []), progress).parts
    return _joined([conclude(prepared, computed, model) for prepared, computed in parts])


def _evaluate(
    found: _Scored,
    bundle: Bundle,
    split: Split,
    n_selection: int,
    threshold: float | None,
    is_new: NDArray[np.bool_],
) -> tuple[Examination, bool]:
    """The results of a model that scored the rows, and whether it agrees with ``bundle`` on the canaries."""
    results = results_of(bundle.head)
    given = results.given(split.labels)
    bundle = dataclasses.replace(bundle, temperature=_temperature(found.parts, results, given, n_selection))
    model = dataclasses.replace(
        found.model, bundle=dataclasses.replace(found.model.bundle, temperature=bundle.temperature)
    )
    predictions = [conclude(prepared, computed, model) for prepared, computed in found.parts]
    if failures := [reason for each in predictions for _, reason in each.failures]:
        raise ModelError(f"The trained model cannot score an evaluation row: {printable(failures[0])}.")
    answers = np.concatenate([each.probabilities for each in predictions])
    n_validation = n_validation_rows(len(split))
    thresholds = results.thresholds(answers[:n_validation], given[:n_validation], threshold)
    predictions = [results.decide(each, thresholds) for each in predictions]
    n_tokens = np.concatenate([each.n_tokens for each in predictions])
    is_clear = results.are_clear(answers, thresholds)
    rows = canary_rows(split, is_clear, n_tokens, bundle.max_length, results.order(split.labels))
    canaries = canaries_of(bundle, [split.texts[row] for row in rows], thresholds)
    n_chosen = n_validation if thresholds and threshold is None else n_selection
    whole = _joined(predictions)
    examples = [_example(row, split, whole, results) for row in range(min(2, len(split)))]
    wrong = [_example(int(row), split, whole, results) for row in results.wrong(given, whole)[:2]]
    examination = Examination(
        temperature=bundle.temperature,
        thresholds=thresholds,
        metrics={"rows": len(split), **results.measured(given, predictions, n_chosen, thresholds)},
        canaries=canaries,
        examples=tuple(examples),
        mismatches=tuple(wrong),
        predicted=whole.predicted,
        n_chosen=n_chosen,
        is_ours=found.model.backend.name not in PLAIN,
        precision=found.model.backend.precision,
        held_out=_held_out(whole, given, is_new, found.model),
    )
    check = canary_check(answers[rows], np.array(canaries["probabilities"]), bundle.task)
    return examination, check.agrees


def _held_out(
    whole: Predictions, given: NDArray[Any], is_new: NDArray[np.bool_], model: Model
) -> HeldOutAnswers | None:
    kept = np.flatnonzero(is_new & (whole.status == Status.OK))
    if model.bundle.task != Task.SINGLE_LABEL or not len(kept):
        return None
    predicted = whole.predicted[kept]
    probability = whole.probabilities[kept, predicted]
    precision, long_text = model.backend.precision, model.inference.long_text
    return HeldOutAnswers(predicted, probability, predicted == given[kept], precision, long_text)


def _joined(predictions: Sequence[Predictions]) -> Predictions:
    """The predictions of all parts in one; of their work nothing."""
    if len(predictions) == 1:
        return predictions[0]

    def joined(name: str) -> Any:
        return np.concatenate([getattr(each, name) for each in predictions])

    names = ("status", "predicted", "probabilities", "n_tokens", "truncated")
    status, predicted, probabilities, n_tokens, truncated = map(joined, names)
    return Predictions(status, predicted, probabilities, n_tokens, truncated)


def _load(bundle: Bundle, device: str, precision: str) -> Model:
    backend = open_backend("torch", bundle, device, precision)
    budget = DEFAULT_BATCH_TOKENS[device.partition(":")[0]]
    workers = usable_cores() if device == "cpu" else 1
    inference = InferenceSettings(budget, bundle.long_text, missing_pair=bundle.missing_pair)
    model = Model(bundle, Tokenizer(bundle), backend, inference, workers)
    try:
        return padded_safely(model) if backend.name == "transformers" else model
    except ModelError:
        if precision == "fp32":
            raise
        return _load(bundle, device, "fp32")


def _no_canaries(bundle: Bundle) -> Canaries:
    """As if they had been checked: so our own encoder is loaded."""
    return Canaries((), np.zeros((0, len(bundle.labels)), np.float32))


class _Scored(NamedTuple):
    """A model with the logits that it gave to the evaluation rows."""

    model: Model
    parts: list[tuple[Prepared, Computed]]


def _scored(model: Model, split: Split, progress: Progress) -> _Scored:
    parts = []
    with (
        model.backend.one_core_each() as begin,
        ThreadPoolExecutor(model.workers, "examine", begin) as workers,
    ):
        for start in range(0, len(split), _PART_ROWS):
            texts = split.texts[start : start + _PART_ROWS]
            prepared = prepare(texts, model)
            parts.append((prepared, Computation(prepared, model, workers.map).result()))
            progress.add(len(texts))
    return _Scored(model, parts)


def _temperature(
    parts: Sequence[tuple[Prepared, Computed]], results: Results, given: NDArray[Any], n_selection: int
) -> float:
    """Fitted on the rows from ``n_selection`` on, one logit vector per sequence; 1.0 without rows."""
    logits, labels, row = [], [], 0
    for prepared, computed in parts:
        rows = np.arange(row, row + len(prepared.unique))
        held_out = rows >= n_selection
        row_of_text = np.full(len(prepared.encodings.n_tokens), -1)
        row_of_text[prepared.unique[held_out]] = rows[held_out]
        row_of_sequence = row_of_text[prepared.encodings.row]
        logits.append(computed.logits[row_of_sequence >= 0])
        labels.append(given[row_of_sequence[row_of_sequence >= 0]])
        row += len(rows)
    return results.temperature(np.concatenate(logits), np.concatenate(labels))


def canary_rows(
    split: Split,
    is_clear: NDArray[np.bool_],
    n_tokens: NDArray[np.int32],
    max_length: int,
    strata: NDArray[Any],
) -> list[int]:
    """Rows whose texts become canaries: spread over labels, and within a label over lengths, the longest included.

    Rows whose prediction is nearly a tie are left out: a lower precision could flip them.
    """
    first_of = {text: row for row, text in reversed(list(enumerate(split.texts)))}
    rows = np.array(sorted(first_of.values()))
    rows = rows[is_clear[rows]] if is_clear[rows].any() else rows
    order = rows[np.lexsort((rows, n_tokens[rows], strata[rows]))]
    spread = np.linspace(0, len(order) - 1, min(N_CANARIES, len(order))).round().astype(int)
    picked: list[int] = order[spread].tolist()
    longest = int(rows[n_tokens[rows].argmax()])
    if n_tokens[longest] > max_length and longest not in picked:
        picked[len(picked) // 2] = longest
    return picked


def canaries_of(bundle: Bundle, texts: Sequence[Text], thresholds: Sequence[float] = ()) -> dict[str, Any]:
    """Canary answers in float32 on the CPU, which every machine can reproduce: each text alone, no padding."""
    backend = open_backend("fresh", bundle, "cpu", "fp32")
    budget = DEFAULT_BATCH_TOKENS["cpu"]
    inference = InferenceSettings(budget, bundle.long_text, "single", bundle.missing_pair)
    model = Model(bundle, Tokenizer(bundle), backend, inference)
    prepared = prepare(texts, model)
    answers = conclude(prepared, compute(prepared, model), model).probabilities
    rows = [[float(p) for p in row] for row in answers]
    predicted = predicted_names(rows, bundle.labels, bundle.task, thresholds)
    return {"texts": list(texts), "probabilities": rows, "predicted": predicted}


def _example(row: int, split: Split, predictions: Predictions, results: Results) -> Example:
    said, probability = results.said(predictions.probabilities[row], predictions.predicted[row])
    return Example(split.texts[row], results.shown(split.labels[row]), said, probability)
