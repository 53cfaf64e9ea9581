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

Document: TypeAlias = Mapping[str, Any]
"""The content of ``metrics.json`` or ``run.json``."""


class Unit(enum.Enum):
    """How a value is shown."""

    SHARE = "share"
    """From 0 to 1, shown as a percentage."""
    NUMBER = "number"


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

    @property
    def is_share(self) -> bool:
        """Whether it is shown as a percentage."""
        return self.unit is Unit.SHARE

    @property
    def is_of_quality(self) -> bool:
        """Whether it is about predictions; others are about the input rows, or their drift."""
        return self.section in {Section.QUALITY, Section.LABELS}

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


def _rows_scored(metrics: Document, _: Document) -> Value | None:
    return Value(float(metrics["counts"]["scored"]))


def _rows_not_scored(metrics: Document, _: Document) -> Value | None:
    scored = ratio(metrics["counts"]["scored"], metrics["counts"]["read"])
    return None if scored is None else Value(1 - scored)


def _rows_per_second(metrics: Document, facts: Document) -> Value | None:
    seconds = facts.get("seconds") or at(facts, "work", "seconds")
    return Value(metrics["counts"]["scored"] / seconds) if seconds else None


def _brier_heading(metrics: Document) -> str:
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
        gauge="accuracy", gauge_help="accuracy of the last run on its labelled rows.",
    ),
    Metric(
        "expected_accuracy", "expected accuracy (estimate)", Unit.SHARE, Better.MORE, _stored("expected_accuracy"),
        Section.QUALITY, is_gated=True, is_followed=True, is_column=True,
    ),
    Metric(
        "macro_f1", "macro F1", Unit.SHARE, Better.MORE, _stored("quality", "macro_f1"), Section.QUALITY,
        is_gated=True, is_followed=True,
        gauge="macro_f1", gauge_help="macro_f1 of the last run on its labelled rows.",
    ),
    Metric(
        "matthews", "Matthews' correlation", Unit.NUMBER, Better.MORE, _stored("quality", "matthews"), Section.QUALITY,
        span=(-1.0, 1.0), is_gated=True, is_followed=True, least_step=0.01,
        gauge="matthews", gauge_help="Matthews' correlation coefficient of the last run on its labelled rows.",
    ),
    Metric(
        "roc_auc", "ROC-AUC", Unit.SHARE, Better.MORE, _stored("quality", "roc_auc"), Section.QUALITY, is_gated=True
    ),
    Metric(
        "average_precision", "average precision", Unit.SHARE, Better.MORE, _stored("quality", "average_precision"),
        Section.QUALITY, is_gated=True,
    ),
    Metric(
        "ece", "calibration error", Unit.SHARE, Better.LESS, _stored("calibration", "ece"), Section.QUALITY,
        heading=lambda _: "calibration error (15 bins)", is_gated=True, is_followed=True, is_column=True,
        gauge="calibration_error", gauge_help="Expected calibration error of the last run.",
    ),
    Metric(
        "ece_before", "calibration error before temperature scaling", Unit.SHARE, Better.LESS,
        _stored("calibration", "before", "ece"), Section.QUALITY, heading=_ece_before_heading,
    ),
    Metric(
        "log_loss", "log loss", Unit.NUMBER, Better.LESS, _stored("quality", "log_loss"), Section.QUALITY,
        is_gated=True, is_followed=True, least_step=0.01,
    ),
    Metric(
        "brier", "Brier score", Unit.NUMBER, Better.LESS, _stored("quality", "brier_score_loss"), Section.QUALITY,
        heading=_brier_heading, is_gated=True,
    ),
    Metric("wrong_labels", "wrong labels (estimate)", Unit.SHARE, Better.LESS, _wrong_labels, is_followed=True),
    _of_rows("null_text", "null text"),
    _of_rows("empty_text", "empty text"),
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
    Metric("rows", "rows scored", Unit.NUMBER, Better.NEITHER, _rows_scored, is_followed=True, is_column=True),
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


def in_section(section: Section) -> tuple[Metric, ...]:
    """The metrics of one table of a run's page."""
    return tuple(metric for metric in METRICS if metric.section is section)


def of_label(name: str, label: str) -> Metric:
    """One of :data:`LABEL_METRICS` of one label."""
    read = _stored("quality", "per_label", label, name)
    words = f"{LABEL_METRICS[name]} of {label}"
    return Metric(f"{name}_{label}", words, Unit.SHARE, Better.MORE, read, Section.LABELS, is_gated=True)


def of_labels(labels: Sequence[str]) -> list[Metric]:
    """The metrics of every label."""
    return [of_label(name, label) for label in labels for name in LABEL_METRICS]


def named(name: str) -> Metric | None:
    """The metric with this name, also one per label; None if unknown."""
    kind, _, label = name.partition("_")
    return _BY_NAME.get(name) or (of_label(kind, label) if kind in LABEL_METRICS and label else None)
