"""Runs as nights: what each came to, which days have none, and which are out of the ordinary.

Whatever dates there are, what is drawn is bounded: days without a run are nights of their own up to a hundred in a row, a
longer gap is one :class:`Stretch`, and runs from before such a gap, or from more than five years before the last one, are
counted and not drawn.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from batchscore.evaluation.metrics import FOLLOWED, Better, Metric, Value

BEFORE = 28
"""Finished nights that one is compared with: the four weeks before."""
LONG_GAP = 100
"""Days without a run up to which each is a night."""
_MOST_DAYS = 5 * 366
_FIRST_YEAR = 1970
"""An earlier date cannot be meant."""
_LEAST_BEFORE = 10
_SPREADS = 4.0
"""A night is out of the ordinary beyond this many (robust) standard deviations of the nights before."""
_DAY = datetime.timedelta(days=1)


class State(enum.Enum):
    """What became of a night, from bad to good."""

    UNFINISHED = "unfinished"
    """Its folder holds no finished run."""
    REFUSED = "refused"
    """Nothing was scored: bad data, a model that cannot be used, a disk that failed."""
    NO_INPUT = "no_input"
    MISSING = "missing"
    """No run has this date."""
    ROWS = "rows"
    """Finished, with rows that could not be scored."""
    GATE = "gate"
    """Finished, and a quality gate failed."""
    EMPTY = "empty"
    """Finished, and not one row was scored."""
    UNUSUAL = "unusual"
    """Finished, and a metric is clearly worse than in the four weeks before."""
    SKIPPED = "skipped"
    """There was nothing to score, which ``--skip-empty`` lets pass."""
    UNGATED = "ungated"
    """Finished, and no gate on the quality of predictions was set: nobody said what is good enough."""
    USUAL = "usual"
    """Finished, and its quality gates passed."""

    @property
    def is_bad(self) -> bool:
        """Whether a person should look at it."""
        return self not in {State.SKIPPED, State.UNGATED, State.USUAL}


@dataclasses.dataclass(frozen=True, slots=True)
class Night:
    """One run folder, or (``MISSING``) one day without any."""

    date: datetime.date
    state: State
    path: str = ""
    """The run folder below the folder of runs, with ``/``."""
    finished: str = ""
    values: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """The gate of each metric that has one."""
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    failed_gates: tuple[str, ...] = ()
    unusual: tuple[str, ...] = ()
    """Metrics out of the ordinary."""
    is_compared: bool = False
    """Whether there were nights enough before it to tell."""
    problem: str = ""
    """Why there are no numbers."""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return {
            **{name: getattr(self, name) for name in ("path", "finished", "problem")},
            "date": self.date.isoformat(),
            "state": self.state.value,
            "values": {name: dataclasses.asdict(value) for name, value in self.values.items()},
            "limits": dict(self.limits),
            "counts": dict(self.counts),
            "failed_gates": list(self.failed_gates),
            "unusual": list(self.unusual),
            "compared": self.is_compared,
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
    """By date; every day between the first and the last of them has one. Empty where no run has a date to go by."""
    until: datetime.date
    """The day up to which days without a run are counted."""
    is_open: bool = False
    """Whether that day is not over, so that its run may still come."""
    gaps: tuple[Stretch, ...] = ()
    """More than a hundred days without a run: before the nights shown, or after them."""
    earlier: tuple[Night, ...] = ()
    """Runs from before the nights shown."""
    misdated: tuple[Night, ...] = ()
    """Runs with a date after ``until``, or from before there were computers to run them."""

    @property
    def all(self) -> tuple[Night, ...]:
        """Shown or not."""
        return (*self.misdated, *self.earlier, *self.shown)

    @property
    def last(self) -> Night | None:
        """The last one that left anything, even if only a note why it was refused."""
        return next((night for night in reversed(self.shown) if night.state is not State.MISSING), None)

    @property
    def missing_at_the_end(self) -> int:
        """Days without a run since the last one."""
        return (self.until - self.last.date).days if self.last else 0

    @property
    def stretches(self) -> list[Stretch]:
        """What a person should look at, in order: nights in a row (:func:`stretches`), and the gaps that are not drawn."""
        return sorted([*stretches(self.shown), *self.gaps], key=lambda stretch: stretch.first)

    def count(self, state: State) -> int:
        """Nights of this state, those of the gaps among them; runs that are not shown do not count."""
        gaps = sum(gap.nights for gap in self.gaps) if state is State.MISSING else 0
        return gaps + sum(night.state is state for night in self.shown)


def nights_of(runs: Iterable[Night], until: datetime.date | None, today: datetime.date) -> Nights:
    """Runs in any order as nights up to ``until``, with the days that have none.

    Without ``until`` that is ``today``, or tomorrow if a run has that date already (it may have run where the day begins
    earlier).
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
    """Index of the first run that is shown: behind the last long gap, and at most five years before the last run."""
    for first in range(len(runs) - 1, 0, -1):
        before, after = runs[first - 1], runs[first]
        if any(_gap(before, after.date - _DAY)) or (runs[-1].date - before.date).days >= _MOST_DAYS:
            return first
    return 0


def _gap(before: Night, until: datetime.date) -> Iterator[Stretch]:
    """The days after a run up to ``until``, if they are too many to be nights."""
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
    """In order of their dates, each finished night held against those before it."""
    judged: list[Night] = []
    before: dict[str, list[float]] = {metric.name: [] for metric in FOLLOWED}
    for night in sorted(nights, key=_place):
        unusual = tuple(
            m.name
            for m in FOLLOWED
            if m.name in night.values and _is_unusual(m, night.values[m.name], before[m.name])
        )
        is_compared = any(len(before[name]) >= _LEAST_BEFORE for name in night.values)
        state = State.UNUSUAL if unusual and not night.state.is_bad else night.state
        judged.append(dataclasses.replace(night, unusual=unusual, is_compared=is_compared, state=state))
        for name, value in night.values.items():
            before[name] = [*before[name], value.value][-BEFORE:]
    return judged


def _is_unusual(metric: Metric, value: Value, before: Sequence[float]) -> bool:
    """Whether a value is worse than the median of those before by more than chance and habit explain.

    The spread of the nights before is 1.4826 times their median absolute deviation (a normal distribution's standard
    deviation, not moved by a bad week among them); the night's own interval, where it has one, must leave the median out.
    """
    if len(before) < _LEAST_BEFORE or metric.better is Better.NEITHER:
        return False
    usual = statistics.median(before)
    spread = 1.4826 * statistics.median(abs(each - usual) for each in before)
    is_apart = value.low is None or value.high is None or not value.low <= usual <= value.high
    loss = metric.better * (usual - value.value)
    return is_apart and loss > max(_SPREADS * spread, metric.least_step)


def stretches(nights: Sequence[Night]) -> list[Stretch]:
    """Nights in a row that deserve a look, in order; a single one is a stretch too."""
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
