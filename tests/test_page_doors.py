"""The ways in and out of a page: contents, rows of each number, files, nights; and the same as text for a mail."""

from __future__ import annotations

import dataclasses
import datetime
import doctest
import json
import re
import types
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import naughty
import numpy as np
import pandas as pd
import pytest
import task_samples
from conftest import run_score
from night_samples import NOW, REASONS, make_month
from report_samples import LABELS, Rows, facts, held_against, metrics, mismatch, rows, write_run
from task_samples import BASES
from test_reports import Page, full_page, nightly, right, sample

from batchscore.config import Allowance, ReadSettings
from batchscore.evaluation import Basis
from batchscore.formats.staged import Block
from batchscore.records import Task
from batchscore.reports import night_reasons, render_run, run_text, text_lines, verdict, written_files
from batchscore.reports.row_groups import Group, LabelGroup, RowGroup, ValueGroup, confusions_of, groups_of
from batchscore.reports.text_lines import LINES, WIDTH, Section, letter, paragraph, width
from batchscore.reports.written_files import WrittenFile
from batchscore.runs.grouped_rows import GroupedRows
from batchscore.runs.inspection import verify
from batchscore.runs.mismatch_columns import mismatch_columns_of
from batchscore.runs.mismatches import keys_of
from batchscore.runs.trend import write_trend
from batchscore.system.storage import read_manifest


def hrefs(page: Page) -> list[str]:
    return [value for tag, name, value in page.attributes if (tag, name) == ("a", "href")]


def check_ways(text: str, folder: Path | None = None) -> None:
    """Every fragment is on the page, once; every other link is a file that exists."""
    page = Page(text)
    page.check_harmless()
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for href in hrefs(page):
        if href.startswith("#"):
            assert href[1:] in ids
        elif folder is not None:
            assert (folder / urllib.parse.unquote(href)).is_file(), href


def section(text: str, anchor: str) -> str:
    """What stands between the anchor of some rows and the way back."""
    return text.partition(f'<section class="rows" id="{anchor}"')[2].partition("</section>")[0]


# --- the rows of each number


@pytest.fixture(scope="module")
def run(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of several parts, with many mismatches of one kind and a reject; tests must not write into it."""
    folder = tmp_path_factory.mktemp("run")
    words = ["good", "bad", "film", "plot", "dull", "great", "never", "again"]
    rng = np.random.default_rng(4)
    lines = [
        json.dumps({"id": k, "text": " ".join(rng.choice(words, 6)), "label": LABELS[k % 2]})
        for k in range(90)
    ]
    name = "a #1? 100%: <b>.jsonl"
    (folder / name).write_text("\n".join([*lines, '{"id": 90, "text"']) + "\n")
    run_score(
        folder / name,
        tiny_bundle,
        folder / "out",
        max_rejects=Allowance(1),
        read=ReadSettings(part_rows=16),
        fail_below=("accuracy=0.99",),
    )
    return folder / "out"


def test_each_confusion_leads_to_its_first_rows_in_the_order_of_the_report(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    mismatches = pd.read_parquet(run / "mismatches.parquet")
    found = json.loads((run / "metrics.json").read_bytes())
    labels, groups = found["labels"], groups_of(found)
    assert groups
    for group in groups:
        assert isinstance(group.group, LabelGroup)
        given, predicted = labels[group.group.missing or 0], labels[group.group.extra or 0]
        chosen = mismatches[(mismatches.given_label == given) & (mismatches.predicted_label == predicted)]
        listed = [int(row) for row in re.findall(r"</bdi>, row (\d+)", section(text, group.anchor))]
        assert listed == chosen.row.head(group.most).tolist()
        assert group.rows == len(chosen)
        assert f'href="#{group.anchor}"' in text.partition("</table>")[2]
    assert re.search(r"12 of \d+ shown", text), [group.rows for group in groups]


def test_every_way_of_a_run_s_page_leads_somewhere(run: Path) -> None:
    text = (run / "report.html").read_text(encoding="utf-8")
    check_ways(text, run)
    linked = {urllib.parse.unquote(href) for href in hrefs(Page(text)) if not href.startswith("#")}
    assert linked == set(read_manifest(run)) - {"report.html"}  # the page itself needs no link to itself


def fake_part(task: Task, found: Any) -> Any:
    predicted, n_tokens = found.predictions.predicted, found.predictions.n_tokens
    return types.SimpleNamespace(
        given=found.given, predictions=found.predictions, predicted=predicted, n_tokens=n_tokens
    )


def in_brute_force(task: Task, given: Any, predicted: Any, group: Group) -> bool:
    if isinstance(group, ValueGroup):
        return bool(group.low <= given < group.high)
    if task is Task.SINGLE_LABEL:
        return bool((given, predicted) == (group.missing, group.extra))
    missing = group.missing is None or (given[group.missing] == 1 and predicted[group.missing] == 0)
    return missing and (group.extra is None or (given[group.extra] == 0 and predicted[group.extra] == 1))


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("task", Task)
def test_the_first_rows_of_each_group_are_those_of_a_sort_of_all(task: Task, together: bool) -> None:
    if task is Task.SINGLE_LABEL:
        whole: Any = rows(900, n_labels=4)
        labels = ("a", "b", "c", "d")
        basis, found = Basis(task, labels), metrics(whole, labels=labels)
    else:
        whole, basis = task_samples.sample(task, 900), BASES[task]
        found = task_samples.metrics(task, whole)
    groups, columns = groups_of(found), mismatch_columns_of(basis)
    quality = np.round(np.random.default_rng(1).random(900), 2).astype(np.float32)  # with ties
    first = GroupedRows(groups, columns)
    parts = [slice(0, 300), slice(300, 320), slice(320, 900)]
    taken = [
        (k, fake_part(task, task_samples.Rows(whole.given, whole.predictions).take(at)), quality[at])
        for k, at in enumerate(parts)
    ]
    blocks = [([number], Block(staged, (0, len(each)), ({},)), each) for number, staged, each in taken]
    if together:  # as small parts of a shard lie
        every = fake_part(task, task_samples.Rows(whole.given, whole.predictions))
        blocks = [([0, 1, 2], Block(every, (0, 300, 320, 900), ({},) * 3), quality)]
    for numbers, block, qualities in blocks:
        at, keys = keys_of(numbers, block, qualities, columns)
        first.add(keys, block.whole.given[at], block.whole.predicted[at])
    for each in groups:
        wanted = sorted(
            (float(qualities[k]), part, int(k))
            for part, staged, qualities in taken
            for k in columns.found(staged)
            if in_brute_force(task, staged.given[k], staged.predictions.predicted[k], each.group)
        )
        assert [place[:3] for place in first._first[each.group]] == wanted[: each.most]
        if task is not Task.REGRESSION:
            assert len(wanted) == each.rows


def rows_of(task: Task, found: dict[str, Any], text: str) -> dict[Group, list[dict[str, Any]]]:
    """As many rows for each group as it may list."""
    one = task_samples.mismatches(task)[0] if task is not Task.SINGLE_LABEL else mismatch(text)
    return {each.group: [one | {"text": text}] * min(each.most, each.rows) for each in groups_of(found)}


@pytest.mark.parametrize(
    ("task", "n_labels"), [(Task.SINGLE_LABEL, 12), (Task.SINGLE_LABEL, 150), (Task.MULTI_LABEL, 120)]
)
def test_a_page_stays_small_with_many_labels_and_long_texts(task: Task, n_labels: int) -> None:
    labels = [f"{k} is a rather long name of a label of a great many" for k in range(n_labels)]
    if task is Task.SINGLE_LABEL:
        found = metrics(rows(6_000, n_labels=n_labels), labels=labels)
    else:
        basis = Basis(task, tuple(labels), 0.012, 1.4, (0.5,) * n_labels)
        found = task_samples.metrics(task, task_samples.label_sets(1_500, basis=basis), basis)
    grouped = rows_of(task, found, "No good, no good. " * 5_000)
    listed = sum(map(len, grouped.values()))
    assert 50 < listed <= 300
    text = render_run(facts(labels=labels), found, [], grouped=grouped)
    check_ways(text)
    assert len(text) < 700_000
    shown = sum(each.group in grouped for each in groups_of(found))
    assert text.count('<section class="rows"') == shown == len(set(re.findall('href="#rows-[^"]*"', text)))


def test_without_text_no_review_is_among_the_rows_of_a_number() -> None:
    found = sample()[1]
    grouped = rows_of(Task.SINGLE_LABEL, found, "It is good.")
    assert "It is good." in render_run(facts(), found, [], grouped=grouped)
    page = render_run(facts(), found, [], grouped=grouped, with_text=False)
    assert "It is good." not in page
    assert page.count("left out of this page") == 2


def test_the_verdict_leads_to_the_rows_it_speaks_of() -> None:
    found = sample()[1]
    given, predicted, _ = confusions_of(found)[0]
    wanted = f'href="#{LabelGroup(given, predicted).anchor}">See those rows</a>'
    grouped = rows_of(Task.SINGLE_LABEL, found, "Good.")
    head = render_run(facts(), found, [mismatch("Good.")], grouped=grouped).partition("</dl>")[0]
    assert wanted in head
    assert 'href="#reviews"' in head
    assert wanted not in render_run(facts(), found, [])  # where no row is listed, nothing leads there
    for task in (Task.MULTI_LABEL, Task.REGRESSION):
        found = task_samples.metrics(task, task_samples.sample(task, 600))
        text = render_run(
            facts(labels=BASES[task].labels),
            found,
            task_samples.mismatches(task),
            grouped=rows_of(task, found, "Good."),
        )
        check_ways(text)
        assert 'href="#reviews"' in text.partition("</dl>")[0]
        assert 'href="#rows-' in text


@pytest.mark.parametrize(
    ("listed", "total", "told"),
    [
        (12, 340, "12 of 340 shown, those worth checking first; all are in mismatches.csv."),
        (3, 3, "All 3 shown."),
        (1, 1, "It is the only one."),
    ],
)
def test_it_is_said_how_many_rows_are_not_shown(listed: int, total: int, told: str) -> None:
    assert RowGroup(LabelGroup(0, 1), (), total, "confusion").note(listed) == told


# --- contents, order, files


def test_the_line_of_contents_names_the_sections_in_their_order() -> None:
    text = full_page()
    line = text.partition("<nav")[2].partition("</nav>")[0]
    named = re.findall(r'href="#([a-z]+)"', line)
    assert named == re.findall(r'<h2 id="([a-z]+)"', text)
    assert text.count("<h2") == len(named)
    assert named.index("files") < named.index("run") < named.index("reviews")
    check_ways(text)


def test_names_of_files_are_quoted_and_those_of_the_run_are_links_in_notes() -> None:
    odd = [
        "predictions/a #1?.csv",
        "predictions/100%.csv",
        "predictions/javascript:alert(1)",
        "mismatches.csv",
    ]
    written = [WrittenFile(name, "rows", 1_234_567) for name in odd]
    page = Page(render_run(facts(), sample()[1], [mismatch("Good.")], written=written))
    page.check_harmless()
    assert {urllib.parse.unquote(href) for href in hrefs(page) if not href.startswith("#")} == set(odd)
    assert "1.23 MB" in page.text
    assert hrefs(page).count("mismatches.csv") == 2  # among the files, and in the note on the rows


@pytest.mark.parametrize("failed", [True, False])
def test_a_gate_that_failed_is_not_called_a_gate_that_nobody_set(failed: bool) -> None:
    found = right(0.95, 2000)
    judged = verdict.judge(held_against(found, found, ["accuracy=0.99"] if failed else []))
    assert any("Nobody has said" in answer.answer for answer in judged.answers) is not failed


def test_what_is_empty_is_not_told_as_quotation_marks() -> None:
    told = facts() | {"finished": "", "model": {"path": "", "thresholds": [], "task": "single_label"}}
    assert '""' not in Page(render_run(told, sample()[1], [])).text


# --- the nights


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty nights of every kind with their page; tests must not write into it."""
    folder = tmp_path_factory.mktemp("month")
    make_month(folder)
    write_trend(folder, now=NOW)
    return folder


def test_the_page_of_thirty_nights_names_the_reason_of_each(month: Path) -> None:
    text = (month / "report.html").read_text(encoding="utf-8")
    check_ways(text, month)
    assert '""' not in Page(text).text
    nights = json.loads((month / "report.json").read_bytes())["nights"]
    assert len({night["state"] for night in nights}) == 11  # every state there is
    assert all(night["reason"].strip() for night in nights)
    for k, start in REASONS.items():
        assert nights[k]["reason"].startswith(start), nights[k]["reason"]
    table = text.partition('id="last"')[2].partition("</table>")[0]
    lines = re.findall(r"<tr>(.*?)</tr>", table)
    assert len(lines) == 1 + 30
    for line, night in zip(lines[1:], reversed(nights), strict=True):
        cells = [Page(cell).text for cell in re.findall(r"<t[hd].*?</t[hd]>", line)]
        assert cells[0] == night["date"]
        assert cells[2] == night["reason"]


def test_a_night_without_a_note_has_a_reason_too(tmp_path: Path) -> None:
    run = tmp_path / "2026-11-26"
    run.mkdir()
    note = {"exit_code": 66, "reason": " ", "at": NOW.isoformat(), "date": "2026-11-26"}
    (run / "refused.json").write_text(json.dumps(note))
    write_trend(tmp_path, now=NOW)
    assert '""' not in Page((tmp_path / "report.html").read_text(encoding="utf-8")).text


def test_a_night_whose_page_is_gone_is_no_link(tmp_path: Path) -> None:
    for day in (25, 26):
        write_run(tmp_path / f"2026-11-{day}", nightly(1), NOW.replace(day=day))
    (tmp_path / "2026-11-25" / "report.html").unlink()
    text = write_trend(tmp_path, now=NOW).page.read_text(encoding="utf-8")
    check_ways(text, tmp_path)
    assert "2026-11-26/report.html" in text
    assert "2026-11-25/report.html" not in text


def test_links_are_those_that_a_browser_follows_through_linked_folders(tmp_path: Path) -> None:
    """A browser goes up by names; the disk goes up from where a link leads."""
    write_run(tmp_path / "disk" / "deep" / "runs" / "2026-11-26", nightly(1), NOW)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "runs").symlink_to(tmp_path / "disk" / "deep" / "runs")
    (tmp_path / "web" / "pages").symlink_to(tmp_path / "disk")
    page = write_trend(tmp_path / "web" / "runs", tmp_path / "web" / "pages" / "all.html", now=NOW).page
    (href,) = {each for each in hrefs(Page(page.read_text(encoding="utf-8"))) if "/" in each}
    assert href == "../runs/2026-11-26/report.html"


# --- the mail


def check_letter(text: str) -> None:
    lines = text.split("\n")
    assert lines.pop() == ""
    assert len(lines) <= LINES
    assert all(width(line) <= WIDTH for line in lines)
    assert all(char == "\n" or char.isprintable() for char in text)


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("kind", ["labelled", "unlabelled", "one row", "no row"])
def test_any_run_is_a_mail(task: Task, kind: str) -> None:
    if task is Task.SINGLE_LABEL:
        whole: Any = rows(400)
        blind: Any = Rows(np.full(400, -1), whole.predictions)
        measure: Any = lambda each: metrics(Rows(*each))  # noqa: E731
    else:
        whole = task_samples.sample(task, 400)
        blind = whole.unlabelled(task)
        measure = lambda each: task_samples.metrics(task, each)  # noqa: E731
    take = task_samples.Rows(*whole).take
    chosen = {"labelled": whole, "unlabelled": blind, "one row": take(slice(0, 1)), "no row": take(slice(0))}
    found = measure(chosen[kind])
    text = run_text(facts(), found, found, place="/srv/scored/2026-11-26", names=["report.html"])
    check_letter(text)
    assert "Where to look: /srv/scored/2026-11-26 has report.html" in text
    assert "Did it run?" in text
    assert '""' not in text
    if kind == "labelled":
        assert "95 % interval" in text


def test_a_mail_has_the_verdict_the_figures_the_gates_and_what_changed() -> None:
    (_, found), (_, before) = sample(), sample(seed=2, sharpness=2.6)
    judged = held_against(found, before, ["accuracy=0.92", "null_text=1%", "ece=1", "macro_f1=.1", "brier=1"])
    text = run_text(facts(), judged, before, place="/srv/scored/2026-11-26")
    check_letter(text)
    accuracy = judged["quality"]["accuracy"]["value"]
    assert text.startswith(f"A quality gate failed: accuracy is {accuracy:.2%}")
    assert f"gate FAILED: accuracy is {accuracy:.2%}, " in text
    assert "and 2 more, 0 of them failed" in text
    assert re.search(rf"^accuracy +{accuracy:.1%} .* to ", text, re.MULTILINE)
    assert "What changed?" in text
    assert text.isascii()


@pytest.mark.parametrize("start", range(0, len(naughty.STRINGS), 40))
def test_names_from_outside_do_not_break_a_mail(start: int) -> None:
    strings: Sequence[str] = [text or "empty" for text in naughty.STRINGS[start : start + 40]]
    strings = [*strings, *strings][:24]
    labels = (f"a{strings[0]}", f"b{strings[1]}")
    found = metrics(rows(300, seed=3), labels=labels, files=strings[2:5])
    counts = found["counts"] | {"unknown_label": 7, "rejects": 3}
    found |= {"unknown_labels": {strings[2]: dict.fromkeys(strings, 1)}, "counts": counts}
    told = facts(files=strings[2:12], labels=labels) | {"model": {"path": strings[20]}}
    text = run_text(told, found, None, place=strings[6], names=strings[7:9])
    check_letter(text)
    text.encode()


def test_a_mail_of_many_words_keeps_one_line_of_each_section() -> None:
    wordy = " ".join(["word"] * 200)
    sections = [Section(paragraph(f"{k} {wordy}", 4)) for k in range(12)]
    text = letter(sections)
    check_letter(text)
    assert [line.split()[0] for line in text.splitlines() if line[0].isdigit()] == [str(k) for k in range(12)]


def test_the_mail_of_a_run_is_one_of_its_files_and_holds_no_review(run: Path) -> None:
    text = (run / "report.txt").read_text(encoding="utf-8")
    check_letter(text)
    assert "report.txt" in read_manifest(run)
    assert verify(run)["kind"] == "run"
    assert "rejects.jsonl" in text
    texts = pd.read_parquet(run / "mismatches.parquet").text
    assert not any(each in text for each in texts)


def test_the_mail_of_the_nights_lies_beside_their_page(month: Path) -> None:
    text = (month / "report.txt").read_text(encoding="utf-8")
    check_letter(text)
    assert text.startswith("26 November 2026: it ran as usual and passed its gates.\n")
    assert "2026-11-22  unfinished        it has not finished" in text
    assert f"{month}/report.html" in text.replace("\n  ", "")


def test_a_mail_is_written_of_a_folder_of_odd_runs(tmp_path: Path) -> None:
    for k, name in enumerate(["\u202eevil", "日本語" * 20, "x" * 200]):
        write_run(tmp_path / name, nightly(k), NOW - datetime.timedelta(days=k))
    check_letter(write_trend(tmp_path, now=NOW).text.read_text(encoding="utf-8"))


def test_a_run_of_an_earlier_version_without_a_mail_is_removed_like_any_other() -> None:
    from batchscore.runs import folder

    assert folder.TEXT not in folder.ALWAYS_WRITTEN
    assert folder.TEXT in folder.TIMED


def test_groups_of_a_run_without_labels_are_none() -> None:
    found = metrics(Rows(np.full(50, -1), rows(50).predictions))
    assert groups_of(found) == []
    assert dataclasses.replace(RowGroup(LabelGroup(0, 1), (), 1, "x"), most=3).anchor == "rows-0-1"


@pytest.mark.parametrize("module", [night_reasons, text_lines, written_files], ids=lambda each: each.__name__)
def test_the_examples_hold(module: types.ModuleType) -> None:
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
