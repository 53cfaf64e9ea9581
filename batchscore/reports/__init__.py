"""Pages from metrics: each page is one function, with its template beside it.

``run_page`` is the page of one run, ``trend_page`` that of all nights in a folder; ``run_text`` and ``trend_text`` are the same
in a few lines for a mail. Nothing heavy is imported before a page is made.
"""

from __future__ import annotations

from batchscore.reports.run_page import render_run
from batchscore.reports.run_text import run_text
from batchscore.reports.trend_page import judge, render_trend, trend_json
from batchscore.reports.trend_text import trend_text

__all__ = ["judge", "render_run", "render_trend", "run_text", "trend_json", "trend_text"]
