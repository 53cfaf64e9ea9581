"""All nights as plain text for a mail: the verdict, the last nights with their reasons, and where to look."""

from __future__ import annotations

from batchscore.reports.formats import day
from batchscore.reports.night_reasons import reason_of
from batchscore.reports.nights import Nights
from batchscore.reports.nights_calendar import STATE_WORDS
from batchscore.reports.tables import Table
from batchscore.reports.text_lines import Section, columns, letter, paragraph
from batchscore.reports.trend_page import judge

_NIGHTS = 10


def trend_text(nights: Nights, *, place: str = "") -> str:
    """At most 25 lines of at most 78 columns; ``place``: the page of these nights."""
    told, shown = judge(nights), nights.shown
    sections = [Section(paragraph(told.headline))]
    if shown:
        period = f"{len(shown):,} nights, {day(shown[0].date)} to {day(shown[-1].date)}"
        sections.append(Section(paragraph(period, 1)))
    sections.append(Section([""]))
    sections += [Section(paragraph(f"{each.question}: {each.answer}", 3, "  ")) for each in told.answers]
    if shown:
        lines = [
            [night.date.isoformat(), STATE_WORDS[night.state], reason_of(night)]
            for night in reversed(shown[-_NIGHTS:])
        ]
        table = columns(Table(["night", "state", "reason"], lines, words=3), _NIGHTS)
        sections += [Section([""]), Section(table, least=4, is_list=True)]
    if place:
        sections += [Section([""]), Section(paragraph(f"Where to look: {place}", 4, "  "), least=4)]
    return letter(sections)
