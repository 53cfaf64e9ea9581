"""Metrics of scored rows: pure, mergeable, numpy only.

:class:`Evaluation` computes everything about one run (of several labels at once: :class:`MultiLabelEvaluation`, of numbers:
:class:`RegressionEvaluation`; :func:`measures_of` picks by task); :func:`measure_drift` and :class:`Comparison` compare two runs;
:class:`LabelIssues` ranks rows whose given label is worth checking, :func:`claim_wrong_labels` estimates how many labels are
wrong if the data allow it, and :func:`evaluate_gates` checks metrics against limits.
"""

from batchscore.evaluation.accepted_rows import AcceptedRows
from batchscore.evaluation.comparison import Comparison
from batchscore.evaluation.distributions import Distributions, measure_drift
from batchscore.evaluation.drift import Drift, DriftReport
from batchscore.evaluation.evaluation import Evaluation
from batchscore.evaluation.gates import (
    Gate,
    GateResult,
    evaluate_gates,
    flat_metrics,
    is_of_quality,
    needs_baseline,
    needs_decisions,
    parse_gate,
    parse_gates,
    promise_gate,
)
from batchscore.evaluation.label_issues import LabelIssues, label_quality
from batchscore.evaluation.label_set_issues import LabelSetIssues, label_set_quality
from batchscore.evaluation.multi_label import MultiLabelEvaluation
from batchscore.evaluation.regression import RegressionEvaluation
from batchscore.evaluation.slice_changes import SliceChanges
from batchscore.evaluation.tasks import Basis, Measures, measures_of
from batchscore.evaluation.temperature import (
    apply_temperature,
    fit_sigmoid_temperature,
    fit_temperature,
    softmax,
    undo_temperature,
)
from batchscore.evaluation.wrong_labels import Claim, claim_wrong_labels

__all__ = [
    "AcceptedRows",
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
    "LabelSetIssues",
    "Measures",
    "MultiLabelEvaluation",
    "RegressionEvaluation",
    "SliceChanges",
    "apply_temperature",
    "claim_wrong_labels",
    "evaluate_gates",
    "fit_sigmoid_temperature",
    "fit_temperature",
    "flat_metrics",
    "is_of_quality",
    "label_quality",
    "label_set_quality",
    "measure_drift",
    "measures_of",
    "needs_baseline",
    "needs_decisions",
    "parse_gate",
    "parse_gates",
    "promise_gate",
    "softmax",
    "undo_temperature",
]
