"""What more labels would bring: the same training on a quarter and a half of the rows, and a power law through the errors.

Error as a power of the number of training rows is what learning curves follow over a wide range (Hestness et al. 2017, arXiv:1712.00409;
Viering and Loog 2023, IEEE TPAMI 45:7799-7819). Two of the three sizes are trained for it, each as a training of so many rows would be
by default. The interval is that of a bootstrap over the evaluation rows, on which all three are measured; that another draw of training
rows would give another curve is not in it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from batchscore.records import Predictions
from batchscore.reports.learning_curve import curve_lines
from batchscore.system.journal import read_checked, write_checked
from batchscore.system.storage import make_folder, remove_tree
from batchscore.training.base_model import hidden_size_of, load_tokenizer, save_classifier
from batchscore.training.examination import answers_to, open_saved
from batchscore.training.objectives import strata_of
from batchscore.training.results import results_of, row_losses
from batchscore.training.saved_units import in_its_unit
from batchscore.training.soft_labels import with_soft_labels
from batchscore.training.splits import stratified
from batchscore.training.tokenized_rows import TokenizedRows, fit_rows

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from batchscore.training.attempts import Material
    from batchscore.training.context import TrainingContext
    from batchscore.training.examination import Examination
    from batchscore.training.settings import Hyperparameters
    from batchscore.training.splits import Split, TrainingData

LEAST_ROWS = 20
"""Training rows; a quarter of fewer says nothing."""
MOST_MEASURED = 2000
"""Evaluation rows that the sizes are compared on."""
_DRAWS = 2000
_SAVED = "points.json"


def plan_for(rows: int, material: Material) -> Hyperparameters:
    """The hyperparameters by which so many rows would be trained on."""
    settings, plan = material.settings, material.plan
    found = settings.resolved(rows, plan.pooling, hidden_size_of(material.base))
    epochs = plan.epochs if settings.tune else found.epochs
    return dataclasses.replace(
        found, learning_rate=plan.learning_rate, epochs=epochs, soft_labels=plan.soft_labels
    )


def learning_curve(
    material: Material,
    splits: tuple[TokenizedRows, TokenizedRows],
    examination: Examination,
    context: TrainingContext,
) -> dict[str, Any] | None:
    """Train on a quarter and a half of the rows; the curve as JSON values, or None if there are too few rows.

    ``rows`` and ``losses`` of the three sizes, ``evaluated`` rows, the ``exponent`` of the power law, and what so many ``more``
    rows would bring: ``gain`` {value, low, high}, less loss than with the rows that there are.
    """
    data, seed = material.data, material.plan.seed
    measured = _measured(data.evaluation, examination)
    parts = nested(strata_of(data.goal.task, data.train.labels), seed)
    if len(data.train) < LEAST_ROWS or not parts or not len(measured):
        context.tell("learning-curve: too few rows to say what more labels would bring")
        return None
    folder = context.folder / "curve"
    make_folder(folder)
    saved: list[list[float]] = read_checked(folder / _SAVED) or []
    for number, rows in enumerate(parts[len(saved) :], start=len(saved)):
        answers = _answers(material, splits, rows, measured, examination, folder / str(number), context)
        saved.append(_losses(data, measured, answers.predicted).tolist())
        write_checked(folder / _SAVED, saved)
    whole = _losses(data, measured, examination.predicted[measured.place])
    counts = [*map(len, parts), len(data.train)]
    curve = extrapolated(counts, np.array([*saved, whole]), seed)
    for line in curve_lines(data.goal.task, curve):
        context.tell(f"learning-curve: {line}")
    return curve


class _Measured(NamedTuple):
    """The evaluation rows that sizes are compared on."""

    split: Split
    place: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.place)


def _measured(evaluation: Split, examination: Examination) -> _Measured:
    """Rows that chose nothing; all if there are no others."""
    first = examination.n_chosen if examination.n_chosen < len(evaluation) else 0
    place = np.arange(first, min(len(evaluation), first + MOST_MEASURED))
    return _Measured(evaluation.select(place), place)


def nested(strata: Sequence[int], seed: int) -> list[list[int]]:
    """Positions of a quarter and of a half of the rows, each label with its share, the quarter within the half."""
    half = stratified(strata, 0.5, seed)
    quarter = stratified([strata[row] for row in half], 0.5, seed + 1)
    parts = [[half[row] for row in quarter], half]
    return parts if parts[0] else []


def _answers(
    material: Material,
    splits: tuple[TokenizedRows, TokenizedRows],
    rows: Sequence[int],
    measured: _Measured,
    examination: Examination,
    folder: Path,
    context: TrainingContext,
) -> Predictions:
    """What a classifier that was trained on these rows says of the measured ones."""
    remove_tree(folder)
    make_folder(folder)
    plan, data = plan_for(len(rows), material), material.data
    passes = round(plan.epochs * len(rows)) if plan.trains_encoder else len(rows)
    quiet = dataclasses.replace(context, tell=lambda _: None)
    with material.over(passes + len(measured), quiet) as watched:
        part = splits[0].restricted_to(rows)  # which is learned as the whole was
        some = with_soft_labels(data, plan, part, least_recall=0.0), splits[1]
        fitted = fit_rows(material.base, data.goal, plan, some, watched, folder)
        bundle = folder / "bundle"
        save_classifier(fitted.model, load_tokenizer(material.base), material.base, bundle)
        saved = in_its_unit(open_saved(bundle, material.base), fitted.standard, material.base)
        answers = answers_to(saved, measured.split, watched, is_ours=examination.is_ours)
    decided = results_of(saved.head).decide(answers, examination.thresholds)
    remove_tree(folder)
    return decided


def _losses(data: TrainingData, measured: _Measured, predicted: NDArray[Any]) -> NDArray[np.float64]:
    return row_losses(data.goal.task, measured.split.labels, predicted)


# ---------------------------------------------------------------------------------------------------- extrapolation


def extrapolated(rows: Sequence[int], losses: NDArray[np.float64], seed: int) -> dict[str, Any]:
    """The power law through the mean losses ``[sizes, n]`` of trainings on so many ``rows``, and where it leads."""
    n, more = losses.shape[1], steps(rows[-1])
    random = np.random.default_rng(seed)
    draws = (losses[:, random.integers(0, n, n)] for _ in range(_DRAWS))
    means = [losses.mean(axis=1), *(drawn.mean(axis=1) for drawn in draws)]
    floor = 0.5 * losses.max(initial=1e-9) / n  # a loss of none has no logarithm
    exponents, gains = _law(np.array(rows), np.maximum(means, floor), np.array(more))
    low, high = np.quantile(gains[1:], [0.025, 0.975], axis=0)
    return {
        "rows": list(rows),
        "losses": [float(each) for each in means[0]],
        "evaluated": n,
        "exponent": float(exponents[0]),
        "more": [
            {
                "rows": step,
                "gain": {"value": float(gains[0][k]), "low": float(low[k]), "high": float(high[k])},
            }
            for k, step in enumerate(more)
        ],
    }


def steps(rows: int) -> list[int]:
    """How many more rows are asked about: some two fifths as a round number, and as many again.

    >>> steps(500), steps(25_000)
    ([200, 500], [10000, 25000])
    """
    digit = 10 ** (len(str(max(1, round(rows * 0.4)))) - 1)
    return [max(1, round(rows * 0.4 / digit)) * digit, rows]


def _law(
    rows: NDArray[np.int64], means: NDArray[np.float64], more: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exponents ``[draws]`` and gains ``[draws, steps]`` of ``loss = scale * rows ** -exponent`` through ``means[draws, sizes]``.

    Least squares in logarithms; an exponent below 0, by which more rows would harm, is 0.
    """
    x = np.log(rows)
    centred = x - x.mean()
    slopes = np.log(means) @ centred / (centred @ centred)
    exponents = np.maximum(0.0, -slopes)
    scale = np.exp(np.log(means).mean(axis=1) + exponents * x.mean())
    at = scale[:, None] * np.array([rows[-1], *(rows[-1] + more)], dtype=np.float64) ** -exponents[:, None]
    return exponents, at[:, :1] - at[:, 1:]
