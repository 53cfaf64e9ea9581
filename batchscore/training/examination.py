"""Evaluate the saved classifier as the scorer will run it: accuracy, temperature and canaries.

The first evaluation rows are the validation split: they select the best epoch. The others are held out, and calibrate.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.errors import ModelError, printable
from batchscore.evaluation import Evaluation, fit_temperature
from batchscore.model.backends import open_backend
from batchscore.model.bundle import N_CANARIES, Bundle, Canaries, open_bundle
from batchscore.model.bundle_facts import predicted_names
from batchscore.model.loading import DEFAULT_BATCH_TOKENS
from batchscore.model.probing import padded_safely
from batchscore.model.scoring import (
    CANARY_TOLERANCE,
    Computation,
    Computed,
    InferenceSettings,
    Model,
    Prepared,
    canary_check,
    compute,
    conclude,
    prepare,
)
from batchscore.model.tokenization import Tokenizer
from batchscore.records import Predictions
from batchscore.system.cores import usable_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.training.context import Progress, TrainingContext
    from batchscore.training.splits import Split

_LOG = logging.getLogger(__name__)
MIN_TO_CALIBRATE = 200
"""With this many evaluation rows, half are held out from selecting the epoch, for the temperature."""
MIN_FOR_TEMPERATURE = MIN_TO_CALIBRATE // 2
MAX_VALIDATION_ROWS = 2000
_PART_ROWS = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One evaluation row and its prediction."""

    text: str
    given: str
    predicted: str
    probability: float


@dataclasses.dataclass(frozen=True, slots=True)
class Examination:
    """Results of a saved classifier on the evaluation rows."""

    temperature: float
    metrics: dict[str, Any]
    canaries: dict[str, Any]
    examples: tuple[Example, ...]
    mismatches: tuple[Example, ...]


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
    return dataclasses.replace(open_bundle(str(folder)), max_length=base.max_length, long_text=base.long_text)


def examine(bundle: Bundle, split: Split, n_selection: int, context: TrainingContext) -> Examination:
    """Score the evaluation rows, fit the temperature on the held-out ones, compute metrics, pick canaries.

    All rows but the first ``n_selection`` are held out. The canaries' probabilities come from transformers, each text alone.
    The rows are scored by our own encoder if it agrees on the canaries, else by transformers.

    Raises:
        ModelError: a row cannot be scored.
    """
    ours = dataclasses.replace(bundle, canaries=Canaries((), np.zeros((0, len(bundle.labels)), np.float32)))
    examination, agrees = _evaluate(
        _load(ours, context.device, context.precision), bundle, split, n_selection, context
    )
    if not agrees:
        _LOG.info("%s: our own code and transformers differ; transformers it is", printable(bundle.path))
        model = _load(bundle, context.device, context.precision)
        examination, _ = _evaluate(model, bundle, split, n_selection, context)
    return examination


def _evaluate(
    model: Model, bundle: Bundle, split: Split, n_selection: int, context: TrainingContext
) -> tuple[Examination, bool]:
    """The results of ``model``, and whether it agrees with ``bundle`` on the canaries."""
    parts = _scored(model, split, context.progress)
    bundle = dataclasses.replace(bundle, temperature=_temperature(parts, split, n_selection))
    model = dataclasses.replace(
        model, bundle=dataclasses.replace(model.bundle, temperature=bundle.temperature)
    )
    predictions = [conclude(prepared, computed, model) for prepared, computed in parts]
    if failures := [reason for each in predictions for _, reason in each.failures]:
        raise ModelError(f"The trained model cannot score an evaluation row: {printable(failures[0])}.")
    probabilities = np.concatenate([each.probabilities for each in predictions])
    n_tokens = np.concatenate([each.n_tokens for each in predictions])
    rows = canary_rows(split, probabilities, n_tokens, bundle.max_length)
    canaries = canaries_of(bundle, [split.texts[row] for row in rows])
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != np.array(split.labels))
    examination = Examination(
        temperature=bundle.temperature,
        metrics=_metrics(bundle, split, predictions, n_selection),
        canaries=canaries,
        examples=_examples(range(min(2, len(split))), split, probabilities, bundle.labels),
        mismatches=_examples(wrong[:2], split, probabilities, bundle.labels),
    )
    return examination, canary_check(probabilities[rows], np.array(canaries["probabilities"])).agrees


def _load(bundle: Bundle, device: str, precision: str) -> Model:
    backend = open_backend("torch", bundle, device, precision)
    budget = DEFAULT_BATCH_TOKENS[device.partition(":")[0]]
    workers = usable_cores() if device == "cpu" else 1
    model = Model(bundle, Tokenizer(bundle), backend, InferenceSettings(budget, bundle.long_text), workers)
    try:
        return padded_safely(model) if backend.name == "transformers" else model
    except ModelError:
        if precision == "fp32":
            raise
        return _load(bundle, device, "fp32")


def _scored(model: Model, split: Split, progress: Progress) -> list[tuple[Prepared, Computed]]:
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
    return parts


def _temperature(parts: Sequence[tuple[Prepared, Computed]], split: Split, n_selection: int) -> float:
    """Fitted on the rows from ``n_selection`` on, one logit vector per sequence; 1.0 without rows."""
    logits, labels, row = [], [], 0
    for prepared, computed in parts:
        rows = np.arange(row, row + len(prepared.unique))
        held_out = rows >= n_selection
        label_of_text = np.full(len(prepared.encodings.n_tokens), -1)
        label_of_text[prepared.unique[held_out]] = np.array(split.labels)[rows[held_out]]
        label_of_sequence = label_of_text[prepared.encodings.row]
        logits.append(computed.logits[label_of_sequence >= 0])
        labels.append(label_of_sequence[label_of_sequence >= 0])
        row += len(rows)
    return fit_temperature(np.concatenate(logits), np.concatenate(labels))


def _metrics(
    bundle: Bundle, split: Split, predictions: Sequence[Predictions], n_selection: int
) -> dict[str, Any]:
    """Metrics on all evaluation rows, and accuracy and reliability on the held-out ones."""
    all_rows, held_out = Evaluation(bundle.labels), Evaluation(bundle.labels)
    row = 0
    for part in predictions:
        given = np.array(split.labels[row : row + len(part.predicted)])
        row += len(given)
        all_rows.update(given, part)
        # Rows that selected the epoch count as unlabelled here.
        held_out.update(np.where(np.arange(row - len(given), row) < n_selection, -1, given), part)
    metrics, held_out_metrics = all_rows.metrics(), held_out.metrics()
    quality = metrics["quality"]
    return {
        "rows": len(split),
        "accuracy": quality["accuracy"],
        "accuracy_held_out": (
            {**held_out_metrics["quality"]["accuracy"], "rows": len(split) - n_selection}
            if held_out_metrics["quality"]
            else None
        ),
        "macro_f1": quality["macro_f1"],
        "log_loss": quality["log_loss"],
        "brier_score_loss": quality["brier_score_loss"],
        "calibration_error": metrics["calibration"]["ece"],
        "reliability": held_out_metrics["reliability"],
        "per_label": quality["per_label"],
        "confusion_matrix": quality["confusion_matrix"],
    }


def canary_rows(
    split: Split, probabilities: NDArray[np.float32], n_tokens: NDArray[np.int32], max_length: int
) -> list[int]:
    """Rows whose texts become canaries: spread over labels, and within a label over lengths, the longest included.

    Rows whose top two labels are nearly tied are left out: a lower precision could flip them.
    """
    top = np.sort(probabilities, axis=1)
    is_clear = top[:, -1] - top[:, -2] > 2 * CANARY_TOLERANCE
    first_of = {text: row for row, text in reversed(list(enumerate(split.texts)))}
    rows = np.array(sorted(first_of.values()))
    rows = rows[is_clear[rows]] if is_clear[rows].any() else rows
    order = rows[np.lexsort((rows, n_tokens[rows], np.array(split.labels)[rows]))]
    spread = np.linspace(0, len(order) - 1, min(N_CANARIES, len(order))).round().astype(int)
    picked: list[int] = order[spread].tolist()
    longest = int(rows[n_tokens[rows].argmax()])
    if n_tokens[longest] > max_length and longest not in picked:
        picked[len(picked) // 2] = longest
    return picked


def canaries_of(bundle: Bundle, texts: Sequence[str]) -> dict[str, Any]:
    """Canary probabilities in float32 on the CPU, which every machine can reproduce: each text alone, no padding."""
    backend = open_backend("fresh", bundle, "cpu", "fp32")
    budget = DEFAULT_BATCH_TOKENS["cpu"]
    inference = InferenceSettings(budget, bundle.long_text, padding_mode="single")
    model = Model(bundle, Tokenizer(bundle), backend, inference)
    prepared = prepare(texts, model)
    probabilities = conclude(prepared, compute(prepared, model), model).probabilities
    rows = [[float(p) for p in row] for row in probabilities]
    return {"texts": list(texts), "probabilities": rows, "predicted": predicted_names(rows, bundle.labels)}


def _examples(
    rows: Sequence[int] | range | NDArray[np.int64],
    split: Split,
    probabilities: NDArray[np.float32],
    labels: Sequence[str],
) -> tuple[Example, ...]:
    return tuple(
        Example(
            split.texts[row],
            labels[split.labels[row]],
            labels[int(probabilities[row].argmax())],
            float(probabilities[row].max()),
        )
        for row in rows
    )
