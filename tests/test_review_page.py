"""The page of a review in a real browser, by keys alone: one browser and one server for each test's own copy of a run."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import naughty
import pytest
from browser import Browser
from review_by_keys import Page, review
from review_samples import LABELS, copied, reviewed, scored, table

from batchscore.reviewing.queue import Filter
from batchscore.reviewing.server import serving
from batchscore.reviewing.session import Review
from batchscore.reviewing.store import DRAWN, WORST

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.browsing() as started:
        yield started


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty rows; the texts of some have broken pages."""
    rows = table(60)
    odd = [text.encode("utf-8", "replace").decode() for text in naughty.STRINGS]
    chosen = [*odd[:20], *(text for text in odd if "pwned" in text)][:60]
    rows["text"] = [f"{text} ({k})" for k, text in enumerate(chosen + ["fine"] * (60 - len(chosen)))]
    return scored(tiny_model, tmp_path_factory.mktemp("scored"), rows, "r.parquet", slice_columns=("shop",))


@contextlib.contextmanager
def opened(run: Path, folder: Path, **settings: Any) -> Iterator[tuple[Review, str]]:
    """A review of a run of its own, and the address of its page."""
    with reviewed(copied(run, folder), **settings) as opened, serving(opened) as (address, _):
        yield opened, address


def told(chromium: Browser, address: str) -> list[str]:
    """What should not be: requests to others, errors, messages on the console, dialogs."""
    base = address.partition("?")[0]
    events = [event for event in chromium.events if event.get("method") in browser._TOLD]
    asked = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    strange = [url for url in asked if not url.startswith((base, "data:,"))]
    return strange + [str(event) for event in events if event["method"] != "Network.requestWillBeSent"]


def standing(review: Review) -> dict[int, tuple[str, str | None]]:
    return {verdict.key: (verdict.kind, verdict.label) for verdict in review.store.all_standing()}


def test_keys_give_verdicts_take_them_back_and_move(run: Path, tmp_path: Path, chromium: Browser) -> None:
    with opened(run, tmp_path) as (review, address):
        page = Page(chromium, address)
        rows = review.queue.rows(Filter(), most=6)
        for keys in (("1",), ("2",), ("3", "Enter"), ("4",)):
            page.answer(*keys)
        assert standing(review) == {
            rows[0].key: ("given", LABELS[rows[0].given]),
            rows[1].key: ("prediction", LABELS[rows[1].predicted]),
            rows[2].key: ("none", None),
            rows[3].key: ("unsure", None),
        }
        state = page.state
        assert (state["key"], state["reviewed"]) == (str(rows[4].key), 4)
        state = page.answer("u")
        assert (state["key"], state["reviewed"], state["said"]) == (str(rows[3].key), 3, None)
        assert rows[3].key not in standing(review)
        state = page.answer("ArrowLeft")
        assert (state["key"], state["said"]) == (str(rows[2].key), "Reviewed: none of the labels is right")
        page.answer("1")  # another answer takes the place of the first
        assert standing(review)[rows[2].key][0] == "given"
        assert page.state["key"] == str(rows[3].key)
        page.answer("ArrowRight")
        assert page.state["key"] == str(rows[4].key)
        assert told(chromium, address) == []


def test_all_rows_are_reviewed_to_the_end(run: Path, tmp_path: Path, chromium: Browser) -> None:
    with opened(run, tmp_path) as (opened_review, address):
        page = Page(chromium, address)
        keys = {row.id: row.given for row in opened_review.queue.rows(Filter(), most=50)}
        page.press("ArrowRight", "ArrowRight")  # two are passed over, and come again
        page.wait(lambda state: not state["busy"], "the third row")
        found = review(page, lambda each: LABELS[keys.get(each, 0)], 1000)
        total = opened_review.queue.counts(Filter())
        assert total["reviewed"] == total["rows"] == sum(found.keys.values())
        assert page.state["key"] is None


def test_a_second_browser_and_another_server_see_what_was_said(
    run: Path, tmp_path: Path, chromium: Browser
) -> None:
    with (
        opened(run, tmp_path) as (review, address),
        reviewed(review.run.path) as other,
        serving(other) as (there, _),
    ):
        pages = [Page(chromium, each) for each in (address, there)]
        first, second = review.queue.rows(Filter(), most=2)
        pages[0].answer("1")
        state = pages[1].wait(lambda state: state["reviewed"] == 1, "the verdict of the other")
        assert (state["key"], state["said"]) == (str(first.key), "Reviewed: the given label is right")
        pages[1].answer("ArrowRight")
        pages[1].answer("2")
        assert standing(review) == standing(other)
        assert set(standing(review)) == {first.key, second.key}


def test_rows_drawn_at_random_give_the_true_accuracy_also_blind(
    run: Path, tmp_path: Path, chromium: Browser
) -> None:
    with opened(run, tmp_path, is_blind=True, n_drawn=6) as (review, address):
        page = Page(chromium, address)
        page.tab.value("document.getElementById('tab-drawn').click()")
        page.wait(lambda state: state["tab"] == "tab-drawn" and not state["busy"], "the other tab")
        rows = review.queue.rows(Filter(tab=DRAWN))
        assert page.tab.value("document.getElementById('labels').hidden")  # nothing sways
        for row in rows:
            page.answer(str(row.predicted + 1))
        text = page.tab.value("document.getElementById('estimates').innerText")
        assert "The model is right: 100.0 %" in text
        assert "So far" not in text
        assert {verdict.tab for verdict in review.store.all_standing()} == {DRAWN}


def test_filters_and_search_narrow_what_is_shown(run: Path, tmp_path: Path, chromium: Browser) -> None:
    with opened(run, tmp_path, unsure_below=1.0) as (review, address):
        page = Page(chromium, address)
        page.tab.value("document.getElementById('text').focus()")
        for sign in "(21)":
            page.press(sign)
        state = page.wait(lambda state: "(21)" in (state["text"] or ""), "the row that was searched for")
        assert state["id"] == "r21"
        assert standing(review) == {}  # digits in the field are no answers
        page.press("Enter")
        page.wait(lambda state: not state["busy"], "the field to be left")
        page.answer("4")
        assert [verdict.key for verdict in review.store.all_standing()] == [21]
        assert page.state["key"] is None


def test_the_page_fits_a_phone_and_runs_nothing_of_a_text(
    run: Path, tmp_path: Path, chromium: Browser
) -> None:
    with opened(run, tmp_path, unsure_below=1.0) as (review, address):
        page = Page(chromium, address, "phone")
        total = review.queue.counts(Filter())["rows"]
        assert total == 60
        for _ in range(total - 1):
            found = page.tab.value(browser._STATE)
            assert found["wider"] <= 0, page.state["id"]
            assert (found["sticking_out"], found["pwned"]) == ([], "undefined"), page.state["id"]
            page.answer("ArrowRight")
        assert page.tab.value("document.querySelectorAll('script, style, iframe, img, object').length") == 2
        assert told(chromium, address) == []


def test_it_works_by_tab_and_enter_and_says_what_each_thing_is(
    run: Path, tmp_path: Path, chromium: Browser
) -> None:
    focus = (
        "(() => { const e = document.activeElement; return {id: e.id, outline: getComputedStyle(e).outlineStyle, "
        "name: e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText}; })()"
    )
    with opened(run, tmp_path) as (review, address):
        page = Page(chromium, address)
        seen: list[str] = []
        while "undo" not in seen and len(seen) < 40:
            page.press("Tab")
            now = page.tab.value(focus)
            assert now["name"], now
            assert now["outline"] != "none", now
            seen.append(now["id"])
        order = [
            "tab-worst",
            "tab-drawn",
            "pair",
            "text",
            "text-1",
            "answer-given",
            "answer-other",
            "previous",
            "undo",
        ]
        assert [each for each in seen if each in order] == order
        page.tab.value("document.getElementById('answer-given').focus()")
        page.answer("Enter")
        assert page.tab.value("document.activeElement.id") == "answer-given"  # where it was, for the next row
        assert len(standing(review)) == 1
        assert page.state["status"] == "Saved: the given label is right."


def test_a_page_whose_server_has_gone_says_so_and_keeps_the_row(
    run: Path, tmp_path: Path, chromium: Browser
) -> None:
    with opened(run, tmp_path) as (_, address):
        page = Page(chromium, address)
        before = page.state["key"]
    page.press("1")
    state = page.wait(lambda state: state["trouble"] is not None, "the trouble")
    assert "does not answer" in state["trouble"]
    assert (state["key"], state["reviewed"]) == (before, 0)


def test_another_page_in_the_same_browser_reads_and_writes_nothing(
    run: Path, tmp_path: Path, chromium: Browser
) -> None:
    with (
        opened(run, tmp_path) as (review, address),
        reviewed(review.run.path) as other,
        serving(other) as (there, _),
    ):
        page = Page(chromium, there)  # on another port: another origin
        base, token = address.split("?token=")
        page.tab.value(
            f"""window.found = []; for (const mode of ['cors', 'no-cors']) for (const path of ['api/rows', 'api/verdicts'])
            fetch('{base}' + path, {{method: path === 'api/rows' ? 'GET' : 'POST', mode, body: path === 'api/rows' ? undefined : '{{}}',
            headers: mode === 'cors' ? {{Authorization: 'Bearer {token}', 'Content-Type': 'application/json'}} : {{}}}})
            .then(a => window.found.push(a.type), e => window.found.push('refused'))"""
        )
        end = time.monotonic() + 10
        while len(page.tab.value("window.found")) < 4 and time.monotonic() < end:
            time.sleep(0.02)
        assert set(page.tab.value("window.found")) <= {"refused", "opaque"}
        assert review.store.last == 0
        assert WORST not in {event.tab for event in review.store.events()}
