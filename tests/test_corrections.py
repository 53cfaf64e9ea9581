"""Labels that a review put right, in the rows of a training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from review_samples import LABELS, reviewed, scored, table

from batchscore.cli.train import train_settings
from batchscore.config import ReadSettings
from batchscore.errors import DataError, NoInputError, UsageError
from batchscore.formats.text_keys import text_key
from batchscore.records import Task
from batchscore.reviewing.corrections import corrections_of
from batchscore.reviewing.exchange import CSV, KINDS, export
from batchscore.reviewing.queue import Filter
from batchscore.reviewing.store import WORST
from batchscore.training.corrections import Correction, Corrections, corrected, lines_of
from batchscore.training.data import load_data
from batchscore.training.settings import TrainSettings
from batchscore.training.splits import Goal, Split, TrainingData


def found(text: str, label: str | None, *, is_unsure: bool = False, known: bool = True) -> Correction:
    return Correction(text_key(text).hex(), text if known else None, label, is_unsure)


def data(**more: Any) -> TrainingData:
    """Four rows to train on, two to evaluate on; ``a`` is there twice."""
    left_out: dict[str, dict[str, int]] = {"train": {}, "evaluation": {}}
    train = Split(["a", "b", "c", "A "], [0, 0, 1, 0], ["r:0", "r:1", "r:2", "r:3"], more.pop("groups", []))
    return TrainingData(
        Goal(Task.SINGLE_LABEL, LABELS), train, Split(["x", "y"], [0, 1]), "", left_out, **more
    )


def applied(
    *rows: Correction, to: TrainingData | None = None, held_out: tuple[str, ...] = ()
) -> TrainingData:
    return corrected(to or data(), Corrections("review", rows), held_out)


def test_every_row_with_the_text_is_corrected_wherever_it_stands() -> None:
    now = applied(
        found("a", "POSITIVE"), found("c", "POSITIVE"), found("x", "POSITIVE"), found("y", "positive")
    )
    assert (now.train.labels, now.evaluation.labels) == ([1, 0, 1, 1], [1, 1])
    facts = now.corrections
    assert facts is not None
    assert facts["changed"] == [{"from": "NEGATIVE", "to": "POSITIVE", "rows": 2}]
    assert facts["evaluation_changed"] == [{"from": "NEGATIVE", "to": "POSITIVE", "rows": 1}]
    assert (facts["confirmed"], facts["added"], facts["left_out"]) == (2, {}, {})


def test_a_text_that_the_data_lack_is_trained_on_and_never_evaluated_on() -> None:
    now = applied(found("new", "POSITIVE"), found("held", "NEGATIVE"), held_out=("Held",))
    assert (now.train.texts[4:], now.train.labels[4:], now.train.places[4:]) == (["new"], [1], ["reviewed"])
    assert now.evaluation.texts == ["x", "y"]
    assert now.corrections is not None
    assert now.corrections["added"] == {"POSITIVE": 1}


def test_what_nobody_could_tell_is_not_trained_on_and_stays_to_evaluate_on() -> None:
    now = applied(*(found(text, None, is_unsure=True) for text in ("b", "x", "new")))
    assert (now.train.texts, now.evaluation.texts) == (["a", "c", "A "], ["x", "y"])
    assert now.corrections is not None
    assert now.corrections["left_out"] == {"unsure": 2}


def test_what_has_none_of_the_labels_is_left_out_of_both() -> None:
    now = applied(found("b", None), found("x", None))
    assert (now.train.texts, now.evaluation.texts) == (["a", "c", "A "], ["y"])


def test_what_is_odd_is_counted_and_changes_nothing() -> None:
    now = applied(found("a", "POSITIVE"), found("A", "NEGATIVE"), found("lost", "POSITIVE", known=False))
    assert now.train.labels == data().train.labels
    assert now.corrections is not None
    assert now.corrections["left_out"] == {"found_differently": 1, "text_changed_by_a_spreadsheet": 1}
    grouped = applied(found("new", "POSITIVE"), to=data(groups=["g", "g", "h", None]))
    assert (len(grouped.train.texts), grouped.corrections["left_out"]) == (4, {"group_unknown": 1})  # type: ignore[index]


def test_a_label_that_the_data_lack_and_another_task_are_refused() -> None:
    with pytest.raises(DataError, match="no such label"):
        applied(found("a", "SO LALA"))
    several = TrainingData(
        Goal(Task.MULTI_LABEL, LABELS), Split(["a"], [(0, 1)]), Split(["b"], [(0, 1)]), "", {}
    )
    with pytest.raises(UsageError, match="one label a text"):
        applied(found("a", "POSITIVE"), to=several)


def test_what_is_told_counts_and_holds_no_text() -> None:
    now = applied(found("a", "POSITIVE"), found("secret", "NEGATIVE"), found("b", None, is_unsure=True))
    told = "\n".join(lines_of(now.facts()["corrections"]))
    assert "corrected: 2 training rows from NEGATIVE to POSITIVE" in told
    assert "added to the training rows: NEGATIVE 1, which the data lack" in told
    assert "without use: 1 reviewed rows, unsure" in told
    assert "secret" not in told + json.dumps(now.facts())
    assert lines_of({}) == []


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty reviewed rows of eighty: of each the prediction is right, but the texts of two are nobody's to tell."""
    rows = table(80)
    rows.loc[3, "text"] = "=SUM(A1) number 3"
    path = scored(tiny_model, tmp_path_factory.mktemp("scored"), rows)
    with reviewed(path, unsure_below=1.0) as review:
        for number, row in enumerate(review.queue.rows(Filter(), most=40)):
            unsure = number < 2
            kind, label = ("unsure", None) if unsure else ("prediction", LABELS[row.predicted])
            review.store.give(row.key, kind, label, tab=WORST, by="me")
    return path


def outcome(path: Path) -> dict[str, tuple[str | None, bool]]:
    return {row.text_hash: (row.label, row.is_unsure) for row in corrections_of(path).rows}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_its_review_and_its_exports_say_the_same(run: Path, tmp_path: Path, kind: str) -> None:
    with reviewed(run, unsure_below=1.0) as review:
        export(review, kind, tmp_path / "out")
    by_run = outcome(run)
    assert len(by_run) == 40
    assert outcome(tmp_path / "out") == by_run == outcome(run.with_name("run.review"))
    texts = {row.text for row in corrections_of(tmp_path / "out").rows}
    assert texts == {row.text for row in corrections_of(run).rows}


def test_nothing_to_correct_by_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    path = scored(tiny_model, tmp_path, table(4))
    for place in (path, tmp_path / "nowhere.csv", tmp_path):
        with pytest.raises(NoInputError):
            corrections_of(place)
    with pytest.raises(DataError, match="no export"):
        corrections_of(tmp_path / "r.csv")


def test_flipped_labels_are_put_right_in_the_data_of_the_run(run: Path, tmp_path: Path) -> None:
    given = table(80)
    given.loc[3, "text"] = "=SUM(A1) number 3"
    given.to_csv(tmp_path / "data.csv", index=False)
    settings = TrainSettings(str(tmp_path / "data.csv"), tmp_path / "model")
    before = load_data(settings)
    corrections = corrections_of(run)
    now = load_data(TrainSettings(str(tmp_path / "data.csv"), tmp_path / "model", corrections=corrections))
    right = {row.text: row.label for row in corrections.rows if row.label is not None}
    for old, new in ((before.train, now.train), (before.evaluation, now.evaluation)):
        labels = dict(zip(new.texts, new.labels, strict=True))
        for text, label in zip(old.texts, old.labels, strict=True):
            if text in labels:
                assert labels[text] == (LABELS.index(str(right[str(text)])) if text in right else label)
    assert len(before.train) - len(now.train) <= 2
    assert len(now.evaluation) == len(before.evaluation)
    assert now.facts() != before.facts()  # so --resume goes on with neither for the other


def test_rows_beyond_the_limit_of_an_evaluation_are_not_trained_on(run: Path, tmp_path: Path) -> None:
    rows = table(80)
    (tmp_path / "data").mkdir()
    table(200)[100:].to_csv(tmp_path / "data/train.csv", index=False)
    rows.to_csv(tmp_path / "data/test.csv", index=False)
    now = load_data(
        TrainSettings(str(tmp_path / "data"), tmp_path / "model", limit=10, corrections=corrections_of(run))
    )
    assert not {text_key(text) for text in now.train.texts} & {text_key(text) for text in rows["text"][4:]}


def test_a_training_takes_corrections_and_tells_what_changed(run: Path, tmp_path: Path) -> None:
    from batchscore.system.terminal import Progress
    from batchscore.training import train

    new = pd.DataFrame({"text": [f"another {k} film" for k in range(40)], "label": list(LABELS) * 20})
    new.to_csv(tmp_path / "data.csv", index=False)
    with reviewed(run, unsure_below=1.0) as review:
        export(review, CSV, tmp_path / "out.csv")
    options: dict[str, Any] = {
        "data": str(tmp_path / "data.csv"),
        "output": tmp_path / "model",
        "recipe": "head",
        "epochs": 1.0,
        "max_length": 16,
        "label_names": (),
        "label_columns": None,
        "corrections": tmp_path / "out.csv",
    }
    from batchscore.cli import train as cli

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "read_settings", lambda _: ReadSettings())
        settings = train_settings(**options)
    told: list[str] = []
    result = train(settings, lambda total: Progress(total, quiet=True), told.append)
    assert result.rows == 32 + 38
    facts = json.loads((tmp_path / "model/batchscore.json").read_bytes())["training"]["data"]["corrections"]
    assert sum(facts["added"].values()) == 38
    assert facts["left_out"] == {"unsure": 2}
    assert any("added to the training rows" in line for line in told)
    assert "added to the training rows" in (tmp_path / "model/README.md").read_text()
