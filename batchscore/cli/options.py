"""Options that several commands share, the types of their values, and the settings made of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from batchscore.cli.settings_file import load_config
from batchscore.config import COMPILE, LONG_TEXT, MISSING_PAIR, PRECISIONS, ReadSettings
from batchscore.errors import UsageError, printable
from batchscore.formats.registry import NAMES

Command = TypeVar("Command", bound=Callable[..., Any])
UNDIVIDED = "none"
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/.*")
_DELIMITERS = {"tab": "\t", "\\t": "\t", "\\x01": "\x01", "^A": "\x01"}
"""Names of delimiters that are hard to type in a shell."""
_MAPPING = re.compile(r"(?!--)[^=/*?]+=[^=/*?]*")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


def option(*names: str, **facts: Any) -> Callable[[Command], Command]:
    """An option that the environment can set too: ``--max-rejects`` is ``BATCHSCORE_MAX_REJECTS``."""
    variables = [
        "BATCHSCORE_" + name.strip("-").replace("-", "_").upper() for name in names if name.startswith("--")
    ]
    return click.option(*names, envvar=variables, show_envvar=False, **facts)


class SeveralNames(click.Option):
    """A repeatable option with a new and an old name: what the environment gives under both adds up.

    Click adds up the flags, and :func:`load_config` the keys of a settings file.
    """

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:  # noqa: ARG002 - click's own signature
        """The values of all its variables with a space between them; ``None`` if none is set."""
        values = [os.environ.get(name, "") for name in self.envvar or ()]
        return " ".join(filter(None, values)) or None


def refuse_address(text: str, what: str = "A path") -> None:
    """Refuse an address such as ``s3://bucket/run`` where a path is wanted: as a path it would be a local folder's name.

    Raises:
        UsageError: it is one.
    """
    if _ADDRESS.fullmatch(text):
        scheme = text.partition(":")[0].lower()
        way = "Write the path alone" if scheme == "file" else "Copy it to or from this machine"
        raise UsageError(f"{what} is wanted, and {printable(text)} is an address ({scheme}:). {way}.")


class LocalPath(click.Path):
    """A path on this machine, as a :class:`pathlib.Path`."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an address."""
        _refuse(str(value), param, ctx)
        return super().convert(value, param, ctx)


class LocalName(click.ParamType[str]):
    """A path on this machine or some other name, as text."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse an address."""
        _refuse(str(value), param, ctx)
        return str(value)


def _refuse(text: str, param: click.Parameter | None, ctx: click.Context | None) -> None:
    try:
        refuse_address(text)
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from error


class Names(click.ParamType[tuple[str, ...]]):
    """Names divided by commas; from Python also a list of them, whose names may have commas."""

    name = "names"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,  # noqa: ARG002 - click's own signature
    ) -> tuple[str, ...]:
        """The names, all different."""
        return names_of(value, param.opts[0] if param else "")


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
        "--skip-lines",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        help="CSV only: skip N lines before the header.",
    ),
    option(
        "--header-lines",
        type=click.IntRange(1),
        default=1,
        metavar="N",
        help="CSV only: the header has N lines; the first names the columns.  [default: 1]",
    ),
    option("--no-header", is_flag=True, help="CSV only: there is no header; the first line is a row."),
    option(
        "--column-names",
        type=Names(),
        metavar="NAME,NAME",
        help="CSV only: names of the columns if there is no header.  [default: text, or column_1, column_2 and so on]",
    ),
)


def reading_options(command: Command) -> Command:
    """Options that say how a CSV file is written."""
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
        skip_lines=options["skip_lines"],
        header_lines=options["header_lines"],
        has_no_header=options["no_header"] or options["column_names"] is not None,
        column_names=names_of(options["column_names"], "--column-names"),
        **more,
    )


def names_of(value: str | Sequence[str] | None, flag: str) -> tuple[str, ...]:
    """The names in the value of an option: a text with commas between them, or a list.

    Raises:
        UsageError: an empty name, or one that is there twice.
    """
    if value is None:
        return ()
    names = tuple(name.strip() for name in value.split(",")) if isinstance(value, str) else tuple(value)
    if not names or not all(names) or len(set(names)) < len(names):
        raise UsageError(f"{flag} needs names divided by commas, all different.")
    return names


_SCORING_OPTIONS = (
    option(
        "--model",
        required=True,
        type=LocalName(),
        metavar="PATH",
        help="A bundle, a local Hugging Face folder, or a hub id.",
    ),
    option("--revision", metavar="COMMIT", help="The full commit hash, if the model is a hub id."),
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
        help="Models with several labels at once: predict the label, or all, from this probability on. Repeatable.  [default: as "
        "the bundle says, else 0.5]",
    ),
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
    option("--baseline", type=LocalPath(), metavar="RUN_DIR", help="Compare with this earlier run."),
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
    option(
        "--workers",
        type=click.IntRange(1),
        metavar="N",
        help="Micro-batches to compute at the same time.  [default: one per core]",
    ),
    option(
        "--compile",
        "compile_",
        type=click.Choice(COMPILE),
        default="auto",
        show_default=True,
        help="Compile the model first, which takes half a minute; auto means off.",
    ),
    option("--prefix", default="", metavar="STR", help="Prefix for the names of the added columns."),
    click.option(
        "--config",
        type=LocalPath(),
        callback=load_config,
        is_eager=True,
        expose_value=False,
        metavar="FILE.toml",
        help="Settings file with values for any option. Flags win over the environment (BATCHSCORE_...), and that over the file.",
    ),
)


def scoring_options(command: Command) -> Command:
    """Options that say how a file is scored."""
    for each in reversed(_SCORING_OPTIONS):
        command = each(command)
    return command
