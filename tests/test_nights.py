"""Which night a run is for, what a night that was refused leaves behind, and what the trend says of days without a run."""

from __future__ import annotations

import datetime
import json
import time
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import run_score
from report_samples import held_against, metrics, rows, write_run
from test_reports import Page

from batchscore import cli
from batchscore.errors import BatchscoreError, BusyError, NoInputError, NothingToDoError, UsageError
from batchscore.inbox.housekeeping import old_runs, remove_run
from batchscore.reports.nights import LONG_GAP, Night, State
from batchscore.runs.dates import date_of_path, date_of_run
from batchscore.runs.folder import NOTE
from batchscore.runs.inspection import verify
from batchscore.runs.nights import read_nights
from batchscore.runs.refusals import read_refusal
from batchscore.runs.trend import Trend, write_trend
from batchscore.system.locks import locked

NOW = datetime.datetime(2026, 11, 26, 9, 0, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
TODAY = NOW.date()
GATED = held_against(metrics(rows(2_000)), metrics(rows(2_000)), ["accuracy=0.85"]) | {"slices": []}
UNGATED = GATED | {"gates": []}


def finish(folder: Path, when: datetime.datetime = NOW, found: dict[str, Any] = GATED, **more: Any) -> None:
    write_run(folder, found, when, **more)


def trend(folder: Path, until: datetime.date | None = None) -> tuple[Trend, dict[str, Any], Page]:
    """The trend written at ``NOW``, what its JSON says, and its page."""
    done = write_trend(folder, until=until, now=NOW)
    return done, json.loads(done.data.read_bytes()), Page(done.page.read_text(encoding="utf-8"))


def states(folder: Path, until: datetime.date | None = None) -> list[tuple[str, State]]:
    return [(night.date.isoformat(), night.state) for night in read_nights(folder, until, TODAY).shown]


# --- the date of a night


@pytest.mark.parametrize(
    ("path", "date"),
    [
        ("2026-11-23", "2026-11-23"),
        ("2026-11-23/reviews.csv-0123456789abcdef", "2026-11-23"),
        ("20261123", "2026-11-23"),
        ("2026_11_23", "2026-11-23"),
        ("day=2026-11-23/eu", "2026-11-23"),
        ("2026-11-22/2026-11-23", "2026-11-23"),
        ("reviews-2019-03-01.csv-0123456789abcdef", None),
        ("reviews.csv-2019030100000000", None),
        ("2026-11-23-again", None),
        ("2026-1123", None),
        ("20261332", None),
        ("20190301000000", None),
    ],
)
def test_a_date_is_a_whole_name_and_nothing_inside_one(path: str, date: str | None) -> None:
    found = date_of_path(PurePath(path))
    assert (found.isoformat() if found else None) == date


def test_folders_far_above_a_run_do_not_date_it() -> None:
    assert date_of_run(PurePath("/backup/2020-01-01/runs/today")) is None
    assert date_of_run(PurePath("/runs/2026-11-23/eu")) == datetime.date(2026, 11, 23)


def test_a_night_is_for_the_date_of_its_folder_then_of_its_option_then_of_its_finish(tmp_path: Path) -> None:
    late = datetime.datetime(2026, 11, 25, 0, 40, tzinfo=datetime.timezone(datetime.timedelta(hours=9)))
    finish(tmp_path / "2026-11-20" / "a", late, date="2026-11-21")
    finish(tmp_path / "b", late, date="2026-11-22")
    finish(tmp_path / "c", late)  # in UTC it was still the 24th
    dates = {night.path: night.date.day for night in read_nights(tmp_path, TODAY, TODAY).shown if night.path}
    assert dates == {"2026-11-20/a": 20, "b": 22, "c": 25}


def test_the_date_of_a_run_is_kept_and_one_that_its_folder_denies_is_refused(
    tmp_path: Path, tiny_bundle: Path
) -> None:
    (tmp_path / "r.csv").write_text("text,label\nGood.,POSITIVE\n", encoding="utf-8")
    command = ["score", str(tmp_path / "r.csv"), "--model", str(tiny_bundle), "--quiet"]

    def call(output: str, *more: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli.main, [*command, "--output", str(tmp_path / output), *more])
        return done.exit_code, done.stderr

    assert call("runs/eu", "--date", "2026-11-23")[0] == 0
    facts = json.loads((tmp_path / "runs" / "eu" / "run.json").read_bytes())
    assert facts["date"] == "2026-11-23"
    finished = datetime.datetime.fromisoformat(facts["finished"])
    assert finished.utcoffset() == datetime.datetime.now().astimezone().utcoffset()
    assert states(tmp_path / "runs", datetime.date(2026, 11, 23)) == [("2026-11-23", State.UNGATED)]
    code, said = call("runs/2026-11-24", "--date", "2026-11-23")
    assert (code, "--date 2026-11-23 but --output" in said) == (2, True)
    assert call("runs/eu", "--date", "2026-11-24")[0] == 73  # finished, but for another night
    assert call("runs/2026-11-25")[0] == call("runs/2026-11-25", "--date", "2026-11-25")[0] == 0
    assert call("x", "--date", "23.11.2026")[0] == 2


# --- days without a run


def test_a_scheduler_that_died_is_the_headline(tmp_path: Path) -> None:
    for day in (17, 18, 19):
        finish(tmp_path / f"2026-11-{day}", NOW.replace(day=day))
    done, told, page = trend(tmp_path)
    assert done.headline == "No run since 19 November 2026: 7 nights are missing."
    assert '<header class="bad">' in done.page.read_text(encoding="utf-8")
    assert told["states"]["missing"] == 7
    assert [night["date"] for night in told["nights"][-7:]] == [f"2026-11-{day}" for day in range(20, 27)]
    assert "written 26 November 2026, 09:00" in page.text
    assert "The last night that left anything" in page.text


def test_a_report_counts_up_to_the_day_that_is_asked_for(tmp_path: Path) -> None:
    for day in (17, 18, 19):
        finish(tmp_path / f"2026-11-{day}", NOW.replace(day=day))
    assert trend(tmp_path, datetime.date(2026, 11, 19))[0].headline.startswith("19 November 2026: it ran")
    told = trend(tmp_path, datetime.date(2026, 11, 20))[0]
    assert told.headline == "No run since 19 November 2026: 1 night is missing."
    early, numbers, _ = trend(tmp_path, datetime.date(2026, 11, 18))
    assert early.headline.startswith("18 November 2026")
    assert [night["path"] for night in numbers["misdated"]] == ["2026-11-19"]
    command = ["report", str(tmp_path), "--until", "2026-11-21", "--json"]
    done = CliRunner().invoke(cli.main, command)
    assert json.loads(done.stdout)["headline"] == "No run since 19 November 2026: 2 nights are missing."


def test_today_may_still_come(tmp_path: Path) -> None:
    finish(tmp_path / "2026-11-25", NOW.replace(day=25))
    done, _, _ = trend(tmp_path)
    assert done.headline.startswith("No run yet on 26 November 2026. The last one, 25 November 2026: it ran")
    assert '<header class="look">' in done.page.read_text(encoding="utf-8")


def test_where_the_day_begins_earlier_a_run_may_be_of_tomorrow(tmp_path: Path) -> None:
    finish(tmp_path / "2026-11-26", NOW)
    finish(tmp_path / "2026-11-27", NOW)
    assert states(tmp_path) == [("2026-11-26", State.USUAL), ("2026-11-27", State.USUAL)]


def test_a_date_in_the_name_of_a_file_misses_no_night(tmp_path: Path) -> None:
    finish(tmp_path / "2026-11-25", NOW.replace(day=25))
    (tmp_path / "2026-11-26" / "reviews-2019-03-01.csv-9999123100010101" / ".staging").mkdir(parents=True)
    assert states(tmp_path) == [("2026-11-25", State.USUAL), ("2026-11-26", State.UNFINISHED)]


@pytest.mark.parametrize(
    "odd",
    [
        ["2019-03-01"],
        ["0001-01-01", "9999-12-31"],
        ["9999-12-31"],
        [f"{year}-06-01" for year in range(1001, 2026, 3)],
        [f"{1975 + k // 3}-{1 + 4 * (k % 3):02}-01" for k in range(150)],
    ],
    ids=["seven years ago", "the years 1 and 9999", "the year 9999", "a thousand years", "every four months"],
)
def test_strange_dates_are_told_and_not_drawn(odd: list[str], tmp_path: Path) -> None:
    for name in odd:
        (tmp_path / name / ".staging").mkdir(parents=True)
    for day in range(1, 27):
        finish(tmp_path / f"2026-11-{day:02}", NOW.replace(day=day), GATED)
    started = time.monotonic()
    done, told, page = trend(tmp_path)
    assert time.monotonic() - started < 20  # 1 s on a machine that does nothing else
    assert done.page.stat().st_size < 250_000
    assert done.data.stat().st_size < 250_000
    assert done.headline == "26 November 2026: it ran as usual and passed its gates."
    assert len(told["earlier"]) + len(told["misdated"]) >= len(odd) - 1
    assert done.nights == len(odd) + 26
    assert "Earlier runs" in page.text or "Runs with a date that cannot be meant" in page.text


@pytest.mark.parametrize("until", [datetime.date.min, datetime.date(9999, 12, 30), datetime.date.max])
def test_a_report_up_to_a_strange_day_is_no_fault(until: datetime.date, tmp_path: Path) -> None:
    for name in ("2026-11-26", "9999-12-31"):
        finish(tmp_path / name)
    done, _, _ = trend(tmp_path, until)
    assert done.page.stat().st_size < 100_000


def test_only_dates_that_cannot_be_meant_are_a_page_too(tmp_path: Path) -> None:
    finish(tmp_path / "9999-12-31")
    done, told, page = trend(tmp_path)
    assert done.headline == "There is no run up to 26 November 2026."
    assert (told["first"], told["nights"], len(told["misdated"])) == (None, [], 1)
    assert "9999-12-31" in page.text


@pytest.mark.parametrize("days", [LONG_GAP + 1, LONG_GAP + 2, 2000])
def test_a_long_gap_is_one_line(days: int, tmp_path: Path) -> None:
    first = TODAY - datetime.timedelta(days=days)
    finish(tmp_path / first.isoformat())
    finish(tmp_path / TODAY.isoformat())
    _, told, page = trend(tmp_path)
    assert told["states"]["missing"] == days - 1
    is_long = days - 1 > LONG_GAP
    assert len(told["nights"]) == (1 if is_long else days + 1)
    assert [gap["nights"] for gap in told["gaps"]] == [days - 1] * is_long
    assert (f"no run for {days - 1:,} nights" in page.text) == is_long
    assert len(told["earlier"]) == is_long


def test_a_scheduler_that_died_long_ago_draws_no_years(tmp_path: Path) -> None:
    finish(tmp_path / "2019-03-01")
    done, told, page = trend(tmp_path)
    assert done.headline == "No run since 1 March 2019: 2,827 nights are missing."
    assert len(told["nights"]) == 1
    assert "2 March 2019 to 26 November 2026: no run for 2,827 nights" in page.text


# --- nights that nobody judged


def test_a_night_without_a_gate_is_not_green(tmp_path: Path) -> None:
    finish(tmp_path / "2026-11-26", found=UNGATED)
    done, _, page = trend(tmp_path)
    text = done.page.read_text(encoding="utf-8")
    assert done.headline == "26 November 2026: it ran; no gate on quality is set."
    assert '<header class="plain">' in text
    assert 'class="night-ungated"' in text
    assert 'class="good"' not in text
    assert "--fail-below accuracy=" in page.text


def test_a_gate_on_rows_is_none_on_quality(tmp_path: Path) -> None:
    finish(tmp_path / "a", found=held_against(UNGATED, UNGATED, ["null_text=5%"]))
    finish(tmp_path / "b", found=held_against(UNGATED, UNGATED, ["null_text=5%", "ece=0.5"]))
    assert [state for _, state in states(tmp_path)] == [State.UNGATED, State.USUAL]


def test_a_night_on_which_not_one_row_was_scored_deserves_a_look(tmp_path: Path) -> None:
    finish(tmp_path / "2026-11-26", found=metrics(rows(0)))
    done, _, _ = trend(tmp_path)
    assert done.headline == "26 November 2026: it ran, but not one row was scored."
    assert '<header class="look">' in done.page.read_text(encoding="utf-8")


def test_unknown_labels_are_followed(tmp_path: Path) -> None:
    half = UNGATED | {"counts": UNGATED["counts"] | {"unknown_label": 900}}
    finish(tmp_path / "2026-11-26", found=half)
    (night,) = read_nights(tmp_path, TODAY, TODAY).shown
    assert night.values["unknown_label"].value == 900 / half["counts"]["read"]
    assert "900 with a label that the model does not know" in trend(tmp_path)[2].text


@pytest.mark.parametrize(
    ("claim", "value"),
    [
        (None, None),
        ({"verdict": "cannot tell", "wrong_labels": None}, None),
        ({"verdict": "labels", "wrong_labels": {"value": 80.0, "low": 60.0, "high": 100.0}}, 0.04),
        ({"verdict": "none", "wrong_labels": {"value": 0.0, "low": 0.0, "high": 20.0}}, 0.0),
    ],
)
def test_only_wrong_labels_that_were_claimed_are_followed(
    claim: dict[str, Any] | None, value: float | None, tmp_path: Path
) -> None:
    issues = {"labelled": 2000, "estimated_wrong_labels": 500, "claim": claim}
    finish(tmp_path / "a", found=UNGATED | {"label_issues": issues})
    (night,) = read_nights(tmp_path, TODAY, TODAY).shown
    found = night.values.get("wrong_labels")
    assert (found.value if found else None) == value


# --- nights that were refused


def refused(call: Callable[[], object], error: type[BatchscoreError]) -> None:
    with pytest.raises(error):
        call()


def only_night(runs: Path) -> Night:
    (night,) = (night for night in read_nights(runs, TODAY, TODAY).shown if night.path)
    return night


@pytest.fixture
def reviews_csv(tmp_path: Path) -> Path:
    path = tmp_path / "reviews.csv"
    path.write_text("id,text,label\n1,Good.,POSITIVE\n2,Bad.,NEGATIVE\n", encoding="utf-8")
    return path


def no_input(reviews: Path) -> None:
    reviews.unlink()


def bad_data(reviews: Path) -> None:
    reviews.write_text("text,label\nGood.,7\n", encoding="utf-8")


def no_model(reviews: Path) -> Path:
    return reviews.with_name("no model")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (no_input, (66, State.NO_INPUT, "No such input", "there was no input")),
        (bad_data, (65, State.REFUSED, "bad data", "the run was refused")),
        (no_model, (78, State.REFUSED, "the model", "the run was refused")),
    ],
)
def test_a_night_that_was_refused_says_why_until_it_has_run(
    spoil: Callable[[Path], Path | None],
    expected: tuple[int, State, str, str],
    reviews_csv: Path,
    tiny_bundle: Path,
    tmp_path: Path,
) -> None:
    code, state, why, words = expected
    content, run = reviews_csv.read_bytes(), tmp_path / "runs" / TODAY.isoformat()
    model = spoil(reviews_csv) or tiny_bundle
    for _ in range(2):  # again does no harm
        with pytest.raises(BatchscoreError) as caught:
            run_score(reviews_csv, model, run)
        assert caught.value.exit_code == code
        assert [path.name for path in run.iterdir()] == [NOTE]
    night = only_night(tmp_path / "runs")
    assert (night.state, night.date, why in night.problem) == (state, TODAY, True)
    done, _, page = trend(tmp_path / "runs")
    assert done.headline == f"26 November 2026: {words}."
    assert why in page.text
    reviews_csv.write_bytes(content)
    run_score(reviews_csv, tiny_bundle, run)
    assert not (run / NOTE).exists()
    assert verify(run)["kind"] == "run"
    assert only_night(tmp_path / "runs").state is State.UNGATED


def test_a_run_that_is_skipped_leaves_a_note_that_is_no_alarm(tiny_bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / TODAY.isoformat()
    refused(lambda: run_score(tmp_path / "none.csv", tiny_bundle, run, skip_empty=True), NothingToDoError)
    assert only_night(tmp_path / "runs").state is State.SKIPPED
    done, _, _ = trend(tmp_path / "runs")
    assert '<header class="plain">' in done.page.read_text(encoding="utf-8")


def test_the_option_makes_a_night_of_a_folder_without_a_date(tiny_bundle: Path, tmp_path: Path) -> None:
    absent = tmp_path / "none.csv"
    refused(lambda: run_score(absent, tiny_bundle, tmp_path / "by-hand"), NoInputError)
    assert not (tmp_path / "by-hand").exists()
    date = datetime.date(2026, 11, 20)
    refused(lambda: run_score(absent, tiny_bundle, tmp_path / "runs" / "eu", date=date), NoInputError)
    assert only_night(tmp_path / "runs").date == date


def test_no_note_where_it_would_be_in_somebodys_way(
    reviews_csv: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    day, absent = TODAY.isoformat(), tmp_path / "none.csv"
    finished, foreign, held, usage = (tmp_path / name / day for name in "abcd")
    run_score(reviews_csv, tiny_bundle, finished)
    foreign.mkdir(parents=True)
    (foreign / "thesis.docx").write_text("mine")
    held.mkdir(parents=True)
    for folder in (finished, foreign):
        before = sorted(path.name for path in folder.iterdir())
        refused(lambda folder=folder: run_score(absent, tiny_bundle, folder), NoInputError)  # type: ignore[misc]
        assert sorted(path.name for path in folder.iterdir()) == before
    with locked(held):
        refused(lambda: run_score(absent, tiny_bundle, held), BusyError)
    assert not any(held.iterdir())
    drift = {"fail_above": ("drift=0.1",)}
    refused(lambda: run_score(reviews_csv, tiny_bundle, usage, **drift), UsageError)
    refused(lambda: run_score(absent, tiny_bundle, usage, dry_run=True), NoInputError)
    assert not usage.exists()


def test_a_note_does_not_outlive_the_start_of_a_run_that_is_killed(
    reviews_csv: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / TODAY.isoformat()
    refused(lambda: run_score(tmp_path / "none.csv", tiny_bundle, run), NoInputError)
    assert read_refusal(run) is not None
    with monkeypatch.context() as patch:
        patch.setattr("batchscore.runs.run.Finish.run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run_score(reviews_csv, tiny_bundle, run)
    assert read_refusal(run) is None
    assert only_night(tmp_path / "runs").state is State.UNFINISHED
    run_score(reviews_csv, tiny_bundle, run)
    assert verify(run)["kind"] == "run"


def test_a_failed_file_of_a_drop_folder_is_a_night_that_was_refused(
    reviews_csv: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    bad_data(reviews_csv)
    (tmp_path / "in").mkdir()
    reviews_csv.rename(tmp_path / "in" / "reviews.csv")
    command = ["inbox", str(tmp_path / "in"), "--output", str(tmp_path / "runs"), "--model", str(tiny_bundle)]
    done = CliRunner().invoke(cli.main, [*command, "--settle", "0", "--quiet"])
    assert done.exit_code == 65, done.output
    nights = [night for night in read_nights(tmp_path / "runs").shown if night.path]
    assert [night.state for night in nights] == [State.REFUSED]
    again = CliRunner().invoke(cli.main, [*command, "--settle", "0", "--skip-empty"])
    assert again.exit_code == 99


def test_old_notes_are_removed_and_what_looks_like_one_stays(tiny_bundle: Path, tmp_path: Path) -> None:
    run = tmp_path / "2026-11-20"
    refused(lambda: run_score(tmp_path / "none.csv", tiny_bundle, run), NoInputError)
    theirs = tmp_path / "2026-11-21" / NOTE
    theirs.parent.mkdir()
    theirs.write_text('{"exit_code": 66, "reason": "by hand"}')
    later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=10)
    assert old_runs(tmp_path, 5, later) == [run]
    assert remove_run(run, tmp_path) == []
    assert not run.exists()
    assert theirs.exists()


def test_a_note_that_is_not_ours_is_an_unfinished_night(tmp_path: Path) -> None:
    for day, text in ((20, "{"), (21, "[]"), (22, '{"exit_code": 66, "reason": 1, "at": "", "date": ""}')):
        (tmp_path / f"2026-11-{day}").mkdir()
        (tmp_path / f"2026-11-{day}" / NOTE).write_text(text)
    found = [state for _, state in states(tmp_path, datetime.date(2026, 11, 22))]
    assert found == [State.UNFINISHED] * 3
