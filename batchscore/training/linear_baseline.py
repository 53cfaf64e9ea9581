"""A linear model beside every training: what words alone say of the same rows, so that a transformer shows what it adds.

TF-IDF of words and of pairs of neighbouring words, with logistic regression, or ridge regression for numbers (scikit-learn). It is
fitted on the training rows in seconds, and compared with the trained model on the evaluation rows, row by row.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation import measures_of
from batchscore.formats.text_keys import text_key
from batchscore.model.decisions import decided
from batchscore.records import Task
from batchscore.training.examination import n_validation_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from batchscore.records import Text
    from batchscore.training.examination import Examination
    from batchscore.training.results import Results
    from batchscore.training.splits import Split, TrainingData

_MOST_ROWS = 50_000
"""More training rows than that change the figure little, and would no longer take seconds."""
_MOST_FEATURES = 500_000
_FOLDS = 10
_RARE_ROWS = 200
"""With fewer training rows, words of one row count too."""
_STRENGTH = 10.0
"""The inverse of the regularisation: of 1, 10 and 100 the best on 500 movie reviews of two draws of three, and near it on the third."""
_WITHOUT_SPACES = "\u3040-\u30ff\u3400-\u9fff"
"""Kana and Han characters, each of which counts as a word: they are written without spaces."""
_WORD = rf"(?u)[{_WITHOUT_SPACES}]|[^\W{_WITHOUT_SPACES}]{{2,}}"


def linear_answers(data: TrainingData, texts: Sequence[Text]) -> NDArray[np.float32] | None:
    """What a linear model that was fitted on the training rows says of other texts: ``[n, C]`` probabilities, or numbers ``[n, 1]``.

    None if the training texts hold no word.
    """
    from threadpoolctl import threadpool_limits

    train = data.train.select(range(min(len(data.train), _MOST_ROWS)))  # which are shuffled
    with threadpool_limits(1), warnings.catch_warnings():  # one thread: the order of sums decides last bits
        warnings.simplefilter("ignore")  # a label that all rows have, or no row
        try:
            words, others = _words(train.texts, texts)
        except ValueError:  # an empty vocabulary
            return None
        return _fitted(data, np.array(train.labels), words, others)


def out_of_fold(data: TrainingData, split: Split, seed: int) -> NDArray[np.float32] | None:
    """What the model says of rows that it was not fitted on, one label a text: ``[n, C]`` probabilities.

    Rows of one group, or of one text, are in one fold. Rare labels count as much as frequent ones, so that a row is not doubted for
    having one. None if there is nothing to cross-validate, as where a label has one row only, or the texts hold no word.
    """
    from threadpoolctl import threadpool_limits

    labels = np.array(split.labels)
    folds = _folds(split, labels, seed)
    if not folds:
        return None
    answers = np.zeros((len(labels), len(data.labels)), dtype=np.float32)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            words, _ = _words(split.texts, split.texts[:1])
        except ValueError:  # an empty vocabulary
            return None
        for fitted, asked in folds:
            logistic = _logistic(is_balanced=True).fit(words[fitted], labels[fitted])
            answers[np.ix_(asked, logistic.classes_)] = logistic.predict_proba(words[asked])
    return answers


def _folds(
    split: Split, labels: NDArray[np.int64], seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Which rows are fitted and which are asked about, in each fold; none where a fold would lack a label."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    known, counts = np.unique(labels, return_counts=True)
    groups = split.groups or [None] * len(split)
    names = [
        text_key(text) if group is None else group for text, group in zip(split.texts, groups, strict=True)
    ]
    count = min(_FOLDS, int(counts.min()), len(set(names)))
    if len(known) < 2 or count < 2:
        return []
    is_each_alone = len(set(names)) == len(names)
    cut = (StratifiedKFold if is_each_alone else StratifiedGroupKFold)(count, shuffle=True, random_state=seed)
    numbers = np.unique(np.array([str(name) for name in names]), return_inverse=True)[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folds = list(cut.split(labels, labels, numbers))
    return folds if all(len(np.unique(labels[fitted])) == len(known) for fitted, _ in folds) else []


def _logistic(*, is_balanced: bool = False) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=_STRENGTH, max_iter=1000, class_weight="balanced" if is_balanced else None)


def _words(train: Sequence[Text], others: Sequence[Text]) -> tuple[Any, Any]:
    """The features of texts, fitted on the first ones: sparse ``[n, features]``."""
    from scipy.sparse import hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

    pairs = zip(_columns(train), _columns(others), strict=True)
    found = []
    for column, other in pairs:
        vectorizer = TfidfVectorizer(
            token_pattern=_WORD,
            ngram_range=(1, 2),
            min_df=1 if len(column) < _RARE_ROWS else 2,
            sublinear_tf=True,
            max_features=_MOST_FEATURES,
            dtype=np.float64,
        )
        found.append((vectorizer.fit_transform(column), vectorizer.transform(other)))
    return tuple(hstack(each).tocsr() for each in zip(*found, strict=True))


def _columns(texts: Sequence[Text]) -> list[list[str]]:
    """The texts, or the first ones and the second ones, which have words of their own."""
    if texts and isinstance(texts[0], tuple):
        return [list(column) for column in zip(*texts, strict=True)]
    return [[str(text) for text in texts]]


def _fitted(data: TrainingData, labels: NDArray[Any], words: Any, others: Any) -> NDArray[np.float32]:
    from sklearn.linear_model import Ridge
    from sklearn.multiclass import OneVsRestClassifier

    task, n_labels = data.goal.task, len(data.labels)
    if task == Task.REGRESSION:
        return np.asarray(Ridge().fit(words, labels).predict(others), dtype=np.float32).reshape(-1, 1)
    logistic = _logistic()
    if task == Task.MULTI_LABEL:
        several = OneVsRestClassifier(logistic).fit(words, labels)
        return np.asarray(several.predict_proba(others), dtype=np.float32)
    answers = np.zeros((others.shape[0], n_labels), dtype=np.float32)
    if len(known := np.unique(labels)) == 1:
        answers[:, known[0]] = 1
        return answers
    logistic.fit(words, labels)
    answers[:, logistic.classes_] = logistic.predict_proba(others)
    return answers


def compared_with_linear(
    data: TrainingData, examination: Examination, results: Results, threshold: float | None
) -> dict[str, Any] | None:
    """How the trained model and the linear one differ on the evaluation rows that chose nothing, or on all if there are no others.

    JSON values: the entry ``comparison`` of a run's metrics with the linear model as the earlier one, ``trained_on`` rows, and
    ``is_held_out``. None if the training texts hold no word. Of several labels, thresholds are chosen as for the trained model.
    """
    answers = linear_answers(data, data.evaluation.texts)
    if answers is None:
        return None
    task, given = data.goal.task, results.given(data.evaluation.labels)
    chosen = n_validation_rows(len(given))
    thresholds = results.thresholds(answers[:chosen], given[:chosen], threshold)
    predicted = decided(task, answers, np.ones(len(answers), dtype=np.bool_), thresholds)
    facts = {"trained_on": min(len(data.train), _MOST_ROWS)}
    return facts | paired(data, examination, predicted, results)


def paired(
    data: TrainingData, examination: Examination, before: NDArray[Any], results: Results
) -> dict[str, Any]:
    """How a model differs from what was predicted ``before`` of the same evaluation rows, row by row.

    JSON values: the entry ``comparison`` of a run's metrics, on the rows that chose nothing (``is_held_out``), or on all if there are
    no others; ``is_against_teacher`` where the rows have no labels but a teacher's.
    """
    given = results.given(data.evaluation.labels)
    is_held_out = examination.n_chosen < len(given)
    rows = slice(examination.n_chosen if is_held_out else 0, None)
    comparison = measures_of(data.goal.task).comparison(results.basis(examination.thresholds))
    comparison.update(given[rows], before[rows], examination.predicted[rows], given[rows])
    against = {"is_against_teacher": True} if "evaluation" in data.untold else {}
    return {"is_held_out": is_held_out, **against} | comparison.summary(data.labels)
