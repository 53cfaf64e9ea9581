"""``batchscore score``: the command, its settings and what it prints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click
from click.core import iter_params_for_processing

from batchscore.addresses import BUCKETS, HUB, Address, copy_of
from batchscore.cli.declaring import AnyPlace, LocalPath, option
from batchscore.cli.options import (
    AnyName,
    Day,
    MapsLabels,
    finite,
    read_settings,
    scoring_options,
    with_each_mapping,
)
from batchscore.cli.output import (
    gates_passed,
    json_summary,
    measured,
    print_json,
    raise_outcome,
    start_logs,
    verbosity,
)
from batchscore.cli.output_options import names_of, renames_of
from batchscore.cli.settings_file import config_lines
from batchscore.config import Allowance, ComputeSettings, ScoreSettings
from batchscore.errors import UsageError, printable
from batchscore.model.labels import parse_label_map
from batchscore.model.thresholds import parse_accept, parse_confidence, parse_thresholds
from batchscore.runs.choices import choice_of
from batchscore.runs.folder import MISMATCHES, PAGE
from batchscore.runs.headlines import headline_of
from batchscore.system.terminal import Progress, boundary, say, show

if TYPE_CHECKING:
    from batchscore.runs.forecast import Forecast
    from batchscore.runs.result import RunResult


class _ScoreCommand(MapsLabels):
    """``score``; ``--show-config`` prints the settings before any is checked or found missing."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--show-config" in args and "--" not in args:
            values, _, order = self.make_parser(ctx).parse_args(args=with_each_mapping(args))
            for param in iter_params_for_processing(order, self.get_params(ctx)):
                if param.name == "config":
                    param.handle_parse_result(ctx, values, [])
            for line in config_lines(ctx, self.get_params(ctx), values):
                show(line)
            ctx.exit()
        return super().parse_args(ctx, args)


@click.command("score", cls=_ScoreCommand)
@click.argument("inputs", type=AnyName(*BUCKETS, HUB), metavar="INPUT...", nargs=-1, required=True)
@option("--output", required=True, metavar="DIR", type=AnyPlace(), help="The run folder.")
@scoring_options
@option(
    "--date",
    type=Day(),
    metavar="YYYY-MM-DD",
    help="The night that the run is for.  [default: from the name of its folder, else the day on which it ends]",
)
@option("--limit", type=click.IntRange(0), metavar="N", help="Score only the first N rows.")
@option("--skip-empty", is_flag=True, help="Exit with 99 if there is no file or no row to score.")
@option(
    "--verify",
    is_flag=True,
    help="Hash every file of a run that has finished, not only those that seem to have changed.",
)
@option(
    "--verify-inputs",
    is_flag=True,
    help="Hash every input of a run that was begun or has finished, not only those that seem to have changed.",
)
@option(
    "--metrics-file",
    type=LocalPath(),
    metavar="FILE.prom",
    help="Write the run's metrics for Prometheus (extra: metrics).",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Read the inputs, load the model, and show the plan and what it would take; write nothing.",
)
@click.option("--force", is_flag=True, help="Score again even if done, and replace what is in the folder.")
@click.option(
    "--show-config",
    is_flag=True,
    help="Print each option with its value and where the value comes from, then exit.",
)
@json_summary
@verbosity
def command(*, quiet: bool, verbose: int, as_json: bool, **options: Any) -> None:
    """Score files, folders or globs, and write predictions, mismatches, metrics and a report."""
    logs = start_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json), measured(options["metrics_file"]) as results:
        settings = score_settings(**options)
        from batchscore.runs.anywhere import score as run

        result = run(settings, lambda total: Progress(total, quiet=quiet))
        results.append(result)
        if logs.format == "json" and not quiet:
            say(f"{result.status}: {printable(result.place)}", **_event(result))
        for line in _lines(result) if not quiet and not as_json else ():
            show(line)
        summary = _summary(result)
        raise_outcome(result, summary)
        if as_json:
            print_json(**summary)


def _event(result: RunResult) -> dict[str, Any]:
    """Fields of the log event at the end of a run."""
    facts = {"output": str(result.place), "rows": result.rows, "rejects": result.rejects}
    return {"event": result.status, **facts, "seconds": round(result.seconds, 3)}


def score_settings(**options: Any) -> ScoreSettings:
    """The settings object made of what click parsed."""
    read = read_settings(
        options,
        format=options["input_format"],
        text_column=options["text_column"],
        text_pair_column=options["text_pair_column"],
        label_column="" if options["no_labels"] else options["label_column"],
        label_columns=() if options["no_labels"] else names_of(options["label_columns"], "--label-columns"),
        id_column=options["id_column"],
        max_row_bytes=options["max_row_bytes"],
        max_columns=options["max_columns"],
        max_expansion=options["max_expansion"],
    )
    least, most = options["workers"] or (1, None)
    compute = ComputeSettings(
        device=options["device"],
        precision=options["precision"],
        backend=options["backend"],
        max_batch_tokens=_budget(options["max_batch_tokens"]),
        workers=most,
        least_workers=least,
        wait_for_workers=options["wait_for_workers"],
        compile=options["compile_"],
    )
    return ScoreSettings(
        inputs=options.get("inputs", ()),
        model=options["model"],
        output=copy_of(options["output"]),
        bucket=options["output"] if isinstance(options["output"], Address) else None,
        revision=options["revision"],
        trust=tuple(options["trust"]),
        label_map=parse_label_map(options["label_map"]),
        thresholds=parse_thresholds(options["threshold"]),
        below=options["below"],
        accept=parse_accept(options["accept"]),
        accept_on=options["accept_on"],
        accept_confidence=parse_confidence(options["accept_confidence"]),
        tolerance=finite(options["tolerance"], "--tolerance"),
        read=read,
        compute=compute,
        output_format=options["output_format"],
        long_text=options["long_text"],
        missing_pair=options["missing_pair"],
        max_rejects=Allowance.parse(options["max_rejects"]),
        fail_below=tuple(options["fail_below"]),
        fail_above=tuple(options["fail_above"]),
        baseline=options["baseline"],
        reuse=options["reuse"],
        audit=share_of(options["audit"], "--audit"),
        slice_columns=tuple(dict.fromkeys(options["slice_column"])),
        with_text=not options["no_text"],
        engine=options["engine"],
        limit=options.get("limit"),
        skip_empty=options.get("skip_empty", False),
        verify=options.get("verify", False),
        verify_inputs=options.get("verify_inputs", False),
        dry_run=options.get("dry_run", False),
        force=options.get("force", False),
        prefix=options["prefix"],
        partition_by=options["partition_by"],
        append_to=options["append_to"],
        keep_columns=names_of(options["keep_columns"], "--keep-columns"),
        drop_columns=names_of(options["drop_columns"], "--drop-columns"),
        probabilities=options["probabilities"],
        renames=renames_of(options["rename"]),
        date=options.get("date"),
    )


def share_of(text: str, flag: str) -> float:
    """A share that is written as a percentage."""
    try:
        share = float(text.removesuffix("%")) / 100 if text.endswith("%") else math.nan
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise UsageError(f"{flag} {printable(repr(text))} is no percentage between 0% and 100%, such as 1%.")
    return share


def _budget(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--max-batch-tokens {text!r} is neither auto nor a number of tokens, such as 8192.")
    return int(text)


def _summary(result: RunResult) -> dict[str, Any]:
    """What ``--json`` prints about a run."""
    metrics, headline = result.metrics, headline_of(result.metrics)
    return {
        "status": result.status,
        "exit_code": 0,
        "output": str(result.place),
        "rows": result.rows,
        "rejects": result.rejects,
        "counts": metrics.get("counts", {}),
        headline.key: (headline.value or {}).get("value"),
        "mismatches": metrics.get("mismatches"),
        **({"accepted": metrics["acceptance"]["accepted"]} if metrics.get("acceptance") else {}),
        **({"appended": [str(path) for path in result.appended]} if result.appended else {}),
        **(
            {"appended_before": [str(path) for path in result.appended_before]}
            if result.appended_before
            else {}
        ),
        "gates": gates_passed(metrics),
        **({"forecast": result.forecast.to_json()} if result.forecast else {}),
        "seconds": round(result.seconds, 3),
    }


def _of_all(metrics: Mapping[str, Any]) -> str:
    """The share of labelled rows that have a prediction, where some have none for a threshold."""
    from batchscore.evaluation.metrics import answered_share

    share = answered_share(metrics)
    return "" if share is None else f" ({share:.1%}; the others abstained)"


def _forecast_lines(forecast: Forecast) -> list[str]:
    """What a run would take, for people."""
    tokens = f"about {forecast.tokens:,} tokens, from a sample of {forecast.sampled:,} rows"
    here = f"about {_duration(forecast.seconds())} on {forecast.device}, {forecast.workers} at a time"
    asked, more = forecast.asked, ""
    if asked not in {None, forecast.workers}:
        more = f" ({asked} at a time, on as many cores or devices: {_duration(forecast.seconds(asked))})"
    return [f"  {tokens}", f"  {here}{more}, in {forecast.memory / 2**30:.1f} GiB of memory"]


def _duration(seconds: float) -> str:
    """Words for a time that is not known exactly."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _lines(result: RunResult) -> list[str]:
    """What is printed about a run for people."""
    counts, headline = result.metrics.get("counts", {}), str(headline_of(result.metrics))
    if result.status == "planned" and result.plan is not None:
        head = f"{result.rows} rows in {len(result.plan.parts)} parts, {result.rejects} rejects; nothing was scored"
        return [
            head,
            *(
                f"  {printable(f.shown)}: {f.format}, {f.rows} rows, {choice_of(f)}"
                for f in result.plan.files
            ),
            *(_forecast_lines(result.forecast) if result.forecast else ()),
        ]
    again = " (it had been finished before)" if result.status == "done" else ""
    kinds = {"scored": "scored", "null_text": "null", "empty_text": "empty", "rejects": "rejected"}
    kinds |= {"abstained": "abstained"} if counts.get("abstained") else {}
    rows = ", ".join(f"{counts[name]} {word}" for name, word in kinds.items())
    lines = [f"{counts['read']} rows read: {rows}{again}"]
    if headline:
        found = result.metrics["mismatches"]
        mismatches = f"{found} mismatches" if found is not None else f"those furthest off are in {MISMATCHES}"
        lines.append(
            f"{headline} on {counts['evaluated']} labelled rows{_of_all(result.metrics)}, {mismatches}"
        )
    if accepted := result.metrics.get("acceptance"):
        lines.append(
            f"{accepted['accepted']} rows accepted, {accepted['review']} to review (promised: {accepted['precision']:.2%} right)"
        )
    lines.append(f"{printable(result.place)}/{PAGE}")
    return lines
