"""The verdict on a run of a model that gives a number, in words. The figure is the mean absolute error."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from batchscore.reports.answers import (
    TO_FURTHEST,
    Answer,
    Level,
    Link,
    Metrics,
    Verdict,
    drift_in_words,
    is_shifted,
    lacks_gate,
    passed_line,
    relabelled_rows,
    verdict_of,
    worst_slice,
)
from batchscore.reports.formats import percent, rows, value_text
from batchscore.reports.verdict import SIGNIFICANT, is_matched

_MARGIN = 0.05
"""The error is as small as before if the 95 % interval of its change excludes a growth by more than this share."""
_WIDE = 0.5
"""With an interval of the error wider than this share of it, rows are too few to call anything good."""
_SMALL_BIAS = 0.1
"""A bias under this share of the mean absolute error is not worth a word."""


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorChange:
    """Mean absolute error in two runs."""

    what: str
    before: float
    after: float
    growth: Mapping[str, float]
    """{value, low, high}: positive if this run is further off; without an interval for a single row."""
    is_clear: bool

    @property
    def is_as_good(self) -> bool:
        """Whether a relevant growth can be ruled out."""
        return "high" in self.growth and self.growth["high"] < _MARGIN * self.before

    @property
    def level(self) -> Level:
        """A clear growth deserves a look; good needs evidence."""
        if self.is_clear and self.after > self.before:
            return Level.LOOK
        return Level.GOOD if self.is_as_good or self.is_clear else Level.PLAIN

    def __str__(self) -> str:
        if self.is_clear:
            return f"{'larger' if self.after > self.before else 'smaller'} than in the earlier run"
        if self.is_as_good:
            return "as small as in the earlier run"
        return "neither clearly larger nor smaller than in the earlier run"


def judge(metrics: Metrics, baseline: Metrics | None = None) -> Verdict:
    """The verdict from ``metrics.json`` and, if compared, that of the earlier run."""
    change = change_of(metrics, baseline)
    quality = _is_it_as_good(metrics, change)
    others = [_where_is_it_off(metrics) if metrics["quality"] else _what_came_out(metrics)]
    return verdict_of(metrics, quality, others, lambda: _quality_line(metrics, change))


def change_of(metrics: Metrics, baseline: Metrics | None) -> ErrorChange | None:
    """Change of the mean absolute error: on the same rows if compared, else between two samples."""
    compared = metrics.get("comparison") or {}
    if is_matched(metrics) and compared.get("mae_before"):
        before, after = compared["mae_before"]["value"], compared["mae_after"]["value"]
        is_clear = (compared["p_value"] or 0.0) < SIGNIFICANT and compared["p_value"] is not None
        return ErrorChange(
            "mean absolute error on the same rows", before, after, compared["mae_change"], is_clear
        )
    before_mae, after_mae = (
        ((run or {}).get("quality") or {}).get("mae") or {} for run in (baseline, metrics)
    )
    if "low" not in before_mae or "low" not in after_mae:
        return None
    half = math.hypot(*(each["high"] - each["value"] for each in (before_mae, after_mae)))
    growth = after_mae["value"] - before_mae["value"]
    ends = {"value": growth, "low": growth - half, "high": growth + half}
    is_clear = abs(growth) > half
    return ErrorChange("mean absolute error", before_mae["value"], after_mae["value"], ends, is_clear)


def _quality_line(metrics: Metrics, change: ErrorChange | None) -> str:
    passed = passed_line(metrics)
    if change is not None:
        but = "with" if change.level is Level.LOOK else "but with"
        shifted = f", {but} {drift_in_words(metrics)}" if is_shifted(metrics) else ""
        return f"It ran, and {change.what} is {change}: {value_text(change.after)}, before {value_text(change.before)}{shifted}."
    if metrics["quality"]:
        if _warning(metrics):
            return (
                f"It ran, but {_figures(metrics)}: worse than always answering the mean of the given numbers."
            )
        return f"It ran: {_figures(metrics)}. {passed or 'No gate says whether that is good enough.'}"
    shifted = f" There is {drift_in_words(metrics)} since the earlier run." if is_shifted(metrics) else ""
    return f"It ran. No numbers came along to compare with; {_spread(metrics)}.{shifted}"


def _figures(metrics: Metrics) -> str:
    """``mean absolute error 0.523 (0.512 to 0.534), rank correlation 0.83``."""
    quality = metrics["quality"]
    ranked = quality["spearman"]
    tail = f", rank correlation {ranked['value']:.2f}" if ranked else ""
    return f"mean absolute error {value_text(quality['mae']['value'])}{_ends(quality['mae'])}{tail}"


def _ends(estimate: Mapping[str, float]) -> str:
    if "low" not in estimate:
        return ""
    return f" ({value_text(estimate['low'])} to {value_text(estimate['high'])})"


def _is_it_as_good(metrics: Metrics, change: ErrorChange | None) -> Answer:
    gates = f" {line}" if (line := passed_line(metrics)) else ""
    if change is None:
        advice = f" {_advice(metrics)}" if lacks_gate(metrics) else ""
        text = f"{_how_good(metrics)}{gates}{_warning(metrics)}{advice}"
        is_loud = not metrics["quality"] and is_shifted(metrics)
        return Answer("How good is it?", text, Level.LOOK if is_loud else _gated_level(metrics))
    shift = drift_in_words(metrics)
    seen = f" There is {shift}." if shift else ""
    what = change.what[0].upper() + change.what[1:]
    text = f"{what} {value_text(change.after)}, before {value_text(change.before)}: {_moved(change)}.{seen}"
    if relabelled := relabelled_rows(metrics):
        text += f" Both are under tonight's numbers: {rows(relabelled)} had another in the earlier run."
    level = Level.LOOK if is_shifted(metrics) or _warning(metrics) else change.level
    level = _gated_level(metrics) if level is Level.PLAIN else level
    return Answer("Is it as good as before?", f"{text}{gates}{_warning(metrics)}", level)


def _moved(change: ErrorChange) -> str:
    growth = change.growth["value"]
    if not growth:
        return "unchanged"
    text = f"{value_text(abs(growth))} {'larger' if growth > 0 else 'smaller'}"
    text += ", more than chance explains" if change.is_clear else ", which chance can explain"
    if change.is_clear or change.is_as_good or "high" not in change.growth:
        return text
    return f"{text}, and so it can a growth of up to {value_text(change.growth['high'])}"


def _how_good(metrics: Metrics) -> str:
    counts, quality = metrics["counts"], metrics["quality"]
    if not counts["scored"]:
        return "Nothing was scored."
    if not quality:
        return f"That cannot be told without given numbers (--label-column). {_spread(metrics).capitalize()}."
    of_all = f"{counts['evaluated']:,} of " if counts["evaluated"] < counts["scored"] else ""
    told = _figures(metrics)
    within = quality["within_tolerance"]
    near = (
        f" {percent(within['value'])} are within {value_text(metrics['tolerance'])} of the given number."
        if within
        else ""
    )
    few = ", too few to be sure of anything" if _is_wide(metrics) else ""
    return f"{told[0].upper()}{told[1:]}, on {of_all}{rows(counts['scored'])} with a given number{few}.{near}"


def _is_wide(metrics: Metrics) -> bool:
    mae = metrics["quality"]["mae"]
    return "low" not in mae or mae["high"] - mae["low"] > _WIDE * mae["value"]


def _spread(metrics: Metrics) -> str:
    """Where most values lie, from their cells."""
    cells = metrics["histograms"]["value"]
    total, below, found = sum(cells["counts"]), 0, []
    for share in (0.05, 0.5, 0.95):
        for low, count in zip(cells["lows"], cells["counts"], strict=True):
            below += count
            if below >= share * total:
                found.append(value_text(low))
                break
        below = 0
    return f"nine in ten values lie between {found[0]} and {found[2]}, half of them below {found[1]}"


def _advice(metrics: Metrics) -> str:
    if not metrics["quality"]:
        return "--baseline RUN_DIR compares the values with an earlier run's."
    return "Nobody has said what is good enough: --fail-above mae=X sets a gate, and --baseline RUN_DIR compares with an earlier run."


def _gated_level(metrics: Metrics) -> Level:
    if _warning(metrics):
        return Level.LOOK
    if not passed_line(metrics) or not metrics["quality"] or _is_wide(metrics):
        return Level.PLAIN
    return Level.GOOD


def _warning(metrics: Metrics) -> str:
    """A warning if the values are further off than the mean of the given numbers; else empty."""
    quality = metrics["quality"]
    if not quality or quality["r2"] is None or quality["r2"] >= 0:
        return ""
    hint = ""
    if quality["spearman"] and quality["spearman"]["value"] > _RANKED:
        hint = ": they are in the right order, so perhaps they are on another scale"
    return (
        f" That is worse than always answering {value_text(quality['mean_given'])}, the mean of the given numbers "
        f"(the values' mean is {value_text(quality['mean_value'])}){hint}."
    )


_RANKED = 0.5
"""A rank correlation from which values are in the right order."""


def _where_is_it_off(metrics: Metrics) -> Answer:
    quality = metrics["quality"]
    half, most = (each["error"] for each in quality["within"][:2])
    text = f"Half of the values are within {value_text(half)} of the given number, nine in ten within {value_text(most)}."
    bias = quality["bias"]
    if abs(bias) > _SMALL_BIAS * quality["mae"]["value"]:
        text += f" On average they are {value_text(abs(bias))} too {'high' if bias > 0 else 'low'}."
    worst = worst_slice(metrics, "mae", value_text)
    level = Level.LOOK if worst else Level.PLAIN
    return Answer("Where is it off?", text + worst, level, (TO_FURTHEST, Link("ranges", "By given number")))


def _what_came_out(metrics: Metrics) -> Answer:
    text = f"{_spread(metrics).capitalize()}." if metrics["counts"]["scored"] else "Nothing."
    return Answer("What did it answer?", text)
