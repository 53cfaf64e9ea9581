"""The saved classifier, examined as the scorer will run it: accuracy, temperature and canaries."""

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
"""Evaluation rows from which half are kept from the choice of the epoch, for the temperature."""
FEWEST_FOR_TEMPERATURE = MIN_TO_CALIBRATE // 2
MOST_TO_CHOOSE = 2000
_PART_ROWS = 512


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One evaluation row with what the bundle says of it."""

    text: str
    given: str
    predicted: str
    probability: float


@dataclasses.dataclass(frozen=True, slots=True)
class Examination:
    """What the evaluation rows say about a saved classifier."""

    temperature: float
    metrics: dict[str, Any]
    canaries: dict[str, Any]
    examples: tuple[Example, ...]
    mismatches: tuple[Example, ...]


def rows_to_watch(n_rows: int) -> int:
    """How many of the evaluation rows, the first ones, are measured after each epoch; the others never meet training."""
    return n_rows if n_rows < MIN_TO_CALIBRATE else min(n_rows // 2, MOST_TO_CHOOSE)


def rows_that_chose(n_rows: int, chooses: bool) -> int:
    """How many of the evaluation rows, the first ones, have chosen what came out, and may not calibrate it.

    Where there was nothing to choose (one epoch) none has, and all of them fit the temperature if they are enough.
    """
    return rows_to_watch(n_rows) if chooses or n_rows < FEWEST_FOR_TEMPERATURE else 0


def open_saved(folder: Path, base: Bundle) -> Bundle:
    """The folder that was just saved, as the scorer will open it, still without temperature and canaries."""
    return dataclasses.replace(open_bundle(str(folder)), max_length=base.max_length, long_text=base.long_text)


def examine(bundle: Bundle, split: Split, chosen: int, context: TrainingContext) -> Examination:
    """Score the evaluation rows, fit the temperature on those that did not choose the epoch, measure, pick canaries.

    The first ``chosen`` rows have chosen it. The canaries' probabilities are those of transformers for each text by itself;
    the rows are scored by our own code, if that gives the canaries the same ones, and else by transformers as well.

    Raises:
        ModelError: a row cannot be scored.
    """
    ours = dataclasses.replace(bundle, canaries=Canaries((), np.zeros((0, len(bundle.labels)), np.float32)))
    examination, agrees = _examined(
        _load(ours, context.device, context.precision), bundle, split, chosen, context
    )
    if not agrees:
        _LOG.info("%s: our own code and transformers differ; transformers it is", printable(bundle.path))
        model = _load(bundle, context.device, context.precision)
        examination, _ = _examined(model, bundle, split, chosen, context)
    return examination


def _examined(
    model: Model, bundle: Bundle, split: Split, chosen: int, context: TrainingContext
) -> tuple[Examination, bool]:
    """What ``model`` says of the rows, and whether it agrees with ``bundle`` on the canaries."""
    parts = _scored(model, split, context.progress)
    bundle = dataclasses.replace(bundle, temperature=_temperature(parts, split, chosen))
    model = dataclasses.replace(
        model, bundle=dataclasses.replace(model.bundle, temperature=bundle.temperature)
    )
    predictions = [conclude(prepared, computed, model) for prepared, computed in parts]
    if failures := [reason for each in predictions for _, reason in each.failures]:
        raise ModelError(f"The trained model cannot score an evaluation row: {printable(failures[0])}.")
    probabilities = np.concatenate([each.probabilities for each in predictions])
    n_tokens = np.concatenate([each.n_tokens for each in predictions])
    rows = canary_rows(split, probabilities, n_tokens, bundle.max_length)
    canaries = _canaries(bundle, [split.texts[row] for row in rows])
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != np.array(split.labels))
    examination = Examination(
        temperature=bundle.temperature,
        metrics=_metrics(bundle, split, predictions, chosen),
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


def _temperature(parts: Sequence[tuple[Prepared, Computed]], split: Split, chosen: int) -> float:
    """Fitted on the rows from ``chosen`` on, one logit vector a sequence; 1.0 where there are none."""
    logits, labels, row = [], [], 0
    for prepared, computed in parts:
        rows = np.arange(row, row + len(prepared.unique))
        held_out = rows >= chosen
        label_of_text = np.full(len(prepared.encodings.n_tokens), -1)
        label_of_text[prepared.unique[held_out]] = np.array(split.labels)[rows[held_out]]
        label_of_sequence = label_of_text[prepared.encodings.row]
        logits.append(computed.logits[label_of_sequence >= 0])
        labels.append(label_of_sequence[label_of_sequence >= 0])
        row += len(rows)
    return fit_temperature(np.concatenate(logits), np.concatenate(labels))


def _metrics(bundle: Bundle, split: Split, predictions: Sequence[Predictions], chosen: int) -> dict[str, Any]:
    """Quality on all evaluation rows, and on those alone that did not choose the epoch."""
    everything, held_out = Evaluation(bundle.labels), Evaluation(bundle.labels)
    row = 0
    for part in predictions:
        given = np.array(split.labels[row : row + len(part.predicted)])
        row += len(given)
        everything.update(given, part)
        # Rows that chose the epoch count as unlabelled here.
        held_out.update(np.where(np.arange(row - len(given), row) < chosen, -1, given), part)
    metrics, alone = everything.metrics(), held_out.metrics()
    quality = metrics["quality"]
    return {
        "rows": len(split),
        "accuracy": quality["accuracy"],
        "accuracy_held_out": (
            {**alone["quality"]["accuracy"], "rows": len(split) - chosen} if alone["quality"] else None
        ),
        "macro_f1": quality["macro_f1"],
        "log_loss": quality["log_loss"],
        "brier_score_loss": quality["brier_score_loss"],
        "calibration_error": metrics["calibration"]["ece"],
        "reliability": alone["reliability"],
        "per_label": quality["per_label"],
        "confusion_matrix": quality["confusion_matrix"],
    }


def canary_rows(
    split: Split, probabilities: NDArray[np.float32], n_tokens: NDArray[np.int32], max_length: int
) -> list[int]:
    """Rows whose texts become canaries: spread over the labels, and within a label over the lengths, longest included.

    Rows whose two likeliest labels are nearly tied are left out: any change of precision could turn them.
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


def _canaries(bundle: Bundle, texts: Sequence[str]) -> dict[str, Any]:
    """Their probabilities in float32 on the CPU, which every machine can repeat: each text by itself, and nothing padded."""
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
