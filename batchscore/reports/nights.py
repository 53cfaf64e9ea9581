"""The runs below a folder as nights: what each came to, which days have none, and which are out of the ordinary."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import itertools
import json
import os
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from batchscore.storage import MANIFEST, STAGING

BEFORE = 28
"""Finished nights that one is compared with: the four weeks before."""
_LEAST_BEFORE = 10
_SPREADS = 4.0
"""A night is out of the ordinary beyond this many (robust) standard deviations of the nights before."""
_RUN_SIGNS = {MANIFEST, STAGING, "run.json", "metrics.json", "rejects.jsonl"}


class State(enum.Enum):
    """What became of a night, from bad to good."""

    UNFINISHED = "unfinished"
    """Its folder holds no finished run."""
    MISSING = "missing"
    """No run has this date."""
    ROWS = "rows"
    """Finished, with rows that could not be scored."""
    GATE = "gate"
    """Finished, and a quality gate failed."""
    UNUSUAL = "unusual"
    """Finished, and a metric is clearly worse than in the four weeks before."""
    USUAL = "usual"

    @property
    def is_bad(self) -> bool:
        """Whether a person should look at it."""
        return self is not State.USUAL


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """A metric of one night, with its 95 % interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Metric:
    """A metric that is followed: its name, how it is said, and which way is worse (-1 down, 1 up, 0 neither)."""

    name: str
    words: str
    worse: int
    is_share: bool = True
    least_step: float = 0.005
    """A change smaller than this is never out of the ordinary."""


METRICS = (
    Metric("accuracy", "accuracy", -1),
    Metric("expected_accuracy", "expected accuracy (estimate)", -1),
    Metric("macro_f1", "macro F1", -1),
    Metric("ece", "calibration error", 1),
    Metric("log_loss", "log loss", 1, is_share=False, least_step=0.01),
    Metric("suspect_labels", "labels that look wrong", 1),
    Metric("drift", "drift (PSI)", 1, is_share=False, least_step=0.1),
    Metric("rows", "rows scored", 0, is_share=False),
    Metric("not_scored", "rows not scored", 1),
    Metric("rows_per_second", "rows a second", 0, is_share=False),
)


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


def read_nights(folder: Path) -> list[Night]:
    """Every run below ``folder`` by date, with the days between them that have none."""
    runs = sorted(
        (_read_run(path, folder) for path in run_folders(folder)), key=lambda n: (n.date, n.finished, n.path)
    )
    return _judged([*runs, *_missing(runs)])


def run_folders(folder: Path) -> Iterator[Path]:
    """Folders below ``folder`` that hold a run, finished or not; links are not followed, nor runs looked into."""
    for root, folders, files in os.walk(folder):
        here = Path(root)
        if is_run(here) or _RUN_SIGNS & set(files):
            yield here
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def is_run(folder: Path) -> bool:
    """Whether ``folder`` holds a run, finished or not."""
    return any((folder / name).exists() for name in _RUN_SIGNS)


def _read_run(path: Path, folder: Path) -> Night:
    name = path.relative_to(folder).as_posix()
    if not (path / MANIFEST).exists():
        return Night(_guessed_date(path), State.UNFINISHED, name, problem="it has not finished")
    try:
        facts, metrics = (json.loads((path / file).read_bytes()) for file in ("run.json", "metrics.json"))
        finished = datetime.datetime.fromisoformat(facts["finished"])
        return _night(name, finished, facts, metrics)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Night(_guessed_date(path), State.UNFINISHED, name, problem=f"it cannot be read ({error!r})")


def _guessed_date(path: Path) -> datetime.date:
    """The date that ``run.json`` tells, else that in the folder's name, else the day on which it last changed."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return datetime.datetime.fromisoformat(
            json.loads((path / "run.json").read_bytes())["finished"]
        ).date()
    found = re.search(r"(\d{4})[-_]?(\d\d)[-_]?(\d\d)", path.name)
    if found:
        with contextlib.suppress(ValueError):  # digits, but no date
            return datetime.date(*(int(digits) for digits in found.groups()))
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).date()


def _night(
    name: str, finished: datetime.datetime, facts: Mapping[str, Any], metrics: Mapping[str, Any]
) -> Night:
    gates = metrics.get("gates") or []
    failed = tuple(gate["metric"] for gate in gates if not gate["passed"])
    counts = {key: int(value) for key, value in metrics["counts"].items()}
    state = State.ROWS if counts.get("failed") else State.GATE if failed else State.USUAL
    return Night(
        date=finished.date(),
        state=state,
        path=name,
        finished=str(facts["finished"]),
        values=dict(_values(facts, metrics)),
        limits={gate["metric"]: float(gate["limit"]) for gate in gates},
        counts=counts,
        failed_gates=failed,
    )


def _values(facts: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """The metrics of one run that are followed, those that it has."""
    quality, counts = metrics.get("quality") or {}, metrics["counts"]
    for name, estimate in (
        ("accuracy", quality.get("accuracy")),
        ("expected_accuracy", metrics.get("expected_accuracy")),
        ("macro_f1", quality.get("macro_f1")),
    ):
        if estimate:
            yield name, Value(*(float(estimate[key]) for key in ("value", "low", "high")))
    issues, read = metrics.get("label_issues") or {}, counts["read"]
    seconds = facts.get("seconds") or (facts.get("work") or {}).get("seconds")
    plain = {
        "ece": (metrics.get("calibration") or {}).get("ece"),
        "log_loss": quality.get("log_loss"),
        "suspect_labels": issues["estimated_wrong_labels"] / issues["labelled"]
        if issues.get("labelled")
        else None,
        "drift": (metrics.get("drift") or {}).get("value"),
        "rows": counts["scored"],
        "not_scored": 1 - counts["scored"] / read if read else None,
        "rows_per_second": counts["scored"] / seconds if seconds else None,
    }
    yield from ((name, Value(float(value))) for name, value in plain.items() if value is not None)


def _missing(runs: Sequence[Night]) -> Iterator[Night]:
    """The days between two runs."""
    for before, after in itertools.pairwise(runs):
        for offset in range(1, (after.date - before.date).days):
            yield Night(
                before.date + datetime.timedelta(days=offset), State.MISSING, problem="no run has this date"
            )


def _judged(nights: Sequence[Night]) -> list[Night]:
    """In order of their dates, each finished night held against those before it."""
    judged: list[Night] = []
    before: dict[str, list[float]] = {metric.name: [] for metric in METRICS}
    for night in sorted(nights, key=lambda n: (n.date, n.finished, n.path)):
        unusual = tuple(
            m.name
            for m in METRICS
            if m.name in night.values and _is_unusual(m, night.values[m.name], before[m.name])
        )
        state = State.UNUSUAL if unusual and night.state is State.USUAL else night.state
        judged.append(dataclasses.replace(night, unusual=unusual, state=state))
        for name, value in night.values.items():
            before[name] = [*before[name], value.value][-BEFORE:]
    return judged


def _is_unusual(metric: Metric, value: Value, before: Sequence[float]) -> bool:
    """Whether a value is worse than the median of those before by more than chance and habit explain.

    The spread of the nights before is 1.4826 times their median absolute deviation (a normal distribution's standard
    deviation, not moved by a bad week among them); the night's own interval, where it has one, must leave the median out.
    """
    if len(before) < _LEAST_BEFORE or not metric.worse:
        return False
    usual = statistics.median(before)
    spread = 1.4826 * statistics.median(abs(each - usual) for each in before)
    is_apart = value.low is None or value.high is None or not value.low <= usual <= value.high
    return is_apart and metric.worse * (value.value - usual) > max(_SPREADS * spread, metric.least_step)


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
