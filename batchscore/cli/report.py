"""``batchscore report``: one page about all runs in a folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from batchscore.addresses import Address, Place
from batchscore.cli.declaring import AnyPlace, LocalPath, option
from batchscore.cli.options import Day
from batchscore.cli.output import json_summary, print_json, remove_old, start_logs, verbosity
from batchscore.errors import UsageError, printable
from batchscore.system.terminal import boundary, show

if TYPE_CHECKING:
    from batchscore.runs.trend import Trend
    from batchscore.runs.visiting import BucketTrend


@click.command("report")
@click.argument("runs_dir", type=AnyPlace())
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
def command(runs_dir: Place, *, quiet: bool, verbose: int, as_json: bool, **options: Any) -> None:
    """Write one page about all runs in a folder: trends, bad nights, missing nights."""
    start_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json):
        tell: Callable[[str], None] = (lambda _: None) if quiet or as_json else show
        if isinstance(runs_dir, Address):
            _in_bucket(runs_dir, tell, as_json=as_json, **options)
            return
        removed = remove_old(runs_dir, options["keep_days"], tell, dry_run=options["dry_run"])
        if options["dry_run"]:
            if as_json:
                print_json(status="planned", exit_code=0, removed=removed)
            return
        from batchscore.runs.trend import write_trend

        _tell(write_trend(runs_dir, options["output"], options["until"]), removed, tell, as_json=as_json)


def _in_bucket(runs: Address, tell: Callable[[str], None], *, as_json: bool, **options: Any) -> None:
    given = [f"--{name.replace('_', '-')}" for name in ("output", "keep_days", "dry_run") if options[name]]
    if given:
        raise UsageError(
            f"{given[0]} is for runs on this machine, and RUNS_DIR is in a bucket. Leave it out."
        )
    from batchscore.runs.visiting import write_trend_there

    _tell(write_trend_there(runs, options["until"]), [], tell, as_json=as_json)


def _tell(
    trend: Trend | BucketTrend, removed: list[str], tell: Callable[[str], None], *, as_json: bool
) -> None:
    tell(f"{trend.headline}\n{printable(trend.page)}")
    if as_json:
        facts = {"page": str(trend.page), "data": str(trend.data), "text": str(trend.text)}
        written = {**facts, "nights": trend.nights, "headline": trend.headline, "removed": removed}
        print_json(status="written", exit_code=0, **written)
