"""Thresholds of a model with one label a row: the next label, or none; and what is measured where some rows abstain."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from conftest import run_score
from task_models import answering_at_once, one_number, several_labels, without_page

from batchscore import cli
from batchscore.errors import GateFailedError, UsageError
from batchscore.evaluation import is_of_quality
from batchscore.model.decisions import decided
from batchscore.records import Task

ANSWERS = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [np.nan] * 3], dtype=np.float32)
SCORED = np.array([True, True, True, False])


@pytest.mark.parametrize(
    ("thresholds", "below", "expected"),
    [
        ((), "next", [0, 0, 2, -1]),
        ((0.7, 0.0, 0.0), "next", [0, 1, 2, -1]),  # written as 0.7, and so not below
        ((0.6, 0.25, 0.0), "next", [0, 1, 2, -1]),
        ((0.6, 0.4, 0.0), "next", [0, 2, 2, -1]),  # the next one is below its own too
        ((0.6, 0.6, 0.6), "next", [0, -1, 2, -1]),  # nothing is left
        ((0.6, 0.0, 0.0), "abstain", [0, -1, 2, -1]),
        ((0.6, 0.0, 0.8), "abstain", [0, -1, -1, -1]),
        ((1.0, 1.0, 1.0), "next", [-1, -1, -1, -1]),
    ],
)
def test_a_label_is_predicted_only_from_its_threshold_on(
    thresholds: tuple[float, ...], below: str, expected: list[int]
) -> None:
    found = decided(Task.SINGLE_LABEL, ANSWERS, SCORED, thresholds, below)
    assert found.tolist() == expected


# ----------------------------------------------------------------------------------------------------- a whole run


@pytest.fixture(scope="module")
def quick(tiny_model: Path) -> Iterator[Path]:
    """A model that answers at once; pages are as always."""
    with answering_at_once(tiny_model):
        yield tiny_model


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts whose probabilities spread, with labels, null and empty ones among them."""
    folder = tmp_path_factory.mktemp("thresholds")
    words = ["good", "film", "plot", "very", "bad", "dull", "moment", "a", "the"]
    texts: list[str | None] = [" ".join(words[(k * j + j) % 9] for j in range(1 + k % 6)) for k in range(120)]
    texts[5], texts[6] = None, "  "
    labels = [("NEGATIVE", "POSITIVE", None)[(k * 7 // 3) % 3] for k in range(120)]
    path = folder / "a.parquet"
    pd.DataFrame({"id": [f"{k:03}" for k in range(120)], "text": texts, "label": labels}).to_parquet(path)
    return path


@pytest.fixture(scope="module")
def plain(quick: Path, table: Path) -> pd.DataFrame:
    """What is predicted without thresholds."""
    run_score(table, quick, table.parent / "plain")
    return pd.read_parquet(table.parent / "plain/predictions/a.parquet")


def metrics(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "metrics.json").read_bytes()))


def test_below_the_threshold_of_one_of_two_labels_the_other_is_predicted(
    quick: Path, table: Path, plain: pd.DataFrame, tmp_path: Path
) -> None:
    run_score(table, quick, tmp_path / "run", thresholds={"positive": 0.65})
    found = pd.read_parquet(tmp_path / "run/predictions/a.parquet")
    expected = np.where(plain.prob_POSITIVE >= np.float32(0.65), "POSITIVE", "NEGATIVE")
    assert found.predicted_label[plain.status == "ok"].tolist() == expected[plain.status == "ok"].tolist()
    assert found.predicted_label[plain.status != "ok"].isna().all()
    assert (found.status == plain.status).all()
    moved = (found.predicted_label != plain.predicted_label) & (plain.status == "ok")
    assert moved.sum() > 5
    assert (found.probability[moved] == found.prob_NEGATIVE[moved]).all()
    # mismatches and metrics are those of what was predicted
    wrong = found[(found.status == "ok") & found.label.notna() & (found.label != found.predicted_label)]
    listed = pd.read_parquet(tmp_path / "run/mismatches.parquet")
    assert sorted(listed.id) == sorted(wrong.id)
    told = metrics(tmp_path / "run")
    known = (found.status == "ok") & found.label.notna()
    assert told["quality"]["accuracy"]["value"] == pytest.approx(1 - len(wrong) / known.sum())
    assert told["label_issues"]["accuracy"] == pytest.approx(told["quality"]["accuracy"]["value"])
    assert told["counts"]["abstained"] == 0
    assert json.loads((tmp_path / "run/run.json").read_bytes())["model"]["thresholds"] == [0.0, 0.65]


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_rows_that_abstain_are_kept_counted_and_left_out_of_what_is_measured(
    quick: Path, table: Path, plain: pd.DataFrame, tmp_path: Path, kind: str
) -> None:
    options: dict[str, Any] = {"thresholds": {"": 0.7}, "output_format": kind}
    run_score(table, quick, tmp_path / "run", below="abstain", **options)
    path = tmp_path / f"run/predictions/a.{kind}"
    found = pd.read_parquet(path) if kind == "parquet" else pd.read_csv(path, dtype={"id": str})
    sure = plain.probability >= np.float32(0.7)
    scored = plain.status == "ok"
    assert len(found) == 120
    assert found.status.tolist() == np.where(scored & ~sure, "abstained", plain.status).tolist()
    abstained = found.status == "abstained"
    assert 10 < abstained.sum() < 110
    assert found[abstained].predicted_label.isna().all()
    assert found[abstained].probability.isna().all()
    assert np.allclose(found[abstained].prob_POSITIVE, plain[abstained].prob_POSITIVE)
    assert found[abstained].n_tokens.notna().all()
    answered = found[found.status == "ok"]
    labelled = answered[answered.label.notna()]
    told = metrics(tmp_path / "run")
    counts = told["counts"]
    assert counts["abstained"] == abstained.sum()
    assert counts["abstained_labelled"] == (abstained & found.label.notna()).sum()
    kinds = ("scored", "abstained", "null_text", "empty_text", "failed", "rejects")
    assert counts["read"] == sum(counts[name] for name in kinds) == 120
    right = (labelled.label == labelled.predicted_label).mean()
    assert told["quality"]["accuracy"]["value"] == pytest.approx(right)
    assert told["label_issues"]["labelled"] == len(labelled) == counts["evaluated"]
    wrong = labelled[labelled.label != labelled.predicted_label]
    assert sorted(pd.read_parquet(tmp_path / "run/mismatches.parquet").id) == sorted(wrong.id)
    # the same once more: the next label of a row where none is left is none
    run_score(table, quick, tmp_path / "next", **options)
    names = ["predictions", "metrics.json"]
    assert (tmp_path / "next" / names[1]).read_bytes() == (tmp_path / "run" / names[1]).read_bytes()


def test_gates_the_page_and_the_command_line_say_on_how_many_rows(
    quick: Path, table: Path, tmp_path: Path
) -> None:
    arguments = ["score", str(table), "--model", str(quick), "--threshold", "0.7", "--below", "abstain"]
    ran = CliRunner().invoke(cli.main, [*arguments, "--output", str(tmp_path / "run")])
    assert ran.exit_code == 0, ran.output
    counts = metrics(tmp_path / "run")["counts"]
    share = counts["evaluated"] / (counts["evaluated"] + counts["abstained_labelled"])
    assert f"{counts['abstained']} abstained" in ran.output
    assert f"({share:.1%}; the others abstained)" in ran.output
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "left undecided, below their threshold" in page
    assert "share of rows answered, the others abstained" in page
    for gates, passes in (
        (("fail_below", f"answered={share - 0.01}"), True),
        (("fail_above", "abstained=1%"), False),
    ):
        result = run_score(
            table,
            quick,
            tmp_path / gates[0],
            thresholds={"": 0.7},
            below="abstain",
            **{gates[0]: (gates[1],)},
        )
        if passes:
            result.outcome()
        else:
            with pytest.raises(GateFailedError, match="abstained is"):
                result.outcome()


def test_rows_that_abstained_in_either_run_are_not_compared(quick: Path, table: Path, tmp_path: Path) -> None:
    abstaining: dict[str, Any] = {"thresholds": {"": 0.7}, "below": "abstain"}
    with without_page():
        run_score(table, quick, tmp_path / "sure", **abstaining, output_format="csv", probabilities="none")
        run_score(table, quick, tmp_path / "all", baseline=tmp_path / "sure")
        run_score(table, quick, tmp_path / "again", baseline=tmp_path / "all", **abstaining)
    counts = metrics(tmp_path / "sure")["counts"]
    for name in ("all", "again"):
        told = metrics(tmp_path / name)["comparison"]
        assert (told["rows"], told["changed"]) == (counts["scored"], 0)
        assert told["not_compared"] == 120 - counts["scored"]


def test_a_run_in_which_every_row_abstains_says_so(quick: Path, table: Path, tmp_path: Path) -> None:
    run_score(table, quick, tmp_path / "run", thresholds={"": 1.0})
    told = metrics(tmp_path / "run")
    assert (told["counts"]["scored"], told["counts"]["abstained"], told["quality"]) == (0, 118, None)
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "decided nothing: 118 rows were below their threshold" in page
    run_score(table, quick, tmp_path / "later", thresholds={"": 1.0}, baseline=tmp_path / "run")
    page = (tmp_path / "later/report.html").read_text(encoding="utf-8")
    assert "none has a prediction in both" in page
    assert "look at how both runs write them" not in page


def test_a_gate_on_what_is_answered_is_none_on_quality(quick: Path, table: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"thresholds": {"": 0.7}, "below": "abstain"}
    run_score(table, quick, tmp_path / "run", **options, fail_below=("answered=0.01",))
    page = (tmp_path / "run/report.html").read_text(encoding="utf-8")
    assert "Nobody has said what is good enough" in page
    assert not is_of_quality("answered")
    assert is_of_quality("accuracy")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": {"great": 0.8}}, "the model's labels are NEGATIVE, POSITIVE"),
        ({"below": "abstain"}, r"--below says what happens below a --threshold.*--threshold POSITIVE=0.8"),
    ],
)
def test_what_says_nothing_is_refused(
    quick: Path, table: Path, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        run_score(table, quick, tmp_path / "run", **options)


def test_other_tasks_refuse_what_is_not_theirs(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nfine\n", encoding="utf-8")
    with pytest.raises(UsageError, match="--below is for models with one label a row"):
        run_score(tmp_path / "a.csv", several_labels(tmp_path / "several"), tmp_path / "run", below="next")
    with pytest.raises(UsageError, match="--threshold is for models that give labels"):
        run_score(tmp_path / "a.csv", one_number(tmp_path / "one"), tmp_path / "run", thresholds={"": 0.5})
