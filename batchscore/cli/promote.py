"""``batchscore promote``: let a challenger take the champion's place, if it is better."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchscore.cli.declaring import Command, LocalPath, option
from batchscore.cli.options import LocalName, MapsLabels, scoring_options
from batchscore.cli.output import json_summary, print_json, start_logs, verbosity
from batchscore.cli.score import command as score_command
from batchscore.cli.score import score_settings
from batchscore.errors import GateFailedError, UsageError, printable
from batchscore.system.terminal import Progress, boundary, show

if TYPE_CHECKING:
    from batchscore.config import ScoreSettings
    from batchscore.runs.promotion import Promotion


_JUDGING = frozenset(
    {
        *(
            "trust",
            "text_column",
            "text_pair_column",
            "missing_pair",
            "label_column",
            "label_map",
            "input_format",
        ),
        *(
            "delimiter",
            "quotechar",
            "escapechar",
            "encoding",
            "sheet",
            "skip_lines",
            "header_lines",
            "no_header",
            "column_names",
        ),
        *(
            "device",
            "precision",
            "backend",
            "max_batch_tokens",
            "long_text",
            "max_rejects",
            "fail_below",
            "fail_above",
        ),
        *("slice_column", "no_text", "workers"),
    }
)
"""Those that say how rows are read, scored and judged, without those of where predictions go and what they hold."""


def judging_options(command: Command) -> Command:
    """The options of scoring that a comparison of two models has too."""
    own = list(getattr(command, "__click_params__", ()))
    command = scoring_options(command)
    params: list[click.Parameter] = command.__click_params__  # type: ignore[attr-defined]
    params[:] = [*own, *(each for each in params[len(own) :] if each.name in _JUDGING)]
    return command


@click.command("promote", cls=MapsLabels)
@click.argument("challenger", type=LocalName(), required=False)
@option(
    "--over",
    required=True,
    type=LocalPath(),
    metavar="CHAMPION",
    help="The link to a bundle that your jobs name as their --model; it is moved to the challenger if that is better.",
)
@option(
    "--data",
    multiple=True,
    type=LocalName(),
    metavar="DATA",
    help="Labelled rows that neither of both was trained on: a file, a folder or a glob. Repeatable.",
)
@option(
    "--output",
    type=LocalPath(),
    metavar="DIR",
    help="Keep both runs in this folder, champion/ and challenger/, whose page shows the comparison.  [default: not kept]",
)
@option("--rollback", is_flag=True, help="Go back to the champion before; nothing is scored.")
@judging_options
@click.option("--force", is_flag=True, help="Score again even if done, and replace what is in the folder.")
@json_summary
@verbosity
def command(
    challenger: str | None,
    over: Path,
    *,
    output: Path | None,
    rollback: bool,
    quiet: bool,
    verbose: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Score the same labelled rows with two bundles, and move the champion's link to CHALLENGER only if it is better."""
    start_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json):
        from batchscore.runs.promotion import PromoteSettings, promote, roll_back

        data = options.pop("data")
        if rollback:
            if challenger is not None or data:
                raise UsageError(
                    "--rollback goes back to the champion before: leave CHALLENGER and --data out."
                )
            target = roll_back(over, tuple(options["trust"]))
            if as_json:
                print_json(status="rolled back", exit_code=0, champion=target)
            elif not quiet:
                show(f"{printable(over)} leads to {printable(target)} again")
            return
        if challenger is None or not data:
            raise UsageError("Name CHALLENGER, and labelled rows with --data; or --rollback.")
        done = promote(
            PromoteSettings(challenger, over, _asked(options, challenger, data), output),
            lambda total: Progress(total, quiet=quiet),
        )
        summary = _summary(done)
        if not done.is_promoted:
            error = GateFailedError(
                f"{printable(challenger)} is not promoted: {'; '.join(done.reasons)}. {printable(over)} is as it was."
            )
            error.summary = summary
            raise error
        for line in _lines(done, over) if not quiet and not as_json else ():
            show(line)
        if as_json:
            print_json(**summary)


def _asked(options: dict[str, Any], challenger: str, data: tuple[str, ...]) -> ScoreSettings:
    """How both are scored: what ``score`` does without an option that this command does not have."""
    context = click.get_current_context()
    usual = {param.name: _usual(param, context) for param in score_command.params}
    given = {"inputs": data, "model": challenger, "output": Path()}
    return score_settings(**{str(name): value for name, value in {**usual, **options, **given}.items()})


def _usual(param: click.Parameter, context: click.Context) -> Any:
    """What the function of a command gets for an option that is not given."""
    if param.multiple:
        return ()
    value = param.get_default(context)
    return value if isinstance(value, str | int | float) else None  # click has a value of its own for none


def _summary(done: Promotion) -> dict[str, Any]:
    """What ``--json`` prints."""
    fingerprints = {"champion": done.champion, "challenger": done.challenger}
    page = {"page": str(done.page)} if done.page else {}
    return {
        "status": done.status,
        "exit_code": 0,
        **fingerprints,
        "reasons": list(done.reasons),
        **done.comparison,
        **page,
    }


def _lines(done: Promotion, over: Path) -> list[str]:
    """What is printed for people."""
    if done.status == "already":
        return [f"{printable(over)} leads to this very bundle already; nothing to do"]
    found = done.comparison
    change = found["accuracy_change"]
    told = (
        f"promoted: {found['fixed']} rows fixed and {found['broken']} broken of {found['evaluated']}, accuracy "
        f"{change['value']:+.2%} ({change['low']:+.2%} to {change['high']:+.2%}, p = {found['p_value']:.3g})"
    )
    back = (
        f"{printable(over)} leads to it now; batchscore promote --rollback --over {printable(over)} goes back"
    )
    return [told, back, *([printable(done.page)] if done.page else [])]
