"""Runs as nights: the state of each, days without a run, and nights that are out of the ordinary.

What is drawn is bounded for any dates: up to a hundred days in a row without a run are nights of their own, a longer gap is
one :class:`Stretch`, and runs from before such a gap, or more than five years before the last one, are counted but not
drawn.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from batchscore.evaluation.metrics import FOLLOWED, HEADLINES, Better, Metric, Value
from batchscore.records import Task

BEFORE = 28
"""Number of finished nights before that a night is compared with: four weeks."""
LONG_GAP = 100
"""Up to this many days without a run in a row, each is a night."""
_MOST_DAYS = 5 * 366
_FIRST_YEAR = 1970
"""Earlier dates are wrong."""
_LEAST_BEFORE = 10
_SPREADS = 4.0
"""A night is out of the ordinary beyond this many (robust) standard deviations of the nights before."""
_DAY = datetime.timedelta(days=1)


class State(enum.Enum):
    """The state of a night, from bad to good."""

    UNFINISHED = "unfinished"
    """Its folder holds no finished run."""
    REFUSED = "refused"
    """Nothing was scored: bad data, an unusable model, a failing disk."""
    NO_INPUT = "no_input"
    MISSING = "missing"
    """No run has this date."""
    ROWS = "rows"
    """Finished, with rows that could not be scored."""
    GATE = "gate"
    """Finished, and a quality gate failed."""
    EMPTY = "empty"
    """Finished, but no row was scored."""
    UNUSUAL = "unusual"
    """Finished, and a metric is clearly worse than in the four weeks before."""
    SKIPPED = "skipped"
    """There was nothing to score, which ``--skip-empty`` lets pass."""
    UNGATED = "ungated"
    """Finished without a gate on the quality of predictions: nobody defined what is good enough."""
    USUAL = "usual"
    """Finished, and its quality gates passed."""

    @property
    def is_bad(self) -> bool:
        """Whether a person should look at it."""
        return self not in {State.SKIPPED, State.UNGATED, State.USUAL}


@dataclasses.dataclass(frozen=True, slots=True)
class LateLabels:
    """The evaluation of a night with labels that came later."""

    rows: int
    """Rows that have a label by now."""
    path: str
    """The folder of the evaluation, beside that of the run."""
    finished: str
    """ISO time with its offset."""


@dataclasses.dataclass(frozen=True, slots=True)
class Night:
    """One run folder, or (``MISSING``) one day without one."""

    date: datetime.date
    state: State
    path: str = ""
    """The run folder below the folder of runs, with ``/``."""
    finished: str = ""
    values: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Metric → limit of its gate."""
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    failed_gates: tuple[str, ...] = ()
    gate_reasons: tuple[str, ...] = ()
    """The result of each failed gate, in words."""
    unusual: tuple[str, ...] = ()
    """Metrics out of the ordinary."""
    usual: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Metric out of the ordinary → the median of the nights before."""
    is_compared: bool = False
    """Whether enough nights before it were there to compare with."""
    problem: str = ""
    """Why there are no numbers."""
    task: Task = Task.SINGLE_LABEL
    """Of the model; numbers of different tasks are not compared."""
    labels: LateLabels | None = None
    """The evaluation that its quality is from; None if that is from the run itself."""

    @property
    def headline(self) -> Metric | None:
        """The metric that stands for the night, with labels if there were any; None without numbers."""
        return next((metric for metric in HEADLINES[self.task].metrics if metric.name in self.values), None)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            **{name: getattr(self, name) for name in ("path", "finished", "problem")},
            "date": self.date.isoformat(),
            "task": self.task.value,
            "state": self.state.value,
            "values": {name: dataclasses.asdict(value) for name, value in self.values.items()},
            "limits": dict(self.limits),
            "counts": dict(self.counts),
            "failed_gates": list(self.failed_gates),
            "unusual": list(self.unusual),
            "usual": dict(self.usual),
            "compared": self.is_compared,
            "labels": None if self.labels is None else dataclasses.asdict(self.labels),
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Stretch:
    """Nights in a row that a person should look at."""

    first: datetime.date
    last: datetime.date
    nights: int

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {"first": self.first.isoformat(), "last": self.last.isoformat(), "nights": self.nights}


@dataclasses.dataclass(frozen=True, slots=True)
class Nights:
    """The nights of a folder of runs, up to a day."""

    shown: tuple[Night, ...]
    """By date; every day between the first and the last has one. Empty if no run has a usable date."""
    until: datetime.date
    """The day up to which days without a run are counted."""
    is_open: bool = False
    """Whether that day is not over, so its run may still come."""
    gaps: tuple[Stretch, ...] = ()
    """Gaps of more than a hundred days without a run, before or after the nights shown."""
    earlier: tuple[Night, ...] = ()
    """Runs from before the nights shown."""
    misdated: tuple[Night, ...] = ()
    """Runs with a date after ``until``, or before 1970."""

    @property
    def all(self) -> tuple[Night, ...]:
        """All nights, shown or not."""
        return (*self.misdated, *self.earlier, *self.shown)

    @property
    def last(self) -> Night | None:
        """The last night with a run folder, even if it only has a note of a refusal."""
        return next((night for night in reversed(self.shown) if night.state is not State.MISSING), None)

    @property
    def missing_at_the_end(self) -> int:
        """Days without a run since the last one."""
        return (self.until - self.last.date).days if self.last else 0

    @property
    def stretches(self) -> list[Stretch]:
        """What deserves a look, in order: nights in a row (:func:`stretches`), and the gaps that are not drawn."""
        return sorted([*stretches(self.shown), *self.gaps], key=lambda stretch: stretch.first)

    def count(self, state: State) -> int:
        """Nights of this state, including days in gaps; runs that are not shown do not count."""
        gaps = sum(gap.nights for gap in self.gaps) if state is State.MISSING else 0
        return gaps + sum(night.state is state for night in self.shown)


def nights_of(runs: Iterable[Night], until: datetime.date | None, today: datetime.date) -> Nights:
    """Runs in any order as nights up to ``until``, with the days that have none.

    ``until`` defaults to ``today``, or to tomorrow if a run has that date already (from a time zone further east).
    """
    runs = sorted(runs, key=_place)
    if until is None:
        until = today + _DAY if any(night.date == today + _DAY for night in runs) else today
    dated = [night for night in runs if _is_dated(night, until)]
    first = _first_shown(dated)
    shown = dated[first:]
    gaps = [*_gap(dated[first - 1], shown[0].date - _DAY)] if first else []
    missing = [*_missing(shown)]
    if shown:
        gap = [*_gap(shown[-1], until)]
        gaps += gap
        missing += [] if gap else _days_after(shown[-1].date, until)
    return Nights(
        shown=tuple(_judged([*shown, *missing])),
        until=until,
        is_open=until >= today,
        gaps=tuple(gaps),
        earlier=tuple(dated[:first]),
        misdated=tuple(night for night in runs if not _is_dated(night, until)),
    )


def _is_dated(night: Night, until: datetime.date) -> bool:
    return night.date.year >= _FIRST_YEAR and night.date <= until


def _place(night: Night) -> tuple[datetime.date, str, str]:
    return night.date, night.finished, night.path


def _first_shown(runs: Sequence[Night]) -> int:
    """Index of the first run that is shown: after the last long gap, and at most five years before the last run."""
    for first in range(len(runs) - 1, 0, -1):
        before, after = runs[first - 1], runs[first]
        if any(_gap(before, after.date - _DAY)) or (runs[-1].date - before.date).days >= _MOST_DAYS:
            return first
    return 0


def _gap(before: Night, until: datetime.date) -> Iterator[Stretch]:
    """The days after a run up to ``until`` as a gap, if there are too many to be nights."""
    days = (until - before.date).days
    if days > LONG_GAP:
        yield Stretch(before.date + _DAY, until, days)


def _missing(runs: Sequence[Night]) -> Iterator[Night]:
    """The days between two runs."""
    for before, after in itertools.pairwise(runs):
        yield from _days_after(before.date, after.date - _DAY)


def _days_after(day: datetime.date, until: datetime.date) -> Iterator[Night]:
    for offset in range(1, (until - day).days + 1):
        yield Night(day + offset * _DAY, State.MISSING, problem="no run has this date")


def _judged(nights: Sequence[Night]) -> list[Night]:
    """The nights, each finished one compared with those before it."""
    judged: list[Night] = []
    before_by_task: dict[Task, dict[str, list[float]]] = {
        task: {metric.name: [] for metric in FOLLOWED} for task in Task
    }
    for night in sorted(nights, key=_place):
        before = before_by_task[night.task]
        unusual = tuple(
            m.name
            for m in FOLLOWED
            if m.name in night.values and _is_unusual(m, night.values[m.name], before[m.name])
        )
        is_compared = any(len(before[name]) >= _LEAST_BEFORE for name in night.values)
        state = State.UNUSUAL if unusual and not night.state.is_bad else night.state
        usual = {name: statistics.median(before[name]) for name in unusual}
        judged.append(
            dataclasses.replace(night, unusual=unusual, usual=usual, is_compared=is_compared, state=state)
        )
        for name, value in night.values.items():
            before[name] = [*before[name], value.value][-BEFORE:]
    return judged


def _is_unusual(metric: Metric, value: Value, before: Sequence[float]) -> bool:
    """Whether a value is worse than the median of those before by more than chance and the usual spread.

    The spread of the nights before is 1.4826 times their median absolute deviation (a normal distribution's standard
    deviation, robust against a bad week); the night's own interval, if it has one, must exclude the median.
    """
    if len(before) < _LEAST_BEFORE or metric.better is Better.NEITHER:
        return False
    usual = statistics.median(before)
    spread = 1.4826 * statistics.median(abs(each - usual) for each in before)
    is_apart = value.low is None or value.high is None or not value.low <= usual <= value.high
    loss = metric.better * (usual - value.value)
    return is_apart and loss > max(_SPREADS * spread, metric.least_step)


def stretches(nights: Sequence[Night]) -> list[Stretch]:
    """Runs of consecutive nights that deserve a look, in order; a single night is a stretch too."""
    found: list[Stretch] = []
    is_open = False
    for night in nights:
        if not night.state.is_bad:
            is_open = False
        elif is_open:
            found[-1] = Stretch(found[-1].first, night.date, found[-1].nights + 1)
        else:
            found.append(Stretch(night.date, night.date, 1))
            is_open = True
    return found
