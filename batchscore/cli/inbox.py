"""``batchscore inbox``: score the files in a drop folder, once or as they come."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchscore.addresses import Address, Place
from batchscore.cli.declaring import AnyPlace, LocalPath, option
from batchscore.cli.options import MapsLabels, scoring_options
from batchscore.cli.output import (
    json_summary,
    measured,
    print_json,
    raise_outcome,
    remove_old,
    start_logs,
    verbosity,
    write_metrics,
)
from batchscore.cli.score import score_settings
from batchscore.config import InboxSettings, ScoreSettings
from batchscore.errors import UsageError, printable
from batchscore.system.terminal import Logs, Progress, boundary, say, show

if TYPE_CHECKING:
    from batchscore.inbox.drop_folder import FileOutcome, InboxResult
    from batchscore.runs.result import RunResult

_LOG = logging.getLogger(__name__)


@click.command("inbox", cls=MapsLabels)
@click.argument("inbox", type=AnyPlace())
@option(
    "--output",
    required=True,
    metavar="DIR",
    type=AnyPlace(),
    help="Folder for the run folders: each file gets DIR/<date>/<name>-<content hash>.",
)
@option("--require-done", is_flag=True, help="Take a file only when NAME.done lies beside it.")
@option(
    "--settle",
    type=click.FloatRange(0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Without --require-done: take a file when it has not changed for this long.",
)
@option(
    "--after",
    type=click.Choice(("keep", "move", "delete")),
    help="What becomes of a file in a bucket that was scored: it is kept, moved to done/, or removed.  [default: keep; in a folder "
    "always move]",
)
@option("--watch", is_flag=True, help="Keep running and score files as they come (extra: watch).")
@option("--keep-days", type=click.IntRange(1), metavar="N", help="Remove runs older than N days.")
@option("--skip-empty", is_flag=True, help="Exit with 99 if nothing is new.")
@option(
    "--metrics-file",
    type=LocalPath(),
    metavar="FILE.prom",
    help="Write metrics of this call for Prometheus (extra: metrics); with --watch after each round.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be scored and removed, but do neither.")
@scoring_options
@json_summary
@verbosity
def command(
    inbox: Place,
    output: Place,
    *,
    quiet: bool,
    verbose: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Score new files in a drop folder, each as its own run; safe to call every few minutes.

    A scored file moves to INBOX/done, one that cannot be scored to INBOX/failed with NAME.error.txt beside it; of a bucket, see
    --after.
    """
    logs = start_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json), measured(options["metrics_file"]) as results, contextlib.ExitStack() as stack:
        from batchscore.inbox import drop_folder as drop
        from batchscore.inbox import whole_files
        from batchscore.inbox.bucket_inbox import refuse_unfit
        from batchscore.runs.anywhere import with_copies

        refuse_unfit(options["after"], options, inbox, output)
        own = {name: options[name] for name in ("require_done", "settle", "skip_empty")}
        tell: Callable[[str], None] = (lambda _: None) if quiet or as_json else show
        score = stack.enter_context(
            with_copies(score_settings(output=output, **{**options, "skip_empty": False}), f"{inbox} (model)")
        )  # a file without rows is scored too
        if isinstance(inbox, Address):
            result = _empty_bucket(inbox, output, score, tell, logs, **options)
            results.append(result)
            removed = (
                remove_old(output, options["keep_days"], tell, score.baseline)
                if isinstance(output, Path)
                else []
            )
            _told(result, removed, as_json=as_json)
            return
        assert isinstance(output, Path)  # noqa: S101 - refused above
        settings = InboxSettings(inbox, output, score, **own)
        if options["watch"] and options["keep_days"]:
            raise UsageError(
                "--keep-days is for calls that end; let `batchscore report --keep-days` remove old runs."
            )
        if options["dry_run"]:
            found = whole_files.contents(settings)
            files = [path.name for path in found.whole]
            for name in files:
                tell(f"{printable(name)}: would be scored")
            if found.settling:
                tell(whole_files.settling_line(found.settling, settings))
            removed = remove_old(output, options["keep_days"], tell, score.baseline, dry_run=True)
            if as_json:
                print_json(status="planned", exit_code=0, files=files, removed=removed)
            return
        note = _tell_of_files(logs, tell)
        if options["watch"]:
            drop.watch(
                settings, note, logs, lambda result: _conclude(result, results, options["metrics_file"])
            )
        result = drop.empty(settings, note, logs)
        results.append(result)
        if result.settling:
            tell(whole_files.settling_line(result.settling, settings))
        elif not result.files:
            tell(f"nothing new in {printable(inbox)}")
        removed = remove_old(output, options["keep_days"], tell, score.baseline)
        _told(result, removed, as_json=as_json)


def _told(result: InboxResult, removed: list[str], *, as_json: bool) -> None:
    """The end of a call: its error, or its summary."""
    summary = {**result.summary(), "removed": removed}
    raise_outcome(result, summary)
    if as_json:
        print_json(**summary)


def _empty_bucket(
    inbox: Address,
    output: Place,
    score: ScoreSettings,
    tell: Callable[[str], None],
    logs: Logs,
    **options: Any,
) -> InboxResult:
    """One call on an inbox in a bucket."""
    from batchscore.inbox.bucket_inbox import BucketInboxSettings, empty

    settings = BucketInboxSettings(
        inbox, output, score, options["after"] or "keep", options["require_done"], options["skip_empty"]
    )
    result = empty(settings, _tell_of_files(logs, tell), lambda total: Progress(total, quiet=True))
    if not result.files:
        tell(f"nothing new in {printable(inbox)}")
    return result


def _tell_of_files(logs: Logs, tell: Callable[[str], None]) -> Callable[[FileOutcome], None]:
    """A function that reports each file of a drop folder: as a line for people, or as a log event."""
    from batchscore.inbox.drop_folder import line

    def note(taken: FileOutcome) -> None:
        if logs.format == "json":
            facts = {
                name: value for name, value in taken._asdict().items() if name not in {"name", "message"}
            }
            say(line(taken), event="file", file=printable(taken.name), **facts)
        else:
            tell(line(taken))

    return note


def _conclude(
    result: InboxResult, measured: list[RunResult | InboxResult], metrics_file: Path | None
) -> None:
    """After a round of ``--watch``: the numbers are written."""
    measured[:] = [result]
    if metrics_file is not None:
        write_metrics(metrics_file, result.exit_code, result.seconds, result.metrics)
