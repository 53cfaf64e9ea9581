"""How an option is declared: every one can be set by the environment too, and a path knows what an address is."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import click

from batchscore.addresses import BUCKETS, Address, address_in, refuse_address
from batchscore.config import LATEST
from batchscore.errors import UsageError

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


class AnyPlace(LocalPath):
    """A path on this machine, or an :class:`~batchscore.addresses.Address` of some ``schemes``."""

    def __init__(self, *schemes: str) -> None:
        super().__init__()
        self.schemes = schemes or BUCKETS

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """An address as what it is; one that cannot be meant is refused."""
        found = value if isinstance(value, Address) else address_given(value, self.schemes, param, ctx)
        return click.Path.convert(self, value, param, ctx) if found is None else found


class LatestOrPath(AnyPlace):
    """The same, or the word ``latest``; a folder of that name is ``./latest``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The word as it is; a folder of that name as its whole path, so that it is not taken for the word later."""
        return _latest_or(super().convert, value, param, ctx)


class LatestOrLocal(LocalPath):
    """The same without addresses."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As :class:`LatestOrPath`."""
        return _latest_or(super().convert, value, param, ctx)


def _latest_or(convert: Callable[..., Any], value: Any, *where: Any) -> Any:
    if str(value) == LATEST and not isinstance(value, Path):
        return LATEST
    path = convert(value, *where)
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


def address_given(
    value: Any, schemes: Collection[str], param: click.Parameter | None, ctx: click.Context | None
) -> Address | None:
    """:func:`address_in` with click's own error.

    Raises:
        BadParameter: an address that cannot be meant.
    """
    try:
        return address_in(str(value), schemes)
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from error
