"""The pages in a real browser by keyboard alone, on paper, and on a phone: one browser for all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import browser
import pytest
import task_samples
from browser import Browser, Tab
from night_samples import NOW, make_month
from report_samples import facts, held_against
from task_samples import BASES
from test_page_doors import rows_of
from test_reports import sample, worst

from batchscore.records import Task
from batchscore.reports import render_run
from batchscore.reports.row_groups import LabelGroup, confusions_of
from batchscore.reports.written_files import WrittenFile
from batchscore.runs.trend import write_trend

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine"),
]
_PRINT_WIDTH = 718
"""CSS pixels between the margins of A4."""
_STUCK_OUT = """(() => {
  const most = document.documentElement.clientWidth + 1;
  return [...document.body.querySelectorAll('td, th, p, h1, h2, h3, svg')]
    .filter(e => e.getBoundingClientRect().right > most).map(e => e.textContent.slice(0, 40));
})()"""
_FOCUS = """(() => { const e = document.activeElement, box = e.getBoundingClientRect(), style = getComputedStyle(e);
  return {href: e.getAttribute('href'), id: e.id, tag: e.tagName, outline: style.outlineStyle, width: parseFloat(style.outlineWidth),
    is_seen: box.bottom > 0 && box.top < innerHeight}; })()"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser.browsing() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each task with rows behind its numbers, and that of thirty nights."""
    folder = tmp_path_factory.mktemp("pages")
    found = held_against(sample()[1], sample(seed=2)[1], ["accuracy=0.92"])
    written = [WrittenFile(name, "what it holds", 1234) for name in ("metrics.json", "mismatches.csv")]
    texts = {
        "labels": render_run(
            facts(), found, worst(), grouped=rows_of(Task.SINGLE_LABEL, found, "Good. " * 80), written=written
        )
    }
    for task in (Task.MULTI_LABEL, Task.REGRESSION):
        of_task = task_samples.metrics(task, task_samples.sample(task, 600))
        texts[task.value] = render_run(
            facts(labels=BASES[task].labels),
            of_task,
            task_samples.mismatches(task),
            grouped=rows_of(task, of_task, "Good. " * 80),
            written=written,
        )
    for name, text in texts.items():
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    make_month(folder / "month")
    trend = write_trend(folder / "month", now=NOW).page
    return {**{name: folder / f"{name}.html" for name in texts}, "trend": trend}


def opened(chromium: Browser, page: Path, size: str = "desktop", media: str = "", fragment: str = "") -> Tab:
    return Tab(chromium, f"{page.as_uri()}{fragment}", size, "light", media)


def tab_to(tab: Tab, href: str, most: int = 80) -> dict[str, Any]:
    """Press Tab until a link has the focus; what has it is always seen, with a line around it."""
    for _ in range(most):
        tab.press("Tab", 9)
        focus: dict[str, Any] = tab.value(_FOCUS)
        if focus["tag"] == "A":
            assert focus["outline"] == "solid", focus
            assert focus["width"] >= 2
            assert focus["is_seen"]
        if focus["href"] == href:
            return focus
    raise AssertionError(f"{href} is not reached in {most} steps")


def test_from_the_verdict_to_the_rows_and_back_without_a_mouse(
    chromium: Browser, pages: dict[str, Path]
) -> None:
    tab = opened(chromium, pages["labels"])
    given, predicted, _ = confusions_of(sample()[1])[0]
    anchor = LabelGroup(given, predicted).anchor
    shown = f"getComputedStyle(document.getElementById('{anchor}')).display"
    assert tab.value(shown) == "none"
    tab_to(tab, f"#{anchor}")  # in the answer at the top
    tab.press("Enter", 13, text="\r")
    assert tab.value(shown) == "block"
    assert tab.value(f"document.getElementById('{anchor}').getBoundingClientRect().top") < 300
    tab_to(tab, "mismatches.csv", 3)  # the focus went along
    tab_to(tab, "#confusion", 3)
    tab.press("Enter", 13, text="\r")
    assert tab.value(shown) == "none"
    assert tab.value("document.getElementById('confusion').getBoundingClientRect().top") < 300
    other = LabelGroup(predicted, given).anchor
    tab_to(tab, f"#{other}", 6)  # a cell of the table
    tab.press("Enter", 13, text="\r")
    assert tab.value(f"getComputedStyle(document.getElementById('{other}')).display") == "block"
    assert tab.value(shown) == "none"
    tab.close()


def test_the_line_of_contents_is_first_and_leads_there(chromium: Browser, pages: dict[str, Path]) -> None:
    tab = opened(chromium, pages["trend"])
    tab.press("Tab", 9)
    assert tab.value(_FOCUS)["href"] == "#nights"
    tab_to(tab, "#last", 4)
    tab.press("Enter", 13, text="\r")
    assert abs(tab.value("document.getElementById('last').getBoundingClientRect().top")) < 300
    tab.press("Tab", 9)
    assert tab.value(_FOCUS)["href"] == "2026-11-26/report.html"
    tab.close()


@pytest.mark.parametrize("name", ["labels", "multi_label", "regression", "trend"])
def test_on_paper_nothing_is_cut_and_no_way_is_drawn(
    chromium: Browser, pages: dict[str, Path], name: str
) -> None:
    tab = opened(chromium, pages[name], media="print")
    tab._call(
        "Emulation.setDeviceMetricsOverride",
        width=_PRINT_WIDTH,
        height=1000,
        deviceScaleFactor=1,
        mobile=False,
    )
    assert tab.value(_STUCK_OUT) == []
    assert tab.value("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert tab.value(
        "[...document.querySelectorAll('.back')].every(e => getComputedStyle(e).display == 'none')"
    )
    assert tab.printed().startswith(b"%PDF")
    tab.close()


def test_a_table_that_goes_on_beyond_the_phone_has_a_shadow(
    chromium: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    tab = opened(chromium, pages["trend"], "phone")
    wide = "document.querySelector('#last ~ .steady .wide')"
    assert tab.value(f"{wide}.scrollWidth > {wide}.clientWidth")
    assert tab.value(f"getComputedStyle({wide}).backgroundImage").count("linear-gradient") == 4
    assert tab.value(f"{wide}.tabIndex") <= 0  # the browser itself lets a keyboard scroll it
    assert tab.value("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    tab.close()


def test_pages_with_rows_opened_fit_every_window(pages: dict[str, Path]) -> None:
    opened_at = [
        pages["labels"].with_name("labels.html#rows-0-1"),
        pages["multi_label"].with_name("multi_label.html#rows-any-0"),
        pages["regression"].with_name("regression.html#rows-given-0"),
        pages["trend"],
    ]
    looks = list(browser.look_at(opened_at))
    assert len(looks) == 4 * 2 * 2
    assert {f"{look.page.name}, {look.size}": look.problems for look in looks if look.problems} == {}
