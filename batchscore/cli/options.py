"""Options that several commands share, the types of their values, and the settings made of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from batchscore.addresses import BUCKETS
from batchscore.cli.accept_options import ACCEPT_OPTIONS
from batchscore.cli.declaring import (
    Command,
    LatestOrLocal,
    LatestOrPath,
    LocalPath,
    SeveralNames,
    address_given,
    option,
    refused_as_address,
)
from batchscore.cli.output_options import OUTPUT_OPTIONS, Names, names_of
from batchscore.cli.settings_file import load_config
from batchscore.cli.signing import trust_option
from batchscore.cli.worker_options import WORKER_OPTIONS
from batchscore.config import BELOW, COMPILE, LONG_TEXT, MISSING_PAIR, PRECISIONS, ReadSettings
from batchscore.errors import UsageError, printable
from batchscore.formats.registry import NAMES

UNDIVIDED = "none"
_DELIMITERS = {"tab": "\t", "\\t": "\t", "\\x01": "\x01", "^A": "\x01"}
"""Names of delimiters that are hard to type in a shell."""
_QUOTED = r'"(?:[^"]|"")*"'
_MAPPING = re.compile(rf"(?!--)(?:{_QUOTED}|[^=/*?]+)=(?:{_QUOTED}|[^=/*?]*)")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


class LocalName(click.ParamType[str]):
    """A path on this machine or some other name, as text."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse an address."""
        refused_as_address(str(value), param, ctx)
        return str(value)


class AnyName(LocalName):
    """The same, or an address of some ``schemes``, as text."""

    def __init__(self, *schemes: str) -> None:
        self.schemes = schemes or BUCKETS

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse an address that cannot be meant."""
        if address_given(value, self.schemes, param, ctx) is not None:
            return str(value)
        return super().convert(value, param, ctx)


class Device(click.ParamType[str]):
    """``auto``, ``cpu``, ``cuda`` or ``cuda:1``."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse any other name."""
        if not _DEVICE.fullmatch(str(value)):
            self.fail(f"{printable(value)!r} is no device; there are auto, cpu, cuda and cuda:N.", param, ctx)
        return str(value)


class Day(click.DateTime):
    """A day as ``YYYY-MM-DD``, as a :class:`datetime.date`."""

    def __init__(self) -> None:
        super().__init__(["%Y-%m-%d"])

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Drop the time of day."""
        return super().convert(value, param, ctx).date()


class MapsLabels(click.Command):
    """A command whose ``--label-map`` takes all mappings that follow it: ``--label-map 1..2=NEGATIVE 4..5=POSITIVE 3=``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse with the option repeated before each mapping."""
        return super().parse_args(ctx, with_each_mapping(args))


def with_each_mapping(args: Sequence[str]) -> list[str]:
    """Arguments with ``--label-map`` before each mapping that follows one.

    >>> with_each_mapping(["--label-map", "1=a", "2=b", "in.csv"])
    ['--label-map', '1=a', '--label-map', '2=b', 'in.csv']
    """
    found: list[str] = []
    for place, text in enumerate(args):
        follows = place > 1 and found[-2] == "--label-map" and _is_mapping(text)
        found += ["--label-map", text] if follows else [text]
    return found


def _is_mapping(text: str) -> bool:
    """Whether an argument is ``GIVEN=LABEL``; a path such as ``day=2026-11-26/`` is none."""
    return _MAPPING.fullmatch(text) is not None and not Path(text).exists()


_READING_OPTIONS = (
    option(
        "--delimiter",
        metavar="CHARS",
        help="CSV only: what separates fields: one or more characters, tab, or none.  [default: detected]",
    ),
    option(
        "--quotechar",
        metavar="CHAR",
        help="CSV only: the quote character; '' if quotes have no meaning.  [default: \"]",
    ),
    option(
        "--escapechar",
        metavar="CHAR",
        help="CSV only: makes the quote or delimiter after it plain text.  [default: \\ where that is certain, else none]",
    ),
    option(
        "--encoding",
        metavar="NAME",
        help="CSV only: the encoding.  [default: detected; UTF-8 without a byte order mark]",
    ),
    option(
        "--sheet",
        metavar="NAME",
        help="Excel only: the sheet with the table.  [default: the only one with values]",
    ),
    option(
        "--skip-lines",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        help="CSV and Excel only: skip N lines before the header.",
    ),
    option(
        "--header-lines",
        type=click.IntRange(1),
        default=1,
        metavar="N",
        help="CSV and Excel only: the header has N lines; the first names the columns.  [default: 1]",
    ),
    option(
        "--no-header", is_flag=True, help="CSV and Excel only: there is no header; the first line is a row."
    ),
    option(
        "--column-names",
        type=Names(),
        metavar="NAME,NAME",
        help="CSV and Excel only: names of the columns if there is no header.  [default: text, or column_1, column_2 and so on]",
    ),
)


def reading_options(command: Command) -> Command:
    """Options that say how a CSV file or a workbook is written."""
    for each in reversed(_READING_OPTIONS):
        command = each(command)
    return command


def read_settings(options: Mapping[str, Any], **more: Any) -> ReadSettings:
    """Settings from the values of :func:`reading_options`, with ``more`` fields of them."""
    delimiter = options["delimiter"]
    return ReadSettings(
        delimiter=_DELIMITERS.get(delimiter, delimiter),
        quotechar=options["quotechar"],
        escapechar=options["escapechar"],
        encoding=options["encoding"],
        sheet=options["sheet"],
        skip_lines=options["skip_lines"],
        header_lines=options["header_lines"],
        has_no_header=options["no_header"] or options["column_names"] is not None,
        column_names=names_of(options["column_names"], "--column-names"),
        **more,
    )


def finite(value: float | None, flag: str) -> float | None:
    """A number, if it is given.

    Raises:
        UsageError: it is not finite.
    """
    if value is not None and not math.isfinite(value):
        raise UsageError(f"{flag} {value} is no finite number.")
    return value


_GATE_OPTIONS = (
    option(
        "--fail-below",
        "--fail-under",
        "fail_below",
        cls=SeveralNames,
        multiple=True,
        metavar="METRIC=X",
        help="Quality gate: exit with 3 if the metric is below X, e.g. accuracy=0.85. Repeatable.",
    ),
    option(
        "--fail-above",
        "--fail-over",
        "fail_above",
        cls=SeveralNames,
        multiple=True,
        metavar="METRIC=X",
        help="Quality gate: exit with 3 if the metric is above X, e.g. ece=0.05 or null_text=1%. Repeatable.",
    ),
)


def gate_options(command: Command) -> Command:
    """Options that fail a run whose metrics are beyond limits."""
    for each in reversed(_GATE_OPTIONS):
        command = each(command)
    return command


config_option = click.option(
    "--config",
    type=LocalPath(),
    callback=load_config,
    is_eager=True,
    expose_value=False,
    metavar="FILE.toml",
    help="Settings file with values for any option. Flags win over the environment (BATCHSCORE_...), and that over the file.",
)
_SCORING_OPTIONS = (
    option(
        "--model",
        required=True,
        type=AnyName(),
        metavar="PATH",
        help="A bundle, a Hugging Face folder, or a hub id.",
    ),
    option("--revision", metavar="COMMIT", help="The full commit hash, if the model is a hub id."),
    trust_option,
    option(
        "--text-column",
        metavar="NAME",
        help="The column with the texts.  [default: found by its name and type]",
    ),
    option(
        "--text-pair-column",
        metavar="NAME",
        help="The column with the second text, if each row is two that the model reads together.",
    ),
    option(
        "--missing-pair",
        type=click.Choice(MISSING_PAIR),
        help="A row without its second text: skip leaves it unscored, empty scores it with an empty one.  [default: as the "
        "bundle says, else skip]",
    ),
    option(
        "--label-column",
        metavar="NAME",
        help="The column with the given labels.  [default: found by its name]",
    ),
    option(
        "--label-columns",
        type=Names(),
        metavar="NAME,NAME",
        help="Models with several labels at once: a column of 0 and 1 for each label, named as the labels are.  [default: these, "
        "if all are there]",
    ),
    option("--id-column", metavar="NAME", help="The column with the ids.  [default: found by its name]"),
    option("--no-labels", is_flag=True, help="Ignore given labels, even if a column looks like them."),
    option(
        "--label-map",
        multiple=True,
        metavar="GIVEN=LABEL",
        help="What a given label means: pos=POSITIVE, 4..5=POSITIVE, 3= (no label), or ids (numbers are the model's ids). "
        "Repeatable.",
    ),
    option(
        "--threshold",
        multiple=True,
        metavar="[LABEL=]X",
        help="Predict the label, or any, only from this probability on: POSITIVE=0.8. Repeatable.  [default: none; for models "
        "with several labels at once as the bundle says, else 0.5]",
    ),
    option(
        "--below",
        type=click.Choice(BELOW),
        help="Models with one label a row, where the likeliest label is below its --threshold: the next label that reaches its "
        "own, or none (status abstained). Where no label does, next abstains too.  [default: next]",
    ),
    *ACCEPT_OPTIONS,
    option(
        "--tolerance",
        type=click.FloatRange(0),
        metavar="X",
        help="Models that give a number: a value further than X from the given one is a mismatch.  [default: 0.5 if all given "
        "ones are whole, else the rows furthest off are listed]",
    ),
    option(
        "--format",
        "input_format",
        type=click.Choice(NAMES),
        help="Format of the inputs.  [default: detected]",
    ),
    reading_options,
    option(
        "--output-format",
        type=click.Choice(("same", *NAMES)),
        default="same",
        show_default=True,
        help="Format of the predictions.",
    ),
    option(
        "--device",
        type=Device(),
        default="auto",
        show_default=True,
        metavar="auto|cpu|cuda[:N]",
        help="Device to compute on.",
    ),
    option(
        "--precision",
        type=click.Choice(PRECISIONS),
        default="auto",
        show_default=True,
        help="Precision to compute in; auto takes the fastest whose answers agree.",
    ),
    option(
        "--backend",
        default="auto",
        show_default=True,
        metavar="auto|torch|openvino",
        help="Library that computes.",
    ),
    option(
        "--max-batch-tokens",
        default="auto",
        show_default=True,
        metavar="auto|N",
        help="Most padded tokens in a micro-batch.",
    ),
    option(
        "--long-text",
        type=click.Choice(LONG_TEXT),
        help="What to do with texts longer than the model takes.  [default: as the bundle says, else head]",
    ),
    option(
        "--max-rejects",
        default="0",
        show_default=True,
        metavar="N|P%",
        help="Stop if more rows than this cannot be read.",
    ),
    option(
        "--max-row-bytes",
        type=click.IntRange(1),
        default=32 * 2**20,
        show_default=True,
        help="Reject rows of more bytes.",
    ),
    option(
        "--max-columns",
        type=click.IntRange(1),
        default=10_000,
        show_default=True,
        help="Refuse files with more columns.",
    ),
    option(
        "--max-expansion",
        type=click.IntRange(1),
        default=200,
        show_default=True,
        help="Refuse compressed files that grow by more than this factor.",
    ),
    gate_options,
    option(
        "--baseline",
        type=LatestOrPath(),
        metavar="RUN_DIR|latest",
        help="Compare with this earlier run, or the latest of these files and labels.",
    ),
    option(
        "--reuse",
        type=LatestOrLocal(),
        metavar="RUN_DIR|latest|STORE",
        help="Do not score a text again whose answer is in this earlier run, or store (a folder, made if missing).",
    ),
    option(
        "--audit",
        default="1%",
        show_default=True,
        metavar="P%",
        help="Of the texts with such an answer, score this share again all the same, and compare.",
    ),
    option(
        "--slice-column",
        multiple=True,
        metavar="NAME",
        help="Also show accuracy for each value of this column. Repeatable.",
    ),
    option("--no-text", is_flag=True, help="Leave the texts out of report.html."),
    option(
        "--engine",
        default="local",
        show_default=True,
        metavar="local|ray",
        help="What runs the parts: this process, or a Ray cluster.",
    ),
    *WORKER_OPTIONS,
    option(
        "--compile",
        "compile_",
        type=click.Choice(COMPILE),
        default="auto",
        show_default=True,
        help="Compile the model first, which takes about a minute; auto means off.",
    ),
    *OUTPUT_OPTIONS,
    config_option,
)


def scoring_options(command: Command) -> Command:
    """Options that say how a file is scored."""
    for each in reversed(_SCORING_OPTIONS):
        command = each(command)
    return command
