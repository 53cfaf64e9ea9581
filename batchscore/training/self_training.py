"""Texts without labels improve the model: it teaches a fresh one, together with a linear model on words.

The trained model and the linear one (:mod:`batchscore.training.linear_baseline`) see different things in a text, so their errors
are others (co-training: Blum and Mitchell 1998, doi:10.1145/279943.279962). What they say together of each text, as
probabilities, is the target (Hinton et al. 2015, arXiv:1503.02531) of a fresh model that learns with dropout (noisy student: Xie et al.
2020, arXiv:1911.04252); that one, and the linear model again, then teach the second half of the texts.

Rows that evaluate, and texts that are the same as one of them, are never among these texts.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.model.tokenization import Tokenizer
from batchscore.records import Task
from batchscore.reports.self_training import self_training_line
from batchscore.system.journal import read_checked, write_checked
from batchscore.system.storage import make_folder
from batchscore.training.attempts import Attempt, Material, attempt
from batchscore.training.context import NoProgress
from batchscore.training.examination import answers_to, n_validation_rows
from batchscore.training.linear_baseline import linear_answers, paired
from batchscore.training.results import results_of, row_losses
from batchscore.training.splits import Split
from batchscore.training.tokenized_rows import TokenizedRows, rows_of
from batchscore.training.unlabelled import MOST_TEXTS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from batchscore.model.bundle import Bundle
    from batchscore.records import Encodings, Text
    from batchscore.training.context import TrainingContext
    from batchscore.training.splits import Label
    from batchscore.training.unlabelled import Unlabelled

LEAST_TEXTS = 100
"""Below that nothing is to be gained."""
_SAMPLE = 256
"""Texts by which the speed is measured."""
_STEP = 3
"""What a token costs that is learned, forward and backward, in forward passes."""
_SHARE_OF_TIME = 0.9
"""What is planned of the time that is given."""
_MAX_TOKENS = 256
"""Texts are cut there while they are learned from: twice as many of them bring more than their middles do."""
_GIVEN_TIMES = 2
"""How often each labelled row is among the texts of a round."""
_WEIGHTS = ((0.5, 1.0), (0.6, 0.5))
"""In each round, of the logarithms of what the model and the linear model say. On 500 movie reviews the linear model is little worse
than the first model; the second is better, and has learned from both."""
_ROUNDS = len(_WEIGHTS)
_SAVED = "texts.json"


def self_trained(
    material: Material,
    unlabelled: Unlabelled,
    splits: tuple[TokenizedRows, TokenizedRows],
    plain: Attempt,
    seconds: float,
    context: TrainingContext,
) -> tuple[Attempt, dict[str, Any]]:
    """The better of the model that was trained without the texts and the one with them, and what is to be said of it.

    The first evaluation rows (:func:`~batchscore.training.examination.n_validation_rows`) decide. ``seconds``: what the training of
    ``plain`` took.
    """
    folder = context.folder / "unlabelled"
    make_folder(folder)
    count = _count(material, splits, plain, unlabelled.texts, seconds, folder, context)
    made, chunks = plain, _chunks(material, unlabelled.texts[:count])
    context.tell(
        f"unlabelled: learning from {count} of {unlabelled.facts['given']} texts, in {len(chunks)} rounds"
    )
    for number, texts in enumerate(chunks):
        is_last = number == len(chunks) - 1
        made = _round(material, splits, made, texts, number, is_last=is_last, context=context)
    facts = _compared(material, plain, made) | unlabelled.facts | {"learned": count}
    context.tell(self_training_line(material.data.goal.task, facts))
    return made if facts["is_better"] else plain, facts


def _count(
    material: Material,
    splits: tuple[TokenizedRows, TokenizedRows],
    plain: Attempt,
    texts: list[Text],
    seconds: float,
    folder: Path,
    context: TrainingContext,
) -> int:
    """How many texts are learned from: by the time that is given, if one is. A resumed training keeps what was found."""
    saved: int | None = read_checked(folder / _SAVED)
    if saved is not None:
        return saved
    count = min(len(texts), MOST_TEXTS)
    if material.settings.minutes is not None:
        sample = texts[:_SAMPLE]
        started = time.monotonic()
        _answers(plain, sample, dataclasses.replace(context, progress=NoProgress()))
        to_score = (time.monotonic() - started) / len(sample)
        learned = sum(map(len, _encoded(material, sample).input_ids)) / len(sample)
        work = _Work.of(material, splits)
        a_pass = max(seconds / work.first, to_score / learned)  # seconds are few where a training was resumed
        left = 60 * material.settings.minutes * _SHARE_OF_TIME - a_pass * work.rounds
        to_learn = a_pass * work.learning * learned
        count = max(min(LEAST_TEXTS, len(texts)), min(len(texts), int(left / (to_score + to_learn))))
    write_checked(folder / _SAVED, count)
    return count


class _Work(NamedTuple):
    """What trainings take, in forward passes over a token."""

    first: float
    """The training of the labelled rows, with all that is evaluated."""
    rounds: float
    """The rounds with the texts, but for the texts."""
    learning: float
    """A token that is learned once."""

    @classmethod
    def of(cls, material: Material, splits: tuple[TokenizedRows, TokenizedRows]) -> _Work:
        train, watched = (sum(map(len, each.input_ids)) for each in splits)
        plan, measured = material.plan, watched / len(splits[1].labels) * len(material.data.evaluation)
        rounds = 1 if _is_learned_at_once(material) else _ROUNDS
        given = rounds * _GIVEN_TIMES * train
        if not plan.trains_encoder:  # each row goes through the base once
            return cls(train + watched + measured, given + (2 * rounds - 1) * watched + measured, 1)
        every = sum(map(len, splits[0].by_window().input_ids))
        return cls(
            plan.epochs * (_STEP * every + watched) + measured,
            _STEP * given + (2 * rounds - 1) * watched + measured,
            _STEP,
        )


def _is_learned_at_once(material: Material) -> bool:
    """Numbers are, as a saved model has them in another unit."""
    return material.data.goal.task == Task.REGRESSION


def _chunks(material: Material, texts: list[Text]) -> list[list[Text]]:
    """The texts of each round."""
    if _is_learned_at_once(material) or len(texts) < _ROUNDS:
        return [texts]
    half = max(1, len(texts) * 3 // 7)
    return [texts[:half], texts[half:]]


def _round(
    material: Material,
    splits: tuple[TokenizedRows, TokenizedRows],
    teacher: Attempt,
    texts: list[Text],
    number: int,
    *,
    is_last: bool,
    context: TrainingContext,
) -> Attempt:
    """A model that learned what the teacher and the linear model say of the texts; the second one goes on from the first."""
    data, folder = material.data, context.folder / "unlabelled" / str(number)
    make_folder(folder)
    measured = data.evaluation
    if not is_last:  # only its temperature is needed
        measured = measured.select(range(n_validation_rows(len(measured))))
    with material.over(len(texts), context) as watched:
        rows = _rows(material, splits[0], teacher, texts, number, watched)
    plan = dataclasses.replace(material.plan, epochs=1.0, early_stopping=None)
    base = material.base
    if number:  # the saved model has the mean layer, as the last of its layers
        more = plan.pooling == "mean"
        layers = None if plan.train_layers is None else plan.train_layers + more
        base, plan = (
            teacher.saved,
            dataclasses.replace(plan, pooling="first", train_layers=layers, student_layers=None),
        )
    material = material._replace(base=base, plan=plan)
    n_selection = n_validation_rows(len(measured)) if is_last else 0
    of_round = dataclasses.replace(context, folder=folder)
    with material.over(len(rows.labels) + len(measured), of_round) as watched:
        return attempt(material, (rows, splits[1]), measured, n_selection, folder / "bundle", watched)


def _rows(
    material: Material,
    given: TokenizedRows,
    teacher: Attempt,
    texts: list[Text],
    number: int,
    context: TrainingContext,
) -> TokenizedRows:
    """The texts with what is said of them, and the labelled rows with what they were given.

    Texts that cannot be tokenised are left out.
    """
    task, n_labels = material.data.goal.task, len(material.data.labels)
    said = _answers(teacher, texts, context)
    linear = linear_answers(material.data, texts)
    targets = said if linear is None else combined(task, said, linear, _WEIGHTS[number])
    found = _encoded(material, texts)
    usable = [row for row in np.unique(found.row).tolist() if np.isfinite(targets[row]).all()]
    targets = targets[usable]
    said_rows = rows_of(f"unlabelled-{number}", found, usable, _labels(task, targets))
    soft = None
    if task != Task.REGRESSION:
        each = np.array(given.labels)
        known = np.eye(n_labels, dtype=np.float32)[each] if each.ndim == 1 else each.astype(np.float32)
        soft = np.concatenate([targets, *[known] * _GIVEN_TIMES])
    types, own = said_rows.token_type_ids, given.token_type_ids
    return TokenizedRows(
        said_rows.name,
        [*said_rows.input_ids, *list(given.input_ids) * _GIVEN_TIMES],
        [*said_rows.labels, *list(given.labels) * _GIVEN_TIMES],
        None if types is None or own is None else [*types, *list(own) * _GIVEN_TIMES],
        soft,
    )


def _encoded(material: Material, texts: list[Text]) -> Encodings:
    """Tokens of texts, of long ones of their beginning and end."""
    base = material.base
    short = dataclasses.replace(base, max_length=min(base.max_length, _MAX_TOKENS))
    return Tokenizer(short).encode(texts, "head" if base.takes_pairs else "head-tail")


def _answers(teacher: Attempt, texts: list[Text], context: TrainingContext) -> NDArray[np.float32]:
    """What a trained model says of texts, with its temperature: ``[n, C]`` probabilities, or numbers ``[n, 1]``."""
    examination = teacher.examination
    calibrated: Bundle = dataclasses.replace(teacher.saved, temperature=examination.temperature)
    return answers_to(calibrated, Split(texts, []), context, is_ours=examination.is_ours).probabilities


def combined(
    task: Task, model: NDArray[np.float32], linear: NDArray[np.float32], weights: tuple[float, float]
) -> NDArray[np.float32]:
    """What two models say together: a product of their probabilities to the powers of ``weights``, ``[n, C]`` float32.

    Of several labels each for itself; of numbers the mean, ``[n, 1]``.
    """
    if task == Task.REGRESSION:
        return np.asarray((model + linear) / 2, dtype=np.float32)
    pair = (model.astype(np.float64), linear.astype(np.float64))
    scores = _weighted(pair, weights)
    others = _weighted((1 - pair[0], 1 - pair[1]), weights)
    if task == Task.MULTI_LABEL:
        return np.asarray(1 / (1 + np.exp(others - scores)), dtype=np.float32)
    each = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(each / each.sum(axis=1, keepdims=True), dtype=np.float32)


def _weighted(pair: Sequence[NDArray[np.float64]], weights: Sequence[float]) -> NDArray[np.float64]:
    logs = (np.log(np.clip(each, 1e-4, 1.0)) for each in pair)
    return np.asarray(sum(weight * log for weight, log in zip(weights, logs, strict=True)))


def _labels(task: Task, targets: NDArray[np.float32]) -> list[Label]:
    """The labels that targets come to."""
    if task == Task.REGRESSION:
        return [float(value) for value in targets[:, 0]]
    if task == Task.MULTI_LABEL:
        return [tuple(int(value >= 0.5) for value in row) for row in targets]
    return [int(index) for index in targets.argmax(axis=1)]


def _compared(material: Material, plain: Attempt, made: Attempt) -> dict[str, Any]:
    """How the two differ on the rows that chose nothing, and ``is_better``: whether it is on those that choose."""
    data = material.data
    chosen = n_validation_rows(len(data.evaluation))
    before, after = (
        float(row_losses(data.goal.task, data.evaluation.labels, each.examination.predicted)[:chosen].mean())
        for each in (plain, made)
    )
    compared = paired(data, made.examination, plain.examination.predicted, results_of(made.saved.head))
    return {"is_better": after <= before} | compared
