"""Options that say what predictions hold, and the names in their values."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import click

from batchscore.cli.declaring import LocalPath, option
from batchscore.config import PROBABILITIES
from batchscore.errors import UsageError, printable
from batchscore.pairs import pair_of
from batchscore.system.names import is_utf8

_QUOTED = r'"(?P<quoted>(?:[^"]|"")+)"'
_NAME = re.compile(rf"\s*(?:{_QUOTED}\s*|(?P<plain>[^,]*))(?=,|$)")


class Names(click.ParamType[tuple[str, ...]]):
    """Names divided by commas; from Python also a list of them."""

    name = "names"

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,  # noqa: ARG002 - click's own signature
    ) -> tuple[str, ...]:
        """The names, all different."""
        return names_of(value, param.opts[0] if param else "")


OUTPUT_OPTIONS = (
    option(
        "--partition-by",
        metavar="NAME",
        help="Divide the predictions by the values of this input column into folders, as Hive has them: day=2026-11-01/.",
    ),
    option(
        "--append-to",
        type=LocalPath(),
        metavar="DIR",
        help="Also put the finished predictions into this folder of Parquet files, as the next ones: one table of all nights. "
        "Not where a gate failed.",
    ),
    option("--prefix", default="", metavar="STR", help="Prefix for the names of the added columns."),
    option(
        "--keep-columns",
        type=Names(),
        metavar="NAME,NAME",
        help='The input columns that predictions hold; a name with a comma in quotes: id,"day, month".  [default: all]',
    ),
    option(
        "--drop-columns",
        type=Names(),
        metavar="NAME,NAME",
        help="Input columns that predictions do not hold, even if the text, the label or the id is among them.",
    ),
    option(
        "--probabilities",
        type=click.Choice(PROBABILITIES),
        default="all",
        show_default=True,
        help="Columns of probabilities: of all labels, of the predicted one (top), or none.",
    ),
    option(
        "--rename",
        multiple=True,
        metavar="NAME=NEW",
        help="What a column of predictions is called: predicted_label=sentiment. Repeatable.",
    ),
)


def names_of(value: str | Sequence[str] | None, flag: str) -> tuple[str, ...]:
    """The names in the value of an option, or in a list; one with a comma, or with spaces around it, stands in quotes, as in CSV.

    >>> names_of('id, "day, month"', "--keep-columns")
    ('id', 'day, month')

    Raises:
        UsageError: no name, an empty one, or one that is there twice.
    """
    if value is None:
        return ()
    names = tuple(_divided(value)) if isinstance(value, str) else tuple(value)
    if not names or not all(names) or len(set(names)) < len(names):
        raise UsageError(
            f'{flag} needs names divided by commas, all different; one with a comma in quotes: id,"a, b".'
        )
    return names


def _divided(text: str) -> Iterator[str]:
    """The names in a text; an empty one where there is none."""
    at = 0
    while at <= len(text):
        match = _NAME.match(text, at)
        if match is None:
            yield ""
            return
        yield match["quoted"].replace('""', '"') if match["quoted"] else match["plain"].strip()
        at = match.end() + 1


def renames_of(texts: Sequence[str]) -> dict[str, str]:
    """The names in ``NAME=NEW``; one with an ``=`` stands in quotes.

    >>> renames_of(["predicted_label=sentiment", '"a=b"=c'])
    {'predicted_label': 'sentiment', 'a=b': 'c'}

    Raises:
        UsageError: no such pair, or two new names for a column, or one for two.
    """
    found: dict[str, str] = {}
    for text in texts:
        old, new = pair_of(text, at_first=True) or ("", "")
        if not new or "\0" in new or not is_utf8(new):
            raise UsageError(f"--rename {printable(text)!r} is not NAME=NEW; try predicted_label=sentiment")
        if found.setdefault(old, new) != new:
            raise UsageError(f"--rename has two names for {printable(old)}.")
    twice = [new for new in found.values() if list(found.values()).count(new) > 1]
    if twice:
        raise UsageError(f"--rename calls two columns {printable(twice[0])}.")
    return found
