"""Reviews: which rows come, what is taken down of them and never lost, and what goes to other tools and back."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from review_samples import LABELS, copied, reviewed, scored, table
from task_models import LABELS as SEVERAL
from task_models import several_labels, without_page

from batchscore.config import EvaluateSettings
from batchscore.errors import BatchscoreError, DataError, NoInputError, OutputError, UsageError
from batchscore.reviewing.csv_exchange import cell, plain
from batchscore.reviewing.exchange import CSV, KINDS, export, take_in
from batchscore.reviewing.index import Recipe, build
from batchscore.reviewing.later_labels import later_labels
from batchscore.reviewing.places import review_folder, run_of
from batchscore.reviewing.queue import Filter
from batchscore.reviewing.run_rows import open_run
from batchscore.reviewing.session import Review
from batchscore.reviewing.store import DRAWN, WORST, Verdict
from batchscore.runs.evaluating import evaluate


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hundred rows, half of them mismatches; the model's answers have nothing to do with the labels."""
    return scored(tiny_model, tmp_path_factory.mktemp("scored"), table(200), slice_columns=("shop",))


@pytest.fixture
def fresh(run: Path, tmp_path: Path) -> Path:
    """The same run, reviewed by nobody."""
    return copied(run, tmp_path)


def everything(review: Review, **wanted: Any) -> list[Any]:
    """All rows of a filter, a page at a time."""
    found: list[Any] = []
    while rows := review.queue.rows(Filter(**wanted), after=found[-1].place if found else -1, most=7):
        found += rows
    return found


# --------------------------------------------------------------------------------------------------------- which rows


def test_labels_that_came_later_are_those_that_are_reviewed(fresh: Path, tmp_path: Path) -> None:
    with reviewed(fresh, n_drawn=200) as review:
        row = next(each for each in everything(review, tab=DRAWN) if each.id == "r7")
        review.store.give(row.key, "given", LABELS[row.given], tab=WORST, by="me")
    late = table(200)[["id", "label"]].iloc[5:60]
    late["label"] = late["label"].map({"NEGATIVE": "POSITIVE", "POSITIVE": "NEGATIVE"})
    late.to_csv(tmp_path / "late.csv", index=False)
    with without_page():
        evaluation = evaluate(EvaluateSettings(fresh, (tmp_path / "late.csv",))).output
    mismatches = pd.read_parquet(evaluation / "mismatches.parquet")
    now = {**table(200).set_index("id")["label"], **late.set_index("id")["label"]}
    with reviewed(fresh, n_drawn=200) as review:
        rows, drawn = everything(review), everything(review, tab=DRAWN)
        export(review, CSV, tmp_path / "out.csv")
    assert [row.id for row in rows[: len(mismatches)]] == mismatches["id"].tolist()
    assert {row.id: LABELS[row.given] for row in drawn} == now
    said = pd.read_csv(tmp_path / "out.csv").iloc[0]
    assert (said.id, said.given_label, said.label) == ("r7", now["r7"], table(200).label[7])
    assert said.verdict != "given"
    with pytest.raises(UsageError, match="Name the run itself"):
        open_run(evaluation)
    assert not review_folder(evaluation).exists()
    (fresh / "_SUCCESS").write_text((fresh / "_SUCCESS").read_text() + " \n")
    assert later_labels(fresh) is None  # scored again


def test_mismatches_come_in_their_order_then_the_least_sure_rows(fresh: Path) -> None:
    mismatches = pd.read_parquet(fresh / "mismatches.parquet")
    predictions = pd.read_csv(fresh / "predictions" / "r.csv")
    with reviewed(fresh) as review:
        rows = everything(review)
    wrong = rows[: len(mismatches)]
    assert [row.id for row in wrong] == mismatches["id"].tolist()
    assert [row.text for row in wrong] == mismatches["text"].tolist()
    others = predictions[
        (predictions["label"] == predictions["predicted_label"]) & (predictions["probability"] < 0.6)
    ]
    assert [row.id for row in rows[len(mismatches) :]] == others.sort_values("probability", kind="stable")[
        "id"
    ].tolist()
    assert len(others) > 5
    assert [row.place for row in rows] == list(range(len(rows)))


@pytest.mark.parametrize("name", ["r.csv", "r.parquet"])
def test_rows_are_those_of_the_input_whatever_its_format(tiny_model: Path, tmp_path: Path, name: str) -> None:
    given = table(40)
    path = scored(tiny_model, tmp_path, given, name)
    with reviewed(path, unsure_below=1.0, n_drawn=40) as review:
        for row in everything(review):
            at = int(row.id.removeprefix("r"))
            assert (row.text, LABELS[row.given], row.key) == (given.text[at], given.label[at], at)


def test_rejected_rows_are_counted_and_rows_of_several_files_told_apart(
    tiny_model: Path, tmp_path: Path
) -> None:
    from batchscore.config import Allowance

    given = table(30)
    text = given.to_csv(index=False).splitlines()
    text.insert(5, "damaged,row")
    (tmp_path / "r.csv").write_text("\n".join(text) + "\n")
    given.to_csv(tmp_path / "other.csv", index=False)
    from conftest import run_score
    from task_models import answering_at_once

    with answering_at_once(tiny_model), without_page():
        run_score(
            [tmp_path / "r.csv", tmp_path / "other.csv"],
            tiny_model,
            tmp_path / "run",
            max_rejects=Allowance.parse("1"),
        )
    with reviewed(tmp_path / "run", unsure_below=1.0) as review:
        rows = everything(review)
        names = review.run.names
        only = everything(review, file=names.index("other.csv"))
    assert len(rows) == 60
    for row in rows:
        file, place = row.key >> 40, row.key & 0xFFFF
        at = int(row.id.removeprefix("r"))
        assert place == at + (names[file] == "r.csv" and at >= 4)
    assert {row.key >> 40 for row in only} == {names.index("other.csv")}
    assert len(only) == 30


@pytest.mark.parametrize(
    ("wanted", "is_wanted"),
    [
        ({"pair": (0, 1)}, lambda row: (row.given, row.predicted) == (0, 1)),
        ({"slice": ("shop", "south")}, lambda row: int(row.id[1:]) % 3 == 0),
        ({"text": "GREAT actor"}, lambda row: "great actor" in row.text),
        ({"text": "r17"}, lambda row: row.id.startswith("r17")),
        ({"text": "'; DROP TABLE rows; --"}, lambda row: False),
    ],
    ids=["pair", "slice", "text", "id", "injection"],
)
def test_filters_keep_what_they_say(
    fresh: Path, wanted: dict[str, Any], is_wanted: Callable[[Any], bool]
) -> None:
    with reviewed(fresh) as review:
        every, some = everything(review), everything(review, **wanted)
        assert some == [row for row in every if is_wanted(row)]
        assert review.queue.counts(Filter(**wanted))["rows"] == len(some)


def test_rows_go_backwards_too(fresh: Path) -> None:
    with reviewed(fresh) as review:
        assert [row.place for row in review.queue.rows(Filter(), before=5, most=3)] == [4, 3, 2]


def test_reviewed_rows_are_told_from_others(fresh: Path) -> None:
    with reviewed(fresh) as review:
        first, second = review.queue.rows(Filter(), most=2)
        review.store.give(second.key, "unsure", None, tab=WORST, by="me")
        assert review.queue.rows(Filter(reviewed=False), most=2)[0] == first
        assert [row.kind for row in everything(review, reviewed=True)] == ["unsure"]
        assert review.queue.counts(Filter())["reviewed"] == 1


def test_the_index_is_made_again_only_for_another_recipe(fresh: Path) -> None:
    with reviewed(fresh) as review:
        first = review.queue.path.path.stat()
    with reviewed(fresh) as review:
        assert review.queue.path.path.stat().st_ino == first.st_ino
    with reviewed(fresh, unsure_below=0.9) as review:
        assert len(everything(review)) > 100
    review_folder(fresh).path.joinpath("index.sqlite").write_bytes(b"damaged" * 1000)
    with reviewed(fresh) as review:
        assert everything(review)


def test_an_index_holds_few_rows_of_many(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, most in (("MOST_MISMATCHES", 9), ("MOST_UNSURE", 5), ("MOST_DRAWN", 7)):
        monkeypatch.setattr(f"batchscore.reviewing.index.{name}", most)
    mismatches = pd.read_parquet(fresh / "mismatches.parquet")
    with reviewed(fresh, unsure_below=0.9) as review:
        rows = everything(review)
        assert [row.id for row in rows[:9]] == mismatches["id"].tolist()[:9]
        assert len(rows) == 14
        assert len(everything(review, tab=DRAWN)) == 7
        count = sqlite3.connect(review.queue.path.path).execute("SELECT count(*) FROM rows").fetchone()[0]
        assert count <= 9 + 5 + 7
        assert review.queue.facts == {"answered": 200, "labelled": 200, "mismatches": len(mismatches)}


# ---------------------------------------------------------------------------------------------------------- verdicts


def test_a_verdict_stands_until_it_is_replaced_or_taken_back(fresh: Path) -> None:
    with reviewed(fresh) as review:
        store, key = review.store, review.queue.rows(Filter(), most=1)[0].key
        store.give(key, "given", "POSITIVE", tab=WORST, by="one")
        store.give(key, "unsure", None, tab=WORST, by="two")
        assert store.standing(key) == Verdict(key, 2, "unsure", None, WORST)
        taken = store.take_back("two")
        assert taken is not None
        assert (taken.kind, store.standing(key)) == ("unsure", Verdict(key, 1, "given", "POSITIVE", WORST))
        assert store.take_back("two") is None  # nobody takes back what somebody else said
    with reviewed(fresh) as review:
        assert review.store.take_back("somebody new") is not None  # but after a restart, the last of all
        assert review.store.all_standing() == []
        assert [event.kind for event in review.store.events()] == ["given", "unsure", "undo", "undo"]


def test_what_was_undone_in_between_does_not_come_back(fresh: Path) -> None:
    with reviewed(fresh) as review:
        store, key = review.store, review.queue.rows(Filter(), most=1)[0].key
        for label in LABELS:
            store.give(key, "given", label, tab=WORST, by=label)
        store.take_back(LABELS[0])
        assert store.standing(key) is not None
        store.take_back(LABELS[1])
        assert store.standing(key) is None


def test_two_processes_see_each_others_verdicts(fresh: Path) -> None:
    with reviewed(fresh) as one, reviewed(fresh) as other:
        keys = [row.key for row in one.queue.rows(Filter(), most=10)]
        for place, key in enumerate(keys):
            (one, other)[place % 2].store.give(key, "unsure", None, tab=WORST, by="me")
        assert one.store.counts() == other.store.counts()
        assert one.queue.counts(Filter())["reviewed"] == 10


_ENDLESS = """
import sys
from pathlib import Path
from batchscore.reviewing.session import ReviewSettings, opened
from batchscore.reviewing.queue import Filter
with opened(ReviewSettings(Path(sys.argv[1]))) as review:
    keys = [row.key for row in review.queue.rows(Filter(), most=50)]
    for number in range(10**6):
        verdict = review.store.give(keys[number % 50], "unsure", None, tab="worst", by="me")
        print(verdict.number, flush=True)
"""


def test_a_kill_after_any_verdict_loses_none_that_was_confirmed(fresh: Path) -> None:
    with reviewed(fresh):
        pass
    confirmed = 0
    for kill_after in (1, 4):
        process = subprocess.Popen(
            [sys.executable, "-c", _ENDLESS, str(fresh)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(kill_after):
            confirmed = int(process.stdout.readline())
        process.kill()
        confirmed = max([confirmed, *map(int, filter(str.strip, process.stdout.read().splitlines()))])
        process.wait()
        with reviewed(fresh) as review:
            numbers = [event.number for event in review.store.events()]
            assert numbers == list(range(1, len(numbers) + 1))
            assert (
                confirmed <= len(numbers) <= confirmed + 1
            )  # the last one was on disk before it could be told
            assert sqlite3.connect(review.store.path.path).execute("PRAGMA integrity_check").fetchone() == (
                "ok",
            )


# ----------------------------------------------------------------------------------------------------- what is refused


def test_verdicts_on_another_run_are_refused(fresh: Path, tiny_model: Path, tmp_path: Path) -> None:
    with reviewed(fresh) as review:
        review.store.give(0, "unsure", None, tab=WORST, by="me")
    (tmp_path / "second").mkdir()
    second = scored(tiny_model, tmp_path / "second", table(10))
    review_folder(fresh).path.rename(review_folder(second).path)
    with pytest.raises(DataError, match="verdicts on another run"), reviewed(second):
        pass


def test_a_file_that_holds_no_verdicts_is_refused(fresh: Path) -> None:
    with reviewed(fresh) as review:
        path = review.store.path.path
    whole = path.read_bytes()
    other = sqlite3.connect(":memory:")
    other.execute("CREATE TABLE events (number)")
    for content, says in (
        (b"damaged" * 1000, "is damaged"),
        (other.serialize(), "no verdicts of this version"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=says), reviewed(fresh):
            pass
        assert path.read_bytes() == content
    path.write_bytes(whole)
    with reviewed(fresh):
        pass


def test_a_changed_or_unfinished_run_is_refused(fresh: Path, tmp_path: Path) -> None:
    with pytest.raises(NoInputError, match="no finished run"):
        open_run(tmp_path)
    (fresh / "predictions/r.csv").write_text("other\n")
    with pytest.raises(DataError, match="not as it was written"):
        open_run(fresh)


@pytest.mark.parametrize(
    ("options", "says"),
    [({"drop_columns": ("text",)}, "--drop-columns"), ({"partition_by": "shop"}, "--partition-by")],
)
def test_a_run_that_lacks_what_a_review_needs_is_refused_with_what_helps(
    tiny_model: Path, tmp_path: Path, options: dict[str, Any], says: str
) -> None:
    path = scored(tiny_model, tmp_path, table(10), **options)
    with pytest.raises(DataError, match=says):
        open_run(path)


def test_another_task_is_refused(tmp_path: Path) -> None:
    rows = pd.DataFrame({"text": ["a", "b"], "label": ["toxic;insult", ""]})
    path = scored(several_labels(tmp_path / "model", SEVERAL), tmp_path, rows)
    with pytest.raises(DataError, match="another task"):
        open_run(path)


def test_renamed_columns_and_no_probabilities_are_fine(tiny_model: Path, tmp_path: Path) -> None:
    path = scored(
        tiny_model,
        tmp_path,
        table(30),
        renames={"text": "review", "batchscore_status": "state"},
        prefix="batchscore_",
        probabilities="none",
    )
    with reviewed(path) as review:
        rows = everything(review)
        assert {row.probability for row in rows} == {None}
        assert [row.text for row in rows] == pd.read_parquet(path / "mismatches.parquet")["text"].tolist()


def test_planted_links_are_not_followed(fresh: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"theirs")
    for name in ("verdicts.sqlite", "verdicts.sqlite-journal", "index.sqlite"):
        folder = review_folder(fresh).path
        folder.mkdir(exist_ok=True)
        for plant in (os.symlink, os.link, lambda _, to: os.mkfifo(to)):
            plant(theirs, folder / name)
            with pytest.raises(OutputError, match=name), reviewed(fresh):
                pass
            (folder / name).unlink()
    folder.rmdir()
    folder.symlink_to(tmp_path)
    with pytest.raises(OutputError, match="a link"), reviewed(fresh):
        pass
    assert theirs.read_bytes() == b"theirs"
    assert not (tmp_path / "verdicts.sqlite").exists()


def test_a_review_is_nobody_elses_to_read(fresh: Path) -> None:
    with reviewed(fresh) as review:
        folder = review.store.path.parent.path
        assert folder.stat().st_mode & 0o077 == 0
        assert run_of(folder) == Path(os.path.realpath(fresh))


# ------------------------------------------------------------------------------------------------------- out and in


def some_verdicts(review: Review) -> dict[int, tuple[str, str | None]]:
    """One of each kind."""
    rows = review.queue.rows(Filter(), most=8)
    said = [
        ("given", LABELS[rows[0].given]),
        ("prediction", LABELS[rows[1].predicted]),
        ("none", None),
        ("unsure", None),
    ]
    for row, (kind, label) in zip(rows, said, strict=False):
        review.store.give(row.key, kind, label, tab=WORST, by="me")
    return {row.key: each for row, each in zip(rows, said, strict=False)}


def standing(review: Review) -> dict[int, tuple[str, str | None]]:
    return {verdict.key: (verdict.kind, verdict.label) for verdict in review.store.all_standing()}


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_out_comes_back(run: Path, tmp_path: Path, kind: str) -> None:
    with reviewed(copied(run, tmp_path)) as review:
        said = some_verdicts(review)
        rows = export(review, kind, tmp_path / "out")
        assert rows == (
            4
            if kind == CSV
            else len({row.key for tab in (WORST, DRAWN) for row in everything(review, tab=tab)})
        )
    (tmp_path / "other").mkdir()
    with reviewed(copied(run, tmp_path / "other")) as review:
        first = take_in(review, tmp_path / "out")
        assert (first.read, first.changed) == (4, 4)
        assert standing(review) == said
        assert take_in(review, tmp_path / "out").changed == 0
        assert review.store.last == 4


def test_labels_that_were_chosen_in_label_studio_come_in(fresh: Path, tmp_path: Path) -> None:
    with reviewed(fresh) as review:
        export(review, "labelstudio", tmp_path / "tasks.json")
        tasks = json.loads((tmp_path / "tasks.json").read_bytes())

        def said(*labels: str, skipped: bool = False) -> dict[str, Any]:
            value = {
                "from_name": "label",
                "to_name": "text",
                "type": "choices",
                "value": {"choices": list(labels)},
            }
            return {"id": 1, "result": [value] if labels else [], "was_cancelled": skipped, "lead_time": 3.2}

        answers = [
            [said("POSITIVE")],
            [said("POSITIVE"), said("NEGATIVE")],
            [said(skipped=True)],
            [said()],
            [],
        ]
        for task, each in zip(tasks, answers, strict=False):
            task["annotations"] = each
        (tmp_path / "done.json").write_text(json.dumps(tasks))
        found = take_in(review, tmp_path / "done.json")
        assert found == (3, 3, 1)
        assert sorted(label or kind for kind, label in standing(review).values()) == [
            "POSITIVE",
            "none",
            "unsure",
        ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("r.csv", "x.csv"), "a row that the run has not"),
        (lambda text: text.replace(",unsure,", ",perhaps,"), "verdict is none of"),
        (lambda text: text.replace(",unsure,,", ",other,SO LALA,"), "no label of the run's model"),
        (lambda text: text.replace("verdict,", "verdicts,"), "no export of batchscore review"),
        (lambda text: text.replace(",unsure,,", ",unsure,,0"), "another text there"),
        (lambda text: text.replace(",given,", ",unsure,"), "label says something else"),
        (lambda text: text.replace(",given,", ",prediction,"), "label says something else"),
    ],
    ids=["file", "verdict", "label", "column", "hash", "unsure with a label", "the other's label"],
)
def test_a_file_that_cannot_be_meant_changes_nothing(
    fresh: Path, tmp_path: Path, change: Callable[[str], str], says: str
) -> None:
    with reviewed(fresh) as review:
        some_verdicts(review)
        export(review, CSV, tmp_path / "out.csv")
        (tmp_path / "out.csv").write_text(change((tmp_path / "out.csv").read_text()))
        with pytest.raises(BatchscoreError, match=says) as caught:
            take_in(review, tmp_path / "out.csv")
        assert caught.value.exit_code == 65
        assert review.store.last == 4


def test_exports_are_safe_in_a_spreadsheet_and_whole(tiny_model: Path, tmp_path: Path) -> None:
    rows = table(6)
    odd = ["=1+1", "'=1+1", "\t=cmd", "+2", "-2.5", "long " * 2000]
    rows["text"] = odd
    path = scored(tiny_model, tmp_path, rows, "r.parquet")
    with reviewed(path, unsure_below=1.0) as review:
        for row in everything(review):
            review.store.give(row.key, "unsure", None, tab=WORST, by="me")
        export(review, CSV, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["text"] for line in lines] == ["'=1+1", "''=1+1", "'\t=cmd", "'+2", "-2.5", odd[-1]]
    assert [line["row"] for line in lines] == list("123456")


@pytest.mark.parametrize(
    "text", ["=1", "'=1", "plain", "'plain", "''=", "-2", "-2.5", "+", "@x", " =1", "'", ""]
)
def test_cells_are_read_back_as_they_were(text: str) -> None:
    assert plain(cell(text)) == text


# --------------------------------------------------------------------------------------------------- drawn at random


def test_rows_are_drawn_evenly_from_all_that_were_answered(fresh: Path) -> None:
    with reviewed(fresh, n_drawn=20) as review:
        drawn = everything(review, tab=DRAWN)
        assert len({row.key for row in drawn}) == 20
        seed = review.store.seed
    with reviewed(fresh, n_drawn=60) as review:  # more of the same draw
        assert everything(review, tab=DRAWN)[:20] == drawn
        assert review.store.seed == seed
    keys = np.array([row.key for row in drawn])
    assert (keys < 200).all()


def test_mismatches_are_no_likelier_to_be_drawn_than_others(fresh: Path) -> None:
    run = open_run(fresh)
    mismatches = set(run.mismatches(1000)[0].tolist())
    draws = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("batchscore.reviewing.index.MOST_DRAWN", 20)
        for seed in range(24):
            with sqlite3.connect(build(run, Recipe(run.fingerprint, seed, 0.6)).path) as index:
                draws.append(
                    {key for (key,) in index.execute("SELECT key FROM rows WHERE drawn IS NOT NULL")}
                )
    assert len(set(map(frozenset, draws))) == 24
    assert {len(each) for each in draws} == {20}
    share = len(mismatches) / 200
    found = sum(len(each & mismatches) for each in draws) / (24 * 20)
    assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / (24 * 20))


def test_an_estimate_counts_what_was_drawn_in_its_order(fresh: Path) -> None:
    with reviewed(fresh, n_drawn=10) as review:
        drawn = everything(review, tab=DRAWN)
        assert review.summary()["true_accuracy"] is None
        review.store.give(drawn[8].key, "given", LABELS[drawn[8].given], tab=WORST, by="me")
        assert (
            review.summary()["true_accuracy"] is None
        )  # seen because it looked wrong, not because it was drawn
        for place in (0, 1, 3):
            label = LABELS[drawn[place].predicted if place < 3 else 1 - drawn[place].predicted]
            review.store.give(drawn[place].key, "other", label, tab=DRAWN, by="me")
        model = review.summary()["true_accuracy"]["model"]
        assert (model["drawn"], model["good"], model["unsure"], model["value"]) == (4, 2, 1, None)
        assert (model["least"], model["most"]) == (0.5, 0.75)
        for row in drawn:
            review.store.give(row.key, "other", LABELS[1], tab=WORST, by="me")
        found = review.summary()["true_accuracy"]
        assert found["is_whole"]
        right = sum(row.predicted == 1 for row in drawn)
        assert found["model"]["value"] == right / 10
        assert found["given"]["value"] == sum(row.given == 1 for row in drawn) / 10


def test_the_estimate_is_unbiased_over_draws_and_its_interval_holds(fresh: Path) -> None:
    """Of 300 draws; what is right of each row is fixed, and has nothing to do with what was given or predicted."""
    from batchscore.evaluation.draws import drawn_share
    from batchscore.reviewing.index import _Least

    truth = np.arange(200) % 7 < 5  # 143 of 200 are right
    shares, held = [], 0
    for seed in range(300):
        least = _Least(30)
        random = np.random.Generator(np.random.PCG64(seed))
        for start in range(0, 200, 64):  # as rows come
            keys = np.arange(start, min(start + 64, 200))
            values = random.random(len(keys))
            may = least.may_be_in(values)
            least.add(values[may], keys[may])
        good = int(truth[least.keys].sum())
        share = drawn_share(200, 30, good, 30 - good)
        assert share is not None
        low, high = share.interval()
        shares.append(share.least)
        held += low <= truth.mean() <= high
    spread = np.std(shares) / np.sqrt(len(shares))
    assert abs(np.mean(shares) - truth.mean()) < 4 * spread
    assert held >= 0.95 * 300


def test_the_command_tells_what_was_found(fresh: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from batchscore.cli import main

    def call(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["review", str(fresh), "--random", "10", *arguments])
        return result.exit_code, result.stdout

    with reviewed(fresh, n_drawn=10) as review:
        for row in everything(review, tab=DRAWN):
            review.store.give(row.key, "prediction", LABELS[row.predicted], tab=DRAWN, by="me")
    code, told = call("--summary", "--json")
    summary = json.loads(told.splitlines()[-1])
    assert (code, summary["true_accuracy"]["model"]["value"], summary["verdicts"]["prediction"]) == (
        0,
        1.0,
        10,
    )
    assert "the model is right: 1.0000" in call("--summary")[1]
    code, told = call("--export", CSV, "--output", str(tmp_path / "o.csv"), "--json")
    assert (code, json.loads(told.splitlines()[-1])["exported"]) == (0, 10)
    assert call("--import", str(tmp_path / "o.csv"))[0] == 0
    assert call("--export", CSV)[0] == 2
    text = textwrap.dedent((tmp_path / "o.csv").read_text())
    assert "number" in text  # texts go to the file, and nowhere else
    assert "number" not in told
