"""What is measured of scored rows, by the task of their model: the one place that picks it.

Each task has an evaluation (every metric), a ranking of labelled rows worth checking, a comparison of two runs, and the
same by slice. Their arrays, of ``n`` rows and ``C`` labels:

| task | given | predicted | probabilities |
| --- | --- | --- | --- |
| single-label | integer ``[n]``: index, -1 unlabelled, -2 unknown | int32 ``[n]``, -1 not scored | float32 ``[n, C]`` |
| multi-label | int8 ``[n, C]``: 0 and 1; a row of -1 unlabelled, of -2 unknown | int8 ``[n, C]``, a row of -1 not scored | float32 ``[n, C]``, each for itself |
| regression | float64 ``[n]``: NaN unlabelled, +inf no number | float32 ``[n]``, NaN not scored | float32 ``[n, 1]``: the value |
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from batchscore.evaluation.comparison import Comparison
from batchscore.evaluation.evaluation import Evaluation
from batchscore.evaluation.far_off import FarOff
from batchscore.evaluation.label_issues import LabelIssues
from batchscore.evaluation.label_set_comparison import LabelSetComparison, LabelSetSliceChanges
from batchscore.evaluation.label_set_issues import LabelSetIssues
from batchscore.evaluation.multi_label import MultiLabelEvaluation
from batchscore.evaluation.regression import RegressionEvaluation
from batchscore.evaluation.slice_changes import SliceChanges
from batchscore.evaluation.value_comparison import ValueComparison, ValueSliceChanges
from batchscore.records import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from batchscore.records import Predictions

    Array = NDArray[Any]
    Columns = Mapping[str, Sequence[object] | str]


@dataclasses.dataclass(frozen=True, slots=True)
class Basis:
    """What the answers of a run are measured by."""

    task: Task
    labels: tuple[str, ...]
    """In the order of their index; a regression has one, the name of its value."""
    calibration_error: float | None = None
    """An ECE on labelled rows, of the model's validation set."""
    temperature: float | None = None
    """That of the probabilities; None if it cannot be undone."""
    thresholds: tuple[float, ...] = ()
    """Of a multi-label model, for each label the least probability at which it is predicted."""
    tolerance: float | None = None
    """Of a regression: a value further than this from the given one is wrong; None if none is."""


class TaskEvaluation(Protocol):
    """Every metric of a run; mergeable (see :class:`Evaluation`)."""

    def update(
        self,
        given: Array,
        predictions: Predictions,
        *,
        slices: Columns | None = None,
        rejects: int = 0,
    ) -> None:
        """Add the rows of one part."""

    def metrics(self) -> dict[str, Any]:
        """``metrics.json``: at least ``task``, ``labels``, ``counts``, ``quality``, ``histograms`` and ``slices``."""

    def to_state(self) -> dict[str, Any]:
        """The tallies as JSON values."""


class TaskIssues(Protocol):
    """The ranking of mismatches: those worth checking first have the lowest quality (see :class:`LabelIssues`)."""

    def update_thresholds(self, given: Array, probabilities: NDArray[np.float32]) -> None:
        """First pass, parts in plan order."""

    def quality(
        self, given: Array, probabilities: NDArray[np.float32], predicted: Array | None = None
    ) -> NDArray[np.float32]:
        """Second pass: float32 ``[n]``, NaN without a label or a prediction; a regression's is ``-abs(value - given)``."""

    def is_label_issue(self, quality: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which mismatches are issues, by their quality, after both passes."""

    def summary(self) -> dict[str, Any]:
        """The entry ``label_issues`` of the metrics."""


class TaskComparison(Protocol):
    """The rows that two runs have in common (see :class:`Comparison`)."""

    def update(self, given: Array, before: Array, after: Array, given_before: Array) -> None:
        """Add ``n`` rows: given labels of this run, predictions of both, given labels of the earlier run.

        What is missing in ``before`` is as in ``predicted``, in ``given_before`` as "unlabelled".
        """

    def summary(self, labels: Sequence[str], /) -> dict[str, Any]:
        """The entry ``comparison`` of the metrics."""


class TaskSliceChanges(Protocol):
    """The same by slice (see :class:`SliceChanges`)."""

    def update(
        self,
        given: Array,
        before: Array,
        after: Array,
        lengths: tuple[NDArray[np.bool_], NDArray[np.integer[Any]]],
        columns: Columns,
    ) -> None:
        """Add ``n`` rows; in ``before`` a row that the earlier run lacks is as one that it did not score."""

    def summary(self) -> list[dict[str, Any]]:
        """One entry per slice."""


class Measures(NamedTuple):
    """How the rows of one task are measured; each is called with the :class:`Basis`."""

    evaluation: Callable[[Basis], TaskEvaluation]
    issues: Callable[[Basis], TaskIssues]
    comparison: Callable[[Basis], TaskComparison]
    slice_changes: Callable[[Basis], TaskSliceChanges]


_MEASURES: Mapping[Task, Measures] = {
    Task.SINGLE_LABEL: Measures(
        evaluation=lambda basis: Evaluation(basis.labels, basis.calibration_error, basis.temperature),
        issues=lambda basis: LabelIssues(len(basis.labels)),
        comparison=lambda basis: Comparison.empty(len(basis.labels)),
        slice_changes=lambda _: SliceChanges(),
    ),
    Task.MULTI_LABEL: Measures(
        evaluation=lambda basis: MultiLabelEvaluation(
            basis.labels, basis.thresholds, basis.calibration_error, basis.temperature
        ),
        issues=lambda basis: LabelSetIssues(len(basis.labels), basis.thresholds),
        comparison=lambda basis: LabelSetComparison.empty(len(basis.labels)),
        slice_changes=lambda _: LabelSetSliceChanges(),
    ),
    Task.REGRESSION: Measures(
        evaluation=lambda basis: RegressionEvaluation(basis.labels[0], basis.tolerance),
        issues=lambda basis: FarOff(basis.tolerance),
        comparison=lambda _: ValueComparison(),
        slice_changes=lambda _: ValueSliceChanges(),
    ),
}


def measures_of(task: Task) -> Measures:
    """How the rows of a task are measured.

    >>> basis = Basis(Task.SINGLE_LABEL, ("NEGATIVE", "POSITIVE"))
    >>> measures_of(basis.task).evaluation(basis).metrics()["labels"]
    ['NEGATIVE', 'POSITIVE']
    """
    return _MEASURES[task]
