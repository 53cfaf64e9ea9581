"""What scored rows say about themselves and the model: pure, mergeable, numpy only.

:class:`Evaluation` collects everything about one run; :func:`measure_drift` and :class:`Comparison` set two runs side by side;
:class:`LabelIssues` finds given labels that are likely wrong; :func:`evaluate_gates` holds metrics against limits.
"""

from batchscore.evaluation.comparison import Comparison
from batchscore.evaluation.drift import Distributions, Drift, DriftReport, measure_drift
from batchscore.evaluation.evaluation import Evaluation
from batchscore.evaluation.gates import (
    Gate,
    GateResult,
    evaluate_gates,
    flat_metrics,
    parse_gate,
    parse_gates,
)
from batchscore.evaluation.label_issues import LabelIssues, label_quality
from batchscore.evaluation.slice_changes import SliceChanges
from batchscore.evaluation.temperature import apply_temperature, fit_temperature, softmax, undo_temperature

__all__ = [
    "Comparison",
    "Distributions",
    "Drift",
    "DriftReport",
    "Evaluation",
    "Gate",
    "GateResult",
    "LabelIssues",
    "SliceChanges",
    "apply_temperature",
    "evaluate_gates",
    "fit_temperature",
    "flat_metrics",
    "label_quality",
    "measure_drift",
    "parse_gate",
    "parse_gates",
    "softmax",
    "undo_temperature",
]
