"""The command line: each command parses, builds one settings object, calls one function, shows what came back.

Nothing heavy is imported until a command runs, so that ``--help`` is immediate.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import secrets
import time
import tomllib
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import iter_params_for_processing

from batchscore import __version__
from batchscore.cli.options import (
    Device,
    LocalName,
    LocalPath,
    MapsLabels,
    TellsMachines,
    option,
    read_settings,
    reading_options,
    with_each_mapping,
)
from batchscore.config import (
    COMPILE,
    FORMATS,
    LONG_TEXT,
    PRECISIONS,
    Allowance,
    ComputeSettings,
    InboxSettings,
    ScoreSettings,
)
from batchscore.errors import BatchscoreError, ModelError, UsageError, printable
from batchscore.model.labels import parse_label_map
from batchscore.runs.choices import choice_of
from batchscore.system.terminal import Logs, Progress, boundary, say, set_up_logs

if TYPE_CHECKING:
    from batchscore.inbox.drop_folder import FileOutcome, InboxResult
    from batchscore.runs.run import RunResult

__all__ = ["main", "train_main"]

Command = TypeVar("Command", bound=Callable[..., Any])


def _load_config(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Make the values of a TOML file the defaults of the options; an unknown key is an error."""
    if path is None:
        return
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"--config {printable(path)} cannot be read: {printable(error)}.") from error
    options = {
        long.strip("-").replace("-", "_"): p
        for p in context.command.params
        for long in p.opts
        if p.name and (long.startswith("--") or isinstance(p, click.Argument))
    }
    context.default_map = {
        options[key].name or key: [value] if _is_single(options[key], value) else value
        for key, value in _checked(values, set(options), path).items()
    }


def _is_single(parameter: click.Parameter, value: object) -> bool:
    """Whether one value was given where a list is wanted."""
    return isinstance(value, str) and getattr(parameter, "multiple", False)


def _checked(values: dict[str, Any], known: set[str], path: Path) -> dict[str, Any]:
    import difflib

    options = {key.replace("-", "_"): value for key, value in values.items()}
    for key in options:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f" Did you mean {close[0].replace('_', '-')}?" if close else ""
            raise ModelError(f"--config {printable(path)}: there is no option {printable(key)}.{hint}")
    return {key: value if isinstance(value, list | bool) else str(value) for key, value in options.items()}


def _verbosity(command: Command) -> Command:
    command = click.option(
        "-v", "--verbose", count=True, help="More about what happens; twice for everything."
    )(command)
    command = click.option("-q", "--quiet", is_flag=True, help="Silent on success.")(command)
    return option(
        "--log-format",
        type=click.Choice(("text", "json")),
        default="text",
        show_default=True,
        expose_value=False,
        callback=_note_log_format,
        help="Of what goes to stderr: for people, or an object a line for machines.",
    )(command)


def _note_log_format(context: click.Context, _: click.Parameter, value: str) -> None:
    context.meta[_LOG_FORMAT] = value


def _set_up_logs(*, quiet: bool, verbose: int) -> Logs:
    """Logs as the running command was asked for them, under an id of this call."""
    logs = Logs(-1 if quiet else verbose, click.get_current_context().meta[_LOG_FORMAT], secrets.token_hex(6))
    set_up_logs(logs)
    return logs


_LOG_FORMAT = "batchscore.log_format"
_JSON = click.option(
    "--json", "as_json", is_flag=True, help="A one-line JSON summary as the last line of stdout."
)


class _Commands(TellsMachines, click.Group):
    """Commands in the order of their definition."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own signature
        return list(self.commands)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="batchscore")
def main() -> None:
    """Score files of texts with a saved classifier: every row, in order, safe to kill, easy to trust."""


_SCORING_OPTIONS = (
    option(
        "--model",
        required=True,
        type=LocalName(),
        metavar="PATH",
        help="A bundle, a local Hugging Face folder, or a hub id.",
    ),
    option("--revision", metavar="COMMIT", help="The full commit of a hub id."),
    option(
        "--text-column", metavar="NAME", help="The column with the texts.  [default: found by name and type]"
    ),
    option("--label-column", metavar="NAME", help="The column with given labels.  [default: found by name]"),
    option("--id-column", metavar="NAME", help="The column with ids.  [default: found by name]"),
    option(
        "--no-labels", is_flag=True, help="Leave given labels alone, even where a column looks like them."
    ),
    option(
        "--label-map",
        multiple=True,
        metavar="GIVEN=LABEL",
        help="What a given label means: pos=POSITIVE, 4..5=POSITIVE, 3= (no label), or ids (numbers are the model's ids). "
        "Repeatable.",
    ),
    option("--format", "input_format", type=click.Choice(FORMATS), help="Of the inputs.  [default: found]"),
    reading_options,
    option(
        "--output-format",
        type=click.Choice(("same", *FORMATS)),
        default="same",
        show_default=True,
        help="Of the predictions.",
    ),
    option(
        "--device",
        type=Device(),
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda[:N]",
        help="Where to compute.",
    ),
    option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="auto",
        show_default=True,
        help="How to compute.",
    ),
    option(
        "--backend", default="auto", show_default=True, metavar="auto|torch|openvino", help="What computes."
    ),
    option(
        "--max-batch-tokens",
        default="auto",
        show_default=True,
        metavar="auto|N",
        help="Padded tokens in a micro-batch.",
    ),
    option(
        "--long-text",
        type=click.Choice(LONG_TEXT),
        help="What happens beyond the model's longest input.  [default: as the bundle says, else head]",
    ),
    option(
        "--max-rejects",
        default="0",
        show_default=True,
        metavar="N|P%",
        help="How many unreadable rows the run may have.",
    ),
    option(
        "--max-row-bytes",
        type=click.IntRange(1),
        default=32 * 2**20,
        show_default=True,
        help="A longer row is a reject.",
    ),
    option(
        "--max-columns",
        type=click.IntRange(1),
        default=10_000,
        show_default=True,
        help="A wider file is refused.",
    ),
    option(
        "--max-expansion",
        type=click.IntRange(1),
        default=200,
        show_default=True,
        help="Decompressed bytes for each byte on disk.",
    ),
    option(
        "--fail-under",
        multiple=True,
        metavar="METRIC=X",
        help="Quality gate, e.g. accuracy=0.85. Repeatable.",
    ),
    option(
        "--fail-over",
        multiple=True,
        metavar="METRIC=X",
        help="The same, e.g. ece=0.05 or null_text=1%. Repeatable.",
    ),
    option("--baseline", type=LocalPath(), metavar="RUN_DIR", help="Compare with an earlier run."),
    option(
        "--slice-column",
        multiple=True,
        metavar="NAME",
        help="Break accuracy down by this column. Repeatable.",
    ),
    option("--no-text", is_flag=True, help="Leave texts out of report.html."),
    option("--engine", default="local", show_default=True, metavar="local|ray", help="Where parts run."),
    option(
        "--workers",
        type=click.IntRange(1),
        metavar="N",
        help="How many micro-batches are computed at a time.  [default: one for each core]",
    ),
    option(
        "--compile",
        "compile_",
        type=click.Choice(COMPILE),
        default="auto",
        show_default=True,
        help="Compile the model first, which takes half a minute; auto does not.",
    ),
    option("--prefix", default="", metavar="STR", help="Put before the name of each added column."),
    click.option(
        "--config",
        type=LocalPath(),
        callback=_load_config,
        is_eager=True,
        expose_value=False,
        metavar="FILE.toml",
        help="Defaults for any option; a flag wins over the environment (BATCHSCORE_...), that over the file.",
    ),
)


def _scoring_options(command: Command) -> Command:
    """Everything that says how a file is scored."""
    for each in reversed(_SCORING_OPTIONS):
        command = each(command)
    return command


class _ScoreCommand(MapsLabels):
    """``score``, which under ``--show-config`` says what holds before anything is missed or refused."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--show-config" in args and "--" not in args:
            values, _, order = self.make_parser(ctx).parse_args(args=with_each_mapping(args))
            for param in iter_params_for_processing(order, self.get_params(ctx)):
                if param.name == "config":
                    param.handle_parse_result(ctx, values, [])
            for line in _config_lines(ctx, self.get_params(ctx), values):
                click.echo(line)
            ctx.exit()
        return super().parse_args(ctx, args)


def _config_lines(
    context: click.Context, params: list[click.Parameter], given: Mapping[str, Any]
) -> Iterator[str]:
    """``name = value  (source)`` for each option, in the notation of a settings file where there is one."""
    words = {"COMMANDLINE": "flag", "ENVIRONMENT": "environment", "DEFAULT_MAP": "file", "DEFAULT": "default"}
    for param in params:
        if not isinstance(param, click.Option) or param.name in {
            "config",
            "help",
            "show_config",
            "dry_run",
            "force",
        }:
            continue
        value, source = param.consume_value(context, given)
        name = next(opt for opt in param.opts if opt.startswith("--")).strip("-")
        is_set = value not in {None, ()} if isinstance(value, Hashable) else bool(value)
        text = json.dumps(value, default=str) if is_set and "UNSET" not in repr(value) else "(not set)"
        yield f"{name} = {text}  ({words.get(source.name, source.name.lower())})"


@main.command(cls=_ScoreCommand)
@click.argument("inputs", type=LocalName(), metavar="INPUT...", nargs=-1, required=True)
@option("--output", required=True, metavar="DIR", type=LocalPath(), help="The run folder.")
@_scoring_options
@option(
    "--date",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="The night that the run is for.  [default: as the name of its folder says, else the day on which it ends]",
)
@option("--limit", type=click.IntRange(0), metavar="N", help="The first N rows only.")
@option("--skip-empty", is_flag=True, help="Exit with 99 where there is no file or no row to score.")
@option(
    "--metrics-file",
    type=LocalPath(),
    metavar="FILE.prom",
    help="Write the run's numbers for Prometheus (extra: metrics).",
)
@click.option("--dry-run", is_flag=True, help="Read and plan, score nothing, write nothing.")
@click.option("--force", is_flag=True, help="Score again although done; replace what the folder holds.")
@click.option("--show-config", is_flag=True, help="Print each option, its value and where that comes from.")
@_JSON
@_verbosity
def score(*, quiet: bool, verbose: int, as_json: bool, **options: Any) -> None:
    """Score files, folders or globs, and write predictions, mismatches, metrics and a report."""
    logs = _set_up_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json), _measured(options["metrics_file"]) as measured:
        settings = _score_settings(**options)
        from batchscore.runs.run import score as run

        result = run(settings, lambda total: Progress(total, quiet=quiet))
        measured.append(result)
        if logs.format == "json" and not quiet:
            say(f"{result.status}: {printable(result.output)}", **_event(result))
        for line in _lines(result) if not quiet and not as_json else ():
            click.echo(line)
        summary = _summary(result)
        _raise_outcome(result, summary)
        if as_json:
            _print_json(**summary)


def _raise_outcome(result: RunResult | InboxResult, summary: dict[str, Any]) -> None:
    """Raise what is to be raised of a result, with the summary that ``--json`` prints in the end."""
    try:
        result.outcome()
    except BatchscoreError as error:
        error.summary = summary
        raise


@contextlib.contextmanager
def _measured(path: Path | None) -> Iterator[list[RunResult | InboxResult]]:
    """Write the metrics file when the block has ended, however it did, of the result that was put into the list.

    Raises:
        OutputError: the file cannot be written, known before the block begins.
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
            _write_metrics(path, code, time.monotonic() - started, results[-1].metrics if results else {})


def _write_metrics(path: Path, code: int, seconds: float, metrics: Mapping[str, Any]) -> None:
    from batchscore.cli.prometheus import write_metrics

    write_metrics(path, code, seconds, metrics)


def _event(result: RunResult) -> dict[str, Any]:
    """What a log for machines says of a run that ended."""
    facts = {"output": str(result.output), "rows": result.rows, "rejects": result.rejects}
    return {"event": result.status, **facts, "seconds": round(result.seconds, 3)}


def _score_settings(**options: Any) -> ScoreSettings:
    """One frozen settings object from what click parsed."""
    read = read_settings(
        options,
        format=options["input_format"],
        text_column=options["text_column"],
        label_column="" if options["no_labels"] else options["label_column"],
        id_column=options["id_column"],
        max_row_bytes=options["max_row_bytes"],
        max_columns=options["max_columns"],
        max_expansion=options["max_expansion"],
    )
    compute = ComputeSettings(
        device=options["device"],
        precision=options["precision"],
        backend=options["backend"],
        max_batch_tokens=_budget(options["max_batch_tokens"]),
        workers=options["workers"],
        compile=options["compile_"],
    )
    return ScoreSettings(
        inputs=options.get("inputs", ()),
        model=options["model"],
        output=options["output"],
        revision=options["revision"],
        label_map=parse_label_map(options["label_map"]),
        read=read,
        compute=compute,
        output_format=options["output_format"],
        long_text=options["long_text"],
        max_rejects=Allowance.parse(options["max_rejects"]),
        fail_under=tuple(options["fail_under"]),
        fail_over=tuple(options["fail_over"]),
        baseline=options["baseline"],
        slice_columns=tuple(dict.fromkeys(options["slice_column"])),
        with_text=not options["no_text"],
        engine=options["engine"],
        limit=options.get("limit"),
        skip_empty=options.get("skip_empty", False),
        dry_run=options.get("dry_run", False),
        force=options.get("force", False),
        prefix=options["prefix"],
        date=_day(options.get("date")),
    )


def _day(time: datetime.datetime | None) -> datetime.date | None:
    return time.date() if time is not None else None


def _budget(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise UsageError(f"--max-batch-tokens {text!r} is neither auto nor a number of tokens, such as 8192.")
    return int(text)


def _summary(result: RunResult) -> dict[str, Any]:
    """What ``--json`` prints of a run."""
    metrics = result.metrics
    gates: dict[str, bool] = {}
    for gate in metrics.get("gates", []):  # a metric may have several
        gates[gate["metric"]] = gates.get(gate["metric"], True) and gate["passed"]
    return {
        "status": result.status,
        "exit_code": 0,
        "output": str(result.output),
        "rows": result.rows,
        "rejects": result.rejects,
        "counts": metrics.get("counts", {}),
        "accuracy": ((metrics.get("quality") or {}).get("accuracy") or {}).get("value"),
        "mismatches": metrics.get("mismatches"),
        "gates": gates,
        "seconds": round(result.seconds, 3),
    }


def _lines(result: RunResult) -> list[str]:
    """What a person wants to know of a run."""
    counts, quality = result.metrics.get("counts", {}), result.metrics.get("quality") or {}
    if result.status == "planned" and result.plan is not None:
        head = f"{result.rows} rows in {len(result.plan.parts)} parts, {result.rejects} rejects; nothing was scored"
        return [
            head,
            *(f"  {printable(f.path)}: {f.format}, {f.rows} rows, {choice_of(f)}" for f in result.plan.files),
        ]
    again = " (it had been finished before)" if result.status == "done" else ""
    kinds = {"scored": "scored", "null_text": "null", "empty_text": "empty", "rejects": "rejected"}
    rows = ", ".join(f"{counts[name]} {word}" for name, word in kinds.items())
    lines = [f"{counts['read']} rows read: {rows}{again}"]
    if quality:
        accuracy = quality["accuracy"]
        lines.append(
            f"accuracy {accuracy['value']:.4f} ({accuracy['low']:.4f} to {accuracy['high']:.4f}, 95 % interval) on "
            f"{counts['evaluated']} labelled rows, {result.metrics['mismatches']} mismatches"
        )
    lines.append(f"{printable(result.output)}/report.html")
    return lines


@main.command(cls=MapsLabels)
@click.argument("inbox", type=LocalPath())
@option(
    "--output",
    required=True,
    metavar="DIR",
    type=LocalPath(),
    help="Where each file gets its run folder: DIR/<date>/<name>-<content hash>.",
)
@option("--require-done", is_flag=True, help="A file is whole only if NAME.done lies beside it.")
@option(
    "--settle",
    type=click.FloatRange(0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Without such a mark: for how long it must have been unchanged.",
)
@option("--watch", is_flag=True, help="Keep running, and score what comes (extra: watch).")
@option("--keep-days", type=click.IntRange(1), metavar="N", help="Remove runs that are older.")
@option("--skip-empty", is_flag=True, help="Exit with 99 where nothing is new.")
@option(
    "--metrics-file",
    type=LocalPath(),
    metavar="FILE.prom",
    help="Write the call's numbers for Prometheus (extra: metrics); under --watch after each round.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be scored and removed, and do neither.")
@_scoring_options
@_JSON
@_verbosity
def inbox(
    inbox: Path,
    output: Path,
    *,
    quiet: bool,
    verbose: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Score whatever is new in a drop folder, each file as a run of its own; safe to call every few minutes.

    A scored file moves to INBOX/done, one that cannot be scored to INBOX/failed with NAME.error.txt beside it.
    """
    logs = _set_up_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json), _measured(options["metrics_file"]) as measured:
        from batchscore.inbox import drop_folder as drop

        own = {name: options[name] for name in ("require_done", "settle", "skip_empty")}
        score = _score_settings(
            output=output, **{**options, "skip_empty": False}
        )  # a file without rows is scored too
        settings = InboxSettings(inbox, output, score, **own)
        if options["watch"] and options["keep_days"]:
            raise UsageError(
                "--keep-days is for calls that end; let `batchscore report --keep-days` remove old runs."
            )
        tell: Callable[[str], None] = (lambda _: None) if quiet or as_json else click.echo
        if options["dry_run"]:
            found = drop.contents(settings)
            files = [path.name for path in found.whole]
            for name in files:
                tell(f"{printable(name)}: would be scored")
            if found.settling:
                tell(drop.settling_line(found.settling, settings))
            removed = _remove_old(output, options["keep_days"], tell, score.baseline, dry_run=True)
            if as_json:
                _print_json(status="planned", exit_code=0, files=files, removed=removed)
            return
        note = _tell_of_files(logs, tell)
        if options["watch"]:
            drop.watch(
                settings, note, logs, lambda result: _conclude(result, measured, options["metrics_file"])
            )
        result = drop.empty(settings, note, logs)
        measured.append(result)
        if result.settling:
            tell(drop.settling_line(result.settling, settings))
        elif not result.files:
            tell(f"nothing new in {printable(inbox)}")
        removed = _remove_old(output, options["keep_days"], tell, score.baseline)
        summary = {**result.summary(), "removed": removed}
        _raise_outcome(result, summary)
        if as_json:
            _print_json(**summary)


def _tell_of_files(logs: Logs, tell: Callable[[str], None]) -> Callable[[FileOutcome], None]:
    """What tells of each file of a drop folder: a line for people, or an event for machines."""
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
        _write_metrics(metrics_file, result.exit_code, result.seconds, result.metrics)


def _remove_old(
    folder: Path,
    days: int | None,
    tell: Callable[[str], None],
    baseline: Path | None = None,
    *,
    dry_run: bool = False,
) -> list[str]:
    """Remove the runs below ``folder`` that are older than ``days`` days, or only say which they are.

    The ``baseline`` stays. What cannot be removed is told.
    """
    if days is None:
        return []
    from batchscore.inbox.housekeeping import remove_old_runs

    found: list[str] = []
    now = datetime.datetime.now(datetime.UTC)
    for path, changed, problem in remove_old_runs(folder, days, now, kept=baseline, dry_run=dry_run):
        found.append(str(path))
        if problem:
            say(f"warning: {printable(path)} is old but cannot be removed: {problem}")
            continue
        tell(f"{printable(path)}: {'would be removed' if dry_run else 'removed'}, older than {days} days")
        if changed:
            say(f"warning: {printable(path)}: changed since, so it stays: {printable(', '.join(changed))}")
    return found


def _print_json(**summary: Any) -> None:
    click.echo(json.dumps(summary, ensure_ascii=False))


@main.command()
@click.argument("runs_dir", type=LocalPath())
@option(
    "--output",
    type=LocalPath(),
    metavar="PAGE",
    help="The page to write, its numbers beside it as JSON.  [default: RUNS_DIR/report.html]",
)
@_JSON
@_verbosity
@option(
    "--until",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="Count days without a run up to this one, and leave out what is later.  [default: today]",
)
@option("--keep-days", type=click.IntRange(1), metavar="N", help="Remove runs that are older, before.")
@click.option("--dry-run", is_flag=True, help="Say what --keep-days would remove, and write nothing.")
def report(runs_dir: Path, *, quiet: bool, verbose: int, as_json: bool, **options: Any) -> None:
    """Write one page over the runs in a folder: trends, bad nights, missing nights."""
    _set_up_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json):
        tell: Callable[[str], None] = (lambda _: None) if quiet or as_json else click.echo
        removed = _remove_old(runs_dir, options["keep_days"], tell, dry_run=options["dry_run"])
        if options["dry_run"]:
            if as_json:
                _print_json(status="planned", exit_code=0, removed=removed)
            return
        from batchscore.runs.trend import write_trend

        trend = write_trend(runs_dir, options["output"], _day(options["until"]))
        if as_json:
            facts = {"page": str(trend.page), "data": str(trend.data), "nights": trend.nights}
            _print_json(status="written", exit_code=0, **facts, headline=trend.headline, removed=removed)
        elif not quiet:
            click.echo(f"{trend.headline}\n{printable(trend.page)}")


def train_main() -> None:
    """The ``batchscore-train`` command."""
    from batchscore.cli.train import train_main as run

    run()


@main.command()
@click.argument("path", type=LocalPath())
@_JSON
@_verbosity
def verify(path: Path, *, quiet: bool, verbose: int, as_json: bool) -> None:
    """Check a run or a bundle against its own manifest."""
    _set_up_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json):
        from batchscore.runs.inspection import verify as check

        facts = check(path)
        if as_json:
            click.echo(json.dumps({"status": "sound", "exit_code": 0, **facts}, ensure_ascii=False))
        elif not quiet:
            click.echo(
                f"{printable(path)}: {facts['kind']}, {facts['files']} files, all as they were written"
            )


@main.command()
@click.argument("bundle", type=LocalName())
@_JSON
@_verbosity
def export(bundle: str, *, quiet: bool, verbose: int, as_json: bool) -> None:
    """Add an int8 variant for OpenVINO to a bundle, with its parity figures."""
    _set_up_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json):
        from batchscore.model.exporting import export_int8

        done = export_int8(bundle)
        if as_json:
            facts = {"file": done.file, "parity": done.parity, "problems": list(done.problems)}
            click.echo(json.dumps({"status": "exported", "exit_code": 0, **facts}, ensure_ascii=False))
        elif not quiet:
            parity = done.parity
            click.echo(
                f"{printable(done.bundle)}: int8 changes {parity['labels_changed']} of {parity['texts']} labels, a "
                f"probability by {parity['mean_change']:.4f} on average and {parity['largest_change']:.4f} at most"
            )
            for problem in done.problems:
                click.echo(f"beyond its limit: {problem}; --precision int8 will refuse it")


@main.command()
@click.argument("path", type=LocalName())
@_JSON
@_verbosity
def inspect(path: str, *, quiet: bool, verbose: int, as_json: bool) -> None:
    """Show what is in a file, a run or a bundle."""
    _set_up_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json):
        from batchscore.runs.inspection import bundle_lines
        from batchscore.runs.inspection import inspect as look

        facts = look(path)
        if as_json:
            click.echo(json.dumps(facts, ensure_ascii=False))
            return
        if facts["kind"] == "bundle" and facts["training"] and facts["metrics"]:
            for line in bundle_lines(facts):
                click.echo(printable(line))
            return
        for key, value in facts.items():
            click.echo(
                f"{key}: {printable(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
            )
