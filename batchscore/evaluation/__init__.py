"""Metrics of scored rows: pure, mergeable, numpy only.

:class:`Evaluation` computes everything about one run; :func:`measure_drift` and :class:`Comparison` compare two runs;
:class:`LabelIssues` ranks rows whose given label is worth checking, :func:`claim_wrong_labels` estimates how many labels are
wrong if the data allow it, and :func:`evaluate_gates` checks metrics against limits.
"""

from batchscore.evaluation.comparison import Comparison
from batchscore.evaluation.drift import Distributions, Drift, DriftReport, measure_drift
from batchscore.evaluation.evaluation import Evaluation
from batchscore.evaluation.gates import (
    Gate,
    GateResult,
    evaluate_gates,
    flat_metrics,
    is_of_quality,
    needs_baseline,
    parse_gate,
    parse_gates,
)
from batchscore.evaluation.label_issues import LabelIssues, label_quality
from batchscore.evaluation.slice_changes import SliceChanges
from batchscore.evaluation.tasks import Basis, Measures, measures_of
from batchscore.evaluation.temperature import apply_temperature, fit_temperature, softmax, undo_temperature
from batchscore.evaluation.wrong_labels import Claim, claim_wrong_labels

__all__ = [
    "Basis",
    "Claim",
    "Comparison",
    "Distributions",
    "Drift",
    "DriftReport",
    "Evaluation",
    "Gate",
    "GateResult",
    "LabelIssues",
    "Measures",
    "SliceChanges",
    "apply_temperature",
    "claim_wrong_labels",
    "evaluate_gates",
    "fit_temperature",
    "flat_metrics",
    "is_of_quality",
    "label_quality",
    "measure_drift",
    "measures_of",
    "needs_baseline",
    "parse_gate",
    "parse_gates",
    "softmax",
    "undo_temperature",
]
