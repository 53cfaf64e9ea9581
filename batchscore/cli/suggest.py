"""``batchscore suggest``: the rows of a run that are most worth labelling."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchscore.cli.declaring import LocalPath
from batchscore.cli.output import json_summary, print_json, start_logs, verbosity
from batchscore.errors import printable
from batchscore.formats.registry import DEFAULT
from batchscore.system.terminal import boundary, say, show

if TYPE_CHECKING:
    from batchscore.reviewing.suggesting import Suggested

_MOST_ROWS = 20_000


@click.command("suggest")
@click.argument("run_dir", type=LocalPath())
@click.option(
    "--rows",
    type=click.IntRange(1, _MOST_ROWS),
    default=200,
    show_default=True,
    metavar="N",
    help="How many rows are wanted.",
)
@click.option(
    "--kind",
    type=click.Choice((DEFAULT, "labelstudio")),
    default=DEFAULT,
    show_default=True,
    help="What is written: a CSV whose column label is to be filled in, or tasks for Label Studio.",
)
@click.option(
    "--output",
    type=LocalPath(),
    metavar="FILE",
    help="The file to write.  [default: RUN_DIR.suggested.csv or .json, beside the run]",
)
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the clustering."
)
@click.option("--force", is_flag=True, help="Write over a file that is there, and may hold labels.")
@json_summary
@verbosity
def command(run_dir: Path, *, quiet: bool, verbose: int, as_json: bool, **options: Any) -> None:
    """Write the rows of a run that are most worth labelling: unsure ones, of many kinds, each text once.

    Label them on the page of batchscore review --suggested FILE, in the file, or in Label Studio, and train with --corrections.
    """
    start_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json):
        from batchscore.reviewing.suggesting import SuggestSettings, suggest

        found = suggest(SuggestSettings(run_dir, **options))
        if as_json:
            facts = {name: value for name, value in found._asdict().items() if name != "interface"}
            print_json(status="done", exit_code=0, **{**facts, "file": str(found.file)})
        elif not quiet:
            for line in _lines(found, run_dir):
                say(line)
            show(printable(found.file))


def _lines(found: Suggested, run_dir: Path) -> list[str]:
    sure = ""
    if found.least is not None:
        sure = f", predicted with a probability of {found.least:.3f} to {found.most:.3f}"
    lines = [f"{found.rows} of {found.candidates} rows without a label{sure}"]
    if found.interface is not None:
        lines.append(f"labelling interface: {found.interface}")
        return [*lines, f"bring them back with: batchscore review {printable(run_dir)} --import FILE"]
    page = f"batchscore review {printable(run_dir)} --suggested {printable(found.file)}"
    return [*lines, f"label them on a page with: {page}"]
