"""``promote``: a challenger takes the champion's place only if it is better on the same labelled rows, and worse nowhere.

Both score the rows, each into a run folder of its own, the challenger's with the champion's as its earlier run. Then all of these
must hold, and each that does not is told:

- its accuracy is higher, beyond chance (McNemar's exact test, paired by row);
- it is not worse in any slice beyond chance (McNemar's, corrected by Holm for as many slices as are tested);
- its calibration is not worse beyond chance (a paired permutation test);
- the gates that were asked for pass.
"""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchscore.errors import DataError, ModelError, UsageError, printable
from batchscore.evaluation.calibration_change import calibration_change
from batchscore.model.bundle import Bundle, open_bundle
from batchscore.records import Task
from batchscore.reports.gates import gate_sentence
from batchscore.runs.calibration_rows import answered_rows
from batchscore.runs.champion import Champion
from batchscore.runs.folder import PAGE
from batchscore.runs.run import score

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.system.terminal import ProgressFactory

SIGNIFICANT = 0.05
"""Of each of the three tests."""
CHAMPION, CHALLENGER = "champion", "challenger"
"""The run folders."""
_NAMED_SLICES = 3


@dataclasses.dataclass(frozen=True, slots=True)
class PromoteSettings:
    """Settings of one call of ``promote``."""

    challenger: str
    over: Path
    """The champion: a link to a bundle."""
    score: ScoreSettings
    """How both are scored; ``model``, ``output`` and ``baseline`` are ignored."""
    output: Path | None = None
    """The folder that both runs are kept in; None: a temporary one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Promotion:
    """What became of a challenger."""

    status: str
    """``promoted``, ``kept`` (the champion stays) or ``already`` (the challenger is the champion)."""
    champion: str
    """Fingerprint of the bundle that the link led to before."""
    challenger: str
    reasons: tuple[str, ...] = ()
    """Why the champion stays."""
    comparison: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Figures, as JSON values; empty with ``already``."""
    page: Path | None = None
    """The page of the comparison, if the runs are kept."""

    @property
    def is_promoted(self) -> bool:
        """Whether the link leads to the challenger now."""
        return self.status != "kept"


def promote(settings: PromoteSettings, progress: ProgressFactory) -> Promotion:
    """Compare, and move the champion's link if the challenger is better.

    Raises:
        OutputError: the champion is no link.
        BusyError: another promotion is at work.
        ModelError: a bundle cannot be used, or they have other labels.
        DataError: the rows cannot be scored, or have no labels.
    """
    champion = Champion.at(settings.over)
    with champion.held():
        old = open_bundle(str(champion.folder), trust=settings.score.trust)
        new = open_bundle(settings.challenger, trust=settings.score.trust)
        if old.fingerprint == new.fingerprint:
            return Promotion("already", old.fingerprint, new.fingerprint)
        _refuse_incomparable(old, new)
        with _kept_in(settings.output) as folder:
            comparison, gates = _compared(settings.score, old, new, folder, progress)
            page = folder / CHALLENGER / PAGE if settings.output is not None else None
        reasons = (*_reasons(comparison), *gates)
        told = Promotion("kept", old.fingerprint, new.fingerprint, reasons, comparison, page)
        if reasons:
            return told
        new.refuse_changed()
        if champion.folder != old.path:
            raise ModelError(
                f"{printable(settings.over)} was moved to {printable(champion.target)} while both were scored, so that the "
                "comparison is not with what is there now. Promote again."
            )
        champion.move(new.path)
        return dataclasses.replace(told, status="promoted")


def roll_back(over: Path, trust: Sequence[Path] = ()) -> str:
    """Exchange the champion with the one before; returns what the link leads to now.

    With ``trust`` only if one of these keys signed that bundle. The champion's own may be gone: that is when one goes back.

    Raises:
        OutputError: the champion is no link.
        NoInputError: there is no bundle before it.
        ModelError: that bundle cannot be used.
    """
    champion = Champion.at(over, may_lead_nowhere=True)
    with champion.held():
        open_bundle(str(champion.folder_of(champion.target_before())), trust=trust)
        return champion.move_back()


def _refuse_incomparable(old: Bundle, new: Bundle) -> None:
    if {old.task, new.task} != {Task.SINGLE_LABEL}:
        raise UsageError("promote compares models with one label a row, and one of these is none.")
    if set(old.labels) != set(new.labels):
        raise ModelError(
            f"The champion's labels are {printable(', '.join(old.labels))}, the challenger's {printable(', '.join(new.labels))}. "
            "Whoever reads the predictions would get others; move the link by hand if that is meant."
        )
    if old.takes_pairs != new.takes_pairs:
        raise ModelError("One of both models reads two texts a row, and the other one.")


@contextlib.contextmanager
def _kept_in(output: Path | None) -> Iterator[Path]:
    if output is not None:
        yield output
        return
    with tempfile.TemporaryDirectory(prefix="batchscore-promote-") as folder:
        yield Path(folder)


def _compared(
    asked: ScoreSettings, old: Bundle, new: Bundle, folder: Path, progress: ProgressFactory
) -> tuple[dict[str, Any], list[str]]:
    """Figures of the comparison, and the gates that failed, in words; both models score, the champion first."""
    read = dataclasses.replace(asked.read, id_column="")  # rows are paired by their place, whatever their ids
    plain = dataclasses.replace(
        asked,
        read=read,
        model=str(old.path),
        output=folder / CHAMPION,
        fail_below=(),
        fail_above=(),
        baseline=None,
    )
    before = score(plain, progress)
    after = score(
        dataclasses.replace(
            asked, read=read, model=str(new.path), output=folder / CHALLENGER, baseline=folder / CHAMPION
        ),
        progress,
    )
    for run in (before, after):
        _refuse_failed(run.metrics)
    rows = [answered_rows(folder / name) for name in (CHAMPION, CHALLENGER)]
    found = dict(after.metrics["comparison"])
    if not found["evaluated"]:
        raise DataError(
            "No row has a known label, so that nothing can be compared. Name labelled rows with --data."
        )
    if len({len(each.predicted) for each in rows} | {found["evaluated"]}) > 1:
        raise DataError("Not every labelled row was scored by both models, so that they cannot be paired.")
    calibration = calibration_change(*((each.probability, each.right) for each in rows))
    return {
        **{key: found[key] for key in ("evaluated", "fixed", "broken", "p_value")},
        **{key: found[key] for key in ("accuracy_before", "accuracy_after", "accuracy_change")},
        "slices": found["slices"],
        "calibration": calibration.to_json(),
    }, [gate_sentence(gate) for gate in after.metrics["gates"] if not gate["passed"]]


def _refuse_failed(metrics: Mapping[str, Any]) -> None:
    if failed := metrics["counts"].get("failed"):
        raise DataError(
            f"{failed} rows could not be scored, so that nothing can be said of them. Take them out of --data, and promote again."
        )


def _reasons(found: Mapping[str, Any]) -> Iterator[str]:
    """Why the challenger is not promoted, in words; none if it may be."""
    change, calibration = found["accuracy_change"], found["calibration"]
    interval = f"{change['low']:+.2%} to {change['high']:+.2%}"
    if not (found["fixed"] > found["broken"] and found["p_value"] < SIGNIFICANT):
        yield (
            f"it is not better beyond chance: {found['fixed']} rows fixed and {found['broken']} broken of {found['evaluated']}, accuracy "
            f"{change['value']:+.2%} ({interval}), p = {found['p_value']:.3g}"
        )
    worse = sorted(
        (each for each in found["slices"] if each["worse"]), key=lambda each: float(each["p_value"])
    )
    for each in worse[:_NAMED_SLICES]:
        yield (
            f"it is worse where {printable(each['column'])} is {printable(each['value'])}: accuracy {each['accuracy_after']:.2%}, before "
            f"{each['accuracy_before']:.2%}, on {each['evaluated']} rows (p = {each['p_value']:.3g}, corrected for all slices)"
        )
    if len(worse) > _NAMED_SLICES:
        yield f"and in {len(worse) - _NAMED_SLICES} more slices"
    if calibration["p_value"] < SIGNIFICANT:
        yield (
            f"its probabilities are worse calibrated: error {calibration['after']:.4f}, before {calibration['before']:.4f} (p = "
            f"{calibration['p_value']:.3g})"
        )
