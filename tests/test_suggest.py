"""Rows to label next: unsure ones, of many kinds, each text once, and the ways in which their labels come back."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner
from review_samples import LABELS, copied, reviewed, scored, table

from batchscore.cli import main
from batchscore.errors import DataError, NoInputError, OutputError
from batchscore.formats.text_keys import text_key
from batchscore.reviewing.corrections import corrections_of
from batchscore.reviewing.exchange import take_in
from batchscore.reviewing.named_rows import keys_in
from batchscore.reviewing.queue import Filter
from batchscore.reviewing.records import rows_of
from batchscore.reviewing.suggesting import Suggested, SuggestSettings, suggest

LABELLED = 40
"""The first rows have a label."""


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of which the last 160 have no label; among them are texts that others have too."""
    rows = table(200)
    rows.loc[LABELLED:, "label"] = None
    rows.loc[100:109, "text"] = rows.loc[90:99, "text"].str.upper().to_numpy()  # of rows without a label
    rows.loc[110:119, "text"] = rows.loc[0:9, "text"].to_numpy()  # of rows with one
    return scored(tiny_model, tmp_path_factory.mktemp("scored"), rows)


@pytest.fixture
def fresh(run: Path, tmp_path: Path) -> Path:
    return copied(run, tmp_path)


def suggested(run: Path, **options: Any) -> tuple[Suggested, list[dict[str, str]]]:
    found = suggest(SuggestSettings(run, **options))
    with found.file.open(encoding="utf-8-sig", newline="") as file:
        return found, list(csv.DictReader(file))


def test_each_text_comes_once_and_none_that_has_a_label(fresh: Path) -> None:
    found, rows = suggested(fresh, rows=500)
    assert found.file == fresh.with_name(f"{fresh.name}.suggested.csv")
    assert found.candidates == 160
    texts = [text_key(row["text"]) for row in rows]
    assert len(set(texts)) == len(texts) == found.rows == 160 - 10 - 10
    assert {int(row["row"]) for row in rows}.isdisjoint(range(1, LABELLED + 1))
    assert {(row["label"], row["verdict"], row["given_label"]) for row in rows} == {("", "", "")}
    sure = [float(row["probability"]) for row in rows]
    assert sure == sorted(sure)
    assert found.least == pytest.approx(sure[0], abs=1e-6)


def test_those_of_few_are_the_least_sure_of_their_kinds(fresh: Path) -> None:
    _, every = suggested(fresh, rows=500)
    found, few = suggested(fresh, rows=8, force=True)
    assert found.rows == len(few) == 8
    pool = [row["row"] for row in every[:80]]
    assert all(row["row"] in pool for row in few)
    assert few[0]["row"] == every[0]["row"]  # of its kind the least sure, whatever its kind
    assert [row["row"] for row in few] != [row["row"] for row in every[:8]]


def test_the_same_seed_gives_the_same_rows(fresh: Path) -> None:
    first = suggested(fresh, rows=20)[1]
    assert suggested(fresh, rows=20, force=True)[1] == first
    assert suggested(fresh, rows=20, force=True, seed=5)[1] != first


def test_kinds_are_told_apart_by_their_words(tiny_model: Path, tmp_path: Path) -> None:
    kinds = ("battery charger broken", "parcel late courier", "refund money card")
    texts = [f"{kinds[k % 50 // 48 if k % 50 != 49 else 2]} number {k}" for k in range(200)]
    run = scored(tiny_model, tmp_path, pd.DataFrame({"text": texts}))
    _, rows = suggested(run, rows=20)
    assert {row["text"].split()[0] for row in rows} == {"battery", "parcel", "refund"}


def test_rows_with_a_verdict_and_their_texts_are_not_asked_for_again(fresh: Path) -> None:
    _, rows = suggested(fresh, rows=500)
    with reviewed(fresh) as review:
        keys = keys_in(review.run, fresh.with_name(f"{fresh.name}.suggested.csv"))[:30]
        for key in keys:
            review.store.give(key, "prediction", LABELS[0], tab="worst", by="me")
        judged = {row.text_hash for row in rows_of(review.run, dict.fromkeys(keys))}
    found, left = suggested(fresh, rows=500, force=True)
    assert found.candidates == 130
    assert judged.isdisjoint(row["text_hash"] for row in left)
    assert len(left) == len(rows) - 30


def test_labels_filled_into_the_file_come_back_and_train(fresh: Path) -> None:
    found, rows = suggested(fresh, rows=10)
    for number, row in enumerate(rows):
        row["label"] = LABELS[number % 2] if number < 6 else ""
    with found.file.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    given = corrections_of(found.file).rows
    assert sorted(each.label or "" for each in given) == sorted(LABELS * 3)
    with reviewed(fresh) as review:
        assert take_in(review, found.file).read == 6
        standing = [verdict.label for verdict in review.store.all_standing()]
    assert sorted(filter(None, standing)) == sorted(LABELS * 3)
    assert {each.text_hash for each in corrections_of(fresh).rows} == {each.text_hash for each in given}
    with pytest.raises(OutputError, match="may hold labels"):
        suggest(SuggestSettings(fresh))


@pytest.mark.parametrize("kind", ["csv", "labelstudio"])
def test_the_page_shows_them_in_their_order_and_nothing_else(fresh: Path, kind: str) -> None:
    found = suggest(SuggestSettings(fresh, rows=12, kind=kind))
    assert (found.interface is not None) is (kind == "labelstudio")
    with reviewed(fresh, suggested=found.file) as review:
        keys = keys_in(review.run, found.file)
        assert [row.key for row in review.queue.rows(Filter(), most=50)] == keys
        assert len(keys) == 12
        assert review.queue.counts(Filter(tab="drawn"))["rows"] == 20
    with reviewed(fresh) as review:  # without the file it is as it was
        assert [row.key for row in review.queue.rows(Filter(), most=50)] != keys


def test_a_file_of_another_run_or_none_is_refused(fresh: Path, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    other = scored(tiny_model, tmp_path / "b", table(30).drop(columns="label"))
    found = suggest(SuggestSettings(other, rows=5))
    with pytest.raises(DataError, match="another run"), reviewed(fresh, suggested=found.file):
        pass
    with pytest.raises(NoInputError), reviewed(fresh, suggested=tmp_path / "none.csv"):
        pass


def test_a_run_where_all_is_labelled_or_nothing_is_known_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    run = scored(tiny_model, tmp_path, table(10))
    with pytest.raises(DataError, match="nothing to suggest"):
        suggest(SuggestSettings(run))
    (tmp_path / "b").mkdir()
    blind = scored(tiny_model, tmp_path / "b", table(10).drop(columns="label"), probabilities="none")
    with pytest.raises(DataError, match="--probabilities none"):
        suggest(SuggestSettings(blind))


def test_texts_without_a_word_are_suggested_too(tiny_model: Path, tmp_path: Path) -> None:
    run = scored(tiny_model, tmp_path, pd.DataFrame({"text": ["!" * k for k in range(1, 30)]}))
    assert suggested(run, rows=5)[0].rows == 5


def test_the_command_says_where_they_are_and_what_comes_next(fresh: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    call = ["suggest", str(fresh), "--rows", "7", "--kind", "labelstudio", "--output", str(out)]
    result = CliRunner().invoke(main, [*call, "--json"])
    told = json.loads(result.stdout.splitlines()[-1])
    assert (result.exit_code, told["rows"], told["file"]) == (0, 7, str(out))
    assert len(json.loads(out.read_text())) == 7
    assert CliRunner().invoke(main, call).exit_code == 73
    again = CliRunner().invoke(main, [*call, "--force"])
    assert (again.exit_code, again.stdout.strip()) == (0, str(out))
    assert "--import" in again.stderr
    assert "number" not in again.stderr  # no text is told
