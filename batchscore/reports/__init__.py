"""Metrics in, pages out: a page is one function, its template beside it."""

from __future__ import annotations

from batchscore.reports.run_page import render_run

__all__ = ["render_run"]
