"""The result of one call of ``score``, and what becomes of it in a data set."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.errors import DataError, GateFailedError, printable
from batchscore.records import OUT_OF_MEMORY
from batchscore.runs.dataset import DataSet
from batchscore.runs.folder import METRICS, output_of, read_facts

if TYPE_CHECKING:
    from batchscore.addresses import Address, Place
    from batchscore.config import ScoreSettings
    from batchscore.runs.forecast import Forecast
    from batchscore.runs.planning import Plan

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class RunResult:
    """The result of one call of ``score``; ``outcome()`` raises if rows or gates failed."""

    output: Path
    status: str
    """``scored``, ``done`` (it was finished before) or ``planned`` (``--dry-run``)."""
    rows: int
    rejects: int
    metrics: Mapping[str, Any]
    seconds: float
    plan: Plan | None = None
    appended: tuple[Path, ...] = ()
    """Its files in the data set, with ``append_to``."""
    appended_before: tuple[Path, ...] = ()
    """Those of them that were there already, and stayed as they were."""
    forecast: Forecast | None = None
    """With ``dry_run``: what the run would take."""

    bucket: Address | None = None
    """Where the run folder is, if that is in a bucket; then ``output`` was its copy on this machine."""

    @property
    def place(self) -> Place:
        """The run folder."""
        return self.bucket or self.output

    def outcome(self) -> None:
        """Raise :class:`DataError` if rows of the finished run failed, or :class:`GateFailedError` if a gate did."""
        failed = self.metrics.get("counts", {}).get("failed", 0)
        if failed:
            raise DataError(
                f"{failed} rows could not be scored and are kept with status=failed; the reasons are in "
                f"{printable(self.place)}/{METRICS} (failed_rows). {self._advice()}"
            )
        refuse_missed_gates(self.metrics, self.place)

    def _advice(self) -> str:
        """What may help failed rows: the same again only where something else held the memory."""
        reasons = [str(row["reason"]) for row in self.metrics.get("failed_rows", [])]
        if reasons and all(reason.startswith(OUT_OF_MEMORY) for reason in reasons):
            return "Free memory, or give --device cpu, and score again with --force."
        return (
            "Scored again in the same way they would fail again: try --device cpu, --precision fp32 or another --long-text, with "
            "--force, or take those rows out."
        )


def refuse_missed_gates(metrics: Mapping[str, Any], output: Place) -> None:
    """Raise :class:`GateFailedError` if a gate of a finished run failed."""
    missed = [gate["reason"] for gate in (metrics.get("gates") or []) if not gate["passed"]]
    if missed:
        raise GateFailedError(
            f"Quality gate failed: {'; '.join(missed)}. Everything is in {printable(output)}."
        )


def with_appended(result: RunResult, settings: ScoreSettings) -> RunResult:
    """The result of a finished run with its files in the data set, if there is one; put there unless they are.

    A run with failed rows or a failed gate is not put there. The caller holds the lock of the run's folder.

    Raises:
        UsageError, DataError, OutputError: as :class:`DataSet` has them.
    """
    if settings.append_to is None:
        return result
    try:
        result.outcome()
    except (DataError, GateFailedError):
        _LOG.warning("not appended to %s, for what is told below", printable(settings.append_to))
        return result
    data_set = DataSet(settings.append_to)
    data_set.refuse_misplaced(result.output)
    run = output_of(dataclasses.replace(settings, output=result.output))
    there = data_set.append(run, read_facts(run), replace=settings.force)
    return dataclasses.replace(result, appended=there.files, appended_before=there.before)
