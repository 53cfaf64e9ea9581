"""Pages from metrics: each page is one function, with its template beside it.

``run_page`` is the page of one run, ``trend_page`` that of all nights in a folder. Nothing heavy is imported before a
page is made.
"""

from __future__ import annotations

from batchscore.reports.run_page import render_run
from batchscore.reports.trend_page import judge, render_trend, trend_json

__all__ = ["judge", "render_run", "render_trend", "trend_json"]
