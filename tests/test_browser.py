"""The pages in a real browser, where there is one: nothing runs, nothing is asked for, nothing sticks out."""

from __future__ import annotations

from pathlib import Path

import browser
import naughty
import pytest
from report_samples import facts, held_against, metrics, rows, unlabelled
from test_reports import full_page, make_nights, naughty_page, sample

from batchscore.reports import render_run
from batchscore.runs.trend import write_trend

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine"),
]


def pages(folder: Path) -> list[Path]:
    """A labelled night with an earlier one, one without labels, two of hostile strings, and the trend."""
    before, blind = sample(seed=2)[1], metrics(unlabelled(rows(500)))
    texts = {
        "labelled": full_page(),
        "unlabelled": render_run(facts(), held_against(blind, before), [], before),
        "naughty": naughty_page([text or "empty" for text in naughty.STRINGS[:250]]),
        "naughtier": naughty_page([text or "empty" for text in naughty.STRINGS[250:500]]),
    }
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    make_nights(folder / "nights", 40, range(30, 33), {5: "missing", 9: "unfinished"})
    return [*(folder / f"{name}.html" for name in texts), write_trend(folder / "nights").page]


def test_pages_are_still_and_fit_every_window(tmp_path: Path) -> None:
    looks = list(browser.look_at(pages(tmp_path)))
    assert len(looks) == 5 * 2 * 2
    assert {
        f"{look.page.name}, {look.size}, {look.scheme}": look.problems for look in looks if look.problems
    } == {}
    assert len({look.state["paper"] for look in looks}) == 2  # light and dark
    assert all(min(look.state["charts"], default=300) >= 250 for look in looks)


def test_the_check_itself_sees_what_should_not_be(tmp_path: Path) -> None:
    text = full_page()
    cases = {
        "script": text.replace("</body>", "<script>window.pwned=1;console.log('hello')</script></body>"),
        "request": text.replace("</body>", '<img src="https://batchscore.invalid/x.png"></body>'),
        "wide": text.replace("</body>", '<div style="width:3000px">wide</div></body>'),
    }
    for name, broken in cases.items():
        (tmp_path / f"{name}.html").write_text(broken, encoding="utf-8")
    looks = list(browser.look_at([tmp_path / f"{name}.html" for name in cases]))
    assert {look.page.stem for look in looks if look.problems} == set(cases)
