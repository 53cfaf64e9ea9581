"""``batchscore-train``: the command, its settings and what it prints."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from batchscore.cli.declaring import LocalPath
from batchscore.cli.options import LocalName, read_settings, reading_options
from batchscore.cli.output import TellsMachines
from batchscore.cli.output_options import Names, names_of
from batchscore.cli.signing import sign_option
from batchscore.config import CLASS_WEIGHTS, LONG_TEXT, MISSING_PAIR, TEACHER_TEMPERATURE, TRAIN_PRECISIONS
from batchscore.errors import UsageError, printable
from batchscore.pairs import divided_pairs, pair_of
from batchscore.system.terminal import Logs, Progress, boundary, say, set_up_logs, show, show_json
from batchscore.version import __version__

if TYPE_CHECKING:
    from pathlib import Path

    from batchscore.training import TrainResult, TrainSettings
    from batchscore.training.examination import Example

_SHOWN_CHARACTERS = 200
_LINE_SECONDS = 60.0


class Threshold(click.ParamType[float | None]):
    """``auto`` (None), or a probability."""

    name = "threshold"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """The number, None for ``auto``."""
        if value is None or value == "auto":
            return None
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if not 0 < number < 1:
            self.fail(f"{value!r} is neither auto nor a probability between 0 and 1.", param, ctx)
        return number


@click.command(
    name="batchscore-train",
    cls=TellsMachines,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--data",
    required=True,
    type=LocalName(),
    metavar="DATA",
    help="A CSV, Parquet or JSON Lines file, a folder of them (train* and test* are the splits), `builtin` for the "
    "sample reviews, or a hub data set such as imdb.",
)
@click.option(
    "--output", required=True, metavar="BUNDLE", type=LocalPath(), help="The folder to write the bundle to."
)
@click.option(
    "--eval-data",
    type=LocalName(),
    metavar="DATA",
    help="Rows to evaluate on.  [default: test* in DATA, else a fifth of DATA]",
)
@click.option(
    "--base-model",
    type=LocalName(),
    metavar="MODEL",
    help="`builtin`, a local Hugging Face folder, or a hub id with --revision.  [default: the --teacher, if it is the only one "
    "and --student-layers is given, else builtin]",
)
@click.option("--revision", metavar="COMMIT", help="The full commit hash, if the base model is a hub id.")
@click.option(
    "--recipe",
    type=click.Choice(("full", "head")),
    default="full",
    show_default=True,
    help="full trains all layers, head only a new head on the frozen base.",
)
@click.option(
    "--limit", type=click.IntRange(1), metavar="N", help="Use N rows of each split, taken after shuffling."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=42,
    show_default=True,
    help="Seed for everything random.",
)
@click.option(
    "--epochs",
    type=click.FloatRange(0, min_open=True),
    help="Passes over the training rows.  [default: full 3 to 10, more for fewer rows; head 1, with mean pooling 8 or 4]",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(0, min_open=True),
    help="Learning rate.  [default: full 5e-5, or 1e-4 for encoders narrower than 512; head 2e-3]",
)
@click.option("--batch-size", type=click.IntRange(1), help="Rows in a batch.  [default: full 16, head 4]")
@click.option(
    "--early-stopping",
    type=click.IntRange(1),
    metavar="PATIENCE",
    help="Stop after this many epochs without better accuracy.",
)
@click.option(
    "--class-weights",
    type=click.Choice(CLASS_WEIGHTS),
    default="none",
    show_default=True,
    help="Weight of a row in the loss: all the same, or more for rare labels.",
)
@click.option(
    "--hard-labels",
    is_flag=True,
    help="Learn given labels alone.  [default: where full has fewer than 4,000 rows of one label each, and a linear model is good at "
    "them, half of a target is what that says of a row it did not see]",
)
@click.option(
    "--train-layers",
    type=click.IntRange(1),
    metavar="N",
    help="With --recipe full: train only the top N layers and the head.  [default: all layers and the embeddings]",
)
@click.option(
    "--gradient-accumulation",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="Batches per optimizer step, for when a larger batch does not fit into memory.",
)
@click.option(
    "--gradient-checkpointing", is_flag=True, help="With --recipe full: less memory, for a third more time."
)
@click.option(
    "--precision",
    type=click.Choice(TRAIN_PRECISIONS),
    default="auto",
    show_default=True,
    help="Precision to compute in; auto takes bf16 if it is measured to be faster.",
)
@click.option(
    "--learning-curve",
    is_flag=True,
    help="Afterwards train on a quarter and a half of the rows too, and tell what more labels would bring.",
)
@click.option(
    "--unlabelled",
    type=LocalName(),
    metavar="DATA",
    help="Texts without labels, which improve the model: files or folders as --data takes them.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="With --unlabelled: learn from so many of the texts that it takes about N minutes more.  [default: from 14,000 texts]",
)
@click.option(
    "--teacher",
    "teachers",
    multiple=True,
    type=LocalName(),
    metavar="BUNDLE",
    help="A saved model whose answers are learned, of --data, which then needs no labels, and of --unlabelled. Repeatable: the "
    "mean of their probabilities.",
)
@click.option(
    "--teacher-temperature",
    type=click.FloatRange(1, 20),
    metavar="T",
    help=f"What the teacher's and the student's logits are divided by while it learns.  [default: {TEACHER_TEMPERATURE:g}]",
)
@click.option(
    "--student-layers",
    type=click.IntRange(1),
    metavar="N",
    help="Keep N layers of the base model, evenly spread, the first and the last among them: a smaller, faster model.  [default: all]",
)
@click.option(
    "--tune",
    is_flag=True,
    help="First search for the best learning rate, epochs and (head) pooling, on a held-out fifth of the training rows.",
)
@click.option(
    "--max-length",
    type=click.IntRange(8),
    default=512,
    show_default=True,
    help="Cut texts after this many tokens, or sooner if the model takes fewer.",
)
@click.option(
    "--text-column", metavar="NAME", help="The column with the texts.  [default: found by its name and type]"
)
@click.option(
    "--text-pair-column",
    metavar="NAME",
    help="The column with the second text, if each row is two that the model reads together.",
)
@click.option(
    "--missing-pair",
    type=click.Choice(MISSING_PAIR),
    default="skip",
    show_default=True,
    help="A row without its second text: skip leaves it out, empty takes it with an empty one; kept in the bundle.",
)
@click.option(
    "--label-column", metavar="NAME", help="The column with the labels.  [default: found by its name]"
)
@click.option(
    "--label-columns",
    type=Names(),
    metavar="NAME,NAME",
    help="Columns of 0 and 1, one for each of several labels, instead of one label column.",
)
@click.option(
    "--task",
    type=click.Choice(("auto", "single-label", "multi-label", "regression")),
    default="auto",
    show_default=True,
    help="Whether a text has one label, any number of them, or a number; auto tells the first two apart by the values, and "
    "takes numbers for labels.",
)
@click.option(
    "--threshold",
    type=Threshold(),
    default="auto",
    show_default=True,
    metavar="auto|X",
    help="With several labels: the probability from which each is predicted; auto takes what gives the best F1 for each.",
)
@click.option(
    "--label-name",
    "label_names",
    multiple=True,
    metavar="GIVEN=LABEL",
    help="Name for a given label. Repeatable.  [default: 0/1 and neg/pos are NEGATIVE/POSITIVE, others keep "
    "their names]",
)
@reading_options
@click.option(
    "--pooling",
    type=click.Choice(("first", "mean")),
    help="What the head sees: the first token, or the mean of all tokens.  [default: full mean if the encoder allows "
    "it, head first]",
)
@click.option(
    "--long-text",
    type=click.Choice(LONG_TEXT),
    default="head",
    show_default=True,
    help="What to do with texts longer than the model takes; kept in the bundle.",
)
@click.option(
    "--group-column",
    metavar="NAME",
    help="Keep rows with the same value in this column (author, product) in the same split.",
)
@click.option(
    "--corrections",
    type=LocalPath(),
    metavar="FILE|RUN_DIR",
    help="Put labels right by what batchscore review found: a run, or the file that was exported.",
)
@click.option(
    "--check-labels",
    is_flag=True,
    help="First list training labels that may be wrong, by cross-validation on the frozen base.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on where the same training was stopped or killed.  [default: start over]",
)
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
@sign_option
@click.option(
    "--push-to-hub",
    metavar="REPO",
    help="Afterwards upload the bundle to this hub repository (private if new).",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print a one-line JSON summary as the last line of stdout."
)
@click.option("-q", "--quiet", is_flag=True, help="Print nothing on success.")
@click.option("-v", "--verbose", count=True, help="Say more; -vv says everything.")
@click.version_option(__version__, prog_name="batchscore-train")
def command(*, quiet: bool, verbose: int, as_json: bool, push_to_hub: str | None, **options: Any) -> None:
    """Turn labelled texts into a saved model that the scorer and plain transformers load."""
    set_up_logs(Logs(-1 if quiet else verbose))
    with boundary(as_json, "run the same command with --resume to go on"):
        settings = train_settings(**options)
        from batchscore.training import train

        result = train(
            settings,
            lambda total: Progress(total, quiet=quiet, line_seconds=_LINE_SECONDS),
            (lambda _: None) if quiet else say,
        )
        where = _pushed(result, push_to_hub, quiet=quiet) if push_to_hub else None
        if not quiet and not as_json:
            for line in _lines(result):
                show(line)
        if as_json:
            show_json({**_summary(result), "pushed_to": where})


def _pushed(result: TrainResult, repo: str, *, quiet: bool) -> str:
    """Upload the bundle, and say where it is."""
    from batchscore.training.publishing import push_to_hub

    where = push_to_hub(result.output, repo)
    if not quiet:
        say(f"sent to {printable(where)}")
    return where


def train_main() -> None:
    """Run the command: what the console script and ``jobs/train.py`` call."""
    command()


def train_settings(
    *,
    label_names: Sequence[str],
    label_columns: Sequence[str] | None,
    corrections: Path | None,
    **options: Any,
) -> TrainSettings:
    """The settings object made of what click parsed."""
    from batchscore.training import TrainSettings

    read = read_settings(options)
    if corrections is not None:
        from batchscore.reviewing.corrections import corrections_of

        options["corrections"] = corrections_of(corrections)
    options["label_columns"] = names_of(label_columns, "--label-columns")
    own = {name: value for name, value in options.items() if name in TrainSettings.__dataclass_fields__}
    return TrainSettings(label_names=dict(_pairs(label_names)), read=read, **own)


def _pairs(texts: Iterable[str]) -> Iterable[tuple[str, str]]:
    """The pairs of ``0=NEGATIVE``, also of several with commas between them."""
    for text in (piece for each in texts for piece in divided_pairs(each)):
        given, label = pair_of(text) or ("", "")
        if not label:
            raise UsageError(f"--label-name {printable(text)!r} is not GIVEN=LABEL, such as 0=NEGATIVE.")
        yield given, label


def _summary(result: TrainResult) -> dict[str, Any]:
    from batchscore.training.figures import headlines

    return {
        "status": "done" if result.was_done else "trained",
        "exit_code": 0,
        "output": str(result.output),
        "labels": list(result.labels),
        "rows": result.rows,
        "evaluated": result.metrics["rows"],
        **{name: value for name, _, value, _ in headlines(result.metrics)[:1]},
        "fingerprint": result.fingerprint,
        "seconds": round(result.seconds, 3),
    }


def _lines(result: TrainResult) -> list[str]:
    """What is printed about a training for people: the evaluation, then scored rows and mismatches."""
    from batchscore.training.figures import headlines

    said = [f"{name} {value:.4f}{interval}" for _, name, value, interval in headlines(result.metrics)]
    lines = [f"{', '.join(said)} on {result.metrics['rows']} evaluation rows"]
    for title, examples in (("scored", result.examples), ("mismatch", result.mismatches)):
        lines += [f"{title}: {_shown(example)}" for example in examples]
    again = "it had been trained before" if result.was_done else f"{result.seconds:.0f} s"
    return [*lines, f"{printable(result.output)} ({again})"]


def _shown(example: Example) -> str:
    texts = (example.text,) if isinstance(example.text, str) else example.text
    text = " | ".join(" ".join(each.replace("<br />", " ").split()) for each in texts)
    short = text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."
    sure = "" if example.probability is None else f" ({example.probability:.4f})"
    labels = f"given {example.given}, predicted {example.predicted}{sure}"
    return f"{printable(labels)}: {printable(short)}"
