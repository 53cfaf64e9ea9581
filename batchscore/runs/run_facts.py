"""What ``run.json`` says: everything about a run but its results."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from batchscore.errors import as_named
from batchscore.formats.inputs import Noted
from batchscore.formats.output_columns import OutputColumns
from batchscore.model.thresholds import thresholds_of
from batchscore.runs.accepting import answers_of_run
from batchscore.runs.baselines import Baseline, earlier_run
from batchscore.runs.opening import night_of
from batchscore.version import __version__

if TYPE_CHECKING:
    import datetime

    from batchscore.config import ScoreSettings
    from batchscore.model.bundle import Bundle
    from batchscore.records import InputFile
    from batchscore.runs.folder import RunFolder
    from batchscore.runs.planning import Plan
    from batchscore.runs.work import WorkDone


NOTED = "noted"
"""The key in ``run.json``: what the file system told of each input when it was hashed (:class:`Noted`)."""


@dataclasses.dataclass(frozen=True, slots=True)
class RunTimes:
    """When a run began and finished, and its ``seconds`` over all its starts."""

    begun: datetime.datetime
    finished: datetime.datetime
    seconds: float


def facts_of_run(
    fingerprint: str,
    plan: Plan,
    bundle: Bundle,
    settings: ScoreSettings,
    baseline: Baseline | None,
    times: RunTimes,
) -> dict[str, Any]:
    """The facts that are known before the rows are counted, as JSON values."""
    return {
        "fingerprint": fingerprint,
        "version": __version__,
        "date": night.isoformat() if (night := night_of(settings)) else None,
        "started": times.begun.isoformat(timespec="seconds"),
        "finished": times.finished.isoformat(timespec="seconds"),
        "files": [_file(file, settings.pinned) for file in plan.files],
        "model": {
            "path": as_named(bundle.path),
            "fingerprint": bundle.fingerprint,
            "signed_by": bundle.signed_by,
            "task": bundle.task,
            "labels": list(bundle.labels),
            "thresholds": list(thresholds_of(bundle, settings.thresholds)),
            "max_length": bundle.max_length,
            "temperature": bundle.calibration_temperature,
        },
        "added_columns": OutputColumns.of(settings).added_names(answers_of_run(bundle, settings)),
        "compute": {},
        "baseline": earlier_run(baseline) if baseline else None,
        "options": {name: _named(value) for name, value in settings.result_options().items()},
        "python": platform.python_version(),
        "seconds": round(times.seconds, 3),
    }


def noted_inputs(run: RunFolder) -> list[Noted]:
    """What a finished run noted of its inputs; a run of an earlier version noted nothing.

    Raises:
        LookupError, TypeError, ValueError: it is damaged.
    """
    pairs = zip(run.facts.get(NOTED, ()), run.files, strict=False)
    return [Noted.from_json(noted, file["sha256"]) for noted, file in pairs]


def _named(value: Any) -> Any:
    return as_named(value) if isinstance(value, str) else value


def _file(file: InputFile, pinned: Mapping[str, str]) -> dict[str, Any]:
    path = as_named(file.shown)
    return {
        "path": path,
        **({"version": pinned[path]} if path in pinned else {}),
        "name": file.name,
        "format": file.format,
        "compression": file.compression,
        "size": file.size,
        "sha256": file.sha256,
        "rows": file.rows,
        "rejects": file.rejects,
        "columns": dataclasses.asdict(file.columns),
        "dialect": file.layout.details.get("dialect"),
        "label_values": dict(file.label_values),
        "label_reading": file.label_reading,
        "class_names": list(file.class_names),
        "unknown_labels": dict(file.unknown_labels),
    }


def work_facts(
    compute: Mapping[str, Any], spent: WorkDone, counts: Mapping[str, int], seconds: float
) -> dict[str, Any]:
    """The facts about the computation and what it cost, with the ``counts`` of rows."""
    return {
        "compute": {"device": "auto", "precision": "auto", **compute},
        "work": spent.summary(counts["scored"] + counts["abstained"], seconds),
        "counts": counts,
    }
