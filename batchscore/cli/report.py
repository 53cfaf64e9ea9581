"""``batchscore report``: one page about all runs in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from batchscore.cli.declaring import LocalPath, option
from batchscore.cli.options import Day
from batchscore.cli.output import json_summary, print_json, remove_old, start_logs, verbosity
from batchscore.errors import printable
from batchscore.system.terminal import boundary, show


@click.command("report")
@click.argument("runs_dir", type=LocalPath())
@option(
    "--output",
    type=LocalPath(),
    metavar="PAGE",
    help="The page to write; its numbers as JSON and its gist as text are written next to it.  [default: RUNS_DIR/report.html]",
)
@json_summary
@verbosity
@option(
    "--until",
    type=Day(),
    metavar="YYYY-MM-DD",
    help="Last day of the report: missing nights count up to it, later runs are left out.  [default: today]",
)
@option("--keep-days", type=click.IntRange(1), metavar="N", help="First remove runs older than N days.")
@click.option(
    "--dry-run", is_flag=True, help="Show what --keep-days would remove, but remove and write nothing."
)
def command(runs_dir: Path, *, quiet: bool, verbose: int, as_json: bool, **options: Any) -> None:
    """Write one page about all runs in a folder: trends, bad nights, missing nights."""
    start_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json):
        tell: Callable[[str], None] = (lambda _: None) if quiet or as_json else show
        removed = remove_old(runs_dir, options["keep_days"], tell, dry_run=options["dry_run"])
        if options["dry_run"]:
            if as_json:
                print_json(status="planned", exit_code=0, removed=removed)
            return
        from batchscore.runs.trend import write_trend

        trend = write_trend(runs_dir, options["output"], options["until"])
        if as_json:
            facts = {"page": str(trend.page), "data": str(trend.data), "text": str(trend.text)}
            print_json(
                status="written",
                exit_code=0,
                **facts,
                nights=trend.nights,
                headline=trend.headline,
                removed=removed,
            )
        elif not quiet:
            show(f"{trend.headline}\n{printable(trend.page)}")
