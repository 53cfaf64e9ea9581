"""How an option is declared: every one can be set by the environment too, and a path knows what an address is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from batchscore.config import LATEST
from batchscore.errors import UsageError
from batchscore.system.addresses import refuse_address

Command = TypeVar("Command", bound=Callable[..., Any])
_BETWEEN_PATHS = re.compile(rf"{os.pathsep}(?!//)")


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


class LocalPath(click.Path):
    """A path on this machine, as a :class:`pathlib.Path`."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def split_envvar_value(self, rv: str) -> list[str]:
        """Several paths with ``:`` between them; that of an address divides nothing."""
        return [each for each in _BETWEEN_PATHS.split(rv) if each]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse an address."""
        refused_as_address(str(value), param, ctx)
        return super().convert(value, param, ctx)


class LatestOrPath(LocalPath):
    """The same, or the word ``latest``; a folder of that name is ``./latest``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word as it is; a folder of that name as its whole path, so that it is not taken for the word later."""
        if str(value) == LATEST and not isinstance(value, Path):
            return LATEST
        path = super().convert(value, param, ctx)
        return path.absolute() if path == Path(LATEST) else path


def refused_as_address(text: str, param: click.Parameter | None, ctx: click.Context | None) -> None:
    """:func:`refuse_address` as click's own error.

    Raises:
        BadParameter: it is one.
    """
    try:
        refuse_address(text)
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from error
