"""How many labels are wrong: on the reliability of a real model, with labels flipped on purpose.

A MiniLM trained on 5,000 IMDB reviews, whose labels follow from stars, was wrong as often as this: ``HELD_OUT`` are 2,500 other
reviews of the training set, ``TEST`` 8,000 of the test set, ``CUT`` the same with half of the texts cut to 120 characters. A flip
does not depend on the text, so that it can be made in these counts as well as in the rows.
"""

from __future__ import annotations

import functools
from typing import Any, TypeAlias

import numpy as np
import pytest
from evaluation_samples import evaluate, literal
from numpy.typing import NDArray
from scipy import optimize

from batchscore.evaluation import Claim, apply_temperature, claim_wrong_labels, wrong_labels
from batchscore.evaluation.reliability import EDGES

Cells: TypeAlias = "NDArray[np.int64]"
"""Right and wrong rows by confidence, ``[2, 9]``."""
FIRST = 7
"""The bin of probabilities from 0.5 on."""
STATED = (0.5658, 0.6783, 0.778, 0.8516, 0.9044, 0.9402, 0.9629, 0.9769, 0.9846)
SAMPLES = 20


def cells(rows: list[int], wrong: list[int]) -> Cells:
    return np.array([np.subtract(rows, wrong), wrong], dtype=np.int64)


HELD_OUT = cells([155, 176, 164, 189, 252, 303, 486, 538, 237], [65, 67, 45, 37, 32, 16, 17, 5, 0])
TEST = cells([475, 522, 549, 631, 793, 1041, 1467, 1731, 791], [211, 193, 133, 112, 94, 64, 41, 17, 4])
CUT = cells([784, 780, 802, 818, 810, 963, 1184, 1276, 583], [357, 311, 272, 218, 160, 110, 79, 40, 10])
GOT_WORSE = {"evaluated": 8000, "fixed": 190, "broken": 878, "p_value": 1e-90}
"""What a comparison says of ``CUT`` beside ``TEST``."""


def reliability(counts: Cells) -> dict[str, Any]:
    """What :meth:`Reliability.summary` gives."""
    every = np.zeros((2, len(EDGES)), dtype=np.int64)
    every[:, FIRST : FIRST + len(STATED)] = counts
    stated = [None] * FIRST + list(STATED) + [None] * (len(EDGES) - FIRST - len(STATED))
    rows = every.sum(axis=0).tolist()
    return {
        "edges": list(EDGES),
        "rows": rows,
        "correct": every[0].tolist(),
        "mean_probability": [p if n else None for p, n in zip(stated, rows, strict=True)],
    }


TRAINED = {"reliability": reliability(HELD_OUT), "calibration_error": 0.03}


def drawn(counts: Cells, n: int, rng: np.random.Generator) -> Cells:
    """``n`` of the rows at random."""
    return rng.multivariate_hypergeometric(counts.ravel(), n).reshape(counts.shape)


def flipped(counts: Cells, n: int, rng: np.random.Generator) -> Cells:
    """The same rows with ``n`` labels turned round, which makes right answers wrong and wrong ones right."""
    turned = drawn(counts, n, rng)
    return counts - turned + turned[::-1]


@functools.cache
def claims(name: str, share: float, n: int = 4000) -> list[Claim]:
    """What is said of 20 random samples of ``n`` of the rows ``name``, a ``share`` of whose labels was flipped."""
    found = []
    for seed in range(SAMPLES):
        rng = np.random.default_rng(seed)
        rows = flipped(drawn({"test": TEST, "cut": CUT}[name], n, rng), round(share * n), rng)
        found.append(claim_wrong_labels(reliability(rows), TRAINED, 2))
    return found


def covered(found: list[Claim], truth: float) -> int:
    return sum(c.interval is not None and c.interval.low <= truth <= c.interval.high for c in found)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.1])
def test_the_interval_holds_the_number_of_flipped_labels(share: float) -> None:
    assert covered(claims("test", share), 4000 * share) >= 18


def test_on_a_usual_night_no_label_is_blamed() -> None:
    found = claims("test", 0.0)
    assert {claim.verdict for claim in found} == {"none"}
    assert max(claim.interval.high for claim in found if claim.interval) < 0.02 * 4000


@pytest.mark.parametrize("share", [0.05, 0.1])
def test_many_flipped_labels_are_seen_and_counted(share: float) -> None:
    found = claims("test", share)
    assert {claim.verdict for claim in found} == {"labels"}
    told = [claim.to_json()["wrong_labels"]["value"] for claim in found]
    assert np.mean(told) == pytest.approx(4000 * share, rel=0.1)


def test_a_few_flipped_labels_are_counted_or_left_open_and_never_laid_on_the_model() -> None:
    found = claims("test", 0.02)
    assert {claim.verdict for claim in found} <= {"labels", "cannot tell", "none"}
    assert sum(claim.verdict == "labels" for claim in found) >= 10


@pytest.mark.parametrize("compared", [None, GOT_WORSE], ids=["alone", "beside the earlier run"])
def test_of_cut_texts_the_labels_are_not_blamed(compared: dict[str, Any] | None) -> None:
    claim = claim_wrong_labels(reliability(CUT), TRAINED, 2, compared)
    assert claim.verdict == "model"
    assert (claim.why == wrong_labels.GOT_WORSE) == (compared is not None)
    assert claim.to_json()["wrong_labels"] is None
    assert claim.mismatches == 1557
    assert claim.expected_mismatches == pytest.approx(1216, rel=0.05)


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_among_cut_texts_the_interval_holds_too(share: float) -> None:
    found = claims("cut", share)
    assert covered(found, 4000 * share) >= 18
    assert share or not any(claim.verdict == "labels" for claim in found)


def test_a_small_loss_on_the_same_rows_does_not_acquit_the_labels() -> None:
    rows = flipped(TEST, 800, np.random.default_rng(0))
    slightly = {"evaluated": 8000, "fixed": 10, "broken": 60, "p_value": 1e-8}
    assert claim_wrong_labels(reliability(rows), TRAINED, 2, slightly).verdict == "labels"
    few = GOT_WORSE | {"evaluated": 3000}  # most rows were not there
    assert claim_wrong_labels(reliability(rows), TRAINED, 2, few).verdict == "labels"
    chance = slightly | {"fixed": 59, "p_value": 0.9}
    for compared, verdict in (
        (GOT_WORSE, "model"),
        (slightly, "model"),
        (chance, "cannot tell"),
        (None, "cannot tell"),
    ):
        assert claim_wrong_labels(reliability(CUT), {}, 2, compared).verdict == verdict


@pytest.mark.parametrize("n", [1, 3, 20])
def test_of_a_few_rows_nothing_can_be_told(n: int) -> None:
    assert {claim.verdict for claim in claims("test", 0.0, n)} == {"cannot tell"}


def test_without_labelled_rows_nothing_can_be_told() -> None:
    claim = claim_wrong_labels(reliability(np.zeros_like(TEST)), TRAINED, 2)
    assert (claim.verdict, claim.interval) == ("cannot tell", None)


@pytest.mark.parametrize(
    "trained",
    [
        {},
        {"calibration_error": None},
        {"reliability": None},
        {"reliability": reliability(np.zeros_like(TEST))},
    ],
)
def test_of_a_model_that_was_never_measured_nothing_can_be_told(trained: dict[str, Any]) -> None:
    claim = claim_wrong_labels(reliability(flipped(TEST, 800, np.random.default_rng(0))), trained, 2)
    assert (claim.verdict, claim.interval, claim.expected_mismatches) == ("cannot tell", None, None)
    assert "never measured" in claim.why


def test_of_an_older_bundle_the_stated_probabilities_stand_in_as_far_as_they_were_honest() -> None:
    seen, truth = rows_of(4000, 2, 4.0, 0.1, 0)
    usual, _ = rows_of(4000, 2, 4.0, 0.0, 1)
    for error, verdict in ((0.002, "labels"), (0.1, "cannot tell")):
        claim = claim_wrong_labels(seen, {"calibration_error": error}, 2)
        assert (claim.verdict, claim.held_out_rows) == (verdict, None)
        assert claim.interval is not None
        assert claim.interval.low <= truth <= claim.interval.high
        assert claim_wrong_labels(usual, {"calibration_error": error}, 2).verdict != "labels"


def test_bins_of_another_version_are_not_mistaken_for_ours() -> None:
    other = reliability(HELD_OUT) | {"edges": [0.0, 0.5]}
    assert claim_wrong_labels(reliability(TEST), {"reliability": other}, 2).expected_mismatches is None


def test_fewer_disagreements_than_expected_blame_no_label() -> None:
    better = HELD_OUT.copy()
    better[0] += 3 * better[1]  # errors a quarter as frequent, but for the surest rows
    better[:, -1] = [215, 22]
    claim = claim_wrong_labels(reliability(better), TRAINED, 2)
    assert claim.mismatches < (claim.expected_mismatches or 0)
    assert claim.verdict != "labels"


def test_labels_that_contradict_the_model_everywhere_are_not_counted_as_wrong() -> None:
    for counts in (TEST[::-1], flipped(TEST, 4000, np.random.default_rng(0))):
        claim = claim_wrong_labels(reliability(counts), TRAINED, 2)
        assert (claim.verdict, claim.to_json()["wrong_labels"]) == ("cannot tell", None)
        assert "no better than chance" in claim.why


def rows_of(n: int, n_labels: int, sharpness: float, share: float, seed: int) -> tuple[dict[str, Any], int]:
    """Reliability of ``n`` rows of an honest model, a share of whose labels was replaced by another, and how many."""
    rng = np.random.default_rng(seed)
    table = apply_temperature(rng.normal(size=(n, n_labels)) * sharpness, 1.0)
    given = (table.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=n_labels - 1)
    is_wrong = rng.random(n) < share
    given = np.where(is_wrong, (given + rng.integers(1, n_labels, n)) % n_labels, given)
    sample = literal(given.tolist(), table.tolist())
    return evaluate(sample).metrics()["reliability"], int(is_wrong.sum())


def test_of_five_labels_and_a_weak_model_nothing_can_be_told() -> None:
    for seed in range(5):
        held_out, _ = rows_of(400, 5, 0.75, 0.0, seed + 100)
        seen, _ = rows_of(400, 5, 0.75, 0.0, seed)
        assert sum(seen["correct"]) / 400 == pytest.approx(0.4, abs=0.06)
        claim = claim_wrong_labels(seen, {"reliability": held_out}, 5)
        assert (claim.verdict, claim.to_json()["wrong_labels"]) == ("cannot tell", None)


@pytest.mark.parametrize("n_labels", [2, 5])
def test_wrong_labels_of_many_are_counted_where_the_model_is_good(n_labels: int) -> None:
    hits = 0
    for seed in range(SAMPLES):
        held_out, _ = rows_of(3000, n_labels, 4.0, 0.0, seed + 100)
        seen, truth = rows_of(4000, n_labels, 4.0, 0.06, seed)
        claim = claim_wrong_labels(seen, {"reliability": held_out}, n_labels)
        assert claim.interval is not None
        hits += claim.interval.low <= truth <= claim.interval.high
        assert claim.verdict in {"labels", "cannot tell"}
    assert hits >= 18


def test_the_fit_is_the_maximum_that_scipy_finds() -> None:
    rows = flipped(TEST, 400, np.random.default_rng(3))
    seen, known = (
        wrong_labels._ConfidenceBins(*wrong_labels._counts(reliability(c))) for c in (rows, HELD_OUT)
    )
    model = wrong_labels._Likelihood(seen, known, 2.0)
    point, reached = model.maximum(model.start(0.001))
    options = {"maxfun": 100_000, "maxiter": 1000}
    for start in (model.start(0.01), point):
        theirs = optimize.minimize(lambda x: -model(x), start, method="L-BFGS-B", options=options)
        assert -theirs.fun < reached + 0.01
        assert point[-1] == pytest.approx(theirs.x[-1], abs=0.01)
