"""``--accept``: thresholds whose promise is kept, what a run makes of them, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import run_score, seal_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from task_models import answering_at_once, several_labels

from batchscore.config import ComputeSettings, EvaluateSettings
from batchscore.errors import DataError, ModelError, NoInputError, StorageError, UsageError
from batchscore.evaluation.acceptance import (
    AnsweredRows,
    chosen_acceptance,
    chosen_threshold,
    is_accepted,
    thresholds_to_try,
)
from batchscore.evaluation.gates import PROMISE
from batchscore.evaluation.significance import binomial_tail, clopper_pearson, most_share
from batchscore.model.bundle import open_bundle, seal
from batchscore.model.bundle_facts import FACTS
from batchscore.model.held_out import KEY, HeldOutAnswers, can_be_meant
from batchscore.model.thresholds import parse_accept, parse_confidence
from batchscore.records import Status
from batchscore.reports.acceptances import answer
from batchscore.runs.evaluating import evaluate
from batchscore.runs.finishing import Finish
from batchscore.runs.inspection import inspect
from batchscore.runs.result import RunResult

# ------------------------------------------------------------------------------------------------------ the figures


@given(st.integers(1, 3000), st.floats(0.0005, 0.9995), st.data())
@settings(max_examples=60, deadline=None)
def test_tails_and_intervals_are_those_of_scipy(rows: int, share: float, data: st.DataObject) -> None:
    most = data.draw(st.integers(0, rows))
    assert binomial_tail(rows, most, share) == pytest.approx(
        stats.binom.cdf(most, rows, share), rel=1e-8, abs=1e-300
    )
    exact = stats.binomtest(most, rows).proportion_ci(0.95, "exact")
    found = clopper_pearson(most, rows)
    assert found is not None
    assert [found.low, found.high] == pytest.approx([exact.low, exact.high], abs=1e-9)


def test_an_upper_bound_is_below_a_share_exactly_where_the_test_rejects_it() -> None:
    for right in range(80, 101):
        rejects = stats.binom.cdf(right, 100, 0.95) < 0.05
        assert (most_share(100, right, 0.05) < 0.95) == rejects


def brute_force(precision: float, error: float, probability: Any, right: Any) -> float | None:
    """The method once more, as the docstring has it, with scipy."""
    none = math.ceil(math.log(error) / math.log(precision))
    one = next(n for n in range(none, 10**6) if stats.binom.cdf(1, n, 1 - precision) <= error)
    least, found = one if len(right) >= 2 * one else none, None
    for threshold in thresholds_to_try():
        accepted = probability >= np.float32(threshold)
        n, wrong = int(accepted.sum()), int((accepted & ~right).sum())
        if n >= least:
            if stats.binom.cdf(wrong, n, 1 - precision) > error:
                break
            found = threshold
    return found


def draws(rng: np.random.Generator, rows: int, truth: Callable[[Any], Any] = lambda p: p) -> tuple[Any, Any]:
    """Probabilities of a good model, with ties, and whether it was right, which it was as often as ``truth`` says."""
    probability = np.round(1 - 0.5 * rng.beta(0.3, 2.5, rows), 3).astype(np.float32)
    return probability, rng.random(rows) < truth(probability.astype(np.float64))


@given(st.integers(0, 2**32 - 1), st.integers(1, 1500), st.sampled_from([0.7, 0.9, 0.98]))
@settings(max_examples=30, deadline=None)
def test_thresholds_are_those_of_brute_force(seed: int, rows: int, precision: float) -> None:
    probability, right = draws(np.random.default_rng(seed), rows)
    assert chosen_threshold(precision, 0.05, probability, right) == brute_force(
        precision, 0.05, probability, right
    )


TRUTHS: dict[str, Callable[[Any], Any]] = {
    "honest": lambda p: p,
    "too sure": lambda p: 0.5 + 0.9 * (p - 0.5),
    "just below the promise everywhere": lambda p: np.full_like(p, 0.8995),
    "wrong where it is surest": lambda p: np.where(p > 0.99, 0.6, np.where(p > 0.8, 0.97, 0.5)),
}


@pytest.mark.parametrize("truth", TRUTHS.values(), ids=TRUTHS)
def test_the_promise_is_broken_no_more_often_than_it_says(truth: Callable[[Any], Any]) -> None:
    """300 draws of calibration rows; each threshold is held against the truth itself, not against a sample."""
    rng, precision, error, broken, accepted = np.random.default_rng(7), 0.9, 0.1, 0, 0
    many, _ = draws(rng, 200_000)
    worth = truth(many.astype(np.float64))
    for _ in range(300):
        found = chosen_threshold(precision, error, *draws(rng, 300, truth))
        if found is not None:
            accepted += 1
            broken += worth[many >= np.float32(found)].mean() < precision
    assert stats.binom.sf(broken - 1, 300, error) > 0.001, broken
    if truth is TRUTHS["honest"]:
        assert accepted > 250


def test_labels_share_the_error_and_one_that_cannot_be_promised_is_never_accepted() -> None:
    rng = np.random.default_rng(1)
    good, bad = draws(rng, 3000, lambda p: 0.999 + 0 * p), draws(rng, 3000, lambda p: 0.5 + 0 * p)
    predicted = np.repeat([0, 1], 3000)
    rows = AnsweredRows(predicted, np.concatenate([good[0], bad[0]]), np.concatenate([good[1], bad[1]]))
    found = chosen_acceptance(0.95, 0.9, rows, 3)
    assert found.thresholds == (chosen_threshold(0.95, 0.1 / 3, *good), None, None)
    assert (found.rows, found.accepted[1:], found.right[1:]) == ((3000, 3000, 0), (0, 0), (0, 0))
    accepted = is_accepted(found.thresholds, np.array([0, 1, 2, -1]), np.array([1, 1, 1, np.nan], np.float32))
    assert accepted.tolist() == [True, False, False, False]


def test_a_probability_that_is_written_as_the_threshold_is_accepted() -> None:
    for threshold in thresholds_to_try(1.3):
        assert is_accepted([threshold], np.array([0]), np.array([threshold], np.float32)).all()


def test_of_two_labels_the_temperature_changes_no_accepted_row() -> None:
    rng = np.random.default_rng(5)
    logits, right = rng.uniform(0.1, 6, 4000), rng.random(4000) < 0.995
    accepted = []
    for temperature in (0.8, 1.0, 1.7):
        probability = (1 / (1 + np.exp(-logits / temperature))).astype(np.float32)
        found = chosen_threshold(0.97, 0.05, probability, right, temperature)
        assert found is not None
        accepted.append(int((probability >= np.float32(found)).sum()))
    assert max(accepted) - min(accepted) <= 2  # rounding of a threshold to seven digits


@pytest.mark.parametrize(
    "text", ["0.98", "recall=0.9", "precision=1", "precision=0", "precision=x", "precision=150%"]
)
def test_what_is_no_promise_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"precision=0\.98"):
        parse_accept(text)


@pytest.mark.parametrize("text", ["0", "1", "100%", "much", "nan"])
def test_what_is_no_confidence_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="accept-confidence"):
        parse_confidence(text)


# ---------------------------------------------------------------------------------------------------------- a run

TABLE = pd.DataFrame(
    {"text": [f"review number {k} was fine" for k in range(40)] + [None, " "], "id": range(42)}
)


@pytest.fixture(scope="module")
def quick(tiny_model: Path) -> Iterator[Path]:
    """A model that answers at once."""
    with answering_at_once(tiny_model):
        yield tiny_model


@pytest.fixture(scope="module")
def said(quick: Path, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """What the model says of the table."""
    folder = tmp_path_factory.mktemp("said")
    TABLE.to_parquet(folder / "t.parquet")
    run_score(folder / "t.parquet", quick, folder / "run", compute=ComputeSettings(precision="fp32"))
    return pd.read_parquet(folder / "run" / "predictions" / "t.parquet")


def labelled_run(model: Path, said: pd.DataFrame, folder: Path, copies: int = 10, **options: Any) -> Path:
    """A finished run over rows that are all labelled as predicted."""
    folder.mkdir(parents=True, exist_ok=True)
    table = TABLE.assign(label=said.predicted_label)
    pd.concat([table] * copies).to_csv(folder / "past.csv", index=False)
    options.setdefault("compute", ComputeSettings(precision="fp32"))
    return run_score(folder / "past.csv", model, folder / "past", **options).output


def test_a_run_decides_and_says_how_many_rows_that_saves(
    quick: Path, said: pd.DataFrame, tmp_path: Path
) -> None:
    past = labelled_run(quick, said, tmp_path)
    table = TABLE.assign(label=said.predicted_label)
    table.to_parquet(tmp_path / "t.parquet")
    result = run_score(
        tmp_path / "t.parquet",
        quick,
        tmp_path / "run",
        accept=0.8,
        accept_on=past,
        prefix="m_",
        renames={"m_decision": "what"},
    )
    found = pd.read_parquet(tmp_path / "run" / "predictions" / "t.parquet")
    assert found.columns.tolist()[-4:] == ["what", "m_n_tokens", "m_truncated", "m_status"]
    thresholds = {
        label: each["threshold"] for label, each in result.metrics["acceptance"]["per_label"].items()
    }
    least = found.m_predicted_label.map(thresholds).astype(float)
    is_sure = found.m_probability >= least.astype(np.float32)
    assert found.what.tolist() == ["accept" if sure else "review" for sure in is_sure]
    assert found.what[found.m_status != Status.OK.text].tolist() == ["review", "review"]
    told = result.metrics["acceptance"]
    assert told["accepted"] == is_sure.sum() > 0
    assert (told["accepted"] + told["review"], told["right"]) == (42, told["evaluated"])
    assert told["calibration"]["from"] == str(past)
    facts = json.loads((tmp_path / "run" / "run.json").read_bytes())
    assert facts["options"]["accepting"]["thresholds"] == list(thresholds.values())
    assert facts["options"]["compute"]["precision"] == "fp32"  # auto, and that of the calibration rows
    assert inspect(str(tmp_path / "run"))["accepted"]["thresholds"] == thresholds
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert f"{told['accepted']} of 42 rows" in page
    assert "Learn then Test" in page
    assert "were accepted, promised to be" in " ".join(
        (tmp_path / "run" / "report.txt").read_text(encoding="utf-8").split()
    )
    (gate,) = result.metrics["gates"]
    assert (gate["metric"], gate["passed"]) == (PROMISE, True)


def test_a_promise_that_no_longer_stands_fails_its_gate_and_chance_does_not(
    quick: Path, said: pd.DataFrame, tmp_path: Path
) -> None:
    past, other = labelled_run(quick, said, tmp_path), {"NEGATIVE": "POSITIVE", "POSITIVE": "NEGATIVE"}
    for name, wrong, is_kept in (("all.csv", 42, False), ("few.csv", 2, True)):
        labels = [
            other.get(label, label) if k < wrong else label for k, label in enumerate(said.predicted_label)
        ]
        TABLE.assign(label=labels).to_csv(tmp_path / name, index=False)
        result = run_score(tmp_path / name, quick, tmp_path / name[:3], accept=0.95, accept_on=past)
        (gate,) = result.metrics["gates"]
        assert gate["passed"] == is_kept, gate
        assert ("does not stand" in answer(result.metrics).answer) != is_kept


def test_labels_that_come_later_choose_the_thresholds_and_test_them_again(
    quick: Path, said: pd.DataFrame, tmp_path: Path
) -> None:
    past = labelled_run(quick, said, tmp_path)
    table = pd.concat([TABLE] * 10).assign(id=range(420))
    table.to_csv(tmp_path / "bare.csv", index=False)
    bare = run_score(
        tmp_path / "bare.csv", quick, tmp_path / "bare", compute=ComputeSettings(precision="fp32")
    ).output
    table.assign(label=pd.concat([said.predicted_label] * 10).values)[["id", "label"]].to_csv(
        tmp_path / "late.csv", index=False
    )
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(DataError, match="labelled rows"):
        run_score(tmp_path / "t.csv", quick, tmp_path / "run", accept=0.8, accept_on=bare)
    evaluate(EvaluateSettings(bare, (tmp_path / "late.csv",)))
    late = run_score(tmp_path / "t.csv", quick, tmp_path / "run", accept=0.8, accept_on=bare)
    at_once = run_score(tmp_path / "t.csv", quick, tmp_path / "other", accept=0.8, accept_on=past)
    assert late.metrics["acceptance"]["per_label"] == at_once.metrics["acceptance"]["per_label"]
    assert late.metrics["acceptance"]["evaluated"] == 0
    assert late.metrics["gates"] == []
    TABLE.assign(label=said.predicted_label)[["id", "label"]].dropna().to_csv(
        tmp_path / "tonight.csv", index=False
    )
    told = evaluate(EvaluateSettings(tmp_path / "run", (tmp_path / "tonight.csv",))).metrics
    assert (
        told["acceptance"]["evaluated"]
        == told["acceptance"]["right"]
        == late.metrics["acceptance"]["accepted"]
    )
    assert told["gates"][0]["metric"] == PROMISE


def test_labels_that_come_while_a_run_is_under_way_change_nothing_of_it(
    quick: Path, said: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fp32 = ComputeSettings(precision="fp32")
    table = pd.concat([TABLE.assign(label=said.predicted_label)] * 10).assign(id=range(420))
    table.to_csv(tmp_path / "past.csv", index=False)
    past = run_score(tmp_path / "past.csv", quick, tmp_path / "past", compute=fp32).output
    TABLE.to_csv(tmp_path / "t.csv", index=False)

    def tonight(**options: Any) -> RunResult:
        return run_score(tmp_path / "t.csv", quick, tmp_path / "run", accept=0.8, accept_on=past, **options)

    def stopped(*_: Any) -> Any:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Finish, "run", stopped)
        with pytest.raises(StorageError):
            tonight()
    turned = {"POSITIVE": "NEGATIVE", "NEGATIVE": "POSITIVE"}
    table["label"] = table["label"].map(turned)
    table.dropna()[["id", "label"]].to_csv(tmp_path / "late.csv", index=False)
    evaluate(EvaluateSettings(past, (tmp_path / "late.csv",)))  # now everything was wrong
    assert tonight().metrics["acceptance"]["accepted"] > 0
    assert tonight().status == "done"
    assert tonight(force=True).metrics["acceptance"]["accepted"] == 0


def test_labels_of_the_run_s_own_map_choose_them_beside_those_that_came_later(
    quick: Path, said: pd.DataFrame, tmp_path: Path
) -> None:
    own = said.predicted_label.map({"POSITIVE": "gut", "NEGATIVE": "schlecht"})
    table = pd.concat([TABLE.assign(label=own)] * 10).assign(id=range(420))
    table.assign(label=table.label.where(table.id < 210)).to_csv(tmp_path / "half.csv", index=False)
    table[table.id >= 210][["id", "label"]].to_csv(tmp_path / "late.csv", index=False)
    half = run_score(
        tmp_path / "half.csv",
        quick,
        tmp_path / "half",
        compute=ComputeSettings(precision="fp32"),
        label_map={"gut": "POSITIVE", "schlecht": "NEGATIVE"},
    ).output
    told = evaluate(EvaluateSettings(half, (tmp_path / "late.csv",))).metrics
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    run = run_score(tmp_path / "t.csv", quick, tmp_path / "run", accept=0.8, accept_on=half)
    chosen_on = json.loads((run.output / "run.json").read_text())["options"]["accepting"]["rows"]
    assert sum(chosen_on) == told["counts"]["evaluated"] > 300


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no calibration rows": ({}, UsageError, "--accept-on RUN_DIR"),
    "no such run": ({"accept_on": Path("nowhere")}, NoInputError, "no finished run"),
    "--threshold too": ({"accept_on": "PAST", "thresholds": {"POSITIVE": 0.8}}, UsageError, "--threshold"),
    "long texts otherwise": ({"accept_on": "PAST", "long_text": "windows"}, UsageError, "--long-text head"),
    "another precision": (
        {"accept_on": "PAST", "compute": ComputeSettings(precision="bf16")},
        UsageError,
        "--precision fp32",
    ),
    "--accept-on alone": ({"accept_on": "PAST", "accept": None}, UsageError, "no --accept"),
    "a gate without it": (
        {"accept": None, "fail_below": ("accepted=0.5",)},
        UsageError,
        "--accept precision",
    ),
}


@pytest.fixture(scope="module")
def past(quick: Path, said: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_run(quick, said, tmp_path_factory.mktemp("past"), copies=2)


@pytest.mark.parametrize(("options", "error", "words"), REFUSED.values(), ids=REFUSED)
def test_what_could_not_be_promised_is_refused_before_anything_is_scored(
    options: dict[str, Any], error: type[Exception], words: str, quick: Path, past: Path, tmp_path: Path
) -> None:
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    options = {name: past if value == "PAST" else value for name, value in options.items()}
    with pytest.raises(error, match=words):
        run_score(tmp_path / "t.csv", quick, tmp_path / "run", **{"accept": 0.9, **options})
    assert not list(tmp_path.glob("run/predictions/*"))


def test_a_run_of_another_model_or_one_that_was_changed_chooses_nothing(
    quick: Path, past: Path, make_model: Callable[..., Path], tmp_path: Path
) -> None:
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(ModelError, match="another model"):
        run_score(tmp_path / "t.csv", make_model(seed=9), tmp_path / "run", accept=0.9, accept_on=past)
    shutil.copytree(past, tmp_path / "changed")
    with (tmp_path / "changed" / "predictions" / "past.csv").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(DataError, match="not as it was written"):
        run_score(tmp_path / "t.csv", quick, tmp_path / "run", accept=0.9, accept_on=tmp_path / "changed")


def test_other_tasks_are_refused(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    TABLE.to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UsageError, match="one label a row"):
        run_score(tmp_path / "t.csv", several_labels(tmp_path / "model"), tmp_path / "run", accept=0.9)


# ------------------------------------------------------------------------------------------------------- the bundle

ANSWERS = HeldOutAnswers(
    np.array([0, 1, 1], np.int32),
    np.array([0.5, 0.75, 1.0], np.float32),
    np.array([True, False, True]),
    "fp32",
    "head",
)


def test_a_bundle_keeps_its_answers_sealed_and_gives_them_back(make_model: Callable[..., Path]) -> None:
    bundle = seal_bundle(make_model(seed=3))
    facts = json.loads((bundle / FACTS).read_bytes())
    kept = {name: value for name, value in facts.items() if name not in {"files", "sha256", "format_version"}}
    seal(bundle, {**kept, KEY: ANSWERS.to_json()})
    found = HeldOutAnswers.of_facts(open_bundle(str(bundle)).facts)
    assert found is not None
    assert found.to_json() == ANSWERS.to_json()
    assert inspect(str(bundle))["held_out_answers"] == 3


@pytest.mark.parametrize(
    "damage",
    [
        {"predicted": [0, 1]},
        {"predicted": [0, 1, 2]},
        {"predicted": [0, 1, True]},
        {"probability": [0.5, 0.7, 1.5]},
        {"right": [0, 1, 2]},
        {"precision": "auto"},
        {"long_text": "none"},
        {"right": []},
    ],
    ids=str,
)
def test_a_table_that_cannot_be_meant_is_refused(damage: dict[str, Any]) -> None:
    facts = {"labels": ["NEGATIVE", "POSITIVE"]}
    assert can_be_meant(ANSWERS.to_json(), facts)
    assert can_be_meant(None, facts)
    assert not can_be_meant({**ANSWERS.to_json(), **damage}, facts)
    assert not can_be_meant(ANSWERS.to_json(), {**facts, "task": "regression"})
