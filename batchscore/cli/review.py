"""``batchscore review``: a page for looking through a run, and what came of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchscore.cli.declaring import LocalPath
from batchscore.cli.output import json_summary, print_json, start_logs, verbosity
from batchscore.errors import UsageError, printable
from batchscore.formats.registry import DEFAULT
from batchscore.system.terminal import boundary, say, show

if TYPE_CHECKING:
    from collections.abc import Mapping

    from batchscore.reviewing.session import Review

_MOST_DRAWN = 5000
_STOPPED = "every verdict is kept, and the same command goes on"


@click.command("review")
@click.argument("run_dir", type=LocalPath())
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, metavar="N", help="The port.  [default: a free one]"
)
@click.option(
    "--random",
    "n_drawn",
    type=click.IntRange(1, _MOST_DRAWN),
    default=200,
    show_default=True,
    metavar="N",
    help="Rows to draw at random from the whole run, for its true accuracy.",
)
@click.option("--blind", is_flag=True, help="Show rows drawn at random without their labels.")
@click.option(
    "--unsure-below",
    type=click.FloatRange(0, 1),
    default=0.8,
    show_default=True,
    metavar="P",
    help="Show rows whose prediction is less likely than this too, whatever their label.",
)
@click.option(
    "--suggested",
    type=LocalPath(),
    metavar="FILE",
    help="Show the rows of this file, in its order, instead of mismatches and unsure rows: what batchscore suggest wrote, or an "
    "export.",
)
@click.option(
    "--export",
    "kind",
    type=click.Choice(("labelstudio", DEFAULT)),
    help="Write verdicts to the --output file, and serve nothing: labelstudio has all rows for review, csv those "
    "that have a verdict.",
)
@click.option("--output", type=LocalPath(), metavar="FILE", help="The file of --export.")
@click.option(
    "--import",
    "source",
    type=LocalPath(),
    metavar="FILE",
    help="Take down the verdicts in a file of --export, or in what Label Studio exports as JSON, and serve nothing.",
)
@click.option("--summary", is_flag=True, help="Tell what was found so far, and serve nothing.")
@json_summary
@verbosity
def command(run_dir: Path, *, quiet: bool, verbose: int, as_json: bool, **options: Any) -> None:
    """Look through a run's mismatches and unsure rows on a page, and say which label is right."""
    start_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json, _STOPPED):
        kind, output, source = options["kind"], options["output"], options["source"]
        if (kind is None) != (output is None):
            raise UsageError("--export and --output go together: what to write, and where to.")
        is_served = not (kind or source or options["summary"])
        from batchscore.reviewing.session import ReviewSettings, opened

        if is_served:
            from batchscore.reviewing.server import refuse_missing_extra

            refuse_missing_extra()
        settings = ReviewSettings(
            run_dir, options["unsure_below"], options["n_drawn"], options["blind"], options["suggested"]
        )
        with opened(settings) as review:
            if is_served:
                _serve(review, options["port"], as_json=as_json)
                return
            told: dict[str, Any] = {}
            if source is not None:
                told |= _take_in(review, source, quiet=quiet)
            if kind is not None:
                told |= _export(review, kind, output, quiet=quiet)
            summary = review.summary()
            if as_json:
                print_json(status="done", exit_code=0, **told, **summary)
            elif not quiet:
                for line in _lines(summary):
                    show(line)


def _serve(review: Review, port: int, *, as_json: bool) -> None:
    from batchscore.reviewing.server import serve

    def tell(address: str) -> None:
        if as_json:
            print_json(status="serving", address=address)
        else:
            show(address)
            say("open this address in a browser on this machine; Ctrl-C ends it, and every verdict is kept")

    serve(review, port, tell)


def _take_in(review: Review, source: Path, *, quiet: bool) -> Mapping[str, Any]:
    from batchscore.reviewing.exchange import take_in

    found = take_in(review, source)
    if not quiet:
        say(f"{printable(source)}: {found.read} rows with an answer, {found.changed} of them new or changed")
        if found.differing:
            say(f"{found.differing} rows of which several people said different things were left out")
    return {"imported": found._asdict()}


def _export(review: Review, kind: str, output: Path, *, quiet: bool) -> Mapping[str, Any]:
    from batchscore.reviewing import label_studio
    from batchscore.reviewing.exchange import export, has_pairs

    rows = export(review, kind, output)
    if not quiet:
        say(f"{printable(output)}: {rows} rows")
        if kind == label_studio.NAME:
            pairs = has_pairs(review.run)
            say(f"labelling interface: {label_studio.interface(review.run.labels, has_pairs=pairs)}")
    return {"exported": rows, "file": str(output)}


def _lines(summary: Mapping[str, Any]) -> list[str]:
    """A summary for people."""
    worst, drawn, verdicts = summary["rows"], summary["drawn"], summary["verdicts"]
    said = ", ".join(f"{kind} {count}" for kind, count in verdicts.items() if count) or "none yet"
    lines = [
        f"worth checking: {worst['reviewed']} of {worst['rows']} rows reviewed",
        f"drawn at random: {drawn['reviewed']} of {drawn['rows']} rows reviewed",
        f"verdicts: {said}",
    ]
    shares = summary["true_accuracy"]
    for name, words in (("model", "the model is right"), ("given", "given labels are right")):
        if shares and (share := shares[name]):
            value = f"{share['least']:.4f}"
            if share["unsure"]:
                value = f"between {value} and {share['most']:.4f}"
            so_far = "" if shares["is_whole"] else ", so far"
            lines.append(
                f"{words}: {value} (95 %: {share['low']:.4f} to {share['high']:.4f}), from {share['drawn']} of "
                f"{share['population']} rows drawn at random{so_far}"
            )
    return lines
