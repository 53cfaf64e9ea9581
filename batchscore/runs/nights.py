"""The runs below a folder as nights.

A night's date is the one that it is *for*: that of its folder (see :mod:`batchscore.runs.dates`), else that of ``--date``,
else the local day on which the run finished.
"""

from __future__ import annotations

import contextlib
import datetime
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from batchscore.errors import DataError, ModelError, NoInputError, NothingToDoError, StorageError
from batchscore.evaluation import is_of_quality
from batchscore.evaluation.metrics import FOLLOWED, Value, task_of
from batchscore.reports.gates import gate_sentence
from batchscore.reports.nights import LateLabels, Night, Nights, State, nights_of
from batchscore.runs.as_written import refuse_changed_figures
from batchscore.runs.dates import date_of_path
from batchscore.runs.folder import (
    DAMAGE,
    MANIFEST,
    RUN_NAMES,
    RunFolder,
    RunState,
    is_evaluation,
    is_finished,
    read_facts,
    read_run,
    state_of,
)
from batchscore.runs.refusals import Refusal, read_refusal
from batchscore.system.own_paths import own_folder
from batchscore.system.storage import sha256_of

_REFUSED = {
    NoInputError.exit_code: (State.NO_INPUT, ""),
    NothingToDoError.exit_code: (State.SKIPPED, ""),
    DataError.exit_code: (State.REFUSED, "bad data: "),
    ModelError.exit_code: (State.REFUSED, "the model or the settings: "),
    StorageError.exit_code: (State.REFUSED, "the disk: "),
}
"""Exit code of a refusal → state of the night, and the start of its reason."""


def read_nights(
    folder: Path, until: datetime.date | None = None, today: datetime.date | None = None
) -> Nights:
    """Every run below ``folder`` by date, with the days up to ``until`` that have none.

    ``until`` defaults to ``today``, or to tomorrow if a run has that date already (from a time zone further east).
    """
    today = today or datetime.datetime.now().astimezone().date()
    evaluations = _Evaluations()
    runs = [path for path in run_folders(folder) if not evaluations.takes(path)]
    return nights_of((_read_run(path, folder, evaluations) for path in runs), until, today)


class _Evaluations:
    """The evaluations of runs with labels that came later: no nights, but what is known of one by now."""

    def __init__(self) -> None:
        self._found: dict[tuple[Path, str], list[Path]] = {}

    def takes(self, path: Path) -> bool:
        """Whether a folder is one, and no run."""
        try:
            if not is_finished(path) or not is_evaluation(facts := read_facts(path)):
                return False
            self._found.setdefault((path.parent, str(facts["evaluates"]["name"])), []).append(path)
        except DAMAGE:
            return False
        return True

    def of(self, run: Path) -> RunFolder | None:
        """The newest one beside a run, of what that holds now; None if there is none."""
        sealed = sha256_of(own_folder(run) / MANIFEST)
        found = []
        for path in self._found.get((run.parent, run.name), ()):
            with contextlib.suppress(*DAMAGE):
                refuse_changed_figures(path)
                evaluation = read_run(path)
                if evaluation.facts["evaluates"]["manifest"] == sealed:
                    found.append((datetime.datetime.fromisoformat(evaluation.finished), path, evaluation))
        return max(found)[2] if found else None


def run_folders(folder: Path) -> Iterator[Path]:
    """Folders below ``folder`` that hold a run, finished or not; links and folders within runs are not visited."""
    for root, folders, files in os.walk(folder):
        here = Path(root)
        if is_run(here) or RUN_NAMES & set(files):
            yield here
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def is_run(folder: Path) -> bool:
    """Whether ``folder`` holds a run, finished or not."""
    return state_of(folder) is not RunState.NO_RUN


def _read_run(path: Path, folder: Path, evaluations: _Evaluations) -> Night:
    name = path.relative_to(folder)
    try:
        if (refusal := read_refusal(path)) is not None:
            return _refused(name, refusal)
        if not is_finished(path):
            return Night(_date(path, name), State.UNFINISHED, name.as_posix(), problem="it has not finished")
        refuse_changed_figures(path)
        return _night(name, read_run(path), evaluations.of(path))
    except DAMAGE as error:
        problem = f"it cannot be read ({error!r})"
        return Night(_date(path, name), State.UNFINISHED, name.as_posix(), problem=problem)


def _date(path: Path, name: PurePath) -> datetime.date:
    """The date of an unreadable run: from its folder's name, its ``run.json``, or the day of its last change."""
    with contextlib.suppress(*DAMAGE):
        return date_of_path(name) or _recorded_date(read_facts(path))
    return datetime.datetime.fromtimestamp(path.stat().st_mtime).astimezone().date()


def _recorded_date(facts: Mapping[str, Any]) -> datetime.date:
    """The date in ``run.json``: ``date``, else the local day of ``finished``."""
    return datetime.datetime.fromisoformat(facts.get("date") or facts["finished"]).date()


def _refused(name: PurePath, refusal: Refusal) -> Night:
    date = date_of_path(name) or datetime.date.fromisoformat(refusal.date)
    state, why = _REFUSED.get(refusal.exit_code, (State.REFUSED, ""))
    return Night(date, state, name.as_posix(), refusal.at, problem=why + refusal.reason.rstrip("."))


def _night(name: PurePath, run: RunFolder, evaluation: RunFolder | None) -> Night:
    metrics = run.metrics if evaluation is None else _by_now(run.metrics, evaluation.metrics)
    gates = metrics.get("gates") or []
    failed = [gate for gate in gates if not gate["passed"]]
    counts = {key: int(value) for key, value in metrics["counts"].items()}
    is_gated = any(is_of_quality(gate["metric"]) for gate in gates)
    return Night(
        date=date_of_path(name) or _recorded_date(run.facts),
        state=_state(counts, is_gated=is_gated, has_failed=bool(failed)),
        path=name.as_posix(),
        finished=run.finished,
        values=dict(_values(run.facts, metrics)),
        limits={gate["metric"]: float(gate["limit"]) for gate in gates},
        counts=counts,
        failed_gates=tuple(gate["metric"] for gate in failed),
        gate_reasons=tuple(gate_sentence(gate) for gate in failed),
        task=task_of(metrics),
        labels=None if evaluation is None else _labels(evaluation),
    )


def _by_now(run: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Mapping[str, Any]:
    """The metrics of a run with the labels that came later; what it was compared with, and its other gates, are its own."""
    gates = list(evaluation.get("gates") or ())
    named = {gate["metric"] for gate in gates}
    gates += [gate for gate in run.get("gates") or () if gate["metric"] not in named]
    return {**run, **evaluation, "gates": gates}


def _labels(evaluation: RunFolder) -> LateLabels:
    return LateLabels(
        rows=int(evaluation.facts["labels"]["rows"]),
        path=evaluation.path.name,
        finished=evaluation.finished,
    )


def _state(counts: Mapping[str, int], *, is_gated: bool, has_failed: bool) -> State:
    if counts.get("failed"):
        return State.ROWS
    if has_failed:
        return State.GATE
    if not counts["scored"]:
        return State.EMPTY
    return State.USUAL if is_gated else State.UNGATED


def _values(facts: Mapping[str, Any], metrics: Mapping[str, Any]) -> Iterator[tuple[str, Value]]:
    """The metrics of one run that the trend follows, if it has them."""
    for metric in FOLLOWED:
        value = metric.read(metrics, facts)
        if value is None or not (value.value or not metric.skips_zero):
            continue
        if not all(math.isfinite(each or 0.0) for each in (value.value, value.low, value.high)):
            raise ValueError(f"{metric.name} is no finite number")
        yield metric.name, value
