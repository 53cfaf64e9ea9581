"""Tonight beside an earlier run: which rows belong together, what is told of them, and what is refused beforehand."""

from __future__ import annotations

import decimal
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from conftest import run_score
from flow import LABELS, flow

from batchscore import cli
from batchscore.config import Allowance
from batchscore.errors import OutputError
from batchscore.runs.baselines import ABSENT, match_rows, open_baseline
from batchscore.runs.finishing import Finish


@pytest.fixture(scope="module")
def other_model(make_model: Callable[..., Path]) -> Path:
    """Other weights, the same labels in another order."""
    return make_model(("POSITIVE", "NEGATIVE"), seed=1)


@pytest.fixture(scope="module")
def table(reviews: pd.DataFrame) -> pd.DataFrame:
    """Reviews with ids that look like numbers, and two columns to slice by."""
    is_plain = reviews.text.fillna("").str.strip().astype(bool) & ~reviews.text.duplicated()
    found = reviews[is_plain].head(90).reset_index(drop=True)
    assert len(found) == 90
    found["id"] = [f"{k:04}" for k in range(90)]
    found["shop"] = ["eu", "us", None] * 30
    found["stars"] = range(90)
    found["stars"] %= 4
    return found


def command(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def predictions(run: Path) -> pd.DataFrame:
    (path,) = (run / "predictions").iterdir()
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    read: Any = pd.read_csv if path.suffix == ".csv" else pd.read_json
    return read(path, dtype=str, **({} if path.suffix == ".csv" else {"lines": True}))  # type: ignore[no-any-return]


def metrics(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_bytes())  # type: ignore[no-any-return]


def page(run: Path) -> str:
    return (run / "report.html").read_text(encoding="utf-8")


def check_comparison(run: Path, before: pd.DataFrame, after: pd.DataFrame) -> dict[str, Any]:
    """Hold the comparison against one made with pandas; both tables have the same rows in the same order."""
    told = metrics(run)["comparison"]
    labels = after.label.str.upper()
    old, new = before.predicted_label.reset_index(drop=True), after.predicted_label.reset_index(drop=True)
    labels = labels.reset_index(drop=True)
    both = old.notna() & new.notna()
    was, now = old[both] == labels[both], new[both] == labels[both]
    assert told["rows"] == both.sum()
    assert told["changed"] == (old[both] != new[both]).sum() > 0
    assert (told["fixed"], told["broken"]) == ((~was & now).sum(), (was & ~now).sum())
    assert told["accuracy_before"]["value"] == pytest.approx(was.mean())
    assert told["accuracy_after"]["value"] == pytest.approx(now.mean())
    return dict(told)


def test_rows_are_matched_by_id_whatever_their_order_file_and_format(
    table: pd.DataFrame, tiny_bundle: Path, other_model: Path, tmp_path: Path
) -> None:
    table.to_csv(tmp_path / "monday.csv", index=False)
    table.iloc[::-1].head(80).to_parquet(tmp_path / "tuesday.parquet", index=False)
    run_score(tmp_path / "monday.csv", other_model, tmp_path / "a", prefix="x_")
    run_score(
        tmp_path / "tuesday.parquet",
        tiny_bundle,
        tmp_path / "b",
        baseline=tmp_path / "a",
        slice_columns=("shop",),
    )
    before = predictions(tmp_path / "a").rename(columns={"x_predicted_label": "predicted_label"})
    told = check_comparison(tmp_path / "b", before.iloc[::-1].head(80), predictions(tmp_path / "b"))
    assert (told["matched_by"], told["unmatched"], told["ambiguous"]) == ("id", 0, 0)
    shops = {each["value"]: each for each in told["slices"] if each["column"] == "shop"}
    assert set(shops) == {"eu", "us", "(null)"}
    assert sum(each["broken"] for each in shops.values()) == told["broken"]
    text = page(tmp_path / "b")
    assert "What changed since the earlier run?" in text
    assert "McNemar" in text


def test_an_id_that_was_there_twice_is_not_compared(
    table: pd.DataFrame, tiny_bundle: Path, tmp_path: Path
) -> None:
    rows = table.head(20)
    pd.concat([rows, rows.head(2)]).to_csv(tmp_path / "monday.csv", index=False)
    rows.assign(id=rows.id.where(rows.index != 5)).to_csv(tmp_path / "tuesday.csv", index=False)
    run_score(tmp_path / "monday.csv", tiny_bundle, tmp_path / "a")
    run_score(tmp_path / "tuesday.csv", tiny_bundle, tmp_path / "b", baseline=tmp_path / "a")
    told = metrics(tmp_path / "b")["comparison"]
    assert (told["rows"], told["unmatched"], told["ambiguous"], told["changed"]) == (17, 3, 2, 0)
    text = page(tmp_path / "b")
    assert "None of 17 predictions differs" in text
    assert "3 rows of this run had no counterpart (2 for an id that was there more than once)." in text


@pytest.fixture(scope="module")
def by_other(
    table: pd.DataFrame, other_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What the other model says of each text."""
    folder = tmp_path_factory.mktemp("other")
    table.to_parquet(folder / "all.parquet", index=False)
    run_score(folder / "all.parquet", other_model, folder / "run")
    found = predictions(folder / "run")
    return dict(zip(found.text, found.predicted_label, strict=True))


@pytest.mark.parametrize(
    ("name", "output_format"),
    [
        ("reviews.csv", "same"),
        ("reviews.jsonl.gz", "same"),
        ("reviews.parquet", "same"),
        ("reviews.csv", "jsonl"),
        ("reviews.parquet", "csv"),
        ("reviews.jsonl.gz", "parquet"),
    ],
)
def test_rows_without_an_id_are_matched_by_file_and_row(
    name: str,
    output_format: str,
    table: pd.DataFrame,
    tiny_bundle: Path,
    other_model: Path,
    by_other: dict[str, str],
    tmp_path: Path,
) -> None:
    path, rows = tmp_path / name, table.drop(columns="id").head(40)
    rows.loc[rows.index[7], "text"] = None
    write: dict[str, Callable[[], Any]] = {
        "reviews.csv": lambda: rows.to_csv(path, index=False, sep=";", encoding="utf-16"),
        "reviews.jsonl.gz": lambda: rows.to_json(path, orient="records", lines=True),
        "reviews.parquet": lambda: rows.to_parquet(path, index=False),
    }
    write[name]()
    run_score(path, other_model, tmp_path / "a", output_format=output_format)
    run_score(path, tiny_bundle, tmp_path / "b", baseline=tmp_path / "a", output_format="parquet")
    before = pd.DataFrame({"predicted_label": rows.text.map(by_other)})
    told = check_comparison(tmp_path / "b", before, predictions(tmp_path / "b"))
    assert (told["matched_by"], told["unmatched"], told["not_compared"]) == ("file and row", 0, 1)


@pytest.mark.parametrize("has_id", [True, False], ids=["by id", "by file and row"])
def test_labels_that_are_others_than_then_are_counted(
    has_id: bool, table: pd.DataFrame, tiny_bundle: Path, tmp_path: Path
) -> None:
    rows = table.head(40) if has_id else table.head(40).drop(columns="id")
    turned = rows.assign(
        label=rows.label.where(
            rows.index >= 7, rows.label.map({"positive": "negative", "negative": "positive"})
        )
    )
    turned.loc[39, "label"] = None  # has no label now, and so is not evaluated
    spelled = rows.assign(label=rows.label.str.upper() + " ")
    for name, found in (("a", rows), ("b", turned), ("c", spelled), ("d", rows.drop(columns="label"))):
        (tmp_path / name).mkdir()
        found.to_csv(tmp_path / name / "today.csv", index=False)
    run_score(tmp_path / "a" / "today.csv", tiny_bundle, tmp_path / "1")
    run_score(tmp_path / "d" / "today.csv", tiny_bundle, tmp_path / "4")

    def relabelled(night: str, baseline: str, **options: Any) -> int | None:
        out = tmp_path / f"{night}{baseline}{len(options)}"
        run_score(tmp_path / night / "today.csv", tiny_bundle, out, baseline=tmp_path / baseline, **options)
        found: int | None = metrics(out)["comparison"]["relabelled"]
        return found

    assert relabelled("a", "1") == 0
    assert relabelled("b", "1") == 7
    assert relabelled("c", "1") == 0  # written otherwise, and the same
    assert relabelled("a", "4") is None
    numbers = rows.assign(label=(rows.label == "positive").astype(int))
    (tmp_path / "e").mkdir()
    numbers.to_csv(tmp_path / "e" / "today.csv", index=False)
    assert relabelled("e", "1") == 0  # the same in numbers
    assert relabelled("e", "1", label_map={"0": "POSITIVE", "1": "NEGATIVE"}) == 40


def test_rejects_move_no_row(
    table: pd.DataFrame, tiny_bundle: Path, other_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "reviews.csv"
    table.drop(columns="id").head(30).to_csv(path, index=False)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:3], "too,few\n", *lines[3:9], "a\n", "b\n", *lines[9:], "c\n"]))
    for model, run, options in ((other_model, "a", {}), (tiny_bundle, "b", {"baseline": tmp_path / "a"})):
        run_score(path, model, tmp_path / run, max_rejects=Allowance(9), **options)
    told = check_comparison(tmp_path / "b", predictions(tmp_path / "a"), predictions(tmp_path / "b"))
    assert (told["rows"], told["unmatched"]) == (30, 0)


def test_in_a_file_that_changed_only_the_same_text_is_the_same_row(
    table: pd.DataFrame, tiny_bundle: Path, tmp_path: Path
) -> None:
    rows = table.drop(columns="id").head(30)
    for night, found in (("a", rows), ("b", rows.iloc[[*range(10), 20, *range(11, 30)]])):
        (tmp_path / night).mkdir()
        found.to_csv(tmp_path / night / "today.csv", index=False)
    run_score(tmp_path / "a" / "today.csv", tiny_bundle, tmp_path / "1")
    run_score(tmp_path / "b" / "today.csv", tiny_bundle, tmp_path / "2", baseline=tmp_path / "1")
    told = metrics(tmp_path / "2")["comparison"]
    assert (told["rows"], told["unmatched"], told["changed"]) == (29, 1, 0)


def test_new_rows_are_compared_as_another_sample(
    table: pd.DataFrame, tiny_bundle: Path, tmp_path: Path
) -> None:
    for name, rows in (("monday.csv", table.head(40)), ("tuesday.csv", table.tail(50))):
        rows.to_csv(tmp_path / name, index=False)
    run_score(tmp_path / "monday.csv", tiny_bundle, tmp_path / "1")
    run_score(tmp_path / "tuesday.csv", tiny_bundle, tmp_path / "2", baseline=tmp_path / "1")
    told = metrics(tmp_path / "2")
    assert (told["comparison"]["rows"], told["comparison"]["unmatched"]) == (0, 50)
    assert told["drift"]["distributions"]
    text = page(tmp_path / "2")
    assert "No row of this run was in the earlier one" in text
    before, now = (metrics(tmp_path / run)["quality"]["accuracy"]["value"] for run in "12")
    assert f"Accuracy {now:.1%}, before {before:.1%}" in text


IDS: dict[str, tuple[list[Any], str]] = {
    "integers": ([7, 8, 10], "parquet"),
    "floats": ([7.0, 8.0, 10.0], "parquet"),
    "decimals": ([decimal.Decimal("7.00"), decimal.Decimal("8.00"), decimal.Decimal("10.00")], "parquet"),
    "text": (["7", "8", "10"], "csv"),
    "text of floats": (["7.0", "8.0", "10.0"], "csv"),
    "JSON integers": ([7, 8, 10], "jsonl"),
    "JSON floats": ([7.0, 8.0, 10.0], "jsonl"),
    "zeros before": (["07", "08", "010"], "csv"),
    "JSON text": (["7", "8", "10"], "jsonl"),
}


def write_with_ids(folder: Path, table: pd.DataFrame, kind: str) -> Path:
    ids, format_name = IDS[kind]
    rows = table.head(3)[["text", "label"]].assign(id=ids)
    path = folder / f"reviews.{format_name}"
    folder.mkdir()
    if format_name == "jsonl":
        lines = [json.dumps(row) for row in rows.to_dict("records")]
        path.write_text("\n".join(lines), encoding="utf-8")
    elif format_name == "csv":
        rows.to_csv(path, index=False)
    else:
        rows.to_parquet(path, index=False)
    return path


@pytest.mark.parametrize("before", ["integers", "floats", "text of floats"])
def test_ids_are_matched_as_numbers_where_they_are_numbers(
    before: str, table: pd.DataFrame, tiny_bundle: Path, tmp_path: Path
) -> None:
    run_score(write_with_ids(tmp_path / "then", table, before), tiny_bundle, tmp_path / "a")
    baseline = open_baseline(tmp_path / "a", LABELS)
    predicted = [LABELS.index(label) for label in predictions(tmp_path / "a").predicted_label]
    for number, kind in enumerate(IDS):
        now = flow(tmp_path / f"flow {number}", write_with_ids(tmp_path / f"now {number}", table, kind))
        matcher = match_rows(baseline, now.plan.files, tmp_path / f"ids {number}")
        earlier = matcher.before(now.plan.parts[0], now.staged[0])
        found = np.where(earlier.found < 0, earlier.found, earlier.predicted).tolist()
        assert found == ([ABSENT] * 3 if kind == "zeros before" else predicted), kind


def test_an_id_is_first_what_it_is_written_as(table: pd.DataFrame, tiny_bundle: Path, tmp_path: Path) -> None:
    rows = table.head(6)[["text", "label"]]
    (tmp_path / "x").mkdir()
    then, now = ["7", "7.0", "8", "9.0", "9.00", "010"], ["7", "7.0", "8.0", "9", "10", "7.000"]
    for name, ids in (("then.csv", then), ("now.csv", now)):
        rows.assign(id=ids).to_csv(tmp_path / "x" / name, index=False)
    run_score(tmp_path / "x" / "then.csv", tiny_bundle, tmp_path / "a")
    run_score(tmp_path / "x" / "now.csv", tiny_bundle, tmp_path / "b", baseline=tmp_path / "a")
    told = metrics(tmp_path / "b")["comparison"]
    # 9 was there as 9.0 and as 9.00, and 7.000 may be 7 or 7.0
    assert (told["rows"], told["ambiguous"], told["unmatched"]) == (3, 2, 3)


def test_ids_of_which_none_was_there_are_told_loudly(
    table: pd.DataFrame, tiny_bundle: Path, tmp_path: Path
) -> None:
    for name, kind in (("then", "integers"), ("now", "zeros before")):
        write_with_ids(tmp_path / name, table, kind)
    arguments = ["--model", tiny_bundle, "--output"]
    assert command("score", tmp_path / "then", *arguments, tmp_path / "a").exit_code == 0
    done = command("score", tmp_path / "now", *arguments, tmp_path / "b", "--baseline", tmp_path / "a")
    assert (done.exit_code, "None of 3 rows has an id that is in the --baseline" in done.stderr) == (0, True)
    assert "look at how both runs write them" in page(tmp_path / "b")
    again = command("score", tmp_path / "then", *arguments, tmp_path / "c", "--baseline", tmp_path / "a")
    assert "has an id that is in the --baseline" not in again.stderr


@pytest.fixture
def two(table: pd.DataFrame, tiny_bundle: Path, tmp_path: Path) -> tuple[object, ...]:
    """A finished run at ``a``, and the command of another at ``b``."""
    table.head(20).to_csv(tmp_path / "reviews.csv", index=False)
    run_score(tmp_path / "reviews.csv", tiny_bundle, tmp_path / "a")
    return (
        "score",
        tmp_path / "reviews.csv",
        "--model",
        tiny_bundle,
        "--output",
        tmp_path / "b",
        "--baseline",
    )


def test_a_baseline_that_cannot_be_used_is_refused_before_anything_is_scored(
    two: tuple[object, ...], make_model: Callable[..., Path], tmp_path: Path
) -> None:
    other = make_model(("bad", "good"), seed=2)
    run_score(
        tmp_path / "reviews.csv", other, tmp_path / "other", label_map={"negative": "bad", "positive": "good"}
    )
    run_score(
        tmp_path / "reviews.csv", other, tmp_path / "cut", label_map={"negative": "bad", "positive": "good"}
    )
    (tmp_path / "cut" / "metrics.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    for baseline, code, message in (
        ("nowhere", 66, "no finished run"),
        ("empty", 66, "no finished run"),
        ("other", 78, "labels bad, good"),
        ("cut", 65, "histograms"),
        ("b", 2, "--output itself"),
    ):
        result = command(*two, tmp_path / baseline)
        assert (result.exit_code, message in result.stderr) == (code, True), result.output
        assert not (tmp_path / "b").exists()
    damaged = tmp_path / "a" / "predictions" / "reviews.csv"
    damaged.write_bytes(damaged.read_bytes().replace(b"ok", b"OK", 1))
    result = command(*two, tmp_path / "a")
    assert (result.exit_code, "not as it was written" in result.stderr) == (65, True), result.output
    assert not (tmp_path / "b").exists()


def test_another_baseline_is_another_run(two: tuple[object, ...], other_model: Path, tmp_path: Path) -> None:
    assert command(*two, tmp_path / "a").exit_code == 0
    before = (tmp_path / "b" / "run.json").read_bytes()
    assert command(*two, tmp_path / "a").exit_code == 0
    (tmp_path / "a").rename(tmp_path / "moved")  # the same results elsewhere
    (tmp_path / "a").symlink_to(tmp_path / "moved")
    assert command(*two, tmp_path / "a").exit_code == 0
    assert (tmp_path / "b" / "run.json").read_bytes() == before  # nothing was done
    run_score(tmp_path / "reviews.csv", other_model, tmp_path / "moved", force=True)
    again = command(*two, tmp_path / "a")
    assert (again.exit_code, "--force" in again.stderr) == (73, True)
    assert command(*two[:-1]).exit_code == 73


def test_a_killed_run_goes_on_under_other_gates_and_another_baseline(
    two: tuple[object, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Finish, "run", lambda *_: (_ for _ in ()).throw(OutputError("killed")))
        assert command(*two[:-1], "--fail-below", "accuracy=0.1").exit_code == 73
    (part,) = (tmp_path / "b" / ".staging").glob("*/parts/*.arrow")
    staged = part.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(Finish, "run", lambda *_: (_ for _ in ()).throw(OutputError("killed")))
        assert command(*two, tmp_path / "a", "--fail-above", "ece=0.9").exit_code == 73
    assert part.stat().st_mtime_ns == staged
    assert command(*two, tmp_path / "a", "--no-text").exit_code == 0
    assert metrics(tmp_path / "b")["comparison"]["changed"] == 0
    work = json.loads((tmp_path / "b" / "run.json").read_bytes())
    assert work["work"]["tokens"] > 0
    assert work["seconds"] > work["work"]["scoring_seconds"] > 0


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_slice_columns_are_the_same_in_every_format(
    kind: str, table: pd.DataFrame, tiny_bundle: Path, tmp_path: Path
) -> None:
    path, rows = tmp_path / f"reviews.{kind}", table.head(30).rename(columns={"shop": "file"})
    rows = rows.astype({"stars": int}).assign(truncated_by="x<y>")
    if kind == "parquet":
        rows.to_parquet(path, index=False)
    elif kind == "csv":
        rows.to_csv(path, index=False)
    else:
        rows.to_json(path, orient="records", lines=True)
    arguments = ["--slice-column", "file", "--slice-column", "stars", "--slice-column", "truncated_by"]
    done = command("score", path, "--model", tiny_bundle, "--output", tmp_path / "run", *arguments)
    assert done.exit_code == 0, done.output
    slices = {(each["column"], each["value"]): each["rows"] for each in metrics(tmp_path / "run")["slices"]}
    null = "" if kind == "csv" else "(null)"
    assert {(c, v): n for (c, v), n in slices.items() if c not in {"n_tokens", "truncated"}} == {
        ("file", path.name): 30,
        ("file (input)", "eu"): 10,
        ("file (input)", "us"): 10,
        ("file (input)", null): 10,
        **{("stars", str(k)): 8 if k < 2 else 7 for k in range(4)},
        ("truncated_by", "x<y>"): 30,
    }


def test_a_slice_column_that_is_not_there_is_refused(
    table: pd.DataFrame, tiny_bundle: Path, tmp_path: Path
) -> None:
    table.head(5).to_json(tmp_path / "r.jsonl", orient="records", lines=True)
    table.head(5).to_csv(tmp_path / "r.csv", index=False)
    for name in ("r.jsonl", "r.csv"):
        done = command(
            "score",
            tmp_path / name,
            "--model",
            tiny_bundle,
            "--output",
            tmp_path / "run",
            "--slice-column",
            "shp",
        )
        assert (done.exit_code, "Did you mean shop?" in done.stderr) == (65, True), done.output
        assert not (tmp_path / "run").exists()


def test_a_gate_over_its_limit_is_exit_3_and_the_first_line_of_the_page(
    two: tuple[object, ...], tmp_path: Path
) -> None:
    failed = command(
        *two, tmp_path / "a", "--fail-above", "ece=0.001", "--fail-above", "drift=0.2", "--no-text"
    )
    assert (failed.exit_code, "ece is" in failed.stderr) == (3, True), failed.output
    ece = metrics(tmp_path / "b")["calibration"]["ece"]
    headline = f"<h1>A quality gate failed: ece is {ece:.2%}, {(ece - 0.001) * 100:.1f} points over its limit of 0.10%.</h1>"
    assert headline in page(tmp_path / "b")
    assert command("verify", tmp_path / "b").exit_code == 0
    first = pd.read_csv(tmp_path / "reviews.csv").text[0]
    assert first[:60] not in page(tmp_path / "b")
    assert "Their texts were left out" in page(tmp_path / "b")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--fail-above", "accuracy=0.9"], "--fail-below accuracy=0.9"),
        (["--fail-below", "ece=0.05"], "--fail-above ece=0.05"),
        (["--fail-above", "drift=0.2"], "--baseline"),
    ],
)
def test_a_gate_on_the_wrong_side_is_wrong_usage(
    two: tuple[object, ...], tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = command(*two[:-1], *arguments)
    assert (done.exit_code, message in done.stderr) == (2, True), done.output
    assert not (tmp_path / "b").exists()
