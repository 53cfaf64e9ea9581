"""Is it the model or the labels? The claim about wrong labels in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchscore.evaluation.wrong_labels import GOT_WORSE, LABELS, MODEL, NONE
from batchscore.reports.formats import shown

Metrics = Mapping[str, Any]


def model_or_labels(metrics: Metrics) -> str:
    """The verdict of ``label_issues.claim`` with its numbers; rows worth checking are listed in any case."""
    claim = (metrics.get("label_issues") or {}).get("claim")
    if not claim:
        return "It was not looked at."
    return _CLAIMS.get(claim["verdict"], _cannot_tell)(claim, metrics)


def _labels_are_wrong(claim: Metrics, metrics: Metrics) -> str:
    wrong, labelled = claim["wrong_labels"], metrics["label_issues"]["labelled"]
    low, value, high = (round(wrong[key]) for key in ("low", "value", "high"))
    return (
        f"Some labels are wrong: about {value:,} of {labelled:,} ({low:,} to {high:,}).{_expected(claim)} Most of the surplus is where "
        "it is surest, as with wrong labels and not with a worse model. Check the first rows of the page's list."
    )


def _model_is_wrong(claim: Metrics, metrics: Metrics) -> str:
    compared = metrics.get("comparison") or {}
    if claim["why"] != GOT_WORSE:
        return (
            f"The model or the texts rather than the labels.{_expected(claim)} The surplus is not where the model is surest, as it "
            f"would be with wrong labels{_possible(claim)}."
        )
    text = (
        f"The model or the texts, not the labels: on the same rows, judged by the same labels, {compared['broken']:,} answers are "
        f"wrong that were right in the earlier run, and {compared['fixed']:,} the other way round."
    )
    return f"{text} The model is the same: look at the texts." if compared.get("same_model") else text


def _nothing_is_wrong(claim: Metrics, _: Metrics) -> str:
    return f"It is the model, as far as can be told.{_expected(claim)} That leaves no sign of wrong labels{_possible(claim)}."


def _cannot_tell(claim: Metrics, _: Metrics) -> str:
    return f"It cannot be told: {shown(claim['why'], 200)}.{_expected(claim)}"


def _expected(claim: Metrics) -> str:
    """How many labels the model disagrees with, and how many are expected from its reliability."""
    if claim.get("expected_mismatches") is None:
        return ""
    held_out = claim.get("held_out_rows")
    source = f"its {held_out:,} held-out rows" if held_out else "its stated probabilities"
    return (
        f" The model disagrees with {claim['mismatches']:,} labels; from {source} one "
        f"would expect {round(claim['expected_mismatches']):,}."
    )


def _possible(claim: Metrics) -> str:
    return f" (at most {round(claim['interval']['high']):,} can be)" if claim.get("interval") else ""


_CLAIMS = {LABELS: _labels_are_wrong, MODEL: _model_is_wrong, NONE: _nothing_is_wrong}
