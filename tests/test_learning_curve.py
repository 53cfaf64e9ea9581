"""What more labels would bring: the law, its interval, and the smaller trainings that it is drawn through."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from test_training import Silent, bases, settings  # noqa: F401 - fixtures

from batchscore.model.bundle_facts import FACTS
from batchscore.records import Task
from batchscore.reports.learning_curve import curve_lines
from batchscore.runs.inspection import bundle_lines, inspect
from batchscore.training import learning_curve, tokenized_rows, train
from batchscore.training.learning_curve import extrapolated, nested, steps

if TYPE_CHECKING:
    from batchscore.training import TrainSettings

ROWS = (125, 250, 500)


def losses(exponent: float, n: int, seed: int, scale: float = 1.5) -> np.ndarray:
    """Rows that are wrong at three sizes as the law says; a row that is easy for one is easy for all."""
    hard = np.random.default_rng(seed).random(n)
    return np.array([hard < scale * rows**-exponent for rows in ROWS], dtype=np.float64)


def test_a_power_law_is_found_and_followed() -> None:
    found = extrapolated(ROWS, losses(0.3, 20_000, 1), seed=3)
    assert found["exponent"] == pytest.approx(0.3, abs=0.03)
    assert [step["rows"] for step in found["more"]] == [200, 500]
    for step in found["more"]:
        gain = 1.5 * 500**-0.3 - 1.5 * (500 + step["rows"]) ** -0.3
        assert step["gain"]["value"] == pytest.approx(gain, abs=0.006)
        assert step["gain"]["low"] < gain < step["gain"]["high"]


def test_the_interval_holds_the_true_gain_as_often_as_it_says() -> None:
    gain, held = 1.5 * 500**-0.3 - 1.5 * 700**-0.3, 0
    for seed in range(60):
        found = extrapolated(ROWS, losses(0.3, 500, seed), seed=seed)["more"][0]["gain"]
        held += found["low"] <= gain <= found["high"]
    assert held >= 51  # of 60, 95 % each: fewer has a probability below one in a thousand


def test_more_rows_never_harm_and_a_perfect_model_gains_nothing() -> None:
    worse = np.array([[0.0] * 90 + [1.0] * 10, [0.0] * 80 + [1.0] * 20, [0.0] * 70 + [1.0] * 30])
    assert {step["gain"]["value"] for step in extrapolated(ROWS, worse, 0)["more"]} == {0.0}
    perfect = extrapolated(ROWS, np.zeros((3, 50)), 0)
    assert perfect["more"][0]["gain"]["value"] == pytest.approx(0, abs=1e-9)


def test_numbers_are_told_by_their_error() -> None:
    curve = extrapolated(ROWS, np.abs(losses(0.3, 400, 1)) * 0.5, 0)
    assert "mean absolute error by training rows" in curve_lines(Task.REGRESSION, curve)[0]
    assert "more labels: about -" in curve_lines(Task.REGRESSION, curve)[1]


@pytest.mark.parametrize(
    ("rows", "wanted"), [(40, [20, 40]), (560, [200, 560]), (100_000, [40_000, 100_000])]
)
def test_what_is_asked_about_is_a_round_number(rows: int, wanted: list[int]) -> None:
    assert steps(rows) == wanted


def test_a_quarter_lies_in_its_half_and_labels_keep_their_shares() -> None:
    strata = [0] * 160 + [1] * 40
    quarter, half = nested(strata, 7)
    assert set(quarter) < set(half)
    assert [sum(strata[row] for row in rows) for rows in (quarter, half)] == [10, 20]
    assert (len(quarter), len(half)) == (50, 100)


def test_a_training_tells_it_and_a_resumed_one_trains_no_size_twice(
    settings: TrainSettings,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = dataclasses.replace(settings, learning_curve=True, epochs=1)
    trained: list[int] = []
    fit_rows, stop = tokenized_rows.fit_rows, [1]

    def counted(base, goal, plan, splits, *rest):  # type: ignore[no-untyped-def]
        if len(trained) == stop[0]:
            raise KeyboardInterrupt
        trained.append(len(splits[0].positions))
        return fit_rows(base, goal, plan, splits, *rest)

    monkeypatch.setattr(learning_curve, "fit_rows", counted)
    with pytest.raises(KeyboardInterrupt):
        train(wanted, Silent)
    stop[0] = 9
    told: list[str] = []
    result = train(dataclasses.replace(wanted, resume=True), Silent, told.append)
    facts = json.loads((result.output / FACTS).read_text())["training"]["learning_curve"]
    assert trained == facts["rows"][:2]  # the quarter before, the half after
    assert facts["rows"][2] == result.rows
    lines = curve_lines(Task.SINGLE_LABEL, facts)
    assert [f"learning-curve: {line}" for line in lines] == [
        line for line in told if "learning-curve" in line
    ]
    shown = bundle_lines(inspect(str(result.output)))
    card = (result.output / "README.md").read_text()
    assert all(line in shown and line in card for line in lines)
    assert facts["losses"][2] == pytest.approx(1 - result.metrics["accuracy"]["value"], abs=0.5)
