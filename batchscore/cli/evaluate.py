"""``batchscore evaluate``: measure a finished run with labels that came later."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchscore.cli.declaring import LatestOrLocal, LocalPath, option
from batchscore.cli.options import (
    MapsLabels,
    config_option,
    finite,
    gate_options,
    read_settings,
    reading_options,
)
from batchscore.cli.output import gates_passed, json_summary, print_json, raise_outcome, start_logs, verbosity
from batchscore.cli.output_options import Names, names_of
from batchscore.config import CONFLICTS, EvaluateSettings
from batchscore.errors import printable
from batchscore.formats.registry import NAMES
from batchscore.model.labels import parse_label_map
from batchscore.runs.folder import MISMATCHES, PAGE
from batchscore.runs.headlines import headline_of
from batchscore.system.terminal import boundary, show

if TYPE_CHECKING:
    from batchscore.runs.evaluating import EvaluationResult


@click.command("evaluate", cls=MapsLabels)
@click.argument("run_dir", type=LocalPath())
@option(
    "--labels",
    required=True,
    multiple=True,
    type=LocalPath(),
    metavar="FILE",
    help="A file with labels, in any format that is scored. Repeatable.",
)
@option(
    "--output",
    type=LocalPath(),
    metavar="DIR",
    help="The folder of the evaluation.  [default: RUN_DIR.evaluation, beside the run]",
)
@option("--label-column", metavar="NAME", help="The column with the labels.  [default: found by its name]")
@option(
    "--label-columns",
    type=Names(),
    metavar="NAME,NAME",
    help="Models with several labels at once: a column of 0 and 1 for each label.  [default: these, if all are there]",
)
@option("--id-column", metavar="NAME", help="The column with the ids.  [default: found by its name]")
@option(
    "--run-id-column",
    metavar="NAME",
    help="The column of the predictions with the ids.  [default: the one that the run took]",
)
@option(
    "--file-column",
    metavar="NAME",
    help="Without ids: the column with the name of the input.  [default: file]",
)
@option(
    "--row-column",
    metavar="NAME",
    help="Without ids: the column with the row in that input.  [default: row]",
)
@option(
    "--first-row",
    type=click.IntRange(0, 1),
    metavar="0|1",
    help="Whether rows count from 0, as in mismatches.parquet, or from 1, as in mismatches.csv.  [default: 0; must be said for "
    "CSV and Excel]",
)
@option(
    "--label-map",
    multiple=True,
    metavar="GIVEN=LABEL",
    help="What a label means: pos=POSITIVE, 4..5=POSITIVE, 3= (no label), or ids. Repeatable; adds to that of the run.",
)
@option(
    "--conflicts",
    type=click.Choice(CONFLICTS),
    default="refuse",
    show_default=True,
    help="Which of several different labels for one row counts that come in one call.",
)
@option(
    "--format", "input_format", type=click.Choice(NAMES), help="Format of the labels.  [default: detected]"
)
@reading_options
@gate_options
@option(
    "--baseline",
    type=LatestOrLocal(),
    metavar="RUN_DIR|latest",
    help="Compare with this earlier run, or the latest before this one of these files and labels.",
)
@option(
    "--slice-column",
    multiple=True,
    metavar="NAME",
    help="Also show accuracy for each value of this column, besides those of the run. Repeatable.",
)
@option(
    "--tolerance",
    type=click.FloatRange(0),
    metavar="X",
    help="Models that give a number: a value further than X from the given one is a mismatch.  [default: as the run]",
)
@option("--no-text", is_flag=True, help="Leave the texts out of report.html.")
@config_option
@click.option("--force", is_flag=True, help="Drop the earlier evaluation, and the labels that it keeps.")
@json_summary
@verbosity
def command(*, quiet: bool, verbose: int, as_json: bool, **options: Any) -> None:
    """Measure a finished run with labels that came later; nothing is scored.

    Labels are joined by id, or by file and row. The evaluation keeps them, so that they may come in instalments.
    """
    start_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json):
        settings = evaluate_settings(**options)
        from batchscore.runs.evaluating import evaluate

        result = evaluate(settings)
        for line in _lines(result) if not quiet and not as_json else ():
            show(line)
        summary = _summary(result)
        raise_outcome(result, summary)
        if as_json:
            print_json(**summary)


def evaluate_settings(**options: Any) -> EvaluateSettings:
    """The settings object made of what click parsed."""
    read = read_settings(
        options,
        format=options["input_format"],
        label_column=options["label_column"],
        label_columns=names_of(options["label_columns"], "--label-columns"),
        id_column=options["id_column"],
    )
    return EvaluateSettings(
        run=options["run_dir"],
        labels=tuple(dict.fromkeys(Path(path) for path in options["labels"])),
        output=options["output"],
        read=read,
        run_id_column=options["run_id_column"],
        file_column=options["file_column"],
        row_column=options["row_column"],
        first_row=options["first_row"],
        label_map=parse_label_map(options["label_map"]),
        conflicts=options["conflicts"],
        fail_below=tuple(options["fail_below"]),
        fail_above=tuple(options["fail_above"]),
        baseline=options["baseline"],
        slice_columns=tuple(dict.fromkeys(options["slice_column"])),
        tolerance=finite(options["tolerance"], "--tolerance"),
        with_text=not options["no_text"],
        force=options["force"],
    )


def _summary(result: EvaluationResult) -> dict[str, Any]:
    """What ``--json`` prints about an evaluation."""
    metrics, headline = result.metrics, headline_of(result.metrics)
    return {
        "status": result.status,
        "exit_code": 0,
        "output": str(result.output),
        "rows": result.rows,
        "labelled": result.labelled,
        "labels": [
            {name: value for name, value in entry.items() if name not in {"key", "sha256"}}
            for entry in result.facts["labels"]["files"]
        ],
        headline.key: (headline.value or {}).get("value"),
        "mismatches": metrics.get("mismatches"),
        "gates": gates_passed(metrics),
        "seconds": round(result.seconds, 3),
    }


def _lines(result: EvaluationResult) -> list[str]:
    """What is printed about an evaluation for people."""
    again = " (nothing is new)" if result.status == "done" else ""
    lines = [f"{result.labelled} of {result.rows} rows have labels by now{again}"]
    if headline := str(headline_of(result.metrics)):
        found = result.metrics["mismatches"]
        mismatches = f"{found} mismatches" if found is not None else f"those furthest off are in {MISMATCHES}"
        lines.append(f"{headline} on {result.metrics['counts']['evaluated']} labelled rows, {mismatches}")
    return [*lines, f"{printable(result.output)}/{PAGE}"]
