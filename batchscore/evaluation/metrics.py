"""The registry of metrics: one entry of :data:`METRICS` each; gates, pages, the trend and Prometheus loop over them.

To add one, write its formula, put the result into the ``summary`` that it belongs to (see ``quality.py``), and add an entry here that reads it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from batchscore.evaluation.tally import ratio
from batchscore.records import Task

Document: TypeAlias = Mapping[str, Any]
"""The content of ``metrics.json`` or ``run.json``."""
ALL_TASKS = frozenset(Task)
_LABELS = frozenset({Task.SINGLE_LABEL, Task.MULTI_LABEL})
_SINGLE, _SEVERAL, _VALUES = (frozenset({task}) for task in Task)


class Unit(enum.Enum):
    """How a value is shown."""

    SHARE = "share"
    """From 0 to 1, shown as a percentage."""
    NUMBER = "number"
    """Without a unit."""
    VALUE = "value"
    """In the unit of a regression's values, so that a percentage would mean nothing."""


class Better(enum.IntEnum):
    """Which way is better."""

    MORE = 1
    NEITHER = 0
    LESS = -1


class Section(enum.Enum):
    """The table of a run's page that lists a metric."""

    QUALITY = "quality"
    LABELS = "labels"
    """One row per label."""
    ROWS = "rows"
    DRIFT = "drift"


@dataclass(frozen=True, slots=True)
class Value:
    """A metric of one run, with its 95 % interval if it has one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """Everything specific to one metric."""

    name: str
    """In ``--fail-below NAME=X`` and in the trend's ``report.json``."""
    words: str
    unit: Unit
    better: Better
    read: Callable[[Document, Document], Value | None]
    """Its value from ``metrics.json`` and ``run.json``; None if the run, or the version that wrote it, has none."""
    section: Section | None = None
    """The table of a run's page that lists it; None if no table does."""
    heading: Callable[[Document], str] | None = None
    """Its name in that table, if not ``words``, from ``metrics.json``; empty if the table leaves it out."""
    span: tuple[float, float] = (0.0, math.inf)
    """Smallest and largest possible number; a share is from 0 to 1."""
    is_gated: bool = False
    """Whether ``--fail-below`` or ``--fail-above`` takes it."""
    needs_baseline: bool = False
    needs_labels: bool = True
    """Whether a metric of quality is measured on labelled rows alone."""
    is_followed: bool = False
    """Whether the trend draws it and reports unusual nights."""
    least_step: float = 0.005
    """A smaller change from night to night is never unusual."""
    skips_zero: bool = False
    """Whether the trend treats 0 as missing."""
    is_column: bool = False
    """Whether the trend's table of nights has a column for it."""
    gauge: str = ""
    """Its Prometheus name, after ``batchscore_``; empty if not exported."""
    gauge_help: str = ""
    estimate_of: str = ""
    """The metric that it estimates without labels, on the same scale; the trend draws both in one chart."""
    tasks: frozenset[Task] = ALL_TASKS
    """The tasks that have it."""
    needs_decisions: bool = False
    is_coverage: bool = False
    """Whether it is of how many rows the others are, and so no quality by itself."""

    @property
    def is_share(self) -> bool:
        """Whether it is shown as a percentage."""
        return self.unit is Unit.SHARE

    @property
    def is_of_quality(self) -> bool:
        """Whether it is about predictions; others are about the input rows, or their drift."""
        return self.section in {Section.QUALITY, Section.LABELS} and not self.is_coverage

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest possible value."""
        return (0.0, 1.0) if self.is_share else self.span

    def heading_on_page(self, metrics: Document) -> str:
        """Its name on a run's page; empty if left out."""
        return self.words if self.heading is None else self.heading(metrics)


def at(document: Document | None, *path: str) -> Any:
    """The value at ``path``, None if a key is missing."""
    value: Any = document
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _stored(*path: str) -> Callable[[Document, Document], Value | None]:
    """Read a number or a ``{value, low, high}`` from ``metrics.json``."""

    def read(metrics: Document, _: Document) -> Value | None:
        here = at(metrics, *path)
        if here is None:
            return None
        if not isinstance(here, Mapping):
            return Value(float(here))
        return Value(float(here["value"]), *(float(here[key]) for key in ("low", "high") if key in here))

    return read


def _share_of_rows(name: str) -> Callable[[Document, Document], Value | None]:
    """Read a count from ``metrics.json`` as a share of the rows read."""

    def read(metrics: Document, _: Document) -> Value | None:
        counts = metrics["counts"]
        share = ratio(counts[name], counts["read"]) if name in counts else None
        return None if share is None else Value(share)

    return read


def _wrong_labels(metrics: Document, _: Document) -> Value | None:
    """The share of wrong given labels, if the run has an estimate."""
    wrong = at(metrics, "label_issues", "claim", "wrong_labels")
    labelled = at(metrics, "label_issues", "labelled")
    if not wrong or not labelled:
        return None
    return Value(*(float(wrong[key]) / labelled for key in ("value", "low", "high")))


def _over_labels(words: str) -> Callable[[Document], str]:
    """A heading that says that it is a mean over labels, where a row has several."""

    def heading(metrics: Document) -> str:
        return f"{words} (mean over labels)" if task_of(metrics) is Task.MULTI_LABEL else words

    return heading


def _tolerance_heading(metrics: Document) -> str:
    tolerance = metrics.get("tolerance")
    return "" if tolerance is None else f"share within {tolerance:g} of the given number"


def answered_share(metrics: Document) -> float | None:
    """The share of rows with a prediction, of those that have one or abstained; of labelled rows where there are any.

    None if no row abstained.
    """
    counts = metrics.get("counts") or {}
    if not counts.get("abstained"):
        return None
    if counts["evaluated"] or counts["abstained_labelled"]:
        return ratio(counts["evaluated"], counts["evaluated"] + counts["abstained_labelled"])
    return ratio(counts["scored"], counts["scored"] + counts["abstained"])


def _answered(metrics: Document, _: Document) -> Value | None:
    if task_of(metrics) is not Task.SINGLE_LABEL:
        return None
    share = answered_share(metrics)
    if share is not None:
        return Value(share)
    return Value(1.0) if metrics["counts"]["scored"] else None


def _abstained(metrics: Document, facts: Document) -> Value | None:
    return _share_of_rows("abstained")(metrics, facts) if task_of(metrics) is Task.SINGLE_LABEL else None


def _rows_not_scored(metrics: Document, _: Document) -> Value | None:
    scored = ratio(metrics["counts"]["scored"], metrics["counts"]["read"])
    return None if scored is None else Value(1 - scored)


def _rows_per_second(metrics: Document, facts: Document) -> Value | None:
    seconds = facts.get("seconds") or at(facts, "work", "seconds")
    counts = metrics["counts"]
    return Value((counts["scored"] + counts.get("abstained", 0)) / seconds) if seconds else None


def task_of(metrics: Document) -> Task:
    """The task of the model whose run this is; versions that did not tell it had single labels."""
    return Task(metrics.get("task", Task.SINGLE_LABEL))


def _brier_heading(metrics: Document) -> str:
    if task_of(metrics) is Task.MULTI_LABEL:
        return "Brier score (mean over labels, 0 to 1)"
    return f"Brier score ({'0 to 1' if len(metrics['labels']) == 2 else 'sum over labels, 0 to 2'})"


def _ece_before_heading(metrics: Document) -> str:
    is_calibrated = at(metrics, "calibration", "temperature") != 1
    return "the same before temperature scaling" if is_calibrated else ""


def _of_rows(name: str, words: str, *, is_gated: bool = True, **more: Any) -> Metric:
    """A share of the rows read; less is better."""
    read = _share_of_rows(name)
    return Metric(name, words, Unit.SHARE, Better.LESS, read, Section.ROWS, is_gated=is_gated, **more)


METRICS: tuple[Metric, ...] = (
    Metric(
        "accuracy", "accuracy", Unit.SHARE, Better.MORE, _stored("quality", "accuracy"), Section.QUALITY,
        is_gated=True, is_followed=True, is_column=True,
        gauge="accuracy", gauge_help="accuracy of the last run on its labelled rows.", tasks=_SINGLE,
    ),
    Metric(
        "micro_f1", "micro F1", Unit.SHARE, Better.MORE, _stored("quality", "micro_f1"), Section.QUALITY,
        is_gated=True, is_followed=True, is_column=True,
        gauge="micro_f1", gauge_help="micro_f1 of the last run on its labelled rows.", tasks=_SEVERAL,
    ),
    Metric(
        "mae", "mean absolute error", Unit.VALUE, Better.LESS, _stored("quality", "mae"), Section.QUALITY,
        is_gated=True, is_followed=True, is_column=True, least_step=0.0,
        gauge="mean_absolute_error", gauge_help="Mean absolute error of the last run on its rows with a number.", tasks=_VALUES,
    ),
    Metric(
        "rmse", "root mean squared error", Unit.VALUE, Better.LESS, _stored("quality", "rmse"), Section.QUALITY,
        is_gated=True, is_followed=True, least_step=0.0,
        gauge="root_mean_squared_error",
        gauge_help="Root mean squared error of the last run on its rows with a number.", tasks=_VALUES,
    ),
    Metric(
        "r2", "R² (share of the variance explained)", Unit.NUMBER, Better.MORE, _stored("quality", "r2"), Section.QUALITY,
        span=(-math.inf, 1.0), is_gated=True, is_followed=True, least_step=0.01, is_column=True,
        gauge="r2", gauge_help="R2 of the last run on its rows with a number.", tasks=_VALUES,
    ),
    Metric(
        "spearman", "Spearman's rank correlation", Unit.NUMBER, Better.MORE, _stored("quality", "spearman"), Section.QUALITY,
        span=(-1.0, 1.0), is_gated=True, is_followed=True, least_step=0.01,
        gauge="spearman", gauge_help="Spearman's rank correlation of the last run.", tasks=_VALUES,
    ),
    Metric(
        "pearson", "Pearson's correlation", Unit.NUMBER, Better.MORE, _stored("quality", "pearson"), Section.QUALITY,
        span=(-1.0, 1.0), is_gated=True, tasks=_VALUES,
    ),
    Metric(
        "bias", "bias (mean of value less given)", Unit.VALUE, Better.NEITHER, _stored("quality", "bias"), Section.QUALITY,
        span=(-math.inf, math.inf), is_followed=True,
        gauge="bias", gauge_help="Mean of value less given number of the last run.", tasks=_VALUES,
    ),
    Metric(
        "within_tolerance", "share within the tolerance", Unit.SHARE, Better.MORE, _stored("quality", "within_tolerance"),
        Section.QUALITY, heading=_tolerance_heading, is_gated=True, is_followed=True,
        gauge="within_tolerance", gauge_help="Share of the last run's rows within the tolerance.", tasks=_VALUES,
    ),
    Metric(
        "expected_accuracy", "expected accuracy (estimate)", Unit.SHARE, Better.MORE, _stored("expected_accuracy"),
        Section.QUALITY, is_gated=True, is_followed=True, is_column=True, estimate_of="accuracy", tasks=_SINGLE,
    ),
    Metric(
        "answered", "share of rows answered", Unit.SHARE, Better.MORE, _answered, Section.QUALITY,
        heading=lambda metrics: "" if answered_share(metrics) is None else "share of rows answered, the others abstained",
        is_gated=True, needs_labels=False, tasks=_SINGLE, is_coverage=True,
    ),
    Metric(
        "accepted", "accepted", Unit.SHARE, Better.MORE, _stored("acceptance", "share"), Section.QUALITY, is_coverage=True,
        heading=lambda _: "accepted, so that nobody needs to look", is_gated=True, is_followed=True, needs_labels=False,
        needs_decisions=True, gauge="accepted", gauge_help="Share of the last run's rows that were accepted.", tasks=_SINGLE,
    ),
    Metric(
        "accepted_precision", "precision of accepted rows", Unit.SHARE, Better.MORE, _stored("acceptance", "accepted_precision"),
        Section.QUALITY, is_gated=True, is_followed=True, needs_decisions=True, tasks=_SINGLE, gauge="accepted_precision",
        gauge_help="Share of the last run's accepted rows with a label that are right.",
    ),
    Metric(
        "accepted_precision_bound", "precision of accepted rows, at most", Unit.SHARE, Better.MORE,
        _stored("acceptance", "bound"), Section.QUALITY, is_gated=True, needs_decisions=True, tasks=_SINGLE, is_coverage=True,
    ),
    Metric(
        "macro_f1", "macro F1", Unit.SHARE, Better.MORE, _stored("quality", "macro_f1"), Section.QUALITY,
        is_gated=True, is_followed=True,
        gauge="macro_f1", gauge_help="macro_f1 of the last run on its labelled rows.", tasks=_LABELS,
    ),
    Metric(
        "subset_accuracy", "rows with all labels right", Unit.SHARE, Better.MORE, _stored("quality", "subset_accuracy"),
        Section.QUALITY, heading=lambda _: "rows with all labels right (subset accuracy)",
        is_gated=True, is_followed=True, is_column=True,
        gauge="subset_accuracy", gauge_help="Share of the last run's labelled rows whose labels are all right.", tasks=_SEVERAL,
    ),
    Metric(
        "hamming_loss", "Hamming loss", Unit.SHARE, Better.LESS, _stored("quality", "hamming_loss"), Section.QUALITY,
        heading=lambda _: "wrong label decisions (Hamming loss)", is_gated=True, is_followed=True,
        gauge="hamming_loss", gauge_help="Hamming loss of the last run on its labelled rows.", tasks=_SEVERAL,
    ),
    Metric(
        "expected_hamming_loss", "expected Hamming loss (estimate)", Unit.SHARE, Better.LESS, _stored("expected_hamming_loss"),
        Section.QUALITY, is_gated=True, is_followed=True, estimate_of="hamming_loss", tasks=_SEVERAL,
    ),
    Metric(
        "matthews", "Matthews' correlation", Unit.NUMBER, Better.MORE, _stored("quality", "matthews"), Section.QUALITY,
        span=(-1.0, 1.0), is_gated=True, is_followed=True, least_step=0.01,
        gauge="matthews", gauge_help="Matthews' correlation coefficient of the last run on its labelled rows.", tasks=_SINGLE,
    ),
    Metric(
        "roc_auc", "ROC-AUC", Unit.SHARE, Better.MORE, _stored("quality", "roc_auc"), Section.QUALITY,
        heading=_over_labels("ROC-AUC"), is_gated=True, tasks=_LABELS,
    ),
    Metric(
        "average_precision", "average precision", Unit.SHARE, Better.MORE, _stored("quality", "average_precision"),
        Section.QUALITY, heading=_over_labels("average precision"), is_gated=True, tasks=_LABELS,
    ),
    Metric(
        "ece", "calibration error", Unit.SHARE, Better.LESS, _stored("calibration", "ece"), Section.QUALITY,
        heading=lambda _: "calibration error (15 bins)", is_gated=True, is_followed=True, is_column=True,
        gauge="calibration_error", gauge_help="Expected calibration error of the last run.", tasks=_LABELS,
    ),
    Metric(
        "ece_before", "calibration error before temperature scaling", Unit.SHARE, Better.LESS,
        _stored("calibration", "before", "ece"), Section.QUALITY, heading=_ece_before_heading, tasks=_LABELS,
    ),
    Metric(
        "log_loss", "log loss", Unit.NUMBER, Better.LESS, _stored("quality", "log_loss"), Section.QUALITY,
        heading=_over_labels("log loss"), is_gated=True, is_followed=True, least_step=0.01, tasks=_LABELS,
    ),
    Metric(
        "brier", "Brier score", Unit.NUMBER, Better.LESS, _stored("quality", "brier_score_loss"), Section.QUALITY,
        heading=_brier_heading, is_gated=True, tasks=_LABELS,
    ),
    Metric("wrong_labels", "wrong labels (estimate)", Unit.SHARE, Better.LESS, _wrong_labels, is_followed=True, tasks=_SINGLE),
    _of_rows("null_text", "null text"),
    _of_rows("empty_text", "empty text"),
    Metric(
        "abstained", "abstained", Unit.SHARE, Better.LESS, _abstained, Section.ROWS, is_gated=True, tasks=_SINGLE,
        heading=lambda metrics: "abstained" if metrics["counts"].get("abstained") else "",
    ),
    _of_rows("truncated", "truncated"),
    _of_rows("duplicate", "duplicate", is_gated=False),
    _of_rows("rejects", "rejected"),
    _of_rows("failed", "failed"),
    _of_rows("unlabelled", "unlabelled"),
    _of_rows(
        "unknown_label", "rows with an unknown label", heading=lambda _: "unknown label",
        is_followed=True, skips_zero=True,
    ),
    Metric(
        "drift", "drift (PSI)", Unit.NUMBER, Better.LESS, _stored("drift", "value"), Section.DRIFT,
        is_gated=True, needs_baseline=True, is_followed=True, least_step=0.1, is_column=True,
    ),
    Metric("rows", "rows scored", Unit.NUMBER, Better.NEITHER, _stored("counts", "scored"), is_followed=True, is_column=True),
    Metric("not_scored", "rows not scored", Unit.SHARE, Better.LESS, _rows_not_scored, is_followed=True),
    Metric(
        "rows_per_second", "rows a second", Unit.NUMBER, Better.NEITHER, _rows_per_second,
        is_followed=True, is_column=True,
    ),
)  # fmt: skip
"""In page order."""

FOLLOWED = tuple(metric for metric in METRICS if metric.is_followed)
"""Metrics in the trend."""
GATED = tuple(metric for metric in METRICS if metric.is_gated)
"""Metrics that gates support, without those per label."""
LABEL_METRICS = {"precision": "precision", "recall": "recall", "f1": "F1"}
"""Name and words of the metrics per label; a gate takes ``precision_<LABEL>``."""
_BY_NAME = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True, slots=True)
class Headline:
    """What stands for a run where there is room for one figure."""

    quality: Metric
    """With labels."""
    estimate: Metric | None = None
    """Without labels, from the model's own probabilities."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Both, as far as there are two."""
        return (self.quality,) if self.estimate is None else (self.quality, self.estimate)


ESTIMATES = {metric.estimate_of: metric.name for metric in METRICS if metric.estimate_of}
"""Metric → its estimate without labels."""
HEADLINES: Mapping[Task, Headline] = {
    Task.SINGLE_LABEL: Headline(_BY_NAME["accuracy"], _BY_NAME["expected_accuracy"]),
    Task.MULTI_LABEL: Headline(_BY_NAME["micro_f1"], _BY_NAME["expected_hamming_loss"]),
    Task.REGRESSION: Headline(_BY_NAME["mae"]),
}


def gated(task: Task) -> tuple[Metric, ...]:
    """The metrics that gates on a run of a task support, without those per label."""
    return tuple(metric for metric in GATED if task in metric.tasks)


def in_section(section: Section, task: Task | None = None) -> tuple[Metric, ...]:
    """The metrics of one table of a run's page; of any task without one."""
    return tuple(
        metric for metric in METRICS if metric.section is section and (task is None or task in metric.tasks)
    )


def of_label(name: str, label: str) -> Metric:
    """One of :data:`LABEL_METRICS` of one label."""
    read = _stored("quality", "per_label", label, name)
    words = f"{LABEL_METRICS[name]} of {label}"
    return Metric(
        f"{name}_{label}", words, Unit.SHARE, Better.MORE, read, Section.LABELS, is_gated=True, tasks=_LABELS
    )


def of_labels(labels: Sequence[str], task: Task = Task.SINGLE_LABEL) -> list[Metric]:
    """The metrics of every label; none for a task without labels."""
    return [of_label(name, label) for label in labels for name in LABEL_METRICS if task in _LABELS]


def named(name: str) -> Metric | None:
    """The metric with this name, also one per label; None if unknown."""
    kind, _, label = name.partition("_")
    return _BY_NAME.get(name) or (of_label(kind, label) if kind in LABEL_METRICS and label else None)
