"""The pages: what they say, that nothing on them runs, and the trend over many nights."""

from __future__ import annotations

import dataclasses
import datetime
import functools
import html.parser
import json
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import naughty
import numpy as np
import pytest
from click.testing import CliRunner
from report_samples import (
    LABELS,
    Rows,
    comparison,
    facts,
    held_against,
    held_out,
    metrics,
    mismatch,
    rows,
    unlabelled,
    write_run,
)

from batchscore import cli
from batchscore.errors import NoInputError, UsageError
from batchscore.evaluation import claim_wrong_labels
from batchscore.evaluation.wrong_labels import GOT_WORSE
from batchscore.reports import answers, formats, render_run, run_tables, verdict
from batchscore.reports.nights import State
from batchscore.reports.row_groups import groups_of
from batchscore.reports.written_files import WrittenFile
from batchscore.runs.nights import read_nights
from batchscore.runs.trend import write_trend

DAY = datetime.timedelta(days=1)
FIRST = datetime.datetime(2025, 11, 8, 3, 20, tzinfo=datetime.UTC)
LAST = datetime.date(2026, 11, 7)


class Page(html.parser.HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        self.tags.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.text += data

    def check_harmless(self) -> None:
        assert not set(self.tags) & {
            "script",
            "iframe",
            "object",
            "img",
            "image",
            "link",
            "base",
            "form",
            "foreignobject",
        }
        for tag, name, value in self.attributes:
            assert not name.startswith("on"), (tag, name)
            assert name not in {"src", "srcset", "xlink:href", "action", "formaction", "srcdoc"}, (tag, name)
            assert name != "href" or ":" not in value, value
            assert "url(" not in value, value


@functools.cache
def sample(seed: int = 1, sharpness: float = 2.2) -> tuple[Rows, dict[str, Any]]:
    found = rows(20_000, seed=seed, sharpness=sharpness)
    trained = held_out(sharpness=sharpness)
    return found, metrics(found, files=("eu.csv", "us.csv"), trained=trained)


def worst() -> list[dict[str, Any]]:
    return [mismatch(f"Review {k}.<br /><br />It is good.", row=k, id=f"r{k}") for k in range(50)]


@functools.cache
def full_page() -> str:
    (_, found), (_, before) = sample(), sample(seed=2, sharpness=2.6)
    judged = held_against(found, before, ["accuracy=0.92", "null_text=1%"])
    return render_run(facts(), judged, worst(), before)


# --- the page of a run


def test_a_page_has_no_script_no_request_and_stays_small() -> None:
    page = Page(full_page())
    page.check_harmless()
    assert "http" not in full_page().replace('http-equiv="Content-Security-Policy"', "")
    assert "default-src 'none'" in full_page()
    assert "@import" not in full_page()
    assert "url(" not in full_page()
    assert len(full_page()) < 200_000


def test_every_chart_says_what_it_shows() -> None:
    page = full_page()
    assert page.count("<svg ") == 4
    assert page.count('role="img" aria-label="') == 4
    assert page.count("<desc>") == 4
    assert 'fill="#' not in page  # colours are the page's, so that a chart follows it into the dark


def test_the_first_line_says_which_gate_failed_and_by_how_much() -> None:
    accuracy = sample()[1]["quality"]["accuracy"]["value"]
    assert (
        f"<h1>A quality gate failed: accuracy is {accuracy:.2%}, {(0.92 - accuracy) * 100:.1f} points under its limit of 92%.</h1>"
        in full_page()
    )
    assert 'null text</bdi></th><td class="t good"><bdi>passed' in full_page()


def test_a_worse_model_is_told_from_chance() -> None:
    before, found = sample()
    p, n = before.predictions, len(before.given)
    turned = (np.random.default_rng(5).random(n) < 0.02) & (p.predicted >= 0)
    probabilities = np.where(turned[:, None], p.probabilities[:, ::-1], p.probabilities)
    predicted = np.where(turned, 1 - p.predicted, p.predicted).astype(np.int32)
    after = Rows(before.given, dataclasses.replace(p, probabilities=probabilities, predicted=predicted))
    changed = metrics(after) | {"comparison": comparison(before, after)}
    judged = verdict.judge(changed, found)
    assert judged.level is answers.Level.LOOK
    assert "accuracy on the same rows is worse than in the earlier run: " in judged.headline
    assert "McNemar" in render_run(facts(), changed, [], found)
    same = verdict.judge(found | {"comparison": comparison(before, before)}, found)
    assert same.level is answers.Level.GOOD
    assert "as good as in the earlier run" in same.headline


def told_of_labels(found: dict[str, Any]) -> answers.Answer:
    return verdict.judge(found).answers[-1]


def test_wrong_labels_are_counted_where_the_models_own_reliability_bears_it_out() -> None:
    found, wrong = sample()[1], sample()[1]["label_issues"]["claim"]["wrong_labels"]
    answer = told_of_labels(found)
    assert answer.level is answers.Level.LOOK
    assert answer.answer.startswith(f"Some labels are wrong: about {round(wrong['value'])} of 19,949 (")
    assert wrong["low"] < 200 < wrong["high"]  # a hundredth of the labels was turned
    assert "; from its 4,987 held-out rows one would expect " in answer.answer
    assert "Check the first rows" in answer.answer


def test_labels_that_agree_with_the_models_reliability_are_not_blamed() -> None:
    usual = metrics(rows(4_000, noise=0.0), trained=held_out())
    answer = told_of_labels(usual)
    assert answer.level is answers.Level.PLAIN
    assert answer.answer.startswith("It is the model, as far as can be told. The model disagrees with ")
    assert "That leaves no sign of wrong labels (at most " in answer.answer
    assert "look wrong" not in render_run(facts(), usual, worst())


def test_of_a_model_whose_reliability_was_never_measured_no_label_is_called_wrong() -> None:
    unmeasured = metrics(sample()[0])
    assert told_of_labels(unmeasured).answer == (
        "It cannot be told: how often this model is wrong at each confidence was never measured."
    )
    without = {key: value for key, value in unmeasured["label_issues"].items() if key != "claim"}
    assert "was not looked at" in told_of_labels(unmeasured | {"label_issues": without}).answer


def test_the_list_is_of_what_is_worth_checking_and_nothing_more() -> None:
    page = render_run(facts(), sample()[1], worst())
    assert ">Worth checking first</h2>" in page
    assert '<span class="check">worth checking first</span>' in page
    for claim in (
        "label in doubt",
        "likeliest label errors",
        "look wrong",
        "accuracy would be",
        "most doubtful",
    ):
        assert claim not in page


def test_labels_are_not_judged_by_a_model_that_guesses() -> None:
    given, guessing = np.random.default_rng(0).integers(0, 2, 400), rows(400)
    found = metrics(Rows(given, guessing.predictions), trained=held_out())
    assert told_of_labels(found).answer.startswith("It cannot be told: ")
    turned = metrics(Rows(1 - rows(400).given, guessing.predictions), trained=held_out())
    assert "agree no better than chance" in told_of_labels(turned).answer


def test_answers_that_got_worse_on_the_same_rows_are_no_mistake_of_the_labels() -> None:
    before = rows(4_000, noise=0.0)
    after = cut(before)
    changed = metrics(after, trained=held_out())
    compared = comparison(before, after) | {"same_model": True}
    claim = claim_wrong_labels(changed["reliability"], held_out(), 2, compared)
    assert (claim.verdict, claim.why) == ("model", GOT_WORSE)
    changed |= {"comparison": compared}
    changed["label_issues"] |= {"claim": claim.to_json()}
    answer = told_of_labels(changed)
    assert f"{compared['broken']:,} answers are wrong that were right in the earlier run" in answer.answer
    assert "The model is the same: look at the texts." in answer.answer
    assert answer.level is answers.Level.LOOK


def cut(sample: Rows) -> Rows:
    """The same rows as a model sees half of them that has little to go by: answers that are still sure, and often wrong."""
    p, rng = sample.predictions, np.random.default_rng(8)
    turned = (rng.random(len(sample.given)) < 0.1) & (p.predicted >= 0)
    probabilities = np.where(turned[:, None], p.probabilities[:, ::-1], p.probabilities)
    predicted = np.where(turned, 1 - p.predicted, p.predicted).astype(np.int32)
    return Rows(sample.given, dataclasses.replace(p, probabilities=probabilities, predicted=predicted))


@pytest.mark.parametrize(("share", "level"), [(0.0, "good"), (0.005, "good"), (0.05, "look")])
def test_labels_that_are_others_than_in_the_earlier_run_are_told_at_the_head(
    share: float, level: str
) -> None:
    """Accuracy on the same rows is under the same labels: it does not fall when these are turned."""
    before, n = rows(4_000, noise=0.0), 4_000
    turned = np.arange(n) < share * n
    after = Rows(np.where(turned, 1 - before.given, before.given), before.predictions)
    compared = comparison(before, after)
    earlier, found = metrics(before), metrics(after) | {"comparison": compared}
    judged = verdict.judge(found, earlier)
    assert (judged.level.value, judged.answers[1].level.value) == (level, level)
    assert ("rows have another label than then" in judged.headline) == (level == "look")
    own = formats.percent(earlier["quality"]["accuracy"]["value"])
    assert (f"which had an accuracy of {own} under its own" in judged.answers[1].answer) == (share > 0)


# --- what is called good, and why


def levels(found: dict[str, Any], before: dict[str, Any] | None = None) -> tuple[str, str]:
    """The colour of the page's head, and of what it says about quality."""
    judged = verdict.judge(found, before)
    quality = next(a for a in judged.answers if a.question in {"How good is it?", "Is it as good as before?"})
    assert f'<header class="{judged.level.value}">' in render_run(facts(), found, [], before)
    return judged.level.value, quality.level.value


def right(share: float, n: int, n_labels: int = 2) -> dict[str, Any]:
    """``n`` rows of which this share is right, the labels evenly spread."""
    predictions = rows(n, n_labels=n_labels, seed=5).predictions
    predicted = np.maximum(predictions.predicted, 0)
    wrong = (predicted + 1 + np.arange(n) % (n_labels - 1)) % n_labels
    given = np.where(np.arange(n) < share * n, predicted, wrong)
    return metrics(Rows(given, predictions), labels=[f"L{k}" for k in range(n_labels)])


@pytest.mark.parametrize(("share", "n_labels"), [(0.95, 2), (0.41, 5)])
def test_without_a_gate_or_an_earlier_run_nothing_is_green(share: float, n_labels: int) -> None:
    found = right(share, 2000, n_labels)
    assert levels(found) == ("plain", "plain")
    judged = verdict.judge(found)
    assert judged.headline.endswith("No gate says whether that is good enough.")
    told = judged.answers[1].answer
    assert "--fail-below accuracy=X sets a gate" in told
    assert "--baseline RUN_DIR compares" in told


def test_worse_than_always_saying_the_commonest_label_is_told_at_the_head() -> None:
    found = right(0.07, 2000)
    assert levels(found) == ("look", "look")
    judged = verdict.judge(found)
    assert "is worse than always saying L" in judged.headline
    assert "--label-map" in judged.answers[1].answer
    gated = held_against(found, found, ["accuracy=0.05"])
    assert levels(gated) == ("look", "look")


@pytest.mark.parametrize(
    ("gates", "n", "expected"),
    [
        (["accuracy=0.85"], 2000, ("good", "good")),
        (["accuracy=0.85", "ece=0.9"], 2000, ("good", "good")),
        (["null_text=5%"], 2000, ("plain", "plain")),
        (["drift=9"], 2000, ("plain", "plain")),
        (["accuracy=0.85"], 20, ("plain", "plain")),
        (["accuracy=0.99"], 2000, ("bad", "plain")),
    ],
    ids=["a gate", "two gates", "of rows", "of drift", "on 20 rows", "failed"],
)
def test_only_a_gate_on_quality_that_passed_on_enough_rows_is_green(
    gates: list[str], n: int, expected: tuple[str, str]
) -> None:
    found = right(0.95, n)
    assert levels(held_against(found, found, gates)) == expected


def test_a_gate_that_passed_is_said_with_its_margin() -> None:
    found = right(0.95, 2000)
    judged = verdict.judge(held_against(found, found, ["accuracy=0.85"]))
    value = found["quality"]["accuracy"]["value"]
    assert f"Its gate passed: accuracy is {value:.2%}, 10.0 points over its limit of 85%." in judged.headline
    assert "--fail-below" not in judged.answers[1].answer


@pytest.mark.parametrize(
    ("error", "expected"), [(0.012, "good"), (None, "plain")], ids=["calibrated", "never measured"]
)
def test_an_estimate_is_green_only_under_a_gate_and_with_honest_probabilities(
    error: float | None, expected: str
) -> None:
    found = metrics(unlabelled(sample()[0]))
    found["expected_accuracy"]["calibration_error"] = error
    assert levels(found) == ("plain", "plain")
    assert levels(held_against(found, found, ["expected_accuracy=0.8"]))[1] == expected
    told = verdict.judge(found).answers[1].answer
    assert ("never measured" in told) == (error is None)


def test_estimates_that_agree_are_not_called_as_good() -> None:
    found = metrics(unlabelled(sample()[0]))
    assert levels(found, found)[1] == "plain"
    assert "as good as" not in verdict.judge(found, found).headline


@pytest.mark.parametrize(
    ("n", "words", "level"), [(3, "neither clearly", "plain"), (4000, "as good as", "good")]
)
def test_three_rows_are_not_as_good_as_before(n: int, words: str, level: str) -> None:
    for found, before in ((right(1.0, n), right(1.0, n)), (right(0.9, n), right(0.9, n))):
        judged = verdict.judge(found, before)
        assert words in judged.headline
        assert judged.answers[1].level.value == level
    same = rows(n)
    paired = metrics(same) | {"comparison": comparison(same, same)}
    assert words in verdict.judge(paired, metrics(same)).headline


def test_rows_without_a_known_label_and_rejects_are_told_at_the_head() -> None:
    found = sample()[1]
    values = {f"{k} stars": 700 - k for k in range(7)} | {"x" * 90 + "\u202e": 40}
    counts = found["counts"] | {"unknown_label": 4_700, "rejects": 12}
    judged = verdict.judge(
        found | {"counts": counts, "unknown_labels": {"eu.csv": values, "us.csv": {"0 stars": 9}}}
    )
    assert judged.level is answers.Level.LOOK
    assert "12 rows could not be read." in judged.headline
    assert "4,700 rows have a label that the model does not know." in judged.headline
    (answer,) = (each for each in judged.answers if each.question == "Does the model know the labels?")
    assert answer.level is answers.Level.LOOK
    assert "4,700 of 20,000 rows" in answer.answer
    assert "0 stars (709), 1 stars (699)" in answer.answer
    assert "and 3 more values" in answer.answer
    assert "--label-map GIVEN=LABEL" in answer.answer
    assert all(each.question != "Does the model know the labels?" for each in verdict.judge(found).answers)


def test_nothing_to_score_deserves_a_look() -> None:
    empty = metrics(Rows(np.zeros(0, dtype=np.int64), rows(0).predictions))
    assert levels(empty) == ("look", "plain")
    assert "the input holds no row" in verdict.judge(empty).answers[0].answer


@pytest.mark.parametrize(
    ("n_labels", "words"), [(2, "Brier score (0 to 1)"), (3, "Brier score (sum over labels, 0 to 2)")]
)
def test_the_brier_score_is_scikit_learns_on_the_page_at_the_gate_and_beside_the_earlier_run(
    n_labels: int, words: str
) -> None:
    found = right(0.8, 900, n_labels)
    quality = found["quality"]
    value = quality["brier_score_loss"]
    assert value == pytest.approx(quality["brier_sum"] / (2 if n_labels == 2 else 1))
    gated = held_against(found, found, [f"brier={value + 0.001}"])
    assert gated["gates"][0]["value"] == value
    assert gated["gates"][0]["passed"]
    page = Page(render_run(facts(labels=found["labels"]), gated, [], found))
    assert f"{words}{value:.3f}{value:.3f}0.000" in page.text  # this run, the earlier one, the change


def test_rows_that_failed_come_before_everything_but_gates() -> None:
    found = sample()[1]
    broken = found | {
        "counts": found["counts"] | {"failed": 7},
        "failed_rows": [{"file": "eu.csv", "row": 3, "reason": "out of memory"}],
    }
    assert verdict.judge(broken).headline == "7 rows of 20,000 could not be scored."
    assert "out of memory" in render_run(facts(), broken, [])


def test_without_labels_expected_accuracy_is_named_an_estimate() -> None:
    found = metrics(unlabelled(sample()[0]))
    page = Page(render_run(facts(), found, []))
    page.check_harmless()
    value = formats.percent(found["expected_accuracy"]["value"])
    assert f"It ran. No labels came along; expected accuracy {value}" in page.text
    assert "an estimate" in page.text
    assert "Where is it unsure?" in page.text
    assert "is that honest" not in page.text
    predicted = found["histograms"]["predicted_labels"]
    assert f"{predicted['POSITIVE']:,}" in page.text.partition("What did it predict?")[2]
    assert (
        f"{predicted['POSITIVE'] / sum(predicted.values()):.1%}"
        in page.text.partition("What did it predict?")[2]
    )
    assert "Which labels does it confuse?" not in page.text
    assert "Is it the model or the labels?" not in page.text
    assert page.tags.count("svg") == 1


def test_nothing_scored_is_a_page_too() -> None:
    empty = metrics(Rows(np.zeros(0, dtype=np.int64), rows(0).predictions))
    assert "there was no row to score" in render_run(facts(), empty, [])


def test_without_text_no_review_is_on_the_page() -> None:
    found = sample()[1]
    texts = worst()
    assert "Review 7. It is good." in render_run(facts(), found, texts)
    page = render_run(facts(), found, texts, with_text=False)
    assert "It is good" not in page
    assert "r7" in page
    assert "left out of this page" in page


@pytest.mark.parametrize("n_labels", [3, 40])
def test_many_labels_fit(n_labels: int) -> None:
    labels = [f"genre {k}" for k in range(n_labels)]
    found = metrics(rows(4_000, n_labels=n_labels), labels=labels)
    page = Page(render_run(facts(labels=labels), found, []))
    assert "genre 0" in page.text
    assert ("given ↓ predicted →" in page.text) == (n_labels == 3)


def test_an_earlier_run_of_another_version_does_not_break_the_page() -> None:
    assert "earlier run" in render_run(facts(), sample()[1], [], {"counts": {"read": 5}})


# --- what comes from outside


def naughty_page(strings: list[str]) -> str:
    """A page with a string in each place that takes one from outside."""
    labels = (f"a{strings[0]}", f"b{strings[1]}")
    found = metrics(rows(2_000, seed=3), labels=labels, files=strings[2:12])
    found["slices"] = [
        s | {"column": s["column"] if s["column"] != "file" else strings[12]} for s in found["slices"]
    ]
    found["unknown_labels"] = {strings[2]: {strings[13]: 3}}
    found["failed_rows"] = [{"file": strings[14], "row": 1, "reason": strings[15]}]
    gate = {
        "metric": f"recall_{labels[0]}",
        "direction": "at least",
        "limit": 0.9,
        "value": None,
        "passed": False,
        "margin": None,
    }
    found["gates"] = [gate | {"reason": strings[16]}]
    texts = [
        mismatch(
            text, row=k, file=strings[k % len(strings)], given_label=labels[0], **{"the id": strings[k - 1]}
        )
        for k, text in enumerate(strings)
    ]
    told = facts(files=strings[2:12], labels=labels, version=strings[17], options={strings[18]: strings[19]})
    grouped = {each.group: texts[-each.most :] for each in groups_of(found)}
    written = [WrittenFile(f"predictions/{name}", "every row", 9) for name in strings[2:12]]
    told |= {"model": {"path": strings[20], strings[21]: strings[22]}}
    return render_run(told, found, texts, grouped=grouped, written=written)


@functools.cache
def tame_tags() -> list[str]:
    return Page(naughty_page([f"tame {k}" for k in range(50)])).tags


@pytest.mark.parametrize("start", range(0, 500, 50))
def test_naughty_strings_neither_run_nor_change_the_layout(start: int) -> None:
    strings = [text or "empty" for text in naughty.STRINGS[start : start + 50]]
    text = naughty_page(strings)
    page = Page(text)
    page.check_harmless()
    assert page.tags == tame_tags()
    assert len(text) < 1_000_000
    assert not {"\0", "\u202e", "\u2066", "\x1b", "\u2028"} & set(text)
    for each in strings:
        assert formats.review(each) in page.text


def test_reviews_are_shown_as_people_read_them() -> None:
    assert formats.review("Good.<br/><BR />Bad.\r\n\tNo.") == "Good. Bad. No."
    assert formats.review(None) == ""
    assert len(formats.review("x" * 1_000_000)) == formats.TEXT_LENGTH
    assert formats.visible("e" + "\u0301" * 50) == "e" + "\u0301" * 4
    assert formats.visible("👩\u200d🚀") == "👩\u200d🚀"


# --- the nights


@functools.cache
def nightly(seed: int, sharpness: float = 2.2) -> dict[str, Any]:
    found = metrics(rows(2_000, seed=seed, sharpness=sharpness))
    return held_against(found, metrics(rows(2_000)), ["accuracy=0.87"]) | {"slices": []}


def make_nights(folder: Path, nights: int, bad: range, without: dict[int, str]) -> None:
    for k in range(nights):
        night = FIRST + k * DAY
        run = folder / f"{night:%Y-%m-%d}"
        if without.get(k) == "unfinished":
            (run / ".staging").mkdir(parents=True)
        elif k not in without:
            found = nightly(k % 7, 0.9) if k in bad else nightly(k % 12)
            write_run(run, found, night, seconds=60.0)


def test_a_year_with_one_bad_week_is_seen_at_a_glance(tmp_path: Path) -> None:
    make_nights(tmp_path, 365, range(200, 207), {50: "missing", 51: "missing", 90: "unfinished"})
    (tmp_path / "notes").mkdir()
    started = time.monotonic()
    trend = write_trend(tmp_path, until=LAST)
    assert time.monotonic() - started < 20  # 5 s on a machine that does nothing else
    page = Page(trend.page.read_text(encoding="utf-8"))
    page.check_harmless()
    assert trend.page.stat().st_size < 1_000_000
    assert "7 November 2026: it ran as usual and passed its gates." in page.text
    assert "27 May 2026 to 2 June 2026 (accuracy" in page.text
    squares = [
        value for tag, name, value in page.attributes if tag in {"a", "span"} and value.startswith("night-")
    ]
    assert len(squares) == 365
    assert squares.count("night-gate") == 7
    assert squares.count("night-usual") == 355

    told = json.loads((tmp_path / "report.json").read_bytes())
    assert len(told["nights"]) == 365
    seen = {state: count for state, count in told["states"].items() if count}
    assert seen == {"unfinished": 1, "missing": 2, "gate": 7, "usual": 355}
    assert {"first": "2026-05-27", "last": "2026-06-02", "nights": 7} in told["stretches"]
    night = told["nights"][200]
    assert (night["date"], night["state"], night["failed_gates"]) == ("2026-05-27", "gate", ["accuracy"])
    assert "accuracy" in night["unusual"]
    assert night["values"]["accuracy"] == nightly(200 % 7, 0.9)["quality"]["accuracy"]
    assert night["values"]["rows_per_second"]["value"] == night["counts"]["scored"] / 60
    assert told["nights"][90]["state"] == "unfinished"


def test_links_lead_from_the_page_to_each_night(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    odd = ['a "b" <c>', "javascript:alert(1)", "100% #1?", "é\u202e"]
    for k, name in enumerate(odd):
        write_run(runs / "deep" / name, nightly(k), FIRST + k * DAY)
    pages = tmp_path / "pages"
    page = Page(write_trend(runs, pages / "all.html").page.read_text(encoding="utf-8"))
    page.check_harmless()
    links = {value for _, name, value in page.attributes if name == "href" and "/" in value}
    assert {(pages / urllib.parse.unquote(link)).resolve() for link in links} == {
        (runs / "deep" / name / "report.html").resolve() for name in odd
    }
    assert (pages / "all.json").exists()


def test_the_last_night_that_did_not_finish_is_the_headline(tmp_path: Path) -> None:
    make_nights(tmp_path, 5, range(0), {4: "unfinished"})
    told = write_trend(tmp_path, until=datetime.date(2025, 11, 12))
    assert told.headline == "12 November 2025: the run did not finish."


def test_a_night_is_held_against_the_four_weeks_before_it(tmp_path: Path) -> None:
    make_nights(tmp_path, 20, range(15, 16), {})
    for path in tmp_path.glob("*/metrics.json"):  # no gate says so
        path.write_text(json.dumps(json.loads(path.read_text()) | {"gates": []}))
    states = [night.state for night in read_nights(tmp_path, datetime.date(2025, 11, 27)).shown]
    assert states[15] is State.UNUSUAL
    assert states.count(State.UNGATED) == 19


def test_nights_without_labels_follow_expected_accuracy(tmp_path: Path) -> None:
    found = metrics(unlabelled(rows(2_000)))
    write_run(tmp_path / "a", found, FIRST)
    assert "Expected accuracy (estimate)" in write_trend(tmp_path, until=FIRST.date()).page.read_text(
        encoding="utf-8"
    )


@pytest.mark.parametrize(
    ("damaged", "name", "date"),
    [
        ("metrics.json", "run", FIRST.date()),
        ("metrics.json", "2026-01-01", datetime.date(2026, 1, 1)),
        ("run.json", "2026-01-01", datetime.date(2026, 1, 1)),
    ],
)
def test_a_damaged_run_is_a_night_without_numbers(
    damaged: str, name: str, date: datetime.date, tmp_path: Path
) -> None:
    write_run(tmp_path / name, nightly(0), FIRST)
    (tmp_path / name / damaged).write_text("{")
    (night,) = read_nights(tmp_path, date).shown
    assert (night.state, night.date) == (State.UNFINISHED, date)
    assert "cannot be read" in night.problem


def test_a_trend_is_never_written_over_a_run_s_own_page(tmp_path: Path) -> None:
    write_run(tmp_path / "run", nightly(0), FIRST)
    with pytest.raises(UsageError, match="is itself a run"):
        write_trend(tmp_path / "run")
    with pytest.raises(UsageError, match="is itself a run"):
        write_trend(tmp_path, tmp_path / "run" / "trend.html")


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: path.mkdir()], ids=["no folder", "no run in it"]
)
def test_no_run_is_no_input(tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "runs")
    with pytest.raises(NoInputError):
        write_trend(tmp_path / "runs")


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    make_nights(tmp_path, 3, range(0), {})
    done = CliRunner().invoke(cli.main, ["report", str(tmp_path), "--json"])
    told = json.loads(done.stdout)
    assert (done.exit_code, told["nights"], told["page"]) == (0, 3, str(tmp_path / "report.html"))
    assert CliRunner().invoke(cli.main, ["report", str(tmp_path / "nothing")]).exit_code == 66


# --- how it is built


def test_the_package_imports_nothing_heavy() -> None:
    code = "import sys, batchscore.reports; print([m for m in ('jinja2', 'pandas', 'torch') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_a_page_is_the_same_each_time() -> None:
    found = sample()[1]
    assert render_run(facts(), found, worst()) == render_run(facts(), found, worst())
    assert LABELS[0] in render_run(facts(), found, [])


def test_the_page_says_which_columns_were_taken_for_what() -> None:
    file = {
        "name": "a.csv",
        "columns": {"text": "review_body", "label": "stars", "id": None},
        "label_values": {"1": "NEGATIVE", "3": "", "5": "POSITIVE"},
        "rows": 3,
        "rejects": 0,
    }
    table = run_tables.files({"files": [file]}, {"unknown_labels": {"a.csv": {"meh": 2}}})
    (line,) = table.rows
    assert line[:5] == [
        "a.csv",
        "review_body",
        "stars (1 = NEGATIVE, 3 = no label, 5 = POSITIVE)",
        formats.UNKNOWN,
        "meh (2)",
    ]
