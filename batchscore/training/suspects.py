"""Training labels worth checking, by cross-validation on the frozen base's ``[CLS]`` states.

Logistic regression (scikit-learn) gives out-of-fold probabilities; confident learning
(:class:`~batchscore.evaluation.LabelIssues`, cleanlab) ranks the rows. The number of wrong labels stays unknown: a model on
a frozen base errs far more often than labels do.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from batchscore.evaluation import LabelIssues

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from batchscore.training.splits import Split

_FOLDS = 5
_LISTED = 200


def suspects_of(
    states: NDArray[np.float32], split: Split, names: Sequence[str], seed: int
) -> dict[str, Any] | None:
    """Rows of the split whose label is worth checking, as JSON values; likeliest error first, at most 200.

    ``states`` ``[n, H]``. ``None`` if a label has one row only, which rules out cross-validation.
    """
    labels = np.array(split.labels)
    folds = min(_FOLDS, int(np.bincount(labels, minlength=len(names)).min()))
    if folds < 2:
        return None
    probabilities = _out_of_fold(states, labels, folds, seed)
    issues = LabelIssues(len(names))
    issues.update_thresholds(labels, probabilities)
    quality = issues.quality(labels, probabilities)
    predicted = probabilities.argmax(axis=1)
    flagged = np.flatnonzero((predicted != labels) & issues.is_label_issue(quality))
    order = flagged[np.lexsort((flagged, quality[flagged]))]
    return {
        "folds": folds,
        **issues.summary(),
        "rows": [
            {
                "at": split.places[row] if split.places else str(row),
                "given": names[labels[row]],
                "predicted": names[predicted[row]],
                "label_quality": round(float(quality[row]), 6),
            }
            for row in order[:_LISTED].tolist()
        ],
    }


def _out_of_fold(
    states: NDArray[np.float32], labels: NDArray[np.int64], folds: int, seed: int
) -> NDArray[np.float32]:
    """Out-of-fold probabilities ``[n, C]`` float32."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Strong regularisation, as there may be more columns than rows.
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    cut = StratifiedKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        probabilities = cross_val_predict(model, states, labels, cv=cut, method="predict_proba")
    return np.asarray(probabilities, dtype=np.float32)
