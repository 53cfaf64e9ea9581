"""``batchscore adopt``: seal any Hugging Face folder as a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from batchscore.cli.declaring import LocalPath, option
from batchscore.cli.options import LocalName, MapsLabels, read_settings, reading_options
from batchscore.cli.output import json_summary, print_json, start_logs, verbosity
from batchscore.cli.signing import sign_option
from batchscore.errors import UsageError, printable
from batchscore.model.labels import parse_label_map
from batchscore.pairs import pair_of
from batchscore.system.terminal import Progress, boundary, say, show

if TYPE_CHECKING:
    from batchscore.training.adoption import Adopted


@click.command("adopt", cls=MapsLabels)
@click.argument("model", type=LocalName())
@option(
    "--output", required=True, metavar="BUNDLE", type=LocalPath(), help="The folder to write the bundle to."
)
@option("--revision", metavar="COMMIT", help="The full commit hash, if MODEL is a hub id.")
@option(
    "--rename-label",
    "renamed",
    multiple=True,
    metavar="OLD=NEW",
    help="A new name for a label of the model, such as LABEL_1=POSITIVE. Repeatable.",
)
@option(
    "--calibrate",
    type=LocalName(),
    metavar="DATA",
    help="Labelled texts that the model was not trained on: a file, a folder, or a hub data set. They fit the temperature, "
    "measure the model and give the canaries.  [default: no temperature; canaries are texts of ours]",
)
@option(
    "--text-column", metavar="NAME", help="The column of DATA with the texts.  [default: found by its name]"
)
@option(
    "--label-column", metavar="NAME", help="The column of DATA with the labels.  [default: found by its name]"
)
@option(
    "--label-map",
    multiple=True,
    metavar="GIVEN=LABEL",
    help="What a label in DATA means: pos=POSITIVE, 4..5=POSITIVE, 3= (no label), or ids (numbers are the model's ids). "
    "Repeatable.",
)
@reading_options
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@sign_option
@json_summary
@verbosity
def command(
    model: str,
    output: Path,
    *,
    renamed: Sequence[str],
    label_map: Sequence[str],
    quiet: bool,
    verbose: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Seal a Hugging Face folder (or hub id) as a bundle: canaries, names of labels, temperature."""
    start_logs(quiet=quiet, verbose=verbose)
    with boundary(as_json, "nothing was written; run the same command again"):
        names, given = _renamed(renamed), parse_label_map(label_map)
        from batchscore.training.adoption import AdoptSettings, adopt

        own = {name: value for name, value in options.items() if name in AdoptSettings.__dataclass_fields__}
        settings = AdoptSettings(
            model, output, label_names=names, label_map=given, read=read_settings(options), **own
        )
        done = adopt(settings, lambda total: Progress(total, quiet=quiet), (lambda _: None) if quiet else say)
        if as_json:
            print_json(status="adopted", exit_code=0, **_summary(done))
        elif not quiet:
            for line in _lines(done):
                show(line)


def _renamed(texts: Sequence[str]) -> dict[str, str]:
    """Old name → new name."""
    found: dict[str, str] = {}
    for text in texts:
        old, new = pair_of(text, at_first=True) or ("", "")
        if not new or not new.isprintable():
            raise UsageError(f"--rename-label {printable(text)!r} is not OLD=NEW, such as LABEL_1=POSITIVE.")
        if found.setdefault(old, new) != new:
            raise UsageError(f"--rename-label names {printable(old)} twice.")
    return found


def _summary(done: Adopted) -> dict[str, Any]:
    return {
        "output": str(done.output),
        "labels": list(done.labels),
        "canaries": done.canaries,
        "temperature": done.temperature,
        "evaluated": done.metrics.get("rows", 0),
        "accuracy": done.metrics["accuracy"]["value"] if done.metrics else None,
        "fingerprint": done.fingerprint,
        "seconds": round(done.seconds, 3),
    }


def _lines(done: Adopted) -> list[str]:
    """What is printed for people."""
    lines = [
        f"{len(done.labels)} labels ({printable(', '.join(done.labels[:20]))}), {done.canaries} canaries"
    ]
    if done.metrics:
        accuracy = done.metrics["accuracy"]
        lines.append(
            f"accuracy {accuracy['value']:.4f} ({accuracy['low']:.4f} to {accuracy['high']:.4f}, 95 % interval) on "
            f"{done.metrics['rows']} rows, which gave the temperature {done.temperature:.4f}"
        )
    return [*lines, f"{printable(done.output)} ({done.seconds:.0f} s)"]
