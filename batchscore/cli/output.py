"""Output that the commands share: logs, the JSON summary, errors as JSON, the metrics file."""

from __future__ import annotations

import contextlib
import datetime
import io
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from batchscore.cli.declaring import Command, option
from batchscore.errors import BatchscoreError, printable
from batchscore.system.surroundings import refuse_missing_folder, settle_in
from batchscore.system.terminal import Logs, boundary, end_at_once, say, set_up_logs, show, show_json

if TYPE_CHECKING:
    from batchscore.addresses import Place
    from batchscore.inbox.drop_folder import InboxResult
    from batchscore.runs.evaluating import EvaluationResult
    from batchscore.runs.result import RunResult

_LOG_FORMAT = "batchscore.log_format"
_STOPPED = {130, 143}
"""Exit codes of a command that a signal stopped."""
json_summary = click.option(
    "--json", "as_json", is_flag=True, help="Print a one-line JSON summary as the last line of stdout."
)


class TellsMachines(click.Command):
    """A command that prints usage errors as JSON too under ``--json``, and handles signals from its very start."""

    def main(self, args: Any = None, *rest: Any, **kwargs: Any) -> Any:
        """Run the command and exit with its code; a process that a signal stopped ends at once."""
        settle_in()
        try:
            self._run(args, *rest, **kwargs)
        except SystemExit as end:
            if args is None and end.code in _STOPPED:
                end_at_once(int(end.code))
            raise

    def _run(self, args: Any, *rest: Any, **kwargs: Any) -> NoReturn:
        arguments = list(sys.argv[1:] if args is None else args)
        with boundary("--json" in arguments):
            refuse_missing_folder()
            try:
                code = super().main(arguments, *rest, **{**kwargs, "standalone_mode": False})
            except click.ClickException as error:
                usage = io.StringIO()
                error.show(usage)
                show(usage.getvalue().removesuffix("\n"), err=True)
                if "--json" in arguments:
                    summary = {
                        "status": "error",
                        "exit_code": error.exit_code,
                        "error": error.format_message(),
                    }
                    show_json(summary)
                sys.exit(error.exit_code)
            sys.exit(code if isinstance(code, int) else 0)


def verbosity(command: Command) -> Command:
    """The options ``-q``, ``-v`` and ``--log-format``."""
    command = click.option("-v", "--verbose", count=True, help="Say more; -vv says everything.")(command)
    command = click.option("-q", "--quiet", is_flag=True, help="Print nothing on success.")(command)
    return option(
        "--log-format",
        type=click.Choice(("text", "json")),
        default="text",
        show_default=True,
        expose_value=False,
        callback=_note_log_format,
        help="Format of the messages on stderr: text for people, or one JSON object per line.",
    )(command)


def _note_log_format(context: click.Context, _: click.Parameter, value: str) -> None:
    context.meta[_LOG_FORMAT] = value


def start_logs(*, quiet: bool, verbose: int) -> Logs:
    """Set up logs as the options of the running command say, with an id for this call."""
    logs = Logs(-1 if quiet else verbose, click.get_current_context().meta[_LOG_FORMAT], secrets.token_hex(6))
    set_up_logs(logs)
    return logs


def raise_outcome(result: RunResult | InboxResult | EvaluationResult, summary: dict[str, Any]) -> None:
    """Raise the error of a result, if it has one, with the summary that ``--json`` prints."""
    try:
        result.outcome()
    except BatchscoreError as error:
        error.summary = summary
        raise


@contextlib.contextmanager
def measured(path: Path | None) -> Iterator[list[RunResult | InboxResult]]:
    """Write the metrics file at the end of the block, also after an error, from the last result in the list.

    Raises:
        OutputError: the file cannot be written; checked before the block begins.
        UsageError: the extra ``metrics`` is not installed.
    """
    if path is not None:
        from batchscore.cli.prometheus import refuse_unwritable

        refuse_unwritable(path)
    started, results = time.monotonic(), list["RunResult | InboxResult"]()
    code = 1
    try:
        yield results
        code = 0
    except BatchscoreError as error:
        code = error.exit_code
        raise
    finally:
        if path is not None:
            write_metrics(path, code, time.monotonic() - started, results[-1].metrics if results else {})


def write_metrics(path: Path, code: int, seconds: float, metrics: Mapping[str, Any]) -> None:
    """Write the metrics file; the writer is imported only when it is needed."""
    from batchscore.cli.prometheus import write_metrics as write

    write(path, code, seconds, metrics)


def remove_old(
    folder: Path,
    days: int | None,
    tell: Callable[[str], None],
    baseline: Place | Literal["latest"] | None = None,
    *,
    dry_run: bool = False,
) -> list[str]:
    """Remove the runs below ``folder`` that are older than ``days`` days, or only say which they are.

    A ``baseline`` that was named stays. What cannot be removed is told.
    """
    if days is None:
        return []
    from batchscore.inbox.housekeeping import remove_old_runs

    kept = baseline if isinstance(baseline, Path) else None
    found: list[str] = []
    now = datetime.datetime.now(datetime.UTC)
    for path, changed, problem in remove_old_runs(folder, days, now, kept=kept, dry_run=dry_run):
        found.append(str(path))
        if problem:
            say(f"warning: {printable(path)} is old but cannot be removed: {problem}")
            continue
        tell(f"{printable(path)}: {'would be removed' if dry_run else 'removed'}, older than {days} days")
        if changed:
            say(f"warning: {printable(path)}: changed since, so it stays: {printable(', '.join(changed))}")
    return found


def print_json(**summary: Any) -> None:
    """Print the line that ``--json`` asks for."""
    show_json(summary)


def gates_passed(metrics: Mapping[str, Any]) -> dict[str, bool]:
    """Whether each metric passed all of its gates."""
    passed: dict[str, bool] = {}
    for gate in metrics.get("gates") or []:
        passed[gate["metric"]] = passed.get(gate["metric"], True) and gate["passed"]
    return passed
